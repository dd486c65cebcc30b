#include "model.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>

#include "container.hpp"

namespace latens {
namespace {

constexpr std::int32_t z_max = 1023;
constexpr unsigned z_bits = 6, log_bits = 16, m_bits = 14;
constexpr std::size_t indexes_count = 64, stages_max = 256;
constexpr std::size_t padded_tables_max = std::size_t{1} << 24;  // entries
constexpr std::int64_t table_size_max = 65537;

bool always() {
    return true;
}

Outcome wrong(const std::string& message) {
    return failed(LTN_ERROR_MODEL, message);
}

// Takes arrays of a file, each checked.
class Taker {
  public:
    explicit Taker(const WeightsFile& weights) : weights_(weights) {}

    bool has(const std::string& name) const { return weights_.arrays.count(name) > 0; }
    std::size_t taken() const { return taken_; }

    // `values` stay where they are as long as this exists.
    template <class T>
    Outcome take(const std::string& name, Type type, std::size_t dimensions, const T*& values,
                 std::vector<std::size_t>& shape) {
        const auto found = weights_.arrays.find(name);
        if (found == weights_.arrays.end()) return wrong(name + " is missing");
        const Array& array = found->second;
        if (array.type != type || array.shape.size() != dimensions || array.content.size == 0)
            return wrong(name + " is not of the type and dimensions that were expected");
        shape.assign(array.shape.begin(), array.shape.end());
        ++taken_;
        const std::uint8_t* data = array.content.data;
        if (std::endian::native == std::endian::little &&
            reinterpret_cast<std::uintptr_t>(data) % alignof(T) == 0) {
            values = reinterpret_cast<const T*>(data);
            return {};
        }
        const std::size_t count = array.content.size / sizeof(T);
        copies_.emplace_back(count * sizeof(T) + alignof(std::max_align_t));
        auto* to = reinterpret_cast<T*>(copies_.back().data());
        for (std::size_t i = 0; i < count; ++i) {
            std::uint64_t v = 0;
            for (std::size_t b = 0; b < sizeof(T); ++b) v |= std::uint64_t{data[i * sizeof(T) + b]} << 8 * b;
            to[i] = static_cast<T>(v);
        }
        values = to;
        return {};
    }

    Outcome integers(const std::string& name, std::size_t dimensions, Int32s& values,
                     std::vector<std::size_t>& shape) {
        const std::int32_t* data = nullptr;
        LATENS_TRY(take(name, Type::i32, dimensions, data, shape));
        std::size_t count = 1;
        for (const std::size_t n : shape) count *= n;
        values.assign(data, data + count);
        return {};
    }
    Outcome integers(const std::string& name, Int32s& values) {
        std::vector<std::size_t> shape;
        return integers(name, 1, values, shape);
    }

    // A constant for the shifts of pixels, which have one for all.
    const std::uint8_t* repeated(std::uint8_t value, std::size_t count) {
        copies_.emplace_back(count, value);
        return copies_.back().data();
    }

  private:
    const WeightsFile& weights_;
    std::size_t taken_ = 0;
    std::deque<Buffer> copies_;
};

// Reads the arrays of one network as the stages that it is built from.
class NetworkReader {
  public:
    NetworkReader(Taker& taker, std::string prefix) : taker_(taker), prefix_(std::move(prefix)) {}

    Outcome read(std::shared_ptr<const Network>& result, std::size_t& up, std::size_t& down) {
        Int32s limits;
        LATENS_TRY(taker_.integers(prefix_ + ".limits", limits));
        if (limits.size() != 2) return wrong(prefix_ + ".limits has not 2 numbers");
        std::vector<StageForm> forms;
        up = down = 1;
        while (taker_.has(stage(forms.size()) + ".form")) {
            if (forms.size() == stages_max) return wrong(prefix_ + " has too many stages");
            StageForm form;
            LATENS_TRY(read_stage(stage(forms.size()), form));
            const bool ratio = form.kind == StageKind::shuffle || form.kind == StageKind::unshuffle;
            if (ratio && (form.number < 1 || form.number > 16))
                return wrong(prefix_ + ": a ratio is not 1 to 16");
            if (form.kind == StageKind::shuffle) up *= static_cast<std::size_t>(form.number);
            if (form.kind == StageKind::unshuffle) down *= static_cast<std::size_t>(form.number);
            if (form.kind == StageKind::pixels) up *= 8;
            if (form.kind == StageKind::input) down *= 8;
            if (up > 4096 || down > 4096) return wrong(prefix_ + ": it scales too much");
            while (up % 2 == 0 && down % 2 == 0) {
                up /= 2;
                down /= 2;
            }
            forms.push_back(form);
        }
        const Status status = Network::build(forms, {limits[0], limits[1]}, result);
        return outcome_of(status, LTN_ERROR_MODEL, prefix_ + ": ");
    }

