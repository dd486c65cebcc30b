#include "kernels.hpp"

#if defined(__wasm_simd128__) && !defined(LATENS_PORTABLE)

#include <wasm_simd128.h>

#include <cstring>

#include "kernels_plain.hpp"

namespace latens {
namespace {

// Six positions of them, two vectors of weights and one of inputs fill the registers of most processors.
constexpr std::size_t outputs_at_once = 8;

// Sixteen bits of one of 16 table entries each: bytes are looked up, the low ones and the high ones.
inline v128_t entry(const std::int16_t* table, v128_t n) {
    const v128_t first = wasm_v128_load(table), second = wasm_v128_load(table + 8);
    const v128_t low =
        wasm_i8x16_shuffle(first, second, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const v128_t high =
        wasm_i8x16_shuffle(first, second, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    // A lookup of what is not there gives zero.
    return wasm_v128_or(
        wasm_i8x16_swizzle(low, wasm_v128_or(n, wasm_i16x8_splat(static_cast<std::int16_t>(0x8000)))),
        wasm_i8x16_swizzle(high, wasm_v128_or(wasm_i16x8_shl(n, 8), wasm_i16x8_splat(0x80))));
}

inline v128_t gate_of(v128_t v, unsigned unit) {
    const v128_t a = wasm_u16x8_min(wasm_i16x8_abs(v), wasm_i16x8_splat(32767));
    const v128_t inside = wasm_i16x8_min(a, wasm_i16x8_splat(static_cast<std::int16_t>((16 << unit) - 1)));
    const v128_t n = wasm_u16x8_shr(inside, unit);
    const v128_t t = wasm_v128_and(wasm_i16x8_shl(inside, 15 - unit), wasm_i16x8_splat(32767));
    v128_t p = entry(gate_table[0], n);
    p = wasm_i16x8_add(entry(gate_table[1], n), wasm_i16x8_q15mulr_sat(p, t));
    p = wasm_i16x8_add(entry(gate_table[2], n), wasm_i16x8_q15mulr_sat(p, t));
    p = wasm_i16x8_add_sat(entry(gate_table[3], n), wasm_i16x8_q15mulr_sat(p, t));
    const v128_t m = wasm_i16x8_q15mulr_sat(a, p);
    return wasm_i16x8_sub(m, wasm_v128_and(a, wasm_i16x8_shr(v, 15)));
}

// Divided by 2^shift, rounded down, with a shift of its own for each lane: there is no such instruction.
struct Shifts {
    v128_t times;  // 2^(31 - shift)

    explicit Shifts(const std::int32_t* shift)
        : times(wasm_i32x4_make(1 << (31 - shift[0]), 1 << (31 - shift[1]), 1 << (31 - shift[2]),
                                1 << (31 - shift[3]))) {}
    v128_t down(v128_t sums) const {
        const v128_t low = wasm_u64x2_shr(wasm_i64x2_extmul_low_i32x4(sums, times), 31);
        const v128_t high = wasm_u64x2_shr(wasm_i64x2_extmul_high_i32x4(sums, times), 31);
        return wasm_i32x4_shuffle(low, high, 0, 2, 4, 6);
    }
};

template <Finish finish>
inline void finish_eight(const ProductCall& c, const Shifts& low, const Shifts& high, std::size_t position,
                         std::size_t output, v128_t first, v128_t second) {
    const Packed& p = c.product;
    const std::size_t at = position * c.pitch + output;
    if constexpr (finish == Finish::sums) {
        wasm_v128_store(c.sums + at, first);
        wasm_v128_store(c.sums + at + 4, second);
        return;
    }
    first = low.down(first);
    second = high.down(second);
    if constexpr (finish == Finish::add) {
        const v128_t x = wasm_v128_load(c.added + at);
        first = wasm_i32x4_add(first, wasm_i32x4_extend_low_i16x8(x));
        second = wasm_i32x4_add(second, wasm_i32x4_extend_high_i16x8(x));
        wasm_v128_store(c.out + at, wasm_i16x8_narrow_i32x4(first, second));
    } else {
        v128_t v = wasm_i16x8_narrow_i32x4(first, second);
        v = wasm_i16x8_min(wasm_i16x8_max(v, wasm_i16x8_splat(p.low)), wasm_i16x8_splat(p.high));
        if constexpr (finish == Finish::gate) v = gate_of(v, p.gate);
        wasm_v128_store(c.out + at, v);
    }
}

// Positions times 8 outputs, in registers.
template <Finish finish, std::size_t positions>
void tile(const ProductCall& c, std::size_t position, std::size_t output) {
    const Packed& product = c.product;
    const std::size_t inputs = product.inputs, pitch = c.in_pitch;
    const std::int16_t* in = c.in + position * pitch;
    const std::int16_t* w = product.weight.data() + output / lanes * lanes * inputs + output % lanes * 2;
    const std::int32_t *start = product.start.data() + output, *shift = product.shift.data() + output;
    v128_t sums[positions][2];
    unrolled<positions>([&](auto p) LATENS_INLINE {
        sums[p][0] = wasm_v128_load(start);
        sums[p][1] = wasm_v128_load(start + 4);
    });
    for (std::size_t i = 0; i < inputs; i += 2, w += 2 * lanes, in += 2) {
        const v128_t first = wasm_v128_load(w), second = wasm_v128_load(w + 8);
        unrolled<positions>([&](auto p) LATENS_INLINE {
            const v128_t x = wasm_v128_load32_splat(in + p * pitch);
            sums[p][0] = wasm_i32x4_add(sums[p][0], wasm_i32x4_dot_i16x8(first, x));
            sums[p][1] = wasm_i32x4_add(sums[p][1], wasm_i32x4_dot_i16x8(second, x));
        });
    }
    const Shifts low(shift), high(shift + 4);
    unrolled<positions>([&](auto p) LATENS_INLINE {
        finish_eight<finish>(c, low, high, position + p, output, sums[p][0], sums[p][1]);
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
    const v128_t zero = wasm_i16x8_splat(0);
    for (std::size_t o = 0; o < pitch; o += outputs_at_once) {
        const std::int16_t* weight = p.weight.data() + 12 * (o / lanes * lanes) + o % lanes * 2;
        const v128_t start_low = wasm_v128_load(p.start.data() + o),
                     start_high = wasm_v128_load(p.start.data() + o + 4);
        const Shifts shift_low(p.shift.data() + o), shift_high(p.shift.data() + o + 4);
        std::int16_t* out = c.out + o;
        for (std::size_t x = c.first; x < c.end; ++x, out += pitch) {
            v128_t low = start_low, high = start_high;
            for (std::size_t column = x > 0 ? 0 : 1; column < (x + 1 < c.width ? 3u : 2u); ++column) {
                const std::size_t at = (x + column - 1) * pitch + o;
                const v128_t a = wasm_v128_load(c.rows[0] + at), b = wasm_v128_load(c.rows[1] + at),
                             d = wasm_v128_load(c.rows[2] + at);
                // Pairs: the first two rows, the third and nothing.
                const std::int16_t* w = weight + column * 4 * lanes;
                const auto add = [&](v128_t& sum, v128_t pair, const std::int16_t* weights) {
                    sum = wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(pair, wasm_v128_load(weights)));
                };
                add(low, wasm_i16x8_shuffle(a, b, 0, 8, 1, 9, 2, 10, 3, 11), w);
                add(high, wasm_i16x8_shuffle(a, b, 4, 12, 5, 13, 6, 14, 7, 15), w + 8);
                add(low, wasm_i16x8_shuffle(d, zero, 0, 8, 1, 9, 2, 10, 3, 11), w + 2 * lanes);
                add(high, wasm_i16x8_shuffle(d, zero, 4, 12, 5, 13, 6, 14, 7, 15), w + 2 * lanes + 8);
            }
            wasm_v128_store(out, wasm_i16x8_narrow_i32x4(shift_low.down(low), shift_high.down(high)));
        }
    }
}

}  // namespace

const Kernels* simd128_kernels() {
    static const Kernels kernels{"simd128", true, in_order, product, depthwise, plain_scale, plain_bytes};
    return &kernels;
}

}  // namespace latens

#else

namespace latens {
const Kernels* simd128_kernels() {
    return nullptr;
}
}  // namespace latens

#endif
