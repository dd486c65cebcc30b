// 1x1 layers in the exact integers of the entropy model, at any number of positions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "crew.hpp"
#include "status.hpp"

namespace latens {

inline constexpr std::int32_t weight_max = 32767;
inline constexpr std::int64_t activation_max = std::int64_t{1} << 20;
inline constexpr std::int64_t exact_limit = std::int64_t{1} << 53;

enum class Activation : std::uint8_t { linear, relu, leaky };

// A layer as it comes: weights row by row, one row for each output.
struct Layer {
    const std::int16_t* weight = nullptr;
    std::size_t outputs = 0;
    std::size_t inputs = 0;
    unsigned shift = 0;
    std::int64_t activation = 0;
    std::int64_t top = activation_max;
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

    // Sums of the last layer, (positions, outputs). `in` (positions, inputs) goes up to 2^20 and `added`, one
    // for each layer, up to 2^53; what is beyond counts as that.
    void run(const std::int32_t* in, std::size_t positions, const Added* added, std::int64_t* sums,
             Crew& crew) const;

  private:
    // Pairs of inputs whose products with 16 outputs, one block, add up within 32 bits.
    struct Run {
        std::size_t block, first, pairs;
    };
    struct Packed {
        std::size_t outputs, inputs, pairs, blocks;
        unsigned shift;
        Activation activation;
        std::int64_t top;
        std::vector<std::int16_t> weight;  // (blocks, pairs, 16 outputs, 2 inputs)
        std::vector<Run> runs;

        void find_runs();
    };

    struct Work;

    void run_some(const std::int32_t* in, std::size_t start, std::size_t positions, const Added* added,
                  std::int64_t* sums, const Work& work) const;

    std::vector<Packed> layers_;
    std::size_t widest_pairs_ = 0;
    std::size_t widest_blocks_ = 0;
    std::size_t products_ = 0;  // for each position
};

}  // namespace latens
