#include "kernels.hpp"

#if defined(__GNUC__) && defined(__x86_64__) && !defined(LATENS_PORTABLE)

#include <immintrin.h>

#include <cstring>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), \
                             apply_to = function)
#else
// GCC 12 takes the undefined values in its own header for mistakes.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

#include "kernels_plain.hpp"

namespace latens {
namespace {

// Two vectors of 16 sums each are packed into one of 32 values in quarters: sums lie in the order that this
// makes.
constexpr std::uint8_t quarters[lanes] = {0, 1, 2,  3,  16, 17, 18, 19, 4,  5,  6,  7,  20, 21, 22, 23,
                                          8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31};

inline std::int32_t both(const std::int16_t* inputs) {
    std::int32_t value;
    std::memcpy(&value, inputs, sizeof value);
    return value;
}

// sum += weights * x, of pairs.
inline void add_products(__m512i& sum, __m512i weights, __m512i x) {
#if defined(__clang__)
    sum = _mm512_dpwssd_epi32(sum, weights, x);
#else
    // With the intrinsic GCC 12 copies and stores every sum in every round of a loop: half the speed.
    asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(x));
#endif
}

inline __m512i gate_of(__m512i v, unsigned unit) {
    const __m512i a = _mm512_min_epu16(_mm512_abs_epi16(v), _mm512_set1_epi16(32767));
    const __m512i inside = _mm512_min_epi16(a, _mm512_set1_epi16(static_cast<short>((16 << unit) - 1)));
    const __m512i n = _mm512_srl_epi16(inside, _mm_cvtsi32_si128(static_cast<int>(unit)));
    const __m512i t = _mm512_and_si512(
        _mm512_sll_epi16(inside, _mm_cvtsi32_si128(static_cast<int>(15 - unit))), _mm512_set1_epi16(32767));
    const auto at = [n](const std::int16_t* table) {
        const __m512i all =
            _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(table)));
        return _mm512_permutexvar_epi16(n, all);
    };
    __m512i p = at(gate_table[0]);
    p = _mm512_add_epi16(at(gate_table[1]), _mm512_mulhrs_epi16(p, t));
    p = _mm512_add_epi16(at(gate_table[2]), _mm512_mulhrs_epi16(p, t));
    p = _mm512_adds_epi16(at(gate_table[3]), _mm512_mulhrs_epi16(p, t));
    const __m512i m = _mm512_mulhrs_epi16(a, p);
    return _mm512_mask_sub_epi16(m, _mm512_movepi16_mask(v), m, a);
}

inline __m512i sign_extend_low(__m512i x) {
    return _mm512_srai_epi32(_mm512_unpacklo_epi16(x, x), 16);
}
inline __m512i sign_extend_high(__m512i x) {
    return _mm512_srai_epi32(_mm512_unpackhi_epi16(x, x), 16);
}

template <Finish finish>
inline void finish_unit(const ProductCall& c, std::size_t position, std::size_t output, __m512i first,
                        __m512i second) {
    const Packed& p = c.product;
    const std::size_t at = position * c.pitch + output;
    if constexpr (finish == Finish::sums) {
        const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
        const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
        _mm512_storeu_si512(c.sums + at, _mm512_permutex2var_epi32(first, low, second));
        _mm512_storeu_si512(c.sums + at + 16, _mm512_permutex2var_epi32(first, high, second));
        return;
    }
    first = _mm512_srav_epi32(first, _mm512_loadu_si512(p.shift.data() + output));
    second = _mm512_srav_epi32(second, _mm512_loadu_si512(p.shift.data() + output + 16));
    if constexpr (finish == Finish::add) {
        const __m512i x = _mm512_loadu_si512(c.added + at);
        first = _mm512_add_epi32(first, sign_extend_low(x));
        second = _mm512_add_epi32(second, sign_extend_high(x));
        _mm512_storeu_si512(c.out + at, _mm512_packs_epi32(first, second));
    } else {
        __m512i v = _mm512_packs_epi32(first, second);
        v = _mm512_min_epi16(_mm512_max_epi16(v, _mm512_set1_epi16(p.low)), _mm512_set1_epi16(p.high));
        if constexpr (finish == Finish::gate) v = gate_of(v, p.gate);
        _mm512_storeu_si512(c.out + at, v);
    }
}

