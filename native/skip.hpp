// Which of 64 positions are coded, as a bit mask: most of a wide latent is skipped, so this must be fast.
#pragma once

#include <cstdint>
#include <type_traits>

#include "rans.hpp"

namespace latens {

// Bit i is set where values[i], read as an unsigned number, is at least `limit` (1 or more).
template <class T>
LATENS_INLINE std::uint64_t at_least(const T* values, std::size_t n, std::uint32_t limit) {
    using Unsigned = std::make_unsigned_t<T>;
    if (limit > static_cast<Unsigned>(~Unsigned{0})) return 0;
    std::uint64_t mask = 0;
#if defined(LATENS_SSE2)
    if constexpr (sizeof(T) <= 2) {
        if (n == 64) {
            const __m128i zero = _mm_setzero_si128();
            for (unsigned i = 0; i < 64; i += 16) {
                __m128i reached;  // 16 bytes, all ones where the value is at least the limit
                if constexpr (sizeof(T) == 1) {
                    const __m128i limits = _mm_set1_epi8(static_cast<char>(limit));
                    const auto* at = reinterpret_cast<const __m128i*>(values + i);
                    reached = _mm_cmpeq_epi8(_mm_subs_epu8(limits, _mm_loadu_si128(at)), zero);
                } else {
                    const __m128i limits = _mm_set1_epi16(static_cast<short>(limit));
                    const auto* at = reinterpret_cast<const __m128i*>(values + i);
                    reached = _mm_packs_epi16(
                        _mm_cmpeq_epi16(_mm_subs_epu16(limits, _mm_loadu_si128(at)), zero),
                        _mm_cmpeq_epi16(_mm_subs_epu16(limits, _mm_loadu_si128(at + 1)), zero));
                }
                mask |= static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm_movemask_epi8(reached)))
                        << i;
            }
            return mask;
        }
    }
#endif
    for (std::size_t i = 0; i < n; ++i)
        mask |= static_cast<std::uint64_t>(static_cast<Unsigned>(values[i]) >= limit) << i;
    return mask;
}

}  // namespace latens
