#include "layers.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "isa.hpp"
#include "pool.hpp"

#if defined(__GNUC__) && defined(__x86_64__) && !defined(LATENS_PORTABLE)
#define LATENS_X86 1
#if !defined(__clang__)
// GCC 12 takes the undefined values in its own header for mistakes.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#endif

namespace latens {
namespace {

// Products of 16 bits are what processors are best at, so that an activation of 21 bits and a sign is cut in
// two: a = high * 2^11 + low with low from -2^10 to 2^10 - 1, and high from -2^9 to 2^9. Sums of such
// products stay within 32 bits while the magnitudes of their weights add up to less than 2^21; then they move
// on to 64 bits.
constexpr int low_bits = 11;
constexpr std::int32_t low_half = 1 << (low_bits - 1);
constexpr std::int64_t weights_in_32_bits = (std::int64_t{1} << (31 - (low_bits - 1))) - 1;
static_assert(weights_in_32_bits * low_half <= std::numeric_limits<std::int32_t>::max());
static_assert(((activation_max + low_half) >> low_bits) <= low_half);
// Weights of a run for 16 outputs: they stay in the first-level cache from position to position.
constexpr std::size_t pairs_in_cache = 256;

constexpr std::size_t outputs_at_once = 16;
// Positions that go through all layers together: their activations stay in the cache.
constexpr std::size_t positions_together = 24;
constexpr std::size_t inputs_max = std::size_t{1} << 20;
constexpr std::size_t outputs_max = std::size_t{1} << 20;
constexpr unsigned shift_max = 52;
constexpr std::int64_t leaky_slope = 655;  // of 2^16
// Less than this is done before another thread has begun.
constexpr std::size_t products_for_a_thread = 300'000;

struct Span {
    const std::int16_t* weight;  // (pairs, 16, 2)
    const std::int16_t* low;     // of the first position; `pitch` to the next
    const std::int16_t* high;
    std::size_t pairs;
    std::size_t pitch;
    std::int64_t* sums;  // (positions, sum_pitch)
    std::size_t sum_pitch;
};

template <std::size_t positions>
void add_products(const Span& s) {
    std::array<std::array<std::int32_t, outputs_at_once>, positions> low{}, high{};
    for (std::size_t pair = 0; pair < s.pairs; ++pair) {
        const std::int16_t* w = s.weight + 2 * outputs_at_once * pair;
        for (std::size_t p = 0; p < positions; ++p) {
            const std::int16_t* l = s.low + p * s.pitch + 2 * pair;
            const std::int16_t* h = s.high + p * s.pitch + 2 * pair;
            for (std::size_t o = 0; o < outputs_at_once; ++o) {
                low[p][o] += w[2 * o] * l[0] + w[2 * o + 1] * l[1];
                high[p][o] += w[2 * o] * h[0] + w[2 * o + 1] * h[1];
            }
        }
    }
    for (std::size_t p = 0; p < positions; ++p)
        for (std::size_t o = 0; o < outputs_at_once; ++o)
            s.sums[p * s.sum_pitch + o] += low[p][o] + (std::int64_t{high[p][o]} * (1 << low_bits));
}

#ifdef LATENS_X86
// Two neighbouring inputs as one integer of 32 bits.
inline std::int32_t both(const std::int16_t* inputs) {
    std::int32_t value;
    std::memcpy(&value, inputs, sizeof value);
    return value;
}

__attribute__((target("avx2"))) inline void add_wide(std::int64_t* sums, __m128i low, __m128i high) {
    const __m256i l = _mm256_cvtepi32_epi64(low);
    const __m256i h = _mm256_slli_epi64(_mm256_cvtepi32_epi64(high), low_bits);
    auto* target = reinterpret_cast<__m256i*>(sums);
    _mm256_storeu_si256(target, _mm256_add_epi64(_mm256_loadu_si256(target), _mm256_add_epi64(l, h)));
}

template <std::size_t positions>
__attribute__((target("avx2"))) void add_products_avx2(const Span& s) {
    __m256i low[positions][2], high[positions][2];
    for (std::size_t p = 0; p < positions; ++p)
        for (std::size_t half = 0; half < 2; ++half) low[p][half] = high[p][half] = _mm256_setzero_si256();
    for (std::size_t pair = 0; pair < s.pairs; ++pair) {
        const auto* w = reinterpret_cast<const __m256i*>(s.weight + 2 * outputs_at_once * pair);
        const __m256i first = _mm256_loadu_si256(w), second = _mm256_loadu_si256(w + 1);
        for (std::size_t p = 0; p < positions; ++p) {
            const __m256i l = _mm256_set1_epi32(both(s.low + p * s.pitch + 2 * pair));
            const __m256i h = _mm256_set1_epi32(both(s.high + p * s.pitch + 2 * pair));
            low[p][0] = _mm256_add_epi32(low[p][0], _mm256_madd_epi16(first, l));
            low[p][1] = _mm256_add_epi32(low[p][1], _mm256_madd_epi16(second, l));
            high[p][0] = _mm256_add_epi32(high[p][0], _mm256_madd_epi16(first, h));
            high[p][1] = _mm256_add_epi32(high[p][1], _mm256_madd_epi16(second, h));
        }
    }
    for (std::size_t p = 0; p < positions; ++p)
        for (std::size_t half = 0; half < 2; ++half) {
            std::int64_t* sums = s.sums + p * s.sum_pitch + 8 * half;
            const __m256i l = low[p][half], h = high[p][half];
            add_wide(sums, _mm256_castsi256_si128(l), _mm256_castsi256_si128(h));
            add_wide(sums + 4, _mm256_extracti128_si256(l, 1), _mm256_extracti128_si256(h, 1));
        }
}
#endif

#ifdef LATENS_X86
template <std::size_t positions>
__attribute__((target("avx512f,avx512vnni"))) void add_products_vnni(const Span& s) {
    __m512i low[positions], high[positions];
    for (std::size_t p = 0; p < positions; ++p) low[p] = high[p] = _mm512_setzero_si512();
    for (std::size_t pair = 0; pair < s.pairs; ++pair) {
        const __m512i w = _mm512_loadu_si512(s.weight + 2 * outputs_at_once * pair);
        for (std::size_t p = 0; p < positions; ++p) {
            const std::int16_t *l = s.low + p * s.pitch + 2 * pair, *h = s.high + p * s.pitch + 2 * pair;
            low[p] = _mm512_dpwssd_epi32(low[p], w, _mm512_set1_epi32(both(l)));
            high[p] = _mm512_dpwssd_epi32(high[p], w, _mm512_set1_epi32(both(h)));
        }
    }
    for (std::size_t p = 0; p < positions; ++p)
        for (std::size_t half = 0; half < 2; ++half) {
            const __m256i l = half ? _mm512_extracti64x4_epi64(low[p], 1) : _mm512_castsi512_si256(low[p]);
            const __m256i h = half ? _mm512_extracti64x4_epi64(high[p], 1) : _mm512_castsi512_si256(high[p]);
            std::int64_t* sums = s.sums + p * s.sum_pitch + 8 * half;
            const __m512i grown = _mm512_add_epi64(_mm512_cvtepi32_epi64(l),
                                                   _mm512_slli_epi64(_mm512_cvtepi32_epi64(h), low_bits));
            _mm512_storeu_si512(sums, _mm512_add_epi64(_mm512_loadu_si512(sums), grown));
        }
}
#endif

using Kernel = void (*)(const Span&);

// For each number of positions, from one on, the kernel that takes them at once.
using Kernels = std::vector<Kernel>;

Kernels choose_kernels() {
#ifdef LATENS_X86
    if (isa_allowed("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni"))
        return {add_products_vnni<1>, add_products_vnni<2>, add_products_vnni<3>, add_products_vnni<4>,
                add_products_vnni<5>, add_products_vnni<6>, add_products_vnni<7>, add_products_vnni<8>};
    if (isa_allowed("avx2") && __builtin_cpu_supports("avx2"))
        return {add_products_avx2<1>, add_products_avx2<2>};
#endif
    return {add_products<1>, add_products<2>};
}

std::int32_t activate(std::int64_t sum, unsigned shift, Activation activation, std::int64_t top) {
    std::int64_t a = shift > 0 ? (sum + (std::int64_t{1} << (shift - 1))) >> shift : sum;
    const std::int64_t bottom = activation == Activation::relu ? 0 : -activation_max;
    a = std::min(std::max(a, bottom), top);
    if (activation == Activation::leaky && a < 0) a = (leaky_slope * a + (1 << 15)) >> 16;
    return static_cast<std::int32_t>(a);
}

// An activation as its two parts.
inline void put(std::int32_t a, std::int16_t& low, std::int16_t& high) {
    const std::int32_t upper = (a + low_half) >> low_bits;
    high = static_cast<std::int16_t>(upper);
    low = static_cast<std::int16_t>(a - upper * (1 << low_bits));
}

inline std::int32_t clamped(std::int32_t a) {
    constexpr auto largest = static_cast<std::int32_t>(activation_max);
    return std::clamp(a, -largest, largest);
}

// Sums of one position before any product, and of outputs that fill up the last block.
void start(std::int64_t* sums, const std::int64_t* added, std::size_t outputs, std::size_t pitch) {
    for (std::size_t o = 0; o < outputs; ++o) sums[o] = std::clamp(added[o], -exact_limit, exact_limit);
    std::fill(sums + outputs, sums + pitch, 0);
}

constexpr std::size_t even(std::size_t n) {
    return n + n % 2;
}

// As many threads as are worth it.
unsigned threads_for(std::size_t products, std::size_t items) {
    return static_cast<unsigned>(std::max<std::size_t>(
        1, std::min({std::size_t{threads()}, products / products_for_a_thread, items})));
}

}  // namespace

// What positions look at: the two parts of the activations of the first one, and how far it is to the next
// position and to the next row of its window.
struct Layers::Window {
    const std::int16_t *low, *high;
    std::size_t pitch, row_pitch;
};

void Layers::add_products(const Phase& phase, const Window& window, std::size_t positions, std::int64_t* sums,
                          std::size_t sum_pitch) {
    static const Kernels kernels = choose_kernels();
    for (const Run& run : phase.runs) {
        const std::size_t pair = (run.block * phase.rows + run.row) * phase.row_pairs + run.first;
        const std::size_t offset = run.row * window.row_pitch + 2 * run.first;
        for (std::size_t p = 0; p < positions; p += kernels.size())
            kernels[std::min(kernels.size(), positions - p) - 1](
                {&phase.weight[pair * outputs_at_once * 2], window.low + p * window.pitch + offset,
                 window.high + p * window.pitch + offset, run.pairs, window.pitch,
                 sums + p * sum_pitch + run.block * outputs_at_once, sum_pitch});
    }
}

// Some positions on their way through the layers: their activations in two parts, and what the sums grow in.
struct Layers::Work {
    std::size_t pitch, sum_pitch;
    std::int64_t* sums;
    std::int16_t *low, *high;