  private:
    std::string stage(std::size_t number) const { return prefix_ + "." + std::to_string(number); }

    Outcome form_of(const std::string& name, Int32s& form, std::size_t numbers) {
        LATENS_TRY(taker_.integers(name + ".form", form));
        if (form.size() != 1 + numbers)
            return wrong(name + ".form has a number of numbers that is not known");
        return {};
    }

    Outcome weights(const std::string& name, StageKind kind, Weights& w, const Int32s& form) {
        const std::size_t dimensions = kind == StageKind::product ? 4 : kind == StageKind::depthwise ? 3 : 2;
        std::vector<std::size_t> shape, count;
        LATENS_TRY(taker_.take(name + ".weight", Type::i16, dimensions, w.weight, shape));
        w.outputs = shape[0];
        w.inputs = kind == StageKind::depthwise ? 1 : shape.back();
        w.kernel = kind == StageKind::pixels ? 1 : shape[1];
        if (kind != StageKind::pixels && shape[1] != shape[2])
            return wrong(name + ": its kernel is not square");
        if (kind == StageKind::depthwise && shape[1] != 3) return wrong(name + ": its kernel is not 3x3");
        LATENS_TRY(taker_.take(name + ".bias", Type::i32, 1, w.bias, count));
        if (count[0] != w.outputs) return wrong(name + ".bias is not of the right size");
        if (kind == StageKind::pixels) {
            if (form[1] < 0 || form[1] > 255) return wrong(name + ": a shift is not 1 to 22");
            w.shift = taker_.repeated(static_cast<std::uint8_t>(form[1]), w.outputs);
            return {};
        }
        LATENS_TRY(taker_.take(name + ".shift", Type::u8, 1, w.shift, count));
        if (count[0] != w.outputs) return wrong(name + ".shift is not of the right size");
        if (kind == StageKind::product) {
            w.low = form[1];
            w.high = form[2];
            w.gate = form[3];
        }
        return {};
    }

    Outcome read_stage(const std::string& name, StageForm& result) {
        Int32s form;
        LATENS_TRY(taker_.integers(name + ".form", form));
        if (form[0] < 0 || form[0] > static_cast<std::int32_t>(StageKind::input))
            return wrong(name + ": a stage of a kind that is not known");
        result.kind = static_cast<StageKind>(form[0]);
        static constexpr std::size_t numbers[] = {3, 0, 0, 1, 1, 2, 1, 0};
        if (form.size() != 1 + numbers[form[0]])
            return wrong(name + ".form has a number of numbers that is not known");
        switch (result.kind) {
            case StageKind::product:
            case StageKind::depthwise:
            case StageKind::pixels:
                return weights(name, result.kind, result.parts[0], form);
            case StageKind::block: {
                static constexpr const char* parts[] = {"pw_in", "dw", "pw_out", "ffn_in", "ffn_out"};
                for (std::size_t i = 0; i < result.parts.size(); ++i) {
                    const std::string part = name + "." + parts[i];
                    const StageKind kind = i == 1 ? StageKind::depthwise : StageKind::product;
                    Int32s own;
                    LATENS_TRY(form_of(part, own, kind == StageKind::product ? 3 : 0));
                    if (own[0] != static_cast<std::int32_t>(kind)) return wrong(part + " is of another kind");
                    LATENS_TRY(weights(part, kind, result.parts[i], own));
                }
                return {};
            }
            case StageKind::shuffle:
            case StageKind::unshuffle:
                result.number = form[1];
                return {};
            case StageKind::scale:
                if (form[1] < 1) return wrong(name + ": a scale without channels");
                result.channels = static_cast<std::size_t>(form[1]);
                result.number = form[2];
                return {};
            case StageKind::input:
                return {};
        }
        return {};
    }

