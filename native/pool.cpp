#include "pool.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <sstream>
#include <vector>

#include "fork.hpp"

#if defined(__EMSCRIPTEN__) && !defined(__EMSCRIPTEN_PTHREADS__)
#define LATENS_ALONE 1
#else
#include <condition_variable>
#include <system_error>
#include <thread>
#endif

#if defined(__unix__) || defined(__APPLE__)
#include <signal.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace latens {
namespace {

unsigned available() {
    unsigned count = 1;
#if !defined(LATENS_ALONE)
    count = std::max(1u, std::thread::hardware_concurrency());
#endif
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        count = static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
    std::ifstream file("/proc/self/cgroup");
    const std::string groups{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const double quota = processor_quota(groups, "/sys/fs/cgroup");
    if (quota > 0 && quota < count) count = static_cast<unsigned>(std::max(1.0, std::ceil(quota)));
#endif
    return count;
}

unsigned from_environment() {
    const char* text = std::getenv("LATENS_THREADS");
    unsigned count = 0;
    if (text == nullptr) return 0;
    const auto end = text + std::strlen(text);
    const auto [rest, error] = std::from_chars(text, end, count);
    if (error == std::errc::result_out_of_range) return threads_max;
    return error == std::errc() && rest == end ? count : 0;
}

std::atomic<unsigned> wanted{0};  // 0: not decided yet

}  // namespace

unsigned threads() {
    if (const unsigned count = wanted.load(std::memory_order_relaxed); count > 0) return count;
    const unsigned named = from_environment();
    unsigned none = 0;
    wanted.compare_exchange_strong(none, std::min(named > 0 ? named : available(), threads_max));
    return wanted.load(std::memory_order_relaxed);
}

void set_threads(unsigned count) {
    wanted = std::min(count, threads_max);
}

double processor_quota(const std::string& groups, const std::string& mount) {
    double least = 0;
    const auto limit = [&least](double quota, double period) {
        if (quota > 0 && period > 0 && (least == 0 || quota / period < least)) least = quota / period;
    };
    std::istringstream lines(groups);
    for (std::string line; std::getline(lines, line);) {
        const std::size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const bool unified = controllers.empty();
        if (!unified && controllers != "cpu" && controllers != "cpu,cpuacct" && controllers != "cpuacct,cpu")
            continue;
        // A group is limited by those that it lies in, too. In a container its path may not be there.
        for (std::string path = line.substr(second + 1);; path.erase(path.find_last_of('/'))) {
            if (unified) {
                std::ifstream file(mount + path + "/cpu.max");
                double quota = 0, period = 0;
                if (file >> quota >> period) limit(quota, period);
            } else {
                for (const char* folder : {"/cpu", "/cpu,cpuacct"}) {
                    std::ifstream quota_file(mount + folder + path + "/cpu.cfs_quota_us"),
                        period_file(mount + folder + path + "/cpu.cfs_period_us");
                    double quota = 0, period = 0;
                    if (quota_file >> quota && period_file >> period) limit(quota, period);
                }
            }
            if (path.find('/') == std::string::npos) break;
        }
    }
    return least;
}

#if defined(LATENS_ALONE)

void share(std::size_t parts, unsigned, const std::function<void(std::size_t, unsigned)>& work) {
    for (std::size_t part = 0; part < parts; ++part) work(part, 0);
}

#else

namespace {

// The next piece mostly comes sooner than a sleeping thread wakes up; but others may want the processor.
constexpr std::chrono::microseconds patience{20};

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

template <class Done>
bool spin(const Done& done) {
    const auto start = std::chrono::steady_clock::now();
    do {
        for (int i = 0; i < 16; ++i) {
            if (done()) return true;
            relax();
        }
    } while (std::chrono::steady_clock::now() - start < patience);
    return done();
}

struct Job {
    const std::function<void(std::size_t, unsigned)>& work;
    const std::size_t parts;
    const unsigned slots;
    std::atomic<std::size_t> next{0};
    std::atomic<unsigned> inside{0};  // helpers at work; changes only under the pool's lock
    unsigned joined = 0;

