// Threads that wait for work, for work that comes in many small pieces: starting one takes longer than a
// piece.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

namespace latens {

class Crew {
  public:
    // At most `size` threads, the caller's own among them; fewer if the system gives no more.
    explicit Crew(unsigned size);
    ~Crew();
    // In the child of a fork, which has no threads but the one that forked, `run` does all work on that.
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;

    unsigned size() const { return static_cast<unsigned>(others_.size()) + 1; }

    // Calls `work(0)` to `work(parts - 1)`, the first on the caller's thread; at most `size` parts, which
    // must not throw. Only one thread at a time may call it.
    void run(unsigned parts, const std::function<void(unsigned)>& work);

    // Memory of one part, which stays from one run to the next.
    std::vector<std::byte>& memory(std::size_t part) { return memory_[part]; }

  private:
    void serve(unsigned number);

    std::vector<std::thread> others_;
    std::vector<std::vector<std::byte>> memory_;
    const std::function<void(unsigned)>* work_ = nullptr;  // null: go home
    unsigned parts_ = 0;
    std::atomic<unsigned> round_{0};
    std::atomic<unsigned> busy_{0};
    const unsigned forks_;  // when the threads were started
};

}  // namespace latens