    Work(const Layers& layers, std::size_t most, std::vector<std::byte>& memory)
        : pitch(even(layers.widest_inputs_)), sum_pitch(layers.widest_blocks_ * outputs_at_once) {
        const std::size_t of_sums = most * sum_pitch * sizeof *sums, of_part = most * pitch * sizeof *low;
        if (memory.size() < of_sums + 2 * of_part) memory.resize(of_sums + 2 * of_part);
        sums = reinterpret_cast<std::int64_t*>(memory.data());
        low = reinterpret_cast<std::int16_t*>(memory.data() + of_sums);
        high = reinterpret_cast<std::int16_t*>(memory.data() + of_sums + of_part);
    }

    // Row `p` becomes the activations that `at(i)` gives.
    template <class At>
    void fill(std::size_t p, std::size_t inputs, const At& at) const {
        std::int16_t *l = low + p * pitch, *h = high + p * pitch;
        for (std::size_t i = 0; i < inputs; ++i) put(at(i), l[i], h[i]);
        // The second of the last pair, where there is none: its weights are zero.
        if (inputs % 2 > 0) l[inputs] = h[inputs] = 0;
    }
};

// Activations of a plane in two parts, zeros around it.
struct Layers::Plane {
    std::size_t height, width, pitch, row_pitch, origin;
    std::vector<std::int16_t> low, high;

