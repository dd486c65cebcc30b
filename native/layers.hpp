// Layers in the exact integers of the entropy model (docs/entropy.md): at single positions, or convolutions
// of whole planes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "status.hpp"

namespace latens {

inline constexpr std::int32_t weight_max = 32767;
inline constexpr std::int64_t activation_max = std::int64_t{1} << 20;
inline constexpr std::int64_t exact_limit = std::int64_t{1} << 53;
inline constexpr std::size_t side_max = 9;
inline constexpr std::size_t up_max = 8;
inline constexpr std::size_t scaling_max = 64;  // of all layers together

enum class Activation : std::uint8_t { linear, relu, leaky };

// A layer as it comes: weights (outputs, inputs, side, side). `up` is the stride of a transposed convolution,
// `shuffle` the factor of a PixelShuffle that follows.
struct Layer {
    const std::int16_t* weight = nullptr;
    std::size_t outputs = 0;
    std::size_t inputs = 0;
    unsigned shift = 0;
    std::int64_t activation = 0;
    std::int64_t top = activation_max;
    std::size_t side = 1;
    std::size_t shuffle = 1;
    std::size_t up = 1;
};

// What is added to the sums of a layer: one row for all positions, or one row for each.
struct Added {
    const std::int64_t* rows = nullptr;
    bool each = false;
};

// Checked and packed once, then only read: several threads may run it.
class Layers {
  public:
    static Status build(const std::vector<Layer>& layers, std::shared_ptr<const Layers>& result);

    std::size_t count() const { return layers_.size(); }
    std::size_t inputs() const { return layers_.front().inputs; }
    std::size_t outputs(std::size_t layer) const { return layers_[layer].outputs; }
    std::size_t channels() const { return layers_.back().channels(); }
    // Positions of the sums, and of the activations, of the last layer for each one of the input, along a
    // side.
    std::size_t scaling_of_sums() const { return scaling_ / layers_.back().shuffle; }
    std::size_t scaling() const { return scaling_; }
    // Whether positions know nothing of each other.
    bool pointwise() const { return pointwise_; }

    // Sums of the last layer, (positions, outputs), for layers that are pointwise. `in` (positions, inputs)
    // goes up to 2^20 and `added`, one for each layer, up to 2^53; what is beyond counts as that.
    void run(const std::int32_t* in, std::size_t positions, const Added* added, std::int64_t* sums) const;

    // The same for a plane (height, width, inputs) with zeros around it, for all layers. Either the `sums` of
    // the last layer or its `activations` are wanted, the other is null. Each `added` is one row.
    void run(const std::int32_t* in, std::size_t height, std::size_t width, const Added* added,
             std::int64_t* sums, std::int32_t* activations) const;

  private:
    // Pairs of inputs, side by side in a row of a window, whose products with 16 outputs, one block, add up
    // within 32 bits.
    struct Run {
        std::size_t block, row, first, pairs;
    };
    // The results at one offset of the enlarged grid: a convolution over a window of the input, as one
    // matrix.
    struct Phase {
        std::size_t row, column;                 // offset
        std::ptrdiff_t first_row, first_column;  // of the window, from the position on
        std::size_t rows, row_pairs;             // of the window, and pairs of inputs in each of its rows
        std::vector<std::int16_t> weight;        // (blocks, rows, row_pairs, 16 outputs, 2 inputs)
        std::vector<Run> runs;

        Phase(const Layer& layer, std::size_t row, std::size_t column);
        void find_runs(std::size_t blocks);
    };
    struct Packed {
        std::size_t outputs, inputs, blocks;
        unsigned shift;
        Activation activation;
        std::int64_t top;
        std::size_t shuffle, up, border;  // positions around a plane that windows look at
        std::vector<Phase> phases;

        std::size_t channels() const { return outputs / (shuffle * shuffle); }
    };
    struct Window;
    struct Plane;
    struct Work;

    static void add_products(const Phase& phase, const Window& window, std::size_t positions,
                             std::int64_t* sums, std::size_t sum_pitch);
    void run_some(const std::int32_t* in, std::size_t start, std::size_t positions, const Added* added,
                  std::int64_t* sums, const Work& work) const;
    void run_layer(std::size_t number, const Plane& in, const Added& added, Plane* next, std::int64_t* sums,
                   std::int32_t* activations) const;

    std::vector<Packed> layers_;
    std::size_t widest_inputs_ = 0;
    std::size_t widest_blocks_ = 0;
    std::size_t products_ = 0;  // for each position, where layers are pointwise
    std::size_t scaling_ = 1;
    bool pointwise_ = true;
};

// How many of the ascending `thresholds` each of the sums (positions, row) from `first` to `first + channels`
// strictly exceeds: (positions, channels). At most 255.
void count_exceeded(const std::int64_t* sums, std::size_t positions, std::size_t row, std::size_t first,
                    std::size_t channels, const std::vector<std::int64_t>& thresholds, std::uint8_t* out);

}  // namespace latens