    Taker& taker_;
    std::string prefix_;
};

struct TableArrays {
    Int32s entries, sizes, offsets;

    Outcome read(Taker& taker, const std::string& prefix, std::size_t count) {
        LATENS_TRY(taker.integers(prefix + ".entries", entries));
        LATENS_TRY(taker.integers(prefix + ".sizes", sizes));
        LATENS_TRY(taker.integers(prefix + ".offsets", offsets));
        if (sizes.size() != count || offsets.size() != count)
            return wrong("model: its tables " + prefix + " do not fit its networks");
        std::int64_t sum = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const std::int32_t size = sizes[i];
            if (size < 3 || size > table_size_max)
                return wrong("tables " + prefix + ": a size is out of range");
            const std::int64_t last = std::int64_t{offsets[i]} + size - 3;  // before the escape
            if (offsets[i] < INT16_MIN || last > INT16_MAX)
                return wrong("tables " + prefix + ": symbols of table " + std::to_string(i) +
                             " leave 16 bits");
            sum += size;
        }
        if (sum != static_cast<std::int64_t>(entries.size()))
            return wrong("tables " + prefix + ": the sizes do not add up to the number of entries");
        return {};
    }

    // Tables `first` to before `end`; `at` is the place of the first one's entries and moves behind the last.
    Outcome build(std::size_t first, std::size_t end, std::size_t& at,
                  std::shared_ptr<const Tables>& result) const {
        const auto stride =
            static_cast<std::size_t>(*std::max_element(sizes.begin() + static_cast<std::ptrdiff_t>(first),
                                                       sizes.begin() + static_cast<std::ptrdiff_t>(end)));
        const std::size_t count = end - first;
        if (count > padded_tables_max / stride) return failed(LTN_ERROR_LIMIT, "tables are too large");
        Int32s rows(count * stride);
        for (std::size_t i = 0; i < count; ++i) {
            const auto size = static_cast<std::size_t>(sizes[first + i]);
            std::copy_n(entries.begin() + static_cast<std::ptrdiff_t>(at), size,
                        rows.begin() + static_cast<std::ptrdiff_t>(i * stride));
            at += size;
        }
        return outcome_of(
            Tables::build(rows.data(), sizes.data() + first, offsets.data() + first, count, stride, result),
            LTN_ERROR_MODEL);
    }
};

std::uint32_t checksum_of(const Int16s& z, const Int16s& y, std::size_t positions, std::size_t channels) {
    Buffer bytes(2 * std::max(z.size(), positions));
    const auto put_at = [&](std::size_t i, std::int16_t v) {
        bytes[2 * i] = static_cast<std::uint8_t>(v);
        bytes[2 * i + 1] = static_cast<std::uint8_t>(static_cast<std::uint16_t>(v) >> 8);
    };
    for (std::size_t i = 0; i < z.size(); ++i) put_at(i, z[i]);
    std::uint32_t crc = crc32({bytes.data(), 2 * z.size()});
    for (std::size_t c = 0; c < channels; ++c) {
        for (std::size_t p = 0; p < positions; ++p) put_at(p, y[p * channels + c]);
        crc = crc32({bytes.data(), 2 * positions}, crc);
    }
    return crc;
}

// z (C, h, w) as networks take it, (h, w, C).
Int16s as_positions(const Int16s& z, std::size_t positions, std::size_t channels) {
    Int16s result(z.size());
    for (std::size_t c = 0; c < channels; ++c)
        for (std::size_t p = 0; p < positions; ++p)
            result[p * channels + c] =
                static_cast<std::int16_t>(std::clamp<std::int32_t>(z[c * positions + p], -z_max, z_max));
    return result;
}

Int16s channel_indexes(std::size_t channels, std::size_t positions) {
    Int16s result(channels * positions);
    for (std::size_t c = 0; c < channels; ++c)
        std::fill_n(result.begin() + static_cast<std::ptrdiff_t>(c * positions), positions,
                    static_cast<std::int16_t>(c));
    return result;
}

Ints ints(const Int16s& values) {
    return {values.data(), Kind::int16, values.size()};
}
Ints ints(const std::vector<std::uint8_t>& values) {
    return {values.data(), Kind::uint8, values.size()};
}

double between(double x, const std::vector<double>& xs, const std::vector<double>& ys) {
    const auto after = std::upper_bound(xs.begin(), xs.end(), x) - xs.begin();
    const auto last = static_cast<std::ptrdiff_t>(xs.size()) - 2;
    const auto i = static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(after - 1, 0, last));
    const double share = (x - xs[i]) / (xs[i + 1] - xs[i]);
    return std::clamp(ys[i] + share * (ys[i + 1] - ys[i]), ys.front(), ys.back());
}

