#include "quantize.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tables.hpp"

namespace latens {

Status quantize(const float* pmf, std::size_t n, unsigned bits, std::int64_t row, std::int32_t* cdf) {
    if (bits < 1 || bits > precision) return {Code::pmf_precision, row, bits, precision};
    const std::uint64_t whole = std::uint64_t{1} << bits;
    if (n < 1 || n > whole)
        return {Code::pmf_length, row, static_cast<std::int64_t>(n), static_cast<std::int64_t>(whole)};

    // Every entry is below 2^15 * 2^16 and there are at most 2^16: no sum or product below overflows.
    constexpr float largest = 32768.0F;
    std::vector<std::uint64_t> freq(n);
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
        if (!(pmf[i] >= 0.0F && pmf[i] <= largest))
            return {Code::pmf_value, row, static_cast<std::int64_t>(i), static_cast<std::int64_t>(largest)};
        freq[i] = static_cast<std::uint64_t>(std::round(pmf[i] * static_cast<float>(whole)));
        sum += freq[i];
    }
    if (sum == 0) return {Code::pmf_zero, row};
    std::uint64_t used = 0;
    for (std::uint64_t& f : freq) {
        f = f * whole / sum;
        used += f;
    }
    freq[n - 1] += whole - used;

    // Each symbol left without a slot gets one from the symbol that has the fewest, but more than one. That
    // is always the same symbol until it is down to one, so it is enough to sort the donors once.
    std::size_t missing = static_cast<std::size_t>(std::count(freq.begin(), freq.end(), 0));
    if (missing > 0) {
        std::vector<std::uint32_t> donors;
        for (std::size_t i = 0; i < n; ++i)
            if (freq[i] > 1) donors.push_back(static_cast<std::uint32_t>(i));
        std::stable_sort(donors.begin(), donors.end(),
                         [&](std::uint32_t a, std::uint32_t b) { return freq[a] < freq[b]; });
        std::replace(freq.begin(), freq.end(), std::uint64_t{0}, std::uint64_t{1});
        for (auto donor = donors.begin(); missing > 0; ++donor) {
            const std::uint64_t given = std::min<std::uint64_t>(missing, freq[*donor] - 1);
            freq[*donor] -= given;
            missing -= static_cast<std::size_t>(given);
        }
    }
    cdf[0] = 0;
    for (std::size_t i = 0; i < n; ++i) cdf[i + 1] = cdf[i] + static_cast<std::int32_t>(freq[i]);
    return {};
}

}  // namespace latens
