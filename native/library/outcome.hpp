// How the library says what went wrong: a code of ltn.h, and a sentence.
#pragma once

#include <string>
#include <utility>

#include "ltn.h"
#include "status.hpp"

namespace latens {

struct Outcome {
    ltn_code code = LTN_OK;
    std::string message;

    bool ok() const { return code == LTN_OK; }
};

inline Outcome failed(ltn_code code, std::string message) {
    return {code, std::move(message)};
}

// Of the core; `code` is that of an error without a code of its own.
inline Outcome outcome_of(const Status& status, ltn_code code, const std::string& where = "") {
    if (status.ok()) return {};
    if (status.code == Code::tile_memory) code = LTN_ERROR_MEMORY;
    if (status.code == Code::tile_kind) code = LTN_ERROR_VERSION;
    return {code, where + describe(status)};
}

}  // namespace latens

// Returns from a function that gives an `Outcome` if a step of it fails.
#define LATENS_TRY(step)                                     \
    do {                                                     \
        if (::latens::Outcome o = (step); !o.ok()) return o; \
    } while (false)