// Both rise, from 0 to their last value.
bool is_scale(const std::vector<double>& values, double last) {
    if (values.size() < 2 || values.size() > 1001 || values.front() != 0 || values.back() != last)
        return false;
    for (std::size_t i = 1; i < values.size(); ++i)
        if (!(values[i - 1] < values[i])) return false;
    return true;
}

constexpr const char* net_names[] = {"h_scale", "h_mean", "mean_0", "context", "g_s", "g_a", "h_a"};
constexpr const char* factor_names[] = {"mean_scale", "context_scale", "input_scale", "out_scale", "gain"};
// Positions of the result for each of the input, as a fraction.
constexpr std::size_t scalings[][2] = {{4, 1}, {4, 1}, {1, 1}, {1, 1}, {16, 1}, {1, 16}, {1, 4}};

bool decides(const std::string& name) {
    return name.rfind("z.", 0) == 0 || name.rfind("y.", 0) == 0 || name.rfind("network.h_scale.", 0) == 0;
}

// SHA-256 over every integer that decides which symbols a stream stands for.
std::string entropy_hash(const WeightsFile& weights) {
    Sha256 digest;
    digest.add("latens entropy 2");
    for (const auto& [name, array] : weights.arrays) {
        if (!decides(name)) continue;
        std::string shape;
        for (const std::uint64_t n : array.shape) {
            if (!shape.empty()) shape += ',';
            shape += std::to_string(n);
        }
        digest.add("\n" + name + " " + type_names[static_cast<std::size_t>(array.type)].numpy + " " + shape +
                   "\n");
        digest.add(array.content);
    }
    return digest.finish();
}

}  // namespace

