#include "crew.hpp"

#include <chrono>
#include <system_error>

#include "fork.hpp"

namespace latens {
namespace {

// The next piece mostly comes sooner than a sleeping thread wakes up.
constexpr std::chrono::microseconds patience{300};

// Until the value is another one: that one.
unsigned await_change(const std::atomic<unsigned>& value, unsigned known) {
    const auto start = std::chrono::steady_clock::now();
    do {
        for (int i = 0; i < 64; ++i)
            if (const unsigned now = value.load(std::memory_order_acquire); now != known) return now;
        std::this_thread::yield();
    } while (std::chrono::steady_clock::now() - start < patience);
    value.wait(known, std::memory_order_acquire);
    return value.load(std::memory_order_acquire);
}

}  // namespace

Crew::Crew(unsigned size) : forks_(forks()) {
    if (size > 1) others_.reserve(size - 1);
    try {
        for (unsigned number = 1; number < size; ++number)
            others_.emplace_back([this, number] { serve(number); });
    } catch (const std::system_error&) {
        // It works with fewer, too.
    }
    memory_.resize(this->size());
}

Crew::~Crew() {
    if (forks() != forks_) {
        // These threads are another process's: they can neither be waited for nor let go.
        new std::vector<std::thread>(std::move(others_));
        return;
    }
    work_ = nullptr;
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    for (std::thread& other : others_) other.join();
}

void Crew::serve(unsigned number) {
    for (unsigned round = 0;;) {
        round = await_change(round_, round);
        if (work_ == nullptr) return;
        if (number < parts_) (*work_)(number);
        if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
    }
}

void Crew::run(unsigned parts, const std::function<void(unsigned)>& work) {
    if (parts > 1 && forks() != forks_) {
        for (unsigned part = 0; part < parts; ++part) work(part);
        return;
    }
    if (parts > 1) {
        work_ = &work;
        parts_ = parts;
        busy_.store(static_cast<unsigned>(others_.size()), std::memory_order_relaxed);
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
    }
    work(0);
    if (parts > 1)
        for (unsigned left = busy_.load(std::memory_order_acquire); left > 0;)
            left = await_change(busy_, left);
}

}  // namespace latens
