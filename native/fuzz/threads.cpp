// What the pool does under ThreadSanitizer: callers at the same time, of several sizes, and forks between.
//   native/fuzz/threads.sh
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "pool.hpp"

namespace {

// Each part once, and no two at a time in one slot.
void check(std::size_t parts, unsigned slots) {
    std::vector<int> done(parts);
    std::vector<int> at_work(slots);
    latens::share(parts, slots, [&](std::size_t part, unsigned slot) {
        // Plain integers: the sanitizer tells if two threads come here at once.
        ++at_work[slot];
        ++done[part];
        --at_work[slot];
    });
    for (const int times : done)
        if (times != 1) {
            std::fprintf(stderr, "a part was done %d times\n", times);
            std::abort();
        }
}

void from_several(int callers, int turns) {
    std::vector<std::thread> threads;
    for (int caller = 0; caller < callers; ++caller)
        threads.emplace_back([=] {
            for (int turn = 0; turn < turns; ++turn)
                check(static_cast<std::size_t>(turn * 7 % 40), 1 + static_cast<unsigned>(turn + caller) % 5);
        });
    for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main() {
    for (const unsigned threads : {4u, 1u, 3u, 2u}) {
        latens::set_threads(threads);
        for (int callers = 1; callers <= 4; ++callers) from_several(callers, 300);
    }
    latens::set_threads(4);
    for (int turn = 0; turn < 5; ++turn) {
        check(100, 4);
        const pid_t child = fork();
        if (child == 0) {
            for (int i = 0; i < 20; ++i) check(100, 4);
            _exit(0);
        }
        int status = 0;
        if (waitpid(child, &status, 0) != child || status != 0) {
            std::fprintf(stderr, "a child did not come back well\n");
            return 1;
        }
    }
    std::printf("the pool does each part once\n");
}