Outcome Model::build(const WeightsFile& weights, std::shared_ptr<const Model>& result) {
    const auto about = [&](const char* key) -> std::string {
        const auto found = weights.metadata.find(key);
        return found == weights.metadata.end() ? "" : found->second;
    };
    if (about("format") != "latens-weights-2") return wrong("not a weights file of this release");
    if (about("family") != "pictures")
        return wrong("this library runs models of the family pictures, not of \"" +
                     about("family").substr(0, 40) + "\"");
    auto made = std::make_shared<Model>();
    Model& m = *made;
    m.name_ = about("name");
    if (!name_is_valid(m.name_)) return wrong("its name is not one that files can carry");
    m.weights_id_ = weights.id;
    m.entropy_id_ = entropy_hash(weights);
    Taker taker(weights);
    std::size_t up = 0, down = 0;
    const bool encodes = taker.has("z_offset") || taker.has("network.g_a.limits");
    for (std::size_t i = 0; i < nets; ++i) {
        if (i >= g_a && !encodes) break;
        const std::string prefix = std::string("network.") + net_names[i];
        LATENS_TRY(NetworkReader(taker, prefix).read(m.networks_[i], up, down));
        if (up != scalings[i][0] || down != scalings[i][1])
            return wrong(prefix + ": it does not scale as it must");
    }
    m.channels_ = m.networks_[h_scale]->outputs();
    m.hyper_ = m.networks_[h_scale]->inputs();
    m.inner_ = m.networks_[h_mean]->outputs();
    const std::size_t sizes[nets][2] = {{m.hyper_, m.channels_}, {m.hyper_, m.inner_},
                                        {m.inner_, m.channels_}, {m.channels_ + m.inner_, m.channels_},
                                        {m.channels_, 3},        {3, m.channels_},
                                        {m.channels_, m.hyper_}};
    for (std::size_t i = 0; i < nets; ++i) {
        const Network* n = m.networks_[i].get();
        if (n == nullptr) continue;
        const bool input = n->takes_samples(), pixels = n->gives_samples();
        if (input != (i == g_a) || pixels != (i == g_s) || (!input && n->inputs() != sizes[i][0]) ||
            (!pixels && n->outputs() != sizes[i][1]) || n->slots() != (i == g_s ? 1u : 0u))
            return wrong(std::string(net_names[i]) + ": its sizes do not fit the model's");
    }
    std::vector<std::size_t> shape;
    for (std::size_t i = 0; i < factors; ++i) {
        if (i == gain && !encodes) break;
        Group& f = m.factors_[i];
        const std::string name = std::string("factor.") + factor_names[i];
        LATENS_TRY(taker.integers(name, 2, f.logs, shape));
        f.knots = shape[0];
        f.channels = shape[1];
        if (f.knots < 2 || (i != out_scale && f.channels != m.channels_))
            return wrong(name + ": it does not fit the model");
        for (const std::int32_t log : f.logs)
            if (log >> log_bits < -32 || log >> log_bits > 29)
                return wrong(name + ": a factor is out of range");
    }
    TableArrays z, y;
    if (encodes) {
        LATENS_TRY(taker.integers("z_offset", 2, m.z_offset_, shape));
        if (shape[1] != m.hyper_ || shape[0] < 2) return wrong("z_offset does not fit the model");
        m.knots_ = shape[0];
    } else if (const auto found = weights.arrays.find("z.sizes"); found != weights.arrays.end()) {
        m.knots_ = static_cast<std::size_t>(found->second.count()) / m.hyper_;
        if (m.knots_ < 1) return wrong("z.sizes does not fit the model");
    }
    if (m.knots_ > 65536) return failed(LTN_ERROR_LIMIT, "model: it has too many tables");
    LATENS_TRY(z.read(taker, "z", m.knots_ * m.hyper_));
    LATENS_TRY(y.read(taker, "y", indexes_count));
    std::size_t at = 0;
    m.z_tables_.resize(m.knots_);
    for (std::size_t k = 0; k < m.knots_; ++k)
        LATENS_TRY(z.build(k * m.hyper_, (k + 1) * m.hyper_, at, m.z_tables_[k]));
    at = 0;
    LATENS_TRY(y.build(0, indexes_count, at, m.y_tables_));
    std::size_t others = 0;
    for (const auto& [name, array] : weights.arrays) others += name.rfind("float.", 0) == 0 ? 1 : 0;
    if (taker.taken() + others != weights.arrays.size())
        return wrong("it has arrays that are not known to this library");
    m.scale_qualities_ = {0, 100};
    m.scale_levels_ = {0, 1};
    if (weights.metadata.count("scale") > 0) {
        std::map<std::string, std::vector<double>> lists;
        LATENS_TRY(read_number_lists(about("scale"), lists));
        m.scale_qualities_ = lists["qualities"];
        m.scale_levels_ = lists["levels"];
        if (!is_scale(m.scale_qualities_, 100) || !is_scale(m.scale_levels_, 1) ||
            m.scale_qualities_.size() != m.scale_levels_.size())
            return wrong("its scale of qualities is damaged");
    }
    result = std::move(made);
    return {};
}

unsigned Model::level(double quality) const {
    const double level = between(std::clamp(quality, 0.0, 100.0), scale_qualities_, scale_levels_);
    return static_cast<unsigned>(std::nearbyint(level * quality_max));
}

std::size_t Model::knot(unsigned quality) const {
    return (std::size_t{2} * quality * (knots_ - 1) + quality_max) / (2 * quality_max);
}

