// Work on the threads that the process has already.
#pragma once

#include <cstddef>
#include <functional>

namespace latens {

// Calls `work(0)` to `work(parts - 1)`, several at a time, on the threads of the OpenMP runtime in this
// process, else on new ones. PyTorch's idle threads spin for some milliseconds after each operation, and
// others would have to share the processors with them. `work` must not throw.
void run_on_team(std::size_t parts, const std::function<void(std::size_t)>& work);

}  // namespace latens
