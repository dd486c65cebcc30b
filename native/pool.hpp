// The core's own threads: one set for the whole process, asleep while there is nothing to do.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace latens {

inline constexpr unsigned threads_max = 64;

// How many threads may work at a time, callers' own among them: what was set, else LATENS_THREADS, else as
// many as this process may use processors, by its affinity and its control groups' quota.
unsigned threads();

// More than `threads_max` are as many; 0 is what was there before any call. Counts from the next piece of
// work on, and in children of this process.
void set_threads(unsigned count);

// Calls `work(part, slot)` for each part from 0 on, in any order, on the caller's thread and on others that
// are free. Calls at the same time have different slots, the caller's is 0, all are below `slots`. Several
// threads may call it at once: they share the others, so that not more than `threads()` work as long as fewer
// call. `work` must not throw.
void share(std::size_t parts, unsigned slots, const std::function<void(std::size_t, unsigned)>& work);

// Processors that control groups allow, 0 if they set no limit. `groups` is the text of /proc/self/cgroup,
// `mount` the folder where they are mounted.
double processor_quota(const std::string& groups, const std::string& mount);

}  // namespace latens