FactorsAt Model::factors_at(Factor factor, unsigned quality) const {
    // Powers in float64 are off by less than 2^-52, and no entry lies that near to a half.
    static const std::array<std::int64_t, 257> powers = [] {
        std::array<std::int64_t, 257> table;
        for (std::size_t j = 0; j < table.size(); ++j)
            table[j] = static_cast<std::int64_t>(std::exp2(m_bits + static_cast<double>(j) / 256) + 0.5);
        return table;
    }();
    const Group& f = factors_[factor];
    const std::size_t place = quality * (f.knots - 1), knot = std::min(place / quality_max, f.knots - 2);
    const auto rest = static_cast<std::int64_t>(place - knot * quality_max);
    const auto floor_divided = [](std::int64_t a, std::int64_t b) { return a / b - (a % b < 0 ? 1 : 0); };
    FactorsAt result;
    for (std::size_t c = 0; c < f.channels; ++c) {
        const std::int64_t low = f.logs[knot * f.channels + c], high = f.logs[(knot + 1) * f.channels + c];
        const std::int64_t log =
            low + floor_divided((high - low) * rest + quality_max / 2, std::int64_t{quality_max});
        const auto fraction = static_cast<std::size_t>(log & ((1 << log_bits) - 1));
        const std::int64_t base = powers[fraction >> 8], step = powers[(fraction >> 8) + 1] - base;
        const std::int64_t value = base + ((step * static_cast<std::int64_t>(fraction & 255) + 128) >> 8);
        result.m.push_back(static_cast<std::int32_t>(std::min<std::int64_t>(value, 32767)));
        result.s.push_back(static_cast<std::int32_t>(m_bits - (log >> log_bits)));
    }
    return result;
}

Outcome Model::run(Net net, const std::int16_t* x, std::size_t height, std::size_t width, Int16s& out) const {
    const auto& network = networks_[net];
    std::size_t rows = 0, columns = 0;
    LATENS_TRY(outcome_of(network->outcome(height, rows), LTN_ERROR_MODEL));
    LATENS_TRY(outcome_of(network->outcome(width, columns), LTN_ERROR_MODEL));
    out.resize(rows * columns * network->outputs());
    return outcome_of(latens::run(network, x, height, width, {}, {}, out.data(), always), LTN_ERROR_MODEL);
}

Outcome Model::indexes(const Int16s& z, std::size_t height, std::size_t width,
                       std::vector<std::uint8_t>& result) const {
    Int16s found;
    LATENS_TRY(run(h_scale, z.data(), height, width, found));
    result.resize(found.size());
    std::transform(found.begin(), found.end(), result.begin(),
                   [](std::int16_t v) { return static_cast<std::uint8_t>(v); });
    return {};
}

Outcome Model::values(const Int16s& z, std::size_t height, std::size_t width, unsigned quality,
                      const TileSymbols& tile, Int32s& result) const {
    result.resize(16 * height * width * channels_);
    const FactorsAt means = factors_at(mean_scale, quality), contexts = factors_at(context_scale, quality);
    const TwoSteps model{networks_[h_mean], networks_[mean_0], networks_[context], means.scale(),
                         contexts.scale()};
    return outcome_of(two_steps(model, z.data(), height, width, tile, result.data(), always),
                      LTN_ERROR_MODEL);
}

Int16s Model::entry_of(const Int32s& y_hat, unsigned quality) const {
    Int16s result(y_hat.size());
    rescale(y_hat.data(), y_hat.size() / channels_, factors_at(input_scale, quality).scale(), -32768, 32767,
            result.data());
    return result;
}

Outcome Model::decode(View stream, std::size_t height, std::size_t width, unsigned quality,
                      unsigned skip_below, unsigned lanes, Latents& result) const {
    const std::size_t h = height / hyper_side, w = width / hyper_side;
    LaneDecoder decoder;
    LATENS_TRY(outcome_of(decoder.open(stream.data, stream.size, lanes), LTN_ERROR_CODER));
    const Int16s channels = channel_indexes(hyper_, h * w);
    Int16s z(channels.size());
    LATENS_TRY(outcome_of(decoder.decode(ints(channels), *z_tables_[knot(quality)], z.data(), always, 0),
                          LTN_ERROR_CODER));
    const Int16s tamed = as_positions(z, h * w, hyper_);
    std::vector<std::uint8_t> index;
    LATENS_TRY(indexes(tamed, h, w, index));
    Int16s y(index.size());
    LATENS_TRY(
        outcome_of(decoder.decode(ints(index), *y_tables_, y.data(), always, skip_below), LTN_ERROR_CODER));
    LATENS_TRY(outcome_of(decoder.finish(), LTN_ERROR_CODER));
    result.checksum = checksum_of(z, y, 16 * h * w, channels_);
    index = {};
    Int32s y_hat;
    LATENS_TRY(values(tamed, h, w, quality, {.given = y.data()}, y_hat));
    result.entry = entry_of(y_hat, quality);
    return {};
}