    Plane(std::size_t height, std::size_t width, std::size_t channels, std::size_t border)
        : height(height),
          width(width),
          pitch(even(channels)),
          row_pitch((width + 2 * border) * pitch),
          origin(border * row_pitch + border * pitch),
          low((height + 2 * border) * row_pitch),
          high(low.size()) {}

    Window at(std::size_t row, std::size_t column, const Phase& phase) const {
        const auto y = static_cast<std::ptrdiff_t>(row) + phase.first_row;
        const auto x = static_cast<std::ptrdiff_t>(column) + phase.first_column;
        const std::ptrdiff_t place = static_cast<std::ptrdiff_t>(origin) +
                                     y * static_cast<std::ptrdiff_t>(row_pitch) +
                                     x * static_cast<std::ptrdiff_t>(pitch);
        return {low.data() + place, high.data() + place, pitch, row_pitch};
    }
};

Layers::Phase::Phase(const Layer& layer, std::size_t row, std::size_t column) : row(row), column(column) {
    // For each row (or column) of the window, that of the kernel: a convolution looks around, a transposed
    // one spreads, so that each of its results sees every `up`-th row of the kernel, the last first.
    struct Taps {
        std::ptrdiff_t first;
        std::vector<std::size_t> of_kernel;
    };
    const auto find = [&](std::size_t offset) {
        const std::size_t reach = layer.side / 2;
        Taps taps{-static_cast<std::ptrdiff_t>(reach), {}};
        if (layer.up == 1) {
            for (std::size_t i = 0; i < layer.side; ++i) taps.of_kernel.push_back(i);
            return taps;
        }
        const std::size_t last = offset + reach;
        const std::size_t beyond = last >= layer.side ? (last - layer.side) / layer.up + 1 : 0;
        std::size_t i = last - beyond * layer.up;
        // The largest row of the kernel is seen at the smallest position.
        std::ptrdiff_t first = static_cast<std::ptrdiff_t>(beyond);
        while (i + layer.up < layer.side) i += layer.up, --first;
        taps.first = first;
        for (;; i -= layer.up) {
            taps.of_kernel.push_back(i);
            if (i < layer.up) return taps;
        }
    };
    const Taps down = find(row), across = find(column);
    first_row = down.first;
    first_column = across.first;
    rows = down.of_kernel.size();
    const std::size_t tap = even(layer.inputs), columns = across.of_kernel.size();
    row_pairs = columns * tap / 2;
    const std::size_t blocks = (layer.outputs + outputs_at_once - 1) / outputs_at_once;
    weight.assign(blocks * rows * row_pairs * outputs_at_once * 2, 0);
    for (std::size_t o = 0; o < layer.outputs; ++o)
        for (std::size_t k = 0; k < layer.inputs; ++k) {
            const std::int16_t* kernel = layer.weight + (o * layer.inputs + k) * layer.side * layer.side;
            for (std::size_t r = 0; r < rows; ++r)
                for (std::size_t c = 0; c < columns; ++c) {
                    const std::size_t pair =
                        ((o / outputs_at_once) * rows + r) * row_pairs + (c * tap + k) / 2;
                    weight[(pair * outputs_at_once + o % outputs_at_once) * 2 + k % 2] =
                        kernel[down.of_kernel[r] * layer.side + across.of_kernel[c]];
                }
        }
    find_runs(blocks);
}

void Layers::Phase::find_runs(std::size_t blocks) {
    for (std::size_t block = 0; block < blocks; ++block)
        for (std::size_t of_window = 0; of_window < rows; ++of_window) {
            Run run{block, of_window, 0, 0};
            std::array<std::int64_t, outputs_at_once> magnitudes{};
            for (std::size_t pair = 0; pair < row_pairs; ++pair) {
                const std::int16_t* w =
                    &weight[((block * rows + of_window) * row_pairs + pair) * outputs_at_once * 2];
                std::int64_t largest = 0;
                for (std::size_t o = 0; o < outputs_at_once; ++o)
                    largest = std::max(largest, magnitudes[o] += std::abs(w[2 * o]) + std::abs(w[2 * o + 1]));
                if (largest > weights_in_32_bits || (pair > 0 && pair % pairs_in_cache == 0)) {
                    runs.push_back(run);
                    run = {block, of_window, pair, 0};
                    for (std::size_t o = 0; o < outputs_at_once; ++o)
                        magnitudes[o] = std::abs(w[2 * o]) + std::abs(w[2 * o + 1]);
                }
                ++run.pairs;
            }
            runs.push_back(run);
        }
    // One stretch of inputs for all outputs, then the next: its activations stay in the first-level cache.
    std::stable_sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) {
        return std::pair(a.row, a.first / pairs_in_cache) < std::pair(b.row, b.first / pairs_in_cache);
    });
}

