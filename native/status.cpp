#include "status.hpp"

#include "tables.hpp"

namespace latens {
namespace {

// "stage 3 (block, ffn_in)"
std::string stage_of(const Status& s) {
    static constexpr const char* kinds[] = {"product",   "depthwise", "block",  "shuffle",
                                            "unshuffle", "scale",     "pixels", "input"};
    static constexpr const char* parts[] = {"", "pw_in", "dw", "pw_out", "ffn_in", "ffn_out"};
    const auto kind = static_cast<std::size_t>(s.at / 16 % 16), part = static_cast<std::size_t>(s.at % 16);
    return "stage " + std::to_string(s.at / 256) + " (" + kinds[kind] + (part > 0 ? ", " : "") + parts[part] +
           ")";
}

}  // namespace

std::string describe(const Status& s) {
    const std::string at = std::to_string(s.at);
    const std::string got = std::to_string(s.got);
    const std::string limit = std::to_string(s.limit);
    switch (s.code) {
        case Code::ok:
            return "no error";
        case Code::interrupted:
            return "an earlier call was interrupted: this coder cannot go on";
        case Code::table_count:
            return "expected 1 to " + limit + " tables, got " + got;
        case Code::table_memory:
            return "the tables hold " + got + " symbols in total, the limit is " + limit;
        case Code::table_size:
            return "table " + at + ": its size must be 3 to " + limit + " entries, got " + got;
        case Code::table_offset:
            return "table " + at + ": its offset must lie within +-" + limit + ", got " + got;
        case Code::table_start:
            return "table " + at + ": its first entry must be 0, got " + got;
        case Code::table_order:
            return "table " + at + ": entries must increase strictly, but entry " + limit + " (" + got +
                   ") is not above the one before";
        case Code::table_end:
            return "table " + at + ": its last entry must be " + limit + ", got " + got;
        case Code::table_int16:
            return "table " + at + ": its symbols must fit into 16 bits to be coded in lanes";
        case Code::pmf_precision:
            return "precision must be 1 to " + limit + " bits, got " + got;
        case Code::pmf_length:
            return "distribution " + at + ": expected 1 to " + limit + " probabilities, got " + got;
        case Code::pmf_value:
            return "distribution " + at + ": probability " + got + " is negative, not finite or above " +
                   limit;
        case Code::pmf_zero:
            return "distribution " + at + ": all probabilities round to zero";
        case Code::layer_size:
            return "layer " + at + ": expected 1 to " + limit + " inputs and outputs, got " + got;
        case Code::layer_inputs:
            return "layer " + at + ": it has " + got + " inputs, but the one before has " + limit +
                   " outputs";
        case Code::layer_shift:
            return "layer " + at + ": a shift must be 0 to " + limit + ", got " + got;
        case Code::layer_activation:
            return "layer " + at + ": activation " + got + " is unknown, the last is " + limit;
        case Code::layer_top:
            return "layer " + at + ": its largest activation must be 0 to " + limit + ", got " + got;
        case Code::layer_side:
            return "layer " + at + ": kernels must be odd and at most " + limit + " wide, got " + got;
        case Code::layer_up:
            return "layer " + at + ": its kernel can enlarge by 1 to " + limit + ", not by " + got;
        case Code::layer_shuffle:
            return "layer " + at + ": shuffling by " + got + " does not fit its outputs; the most is " +
                   limit;
        case Code::layer_scaling:
            return "layer " + at + ": up to it, the network enlarges by " + got + ", the most is " + limit;
        case Code::layer_weight:
            return "layer " + at + ": weights must be at least " + limit + ", got " + got;
        case Code::network_stages:
            return "a network has 1 to " + limit + " stages, got " + got;
        case Code::network_limits:
            return "the limits of what comes in must be ordered and within 16 bits, got " + got + " and " +
                   limit;
        case Code::stage_place:
            return stage_of(s) + ": input can only be the first stage, and pixels the last";
        case Code::stage_size:
            return stage_of(s) + ": expected 1 to " + limit + " channels, got " + got;
        case Code::stage_inputs:
            return stage_of(s) + ": it takes " + got + " channels, but " + limit + " come in";
        case Code::stage_outputs:
            return stage_of(s) + ": it must give " + limit + " channels, not " + got;
        case Code::stage_kernel:
            return stage_of(s) + ": a kernel must be " + (s.limit == 1 ? "1x1" : "1x1 or 3x3") + ", not " +
                   got + "x" + got;
        case Code::stage_shift:
            return stage_of(s) + ": a shift must be 1 to " + limit + ", got " + got;
        case Code::stage_limits:
            return stage_of(s) + ": its limits must be ordered and within 16 bits, got " + got + " and " +
                   limit;
        case Code::stage_gate:
            return stage_of(s) + ": a gate must be 0 for none, or 2 to " + limit + ", got " + got;
        case Code::stage_ratio:
            return stage_of(s) + ": r must be 1 to " + limit + ", got " + got;
        case Code::stage_multiple:
            return stage_of(s) + ": " + got + " channels come in, no multiple of " + limit;
        case Code::stage_slot:
            return stage_of(s) + ": a slot must be 0 to " + limit + ", got " + got;
        case Code::stage_bound:
            return stage_of(s) + ": sums of output " + limit + " can reach " + got + ", beyond 32 bits";
        case Code::isa_unknown:
            return "LATENS_ISA names no instruction set: it must be avx512, avx2, sse4, neon or portable";
        case Code::isa_missing:
            return "this processor, or this build, lacks the instruction set that LATENS_ISA names";
        case Code::run_size:
            return "height and width must be 1 to " + limit + ", got " + got;
        case Code::run_multiple:
            return "height and width must be multiples of what the network divides them by: " + got +
                   " does not divide by " + limit;
        case Code::run_scales:
            return "expected the factors of " + limit + " scales, got " + got;
        case Code::run_scale_size:
            return "scale " + at + ": expected " + limit + " factors, got " + got;
        case Code::run_scale_value:
            return "scale " + at + ": m must be 0 to 32767 and s -15 to 46, got " + got + " and " + limit;
        case Code::run_depth:
            return "samples must have 1 to 16 bits and 1 or 3 channels, got " + got + " and " + limit;
        case Code::run_finished:
            return "this picture is finished: no more rows can follow";
        case Code::index_range:
            return "position " + at + ": index " + got + " names no table (there are " + limit + ")";
        case Code::symbol_range:
            return "position " + at + ": symbol " + got + " is too far from its table to be coded";
        case Code::symbol_skipped:
            return "position " + at + ": symbol " + got + " at a skipped position, which must hold 0";
        case Code::lane_count:
            return "the number of lanes must be 1, 2, 4 or 8, got " + got;
        case Code::stream_size:
            return "a stream of " + got + " bytes cannot exist: at least " + limit + ", then whole words";
        case Code::stream_state:
            return "the stream begins with an impossible state (lane " + at + "): it is damaged";
        case Code::stream_end:
            return "the stream ends near symbol " + at + ": it is cut, damaged, or made with other tables";
        case Code::stream_escape:
            return "an impossible escape near symbol " + at +
                   ": the stream is damaged or made with other tables";
        case Code::final_state:
            return "decoding did not end in the state where encoding began (lane " + at +
                   "): the stream is damaged, or made with other tables, indexes or symbol count";
        case Code::final_position:
            return got +
                   " bytes of the stream are left over: it is damaged, or made with other tables, "
                   "indexes or symbol count";
        case Code::tile_side:
            return "tiles have sides of 1 to " + limit + " pixels, got " + got;
        case Code::tile_channels:
            return "pixels have 1 to " + limit + " channels, got " + got;
        case Code::tile_near:
            return "the largest error must be 0 to " + limit + ", got " + got;
        case Code::tile_memory:
            return "there is not enough memory for a tile";
        case Code::tile_kind:
            return "a tile of kind " + got + " is newer than this release of Latens; update it";
        case Code::tile_damaged:
            return "the stream of a tile is damaged";
        case Code::motion_damaged:
            return "the vectors of a frame are damaged";
    }
    return "unknown error";
}

}  // namespace latens
