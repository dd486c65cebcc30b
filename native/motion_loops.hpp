// The inner loops of motion, in plain C++ that compilers turn into vectors: each file that includes this gets
// copies of its own, for its own instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#if defined(__SSE2__) && !defined(LATENS_PORTABLE)
#include <emmintrin.h>
#define LATENS_MOTION_SSE2
#endif

namespace latens {

// Between whole positions, in quarters: the interpolation filters of ITU-T H.265, 8.5.3.3.3.1, times 64. The
// fourth tap is that of the position that is rounded down to.
inline constexpr int motion_taps = 8;
inline constexpr int motion_before = 3;
inline constexpr std::int32_t motion_filters[4][motion_taps] = {{0, 0, 0, 64, 0, 0, 0, 0},
                                                                {-1, 4, -10, 58, 17, -5, 1, 0},
                                                                {-1, 4, -11, 40, 40, -11, 4, -1},
                                                                {0, 1, -5, 17, 58, -10, 4, -1}};

struct MotionLoops {
    // `count` samples, each from eight that are `step` apart, the first of which is the one at `in`.
    void (*filter)(const std::uint16_t* in, std::size_t step, const std::int32_t* taps, std::size_t count,
                   std::uint16_t* out);
    // a = (a + b + 1) / 2
    void (*mean)(std::uint16_t* a, const std::uint16_t* b, std::size_t count);
    // sums += weight * weights * in
    void (*weigh)(const std::uint16_t* in, const std::uint16_t* weights, std::uint32_t weight,
                  std::size_t count, std::uint32_t* sums);
    void (*weighed)(const std::uint32_t* sums, std::size_t count, std::uint16_t* out);
    // Luma of 8 bits from RGB of 16.
    void (*grey)(const std::uint16_t* rgb, std::size_t count, std::uint8_t* out);
    // Eight bits filtered, times 64; and such values filtered down and rounded.
    void (*across)(const std::uint8_t* in, const std::int32_t* taps, std::size_t count, std::int16_t* out);
    void (*down)(const std::int16_t* in, std::size_t step, const std::int32_t* taps, std::size_t count,
                 std::uint8_t* out);
    // Sums of absolute differences, and of such after a Hadamard transform of 8x8, divided by 4. Sides are
    // multiples of 8 and 4, or of 8.
    std::uint32_t (*sad)(const std::uint8_t* a, std::size_t a_step, const std::uint8_t* b, std::size_t b_step,
                         int height, int width);
    std::uint32_t (*satd)(const std::uint8_t* a, std::size_t a_step, const std::uint8_t* b,
                          std::size_t b_step, int height, int width);
    void (*mean8)(const std::uint8_t* a, std::size_t a_step, const std::uint8_t* b, std::size_t b_step,
                  int height, int width, std::uint8_t* out);
};

// The best set that this processor has and the environment's LATENS_ISA leaves.
const MotionLoops& motion_loops();
// Null where there is none.
const MotionLoops* motion_loops_avx2();

namespace {

inline std::int32_t within16(std::int32_t v) {
    return v < 0 ? 0 : v > 65535 ? 65535 : v;
}

inline void filter(const std::uint16_t* in, std::size_t step, const std::int32_t* taps, std::size_t count,
                   std::uint16_t* out) {
    const std::int32_t t0 = taps[0], t1 = taps[1], t2 = taps[2], t3 = taps[3], t4 = taps[4], t5 = taps[5],
                       t6 = taps[6], t7 = taps[7];
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint16_t* x = in + i;
        const std::int32_t sum = t0 * x[0] + t1 * x[step] + t2 * x[2 * step] + t3 * x[3 * step] +
                                 t4 * x[4 * step] + t5 * x[5 * step] + t6 * x[6 * step] + t7 * x[7 * step];
        out[i] = static_cast<std::uint16_t>(within16((sum + 32) >> 6));
    }
}

inline void mean(std::uint16_t* a, const std::uint16_t* b, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i)
        a[i] = static_cast<std::uint16_t>((std::uint32_t{a[i]} + b[i] + 1) >> 1);
}

