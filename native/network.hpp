// Networks in integers (docs/pixels.md): what they are made of, checked and packed, and how they run.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.hpp"
#include "status.hpp"

namespace latens {

enum class StageKind : std::uint8_t { product, depthwise, block, shuffle, unshuffle, scale, pixels, input };
enum class Part : std::uint8_t { whole, pw_in, dw, pw_out, ffn_in, ffn_out };

// Weights as they come: (outputs, kernel, kernel, inputs), or (outputs, 3, 3) depthwise.
struct Weights {
    const std::int16_t* weight = nullptr;
    std::size_t outputs = 0, kernel = 1, inputs = 0;
    const std::int32_t* bias = nullptr;
    const std::uint8_t* shift = nullptr;  // one for each output
    std::int64_t low = -32768, high = 32767, gate = 0;
};

struct StageForm {
    StageKind kind = StageKind::product;
    std::array<Weights, 5> parts;  // a block's in the order of `Part`; else the first
    std::int64_t number = 0;       // of shuffles: r; of a scale: its slot
    std::size_t channels = 0;      // of a scale
};

struct Limits {
    std::int64_t low = -32768, high = 32767;
};

// What comes in or out: samples for pixels, else tensors of 16 bits.
struct Samples {
    std::int64_t depth = 8;
    std::size_t channels = 3;  // 1 or 3
};

// The factors of one scale: `count` of each.
struct Scale {
    const std::int32_t *m = nullptr, *s = nullptr;
    std::size_t count = 0;
};

// Checked and packed once, then only read: several threads may run it.
class Network {
  public:
    struct Stage {
        StageKind kind;
        std::array<Packed, 5> parts;
        std::size_t inputs, outputs;
        std::size_t number;  // of shuffles: r; of a product: the side of its kernel; of a scale: its slot
        std::vector<Limits> bounds;  // of its results; of the sums of pixels
        std::uint8_t shift;          // of pixels
    };

    static Status build(const std::vector<StageForm>& forms, Limits limits,
                        std::shared_ptr<const Network>& result);

    const std::vector<Stage>& stages() const { return stages_; }
    std::size_t inputs() const { return stages_.front().inputs; }
    std::size_t outputs() const { return stages_.back().outputs; }
    bool takes_samples() const { return stages_.front().kind == StageKind::input; }
    bool gives_samples() const { return stages_.back().kind == StageKind::pixels; }
    Limits limits() const { return limits_; }
    const Kernels& kernels() const { return *kernels_; }
    std::size_t slots() const { return slots_; }

    // The height of what comes out for the height of what comes in, or a width for a width.
    Status outcome(std::size_t size, std::size_t& result) const;

  private:
    std::vector<Stage> stages_;
    Limits limits_;
    const Kernels* kernels_ = nullptr;
    std::size_t slots_ = 0;
};

// A network on its way down one picture. Takes rows, gives the rows that no later ones can change. Its memory
// does not grow with the height.
class Stream {
  public:
    Stream();
    ~Stream();
    Stream(Stream&&) noexcept;
    Stream& operator=(Stream&&) noexcept;

    // `scales` has one element for each slot.
    Status open(std::shared_ptr<const Network> network, std::size_t width, const std::vector<Scale>& scales,
                Samples samples);

    std::size_t out_width() const;
    // Rows that `push` will give.
    std::size_t ready(std::size_t rows, bool last) const;
    // `data` are `rows` rows, of 16 bits or, for samples of a depth of 8 or less, 8 bits; so is `out`. After
    // the last ones, or an interruption, there can be no more.
    Status push(const void* data, std::size_t rows, bool last, void* out, Poll poll);
    // Rows to push at a time that keep the work in the cache.
    std::size_t strip() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

// A whole picture, strip by strip. `out` is of the size that `Network::outcome` says.
Status run(const std::shared_ptr<const Network>& network, const void* data, std::size_t height,
           std::size_t width, const std::vector<Scale>& scales, Samples samples, void* out, Poll poll);

// round(x * m, s), or what is as far beyond 32 bits.
inline std::int64_t rescaled(std::int64_t x, std::int32_t m, std::int32_t s) {
    const std::int64_t v = x * m;
    if (s > 0) return s > 62 ? 0 : (v + (std::int64_t{1} << (s - 1))) >> s;
    return std::clamp<std::int64_t>(v, -(std::int64_t{1} << 31), std::int64_t{1} << 31) *
           (std::int64_t{1} << std::min(31, -std::max(s, -31)));
}

// clamp(round(x * m, s), low, high) for each of `positions` rows of `count` values.
template <class Value, class Result>
void rescale(const Value* x, std::size_t positions, const Scale& scale, std::int64_t low, std::int64_t high,
             Result* out);

}  // namespace latens
