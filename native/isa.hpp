// The instruction set that tests force.
#pragma once

#include <cstdlib>
#include <cstring>

namespace latens {

// Whether the environment's LATENS_ISA leaves this one.
inline bool isa_allowed(const char* name) {
    const char* const wanted = std::getenv("LATENS_ISA");
    return wanted == nullptr || *wanted == '\0' || std::strcmp(wanted, name) == 0;
}

}  // namespace latens