inline void weigh(const std::uint16_t* in, const std::uint16_t* weights, std::uint32_t weight,
                  std::size_t count, std::uint32_t* sums) {
    for (std::size_t i = 0; i < count; ++i) sums[i] += weight * weights[i] * in[i];
}

inline void weighed(const std::uint32_t* sums, std::size_t count, std::uint16_t* out) {
    for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::uint16_t>((sums[i] + 128) >> 8);
}

inline void grey(const std::uint16_t* rgb, std::size_t count, std::uint8_t* out) {
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t sum = 77u * rgb[3 * i] + 150u * rgb[3 * i + 1] + 29u * rgb[3 * i + 2];
        // 65535 * 256 becomes 255.
        out[i] = static_cast<std::uint8_t>((sum / 257 + 128) >> 8);
    }
}

inline void across(const std::uint8_t* in, const std::int32_t* taps, std::size_t count, std::int16_t* out) {
    std::int16_t t[motion_taps];
    for (int k = 0; k < motion_taps; ++k) t[k] = static_cast<std::int16_t>(taps[k]);
    for (std::size_t i = 0; i < count; ++i)
        out[i] = static_cast<std::int16_t>(t[0] * in[i] + t[1] * in[i + 1] + t[2] * in[i + 2] +
                                           t[3] * in[i + 3] + t[4] * in[i + 4] + t[5] * in[i + 5] +
                                           t[6] * in[i + 6] + t[7] * in[i + 7]);
}

inline void down(const std::int16_t* in, std::size_t step, const std::int32_t* taps, std::size_t count,
                 std::uint8_t* out) {
    const std::int32_t t0 = taps[0], t1 = taps[1], t2 = taps[2], t3 = taps[3], t4 = taps[4], t5 = taps[5],
                       t6 = taps[6], t7 = taps[7];
    for (std::size_t i = 0; i < count; ++i) {
        const std::int16_t* x = in + i;
        const std::int32_t sum = t0 * x[0] + t1 * x[step] + t2 * x[2 * step] + t3 * x[3 * step] +
                                 t4 * x[4 * step] + t5 * x[5 * step] + t6 * x[6 * step] + t7 * x[7 * step];
        const std::int32_t v = (sum + 2048) >> 12;
        out[i] = static_cast<std::uint8_t>(v < 0 ? 0 : v > 255 ? 255 : v);
    }
}

#ifdef LATENS_MOTION_SSE2

inline std::uint32_t total_of(__m128i sums) {
    return static_cast<std::uint32_t>(_mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) +
                                      (_mm_extract_epi16(sums, 5) << 16));
}

inline std::uint32_t sad(const std::uint8_t* a, std::size_t a_step, const std::uint8_t* b, std::size_t b_step,
                         int height, int width) {
    __m128i sums = _mm_setzero_si128();
    const auto load8 = [](const std::uint8_t* p) {
        return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    };
    const auto load16 = [](const std::uint8_t* p) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    };
    for (int y = 0; y < height; ++y, a += a_step, b += b_step) {
        int x = 0;
        for (; x + 16 <= width; x += 16)
            sums = _mm_add_epi64(sums, _mm_sad_epu8(load16(a + x), load16(b + x)));
        for (; x < width; x += 8) sums = _mm_add_epi64(sums, _mm_sad_epu8(load8(a + x), load8(b + x)));
    }
    return total_of(sums);
}

inline void butterflies(__m128i (&x)[8]) {
    for (int half = 4; half > 0; half /= 2)
        for (int i = 0; i < 8; i += 2 * half)
            for (int j = i; j < i + half; ++j) {
                const __m128i sum = _mm_add_epi16(x[j], x[j + half]);
                x[j + half] = _mm_sub_epi16(x[j], x[j + half]);
                x[j] = sum;
            }
}

