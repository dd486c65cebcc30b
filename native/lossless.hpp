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
inline constexpr std::size_t part_block = 64;  // side of the blocks that a part of a tile consists of
inline constexpr unsigned max_near = 255;

enum class Content : std::uint8_t { any, photo, drawn };

struct LosslessOptions {
    std::uint32_t near = 0;  // largest error of a sample, in its own units; alpha has none
    std::uint32_t slack =
        0;                // of the contrast around a drawn pixel, in 1/256, by how much it may be off besides
    unsigned effort = 1;  // 1 to 3
    Content content = Content::any;
    // Which blocks of 64 x 64 are coded, row by row; null: all. Samples of the others are to be 0.
    const std::uint8_t* part = nullptr;
    // In place of it, which pixels are coded, row by row.
    const std::uint8_t* mask = nullptr;
};

// Number of blocks of 64 x 64 in a tile.
inline std::size_t part_blocks(const TileShape& shape) {
    return ((shape.width + part_block - 1) / part_block) * ((shape.height + part_block - 1) / part_block);
}

// Appends the stream of a tile to `out`.
Status encode_tile(const void* samples, const TileShape& shape, const LosslessOptions& options,
                   std::vector<std::uint8_t>& out);

// Fills a tile from its stream. After an error its samples are undefined. Without `mask` a tile must be
// whole; else `mask` says of each pixel, row by row, whether it is there, and samples of the others become 0.
Status decode_tile(const std::uint8_t* data, std::size_t size, const TileShape& shape, void* samples,
                   std::uint8_t* mask = nullptr);

// About the bits that each block of `options.part` takes without loss, row by row, the way that takes fewer.
Status measure_tile(const void* samples, const TileShape& shape, const LosslessOptions& options, float* bits);

}  // namespace latens
