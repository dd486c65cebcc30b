#include "team.hpp"

#include <atomic>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>

#include <cstring>
#endif

namespace latens {
namespace {

// How compilers start a parallel region (GCC's libgomp; LLVM's libomp has it too): function, argument,
// threads, flags.
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

#if defined(__linux__)
int find_runtime(dl_phdr_info* info, std::size_t, void* found) {
    const char* name = info->dlpi_name;
    if (name == nullptr ||
        (std::strstr(name, "/libgomp") == nullptr && std::strstr(name, "/libomp") == nullptr &&
         std::strstr(name, "/libiomp") == nullptr))
        return 0;
    // There may be several. PyTorch's own lies in its folder.
    const char*& best = *static_cast<const char**>(found);
    const bool own = std::strstr(name, "/torch") != nullptr;
    if (best == nullptr || own) best = name;
    return own ? 1 : 0;
}

int find_gnu_runtimes(dl_phdr_info* info, std::size_t, void* found) {
    if (info->dlpi_name != nullptr && std::strstr(info->dlpi_name, "/libgomp") != nullptr)
        static_cast<std::vector<std::string>*>(found)->push_back(info->dlpi_name);
    return 0;
}

Parallel find_parallel() {
    const char* name = nullptr;
    dl_iterate_phdr(find_runtime, &name);
    // Never closed: it must not be unloaded before us.
    void* runtime = name == nullptr ? nullptr : dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    return runtime == nullptr ? nullptr : reinterpret_cast<Parallel>(dlsym(runtime, "GOMP_parallel"));
}
#else
Parallel find_parallel() {
    return nullptr;
}
#endif

struct Parts {
    const std::function<void(std::size_t)>& work;
    std::size_t count;
    std::atomic<std::size_t> next{0};

    void take() {
        for (std::size_t part; (part = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(part);
    }
};

}  // namespace

void disband_team() {
#if defined(__linux__)
    constexpr int hard = 2;
    std::vector<std::string> names;
    dl_iterate_phdr(find_gnu_runtimes, &names);
    for (const std::string& name : names) {
        void* runtime = dlopen(name.c_str(), RTLD_LAZY | RTLD_NOLOAD);
        if (runtime == nullptr) continue;
        if (void* pause = dlsym(runtime, "omp_pause_resource_all"))
            reinterpret_cast<int (*)(int)>(pause)(hard);
        dlclose(runtime);
    }
#endif
}

void run_on_team(std::size_t parts, const std::function<void(std::size_t)>& work) {
    Parts left{work, parts};
    if (parts > 1) {
        static const Parallel parallel = find_parallel();
        if (parallel != nullptr) {
            parallel([](void* all) { static_cast<Parts*>(all)->take(); }, &left, static_cast<unsigned>(parts),
                     0);
            return;
        }
        std::vector<std::thread> others;
        try {
            for (std::size_t i = 1; i < parts; ++i) others.emplace_back([&left] { left.take(); });
        } catch (const std::system_error&) {
            // It works with fewer, too.
        }
        left.take();
        for (std::thread& other : others) other.join();
        return;
    }
    left.take();
}

}  // namespace latens