Status Layers::build(const std::vector<Layer>& layers, std::shared_ptr<const Layers>& result) {
    auto made = std::make_shared<Layers>();
    const auto signed_size = [](std::size_t n) { return static_cast<std::int64_t>(n); };
    if (layers.empty()) return {Code::layer_size, 0, 0, 1};
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const Layer& layer = layers[i];
        const auto at = signed_size(i);
        if (layer.inputs < 1 || layer.inputs > inputs_max)
            return {Code::layer_size, at, signed_size(layer.inputs), signed_size(inputs_max)};
        if (layer.outputs < 1 || layer.outputs > outputs_max)
            return {Code::layer_size, at, signed_size(layer.outputs), signed_size(outputs_max)};
        if (i > 0 && layer.inputs != made->channels())
            return {Code::layer_inputs, at, signed_size(layer.inputs), signed_size(made->channels())};
        if (layer.shift > shift_max) return {Code::layer_shift, at, layer.shift, shift_max};
        if (layer.activation < 0 || layer.activation > static_cast<std::int64_t>(Activation::leaky))
            return {Code::layer_activation, at, layer.activation,
                    static_cast<std::int64_t>(Activation::leaky)};
        if (layer.top < 0 || layer.top > activation_max)
            return {Code::layer_top, at, layer.top, activation_max};
        if (layer.side % 2 == 0 || layer.side > side_max)
            return {Code::layer_side, at, signed_size(layer.side), signed_size(side_max)};
        // A kernel smaller than the stride would leave positions that nothing adds to.
        if (layer.up < 1 || layer.up > std::min(up_max, layer.side))
            return {Code::layer_up, at, signed_size(layer.up), signed_size(std::min(up_max, layer.side))};
        if (layer.shuffle < 1 || layer.shuffle > scaling_max || (layer.shuffle > 1 && layer.up > 1) ||
            layer.outputs % (layer.shuffle * layer.shuffle) > 0)
            return {Code::layer_shuffle, at, signed_size(layer.shuffle), signed_size(scaling_max)};
        made->scaling_ *= layer.up * layer.shuffle;
        if (made->scaling_ > scaling_max)
            return {Code::layer_scaling, at, signed_size(made->scaling_), signed_size(scaling_max)};
        const std::size_t count = layer.outputs * layer.inputs * layer.side * layer.side;
        const std::int16_t smallest = *std::min_element(layer.weight, layer.weight + count);
        if (smallest < -weight_max) return {Code::layer_weight, at, smallest, -weight_max};
        Packed p{layer.outputs,
                 layer.inputs,
                 (layer.outputs + outputs_at_once - 1) / outputs_at_once,
                 layer.shift,
                 static_cast<Activation>(layer.activation),
                 layer.top,
                 layer.shuffle,
                 layer.up,
                 0,
                 {}};
        for (std::size_t row = 0; row < layer.up; ++row)
            for (std::size_t column = 0; column < layer.up; ++column) {
                const Phase& phase = p.phases.emplace_back(layer, row, column);
                const std::ptrdiff_t below = phase.first_row + static_cast<std::ptrdiff_t>(phase.rows) - 1;
                p.border = std::max({p.border,
                                     static_cast<std::size_t>(std::max<std::ptrdiff_t>(-phase.first_row, 0)),
                                     static_cast<std::size_t>(std::max<std::ptrdiff_t>(below, 0))});
            }
        made->pointwise_ = made->pointwise_ && layer.side == 1 && layer.shuffle == 1;
        made->widest_inputs_ = std::max(made->widest_inputs_, p.inputs);
        made->widest_blocks_ = std::max(made->widest_blocks_, p.blocks);
        made->products_ += layer.outputs * layer.inputs;
        made->layers_.push_back(std::move(p));
    }
    result = std::move(made);
    return {};
}

