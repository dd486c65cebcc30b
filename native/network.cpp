#include "network.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace latens {
namespace {

constexpr std::size_t stages_max = 1024;
constexpr std::size_t channels_max = std::size_t{1} << 14;
constexpr std::size_t slots_max = 16;
constexpr std::size_t size_max = std::size_t{1} << 24;
constexpr std::int64_t shift_max = 30, pixel_shift_max = 22;
constexpr std::int64_t gate_min = 2, gate_max = 11;
constexpr std::int64_t ratio_max = 16;
constexpr std::int64_t int16_min = -32768, int16_max = 32767;

std::int64_t integer(std::size_t n) {
    return static_cast<std::int64_t>(std::min<std::size_t>(n, std::numeric_limits<std::int64_t>::max()));
}

std::int64_t rounded(std::int64_t v, unsigned shift) {
    return (v + (std::int64_t{1} << (shift - 1))) >> shift;
}

// Packs outputs into units in the order of the kernels.
class Packer {
  public:
    // A unit has so many weights.
    Packer(const Kernels& kernels, std::size_t outputs, std::size_t unit) : kernels_(kernels), unit_(unit) {
        packed.outputs = outputs;
        packed.weight.assign(packed.units() * unit, 0);
        packed.start.assign(packed.units() * lanes, 0);
        packed.shift.assign(packed.units() * lanes, 1);
    }

    // Of the `first` or second weight of a pair, the pairs counted in a unit.
    std::int16_t& paired(std::size_t output, std::size_t pair, std::size_t second) {
        return packed
            .weight[output / lanes * unit_ + 2 * lanes * pair + 2 * kernels_.order[output % lanes] + second];
    }
    std::int16_t& single(std::size_t output, std::size_t row) {
        return packed.weight[output / lanes * unit_ + lanes * row + output % lanes];
    }

    Packed packed;

  private:
    const Kernels& kernels_;
    std::size_t unit_;
};

// A 3x3 product is one with nine times the inputs, each tap's filled up to whole pairs.
Packed pack_product(const Kernels& kernels, const Weights& w, const std::vector<std::size_t>& from) {
    const std::size_t taps = w.kernel * w.kernel, each = (w.inputs + 1) / 2 * 2, inputs = taps * each;
    Packer packer(kernels, w.outputs, lanes * inputs);
    for (std::size_t o = 0; o < w.outputs; ++o)
        for (std::size_t t = 0; t < taps; ++t)
            for (std::size_t i = 0; i < w.inputs; ++i) {
                const std::size_t at = t * each + i;
                (kernels.pairs ? packer.paired(o, at / 2, at % 2) : packer.single(o, at)) =
                    w.weight[(from[o] * taps + t) * w.inputs + i];
            }
    packer.packed.inputs = inputs;
    return std::move(packer.packed);
}

Packed pack_depthwise(const Kernels& kernels, const Weights& w) {
    Packer packer(kernels, w.outputs, lanes * (kernels.pairs ? 12 : 9));
    for (std::size_t o = 0; o < w.outputs; ++o)
        for (std::size_t row = 0; row < 3; ++row)
            for (std::size_t column = 0; column < 3; ++column)
                (kernels.pairs ? packer.paired(o, 2 * column + row / 2, row % 2)
                               : packer.single(o, 3 * row + column)) = w.weight[9 * o + 3 * row + column];
    return std::move(packer.packed);
}

// Sums begin with the bias, and with what rounds them.
void add_start(const Kernels& kernels, const Weights& w, const std::vector<std::size_t>& from, bool rounds,
               Packed& packed) {
    for (std::size_t o = 0; o < w.outputs; ++o) {
        const std::size_t lane = o / lanes * lanes + kernels.order[o % lanes];
        const std::uint32_t half = rounds ? std::uint32_t{1} << (w.shift[from[o]] - 1) : 0;
        packed.start[lane] = static_cast<std::int32_t>(static_cast<std::uint32_t>(w.bias[from[o]]) + half);
        packed.shift[lane] = w.shift[from[o]];
    }
    packed.low = static_cast<std::int16_t>(w.low);
    packed.high = static_cast<std::int16_t>(w.high);
    packed.gate = static_cast<std::uint8_t>(w.gate);
}

std::vector<std::size_t> in_order(std::size_t count) {
    std::vector<std::size_t> order(count);
    for (std::size_t i = 0; i < count; ++i) order[i] = i;
    return order;
}

// Builds one stage after the other, and keeps the limits of what comes out of the last.
struct Builder {
    const Kernels& kernels;
    std::vector<Limits> bounds;  // of the tensor so far, by channel; empty before an input of any size
    Limits input;
    std::int64_t at = 0;
    StageKind kind = StageKind::product;

