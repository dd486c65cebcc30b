// Whole files to pictures, and pictures to files.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "container.hpp"
#include "model.hpp"

namespace latens {

// Samples row by row, those of a pixel side by side; 16 bits in the machine's order where a header is deep.
struct Picture {
    Header header;
    std::array<Buffer, 3> metadata;
    std::optional<Density> density;
    Buffer pixels, alpha;
    bool has_alpha = false;
};

// `model` may be null for lossless files.
Outcome decode_picture(const Model* model, View data, const FileLimits& limits, Picture& result);

// Samples of a picture to encode, of 8 or 16 bits, rows `pitch` bytes apart.
struct Plane {
    const std::uint8_t* data = nullptr;
    std::size_t pitch = 0;
};

// `about` says size, samples and colour, and holds metadata; what else its header says is replaced.
Outcome encode_picture(const Model& model, const Picture& about, Plane pixels, Plane alpha, double quality,
                       Buffer& out);
Outcome encode_lossless(const Picture& about, Plane pixels, Plane alpha, unsigned near, unsigned effort,
                        Buffer& out);

}  // namespace latens
