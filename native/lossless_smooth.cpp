#include "lossless_smooth.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__GNUC__) && defined(__x86_64__) && defined(__GLIBC__) && !defined(LATENS_PORTABLE)
#define LATENS_WIDER __attribute__((target_clones("avx2", "default")))
#else
#define LATENS_WIDER
#endif

namespace latens {

void normalize(const std::uint32_t* weights, std::size_t count, std::uint32_t* frequencies) {
    std::uint32_t sum = 0, used = 0;
    std::size_t largest = 0;
    for (std::size_t i = 0; i < count; ++i) {
        sum += weights[i];
        if (weights[i] > weights[largest]) largest = i;
    }
    for (std::size_t i = 0; i < count; ++i) {
        frequencies[i] = weights[i] == 0 ? 0 : std::max(weights[i] * 65536u / sum, 1u);
        used += frequencies[i];
    }
    frequencies[largest] += 65536u - used;
}

namespace {

// Products and sums of samples: 8 bits with coefficients of 14 stay within 32 bits.
template <class Sample>
struct Wide;
template <>
struct Wide<std::int16_t> {
    using Type = std::int32_t;
};
template <>
struct Wide<std::int32_t> {
    using Type = std::int64_t;
};

// What can be known of a part of a row before its first sample is: for each sample the predictor's sum
// without the two taps to the left, and the expected size of the residual without those. In units of the
// coefficients.
template <class Sample>
struct RowSums {
    explicit RowSums(std::size_t width) : prediction(width + 16), size(width + 16) {}
    std::vector<typename Wide<Sample>::Type> prediction;
    std::vector<std::int32_t> size;
};

// Sums of blocks of 8 samples.
template <class Sample>
LATENS_INLINE void add_products(const Sample* at, const Sample* above, std::int32_t c,
                                typename Wide<Sample>::Type* sums) {
    using Sum = typename Wide<Sample>::Type;
    for (unsigned i = 0; i < class_block; ++i)
        sums[i] += static_cast<Sum>(static_cast<Sample>(at[i] - above[i])) *
                   static_cast<Sum>(static_cast<Sample>(c));
}

template <class Sample>
LATENS_INLINE void row_sums_inline(const SmoothShape& shape, const PlaneCode& code, Planes<Sample>& planes,
                                   unsigned plane, std::size_t y, std::size_t from, std::size_t to,
                                   RowSums<Sample>& sums) {
    using Sum = typename Wide<Sample>::Type;
    const std::size_t kind = std::min(plane, 2u);
    const std::uint8_t* classes = code.map.data() + y / class_block * shape.block_columns();
    const auto rows = [&](std::vector<Plane<Sample>>& of, unsigned back, int dx, int dy) {
        Plane<Sample>& from = of[plane - back];
        return from.row(y + static_cast<std::size_t>(dy)) + dx;
    };
    const Sample* at[taps.size()];
    const Sample* above[taps.size()];
    for (std::size_t t = 2; t < tap_counts[kind]; ++t) {
        at[t] = rows(planes.samples, taps[t].plane, taps[t].dx, taps[t].dy);
        above[t] = rows(planes.samples, taps[t].plane, 0, -1);
    }
    const Sample* sizes[size_taps.size()];
    for (std::size_t t = 2; t < size_tap_counts[kind]; ++t)
        sizes[t] = rows(planes.sizes, size_taps[t].plane, size_taps[t].dx, size_taps[t].dy);
    for (std::size_t x = from; x < to; x += class_block) {
        const unsigned k = classes[x / class_block];
        const auto& c = code.coefficients[k];
        Sum prediction[class_block];
        std::int32_t size[class_block];
        for (unsigned i = 0; i < class_block; ++i) {
            prediction[i] = Sum{1} << (coefficient_bits - 1);
            size[i] = code.size_offsets[k] * 16;
        }
        for (std::size_t t = 2; t < tap_counts[kind]; ++t)
            add_products(at[t] + x, above[t] + x, c[t], prediction);
        for (std::size_t t = 2; t < size_tap_counts[kind]; ++t)
            for (unsigned i = 0; i < class_block; ++i)
                size[i] += static_cast<std::int32_t>(sizes[t][x + i]) * code.size_weights[t];
        std::copy(prediction, prediction + class_block, sums.prediction.data() + x);
        std::copy(size, size + class_block, sums.size.data() + x);
    }
}

LATENS_WIDER void row_sums(const SmoothShape& shape, const PlaneCode& code, Planes<std::int16_t>& planes,
                           unsigned plane, std::size_t y, std::size_t from, std::size_t to,
                           RowSums<std::int16_t>& sums) {
    row_sums_inline(shape, code, planes, plane, y, from, to, sums);
}
LATENS_WIDER void row_sums(const SmoothShape& shape, const PlaneCode& code, Planes<std::int32_t>& planes,
                           unsigned plane, std::size_t y, std::size_t from, std::size_t to,
                           RowSums<std::int32_t>& sums) {
    row_sums_inline(shape, code, planes, plane, y, from, to, sums);
}

// ---- tables

struct TableSymbol {
    std::uint16_t start;
    std::uint16_t more;  // frequency minus 1
    std::int32_t value;  // the residual, or the folded one without its extra bits
    std::uint8_t extra;  // number of extra bits
};

struct Table {
    std::array<std::uint16_t, max_levels + search_width> bounds;
    std::array<std::uint8_t, 64> lookup;
    std::array<TableSymbol, max_levels> symbols;
};

std::int32_t unfolded(std::uint32_t folded) {
    const auto half = static_cast<std::int32_t>((folded + 1) >> 1);
    return (folded & 1) != 0 ? half : -half;
}

Table make_table(const std::uint32_t* weights, unsigned tokens) {
    Table table{};
    std::uint32_t frequencies[max_levels];
    normalize(weights, tokens, frequencies);
    std::size_t n = 0;
    std::uint32_t start = 0;
    for (unsigned t = 0; t < tokens; ++t) {
        if (frequencies[t] == 0) continue;
        TableSymbol& symbol = table.symbols[n];
        symbol.start = static_cast<std::uint16_t>(start);
        symbol.more = static_cast<std::uint16_t>(frequencies[t] - 1);
        if (t < direct_residuals) {
            symbol.value = unfolded(t);
        } else {
            const unsigned extra = (t - direct_residuals) / 4 + 3;
            symbol.extra = static_cast<std::uint8_t>(extra);
            symbol.value = static_cast<std::int32_t>((4u | ((t - direct_residuals) & 3)) << extra);
        }
        start += frequencies[t];
        table.bounds[n++] = static_cast<std::uint16_t>(start - 1);
    }
    std::fill(table.bounds.begin() + static_cast<std::ptrdiff_t>(n), table.bounds.end(),
              std::uint16_t{0xffff});
    std::size_t first = 0;
    for (std::uint32_t i = 0; i < 64; ++i) {
        while (table.bounds[first] < i << 10) ++first;
        table.lookup[i] = static_cast<std::uint8_t>(first);
    }
    return table;
}

constexpr std::size_t fast_levels = 1024;
const std::array<std::uint8_t, fast_levels> level_table = [] {
    std::array<std::uint8_t, fast_levels> result{};
    for (std::uint32_t i = 0; i < fast_levels; ++i) result[i] = static_cast<std::uint8_t>(level_of(i));
    return result;
}();

LATENS_INLINE unsigned level_at(std::int32_t size) {
    const auto quarters = static_cast<std::uint32_t>(std::max(size, 0)) >> 6;
    return LATENS_UNLIKELY(quarters >= fast_levels) ? level_of(quarters) : level_table[quarters];
}

// ---- decoding

// One plane while it is decoded.
template <class Sample>
struct Lane {
    Lane(const SmoothShape& shape, const PlaneCode& code_, const Slice& stream)
        : code(code_), sums(shape.width), at(stream.data), end(stream.data + stream.size) {
        sound = read_state(at, end, x);
        std::vector<Table> made;
        for (const auto& weights : code.weights)
            tables.push_back(make_table(weights.data(), token_count(shape.bits)));
        for (unsigned i = 0; i < max_levels; ++i) by_level[i] = &tables[code.contexts[i]];
    }

