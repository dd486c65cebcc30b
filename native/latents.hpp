// Between the symbols and the values of the default model's latents (docs/pixels.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "network.hpp"

namespace latens {

inline constexpr unsigned latent_bits = 8;  // of y behind the point
inline constexpr std::int64_t latent_max = 1 << 20, symbol_max = 32767;

// What a model has for the two steps of y, with `known` channels. They must fit together: mean_0 takes the
// features that h_mean gives, context takes y and the features, the scales are for y.
struct TwoSteps {
    std::shared_ptr<const Network> h_mean, mean_0, context;
    Scale mean_scale, context_scale;

    std::size_t features() const { return h_mean->outputs(); }
    std::size_t known() const { return mean_0->outputs(); }
};

// Symbols of y (H, W, known): given, or to be found for `y`. Indexes below `skip` are not coded.
struct TileSymbols {
    const std::int16_t* given = nullptr;
    std::int16_t* found = nullptr;
    const std::int32_t* y = nullptr;
    const std::uint8_t* indexes = nullptr;
    unsigned skip = 0;
};

// y_hat (H, W, known) from z (height, width, inputs of h_mean); H and W are what h_mean makes of them.
Status two_steps(const TwoSteps& model, const std::int16_t* z, std::size_t height, std::size_t width,
                 const TileSymbols& tile, std::int32_t* y_hat, Poll poll);

// What h_a takes for y: asinh(y) in units of 2^-11.
void tame(const std::int32_t* y, std::size_t count, std::int16_t* out);

}  // namespace latens
