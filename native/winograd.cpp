#include "winograd.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "team.hpp"

#if defined(__GNUC__) && defined(__x86_64__) && !defined(LATENS_PORTABLE)
#define LATENS_X86 1
#include <immintrin.h>
#endif

namespace latens {
namespace {

constexpr std::size_t panel = Winograd::panel;
constexpr std::size_t side = 6;
// What is done at once is a multiple of the rows of every kernel.
constexpr std::size_t rows_step = 12;
constexpr std::size_t least_tiles = 24, most_tiles = 48;
// Points of the tiles at once should stay in the second-level cache.
constexpr std::size_t cached_values = 180'000;
// One line of the cache: what is some power of two apart would meet in few places of the first-level cache.
constexpr std::size_t padding = 16;

// -- products: `rows` rows of a, (rows, depth) with `pitch` to the next, times b, (depth, panel)
// ------------------

using Multiply = void (*)(const float* a, std::size_t pitch, const float* b, std::size_t depth, float* sums,
                          bool add);

void multiply(const float* a, std::size_t pitch, const float* b, std::size_t depth, float* sums, bool add) {
    constexpr std::size_t rows = 4, columns = 8;
    for (std::size_t first = 0; first < panel; first += columns) {
        std::array<std::array<float, columns>, rows> total{};
        for (std::size_t k = 0; k < depth; ++k)
            for (std::size_t r = 0; r < rows; ++r)
                for (std::size_t c = 0; c < columns; ++c)
                    total[r][c] += a[r * pitch + k] * b[k * panel + first + c];
        for (std::size_t r = 0; r < rows; ++r)
            for (std::size_t c = 0; c < columns; ++c) {
                float& sum = sums[r * panel + first + c];
                sum = add ? sum + total[r][c] : total[r][c];
            }
    }
}

#ifdef LATENS_X86
__attribute__((target("avx2,fma"))) void multiply_avx2(const float* a, std::size_t pitch, const float* b,
                                                       std::size_t depth, float* sums, bool add) {
    constexpr std::size_t rows = 6;
    for (std::size_t first = 0; first < panel; first += 16) {
        __m256 total[rows][2];
        for (std::size_t r = 0; r < rows; ++r)
            for (std::size_t half = 0; half < 2; ++half)
                total[r][half] =
                    add ? _mm256_loadu_ps(sums + r * panel + first + 8 * half) : _mm256_setzero_ps();
        for (std::size_t k = 0; k < depth; ++k) {
            const __m256 low = _mm256_loadu_ps(b + k * panel + first);
            const __m256 high = _mm256_loadu_ps(b + k * panel + first + 8);
            for (std::size_t r = 0; r < rows; ++r) {
                const __m256 factor = _mm256_broadcast_ss(a + r * pitch + k);
                total[r][0] = _mm256_fmadd_ps(factor, low, total[r][0]);
                total[r][1] = _mm256_fmadd_ps(factor, high, total[r][1]);
            }
        }
        for (std::size_t r = 0; r < rows; ++r)
            for (std::size_t half = 0; half < 2; ++half)
                _mm256_storeu_ps(sums + r * panel + first + 8 * half, total[r][half]);
    }
}

__attribute__((target("avx512f"))) void multiply_avx512(const float* a, std::size_t pitch, const float* b,
                                                        std::size_t depth, float* sums, bool add) {
    constexpr std::size_t rows = 12;
    __m512 total[rows][2];
    for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t half = 0; half < 2; ++half)
            total[r][half] = add ? _mm512_loadu_ps(sums + r * panel + 16 * half) : _mm512_setzero_ps();
    for (std::size_t k = 0; k < depth; ++k) {
        const __m512 low = _mm512_loadu_ps(b + k * panel), high = _mm512_loadu_ps(b + k * panel + 16);
        for (std::size_t r = 0; r < rows; ++r) {
            const __m512 factor = _mm512_set1_ps(a[r * pitch + k]);
            total[r][0] = _mm512_fmadd_ps(factor, low, total[r][0]);
            total[r][1] = _mm512_fmadd_ps(factor, high, total[r][1]);
        }
    }
    for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t half = 0; half < 2; ++half)
            _mm512_storeu_ps(sums + r * panel + 16 * half, total[r][half]);
}
#endif

struct Kernel {
    std::size_t rows;
    Multiply multiply;
};

Kernel choose_kernel() {
#ifdef LATENS_X86
    if (__builtin_cpu_supports("avx512f")) return {12, multiply_avx512};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {6, multiply_avx2};
#endif
    return {4, multiply};
}

// -- transforms
// ---------------------------------------------------------------------------------------------------

// Polynomials of degree 5, evaluated at 0, +-a, +-b and infinity. With these a and b, errors in float32 are a
// fifth of those with the usual 1 and 2.
constexpr float a = 0.75F, b = 1.5F, aa = a * a, bb = b * b;