    const PlaneCode& code;
    std::vector<Table> tables;
    std::array<const Table*, max_levels> by_level{};
    RowSums<Sample> sums;
    const std::uint8_t* at;
    const std::uint8_t* end;
    std::uint64_t x = 0;
    bool sound;
    // Of the current row:
    Sample* out = nullptr;
    Sample* sizes = nullptr;
    const Sample* above = nullptr;
    const std::uint8_t* classes = nullptr;
    std::int32_t step = 1;
};

// Samples [from, to) of a row in each of `n` planes; a processor works on all of them at once.
template <unsigned n, bool checked, class Sample>
void decode_run(Lane<Sample>* const (&lanes)[n], std::size_t from, std::size_t to, std::int32_t top) {
    using Sum = typename Wide<Sample>::Type;
    std::uint64_t states[n];
    const std::uint8_t* at[n];
    std::int32_t left[n], left2[n], size[n], size2[n];
    const auto each = [](const auto& function) LATENS_LAMBDA_INLINE {
        [&]<unsigned... i>(std::integer_sequence<unsigned, i...>) LATENS_LAMBDA_INLINE {
            (function(std::integral_constant<unsigned, i>{}), ...);
        }(std::make_integer_sequence<unsigned, n>{});
    };
    const auto start = static_cast<std::ptrdiff_t>(from);
    each([&](auto i) LATENS_LAMBDA_INLINE {
        Lane<Sample>& lane = *lanes[i];
        states[i] = lane.x;
        at[i] = lane.at;
        left[i] = lane.out[start - 1];
        left2[i] = lane.out[start - 2];
        size[i] = lane.sizes[start - 1];
        size2[i] = lane.sizes[start - 2];
    });
    for (std::size_t x = from; x < to;) {
        const std::size_t stop = std::min(to, (x / class_block + 1) * class_block);
        std::int32_t c0[n], c1[n];
        each([&](auto i) LATENS_LAMBDA_INLINE {
            const auto& c = lanes[i]->code.coefficients[lanes[i]->classes[x / class_block]];
            c0[i] = c[0];
            c1[i] = c[1];
        });
        for (; x < stop; ++x) {
            each([&](auto i) LATENS_LAMBDA_INLINE {
                Lane<Sample>& lane = *lanes[i];
                const std::int32_t above = lane.above[x];
                const Sum sum = lane.sums.prediction[x] + static_cast<Sum>(c0[i]) * (left[i] - above) +
                                static_cast<Sum>(c1[i]) * (left2[i] - above);
                const Sum bent = above + (sum >> coefficient_bits);
                const auto predicted = static_cast<std::int32_t>(std::clamp<Sum>(bent, 0, top));
                const std::int32_t expected = lane.sums.size[x] + lane.code.size_weights[0] * size[i] +
                                              lane.code.size_weights[1] * size2[i];
                const Table& table = *lane.by_level[level_at(expected)];
                std::uint64_t state = states[i];
                const auto slot = static_cast<std::uint32_t>(state & (total - 1));
                const TableSymbol& symbol =
                    table.symbols[find_symbol(table.bounds.data(), table.lookup[slot >> 10], slot)];
                state = (std::uint64_t{symbol.more} + 1) * (state >> precision) + slot - symbol.start;
                const auto refill = [&]() LATENS_LAMBDA_INLINE {
                    if constexpr (checked) {
                        if (state >= LaneLayout::lower) return;
                        if (lane.end - at[i] < 2) {
                            lane.sound = false;
                            state |= LaneLayout::lower;
                            return;
                        }
                        state = state << 16 | load_word<std::uint16_t>(at[i]);
                        at[i] += 2;
                    } else {
                        // Without a branch, as it would be mispredicted half of the time.
                        const std::uint64_t refilled = state << 16 | load_word<std::uint16_t>(at[i]);
                        const std::uint64_t low = negative_mask(state - LaneLayout::lower);
                        state ^= (state ^ refilled) & low;
                        at[i] += low & 2;
                    }
                };
                refill();
                std::int32_t residual = symbol.value;
                if (LATENS_UNLIKELY(symbol.extra != 0)) {
                    const std::uint64_t mask = (std::uint64_t{1} << symbol.extra) - 1;
                    residual = unfolded(static_cast<std::uint32_t>(residual) |
                                        static_cast<std::uint32_t>(state & mask));
                    state >>= symbol.extra;
                    refill();
                }
                states[i] = state;
                const std::int32_t value = std::clamp(predicted + residual * lane.step, 0, top);
                size2[i] = size[i];
                size[i] = residual < 0 ? -residual : residual;
                left2[i] = left[i];
                left[i] = value;
                lane.out[x] = static_cast<Sample>(value);
                lane.sizes[x] = static_cast<Sample>(size[i]);
            });
        }
    }
    each([&](auto i) LATENS_LAMBDA_INLINE {
        lanes[i]->x = states[i];
        lanes[i]->at = at[i];
    });
}

template <unsigned n, class Sample>
void decode_run(Lane<Sample>* const (&lanes)[n], std::size_t from, std::size_t to, std::int32_t top) {
    bool plenty = true;
    for (const Lane<Sample>* lane : lanes)
        plenty = plenty && static_cast<std::size_t>(lane->end - lane->at) >= 4 * (to - from) + 2;
    if (plenty)
        decode_run<n, false>(lanes, from, to, top);
    else
        decode_run<n, true>(lanes, from, to, top);
}

// Drawn parts look like the row above.
template <class Sample>
void fill_part(Plane<Sample>& samples, Plane<Sample>& sizes, std::size_t y, std::size_t from,
               std::size_t to) {
    Sample* row = samples.row(y);
    std::copy(row - samples.stride + from, row - samples.stride + to, row + from);
    std::fill(sizes.row(y) + from, sizes.row(y) + to, Sample{0});
}

}  // namespace

template <class Sample>
bool decode_planes(const SmoothShape& shape, const BlockMap& map, const std::vector<PlaneCode>& codes,
                   const std::vector<Slice>& streams, Planes<Sample>& planes) {
    const std::int32_t top = (1 << shape.bits) - 1;
    std::vector<Lane<Sample>> lanes;
    lanes.reserve(shape.planes);
    for (unsigned p = 0; p < shape.planes; ++p) {
        lanes.emplace_back(shape, codes[p], streams[p]);
        lanes[p].step = static_cast<std::int32_t>(shape.step(p));
        if (!lanes[p].sound) return false;
    }
    const bool all_natural =
        std::count(map.drawn.begin(), map.drawn.end(), 0) == static_cast<std::ptrdiff_t>(map.drawn.size());
    // A plane needs one row more of the one before than it decodes, so that it runs two rows behind.
    const std::size_t last = 2 * (shape.planes - 1);
    for (std::size_t step = 0; step < shape.height + last; ++step) {
        unsigned active[4];
        std::size_t rows[4];
        unsigned count = 0;
        for (unsigned p = 0; p < shape.planes; ++p) {
            const std::size_t y = step - 2 * p;
            if (step < 2 * p || y >= shape.height) continue;
            active[count] = p;
            rows[count++] = y;
            planes.samples[p].pad_left(y);
            planes.sizes[p].pad_left(y);
            Lane<Sample>& lane = lanes[p];
            lane.out = planes.samples[p].row(y);
            lane.sizes = planes.sizes[p].row(y);
            lane.above = lane.out - planes.samples[p].stride;
            lane.classes = lane.code.map.data() + y / class_block * shape.block_columns();
        }
        const auto sums = [&](unsigned i, std::size_t from, std::size_t to) {
            Lane<Sample>& lane = lanes[active[i]];
            row_sums(shape, lane.code, planes, active[i], rows[i], from, to, lane.sums);
        };
        if (all_natural && count == 3) {
            for (unsigned i = 0; i < count; ++i) sums(i, 0, shape.width);
            Lane<Sample>* const three[] = {&lanes[active[0]], &lanes[active[1]], &lanes[active[2]]};
            decode_run(three, 0, shape.width, top);
        } else {
            for (unsigned i = 0; i < count; ++i) {
                Lane<Sample>* const one[] = {&lanes[active[i]]};
                map.parts_of_row(
                    rows[i], shape.width,
                    [&](std::size_t from, std::size_t to) {
                        sums(i, from, to);
                        decode_run(one, from, to, top);
                    },
                    [&](std::size_t from, std::size_t to) {
                        fill_part(planes.samples[active[i]], planes.sizes[active[i]], rows[i], from, to);
                    });
            }
        }
        for (unsigned i = 0; i < count; ++i) {
            planes.samples[active[i]].pad_right(rows[i]);
            planes.sizes[active[i]].pad_right(rows[i]);
        }
    }
    for (const Lane<Sample>& lane : lanes)
        if (!lane.sound || lane.x != LaneLayout::lower || lane.at != lane.end) return false;
    return true;
}

// ---- encoding

namespace {

constexpr std::size_t max_features = taps.size() + 1;
constexpr std::size_t block_samples = class_block * class_block;

// Sums of products of what predictors look at, and of what they predict (the last feature), over a block.
using Products = std::array<float, max_features*(max_features + 1) / 2>;

LATENS_WIDER void multiply_features(const float* features, std::size_t count, float* products) {
    for (std::size_t i = 0; i < count; ++i) {
        const float* a = features + i * block_samples;
        for (std::size_t j = 0; j <= i; ++j) {
            const float* b = features + j * block_samples;
            float sums[8] = {};
            for (std::size_t k = 0; k < block_samples; k += 8)
                for (std::size_t lane = 0; lane < 8; ++lane) sums[lane] += a[k + lane] * b[k + lane];
            *products++ =
                ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
        }
    }
}

LATENS_WIDER float error_of(const float* products, const float* form, std::size_t count) {
    float sums[8] = {};
    std::size_t k = 0;
    for (; k + 8 <= count; k += 8)
        for (std::size_t lane = 0; lane < 8; ++lane) sums[lane] += products[k + lane] * form[k + lane];
    float rest = 0;
    for (; k < count; ++k) rest += products[k] * form[k];
    return rest + ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

LATENS_WIDER void add_weighted(const float* products, double weight, std::size_t count, double* sums) {
    for (std::size_t i = 0; i < count; ++i) sums[i] += weight * static_cast<double>(products[i]);
}

// Solves a x = b for a symmetric positive matrix whose lower triangle is given, slightly regularised.
void solve(std::vector<double> a, std::vector<double> b, std::size_t n, double* x) {
    for (std::size_t i = 0; i < n; ++i) a[i * n + i] += 1e-4 * a[i * n + i] + 1.0;
    for (std::size_t i = 0; i < n; ++i) {  // Cholesky
        for (std::size_t j = 0; j <= i; ++j) {
            double sum = a[i * n + j];
            for (std::size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
            a[i * n + j] = i == j ? std::sqrt(std::max(sum, 1e-9)) : sum / a[j * n + j];
        }
    }
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t k = 0; k < i; ++k) b[i] -= a[i * n + k] * b[k];
        b[i] /= a[i * n + i];
    }
    for (std::size_t i = n; i-- > 0;) {
        for (std::size_t k = i + 1; k < n; ++k) b[i] -= a[k * n + i] * x[k];
        x[i] = b[i] / a[i * n + i];
    }
}

// Chooses predictors for the blocks of a plane.
template <class Sample>
class Classifier {
  public:
    Classifier(const SmoothShape& shape, const BlockMap& map, Planes<Sample>& planes, unsigned plane)
        : shape_(shape), count_(tap_counts[std::min(plane, 2u)]) {
        const std::size_t columns = shape.block_columns();
        products_.reserve(columns * shape.block_rows());
        std::array<float, max_features * block_samples> features{};
        for (std::size_t by = 0; by < shape.block_rows(); ++by) {
            for (std::size_t bx = 0; bx < columns; ++bx) {
                if (map.drawn[by * class_block / map_block * map.columns + bx * class_block / map_block] != 0)
                    continue;
                gather(planes, plane, bx * class_block, by * class_block, features.data());
                products_.emplace_back();
                multiply_features(features.data(), count_ + 1, products_.back().data());
                blocks_.push_back(by * columns + bx);
            }
        }
    }

