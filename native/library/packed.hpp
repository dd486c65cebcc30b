// Packed weights (docs/packed.md): integer arrays, entropy coded.
#pragma once

#include "weights.hpp"

namespace latens {

inline constexpr std::uint8_t packed_signature[] = {'L', 'T', 'N', 'W'};

bool is_packed(View data);

// One part after the other, all of the same weights.
Outcome read_packed(View data, WeightsFile& result);

// Which of the arrays that a codec needs: those for decoding, or those that encoding needs beside them.
enum class Packing : std::uint8_t { decoding, encoding };
Outcome pack_weights(const WeightsFile& weights, Packing what, Buffer& out);

}  // namespace latens