#ifdef __GNUC__
typedef float Lanes __attribute__((vector_size(16)));
#else
using Lanes = float;
#endif

template <class T>
T load(const float* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <class T>
void store(float* to, T value) {
    std::memcpy(to, &value, sizeof value);
}

template <class T>
void to_points(const T (&x)[side], T (&p)[side]) {
    constexpr float of_a = 1 / (2 * aa * (aa - bb)), of_b = 1 / (2 * bb * (bb - aa));
    const T even_a = of_a * (x[4] - bb * x[2]), odd_a = (of_a * a) * (x[3] - bb * x[1]);
    const T even_b = of_b * (x[4] - aa * x[2]), odd_b = (of_b * b) * (x[3] - aa * x[1]);
    p[0] = x[0] + (1 / (aa * bb)) * (x[4] - (aa + bb) * x[2]);
    p[1] = even_a + odd_a;
    p[2] = even_a - odd_a;
    p[3] = even_b + odd_b;
    p[4] = even_b - odd_b;
    p[5] = x[5] - (aa + bb) * x[3] + (aa * bb) * x[1];
}

template <class T>
void from_points(const T (&p)[side], T (&x)[4]) {
    const T even_a = p[1] + p[2], odd_a = a * (p[1] - p[2]);
    const T even_b = p[3] + p[4], odd_b = b * (p[3] - p[4]);
    x[0] = p[0] + even_a + even_b;
    x[1] = odd_a + odd_b;
    x[2] = aa * even_a + bb * even_b;
    x[3] = aa * odd_a + bb * odd_b + p[5];
}

// Calls `work(T, channel)` for all channels, several at a time.
template <class Work>
void for_channels(std::size_t count, const Work& work) {
    constexpr std::size_t lanes = sizeof(Lanes) / sizeof(float);
    std::size_t channel = 0;
    for (; channel + lanes <= count; channel += lanes) work(Lanes{}, channel);
    for (; channel < count; ++channel) work(float{}, channel);
}

}  // namespace

// -- one call
// -----------------------------------------------------------------------------------------------------

struct Winograd::Job {
    const Winograd& layer;
    const float* in;
    std::size_t height, width;  // of the input
    std::size_t tall, wide;     // in positions
    std::size_t down, across;   // in tiles
    float* out;
    std::size_t most;  // tiles at once
    Kernel kernel;

    std::size_t depth() const { return layer.gather * layer.gather * layer.inputs; }
    std::size_t pitch() const { return depth() + padding; }
    // From a point to the next.
    std::size_t input_step() const { return most * pitch() + padding; }
    std::size_t sum_step() const { return most * panel + padding; }

    // Tiles `first` to `first + count - 1` of an image.
    void run(std::size_t image, std::size_t first, std::size_t count, float* scratch) const {
        float* zeros = scratch;
        float* at_points = zeros + layer.inputs;
        float* sums = at_points + points * input_step();
        std::fill_n(zeros, layer.inputs, 0.0F);
        for (std::size_t t = 0; t < count; ++t) read(image, first + t, zeros, at_points + t * pitch());
        const std::size_t rows = (count + kernel.rows - 1) / kernel.rows * kernel.rows;
        // Rows that no tile fills; what they hold is not used, but must not slow the processor down.
        for (std::size_t p = 0; p < points; ++p)
            std::fill_n(at_points + p * input_step() + count * pitch(), (rows - count) * pitch(), 0.0F);
        for (std::size_t phase = 0; phase < layer.scatter * layer.scatter; ++phase)
            for (std::size_t number = 0; number < layer.panels(); ++number) {
                multiply(phase, number, rows, at_points, sums);
                for (std::size_t t = 0; t < count; ++t)
                    write(image, first + t, phase, number, sums + t * panel);
            }
    }

    void read(std::size_t image, std::size_t tile, const float* zeros, float* at_points) const {
        const std::size_t top = 4 * (tile / across), left = 4 * (tile % across), gather = layer.gather;
        for (std::size_t phase = 0; phase < gather * gather; ++phase) {
            const float* pixel[side][side];
            for (std::size_t i = 0; i < side; ++i)
                for (std::size_t j = 0; j < side; ++j) {
                    // One above and left of the tile: where that is outside, it is far outside.
                    const std::size_t y = (top + i - 1) * gather + phase / gather;
                    const std::size_t x = (left + j - 1) * gather + phase % gather;
                    const bool inside = top + i > 0 && left + j > 0 && y < height && x < width;
                    pixel[i][j] = inside ? in + ((image * height + y) * width + x) * layer.inputs : zeros;
                }
            for_channels(layer.inputs, [&](auto kind, std::size_t channel) {
                using T = decltype(kind);
                T columns[side][side], line[side], result[side];
                for (std::size_t j = 0; j < side; ++j) {
                    for (std::size_t i = 0; i < side; ++i) line[i] = load<T>(pixel[i][j] + channel);
                    to_points(line, columns[j]);
                }
                float* to = at_points + phase * layer.inputs + channel;
                for (std::size_t i = 0; i < side; ++i) {
                    for (std::size_t j = 0; j < side; ++j) line[j] = columns[j][i];
                    to_points(line, result);
                    for (std::size_t j = 0; j < side; ++j)
                        store(to + (j * side + i) * input_step(), result[j]);
                }
            });
        }
    }