    void choose(unsigned rounds, unsigned classes, PlaneCode& code) {
        const std::size_t n = blocks_.size();
        code.map.assign(shape_.block_columns() * shape_.block_rows(), 0);
        code.classes = static_cast<unsigned>(std::clamp<std::size_t>(n / 64, 1, classes));
        forms_.resize(max_classes);
        coefficients_.resize(max_classes);
        classes_.assign(n, 0);
        weights_.assign(n, 1.0F);
        errors_.assign(n, 0.0F);
        for (int i = 0; i < 2; ++i) {  // weighted by what the first leaves
            fit(0);
            for (std::size_t b = 0; b < n; ++b) weigh(b, error(b, 0));
        }
        if (code.classes > 1) {
            std::vector<std::size_t> order(n);
            for (std::size_t i = 0; i < n; ++i) order[i] = i;
            std::stable_sort(order.begin(), order.end(),
                             [&](std::size_t a, std::size_t b) { return errors_[a] < errors_[b]; });
            for (std::size_t i = 0; i < n; ++i)
                classes_[order[i]] = static_cast<std::uint8_t>(i * code.classes / n);
            for (unsigned round = 0; round < rounds; ++round) {
                for (unsigned k = 0; k < code.classes; ++k) fit(k);
                assign(code);
            }
            drop_unused(code);
        }
        const double unit = 1 << coefficient_bits;
        for (unsigned k = 0; k < code.classes; ++k)
            for (std::size_t i = 0; i < count_; ++i)
                code.coefficients[k][i] = static_cast<std::int32_t>(std::lround(
                    std::clamp(coefficients_[k][i] * unit, -1.0 * max_coefficient, 1.0 * max_coefficient)));
        for (std::size_t b = 0; b < n; ++b) code.map[blocks_[b]] = classes_[b];
    }

