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
    // Networks: `at` is a stage, its kind and part, see `Network::build`
    network_stages,
    network_limits,
    stage_place,
    stage_size,
    stage_inputs,
    stage_outputs,
    stage_kernel,
    stage_shift,
    stage_limits,
    stage_gate,
    stage_ratio,
    stage_multiple,
    stage_slot,
    stage_bound,
    // Running them
    isa_unknown,
    isa_missing,
    run_size,
    run_multiple,
    run_scales,
    run_scale_size,
    run_scale_value,
    run_depth,
    run_finished,
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
    // Lossless tiles
    tile_side,
    tile_channels,
    tile_near,
    tile_memory,
    tile_kind,
    tile_damaged,
    // Fields of motion
    motion_damaged,
};

// `at` is the table, symbol or lane concerned; `got` and `limit` are what came and what was allowed.
struct Status {
    Code code = Code::ok;
    std::int64_t at = 0;
    std::int64_t got = 0;
    std::int64_t limit = 0;

    bool ok() const { return code == Code::ok; }
    bool concerns_tables() const { return code >= Code::table_count && code <= Code::pmf_zero; }
    bool concerns_layers() const { return code >= Code::layer_size && code <= Code::isa_missing; }
    bool concerns_shapes() const { return code >= Code::run_size && code <= Code::run_finished; }
};

std::string describe(const Status& status);

// Called about every `poll_interval` symbols of long work; false stops it with Code::interrupted.
using Poll = bool (*)();
inline constexpr std::size_t poll_interval = std::size_t{1} << 20;

}  // namespace latens