    Status refuse(Code code, Part part, std::int64_t got, std::int64_t limit) const {
        return {code, (at * 16 + static_cast<std::int64_t>(kind)) * 16 + static_cast<std::int64_t>(part), got,
                limit};
    }

    Status check_size(Part part, std::size_t channels) const {
        if (channels < 1 || channels > channels_max)
            return refuse(Code::stage_size, part, integer(channels), integer(channels_max));
        return {};
    }
    Status check_inputs(Part part, std::size_t inputs, const std::vector<Limits>& of) const {
        if (const Status s = check_size(part, inputs); !s.ok()) return s;
        if (inputs != of.size()) return refuse(Code::stage_inputs, part, integer(inputs), integer(of.size()));
        return {};
    }

    // Checks numbers and limits; `in` are those of the inputs and become those of the rounded sums, or of the
    // sums themselves.
    Status check(const Weights& w, Part part, bool depthwise, bool sums, std::vector<Limits>& in) const {
        if (const Status s = check_size(part, w.outputs); !s.ok()) return s;
        if (const Status s = check_inputs(part, depthwise ? w.outputs : w.inputs, in); !s.ok()) return s;
        if (w.kernel != 1 && w.kernel != 3) return refuse(Code::stage_kernel, part, integer(w.kernel), 3);
        const std::int64_t most = kind == StageKind::pixels ? pixel_shift_max : shift_max;
        for (std::size_t o = 0; o < w.outputs; ++o)
            if (w.shift[o] < 1 || w.shift[o] > most) return refuse(Code::stage_shift, part, w.shift[o], most);
        if (w.low < int16_min || w.low > w.high) return refuse(Code::stage_limits, part, w.low, w.high);
        if (w.high > int16_max) return refuse(Code::stage_limits, part, w.low, w.high);
        if (w.gate != 0 && (w.gate < gate_min || w.gate > gate_max))
            return refuse(Code::stage_gate, part, w.gate, gate_max);
        const std::size_t taps = w.kernel * w.kernel, inputs = depthwise ? 1 : w.inputs;
        std::vector<Limits> out(w.outputs);
        for (std::size_t o = 0; o < w.outputs; ++o) {
            std::int64_t low = w.bias[o], high = w.bias[o];
            for (std::size_t t = 0; t < taps; ++t)
                for (std::size_t i = 0; i < inputs; ++i) {
                    const std::int64_t weight = w.weight[(o * taps + t) * inputs + i];
                    const Limits& of = in[depthwise ? o : i];
                    // All but the one in the middle may lie outside, where there is zero.
                    const bool outside = taps > 1 && t != taps / 2;
                    const std::int64_t one = weight * of.low, other = weight * of.high;
                    const std::int64_t nothing = outside ? 0 : one;
                    low += std::min({one, other, nothing});
                    high += std::max({one, other, nothing});
                }
            const std::int64_t half = std::int64_t{1} << (w.shift[o] - 1);
            for (const std::int64_t sum : {low + half, high + half})
                if (sum < std::numeric_limits<std::int32_t>::min() ||
                    sum > std::numeric_limits<std::int32_t>::max())
                    return refuse(Code::stage_bound, part, sum, integer(o));
            out[o] = sums ? Limits{low, high} : Limits{rounded(low, w.shift[o]), rounded(high, w.shift[o])};
            if (sums) continue;
            out[o] = {std::clamp(out[o].low, w.low, w.high), std::clamp(out[o].high, w.low, w.high)};
            if (w.gate > 0)
                out[o] = {-(279 * (std::int64_t{1} << w.gate) / 1000) - 2,
                          std::max<std::int64_t>(out[o].high, 0)};
        }
        in = std::move(out);
        return {};
    }