  private:
    void gather(Planes<Sample>& planes, unsigned plane, std::size_t left, std::size_t top, float* out) const {
        // Blocks at the border are filled up with nothing.
        const std::size_t width = std::min(class_block, shape_.width - left);
        const std::size_t height = std::min(class_block, shape_.height - top);
        for (std::size_t t = 0; t <= count_; ++t) {
            const Tap tap = t < count_ ? taps[t] : Tap{0, 0, 0};
            Plane<Sample>& from = planes.samples[plane - tap.plane];
            float* feature = out + t * block_samples;
            for (std::size_t y = 0; y < class_block; ++y) {
                if (y >= height) {
                    std::fill(feature + y * class_block, feature + (y + 1) * class_block, 0.0F);
                    continue;
                }
                const Sample* row = from.row(top + y) + left;
                const Sample* at = row + tap.dy * static_cast<std::ptrdiff_t>(from.stride) + tap.dx;
                const Sample* above = row - from.stride;
                float* out_row = feature + y * class_block;
                if (width == class_block) {
                    for (std::size_t x = 0; x < class_block; ++x)
                        out_row[x] = static_cast<float>(at[x] - above[x]);
                    continue;
                }
                for (std::size_t x = 0; x < class_block; ++x)
                    out_row[x] = x < width ? static_cast<float>(at[x] - above[x]) : 0.0F;
            }
        }
    }