inline void transpose(__m128i (&x)[8]) {
    __m128i a[8], b[8];
    for (int i = 0; i < 4; ++i) {
        a[2 * i] = _mm_unpacklo_epi16(x[2 * i], x[2 * i + 1]);
        a[2 * i + 1] = _mm_unpackhi_epi16(x[2 * i], x[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) {
            b[4 * i + 2 * j] = _mm_unpacklo_epi32(a[4 * i + j], a[4 * i + 2 + j]);
            b[4 * i + 2 * j + 1] = _mm_unpackhi_epi32(a[4 * i + j], a[4 * i + 2 + j]);
        }
    for (int j = 0; j < 4; ++j) {
        x[2 * j] = _mm_unpacklo_epi64(b[j], b[4 + j]);
        x[2 * j + 1] = _mm_unpackhi_epi64(b[j], b[4 + j]);
    }
}

inline std::uint32_t satd8(const std::uint8_t* a, std::size_t a_step, const std::uint8_t* b,
                           std::size_t b_step) {
    const __m128i zero = _mm_setzero_si128();
    __m128i x[8];
    for (int y = 0; y < 8; ++y, a += a_step, b += b_step)
        x[y] = _mm_sub_epi16(_mm_unpacklo_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(a)), zero),
                             _mm_unpacklo_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(b)), zero));
    butterflies(x);
    transpose(x);
    butterflies(x);
    __m128i sums = zero;
    for (const __m128i v : x) {
        const __m128i size = _mm_max_epi16(v, _mm_sub_epi16(zero, v));
        sums = _mm_add_epi32(sums, _mm_madd_epi16(size, _mm_set1_epi16(1)));
    }
    sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4e));
    sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xb1));
    return static_cast<std::uint32_t>(_mm_cvtsi128_si32(sums));
}

#else

inline std::uint32_t sad(const std::uint8_t* a, std::size_t a_step, const std::uint8_t* b, std::size_t b_step,
                         int height, int width) {
    std::uint32_t sum = 0;
    for (int y = 0; y < height; ++y, a += a_step, b += b_step)
        for (int x = 0; x < width; ++x)
            sum += static_cast<std::uint32_t>(std::abs(std::int32_t{a[x]} - std::int32_t{b[x]}));
    return sum;
}

inline std::uint32_t satd8(const std::uint8_t* a, std::size_t a_step, const std::uint8_t* b,
                           std::size_t b_step) {
    std::int32_t x[8][8];
    for (int i = 0; i < 8; ++i)
        for (int j = 0; j < 8; ++j) x[i][j] = a[i * a_step + j] - b[i * b_step + j];
    for (int half = 4; half > 0; half /= 2)
        for (int i = 0; i < 8; ++i)
            if ((i & half) == 0)
                for (int j = 0; j < 8; ++j) {
                    const std::int32_t p = x[i][j], q = x[i + half][j];
                    x[i][j] = p + q;
                    x[i + half][j] = p - q;
                }
    std::uint32_t sum = 0;
    for (auto& row : x) {
        for (int half = 4; half > 0; half /= 2)
            for (int j = 0; j < 8; ++j)
                if ((j & half) == 0) {
                    const std::int32_t p = row[j], q = row[j + half];
                    row[j] = p + q;
                    row[j + half] = p - q;
                }
        for (const std::int32_t v : row) sum += static_cast<std::uint32_t>(std::abs(v));
    }
    return sum;
}

#endif

inline std::uint32_t satd(const std::uint8_t* a, std::size_t a_step, const std::uint8_t* b,
                          std::size_t b_step, int height, int width) {
    std::uint32_t sum = 0;
    for (int y = 0; y < height; y += 8, a += 8 * a_step, b += 8 * b_step)
        for (int x = 0; x < width; x += 8) sum += satd8(a + x, a_step, b + x, b_step);
    return sum >> 2;
}

inline void mean8(const std::uint8_t* a, std::size_t a_step, const std::uint8_t* b, std::size_t b_step,
                  int height, int width, std::uint8_t* out) {
    for (int y = 0; y < height; ++y, a += a_step, b += b_step, out += width)
        for (int x = 0; x < width; ++x) out[x] = static_cast<std::uint8_t>((a[x] + b[x] + 1) >> 1);
}

constexpr MotionLoops compiled{filter, mean, weigh, weighed, grey, across, down, sad, satd, mean8};

}  // namespace
}  // namespace latens
