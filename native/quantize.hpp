// From floating-point probabilities to integer CDF tables, in the field's exact arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

#include "status.hpp"

namespace latens {

// Writes n + 1 increasing entries, from 0 to 2^bits. `row` only names the distribution in an error.
Status quantize(const float* pmf, std::size_t n, unsigned bits, std::int64_t row, std::int32_t* cdf);

}  // namespace latens