    std::size_t product_count() const { return (count_ + 1) * (count_ + 2) / 2; }

    void fit(unsigned k) {
        std::vector<double> sums(product_count(), 0.0);
        bool any = false;
        for (std::size_t b = 0; b < blocks_.size(); ++b) {
            if (classes_[b] != k) continue;
            any = true;
            add_weighted(products_[b].data(), static_cast<double>(weights_[b]), sums.size(), sums.data());
        }
        if (!any) return;
        const std::size_t n = count_;
        std::vector<double> a(n * n), target(n);
        const double* at = sums.data();
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = 0; j <= i; ++j) a[i * n + j] = *at++;
        for (std::size_t j = 0; j < n; ++j) target[j] = *at++;
        solve(a, target, n, coefficients_[k].data());
        // The squared error as a form of the products.
        float* form = forms_[k].data();
        const auto& c = coefficients_[k];
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = 0; j <= i; ++j)
                *form++ = static_cast<float>(c[i] * c[j] * (i == j ? 1.0 : 2.0));
        for (std::size_t j = 0; j < n; ++j) *form++ = static_cast<float>(-2.0 * c[j]);
        *form = 1.0F;
    }

    float error(std::size_t b, unsigned k) const {
        return std::max(error_of(products_[b].data(), forms_[k].data(), product_count()), 0.0F);
    }
    void weigh(std::size_t b, float squared) {
        errors_[b] = squared;
        weights_[b] = 1.0F / (squared / block_samples + 0.5F);
    }