void Layers::run_some(const std::int32_t* in, std::size_t first, std::size_t positions, const Added* added,
                      std::int64_t* out, const Work& work) const {
    for (std::size_t p = 0; p < positions; ++p) {
        const std::int32_t* row = in + (first + p) * inputs();
        work.fill(p, inputs(), [=](std::size_t i) { return clamped(row[i]); });
    }
    for (std::size_t number = 0; number < layers_.size(); ++number) {
        const Packed& layer = layers_[number];
        for (std::size_t p = 0; p < positions; ++p)
            start(work.sums + p * work.sum_pitch,
                  added[number].rows + (added[number].each ? (first + p) * layer.outputs : 0), layer.outputs,
                  layer.blocks * outputs_at_once);
        add_products(layer.phases[0], {work.low, work.high, work.pitch, 0}, positions, work.sums,
                     work.sum_pitch);
        for (std::size_t p = 0; p < positions; ++p) {
            const std::int64_t* sums = work.sums + p * work.sum_pitch;
            if (number + 1 == layers_.size())
                std::copy_n(sums, layer.outputs, out + (first + p) * layer.outputs);
            else
                work.fill(p, layer.outputs, [&](std::size_t o) {
                    return activate(sums[o], layer.shift, layer.activation, layer.top);
                });
        }
    }
}

