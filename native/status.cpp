#include "status.hpp"

#include "tables.hpp"

namespace latens {

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
    }
    return "unknown error";
}

}  // namespace latens