    bool open() const { return next.load(std::memory_order_relaxed) < parts && joined + 1 < slots; }
    void take(unsigned slot) {
        for (std::size_t part; (part = next.fetch_add(1, std::memory_order_relaxed)) < parts;)
            work(part, slot);
    }
};

// Never destroyed: its threads sleep on until the process ends.
class Pool {
  public:
    const unsigned forks_before = forks();

    void run(Job& job) {
        const unsigned most = threads();
        {
            const std::lock_guard lock(mutex_);
            while (helpers_ + 1 < most && start_helper()) ++helpers_;
            jobs_.push_back(&job);
            posted_.fetch_add(1, std::memory_order_release);
            const std::size_t useful = std::min<std::size_t>(job.parts - 1, asleep_);
            for (std::size_t i = 0; i < useful; ++i) wake_.notify_one();
        }
        job.take(0);
        {
            const std::lock_guard lock(mutex_);
            jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
        }
        const auto done = [&job] { return job.inside.load(std::memory_order_acquire) == 0; };
        if (spin(done)) return;
        std::unique_lock lock(mutex_);
        done_.wait(lock, done);
    }

  private:
    // Without signals, which are for the program's own threads.
    bool start_helper() {
#if defined(__unix__) || defined(__APPLE__)
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
        bool started = true;
        try {
            std::thread([this] { help(); }).detach();
        } catch (const std::system_error&) {
            started = false;  // it works with fewer, too
        }
#if defined(__unix__) || defined(__APPLE__)
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
#endif
        return started;
    }

    // The one with the fewest helpers, if another may work at all.
    Job* choose() const {
        if (working_ + jobs_.size() >= threads()) return nullptr;
        Job* best = nullptr;
        for (Job* job : jobs_)
            if (job->open() && (best == nullptr || job->joined < best->joined)) best = job;
        return best;
    }

    [[noreturn]] void help() {
        std::unique_lock lock(mutex_);
        for (;;) {
            const unsigned known = posted_.load(std::memory_order_relaxed);
            if (Job* job = choose(); job != nullptr) {
                const unsigned slot = ++job->joined;
                job->inside.fetch_add(1, std::memory_order_relaxed);
                ++working_;
                lock.unlock();
                job->take(slot);
                lock.lock();
                --working_;
                // Gone for its caller as soon as nobody is inside.
                if (job->inside.fetch_sub(1, std::memory_order_release) == 1) done_.notify_all();
                continue;
            }
            lock.unlock();
            spin([&] { return posted_.load(std::memory_order_acquire) != known; });
            lock.lock();
            if (posted_.load(std::memory_order_relaxed) != known) continue;
            ++asleep_;
            wake_.wait(lock, [&] { return posted_.load(std::memory_order_relaxed) != known; });
            --asleep_;
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::vector<Job*> jobs_;
    std::size_t asleep_ = 0, working_ = 0;
    unsigned helpers_ = 0;
    std::atomic<unsigned> posted_{0};
};

std::atomic<Pool*> shared_pool{nullptr};

// A child of fork() has none of its parent's threads, and their lock as it was: it makes a pool of its own.
Pool& pool() {
    Pool* now = shared_pool.load(std::memory_order_acquire);
    if (now != nullptr && now->forks_before == forks()) return *now;
    expect_forks();
    auto* made = new Pool;
    if (shared_pool.compare_exchange_strong(now, made, std::memory_order_acq_rel)) return *made;
    delete made;
    return *now;
}

}  // namespace

void share(std::size_t parts, unsigned slots, const std::function<void(std::size_t, unsigned)>& work) {
    if (parts < 2 || slots < 2 || threads() < 2) {
        for (std::size_t part = 0; part < parts; ++part) work(part, 0);
        return;
    }
    Job job{work, parts, slots};
    pool().run(job);
}

#endif

}  // namespace latens