void Layers::run(const std::int32_t* in, std::size_t positions, const Added* added,
                 std::int64_t* sums) const {
    const unsigned parts = threads_for(positions * products_, positions);
    // Two pieces or more for each part, so that one that comes late does fewer; each reads all weights.
    const std::size_t of_part = (positions + parts - 1) / parts;
    const std::size_t pieces = std::max((of_part + positions_together - 1) / positions_together,
                                        std::min<std::size_t>(2, (of_part + 3) / 4));
    const std::size_t together =
        std::max<std::size_t>(1, (of_part + pieces - 1) / std::max<std::size_t>(1, pieces));
    // All memory is taken here, where a failure can be told. It stays, for steps come one after the other.
    static thread_local std::vector<std::vector<std::byte>> memory(threads_max);
    std::vector<Work> works;
    for (unsigned part = 0; part < parts; ++part) works.emplace_back(*this, together, memory[part]);
    share((positions + together - 1) / together, parts, [&](std::size_t item, unsigned part) {
        const std::size_t first = item * together;
        run_some(in, first, std::min(together, positions - first), added, sums, works[part]);
    });
}

void Layers::run_layer(std::size_t number, const Plane& in, const Added& added, Plane* next,
                       std::int64_t* sums, std::int32_t* activations) const {
    const Packed& layer = layers_[number];
    const std::size_t pitch = layer.blocks * outputs_at_once, phases = layer.phases.size();
    const std::size_t items = in.height * phases;
    // Where a result goes: PixelShuffle spreads the outputs of a position over a square. Sums come before it.
    const std::size_t square = sums ? 1 : layer.shuffle, scaling = layer.up * square;
    const std::size_t column_step = next ? next->pitch : layer.outputs / (square * square);
    const std::size_t row_step = next ? next->row_pitch : in.width * scaling * column_step;
    std::vector<std::size_t> places(layer.outputs);
    for (std::size_t o = 0; o < layer.outputs; ++o) {
        const std::size_t within = o % (square * square);
        places[o] = within / square * row_step + within % square * column_step + o / (square * square);
    }
    std::size_t products = 0;
    for (const Phase& phase : layer.phases) products += in.height * in.width * phase.weight.size();
    const unsigned parts = threads_for(products, items);
    std::vector<std::int64_t> memory(parts * positions_together * pitch);
    share(items, parts, [&](std::size_t item, unsigned part) {
        const Phase& phase = layer.phases[item % phases];
        const std::size_t y = item / phases;
        std::int64_t* grown = &memory[part * positions_together * pitch];
        for (std::size_t x = 0; x < in.width; x += positions_together) {
            const std::size_t positions = std::min(positions_together, in.width - x);
            for (std::size_t p = 0; p < positions; ++p)
                start(grown + p * pitch, added.rows, layer.outputs, pitch);
            add_products(phase, in.at(y, x, phase), positions, grown, pitch);
            for (std::size_t p = 0; p < positions; ++p) {
                const std::size_t row = (layer.up * y + phase.row) * square;
                const std::size_t column = (layer.up * (x + p) + phase.column) * square;
                const std::size_t place = (next ? next->origin : 0) + row * row_step + column * column_step;
                const std::int64_t* found = grown + p * pitch;
                if (sums) {
                    std::copy_n(found, layer.outputs, sums + place);
                    continue;
                }
                for (std::size_t o = 0; o < layer.outputs; ++o) {
                    const std::int32_t a = activate(found[o], layer.shift, layer.activation, layer.top);
                    if (next)
                        put(a, next->low[place + places[o]], next->high[place + places[o]]);
                    else
                        activations[place + places[o]] = a;
                }
            }
        }
    });
}

