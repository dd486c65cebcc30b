// Vectors that begin at a cache line, so that no load of a whole register crosses one.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace latens {

template <class T>
struct CacheLines {
    using value_type = T;
    static constexpr std::align_val_t line{64};

    CacheLines() = default;
    template <class Other>
    CacheLines(const CacheLines<Other>&) {}
    T* allocate(std::size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), line)); }
    void deallocate(T* memory, std::size_t) { ::operator delete(memory, line); }
    template <class Other>
    bool operator==(const CacheLines<Other>&) const {
        return true;
    }
};

template <class T>
using Aligned = std::vector<T, CacheLines<T>>;

}  // namespace latens
