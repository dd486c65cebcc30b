// Work on several threads: every part once, by several callers at a time. Meant for the thread sanitizer,
// too.
#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "check.hpp"
#include "pool.hpp"
#include "team.hpp"

namespace {

void test_each_part_is_done_once() {
    for (const unsigned count : {1u, 2u, 5u, 200u}) {
        latens::set_threads(count);
        CHECK(latens::threads() == (count < latens::threads_max ? count : latens::threads_max));
        for (std::size_t parts = 0; parts < 40; ++parts) {
            const unsigned slots = 3;
            std::vector<std::atomic<int>> done(parts), busy(slots);
            std::atomic<bool> wrong = false;
            latens::share(parts, slots, [&](std::size_t part, unsigned slot) {
                if (slot >= slots || busy[slot]++ != 0) wrong = true;  // a slot is one call's at a time
                ++done[part];
                --busy[slot];
            });
            CHECK(!wrong);
            for (const std::atomic<int>& times : done) CHECK(times == 1);
        }
    }
}

void test_what_was_written_by_parts_is_seen_by_the_caller() {
    latens::set_threads(4);
    for (int round = 0; round < 300; ++round) {
        std::vector<int> plain(64);  // no atomics: the pool itself has to order these
        latens::share(plain.size(), 4, [&](std::size_t part, unsigned) { plain[part] = round + 1; });
        for (const int value : plain) CHECK(value == round + 1);
    }
}

void test_several_callers_at_once() {
    latens::set_threads(3);
    std::vector<std::thread> callers;
    std::atomic<int> total = 0;
    for (int caller = 0; caller < 4; ++caller)
        callers.emplace_back([&] {
            for (int round = 0; round < 50; ++round) {
                std::vector<int> own(17);
                latens::share(own.size(), 3, [&](std::size_t part, unsigned) { own[part] = 1; });
                for (const int value : own) total += value;
            }
        });
    for (std::thread& caller : callers) caller.join();
    CHECK(total == 4 * 50 * 17);
}

void test_the_team_does_each_part_once() {
    for (std::size_t parts = 0; parts < 20; ++parts) {
        std::vector<std::atomic<int>> done(parts);
        latens::run_on_team(parts, [&](std::size_t part) { ++done[part]; });
        for (const std::atomic<int>& times : done) CHECK(times == 1);
    }
}

}  // namespace

int main() {
    test_each_part_is_done_once();
    test_what_was_written_by_parts_is_seen_by_the_caller();
    test_several_callers_at_once();
    test_the_team_does_each_part_once();
}