    Status product(const Weights& w, Part part, Finish finish, std::vector<Limits>& in,
                   Packed& packed) const {
        if (const Status s = check(w, part, false, finish == Finish::sums, in); !s.ok()) return s;
        std::vector<std::size_t> from = in_order(w.outputs);
        // Sums of pixels in the order of samples: row, column, colour.
        if (finish == Finish::sums)
            for (std::size_t o = 0; o < w.outputs; ++o) from[o] = o % 3 * 64 + o / 3;
        packed = pack_product(kernels, w, from);
        add_start(kernels, w, from, finish != Finish::sums, packed);
        packed.finish = finish == Finish::limit && w.gate > 0 ? Finish::gate : finish;
        return {};
    }

    Status depthwise(const Weights& w, Part part, std::vector<Limits>& in, Packed& packed) const {
        if (const Status s = check(w, part, true, false, in); !s.ok()) return s;
        packed = pack_depthwise(kernels, w);
        add_start(kernels, w, in_order(w.outputs), true, packed);
        return {};
    }

    Status block(const StageForm& form, Network::Stage& stage) {
        const auto& [pw_in, dw, pw_out, ffn_in, ffn_out] = form.parts;
        const std::vector<Limits> any(bounds.size());
        const auto same = [&](const Weights& w, Part part) -> Status {
            if (w.outputs == any.size()) return {};
            return refuse(Code::stage_outputs, part, integer(w.outputs), integer(any.size()));
        };
        const auto point = [&](const Weights& w, Part part) -> Status {
            if (w.kernel == 1) return {};
            return refuse(Code::stage_kernel, part, integer(w.kernel), 1);
        };
        std::vector<Limits> way = bounds;
        if (const Status s = point(pw_in, Part::pw_in); !s.ok()) return s;
        if (const Status s = product(pw_in, Part::pw_in, Finish::limit, way, stage.parts[0]); !s.ok())
            return s;
        if (const Status s = depthwise(dw, Part::dw, way, stage.parts[1]); !s.ok()) return s;
        if (const Status s = point(pw_out, Part::pw_out); !s.ok()) return s;
        if (const Status s = same(pw_out, Part::pw_out); !s.ok()) return s;
        if (const Status s = product(pw_out, Part::pw_out, Finish::add, way, stage.parts[2]); !s.ok())
            return s;
        way = any;
        if (const Status s = point(ffn_in, Part::ffn_in); !s.ok()) return s;
        if (const Status s = product(ffn_in, Part::ffn_in, Finish::limit, way, stage.parts[3]); !s.ok())
            return s;
        if (const Status s = point(ffn_out, Part::ffn_out); !s.ok()) return s;
        if (const Status s = same(ffn_out, Part::ffn_out); !s.ok()) return s;
        if (const Status s = product(ffn_out, Part::ffn_out, Finish::add, way, stage.parts[4]); !s.ok())
            return s;
        bounds = any;
        return {};
    }

    Status shuffle(std::int64_t r, bool up) {
        if (r < 1 || r > ratio_max) return refuse(Code::stage_ratio, Part::whole, r, ratio_max);
        const auto square = static_cast<std::size_t>(r * r);
        std::vector<Limits> out;
        if (up) {
            if (bounds.size() % square != 0)
                return refuse(Code::stage_multiple, Part::whole, integer(bounds.size()), integer(square));
            for (std::size_t c = 0; c < bounds.size(); c += square) {
                Limits all = bounds[c];
                for (std::size_t i = 1; i < square; ++i)
                    all = {std::min(all.low, bounds[c + i].low), std::max(all.high, bounds[c + i].high)};
                out.push_back(all);
            }
        } else {
            if (const Status s = check_size(Part::whole, bounds.size() * square); !s.ok()) return s;
            for (const Limits& limits : bounds) out.insert(out.end(), square, limits);
        }
        bounds = std::move(out);
        return {};
    }

