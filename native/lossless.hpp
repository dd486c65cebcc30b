// Tiles of pictures without loss, or with a bounded one (docs/lossless.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "status.hpp"

namespace latens {

// Samples of one tile within a picture: `channels` of a pixel side by side, `pitch` samples from row to row.
// `deep` samples have 16 bits, others 8.
struct TileShape {
    std::size_t width, height, pitch;
    unsigned channels;
    bool deep;
};

inline constexpr std::size_t max_tile_side = 4096;
inline constexpr unsigned max_near = 255;

enum class Content : std::uint8_t { any, photo, drawn };

struct LosslessOptions {
    std::uint32_t near = 0;  // largest error of a sample, in its own units; alpha has none
    unsigned effort = 1;     // 1 to 3
    Content content = Content::any;
};

// Appends the stream of a tile to `out`.
Status encode_tile(const void* samples, const TileShape& shape, const LosslessOptions& options,
                   std::vector<std::uint8_t>& out);

// Fills a tile from its stream. After an error its samples are undefined.
Status decode_tile(const std::uint8_t* data, std::size_t size, const TileShape& shape, void* samples);

}  // namespace latens
