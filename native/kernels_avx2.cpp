#include "kernels.hpp"

#if defined(__GNUC__) && defined(__x86_64__) && !defined(LATENS_PORTABLE)

#include <immintrin.h>

#include <cstring>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#include "kernels_plain.hpp"

namespace latens {
namespace {

// Two vectors of 8 sums each are packed into one of 16 values in quarters: sums lie in the order that this
// makes.
constexpr std::uint8_t quarters[lanes] = {0,  1,  2,  3,  8,  9,  10, 11, 4,  5,  6,  7,  12, 13, 14, 15,
                                          16, 17, 18, 19, 24, 25, 26, 27, 20, 21, 22, 23, 28, 29, 30, 31};
constexpr std::size_t outputs_at_once = 16;

inline std::int32_t both(const std::int16_t* inputs) {
    std::int32_t value;
    std::memcpy(&value, inputs, sizeof value);
    return value;
}
inline __m256i load(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
inline void store(void* to, __m256i v) {
    _mm256_storeu_si256(static_cast<__m256i*>(to), v);
}

// Sixteen bits of one of 16 table entries: bytes are looked up, the low ones and the high ones.
inline __m256i entry(const std::int16_t* table, __m256i n) {
    const __m256i all = load(table), low_bytes = _mm256_and_si256(all, _mm256_set1_epi16(255));
    const __m256i high_bytes = _mm256_srli_epi16(all, 8);
    const __m256i packed =
        _mm256_permute4x64_epi64(_mm256_packus_epi16(low_bytes, high_bytes), 0b11'01'10'00);
    const __m256i low = _mm256_permute2x128_si256(packed, packed, 0x00),
                  high = _mm256_permute2x128_si256(packed, packed, 0x11);
    // A lookup whose highest bit is set gives zero.
    const __m256i first =
        _mm256_shuffle_epi8(low, _mm256_or_si256(n, _mm256_set1_epi16(static_cast<short>(0x8000))));
    const __m256i second =
        _mm256_shuffle_epi8(high, _mm256_or_si256(_mm256_slli_epi16(n, 8), _mm256_set1_epi16(0x80)));
    return _mm256_or_si256(first, second);
}

inline __m256i gate_of(__m256i v, unsigned unit) {
    const __m256i a = _mm256_min_epu16(_mm256_abs_epi16(v), _mm256_set1_epi16(32767));
    const __m256i inside = _mm256_min_epi16(a, _mm256_set1_epi16(static_cast<short>((16 << unit) - 1)));
    const __m256i n = _mm256_srl_epi16(inside, _mm_cvtsi32_si128(static_cast<int>(unit)));
    const __m256i t = _mm256_and_si256(
        _mm256_sll_epi16(inside, _mm_cvtsi32_si128(static_cast<int>(15 - unit))), _mm256_set1_epi16(32767));
    __m256i p = entry(gate_table[0], n);
    p = _mm256_add_epi16(entry(gate_table[1], n), _mm256_mulhrs_epi16(p, t));
    p = _mm256_add_epi16(entry(gate_table[2], n), _mm256_mulhrs_epi16(p, t));
    p = _mm256_adds_epi16(entry(gate_table[3], n), _mm256_mulhrs_epi16(p, t));
    const __m256i m = _mm256_mulhrs_epi16(a, p);
    return _mm256_sub_epi16(m, _mm256_and_si256(a, _mm256_srai_epi16(v, 15)));
}

template <Finish finish>
inline void finish_half(const ProductCall& c, std::size_t position, std::size_t output, __m256i first,
                        __m256i second) {
    const Packed& p = c.product;
    const std::size_t at = position * c.pitch + output;
    if constexpr (finish == Finish::sums) {
        store(c.sums + at, _mm256_permute2x128_si256(first, second, 0x20));
        store(c.sums + at + 8, _mm256_permute2x128_si256(first, second, 0x31));
        return;
    }
    first = _mm256_srav_epi32(first, load(p.shift.data() + output));
    second = _mm256_srav_epi32(second, load(p.shift.data() + output + 8));
    if constexpr (finish == Finish::add) {
        const __m256i x = load(c.added + at);
        first = _mm256_add_epi32(first, _mm256_srai_epi32(_mm256_unpacklo_epi16(x, x), 16));
        second = _mm256_add_epi32(second, _mm256_srai_epi32(_mm256_unpackhi_epi16(x, x), 16));
        store(c.out + at, _mm256_packs_epi32(first, second));
    } else {
        __m256i v = _mm256_packs_epi32(first, second);
        v = _mm256_min_epi16(_mm256_max_epi16(v, _mm256_set1_epi16(p.low)), _mm256_set1_epi16(p.high));
        if constexpr (finish == Finish::gate) v = gate_of(v, p.gate);
        store(c.out + at, v);
    }
}

// Positions times 16 outputs, in registers.
template <Finish finish, std::size_t positions>
void tile(const ProductCall& c, std::size_t position, std::size_t output) {
    const Packed& product = c.product;
    const std::size_t inputs = product.inputs, pitch = c.in_pitch;
    const std::int16_t* in = c.in + position * pitch;
    const std::int16_t* w = product.weight.data() + output / lanes * lanes * inputs + output % lanes * 2;
    const std::int32_t* start = product.start.data() + output;
    __m256i sums[positions][2];
    unrolled<positions>([&](auto p) LATENS_INLINE {
        sums[p][0] = load(start);
        sums[p][1] = load(start + 8);
    });
    for (std::size_t i = 0; i < inputs; i += 2, w += 2 * lanes, in += 2) {
        const __m256i first = load(w), second = load(w + 16);
        unrolled<positions>([&](auto p) LATENS_INLINE {
            const __m256i x = _mm256_set1_epi32(both(in + p * pitch));
            sums[p][0] = _mm256_add_epi32(sums[p][0], _mm256_madd_epi16(first, x));
            sums[p][1] = _mm256_add_epi32(sums[p][1], _mm256_madd_epi16(second, x));
        });
    }
    unrolled<positions>(
        [&](auto p) LATENS_INLINE { finish_half<finish>(c, position + p, output, sums[p][0], sums[p][1]); });
}

template <Finish finish>
constexpr Tile tiles[] = {tile<finish, 1>, tile<finish, 2>, tile<finish, 3>,
                          tile<finish, 4>, tile<finish, 5>, tile<finish, 6>};

void product(const ProductCall& c) {
    static constexpr const Tile* by_finish[] = {tiles<Finish::limit>, tiles<Finish::gate>, tiles<Finish::add>,
                                                tiles<Finish::sums>};
    for (std::size_t o = 0; o < padded(c.product.outputs); o += outputs_at_once)
        in_tiles(c, o, by_finish[static_cast<std::size_t>(c.product.finish)]);
}

void depthwise(const DepthwiseCall& c) {
    const Packed& p = c.weights;
    const std::size_t pitch = padded(p.outputs);
    const __m256i zero = _mm256_setzero_si256();
    for (std::size_t o = 0; o < pitch; o += outputs_at_once) {
        const std::int16_t* weight = p.weight.data() + 12 * (o / lanes * lanes) + o % lanes * 2;
        const __m256i start_low = load(p.start.data() + o), start_high = load(p.start.data() + o + 8),
                      shift_low = load(p.shift.data() + o), shift_high = load(p.shift.data() + o + 8);
        std::int16_t* out = c.out + o;
        for (std::size_t x = c.first; x < c.end; ++x, out += pitch) {
            __m256i low = start_low, high = start_high;
            for (std::size_t column = x > 0 ? 0 : 1; column < (x + 1 < c.width ? 3u : 2u); ++column) {
                const std::size_t at = (x + column - 1) * pitch + o;
                const __m256i a = load(c.rows[0] + at), b = load(c.rows[1] + at), d = load(c.rows[2] + at);
                // Pairs: the first two rows, the third and nothing.
                const std::int16_t* w = weight + column * 4 * lanes;
                const auto add = [&](__m256i& sum, __m256i pair, const std::int16_t* weights) {
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pair, load(weights)));
                };
                add(low, _mm256_unpacklo_epi16(a, b), w);
                add(high, _mm256_unpackhi_epi16(a, b), w + 16);
                add(low, _mm256_unpacklo_epi16(d, zero), w + 2 * lanes);
                add(high, _mm256_unpackhi_epi16(d, zero), w + 2 * lanes + 16);
            }
            store(out,
                  _mm256_packs_epi32(_mm256_srav_epi32(low, shift_low), _mm256_srav_epi32(high, shift_high)));
        }
    }
}

}  // namespace
}  // namespace latens

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace latens {

const Kernels* avx2_kernels() {
    static const Kernels kernels{"avx2", true, quarters, product, depthwise, plain_scale, plain_bytes};
    return __builtin_cpu_supports("avx2") ? &kernels : nullptr;
}

}  // namespace latens

#else

namespace latens {
const Kernels* avx2_kernels() {
    return nullptr;
}
}  // namespace latens

#endif
