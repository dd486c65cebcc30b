// Block motion in integers: one vector for each square of 16x16 pixels, in half pixels (docs/pixels.md).
#pragma once

#include <cstddef>
#include <cstdint>

namespace latens {

inline constexpr std::size_t motion_block = 16;
inline constexpr int motion_reach = 64;  // the largest component of a vector, in half pixels

// Moves the blocks of a picture `(height, width, channels)`, sides multiples of 16. Of `vectors` `(2, height
// / 16, width / 16)`, down and right, none may be longer than the reach.
void compensate(const std::uint16_t* reference, std::size_t height, std::size_t width, std::size_t channels,
                const std::int16_t* vectors, std::uint16_t* out);

// Finds vectors that make a reference look like a picture, both of one channel and at most 10 bits. `costs`
// has what components of each size take, 0 to 2 * motion_reach, in sums of absolute differences, at most
// 2^24.
void search_motion(const std::uint16_t* picture, const std::uint16_t* reference, std::size_t height,
                   std::size_t width, const std::int32_t* costs, std::int16_t* vectors);

}  // namespace latens
