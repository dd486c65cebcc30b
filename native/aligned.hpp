// Vectors for tables and pictures, whose memory begins where that is of use.
#pragma once

#include <cstddef>
#include <new>
#include <vector>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace latens {

// At a cache line, so that no load of a whole register crosses one.
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

// At a page of 2 MiB if there is more than one: the system gives such pages where it is asked for them, and
// 500 times fewer first touches are left.
template <class T>
struct HugePages {
    using value_type = T;
    static constexpr std::size_t page = std::size_t{1} << 21;

    HugePages() = default;
    template <class Other>
    HugePages(const HugePages<Other>&) {}
    T* allocate(std::size_t count) {
        const std::size_t bytes = count * sizeof(T);
#ifdef __linux__
        if (bytes >= page) {
            void* memory = ::operator new(bytes, std::align_val_t{page});
            madvise(memory, bytes, MADV_HUGEPAGE);  // no matter if it is refused
            return static_cast<T*>(memory);
        }
#endif
        return static_cast<T*>(::operator new(bytes));
    }
    void deallocate(T* memory, [[maybe_unused]] std::size_t count) {
#ifdef __linux__
        if (count * sizeof(T) >= page) {
            ::operator delete(memory, std::align_val_t{page});
            return;
        }
#endif
        ::operator delete(memory);
    }
    template <class Other>
    bool operator==(const HugePages<Other>&) const {
        return true;
    }
};

template <class T>
using Large = std::vector<T, HugePages<T>>;

}  // namespace latens
