// Block motion in integers: a field of blocks in quadtrees, found, coded, and applied (docs/pixels.md,
// docs/format.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "status.hpp"

namespace latens {

inline constexpr int motion_unit = 8;      // the smallest block
inline constexpr int motion_square = 64;   // the largest one
inline constexpr int motion_reach = 8191;  // the largest component of a vector, in quarter pixels

struct Vector {
    std::int16_t down = 0, right = 0;

    bool operator==(const Vector&) const = default;
};

// Where a block comes from: the first reference, the second, or the mean of both; what is not used is zero.
struct Motion {
    std::int16_t references = 1;
    Vector vectors[2];

    bool uses(int reference) const { return (references >> reference & 1) != 0; }
    bool operator==(const Motion&) const = default;
};

// What a unit of 8x8 pixels belongs to: a block of 8, 16, 32 or 64 pixels, at a multiple of its size.
struct Unit {
    std::int16_t size = 0;
    Motion motion;
};
static_assert(sizeof(Unit) == 6 * sizeof(std::int16_t), "arrays of six numbers stand for units");

// The motion of a picture whose sides are multiples of 64, or a view of one.
template <class U>
struct FieldOf {
    U* units;
    int rows, columns;  // of units

    U& at(int row, int column) const {
        return units[static_cast<std::size_t>(row) * static_cast<std::size_t>(columns) +
                     static_cast<std::size_t>(column)];
    }
    int height() const { return rows * motion_unit; }
    int width() const { return columns * motion_unit; }
};
using Field = FieldOf<Unit>;
using FieldView = FieldOf<const Unit>;

// Whether blocks, references and vectors are such as can be coded, with one or two references.
bool sound_field(const FieldView& field, int references);

// Appends the stream of a sound field to `out`.
void encode_field(const FieldView& field, int references, std::vector<std::uint8_t>& out);
// Fills a field from its stream. After an error its units are undefined.
Status decode_field(const std::uint8_t* data, std::size_t size, int references, const Field& field);

// Prediction of a picture `(height, width, 3)` by a sound field from references of that size.
void compensate(const std::uint16_t* const* references, const FieldView& field, std::uint16_t* out);

struct SearchOptions {
    std::uint32_t price;  // of a bit, in 1/128 of a sum of absolute transformed differences of 8 bits
    int visible_height, visible_width;  // what lies beyond is of no account
};

// Finds a field that makes references look like a picture, all `(height, width, 3)`.
void search_motion(const std::uint16_t* picture, const std::uint16_t* const* references, int count,
                   const SearchOptions& options, const Field& field);

}  // namespace latens
