// What can go wrong in the core, as a value. The core never throws on bad input and never prints.
#pragma once

#include <cstdint>
#include <string>

namespace latens {

enum class Code : std::uint8_t {
    ok,
    interrupted,
    // Tables
    table_count,
    table_memory,
    table_size,
    table_offset,
    table_start,
    table_order,
    table_end,
    table_int16,
    pmf_precision,
    pmf_length,
    pmf_value,
    pmf_zero,
    // Layers
    layer_size,
    layer_inputs,
    layer_shift,
    layer_activation,
    layer_top,
    layer_side,
    layer_up,
    layer_shuffle,
    layer_scaling,
    layer_weight,
    // Coding
    index_range,
    symbol_range,
    symbol_skipped,
    lane_count,
    stream_size,
    stream_state,
    stream_end,
    stream_escape,
    final_state,
    final_position,
};

// `at` is the table, symbol or lane concerned; `got` and `limit` are what came and what was allowed.
struct Status {
    Code code = Code::ok;
    std::int64_t at = 0;
    std::int64_t got = 0;
    std::int64_t limit = 0;

    bool ok() const { return code == Code::ok; }
    bool concerns_tables() const { return code >= Code::table_count && code <= Code::pmf_zero; }
    bool concerns_layers() const { return code >= Code::layer_size && code <= Code::layer_weight; }
};

std::string describe(const Status& status);

// Called about every `poll_interval` symbols of long work; false stops it with Code::interrupted.
using Poll = bool (*)();
inline constexpr std::size_t poll_interval = std::size_t{1} << 20;

}  // namespace latens