// Positions times 32 outputs a unit, in registers.
template <Finish finish, std::size_t positions, std::size_t units>
void tile(const ProductCall& c, std::size_t position, std::size_t output) {
    const Packed& product = c.product;
    const std::size_t inputs = product.inputs, pitch = c.in_pitch;
    const std::int16_t* in = c.in + position * pitch;
    const std::int16_t* w = product.weight.data() + output * inputs;
    const std::int32_t* start = product.start.data() + output;
    __m512i sums[positions][2 * units];
    unrolled<2 * units>([&](auto v) LATENS_INLINE {
        const __m512i s = _mm512_loadu_si512(start + 16 * v);
        unrolled<positions>([&](auto p) LATENS_INLINE { sums[p][v] = s; });
    });
    for (std::size_t i = 0; i < inputs; i += 2, w += 2 * lanes, in += 2) {
        __m512i weights[2 * units];
        unrolled<2 * units>([&](auto v) LATENS_INLINE {
            weights[v] = _mm512_loadu_si512(w + v / 2 * lanes * inputs + v % 2 * lanes);
        });
        unrolled<positions>([&](auto p) LATENS_INLINE {
            const __m512i x = _mm512_set1_epi32(both(in + p * pitch));
            unrolled<2 * units>([&](auto v) LATENS_INLINE { add_products(sums[p][v], weights[v], x); });
        });
    }
    unrolled<positions>([&](auto p) LATENS_INLINE {
        unrolled<units>([&](auto u) LATENS_INLINE {
            finish_unit<finish>(c, position + p, output + u * lanes, sums[p][2 * u], sums[p][2 * u + 1]);
        });
    });
}

template <Finish finish, std::size_t units>
constexpr Tile tiles[] = {tile<finish, 1, units>, tile<finish, 2, units>, tile<finish, 3, units>,
                          tile<finish, 4, units>, tile<finish, 5, units>, tile<finish, 6, units>};

template <std::size_t units>
constexpr const Tile* by_finish[] = {tiles<Finish::limit, units>, tiles<Finish::gate, units>,
                                     tiles<Finish::add, units>, tiles<Finish::sums, units>};

void product(const ProductCall& c) {
    const auto finish = static_cast<std::size_t>(c.product.finish);
    const std::size_t end = padded(c.product.outputs);
    std::size_t o = 0;
    for (; o + 2 * lanes <= end; o += 2 * lanes) in_tiles(c, o, by_finish<2>[finish]);
    if (o < end) in_tiles(c, o, by_finish<1>[finish]);
}

// One column of three rows, as pairs: the first two rows, the third and nothing.
struct Column {
    __m512i low, high, third_low, third_high;
};

void depthwise(const DepthwiseCall& c) {
    const Packed& p = c.weights;
    const std::size_t pitch = padded(p.outputs);
    const __m512i zero = _mm512_setzero_si512();
    for (std::size_t o = 0; o < pitch; o += lanes) {
        __m512i w[12];
        for (std::size_t i = 0; i < 12; ++i) w[i] = _mm512_loadu_si512(p.weight.data() + 12 * o + 32 * i);
        const __m512i start_low = _mm512_loadu_si512(p.start.data() + o),
                      start_high = _mm512_loadu_si512(p.start.data() + o + 16),
                      shift_low = _mm512_loadu_si512(p.shift.data() + o),
                      shift_high = _mm512_loadu_si512(p.shift.data() + o + 16);
        const auto column = [&](std::size_t x) {  // one more than the column's number
            if (x == 0 || x > c.width) return Column{zero, zero, zero, zero};
            const std::size_t at = (x - 1) * pitch + o;
            const __m512i a = _mm512_loadu_si512(c.rows[0] + at), b = _mm512_loadu_si512(c.rows[1] + at),
                          d = _mm512_loadu_si512(c.rows[2] + at);
            return Column{_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b),
                          _mm512_unpacklo_epi16(d, zero), _mm512_unpackhi_epi16(d, zero)};
        };
        Column before = column(c.first), here = column(c.first + 1);
        std::int16_t* out = c.out + o;
        for (std::size_t x = c.first; x < c.end; ++x, out += pitch) {
            const Column after = column(x + 2);
            __m512i low = start_low, high = start_high, low2 = zero, high2 = zero;
            const auto add = [&](const Column& k, std::size_t i) {
                add_products(low, k.low, w[i]);
                add_products(high, k.high, w[i + 1]);
                add_products(low2, k.third_low, w[i + 2]);
                add_products(high2, k.third_high, w[i + 3]);
            };
            add(before, 0);
            add(here, 4);
            add(after, 8);
            low = _mm512_srav_epi32(_mm512_add_epi32(low, low2), shift_low);
            high = _mm512_srav_epi32(_mm512_add_epi32(high, high2), shift_high);
            _mm512_storeu_si512(out, _mm512_packs_epi32(low, high));
            before = here;
            here = after;
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

const Kernels* avx512_kernels() {
    static const Kernels kernels{"avx512", true, quarters, product, depthwise, plain_scale, plain_bytes};
    const bool here = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
    return here ? &kernels : nullptr;
}

}  // namespace latens

#else

namespace latens {
const Kernels* avx512_kernels() {
    return nullptr;
}
}  // namespace latens

#endif
