#include "kernels.hpp"

#include "isa.hpp"
#include "kernels_plain.hpp"

namespace latens {

const std::int16_t gate_table[4][16] = {
    {-515, 76, 219, 129, 56, 22, 8, 3, 1, 0, 0, 0, 0, 0, 0, 0},
    {-128, -1634, -1306, -640, -262, -100, -37, -14, -5, -2, -1, 0, 0, 0, 0, 0},
    {8214, 6465, 3439, 1476, 576, 217, 80, 30, 11, 4, 1, 1, 0, 0, 0, 0},
    {16384, 23955, 28862, 31214, 32179, 32549, 32687, 32738, 32757, 32764, 32767, 32767, 32767, 32767, 32767,
     32767}};

namespace {

constexpr std::size_t outputs_at_once = 16;

void finish_row(const ProductCall& c, std::size_t position, std::size_t output, const std::int32_t* sums) {
    const Packed& p = c.product;
    const std::int32_t* shift = p.shift.data() + output;
    const std::size_t at = position * c.pitch + output;
    if (p.finish == Finish::sums) {
        for (std::size_t o = 0; o < outputs_at_once; ++o) c.sums[at + o] = sums[o];
        return;
    }
    std::int16_t* out = c.out + at;
    if (p.finish == Finish::add) {
        const std::int16_t* x = c.added + at;
        for (std::size_t o = 0; o < outputs_at_once; ++o)
            out[o] = limited((sums[o] >> shift[o]) + x[o], -32768, 32767);
        return;
    }
    for (std::size_t o = 0; o < outputs_at_once; ++o) out[o] = limited(sums[o] >> shift[o], p.low, p.high);
    if (p.finish == Finish::gate)
        for (std::size_t o = 0; o < outputs_at_once; ++o) out[o] = gated(out[o], p.gate);
}

template <std::size_t positions>
void tile(const ProductCall& c, std::size_t position, std::size_t output) {
    const Packed& product = c.product;
    const std::int16_t* in = c.in + position * c.in_pitch;
    const std::int16_t* w = product.weight.data() + output / lanes * lanes * product.inputs + output % lanes;
    std::int32_t sums[positions][outputs_at_once];
    for (std::size_t p = 0; p < positions; ++p)
        for (std::size_t o = 0; o < outputs_at_once; ++o) sums[p][o] = product.start[output + o];
    for (std::size_t i = 0; i < product.inputs; ++i, w += lanes)
        for (std::size_t p = 0; p < positions; ++p) {
            const std::int32_t x = in[p * c.in_pitch + i];
            for (std::size_t o = 0; o < outputs_at_once; ++o) sums[p][o] = plus(sums[p][o], w[o] * x);
        }
    for (std::size_t p = 0; p < positions; ++p) finish_row(c, position + p, output, sums[p]);
}

void product(const ProductCall& c) {
    const std::size_t outputs = padded(c.product.outputs);
    for (std::size_t o = 0; o < outputs; o += outputs_at_once) {
        std::size_t p = 0;
        for (; p + 4 <= c.positions; p += 4) tile<4>(c, p, o);
        for (; p < c.positions; ++p) tile<1>(c, p, o);
    }
}

void depthwise(const DepthwiseCall& c) {
    const Packed& p = c.weights;
    const std::size_t pitch = padded(p.outputs);
    std::int16_t* out = c.out;
    for (std::size_t x = c.first; x < c.end; ++x, out += pitch)
        for (std::size_t o = 0; o < pitch; o += lanes) {
            std::int32_t sums[lanes];
            for (std::size_t i = 0; i < lanes; ++i) sums[i] = p.start[o + i];
            for (std::size_t column = x > 0 ? 0 : 1; column < (x + 1 < c.width ? 3u : 2u); ++column)
                for (std::size_t row = 0; row < 3; ++row) {
                    const std::int16_t* in = c.rows[row] + (x + column - 1) * pitch + o;
                    const std::int16_t* w = p.weight.data() + 9 * o + (3 * row + column) * lanes;
                    for (std::size_t i = 0; i < lanes; ++i) sums[i] = plus(sums[i], w[i] * in[i]);
                }
            for (std::size_t i = 0; i < lanes; ++i)
                out[o + i] = limited(sums[i] >> p.shift[o + i], -32768, 32767);
        }
}

}  // namespace

const Kernels* portable_kernels() {
    static const Kernels kernels{"portable", false, in_order, product, depthwise, plain_scale, plain_bytes};
    return &kernels;
}

void in_tiles(const ProductCall& c, std::size_t output, const Tile* of) {
    for (std::size_t p = 0, left = c.positions; left > 0;) {
        const std::size_t count = (left + largest_tile - 1) / largest_tile, some = (left + count - 1) / count;
        of[some - 1](c, p, output);
        p += some;
        left -= some;
    }
}

Status choose_kernels(const Kernels*& result) {
    using Set = const Kernels* (*)();
    struct Named {
        const char* name;
        Set set;
    };
    constexpr Named all[] = {{"avx512", avx512_kernels},   {"avx2", avx2_kernels},
                             {"sse4", sse4_kernels},       {"neon", neon_kernels},
                             {"simd128", simd128_kernels}, {"portable", portable_kernels}};
    Status status{Code::isa_unknown, 0, 0, 0};
    for (const Named& named : all) {
        if (!isa_allowed(named.name)) continue;
        result = named.set();
        if (result != nullptr) return {};
        status.code = Code::isa_missing;
    }
    return status;
}

}  // namespace latens