void Layers::run(const std::int32_t* in, std::size_t height, std::size_t width, const Added* added,
                 std::int64_t* sums, std::int32_t* activations) const {
    Plane plane(height, width, inputs(), layers_.front().border);
    for (std::size_t y = 0; y < height; ++y)
        for (std::size_t x = 0; x < width; ++x) {
            const std::size_t place = plane.origin + y * plane.row_pitch + x * plane.pitch;
            for (std::size_t i = 0; i < inputs(); ++i, ++in)
                put(clamped(*in), plane.low[place + i], plane.high[place + i]);
        }
    for (std::size_t number = 0; number + 1 < layers_.size(); ++number) {
        const Packed& layer = layers_[number];
        const std::size_t scaling = layer.up * layer.shuffle;
        Plane next(plane.height * scaling, plane.width * scaling, layer.channels(),
                   layers_[number + 1].border);
        run_layer(number, plane, added[number], &next, nullptr, nullptr);
        plane = std::move(next);
    }
    run_layer(layers_.size() - 1, plane, added[layers_.size() - 1], nullptr, sums, activations);
}

void count_exceeded(const std::int64_t* sums, std::size_t positions, std::size_t row, std::size_t first,
                    std::size_t channels, const std::vector<std::int64_t>& thresholds, std::uint8_t* out) {
    // A binary search without branches, in a table of one less than a power of two entries.
    std::array<std::int64_t, 255> table;
    table.fill(std::numeric_limits<std::int64_t>::max());
    std::copy_n(thresholds.begin(), std::min(thresholds.size(), table.size()), table.begin());
    std::size_t half = 1;
    while (2 * half <= thresholds.size()) half *= 2;
    for (std::size_t p = 0; p < positions; ++p)
        for (std::size_t c = 0; c < channels; ++c) {
            const std::int64_t sum = sums[p * row + first + c];
            std::size_t count = 0;
            for (std::size_t step = half; step > 0; step /= 2)
                count += sum > table[count + step - 1] ? step : 0;
            *out++ = static_cast<std::uint8_t>(count);
        }
}

}  // namespace latens
