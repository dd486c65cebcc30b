#if defined(__GNUC__) && defined(__x86_64__) && !defined(LATENS_PORTABLE)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#include "motion_loops.hpp"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace latens {
const MotionLoops* motion_loops_avx2() {
    return __builtin_cpu_supports("avx2") ? &compiled : nullptr;
}
}  // namespace latens

#else

#include "motion_loops.hpp"

namespace latens {
const MotionLoops* motion_loops_avx2() {
    return nullptr;
}
}  // namespace latens

#endif
