#include "layers.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <limits>

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
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni"))
        return {add_products_vnni<1>, add_products_vnni<2>, add_products_vnni<3>, add_products_vnni<4>,
                add_products_vnni<5>, add_products_vnni<6>, add_products_vnni<7>, add_products_vnni<8>};
    if (__builtin_cpu_supports("avx2")) return {add_products_avx2<1>, add_products_avx2<2>};
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

}  // namespace

// Some positions on their way through the layers: their activations in two parts, and what the sums grow in.
struct Layers::Work {
    std::size_t pitch, sum_pitch;
    std::int64_t* sums;
    std::int16_t *low, *high;

    Work(const Layers& layers, std::size_t most, std::vector<std::byte>& memory)
        : pitch(2 * layers.widest_pairs_), sum_pitch(layers.widest_blocks_ * outputs_at_once) {
        const std::size_t of_sums = most * sum_pitch * sizeof *sums, of_part = most * pitch * sizeof *low;
        if (memory.size() < of_sums + 2 * of_part) memory.resize(of_sums + 2 * of_part);
        sums = reinterpret_cast<std::int64_t*>(memory.data());
        low = reinterpret_cast<std::int16_t*>(memory.data() + of_sums);
        high = reinterpret_cast<std::int16_t*>(memory.data() + of_sums + of_part);
    }

    // Row `p` becomes the activations that `at(i)` gives.
    template <class At>
    void put(std::size_t p, std::size_t inputs, const At& at) const {
        std::int16_t *l = low + p * pitch, *h = high + p * pitch;
        for (std::size_t i = 0; i < inputs; ++i) {
            const std::int32_t a = at(i), upper = (a + low_half) >> low_bits;
            h[i] = static_cast<std::int16_t>(upper);
            l[i] = static_cast<std::int16_t>(a - upper * (1 << low_bits));
        }
        // The second of the last pair, where there is none: its weights are zero.
        if (inputs % 2 > 0) l[inputs] = h[inputs] = 0;
    }

    void add_products(const Packed& layer, std::size_t positions) const {
        static const Kernels kernels = choose_kernels();
        for (const Run& run : layer.runs)
            for (std::size_t p = 0; p < positions; p += kernels.size())
                kernels[std::min(kernels.size(), positions - p) - 1](
                    {&layer.weight[(run.block * layer.pairs + run.first) * outputs_at_once * 2],
                     low + p * pitch + 2 * run.first, high + p * pitch + 2 * run.first, run.pairs, pitch,
                     sums + p * sum_pitch + run.block * outputs_at_once, sum_pitch});
    }
};

void Layers::Packed::find_runs() {
    for (std::size_t block = 0; block < blocks; ++block) {
        Run run{block, 0, 0};
        std::array<std::int64_t, outputs_at_once> magnitudes{};
        for (std::size_t pair = 0; pair < pairs; ++pair) {
            const std::int16_t* w = &weight[(block * pairs + pair) * outputs_at_once * 2];
            std::int64_t largest = 0;
            for (std::size_t o = 0; o < outputs_at_once; ++o)
                largest = std::max(largest, magnitudes[o] += std::abs(w[2 * o]) + std::abs(w[2 * o + 1]));
            if (largest > weights_in_32_bits || (pair > 0 && pair % pairs_in_cache == 0)) {
                runs.push_back(run);
                run = {block, pair, 0};
                for (std::size_t o = 0; o < outputs_at_once; ++o)
                    magnitudes[o] = std::abs(w[2 * o]) + std::abs(w[2 * o + 1]);
            }
            ++run.pairs;
        }
        runs.push_back(run);
    }
    // One stretch of inputs for all outputs, then the next: its activations stay in the first-level cache.
    std::stable_sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) {
        return a.first / pairs_in_cache < b.first / pairs_in_cache;
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
        if (i > 0 && layer.inputs != layers[i - 1].outputs)
            return {Code::layer_inputs, at, signed_size(layer.inputs), signed_size(layers[i - 1].outputs)};
        if (layer.shift > shift_max) return {Code::layer_shift, at, layer.shift, shift_max};
        if (layer.activation < 0 || layer.activation > static_cast<std::int64_t>(Activation::leaky))
            return {Code::layer_activation, at, layer.activation,
                    static_cast<std::int64_t>(Activation::leaky)};
        if (layer.top < 0 || layer.top > activation_max)
            return {Code::layer_top, at, layer.top, activation_max};
        Packed p{layer.outputs,
                 layer.inputs,
                 (layer.inputs + 1) / 2,
                 (layer.outputs + outputs_at_once - 1) / outputs_at_once,
                 layer.shift,
                 static_cast<Activation>(layer.activation),
                 layer.top,
                 {},
                 {}};
        p.weight.assign(p.blocks * p.pairs * outputs_at_once * 2, 0);
        for (std::size_t o = 0; o < layer.outputs; ++o)
            for (std::size_t k = 0; k < layer.inputs; ++k) {
                const std::int16_t w = layer.weight[o * layer.inputs + k];
                if (w < -weight_max) return {Code::layer_weight, at, w, -weight_max};
                const std::size_t row = (o / outputs_at_once) * p.pairs + k / 2;
                p.weight[(row * outputs_at_once + o % outputs_at_once) * 2 + k % 2] = w;
            }
        p.find_runs();
        made->widest_pairs_ = std::max(made->widest_pairs_, p.pairs);
        made->widest_blocks_ = std::max(made->widest_blocks_, p.blocks);
        made->products_ += layer.outputs * layer.inputs;
        made->layers_.push_back(std::move(p));
    }
    result = std::move(made);
    return {};
}

