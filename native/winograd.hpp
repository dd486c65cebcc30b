// Convolutions of float images with 3x3 taps, or with 5x5 taps and stride 2 in either direction, and zeros
// around, with about a third of the products. Lavin, Gray, "Fast algorithms for convolutional neural
// networks", CVPR 2016.
#pragma once

#include <cstddef>
#include <cstdint>

namespace latens {

// With `gather` 2, each 2x2 pixels of the input count as one position with four times the channels; with
// `scatter` 2, each position of the output is 2x2 pixels. So a convolution of stride 2, and a transposed one,
// are 3x3 taps too.
struct Winograd {
    static constexpr std::size_t points =
        36;  // of tiles of 6x6 inputs, for 4x4 outputs; columns follow each other
    static constexpr std::size_t panel = 32;  // outputs at once

    std::size_t inputs, outputs;  // channels of the images
    std::size_t gather, scatter;  // 1 or 2
    const float* weight;          // (scatter^2, panels, points, gather^2, inputs, panel), at the points
    const std::uint8_t* zero;     // (scatter^2, points, gather^2): not 0 where these are all zero
    const float* bias;            // (outputs,), or null

    std::size_t panels() const { return (outputs + panel - 1) / panel; }
    // Memory that each thread needs, in values.
    std::size_t scratch() const;
    // From (batch, height, width, inputs) to (batch, ceil(height / gather) * scatter, ..., outputs).
    void run(const float* in, std::size_t batch, std::size_t height, std::size_t width, float* out,
             float* scratch, std::size_t threads) const;

  private:
    struct Job;

    std::size_t tiles_at_once() const;
};

}  // namespace latens
