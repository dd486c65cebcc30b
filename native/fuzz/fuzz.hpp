// A fuzz target defines LLVMFuzzerTestOneInput, as libFuzzer wants it, and `valid_input`, from which the
// plain driver makes damaged inputs where there is no libFuzzer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "coder.hpp"

using Random = std::mt19937_64;
using Input = std::vector<std::uint8_t>;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
Input valid_input(Random& random);

inline std::uint32_t below(Random& random, std::uint32_t n) {
    return static_cast<std::uint32_t>(random() % n);
}

inline void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

inline bool keep_going() {
    return true;
}

struct Cdfs {
    std::size_t stride = 0;
    std::vector<std::int32_t> cdfs, sizes, offsets;

    latens::Status build(std::shared_ptr<const latens::Tables>& tables) const {
        return latens::Tables::build(cdfs.data(), sizes.data(), offsets.data(), sizes.size(), stride, tables);
    }
};

// Valid tables of 2 to `most` symbols, with probabilities spread evenly, or crowded at one end.
inline Cdfs random_cdfs(Random& random, std::size_t count, std::uint32_t most) {
    Cdfs result;
    result.stride = most + 1;
    result.cdfs.resize(count * result.stride);
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t symbols = 2 + below(random, most - 1);
        std::int32_t* cdf = &result.cdfs[i * result.stride];
        const std::uint32_t kind = below(random, 3);
        for (std::uint32_t s = 1; s <= symbols; ++s) {
            const std::uint64_t even = std::uint64_t{s} * latens::total / symbols;
            const std::uint32_t low = s, high = latens::total - symbols + s;
            cdf[s] = static_cast<std::int32_t>(kind == 0 ? even : kind == 1 ? low : high);
        }
        cdf[symbols] = latens::total;
        result.sizes.push_back(static_cast<std::int32_t>(symbols + 1));
        result.offsets.push_back(static_cast<std::int32_t>(below(random, 2 * most)) -
                                 static_cast<std::int32_t>(most));
    }
    return result;
}

// The tables of the decoder targets: always the same.
inline const std::shared_ptr<const latens::Tables>& fixed_tables() {
    static const std::shared_ptr<const latens::Tables> tables = [] {
        Random random(1);
        std::shared_ptr<const latens::Tables> result;
        require(random_cdfs(random, 40, 700).build(result).ok(), "valid tables were refused");
        return result;
    }();
    return tables;
}

// An input of the decoder targets: seed of the indexes (1), their number (2), option (1), the stream.
inline constexpr std::size_t header = 4;

inline std::vector<std::uint8_t> indexes_of(const std::uint8_t* data) {
    Random random(data[0]);
    std::vector<std::uint8_t> indexes(data[1] + 256u * (data[2] & 15u));
    for (std::uint8_t& index : indexes) index = static_cast<std::uint8_t>(below(random, 40));
    return indexes;
}