    // Each block to the class that codes it, and its own number, with the fewest bits.
    void assign(const PlaneCode& code) {
        const std::size_t columns = shape_.block_columns();
        std::vector<std::uint8_t> map(columns * shape_.block_rows(), 0);
        // Bits are half of the samples times the logarithm of the error; those of the number are a factor
        // here.
        const auto factor = [](float bits) { return std::exp2(bits / (0.5F * block_samples)); };
        const float as_left = factor(0.8F), as_above = factor(2.0F);
        const float fresh = factor(std::log2(static_cast<float>(code.classes)) + 2.0F);
        for (std::size_t b = 0; b < blocks_.size(); ++b) {
            const std::size_t at = blocks_[b];
            const std::uint8_t above = at >= columns ? map[at - columns] : 0;
            const std::uint8_t left = at % columns > 0 ? map[at - 1] : above;
            float best = 0, squared = 0;
            for (unsigned k = 0; k < code.classes; ++k) {
                const float found = error(b, k);
                const float cost = (found / block_samples + 0.3F) * (k == left    ? as_left
                                                                     : k == above ? as_above
                                                                                  : fresh);
                if (k == 0 || cost < best) {
                    best = cost;
                    squared = found;
                    classes_[b] = static_cast<std::uint8_t>(k);
                }
            }
            map[at] = classes_[b];
            weigh(b, squared);
        }
    }

    void drop_unused(PlaneCode& code) {
        std::array<bool, max_classes> used{};
        for (const std::uint8_t k : classes_) used[k] = true;
        std::array<std::uint8_t, max_classes> renamed{};
        unsigned n = 0;
        for (unsigned k = 0; k < code.classes; ++k) {
            if (!used[k]) continue;
            coefficients_[n] = coefficients_[k];
            renamed[k] = static_cast<std::uint8_t>(n++);
        }
        for (std::uint8_t& k : classes_) k = renamed[k];
        code.classes = std::max(n, 1u);
    }

    const SmoothShape& shape_;
    std::size_t count_;
    std::vector<Products> products_;
    std::vector<std::size_t> blocks_;
    std::vector<Products> forms_;
    std::vector<std::array<double, taps.size()>> coefficients_;
    std::vector<std::uint8_t> classes_;
    std::vector<float> weights_, errors_;
};

// The residuals of a plane with its predictors; samples become what is decoded.
template <class Sample>
void make_residuals(const SmoothShape& shape, const BlockMap& map, Planes<Sample>& planes, unsigned plane,
                    const PlaneCode& code, std::vector<std::int32_t>& residuals) {
    using Sum = typename Wide<Sample>::Type;
    Plane<Sample>& samples = planes.samples[plane];
    Plane<Sample>& sizes = planes.sizes[plane];
    const std::int32_t top = (1 << shape.bits) - 1;
    const auto step = static_cast<std::int32_t>(shape.step(plane));
    RowSums<Sample> sums(shape.width);
    for (std::size_t y = 0; y < shape.height; ++y) {
        samples.pad_left(y);
        sizes.pad_left(y);
        Sample* row = samples.row(y);
        const Sample* above = row - samples.stride;
        const std::uint8_t* classes = code.map.data() + y / class_block * shape.block_columns();
        map.parts_of_row(
            y, shape.width,
            [&](std::size_t from, std::size_t to) {
                row_sums(shape, code, planes, plane, y, from, to, sums);
                for (std::size_t x = from; x < to; ++x) {
                    const auto& c = code.coefficients[classes[x / class_block]];
                    const auto at = static_cast<std::ptrdiff_t>(x);
                    const Sum sum = sums.prediction[x] + static_cast<Sum>(c[0]) * (row[at - 1] - above[x]) +
                                    static_cast<Sum>(c[1]) * (row[at - 2] - above[x]);
                    const auto predicted = static_cast<std::int32_t>(
                        std::clamp<Sum>(above[x] + (sum >> coefficient_bits), 0, top));
                    std::int32_t residual = row[x] - predicted;
                    if (step > 1) {
                        const std::int32_t size = (std::abs(residual) + step / 2) / step;
                        residual = residual < 0 ? -size : size;
                        row[x] = static_cast<Sample>(std::clamp(predicted + residual * step, 0, top));
                    }
                    residuals[y * shape.width + x] = residual;
                    sizes.row(y)[x] = static_cast<Sample>(std::abs(residual));
                }
            },
            [&](std::size_t from, std::size_t to) {
                fill_part(samples, sizes, y, from, to);
                std::fill(residuals.begin() + static_cast<std::ptrdiff_t>(y * shape.width + from),
                          residuals.begin() + static_cast<std::ptrdiff_t>(y * shape.width + to), 0);
            });
        samples.pad_right(y);
        sizes.pad_right(y);
    }
}

