// What the tests share: a check that says where it failed, and numbers that are the same in every run.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

// Unlike assert, it is there in every build.
#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                                \
        }                                                                                \
    } while (false)

using Random = std::mt19937_64;

inline std::uint32_t below(Random& random, std::uint32_t n) {
    return static_cast<std::uint32_t>(random() % n);
}

inline std::int64_t between(Random& random, std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(high - low + 1));
}

inline bool keep_going() {
    return true;
}
