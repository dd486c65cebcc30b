// The .ltn container (docs/format.md): from bytes to its parts, and back. Streams stay where they are.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bytes.hpp"

namespace latens {

inline constexpr std::size_t block_side = 64;  // what a model codes comes in these

struct FileLimits {
    std::uint64_t max_pixels = std::uint64_t{1} << 28;
    std::uint64_t max_memory = 0xffffffff;
};

struct Rect {
    std::size_t x, y, width, height;
};

// Rounded up to whole blocks.
inline std::size_t coded(std::size_t side) {
    return (side + block_side - 1) / block_side * block_side;
}
// The longest stream in bytes that a tile may have.
inline std::size_t max_stream(const Rect& rect) {
    return 8 * coded(rect.width) * coded(rect.height) + 65536;
}

struct Header {
    std::size_t width = 0, height = 0;
    unsigned channels = 3, bit_depth = 8;
    std::array<std::uint8_t, 4> colour{1, 13, 0, 1};
    std::string model = "lossless", entropy_id = "00000000", weights_id = "00000000";
    unsigned quality = 0, skip = 0, lanes = 1;
    std::size_t tile_size = 1024;
    bool lossless = false, alpha = false;  // alpha: in the tiles of a lossless file
    unsigned near = 0;

    bool deep() const { return bit_depth > 8; }
    std::size_t sample_bytes() const { return deep() ? 2 : 1; }
    std::size_t columns() const { return (width + tile_size - 1) / tile_size; }
    std::size_t rows() const { return (height + tile_size - 1) / tile_size; }
    std::size_t tiles() const { return columns() * rows(); }
    Rect tile(std::size_t index) const;
};

struct FileTile {
    std::uint32_t checksum = 0;
    View stream;
    View drawn;  // a lossless tile with the blocks that no model coded; empty: none
    std::uint32_t drawn_checksum = 0;
};

struct Density {
    std::array<std::uint64_t, 4> fractions{};  // across and down, numerators and denominators
    unsigned unit = 0;
};

struct Container {
    Header header;
    std::vector<FileTile> tiles;
    std::array<Buffer, 3> metadata;  // ICC, EXIF, XMP
    std::optional<Density> density;
    std::optional<std::uint32_t> pixels;  // checksum of the picture
    std::vector<View> alpha_tiles;        // for each tile, or none
    Buffer alpha;                         // samples as in files, or none
    View preview;                         // a file of an eighth of the sides, or none

    bool has_alpha() const { return header.alpha || !alpha_tiles.empty() || !alpha.empty(); }
};

// Everything that can be checked without decoding tiles is. Views are into `data`. `inner`: of a preview,
// which has neither metadata nor a preview.
Outcome read_container(View data, const FileLimits& limits, Container& result, bool inner = false);

// Whether a header can carry it.
bool name_is_valid(const std::string& name);

// The bytes of a file; alpha must be in tiles.
Outcome write_container(const Container& container, Buffer& out);

}  // namespace latens