// What residuals are expected to be, from those around: least squares, relative to the size.
template <class Sample>
void fit_sizes(const SmoothShape& shape, const BlockMap& map, Planes<Sample>& planes, unsigned plane,
               PlaneCode& code) {
    const std::size_t n = size_tap_counts[std::min(plane, 2u)];
    std::vector<double> fitted(n, 0.0);
    const std::size_t every =
        shape.width * shape.height > 100'000 ? 3 : 1;  // rows and columns that are looked at
    std::array<double, max_classes> seen{}, wanted{};
    for (int round = 0; round < 3; ++round) {
        std::vector<double> a(n * n, 0.0), b(n, 0.0);
        for (std::size_t y = 0; y < shape.height; y += every) {
            const Sample* rows[size_taps.size()];
            for (std::size_t t = 0; t < n; ++t) {
                Plane<Sample>& from = planes.sizes[plane - size_taps[t].plane];
                rows[t] = from.row(y) + size_taps[t].dy * static_cast<std::ptrdiff_t>(from.stride) +
                          size_taps[t].dx;
            }
            const std::uint8_t* classes = code.map.data() + y / class_block * shape.block_columns();
            const std::uint8_t* drawn = map.drawn.data() + y / map_block * map.columns;
            for (std::size_t x = y / every % every; x < shape.width; x += every) {
                if (drawn[x / map_block] != 0) continue;
                double around[size_taps.size()], expected = 0;
                for (std::size_t t = 0; t < n; ++t) {
                    around[t] = static_cast<double>(rows[t][x]);
                    expected += around[t] * fitted[t];
                }
                const auto size = static_cast<double>(planes.sizes[plane].row(y)[x]);
                if (round == 2) {
                    const unsigned k = classes[x / class_block];
                    const double relative = 1.0 / (expected + 1.0);
                    seen[k] += relative;
                    wanted[k] += (size - expected) * relative;
                    continue;
                }
                const double weight = 1.0 / ((round == 0 ? 2.0 : expected) + 1.0);
                for (std::size_t i = 0; i < n; ++i) {
                    const double scaled = around[i] * weight * weight;
                    b[i] += scaled * size;
                    for (std::size_t j = 0; j <= i; ++j) a[i * n + j] += scaled * around[j];
                }
            }
        }
        if (round == 2) break;
        solve(a, b, n, fitted.data());
        for (double& weight : fitted) weight = std::clamp(weight, 0.0, 511.0 / 256.0);
    }
    for (std::size_t i = 0; i < n; ++i)
        code.size_weights[i] = static_cast<std::int32_t>(std::lround(fitted[i] * 256.0));
    for (unsigned k = 0; k < code.classes; ++k)
        code.size_offsets[k] = static_cast<std::int32_t>(
            std::lround(std::clamp(seen[k] > 0 ? wanted[k] / seen[k] : 0.0, -65536.0, 65536.0) * 16.0));
}

using Counts = std::array<std::uint32_t, max_levels>;

// Bits of the tokens, and about those of the table.
double cost_of(const Counts& counts, unsigned tokens) {
    double sum = 0, bits = 0;
    for (unsigned t = 0; t < tokens; ++t) {
        if (counts[t] == 0) continue;
        sum += counts[t];
        bits -= counts[t] * std::log2(static_cast<double>(counts[t]));
        bits += 5.0;
    }
    return sum > 0 ? bits + sum * std::log2(sum) : 0.0;
}

// Neighbouring levels share a table where that takes fewer bits.
void merge_levels(const std::array<Counts, max_levels>& counts, unsigned tokens, PlaneCode& code) {
    struct Group {
        unsigned first, last;
        Counts counts;
        double cost;
    };
    std::vector<Group> groups;
    for (unsigned i = 0; i < max_levels; ++i) groups.push_back({i, i, counts[i], cost_of(counts[i], tokens)});
    const auto join = [](const Counts& a, const Counts& b) {
        Counts sum;
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = a[i] + b[i];
        return sum;
    };
    std::vector<double> gains;
    const auto gain = [&](std::size_t i) {
        return groups[i].cost + groups[i + 1].cost -
               cost_of(join(groups[i].counts, groups[i + 1].counts), tokens);
    };
    for (std::size_t i = 0; i + 1 < groups.size(); ++i) gains.push_back(gain(i));
    while (!gains.empty()) {
        const auto best =
            static_cast<std::size_t>(std::max_element(gains.begin(), gains.end()) - gains.begin());
        if (gains[best] < 0) break;
        groups[best].counts = join(groups[best].counts, groups[best + 1].counts);
        groups[best].last = groups[best + 1].last;
        groups[best].cost = cost_of(groups[best].counts, tokens);
        groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(best) + 1);
        gains.erase(gains.begin() + static_cast<std::ptrdiff_t>(best));
        if (best > 0) gains[best - 1] = gain(best - 1);
        if (best < gains.size()) gains[best] = gain(best);
    }
    code.context_count = static_cast<unsigned>(groups.size());
    code.weights.clear();
    for (unsigned g = 0; g < groups.size(); ++g) {
        for (unsigned i = groups[g].first; i <= groups[g].last; ++i)
            code.contexts[i] = static_cast<std::uint8_t>(g);
        std::uint32_t most = 1;
        for (const std::uint32_t count : groups[g].counts) most = std::max(most, count);
        std::array<std::uint32_t, max_levels> weights{};
        bool any = false;
        for (unsigned t = 0; t < tokens; ++t) {
            const std::uint32_t count = groups[g].counts[t];
            if (count == 0) continue;
            any = true;
            const auto scaled = static_cast<std::uint32_t>(std::uint64_t{count} * 8000 / most);
            // Four bits are kept.
            const auto size = static_cast<unsigned>(std::bit_width(std::max(scaled, 1u)));
            const unsigned lost = size > 4 ? size - 4 : 0;
            weights[t] = std::min((std::max(scaled, 1u) + ((1u << lost) >> 1)) >> lost << lost, 7680u);
        }
        if (!any) weights[0] = 1;
        code.weights.push_back(weights);
    }
}

