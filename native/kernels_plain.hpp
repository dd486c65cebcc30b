// Inner loops that compilers turn into vectors. Each file of kernels that includes this gets its own copies,
// for its own instruction set.
#pragma once

#include <type_traits>
#include <utility>

#include "kernels.hpp"

#if defined(__GNUC__)
#define LATENS_INLINE __attribute__((always_inline))
#else
#define LATENS_INLINE
#endif

namespace latens {
namespace {

// Calls `work` with 0 to `count - 1` as constants. GCC keeps an array in registers only if every index into
// it is one from the beginning: sums that are reached by loops are stored in each round.
template <std::size_t count, class Work>
LATENS_INLINE inline void unrolled(const Work& work) {
    [&]<std::size_t... i>(std::index_sequence<i...>) LATENS_INLINE {
        (work(std::integral_constant<std::size_t, i>{}), ...);
    }(std::make_index_sequence<count>{});
}

// Where sums lie in kernels that pack them without mixing.
inline constexpr std::uint8_t in_order[lanes] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

inline std::int16_t limited(std::int32_t v, std::int32_t low, std::int32_t high) {
    return static_cast<std::int16_t>(v < low ? low : v > high ? high : v);
}

inline std::int32_t times(std::int32_t a, std::int32_t b) {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) * static_cast<std::uint32_t>(b));
}

inline std::int32_t plus(std::int32_t a, std::int32_t b) {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
}

inline std::int32_t multiplied(std::int32_t a, std::int32_t b) {
    return (a * b + (1 << 14)) >> 15;
}

inline std::int16_t gated(std::int32_t v, unsigned unit) {
    const std::int32_t size = v < 0 ? -v : v, a = size > 32767 ? 32767 : size;
    const std::int32_t top = (16 << unit) - 1, inside = a < top ? a : top;
    const std::int32_t n = inside >> unit, t = (inside - (n << unit)) << (15 - unit);
    std::int32_t p = gate_table[0][n];
    p = gate_table[1][n] + multiplied(p, t);
    p = gate_table[2][n] + multiplied(p, t);
    p = gate_table[3][n] + multiplied(p, t);
    const std::int32_t m = multiplied(a, p > 32767 ? 32767 : p);
    return static_cast<std::int16_t>(v < 0 ? m - a : m);
}

inline void plain_scale(const Factors& f, std::size_t positions, std::int16_t* values) {
    const std::size_t channels = f.m.size();
    const std::int32_t *m = f.m.data(), *limit = f.limit.data(), *left = f.left.data(), *half = f.half.data(),
                       *right = f.right.data();
    for (std::size_t p = 0; p < positions; ++p) {
        std::int16_t* x = values + p * channels;
        for (std::size_t c = 0; c < channels; ++c) {
            std::int32_t v = x[c] * m[c];
            v = v > limit[c] ? limit[c] : v;
            v = v < -limit[c] - 1 ? -limit[c] - 1 : v;
            x[c] = limited(((v * (1 << left[c])) + half[c]) >> right[c], -32768, 32767);
        }
    }
}

inline void plain_bytes(const std::int32_t* sums, std::size_t count, unsigned shift, std::uint8_t* out) {
    const std::int32_t half = 1 << (shift - 1);
    for (std::size_t i = 0; i < count; ++i)
        out[i] = static_cast<std::uint8_t>(limited((sums[i] + half) >> shift, 0, 255));
}

}  // namespace
}  // namespace latens
