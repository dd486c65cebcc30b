// Work on the threads that the process has already.
#pragma once

#include <cstddef>
#include <functional>

namespace latens {

// Calls `work(0)` to `work(parts - 1)`, several at a time, on the threads of the OpenMP runtime in this
// process, else on new ones. PyTorch's idle threads spin for some milliseconds after each operation, and
// others would have to share the processors with them. `work` must not throw.
void run_on_team(std::size_t parts, const std::function<void(std::size_t)>& work);

// Ends the idle threads of GNU's OpenMP runtimes that belong to the calling thread; the next work starts new
// ones. Before a fork, so that the child does not wait for threads that it does not have. Other runtimes see
// to it themselves.
void disband_team();

}  // namespace latens
