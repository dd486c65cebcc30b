// The inner loops of networks in integers, one set for each instruction set. Sums wrap at 32 bits: `Network`
// proves that none leaves them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "aligned.hpp"
#include "status.hpp"

namespace latens {

// Channels of a position lie together, filled up to a multiple of this; what the rest holds is of no account.
inline constexpr std::size_t lanes = 32;
inline constexpr std::size_t padded(std::size_t channels) {
    return (channels + lanes - 1) / lanes * lanes;
}

// What becomes of a sum.
enum class Finish : std::uint8_t {
    limit,  // rounded and limited
    gate,   // that, then through the gate
    add,    // rounded, added to what is there, limited to 16 bits
    sums,   // nothing: 32 bits
};

// Weights as kernels read them, in units of 32 outputs, with what sums begin with and are shifted by.
struct Packed {
    std::size_t inputs = 0;  // of a position, even
    std::size_t outputs = 0;
    Aligned<std::int16_t> weight;
    Aligned<std::int32_t> start;
    Aligned<std::int32_t> shift;
    std::int16_t low = -32768, high = 32767;
    std::uint8_t gate = 0;
    Finish finish = Finish::limit;

    std::size_t units() const { return padded(outputs) / lanes; }
};

// A product at some positions. `in` and `added` are `in_pitch` and `pitch` apart from position to position;
// so is the result, 16 bits in `out`, or 32 bits in `sums`.
struct ProductCall {
    const Packed& product;
    const std::int16_t* in;
    std::size_t in_pitch;
    std::size_t positions;
    std::int16_t* out;
    const std::int16_t* added;
    std::int32_t* sums;
    std::size_t pitch;
};

// A product at as many positions and outputs as registers hold, from these on.
using Tile = void (*)(const ProductCall&, std::size_t position, std::size_t output);
inline constexpr std::size_t largest_tile = 6;

// All positions, with the tiles of 1 to `largest_tile` of them, in tiles of sizes as equal as can be.
void in_tiles(const ProductCall&, std::size_t output, const Tile* of);

// A depthwise convolution in one row, from column `first` to before `end`. `out` is that of `first`.
struct DepthwiseCall {
    const Packed& weights;
    const std::int16_t* rows[3];
    std::size_t width, first, end;
    std::int16_t* out;
};

// x = sat(round(x * m, s)), brought into a form without conditions: limited, times 2^left, plus `half`,
// divided by 2^right.
struct Factors {
    Aligned<std::int32_t> m, limit, left, half, right;
};

struct Kernels {
    const char* name;
    bool pairs;                 // two inputs' weights lie together, else all outputs' of one input
    const std::uint8_t* order;  // where the sum of each of 32 outputs lies
    void (*product)(const ProductCall&);
    void (*depthwise)(const DepthwiseCall&);
    void (*scale)(const Factors&, std::size_t positions, std::int16_t* values);
    // Eight bits from the sums of a colour: `count` of them, limited.
    void (*bytes)(const std::int32_t* sums, std::size_t count, unsigned shift, std::uint8_t* out);
};

// The best that this processor has, or what the environment's LATENS_ISA names: avx512, avx2, sse4, neon,
// simd128 (of WebAssembly), portable.
Status choose_kernels(const Kernels*& result);

// Those sets that were compiled and can run here, else null.
const Kernels* portable_kernels();
const Kernels* sse4_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* neon_kernels();
const Kernels* simd128_kernels();

// The coefficients of the gate: of the third power first.
extern const std::int16_t gate_table[4][16];

}  // namespace latens