    // What the first stage takes: that is what it says.
    Status begin(const StageForm& form) {
        std::size_t channels = 0;
        switch (form.kind) {
            case StageKind::product:
            case StageKind::block:
            case StageKind::pixels:
                channels = form.parts[0].inputs;
                break;
            case StageKind::depthwise:
                channels = form.parts[0].outputs;
                break;
            case StageKind::scale:
            case StageKind::shuffle:
            case StageKind::unshuffle:
                channels = form.channels;
                break;
            case StageKind::input:
                channels = 3;
                input = {-16384, 16384};
                break;
        }
        if (const Status s = check_size(Part::whole, channels); !s.ok()) return s;
        bounds.assign(channels, input);
        return {};
    }

    Status add(const StageForm& form, bool first, bool last, Network::Stage& stage) {
        kind = form.kind;
        stage.kind = kind;
        if ((kind == StageKind::input && !first) || (kind == StageKind::pixels && !last))
            return refuse(Code::stage_place, Part::whole, 0, 0);
        if (first)
            if (const Status s = begin(form); !s.ok()) return s;
        stage.inputs = bounds.size();
        stage.number = static_cast<std::size_t>(form.number);
        Status status;
        switch (kind) {
            case StageKind::product:
                status = product(form.parts[0], Part::whole, Finish::limit, bounds, stage.parts[0]);
                stage.number = form.parts[0].kernel;
                break;
            case StageKind::depthwise:
                status = depthwise(form.parts[0], Part::whole, bounds, stage.parts[0]);
                break;
            case StageKind::block:
                status = block(form, stage);
                break;
            case StageKind::shuffle:
            case StageKind::unshuffle:
                status = shuffle(form.number, kind == StageKind::shuffle);
                break;
            case StageKind::scale:
                status = check_inputs(Part::whole, form.channels, bounds);
                if (status.ok() && (form.number < 0 || form.number >= integer(slots_max)))
                    status = refuse(Code::stage_slot, Part::whole, form.number, integer(slots_max) - 1);
                bounds.assign(bounds.size(), Limits{});
                break;
            case StageKind::pixels:
                if (form.parts[0].outputs != 192 || form.parts[0].kernel != 1)
                    return refuse(Code::stage_outputs, Part::whole, integer(form.parts[0].outputs), 192);
                status = product(form.parts[0], Part::whole, Finish::sums, bounds, stage.parts[0]);
                if (status.ok()) stage.shift = form.parts[0].shift[0];
                stage.number = 8;
                break;
            case StageKind::input:
                stage.number = 8;
                status = shuffle(8, false);
                break;
        }
        stage.outputs = kind == StageKind::pixels ? 3 : bounds.size();
        stage.bounds = bounds;
        return status;
    }
};

}  // namespace

Status Network::build(const std::vector<StageForm>& forms, Limits limits,
                      std::shared_ptr<const Network>& result) {
    if (forms.empty() || forms.size() > stages_max)
        return {Code::network_stages, 0, integer(forms.size()), integer(stages_max)};
    if (limits.low < int16_min || limits.low > limits.high || limits.high > int16_max)
        return {Code::network_limits, 0, limits.low, limits.high};
    auto made = std::make_shared<Network>();
    if (const Status s = choose_kernels(made->kernels_); !s.ok()) return s;
    Builder builder{*made->kernels_, {}, limits};
    made->limits_ = limits;
    for (std::size_t i = 0; i < forms.size(); ++i) {
        Stage stage{};
        builder.at = integer(i);
        if (const Status s = builder.add(forms[i], i == 0, i + 1 == forms.size(), stage); !s.ok()) return s;
        if (stage.kind == StageKind::scale) made->slots_ = std::max(made->slots_, stage.number + 1);
        made->stages_.push_back(std::move(stage));
    }
    result = std::move(made);
    return {};
}

Status Network::outcome(std::size_t size, std::size_t& result) const {
    for (const Stage& stage : stages_) {
        if (size < 1 || size > size_max) return {Code::run_size, 0, integer(size), integer(size_max)};
        if (stage.kind == StageKind::unshuffle || stage.kind == StageKind::input) {
            if (size % stage.number != 0)
                return {Code::run_multiple, 0, integer(size), integer(stage.number)};
            size /= stage.number;
        } else if (stage.kind == StageKind::shuffle || stage.kind == StageKind::pixels) {
            size *= stage.number;
        }
    }
    result = size;
    return {};
}

}  // namespace latens
