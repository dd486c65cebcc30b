#include <algorithm>
#include <utility>

#include "coder.hpp"
#include "rans.hpp"
#include "skip.hpp"

namespace latens {
namespace {

constexpr std::size_t block = 1024;  // symbols whose indexes are checked, then decoded, at a time

// Calls `function` with 0, ..., n - 1 as compile-time constants.
template <unsigned n, class Function>
LATENS_INLINE void unroll(const Function& function) {
    [&]<unsigned... i>(std::integer_sequence<unsigned, i...>) LATENS_LAMBDA_INLINE {
        (function(std::integral_constant<unsigned, i>{}), ...);
    }(std::make_integer_sequence<unsigned, n>{});
}

template <class Layout>
struct Reader {
    using Word = typename Layout::Word;

    // Takes a word if the state has room for one; false if there is none.
    static bool refill(std::uint64_t& x, const std::uint8_t*& at, const std::uint8_t* end) {
        if (x >= Layout::lower) return true;
        if (static_cast<std::size_t>(end - at) < sizeof(Word)) return false;
        x = x << Layout::word_bits | load_word<Word>(at);
        at += sizeof(Word);
        return true;
    }

    // The same where a word is known to be there, without a branch: half of the time it would be
    // mispredicted. It is written with a mask, since compilers turn a conditional expression back into a
    // branch. x is below 2^63.
    static LATENS_INLINE void refill_unchecked(std::uint64_t& x, const std::uint8_t*& at) {
        const std::uint64_t refilled = x << Layout::word_bits | load_word<Word>(at);
        const std::uint64_t low = negative_mask(x - Layout::lower);
        x ^= (x ^ refilled) & low;
        at += low & sizeof(Word);
    }

    // The value behind an escape symbol. Only the encoder's own form is accepted: no leading zero nibbles.
    static Code decode_escape(std::uint64_t& x, const std::uint8_t*& at, const std::uint8_t* end,
                              std::int64_t escape, std::int64_t& value) {
        const auto nibble = [&](std::uint64_t& result) {
            result = x & 15;
            x >>= nibble_bits;
            return refill(x, at, end);
        };
        std::uint64_t n = 0;
        if (!nibble(n)) return Code::stream_end;
        if (n > Layout::escape_nibbles) return Code::stream_escape;
        std::uint64_t folded = 0;
        for (unsigned i = 0; i < n; ++i) {
            std::uint64_t part = 0;
            if (!nibble(part)) return Code::stream_end;
            folded |= part << (nibble_bits * i);
        }
        if (nibbles(folded) != n) return Code::stream_escape;
        value = unfold(folded, escape);
        return Code::ok;
    }

    // One symbol, with every read checked.
    template <class Out>
    static Code decode(std::uint64_t& state, const std::uint8_t*& at, const std::uint8_t* end,
                       const DecoderTable& table, Out& out) {
        const auto slot = static_cast<std::uint32_t>(state & (total - 1));
        const std::uint32_t symbol = find_symbol(table.bounds, table.lookup[slot >> table.shift], slot);
        std::uint64_t x = take(state, table.symbols[symbol]);
        const std::uint8_t* position = at;
        if (!refill(x, position, end)) return Code::stream_end;
        std::int64_t value = symbol;
        if (symbol == table.escape) {
            const Code code = decode_escape(x, position, end, table.escape, value);
            if (code != Code::ok) return code;
        }
        value += table.offset;
        if (value < std::numeric_limits<Out>::min() || value > std::numeric_limits<Out>::max())
            return Code::stream_escape;
        out = static_cast<Out>(value);
        state = x;
        at = position;
        return Code::ok;
    }

