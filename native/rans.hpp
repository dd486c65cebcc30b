// The arithmetic that both stream formats share.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "coder.hpp"
#include "tables.hpp"

#if defined(__SSE2__) || defined(_M_X64)
#define LATENS_SSE2 1
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#define LATENS_NEON 1
#include <arm_neon.h>
#endif
#if defined(_MSC_VER)
#include <intrin.h>
#define LATENS_INLINE __forceinline
#define LATENS_LAMBDA_INLINE
#define LATENS_UNLIKELY(x) (x)
#else
#define LATENS_INLINE inline __attribute__((always_inline))
#define LATENS_LAMBDA_INLINE __attribute__((always_inline))
#define LATENS_UNLIKELY(x) __builtin_expect(!!(x), 0)
#endif

namespace latens {

inline constexpr std::uint32_t search_width = 8;
inline constexpr unsigned nibble_bits = 4;

// What distinguishes the two streams. A state x keeps to lower <= x < upper by shedding and taking words.
template <class Word_, unsigned lower_bits, unsigned state_bytes_, unsigned escape_nibbles_>
struct Layout {
    using Word = Word_;
    static constexpr unsigned word_bits = 8 * sizeof(Word);
    static constexpr std::uint64_t lower = std::uint64_t{1} << lower_bits;
    static constexpr std::uint64_t upper = lower << word_bits;
    static constexpr unsigned state_bytes = state_bytes_;
    static constexpr unsigned escape_nibbles = escape_nibbles_;
};
using StreamLayout = Layout<std::uint32_t, 31, 8, stream_escape_nibbles>;
using LaneLayout = Layout<std::uint16_t, 24, 5, lane_escape_nibbles>;

LATENS_INLINE std::uint64_t multiply_high(std::uint64_t a, std::uint64_t b) {
#if defined(__SIZEOF_INT128__)
    __extension__ typedef unsigned __int128 wide;
    return static_cast<std::uint64_t>((static_cast<wide>(a) * b) >> 64);
#elif defined(_MSC_VER)
    return __umulh(a, b);
#else
    const std::uint64_t al = static_cast<std::uint32_t>(a), ah = a >> 32;
    const std::uint64_t bl = static_cast<std::uint32_t>(b), bh = b >> 32;
    const std::uint64_t middle = ah * bl + ((al * bl) >> 32);
    return ah * bh + (middle >> 32) + ((al * bh + static_cast<std::uint32_t>(middle)) >> 32);
#endif
}

// All ones for a difference below zero, else zero; both operands must be below 2^63.
LATENS_INLINE std::uint64_t negative_mask(std::uint64_t difference) {
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(difference) >> 63);
}

// Little-endian words at any address.
template <class Word>
LATENS_INLINE Word load_word(const std::uint8_t* at) {
    Word word;
    if constexpr (std::endian::native == std::endian::little) {
        std::memcpy(&word, at, sizeof word);
    } else {
        word = 0;
        for (std::size_t i = 0; i < sizeof word; ++i) word |= static_cast<Word>(Word{at[i]} << (8 * i));
    }
    return word;
}

template <class Word>
LATENS_INLINE void store_word(std::uint8_t* at, Word word) {
    if constexpr (std::endian::native == std::endian::little) {
        std::memcpy(at, &word, sizeof word);
    } else {
        for (std::size_t i = 0; i < sizeof word; ++i) at[i] = static_cast<std::uint8_t>(word >> (8 * i));
    }
}

// How many of the eight ascending bounds at `at` lie below `slot`.
LATENS_INLINE std::uint32_t bounds_below(const std::uint16_t* at, std::uint32_t slot) {
#if defined(LATENS_SSE2)
    const __m128i bounds = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    const __m128i excess = _mm_subs_epu16(_mm_set1_epi16(static_cast<short>(slot)), bounds);
    const int reached = _mm_movemask_epi8(_mm_cmpeq_epi16(excess, _mm_setzero_si128()));
    return static_cast<std::uint32_t>(std::countr_zero(static_cast<std::uint32_t>(reached) | 0x10000u)) / 2;
#elif defined(LATENS_NEON)
    const uint16x8_t below = vcltq_u16(vld1q_u16(at), vdupq_n_u16(static_cast<std::uint16_t>(slot)));
    return vaddvq_u16(vshrq_n_u16(below, 15));
#else
    std::uint32_t n = 0;
    for (std::size_t i = 0; i < search_width; ++i) n += at[i] < slot;
    return n;
#endif
}

// The number of the symbol that holds `slot`; `bounds` are the table's own.
LATENS_INLINE std::uint32_t find_symbol(const std::uint16_t* bounds, std::uint32_t start,
                                        std::uint32_t slot) {
    std::uint32_t step = bounds_below(bounds + start, slot);
    while (LATENS_UNLIKELY(step == search_width)) {
        start += search_width;
        step = bounds_below(bounds + start, slot);
    }
    return start + step;
}

// Undoes `put` for the symbol that holds the state's slot.
LATENS_INLINE std::uint64_t take(std::uint64_t x, const DecoderSymbol& s) {
    return s.freq * (x >> precision) + (x & (total - 1)) - s.start;
}

LATENS_INLINE std::uint64_t put(std::uint64_t x, const EncoderSymbol& s) {
    const std::uint64_t quotient = multiply_high(x, s.reciprocal) >> s.shift;
    return x + s.bias + quotient * (total - s.freq);
}

// Values outside a table, folded to 0, 1, 2, ... : at or above the escape, below zero, alternating.
LATENS_INLINE std::uint64_t fold(std::int64_t value, std::int64_t escape) {
    return value < 0 ? static_cast<std::uint64_t>(-2 * value - 1)
                     : static_cast<std::uint64_t>(2 * (value - escape));
}

LATENS_INLINE std::int64_t unfold(std::uint64_t folded, std::int64_t escape) {
    const auto half = static_cast<std::int64_t>(folded >> 1);
    return (folded & 1) ? -half - 1 : half + escape;
}

LATENS_INLINE unsigned nibbles(std::uint64_t folded) {
    return (static_cast<unsigned>(std::bit_width(folded)) + nibble_bits - 1) / nibble_bits;
}

}  // namespace latens
