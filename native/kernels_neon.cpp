#include "kernels.hpp"

#if defined(__GNUC__) && defined(__aarch64__) && !defined(LATENS_PORTABLE)

#include <arm_neon.h>

#include "kernels_plain.hpp"

namespace latens {
namespace {

constexpr std::size_t outputs_at_once = 16;

// Sixteen bits of one of 16 table entries each: bytes are looked up, the low ones and the high ones.
inline int16x8_t entry(const std::int16_t* table, uint16x8_t n) {
    const int8x16x2_t bytes =
        vuzpq_s8(vreinterpretq_s8_s16(vld1q_s16(table)), vreinterpretq_s8_s16(vld1q_s16(table + 8)));
    const uint8x8_t at = vmovn_u16(n);
    const int8x8_t low = vqtbl1_s8(bytes.val[0], at), high = vqtbl1_s8(bytes.val[1], at);
    const int8x8x2_t both = vzip_s8(low, high);
    return vreinterpretq_s16_s8(vcombine_s8(both.val[0], both.val[1]));
}

inline int16x8_t gate_of(int16x8_t v, unsigned unit) {
    const int16x8_t a = vqabsq_s16(v);
    const int16x8_t inside = vminq_s16(a, vdupq_n_s16(static_cast<std::int16_t>((16 << unit) - 1)));
    const uint16x8_t n = vshlq_u16(vreinterpretq_u16_s16(inside),
                                   vdupq_n_s16(static_cast<std::int16_t>(-static_cast<int>(unit))));
    const int16x8_t t =
        vandq_s16(vshlq_s16(inside, vdupq_n_s16(static_cast<std::int16_t>(15 - unit))), vdupq_n_s16(32767));
    int16x8_t p = entry(gate_table[0], n);
    p = vaddq_s16(entry(gate_table[1], n), vqrdmulhq_s16(p, t));
    p = vaddq_s16(entry(gate_table[2], n), vqrdmulhq_s16(p, t));
    p = vqaddq_s16(entry(gate_table[3], n), vqrdmulhq_s16(p, t));
    const int16x8_t m = vqrdmulhq_s16(a, p);
    return vsubq_s16(m, vandq_s16(a, vshrq_n_s16(v, 15)));
}

// Divided by 2^shift, rounded down: sums hold what rounds them.
inline int32x4_t down(int32x4_t sums, const std::int32_t* shift) {
    return vshlq_s32(sums, vnegq_s32(vld1q_s32(shift)));
}

template <Finish finish>
inline void finish_eight(const ProductCall& c, std::size_t position, std::size_t output, int32x4_t first,
                         int32x4_t second) {
    const Packed& p = c.product;
    const std::size_t at = position * c.pitch + output;
    if constexpr (finish == Finish::sums) {
        vst1q_s32(c.sums + at, first);
        vst1q_s32(c.sums + at + 4, second);
        return;
    }
    first = down(first, p.shift.data() + output);
    second = down(second, p.shift.data() + output + 4);
    if constexpr (finish == Finish::add) {
        const int16x8_t x = vld1q_s16(c.added + at);
        first = vaddw_s16(first, vget_low_s16(x));
        second = vaddw_high_s16(second, x);
        vst1q_s16(c.out + at, vqmovn_high_s32(vqmovn_s32(first), second));
    } else {
        int16x8_t v = vqmovn_high_s32(vqmovn_s32(first), second);
        v = vminq_s16(vmaxq_s16(v, vdupq_n_s16(p.low)), vdupq_n_s16(p.high));
        if constexpr (finish == Finish::gate) v = gate_of(v, p.gate);
        vst1q_s16(c.out + at, v);
    }
}

// Positions times 16 outputs, in registers.
template <Finish finish, std::size_t positions>
void tile(const ProductCall& c, std::size_t position, std::size_t output) {
    const Packed& product = c.product;
    const std::size_t inputs = product.inputs, pitch = c.in_pitch;
    const std::int16_t* in = c.in + position * pitch;
    const std::int16_t* w = product.weight.data() + output / lanes * lanes * inputs + output % lanes;
    const std::int32_t* start = product.start.data() + output;
    int32x4_t sums[positions][4];
    unrolled<positions>([&](auto p) LATENS_INLINE {
        unrolled<4>([&](auto v) LATENS_INLINE { sums[p][v] = vld1q_s32(start + 4 * v); });
    });
    for (std::size_t i = 0; i < inputs; ++i, w += lanes, ++in) {
        const int16x8_t first = vld1q_s16(w), second = vld1q_s16(w + 8);
        unrolled<positions>([&](auto p) LATENS_INLINE {
            const std::int16_t x = in[p * pitch];
            sums[p][0] = vmlal_n_s16(sums[p][0], vget_low_s16(first), x);
            sums[p][1] = vmlal_high_n_s16(sums[p][1], first, x);
            sums[p][2] = vmlal_n_s16(sums[p][2], vget_low_s16(second), x);
            sums[p][3] = vmlal_high_n_s16(sums[p][3], second, x);
        });
    }
    unrolled<positions>([&](auto p) LATENS_INLINE {
        finish_eight<finish>(c, position + p, output, sums[p][0], sums[p][1]);
        finish_eight<finish>(c, position + p, output + 8, sums[p][2], sums[p][3]);
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
    for (std::size_t o = 0; o < pitch; o += 8) {
        const std::int16_t* weight = p.weight.data() + 9 * (o / lanes * lanes) + o % lanes;
        std::int16_t* out = c.out + o;
        for (std::size_t x = c.first; x < c.end; ++x, out += pitch) {
            int32x4_t low = vld1q_s32(p.start.data() + o), high = vld1q_s32(p.start.data() + o + 4);
            for (std::size_t column = x > 0 ? 0 : 1; column < (x + 1 < c.width ? 3u : 2u); ++column)
                for (std::size_t row = 0; row < 3; ++row) {
                    const int16x8_t in = vld1q_s16(c.rows[row] + (x + column - 1) * pitch + o);
                    const int16x8_t w = vld1q_s16(weight + (3 * row + column) * lanes);
                    low = vmlal_s16(low, vget_low_s16(in), vget_low_s16(w));
                    high = vmlal_high_s16(high, in, w);
                }
            low = down(low, p.shift.data() + o);
            high = down(high, p.shift.data() + o + 4);
            vst1q_s16(out, vqmovn_high_s32(vqmovn_s32(low), high));
        }
    }
}

}  // namespace

const Kernels* neon_kernels() {
    static const Kernels kernels{"neon", false, in_order, product, depthwise, plain_scale, plain_bytes};
    return &kernels;
}

}  // namespace latens

#else

namespace latens {
const Kernels* neon_kernels() {
    return nullptr;
}
}  // namespace latens

#endif