    // One symbol from each of `n` states, where `n` words are known to be there. False, and nothing changed,
    // if one of them is an escape. The work is laid out in stages across the states: a processor looks only
    // some hundred instructions ahead, so the independent ones must stand close together.
    template <unsigned n, class Out>
    static LATENS_INLINE bool decode_together(std::uint64_t* states, const std::uint8_t*& at,
                                              const DecoderTable* tables, const std::uint16_t* ids,
                                              Out* out) {
        const DecoderTable* table[n];
        std::uint32_t slot[n];
        std::uint32_t symbol[n];
        std::uint64_t x[n];
        unroll<n>([&](auto i) LATENS_LAMBDA_INLINE {
            table[i] = tables + ids[i];
            slot[i] = static_cast<std::uint32_t>(states[i] & (total - 1));
            symbol[i] = table[i]->lookup[slot[i] >> table[i]->shift];
        });
        unroll<n>([&](auto i) LATENS_LAMBDA_INLINE {
            symbol[i] = find_symbol(table[i]->bounds, symbol[i], slot[i]);
        });
        bool escaped = false;
        unroll<n>([&](auto i) LATENS_LAMBDA_INLINE {
            escaped |= symbol[i] == table[i]->escape;
            x[i] = take(states[i], table[i]->symbols[symbol[i]]);
        });
        if (LATENS_UNLIKELY(escaped)) return false;
        unroll<n>([&](auto i) LATENS_LAMBDA_INLINE {
            refill_unchecked(x[i], at);
            states[i] = x[i];
            out[i] = static_cast<Out>(static_cast<std::int32_t>(symbol[i]) + table[i]->offset);
        });
        return true;
    }
};

using Stream = Reader<StreamLayout>;
using Lanes = Reader<LaneLayout>;

Status index_error(std::size_t at, std::int64_t index, const Tables& tables) {
    return {Code::index_range, static_cast<std::int64_t>(at), index,
            static_cast<std::int64_t>(tables.count())};
}

// Copies indexes to `ids`; the position of the first one out of range, or `n`.
template <class Index>
std::size_t check_indexes(const Index* indexes, std::size_t n, std::size_t count, std::uint16_t* ids) {
    for (std::size_t i = 0; i < n; ++i) {
        const auto index = static_cast<std::size_t>(indexes[i]);
        if (index >= count) return i;
        ids[i] = static_cast<std::uint16_t>(index);
    }
    return n;
}

}  // namespace

Status StreamDecoder::open(const std::uint8_t* data, std::size_t size) {
    if (size < StreamLayout::state_bytes || size % sizeof(StreamLayout::Word) != 0)
        return status_ = {Code::stream_size, 0, static_cast<std::int64_t>(size), StreamLayout::state_bytes};
    state_ = load_word<std::uint64_t>(data);
    at_ = data + StreamLayout::state_bytes;
    end_ = data + size;
    if (state_ < StreamLayout::lower || state_ >= StreamLayout::upper) return status_ = {Code::stream_state};
    return {};
}

Code StreamDecoder::decode_block(const std::uint16_t* ids, std::size_t n, const Tables& tables,
                                 std::int32_t* out) {
    const DecoderTable* table = tables.decoder();
    const std::uint8_t* at = at_;
    const std::uint8_t* const end = end_;
    std::uint64_t x = state_;
    Code code = Code::ok;
    std::size_t i = 0;
    while (i < n && code == Code::ok) {
        if (static_cast<std::size_t>(end - at) < sizeof(StreamLayout::Word) ||
            !Stream::decode_together<1>(&x, at, table, ids + i, out + i))
            code = Stream::decode(x, at, end, table[ids[i]], out[i]);
        ++i;
    }
    at_ = at;
    state_ = x;
    count_ += static_cast<std::int64_t>(i);
    return code;
}

Status StreamDecoder::decode(const Ints& indexes, const Tables& tables, std::int32_t* out, Poll poll) {
    if (!status_.ok()) return status_;
    return status_ = visit(indexes, [&](const auto* index) -> Status {
               std::uint16_t ids[block];
               for (std::size_t i = 0; i < indexes.size; i += block) {
                   if (i != 0 && i % poll_interval == 0 && !poll()) return {Code::interrupted};
                   const std::size_t n = std::min(block, indexes.size - i);
                   const std::size_t valid = check_indexes(index + i, n, tables.count(), ids);
                   if (valid != n) return index_error(i + valid, index[i + valid], tables);
                   const Code code = decode_block(ids, n, tables, out + i);
                   if (code != Code::ok) return {code, count_ - 1};
               }
               return {};
           });
}

Status StreamDecoder::finish() const {
    if (!status_.ok()) return status_;
    if (at_ != end_) return {Code::final_position, 0, end_ - at_};
    if (state_ != StreamLayout::lower) return {Code::final_state};
    return {};
}

Status LaneDecoder::open(const std::uint8_t* data, std::size_t size, unsigned lanes) {
    if (lanes == 0 || lanes > max_lanes || !std::has_single_bit(lanes))
        return status_ = {Code::lane_count, 0, lanes};
    const std::size_t states = lanes * LaneLayout::state_bytes;
    if (size < states || (size - states) % sizeof(LaneLayout::Word) != 0)
        return status_ = {Code::stream_size, 0, static_cast<std::int64_t>(size),
                          static_cast<std::int64_t>(states)};
    lanes_ = lanes;
    at_ = data;
    end_ = data + size;
    for (unsigned lane = 0; lane < lanes; ++lane) {
        for (unsigned byte = 0; byte < LaneLayout::state_bytes; ++byte)
            states_[lane] |= std::uint64_t{*at_++} << (8 * byte);
        if (states_[lane] < LaneLayout::lower) return status_ = {Code::stream_state, lane};
    }
    return {};
}

template <unsigned lanes>
Code LaneDecoder::decode_block(const std::uint16_t* ids, std::size_t n, const Tables& tables,
                               std::int16_t* out) {
    const DecoderTable* table = tables.decoder();
    const std::uint8_t* at = at_;
    const std::uint8_t* const end = end_;
    std::uint64_t x[lanes];
    std::copy(states_, states_ + lanes, x);
    Code code = Code::ok;
    std::size_t i = 0;
    std::size_t lane = lane_;

    while (i < n && code == Code::ok) {
        if (lane == 0 && n - i >= lanes &&
            static_cast<std::size_t>(end - at) >= lanes * sizeof(LaneLayout::Word) &&
            Lanes::decode_together<lanes>(x, at, table, ids + i, out + i)) {
            i += lanes;
        } else {
            code = Lanes::decode(x[lane], at, end, table[ids[i]], out[i]);
            ++i;
            lane = (lane + 1) % lanes;
        }
    }
    at_ = at;
    std::copy(x, x + lanes, states_);
    lane_ = static_cast<unsigned>(lane);
    count_ += static_cast<std::int64_t>(i);
    return code;
}

Code LaneDecoder::decode_block(const std::uint16_t* ids, std::size_t n, const Tables& tables,
                               std::int16_t* out) {
    switch (lanes_) {
        case 1:
            return decode_block<1>(ids, n, tables, out);
        case 2:
            return decode_block<2>(ids, n, tables, out);
        case 4:
            return decode_block<4>(ids, n, tables, out);
        default:
            return decode_block<8>(ids, n, tables, out);
    }
}

template <class Index>
Status LaneDecoder::decode_array(const Index* indexes, std::size_t size, const Tables& tables,
                                 std::int16_t* out, Poll poll, std::uint32_t skip_below) {
    std::uint16_t ids[block];
    if (skip_below == 0) {
        for (std::size_t i = 0; i < size; i += block) {
            if (i != 0 && i % poll_interval == 0 && !poll()) return {Code::interrupted};
            const std::size_t n = std::min(block, size - i);
            const std::size_t valid = check_indexes(indexes + i, n, tables.count(), ids);
            if (valid != n) return index_error(i + valid, indexes[i + valid], tables);
            const Code code = decode_block(ids, n, tables, out + i);
            if (code != Code::ok) return {code, count_ - 1};
        }
        return {};
    }

    // Gather coded positions until a block is full, decode it, put its symbols where they belong.
    std::uint32_t positions[block];  // relative to `base`, which stays within poll_interval
    std::int16_t symbols[block];
    std::size_t gathered = 0;
    std::size_t base = 0;
    const auto flush = [&] {
        const Code code = decode_block(ids, gathered, tables, symbols);
        for (std::size_t k = 0; k < gathered; ++k) out[base + positions[k]] = symbols[k];
        gathered = 0;
        return code;
    };
    std::fill(out, out + size, std::int16_t{0});
    for (; base < size; base += poll_interval) {
        if (base != 0 && !poll()) return {Code::interrupted};
        const std::size_t end = std::min(size, base + poll_interval);
        for (std::size_t i = base; i < end; i += 64) {
            for (std::uint64_t coded = at_least(indexes + i, std::min<std::size_t>(64, end - i), skip_below);
                 coded != 0; coded &= coded - 1) {
                const std::size_t at = i + static_cast<std::size_t>(std::countr_zero(coded));
                const auto index = static_cast<std::size_t>(indexes[at]);
                if (LATENS_UNLIKELY(index >= tables.count())) return index_error(at, indexes[at], tables);
                ids[gathered] = static_cast<std::uint16_t>(index);
                positions[gathered++] = static_cast<std::uint32_t>(at - base);
            }
            if (gathered > block - 64 || i + 64 >= end) {
                const Code code = flush();
                if (code != Code::ok) return {code, count_ - 1};
            }
        }
    }
    return {};
}

Status LaneDecoder::decode(const Ints& indexes, const Tables& tables, std::int16_t* out, Poll poll,
                           std::uint32_t skip_below) {
    if (!status_.ok()) return status_;
    if (tables.first_beyond_int16() < tables.count())
        return {Code::table_int16, static_cast<std::int64_t>(tables.first_beyond_int16())};
    return status_ = visit(indexes, [&](const auto* index) {
               return decode_array(index, indexes.size, tables, out, poll, skip_below);
           });
}

Status LaneDecoder::finish() const {
    if (!status_.ok()) return status_;
    if (at_ != end_) return {Code::final_position, 0, end_ - at_};
    for (unsigned lane = 0; lane < lanes_; ++lane)
        if (states_[lane] != LaneLayout::lower) return {Code::final_state, lane};
    return {};
}

}  // namespace latens