    // Sums (points, most, panel) of a panel of outputs.
    void multiply(std::size_t phase, std::size_t number, std::size_t rows, const float* at_points,
                  float* sums) const {
        const std::size_t phases = layer.gather * layer.gather, inputs = layer.inputs;
        for (std::size_t p = 0; p < points; ++p) {
            const float* weight =
                layer.weight + ((phase * layer.panels() + number) * points + p) * depth() * panel;
            const float* row = at_points + p * input_step();
            float* sum = sums + p * sum_step();
            bool begun = false;
            const std::uint8_t* zero = layer.zero + (phase * points + p) * phases;
            for (std::size_t from = 0, to = 0; from < phases; from = to + 1) {
                for (to = from; to < phases && zero[to] == 0;) ++to;
                if (to == from) continue;
                for (std::size_t r = 0; r < rows; r += kernel.rows)
                    kernel.multiply(row + r * pitch() + from * inputs, pitch(),
                                    weight + from * inputs * panel, (to - from) * inputs, sum + r * panel,
                                    begun);
                begun = true;
            }
            if (!begun) std::fill_n(sum, rows * panel, 0.0F);
        }
    }

    void write(std::size_t image, std::size_t tile, std::size_t phase, std::size_t number,
               const float* sums) const {
        const std::size_t top = 4 * (tile / across), left = 4 * (tile % across), scatter = layer.scatter;
        const std::size_t high = std::min<std::size_t>(4, tall - top),
                          broad = std::min<std::size_t>(4, wide - left);
        const std::size_t start = number * panel, count = std::min(panel, layer.outputs - start);
        const std::size_t line = wide * scatter * layer.outputs;
        float* to = out + (image * tall + top) * scatter * line + phase / scatter * line +
                    (left * scatter + phase % scatter) * layer.outputs + start;
        for_channels(count, [&](auto kind, std::size_t channel) {
            using T = decltype(kind);
            T lines[side][4], across_points[side], result[4];
            const T bias = layer.bias == nullptr ? T{} : load<T>(layer.bias + start + channel);
            for (std::size_t j = 0; j < side; ++j) {
                T column[side];
                for (std::size_t i = 0; i < side; ++i)
                    column[i] = load<T>(sums + (j * side + i) * sum_step() + channel);
                from_points(column, lines[j]);
            }
            for (std::size_t i = 0; i < high; ++i) {
                for (std::size_t j = 0; j < side; ++j) across_points[j] = lines[j][i];
                from_points(across_points, result);
                for (std::size_t j = 0; j < broad; ++j)
                    store<T>(to + i * scatter * line + j * scatter * layer.outputs + channel,
                             result[j] + bias);
            }
        });
    }
};

std::size_t Winograd::tiles_at_once() const {
    const std::size_t fitting = cached_values / (points * (gather * gather * inputs + padding));
    return std::clamp(fitting / rows_step * rows_step, least_tiles, most_tiles);
}

std::size_t Winograd::scratch() const {
    return inputs + points * (tiles_at_once() * (gather * gather * inputs + padding + panel) + 2 * padding);
}

void Winograd::run(const float* in, std::size_t batch, std::size_t height, std::size_t width, float* out,
                   float* scratch, std::size_t threads) const {
    static const Kernel kernel = choose_kernel();
    const std::size_t tall = (height + gather - 1) / gather, wide = (width + gather - 1) / gather;
    const std::size_t down = (tall + 3) / 4, across = (wide + 3) / 4, tiles = down * across;
    const Job job{*this, in, height, width, tall, wide, down, across, out, tiles_at_once(), kernel};
    const std::size_t blocks = (tiles + job.most - 1) / job.most;
    std::atomic<std::size_t> next{0};
    // Which thread takes which block is left open: one that comes late takes fewer.
    run_on_team(std::min(threads, batch * blocks), [&](std::size_t thread) {
        float* own = scratch + thread * this->scratch();
        for (std::size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < batch * blocks;) {
            const std::size_t first = i % blocks * job.most;
            job.run(i / blocks, first, std::min(job.most, tiles - first), own);
        }
    });
}

}  // namespace latens
