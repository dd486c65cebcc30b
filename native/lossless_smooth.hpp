// Planes of photographs: linear predictors, one for each block of 8 x 8, residuals coded with tables that the
// residuals around choose (docs/lossless.md, "Smooth planes").
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "adaptive.hpp"
#include "lossless_drawn.hpp"

namespace latens {

inline constexpr unsigned max_classes = 32;
inline constexpr std::size_t class_block = 8;
inline constexpr unsigned coefficient_bits = 11;
inline constexpr std::int32_t max_coefficient = 8191;
inline constexpr unsigned max_levels = 80;
inline constexpr unsigned direct_residuals = 32;
inline constexpr unsigned max_weight_bits = 13;

// Where a predictor looks: its own plane (0), the plane before (1), the one before that (2).
struct Tap {
    unsigned plane;
    int dx, dy;
};
// The first two are in the row that is being decoded. All are taken minus the pixel above the current one, in
// the same plane.
inline constexpr std::array<Tap, 19> taps = {{{0, -1, 0},
                                              {0, -2, 0},
                                              {0, -1, -1},
                                              {0, 1, -1},
                                              {0, 0, -2},
                                              {0, 1, -2},
                                              {0, -2, -1},
                                              {0, 2, -1},
                                              {0, -1, -2},
                                              {1, 0, 0},
                                              {1, -1, 0},
                                              {1, 1, 0},
                                              {1, 0, 1},
                                              {1, -1, -1},
                                              {1, 1, -1},
                                              {2, 0, 0},
                                              {2, -1, 0},
                                              {2, 1, 0},
                                              {2, 0, 1}}};
inline constexpr std::array<std::size_t, 3> tap_counts = {9, 15, 19};
// The same for sizes of residuals.
inline constexpr std::array<Tap, 12> size_taps = {{{0, -1, 0},
                                                   {0, -2, 0},
                                                   {0, 0, -1},
                                                   {0, -1, -1},
                                                   {0, 1, -1},
                                                   {0, 0, -2},
                                                   {1, 0, 0},
                                                   {1, -1, 0},
                                                   {1, 0, -1},
                                                   {1, 1, 0},
                                                   {1, 0, 1},
                                                   {2, 0, 0}}};
inline constexpr std::array<std::size_t, 3> size_tap_counts = {6, 11, 12};

// From an expected size, in quarters, to one of max_levels.
constexpr unsigned level_of(std::uint32_t quarters) {
    if (quarters < 4) return quarters;
    const auto bits = static_cast<unsigned>(std::bit_width(quarters));
    return std::min(4 * (bits - 2) + (quarters >> (bits - 3) & 3), max_levels - 1);
}

// Residuals fold to 0, 1, 2, ...: 0, 1, -1, 2, -2. From direct_residuals on a token gives the length and the
// two bits that follow the first; the others follow as they are.
struct Token {
    unsigned token, extra_bits;
    std::uint32_t extra;
};
constexpr Token tokenize(std::uint32_t folded) {
    if (folded < direct_residuals) return {folded, 0, 0};
    const auto bits = static_cast<unsigned>(std::bit_width(folded));
    return {direct_residuals + 4 * (bits - 6) + (folded >> (bits - 3) & 3), bits - 3,
            folded & ((1u << (bits - 3)) - 1)};
}
// The number of tokens for samples of so many bits.
constexpr unsigned token_count(unsigned bits) {
    return bits < 5 ? 2u << bits : direct_residuals + 4 * (bits - 4);
}

// Frequencies in 1/65536 from weights that are not all zero.
void normalize(const std::uint32_t* weights, std::size_t count, std::uint32_t* frequencies);

// Everything that a stream says about one plane before its residuals.
struct PlaneCode {
    unsigned classes = 1;
    std::vector<std::uint8_t> map;  // the class of each block
    std::array<std::array<std::int32_t, taps.size()>, max_classes> coefficients{};
    std::array<std::int32_t, size_taps.size()> size_weights{};  // in 1/256
    std::array<std::int32_t, max_classes> size_offsets{};       // in 1/16
    std::array<std::uint8_t, max_levels> contexts{};            // of each level
    unsigned context_count = 0;
    std::vector<std::array<std::uint32_t, max_levels>> weights;  // of the tokens, for each context
};

struct SmoothShape {
    std::size_t width, height;
    unsigned planes, bits;
    std::uint32_t near;  // largest error of a sample, but of alpha