void Layers::run_some(const std::int32_t* in, std::size_t start, std::size_t positions, const Added* added,
                      std::int64_t* out, const Work& work) const {
    constexpr auto largest = static_cast<std::int32_t>(activation_max);
    for (std::size_t p = 0; p < positions; ++p) {
        const std::int32_t* row = in + (start + p) * inputs();
        work.put(p, inputs(), [=](std::size_t i) { return std::clamp(row[i], -largest, largest); });
    }
    for (std::size_t number = 0; number < layers_.size(); ++number) {
        const Packed& layer = layers_[number];
        for (std::size_t p = 0; p < positions; ++p) {
            const std::int64_t* row =
                added[number].rows + (added[number].each ? (start + p) * layer.outputs : 0);
            std::int64_t* sums = work.sums + p * work.sum_pitch;
            for (std::size_t o = 0; o < layer.outputs; ++o)
                sums[o] = std::clamp(row[o], -exact_limit, exact_limit);
            std::fill(sums + layer.outputs, sums + layer.blocks * outputs_at_once, 0);
        }
        work.add_products(layer, positions);
        for (std::size_t p = 0; p < positions; ++p) {
            const std::int64_t* sums = work.sums + p * work.sum_pitch;
            if (number + 1 == layers_.size())
                std::copy_n(sums, layer.outputs, out + (start + p) * layer.outputs);
            else
                work.put(p, layer.outputs, [&](std::size_t o) {
                    return activate(sums[o], layer.shift, layer.activation, layer.top);
                });
        }
    }
}

void Layers::run(const std::int32_t* in, std::size_t positions, const Added* added, std::int64_t* sums,
                 Crew& crew) const {
    const std::size_t worth = positions * products_ / products_for_a_thread;
    const std::size_t parts =
        std::max<std::size_t>(1, std::min({std::size_t{crew.size()}, worth, positions}));
    // Two pieces or more for each part, so that one that comes late does fewer; each reads all weights.
    const std::size_t share = (positions + parts - 1) / parts;
    const std::size_t pieces = std::max((share + positions_together - 1) / positions_together,
                                        std::min<std::size_t>(2, (share + 3) / 4));
    const std::size_t together = (share + pieces - 1) / pieces;
    // All memory is taken here, where a failure can be told.
    std::vector<Work> works;
    for (std::size_t part = 0; part < parts; ++part) works.emplace_back(*this, together, crew.memory(part));
    std::atomic<std::size_t> next{0};
    crew.run(static_cast<unsigned>(parts), [&](unsigned part) {
        for (std::size_t start;
             (start = together * next.fetch_add(1, std::memory_order_relaxed)) < positions;)
            run_some(in, start, std::min(together, positions - start), added, sums, works[part]);
    });
}

}  // namespace latens
