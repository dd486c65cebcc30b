#include "kernels.hpp"

#if defined(__GNUC__) && defined(__x86_64__) && !defined(LATENS_PORTABLE)

#include <immintrin.h>

#include <cstring>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("sse4.1"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("sse4.1")
#endif

#include "kernels_plain.hpp"

namespace latens {
namespace {

constexpr std::size_t outputs_at_once = 8;

inline __m128i load(const void* from) {
    return _mm_loadu_si128(static_cast<const __m128i*>(from));
}
inline void store(void* to, __m128i v) {
    _mm_storeu_si128(static_cast<__m128i*>(to), v);
}
inline __m128i pair(const std::int16_t* inputs) {
    std::int32_t value;
    std::memcpy(&value, inputs, sizeof value);
    return _mm_set1_epi32(value);
}

// Bits to drop, one number for each lane, as factors: this instruction set shifts all lanes alike. The
// product with 2^(31-s) has 64 bits, whose bits from the 31st on are the result.
struct Drop {
    __m128i even, odd;

    explicit Drop(const std::int32_t* shift) {
        std::int32_t factor[4];
        for (std::size_t i = 0; i < 4; ++i) factor[i] = std::int32_t{1} << (31 - shift[i]);
        even = load(factor);
        odd = _mm_srli_epi64(even, 32);
    }
    __m128i operator()(__m128i sums) const {
        const __m128i low = _mm_srli_epi64(_mm_mul_epi32(sums, even), 31);
        const __m128i high = _mm_slli_epi64(_mm_mul_epi32(_mm_srli_epi64(sums, 32), odd), 1);
        return _mm_blend_epi16(low, high, 0xCC);
    }
};

// Sixteen bits of one of 16 table entries: bytes are looked up, the low ones and the high ones.
inline __m128i entry(const std::int16_t* table, __m128i n) {
    const __m128i a = load(table), b = load(table + 8), low_bytes = _mm_set1_epi16(255);
    const __m128i low = _mm_packus_epi16(_mm_and_si128(a, low_bytes), _mm_and_si128(b, low_bytes));
    const __m128i high = _mm_packus_epi16(_mm_srli_epi16(a, 8), _mm_srli_epi16(b, 8));
    // A lookup whose highest bit is set gives zero.
    const __m128i first = _mm_shuffle_epi8(low, _mm_or_si128(n, _mm_set1_epi16(static_cast<short>(0x8000))));
    const __m128i second = _mm_shuffle_epi8(high, _mm_or_si128(_mm_slli_epi16(n, 8), _mm_set1_epi16(0x80)));
    return _mm_or_si128(first, second);
}

inline __m128i gate_of(__m128i v, unsigned unit) {
    const __m128i a = _mm_min_epu16(_mm_abs_epi16(v), _mm_set1_epi16(32767));
    const __m128i inside = _mm_min_epi16(a, _mm_set1_epi16(static_cast<short>((16 << unit) - 1)));
    const __m128i n = _mm_srl_epi16(inside, _mm_cvtsi32_si128(static_cast<int>(unit)));
    const __m128i t = _mm_and_si128(_mm_sll_epi16(inside, _mm_cvtsi32_si128(static_cast<int>(15 - unit))),
                                    _mm_set1_epi16(32767));
    __m128i p = entry(gate_table[0], n);
    p = _mm_add_epi16(entry(gate_table[1], n), _mm_mulhrs_epi16(p, t));
    p = _mm_add_epi16(entry(gate_table[2], n), _mm_mulhrs_epi16(p, t));
    p = _mm_adds_epi16(entry(gate_table[3], n), _mm_mulhrs_epi16(p, t));
    const __m128i m = _mm_mulhrs_epi16(a, p);
    return _mm_sub_epi16(m, _mm_and_si128(a, _mm_srai_epi16(v, 15)));
}

// Positions times 8 outputs, in registers.
template <Finish finish, std::size_t positions>
void tile(const ProductCall& c, std::size_t position, std::size_t output) {
    const Packed& product = c.product;
    const std::size_t inputs = product.inputs, pitch = c.in_pitch;
    const std::int16_t* in = c.in + position * pitch;
    const std::int16_t* w = product.weight.data() + output / lanes * lanes * inputs + output % lanes * 2;
    const std::int32_t* start = product.start.data() + output;
    __m128i sums[positions][2];
    unrolled<positions>([&](auto p) LATENS_INLINE {
        sums[p][0] = load(start);
        sums[p][1] = load(start + 4);
    });
    for (std::size_t i = 0; i < inputs; i += 2, w += 2 * lanes, in += 2) {
        const __m128i first = load(w), second = load(w + 8);
        unrolled<positions>([&](auto p) LATENS_INLINE {
            const __m128i x = pair(in + p * pitch);
            sums[p][0] = _mm_add_epi32(sums[p][0], _mm_madd_epi16(first, x));
            sums[p][1] = _mm_add_epi32(sums[p][1], _mm_madd_epi16(second, x));
        });
    }
    const Drop first_drop(product.shift.data() + output), second_drop(product.shift.data() + output + 4);
    unrolled<positions>([&](auto p) LATENS_INLINE {
        const std::size_t at = (position + p) * c.pitch + output;
        if constexpr (finish == Finish::sums) {
            store(c.sums + at, sums[p][0]);
            store(c.sums + at + 4, sums[p][1]);
        } else {
            __m128i low = first_drop(sums[p][0]), high = second_drop(sums[p][1]);
            if constexpr (finish == Finish::add) {
                const __m128i x = load(c.added + at);
                low = _mm_add_epi32(low, _mm_srai_epi32(_mm_unpacklo_epi16(x, x), 16));
                high = _mm_add_epi32(high, _mm_srai_epi32(_mm_unpackhi_epi16(x, x), 16));
                store(c.out + at, _mm_packs_epi32(low, high));
            } else {
                __m128i v = _mm_packs_epi32(low, high);
                v = _mm_min_epi16(_mm_max_epi16(v, _mm_set1_epi16(product.low)),
                                  _mm_set1_epi16(product.high));
                if constexpr (finish == Finish::gate) v = gate_of(v, product.gate);
                store(c.out + at, v);
            }
        }
    });
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
    const __m128i zero = _mm_setzero_si128();
    for (std::size_t o = 0; o < pitch; o += outputs_at_once) {
        const std::int16_t* weight = p.weight.data() + 12 * (o / lanes * lanes) + o % lanes * 2;
        const Drop drop_low(p.shift.data() + o), drop_high(p.shift.data() + o + 4);
        const __m128i start_low = load(p.start.data() + o), start_high = load(p.start.data() + o + 4);
        std::int16_t* out = c.out + o;
        for (std::size_t x = c.first; x < c.end; ++x, out += pitch) {
            __m128i low = start_low, high = start_high;
            for (std::size_t column = x > 0 ? 0 : 1; column < (x + 1 < c.width ? 3u : 2u); ++column) {
                const std::size_t at = (x + column - 1) * pitch + o;
                const __m128i a = load(c.rows[0] + at), b = load(c.rows[1] + at), d = load(c.rows[2] + at);
                // Pairs: the first two rows, the third and nothing.
                const std::int16_t* w = weight + column * 4 * lanes;
                const auto add = [](__m128i& sum, __m128i of, const std::int16_t* weights) LATENS_INLINE {
                    sum = _mm_add_epi32(sum, _mm_madd_epi16(of, load(weights)));
                };
                add(low, _mm_unpacklo_epi16(a, b), w);
                add(high, _mm_unpackhi_epi16(a, b), w + 8);
                add(low, _mm_unpacklo_epi16(d, zero), w + 2 * lanes);
                add(high, _mm_unpackhi_epi16(d, zero), w + 2 * lanes + 8);
            }
            store(out, _mm_packs_epi32(drop_low(low), drop_high(high)));
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

const Kernels* sse4_kernels() {
    static const Kernels kernels{"sse4", true, in_order, product, depthwise, plain_scale, plain_bytes};
    return __builtin_cpu_supports("sse4.1") ? &kernels : nullptr;
}

}  // namespace latens

#else

namespace latens {
const Kernels* sse4_kernels() {
    return nullptr;
}
}  // namespace latens

#endif