    bool alpha(unsigned plane) const { return planes % 2 == 0 && plane == planes - 1; }
    std::uint32_t step(unsigned plane) const { return alpha(plane) ? 1 : 2 * near + 1; }
    std::size_t block_columns() const { return (width + class_block - 1) / class_block; }
    std::size_t block_rows() const { return (height + class_block - 1) / class_block; }
};

// Codes a PlaneCode; false for a value out of range.
template <class Coder>
bool code_plane(Coder& coder, const SmoothShape& shape, unsigned plane, const BlockMap& map,
                PlaneCode& code) {
    using Number = typename BitCoder<Coder>::Number;
    const std::size_t kind = std::min(plane, 2u);
    code.classes = coder.uniform(code.classes - 1, 5) + 1;
    const std::size_t columns = shape.block_columns(), rows = shape.block_rows();
    code.map.resize(columns * rows);
    if (code.classes > 1) {
        std::array<Bit, 2> as_left{};
        Bit as_above;
        std::array<Bit, 32> tree{};
        for (std::size_t y = 0; y < rows; ++y) {
            for (std::size_t x = 0; x < columns; ++x) {
                std::uint8_t* at = &code.map[y * columns + x];
                const std::uint8_t above = y > 0 ? at[-static_cast<std::ptrdiff_t>(columns)] : 0;
                const std::uint8_t left = x > 0 ? at[-1] : above;
                const std::size_t block =
                    y * class_block / map_block * map.columns + x * class_block / map_block;
                if (map.drawn[block] != 0) {
                    *at = left;
                } else if (coder.bit(as_left[left == above], *at == left)) {
                    *at = left;
                } else if (left != above && coder.bit(as_above, *at == above)) {
                    *at = above;
                } else {
                    unsigned node = 1;
                    for (unsigned i = 5; i-- > 0;)
                        node = 2 * node + coder.bit(tree[node], (*at >> i & 1) != 0);
                    if (node - 32 >= code.classes) return false;
                    *at = static_cast<std::uint8_t>(node - 32);
                }
            }
        }
    } else {
        std::fill(code.map.begin(), code.map.end(), std::uint8_t{0});
    }
    std::array<Number, taps.size()> coefficient{};
    for (unsigned k = 0; k < code.classes; ++k) {
        for (std::size_t i = 0; i < tap_counts[kind]; ++i) {
            std::int32_t& c = code.coefficients[k][i];
            c = coder.integer(coefficient[i], c);
            if (c < -max_coefficient || c > max_coefficient) return false;
        }
    }
    for (std::size_t i = 0; i < size_tap_counts[kind]; ++i)
        code.size_weights[i] =
            static_cast<std::int32_t>(coder.uniform(static_cast<std::uint32_t>(code.size_weights[i]), 9));
    Number offset{};
    for (unsigned k = 0; k < code.classes; ++k) {
        std::int32_t& b = code.size_offsets[k];
        b = coder.integer(offset, b);
        if (b < -(1 << 20) || b > 1 << 20) return false;
    }
    Bit next;
    unsigned context = 0;
    for (unsigned i = 0; i < max_levels; ++i) {
        if (i > 0 && coder.bit(next, code.contexts[i] != context)) ++context;
        code.contexts[i] = static_cast<std::uint8_t>(context);
    }
    code.context_count = context + 1;
    code.weights.resize(code.context_count);
    std::array<std::array<Bit, 16>, 16> sizes{};
    std::array<std::uint32_t, max_levels> before{};
    for (auto& weights : code.weights) {
        std::uint32_t any = 0;
        for (unsigned t = 0; t < token_count(shape.bits); ++t) {
            auto& models = sizes[static_cast<std::size_t>(std::bit_width(before[t]))];
            const auto size = static_cast<unsigned>(std::bit_width(weights[t]));
            unsigned node = 1;
            for (unsigned i = 4; i-- > 0;) node = 2 * node + coder.bit(models[node], (size >> i & 1) != 0);
            const unsigned n = node - 16;
            if (n > max_weight_bits) return false;
            // The first bit is 1, three follow, the others are 0.
            const unsigned kept = n < 2 ? 0 : std::min(n - 1, 3u);
            if (n == 0) {
                weights[t] = 0;
            } else {
                const std::uint32_t low =
                    coder.uniform(weights[t] >> (n - 1 - kept) & ((1u << kept) - 1), kept);
                weights[t] = (1u << kept | low) << (n - 1 - kept);
            }
            any |= weights[t];
        }
        if (any == 0) return false;
        before = weights;
    }
    return true;
}

// A plane of samples, or of sizes of residuals, with a margin like a Canvas's, and a row below. Of a plane
// that is a `ring` there are the last eight rows.
template <class Sample>
struct Plane {
    static constexpr std::size_t margin = 4, above = 2, below = 1, slack = 16, ring_rows = 8;