template <class Sample>
void code_residuals(const SmoothShape& shape, const BlockMap& map, Planes<Sample>& planes, unsigned plane,
                    const std::vector<std::int32_t>& residuals, PlaneCode& code,
                    std::vector<std::uint8_t>& out, std::vector<float>& bits) {
    const unsigned tokens = token_count(shape.bits);
    std::vector<std::uint8_t> levels(residuals.size());
    std::array<Counts, max_levels> counts{};
    RowSums<Sample> sums(shape.width);
    const auto fold = [](std::int32_t residual) {
        return residual > 0 ? 2 * static_cast<std::uint32_t>(residual) - 1
                            : 2 * static_cast<std::uint32_t>(-residual);
    };
    for (std::size_t y = 0; y < shape.height; ++y) {
        const Sample* sizes = planes.sizes[plane].row(y);
        map.parts_of_row(
            y, shape.width,
            [&](std::size_t from, std::size_t to) {
                row_sums(shape, code, planes, plane, y, from, to, sums);
                for (std::size_t x = from; x < to; ++x) {
                    const auto at = static_cast<std::ptrdiff_t>(x);
                    const unsigned level = level_at(sums.size[x] + code.size_weights[0] * sizes[at - 1] +
                                                    code.size_weights[1] * sizes[at - 2]);
                    levels[y * shape.width + x] = static_cast<std::uint8_t>(level);
                    ++counts[level][tokenize(fold(residuals[y * shape.width + x])).token];
                }
            },
            [](std::size_t, std::size_t) {});
    }
    merge_levels(counts, tokens, code);
    struct Range {
        std::uint32_t start, frequency;
        float bits;
    };
    std::vector<std::array<Range, max_levels>> ranges(code.context_count);
    for (unsigned c = 0; c < code.context_count; ++c) {
        std::uint32_t frequencies[max_levels];
        normalize(code.weights[c].data(), tokens, frequencies);
        std::uint32_t start = 0;
        for (unsigned t = 0; t < tokens; ++t) {
            const float bits_of =
                frequencies[t] > 0 ? 16.0F - std::log2(static_cast<float>(frequencies[t])) : 0.0F;
            ranges[c][t] = {start, frequencies[t], bits_of};
            start += frequencies[t];
        }
    }
    WordStack words;
    words.reserve(residuals.size() / 2);
    for (std::size_t y = shape.height; y-- > 0;) {
        const std::uint8_t* drawn = map.drawn.data() + y / map_block * map.columns;
        float* blocks = bits.data() + y / map_block * map.columns;
        for (std::size_t x = shape.width; x-- > 0;) {
            if (drawn[x / map_block] != 0) continue;
            const std::size_t i = y * shape.width + x;
            const Token token = tokenize(fold(residuals[i]));
            if (token.extra_bits > 0) words.put(token.extra, 1, token.extra_bits);
            const Range range = ranges[code.contexts[levels[i]]][token.token];
            words.put(range.start, range.frequency, precision);
            blocks[x / map_block] += range.bits + static_cast<float>(token.extra_bits);
        }
    }
    words.finish(out);
}

}  // namespace

template <class Sample>
SmoothCode encode_planes(const SmoothShape& shape, const BlockMap& map, Planes<Sample>& planes,
                         unsigned rounds, unsigned classes) {
    SmoothCode result;
    result.planes.resize(shape.planes);
    result.streams.resize(shape.planes);
    result.bits.resize(map.drawn.size());
    std::vector<std::int32_t> residuals(shape.width * shape.height);
    // First what predictors will find in drawn blocks, then the margins.
    for (unsigned p = 0; p < shape.planes; ++p) {
        Plane<Sample>& samples = planes.samples[p];
        for (std::size_t y = 0; y < shape.height; ++y) {
            samples.pad_left(y);
            map.parts_of_row(
                y, shape.width, [](std::size_t, std::size_t) {},
                [&](std::size_t from, std::size_t to) { fill_part(samples, planes.sizes[p], y, from, to); });
            samples.pad_right(y);
        }
        Classifier<Sample>(shape, map, planes, p).choose(rounds, classes, result.planes[p]);
        make_residuals(shape, map, planes, p, result.planes[p], residuals);
        fit_sizes(shape, map, planes, p, result.planes[p]);
        code_residuals(shape, map, planes, p, residuals, result.planes[p], result.streams[p], result.bits);
    }
    return result;
}

template bool decode_planes(const SmoothShape&, const BlockMap&, const std::vector<PlaneCode>&,
                            const std::vector<Slice>&, Planes<std::int16_t>&);
template bool decode_planes(const SmoothShape&, const BlockMap&, const std::vector<PlaneCode>&,
                            const std::vector<Slice>&, Planes<std::int32_t>&);
template SmoothCode encode_planes(const SmoothShape&, const BlockMap&, Planes<std::int16_t>&, unsigned,
                                  unsigned);
template SmoothCode encode_planes(const SmoothShape&, const BlockMap&, Planes<std::int32_t>&, unsigned,
                                  unsigned);

}  // namespace latens