Outcome Model::synthesis(std::size_t width, unsigned quality, Samples samples, Stream& result) const {
    const FactorsAt scale = factors_at(out_scale, quality);
    return outcome_of(result.open(networks_[g_s], width, {scale.scale()}, samples), LTN_ERROR_MODEL);
}

Outcome Model::analysis(std::size_t width, Samples samples, Stream& result) const {
    if (!encodes()) return failed(LTN_ERROR_MODEL, "these weights can only decode; add those for encoding");
    return outcome_of(result.open(networks_[g_a], width, {}, samples), LTN_ERROR_MODEL);
}

std::size_t Model::memory(std::size_t positions) const {
    // Symbols, indexes and four tensors of 16 bits, two of 32, and the features.
    return positions * (channels_ * 20 + inner_ * 6);
}

Outcome Model::hyper(const Int32s& y, std::size_t height, std::size_t width, unsigned quality,
                     Int16s& z) const {
    Int16s tamed(y.size()), found;
    tame(y.data(), y.size(), tamed.data());
    LATENS_TRY(run(h_a, tamed.data(), height, width, found));
    const std::size_t positions = found.size() / hyper_;
    const double place = static_cast<double>(quality) * static_cast<double>(knots_ - 1) / quality_max;
    const std::size_t k = std::min(static_cast<std::size_t>(place), knots_ - 2);
    const double share = place - static_cast<double>(k);
    z.resize(found.size());
    for (std::size_t c = 0; c < hyper_; ++c) {
        const double offset =
            (1 - share) * z_offset_[k * hyper_ + c] + share * z_offset_[(k + 1) * hyper_ + c];
        const auto rounded = static_cast<std::int64_t>(std::nearbyint(offset));
        for (std::size_t p = 0; p < positions; ++p) {
            const std::int64_t v = (found[p * hyper_ + c] + rounded + (1 << (z_bits - 1))) >> z_bits;
            z[c * positions + p] = static_cast<std::int16_t>(std::clamp<std::int64_t>(v, -z_max, z_max));
        }
    }
    return {};
}

Outcome Model::encode(const Int16s& features, std::size_t height, std::size_t width, unsigned quality,
                      unsigned lanes, CodedTile& result) const {
    const std::size_t H = height / latent_side, W = width / latent_side, h = H / 4, w = W / 4;
    Int32s y(features.size()), y_hat;
    rescale(features.data(), H * W, factors_at(gain, quality).scale(), -latent_max, latent_max, y.data());
    Int16s z;
    LATENS_TRY(hyper(y, H, W, quality, z));
    const Int16s tamed = as_positions(z, h * w, hyper_);
    std::vector<std::uint8_t> index;
    LATENS_TRY(indexes(tamed, h, w, index));
    Int16s symbols(y.size());
    LATENS_TRY(values(tamed, h, w, quality,
                      {.found = symbols.data(), .y = y.data(), .indexes = index.data(), .skip = skip},
                      y_hat));
    Backlog backlog(lane_escape_nibbles);
    LATENS_TRY(outcome_of(
        backlog.push(ints(z), ints(channel_indexes(hyper_, h * w)), z_tables_[knot(quality)], 0, always),
        LTN_ERROR_CODER));
    LATENS_TRY(
        outcome_of(backlog.push(ints(symbols), ints(index), y_tables_, skip, always), LTN_ERROR_CODER));
    // A lane costs 5 bytes and pays in speed, which a short stream does not need.
    for (unsigned n = 8; lanes == 0; n /= 2)
        if (n == 1 || backlog.size() >= std::size_t{n} << 17) lanes = n;
    Bytes bytes;
    LATENS_TRY(outcome_of(backlog.encode_lanes(lanes, bytes, always), LTN_ERROR_CODER));
    result.stream.assign(bytes.data, bytes.data + bytes.size);
    result.lanes = lanes;
    result.latents.checksum = checksum_of(z, symbols, H * W, channels_);
    result.latents.entry = entry_of(y_hat, quality);
    return {};
}

}  // namespace latens