    Plane(std::size_t width_, std::size_t height_, bool ring)
        : width(width_),
          height(height_),
          stride(width_ + 2 * margin),
          kept(ring ? ring_rows - 1 : ~std::size_t{0}),
          samples(stride * (ring ? ring_rows : height_ + above + below) + slack) {}

    Sample* row(std::size_t y) { return samples.data() + ((y + above) & kept) * stride + margin; }
    const Sample* row(std::size_t y) const { return samples.data() + ((y + above) & kept) * stride + margin; }
    void pad_left(std::size_t y) {
        Sample* at = row(y);
        std::fill(at - margin, at, *row(y - 1));
    }
    void pad_right(std::size_t y) {
        Sample* end = row(y) + width;
        std::fill(end, end + margin, end[-1]);
        // The row below the last one repeats it.
        if (y == height - 1) std::copy(row(y) - margin, row(y) + width + margin, row(y + 1) - margin);
    }

    std::size_t width, height, stride, kept;
    Large<Sample> samples;
};

// The planes of a picture in the order in which they are coded, with what their residuals were.
template <class Sample>
struct Planes {
    // A decoder needs no more than the last sizes.
    Planes(std::size_t width, std::size_t height, unsigned count, bool last_sizes) {
        for (unsigned i = 0; i < count; ++i) {
            samples.emplace_back(width, height, false);
            sizes.emplace_back(width, height, last_sizes);
        }
    }
    std::vector<Plane<Sample>> samples, sizes;
};

struct Slice {
    const std::uint8_t* data;
    std::size_t size;
};

// Decodes all planes, whose streams are given. Samples of drawn blocks are those above them.
template <class Sample>
bool decode_planes(const SmoothShape& shape, const BlockMap& map, const std::vector<PlaneCode>& codes,
                   const std::vector<Slice>& streams, Planes<Sample>& planes);

// What an encoder makes of planes: how to code them, the streams, and the bits of each block of the map.
struct SmoothCode {
    std::vector<PlaneCode> planes;
    std::vector<std::vector<std::uint8_t>> streams;
    std::vector<float> bits;
};
// `planes` becomes what is decoded. Predictors are fitted in so many rounds, at most `classes` of them.
template <class Sample>
SmoothCode encode_planes(const SmoothShape& shape, const BlockMap& map, Planes<Sample>& planes,
                         unsigned rounds, unsigned classes);

}  // namespace latens
