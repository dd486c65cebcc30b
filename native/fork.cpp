#include "fork.hpp"

#include <atomic>

#include "team.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define LATENS_HAS_FORK
#endif

namespace latens {
namespace {

std::atomic<unsigned> count{0};

}  // namespace

void expect_forks() {
#ifdef LATENS_HAS_FORK
    // The result is ignored: without memory for it, forks are what they were.
    static const int registered =
        pthread_atfork(disband_team, nullptr, [] { count.fetch_add(1, std::memory_order_relaxed); });
    static_cast<void>(registered);
#endif
}

unsigned forks() {
    return count.load(std::memory_order_relaxed);
}

}  // namespace latens
