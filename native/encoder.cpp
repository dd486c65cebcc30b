#include <algorithm>
#include <utility>

#include "coder.hpp"
#include "rans.hpp"
#include "skip.hpp"

namespace latens {
namespace {

constexpr std::uint32_t escape_bit = 1u << 31;

// Words are laid down from the end of a block towards its beginning; `at` is the last one written.
template <class Layout>
struct Writer {
    using Word = typename Layout::Word;

    // Sheds a word if coding an event of probability `freq / 2^bits` would overflow the state.
    static LATENS_INLINE std::uint64_t shed(std::uint64_t x, std::uint64_t freq, unsigned bits,
                                            std::uint8_t*& at) {
        // Stores first and keeps the word or not, without a branch: half of the time it would be
        // mispredicted.
        const std::uint64_t fits = negative_mask(x - (freq * (Layout::upper >> bits)));
        store_word(at - sizeof(Word), static_cast<Word>(x));
        at -= ~fits & sizeof(Word);
        return x >> (~fits & Layout::word_bits);
    }

    static LATENS_INLINE std::uint64_t encode(std::uint64_t x, const EncoderSymbol& s, std::uint8_t*& at) {
        return put(shed(x, s.freq, precision, at), s);
    }

    static std::uint64_t encode_nibble(std::uint64_t x, std::uint32_t nibble, std::uint8_t*& at) {
        return shed(x, 1, nibble_bits, at) << nibble_bits | nibble;
    }

    static std::uint64_t encode_escape(std::uint64_t x, std::uint32_t folded, std::uint8_t*& at) {
        const unsigned n = nibbles(folded);
        for (unsigned i = n; i-- > 0;) x = encode_nibble(x, folded >> (nibble_bits * i) & 15, at);
        return encode_nibble(x, n, at);
    }
};

using Stream = Writer<StreamLayout>;
using Lanes = Writer<LaneLayout>;

// Room for the states, every word that could be shed, and one that is stored before it is known to be needed.
template <class Layout>
std::uint8_t* allocate(Bytes& result, std::size_t symbols, std::size_t escapes, unsigned states) {
    constexpr std::size_t escape_bits = (1 + Layout::escape_nibbles) * nibble_bits;
    const std::size_t words = symbols + escapes * (escape_bits / Layout::word_bits + 1) + 1;
    const std::size_t size = words * sizeof(typename Layout::Word) + states * Layout::state_bytes;
    result.block.reset(new std::uint8_t[size]);
    return result.block.get() + size;
}

}  // namespace

template <class Symbol, class Index>
Status Backlog::append(const Symbol* symbols, const Index* indexes, std::size_t begin, std::size_t end,
                       const Tables& tables, std::uint32_t skip_below) {
    const EncoderTable* encoder = tables.encoder();
    const std::size_t count = tables.count();
    const std::size_t before = items_.size();
    items_.resize(before + (end - begin));
    std::uint32_t* item = items_.data() + before;
    Status status;

    const auto one = [&](std::size_t i) LATENS_LAMBDA_INLINE {
        const auto index = static_cast<std::size_t>(indexes[i]);
        if (LATENS_UNLIKELY(index >= count)) {
            status = {Code::index_range, static_cast<std::int64_t>(i), static_cast<std::int64_t>(indexes[i]),
                      static_cast<std::int64_t>(count)};
            return false;
        }
        const EncoderTable& table = encoder[index];
        const std::int64_t value = std::int64_t{symbols[i]} - table.offset;
        if (LATENS_UNLIKELY(static_cast<std::uint64_t>(value) >= table.escape)) {
            const std::uint64_t folded = fold(value, table.escape);
            if (nibbles(folded) > escape_nibbles_) {
                status = {Code::symbol_range, static_cast<std::int64_t>(i), symbols[i]};
                return false;
            }
            escapes_.push_back(static_cast<std::uint32_t>(folded));
            *item++ = (table.first + table.escape) | escape_bit;
            return true;
        }
        *item++ = table.first + static_cast<std::uint32_t>(value);
        return true;
    };

    if (skip_below == 0) {
        for (std::size_t i = begin; i < end; ++i)
            if (!one(i)) return status;
    } else {
        for (std::size_t i = begin; i < end; i += 64) {
            const std::size_t n = std::min<std::size_t>(64, end - i);
            std::uint64_t coded = at_least(indexes + i, n, skip_below);
            const std::uint64_t lost = at_least(symbols + i, n, 1) & ~coded;
            if (LATENS_UNLIKELY(lost != 0)) {
                const std::size_t where = i + static_cast<std::size_t>(std::countr_zero(lost));
                return {Code::symbol_skipped, static_cast<std::int64_t>(where), symbols[where]};
            }
            for (; coded != 0; coded &= coded - 1)
                if (!one(i + static_cast<std::size_t>(std::countr_zero(coded)))) return status;
        }
    }
    items_.resize(static_cast<std::size_t>(item - items_.data()));
    return {};
}

Status Backlog::push(const Ints& symbols, const Ints& indexes, std::shared_ptr<const Tables> tables,
                     std::uint32_t skip_below, Poll poll) {
    const std::size_t items = items_.size();
    const std::size_t escapes = escapes_.size();
    const auto undo = [&] {
        items_.resize(items);
        escapes_.resize(escapes);
    };
    Status status;
    try {
        status = visit(symbols, [&](const auto* symbol) {
            return visit(indexes, [&](const auto* index) {
                for (std::size_t i = 0; i < symbols.size; i += poll_interval) {
                    if (i != 0 && !poll()) return Status{Code::interrupted};
                    const std::size_t end = std::min(symbols.size, i + poll_interval);
                    const Status part = append(symbol, index, i, end, *tables, skip_below);
                    if (!part.ok()) return part;
                }
                return Status{};
            });
        });
        if (status.ok() && items_.size() > items) segments_.push_back({std::move(tables), items});
    } catch (...) {  // out of memory
        undo();
        throw;
    }
    if (!status.ok()) undo();
    return status;
}

Status Backlog::encode_stream(Bytes& result, Poll poll) const {
    std::uint8_t* at = allocate<StreamLayout>(result, items_.size(), escapes_.size(), 1);
    const std::uint8_t* const end = at;
    const std::uint32_t* escape = escapes_.data() + escapes_.size();
    std::uint64_t x = StreamLayout::lower;
    std::size_t i = items_.size();
    for (auto segment = segments_.rbegin(); segment != segments_.rend(); ++segment) {
        const EncoderSymbol* symbols = segment->tables->symbols();
        while (i > segment->begin) {
            const std::size_t stop = i - segment->begin > poll_interval ? i - poll_interval : segment->begin;
            while (i > stop) {
                const std::uint32_t item = items_[--i];
                if (LATENS_UNLIKELY((item & escape_bit) != 0)) x = Stream::encode_escape(x, *--escape, at);
                x = Stream::encode(x, symbols[item & ~escape_bit], at);
            }
            if (i > 0 && items_.size() > poll_interval && !poll()) return {Code::interrupted};
        }
    }
    at -= StreamLayout::state_bytes;
    store_word(at, x);
    result.data = at;
    result.size = static_cast<std::size_t>(end - at);
    return {};
}

template <unsigned lanes>
Status Backlog::encode_lanes(Bytes& result, Poll poll) const {
    std::uint8_t* at = allocate<LaneLayout>(result, items_.size(), escapes_.size(), lanes);
    const std::uint8_t* const end = at;
    const std::uint32_t* escape = escapes_.data() + escapes_.size();
    std::uint64_t x[lanes];
    std::fill(x, x + lanes, LaneLayout::lower);
    std::size_t i = items_.size();
    for (auto segment = segments_.rbegin(); segment != segments_.rend(); ++segment) {
        const EncoderSymbol* symbols = segment->tables->symbols();
        const auto one = [&](std::uint32_t item, std::uint64_t& state) LATENS_LAMBDA_INLINE {
            if (LATENS_UNLIKELY((item & escape_bit) != 0)) state = Lanes::encode_escape(state, *--escape, at);
            state = Lanes::encode(state, symbols[item & ~escape_bit], at);
        };
        while (i > segment->begin) {
            const std::size_t stop = i - segment->begin > poll_interval ? i - poll_interval : segment->begin;
            for (; i > stop && i % lanes != 0; --i) one(items_[i - 1], x[(i - 1) % lanes]);
            for (; i >= stop + lanes; i -= lanes)
                for (unsigned lane = lanes; lane-- > 0;) one(items_[i - lanes + lane], x[lane]);
            for (; i > stop; --i) one(items_[i - 1], x[(i - 1) % lanes]);
            if (i > 0 && items_.size() > poll_interval && !poll()) return {Code::interrupted};
        }
    }
    for (unsigned lane = lanes; lane-- > 0;) {
        at -= LaneLayout::state_bytes;
        for (unsigned byte = 0; byte < LaneLayout::state_bytes; ++byte)
            at[byte] = static_cast<std::uint8_t>(x[lane] >> (8 * byte));
    }
    result.data = at;
    result.size = static_cast<std::size_t>(end - at);
    return {};
}

Status Backlog::encode_lanes(unsigned lanes, Bytes& result, Poll poll) const {
    switch (lanes) {
        case 1:
            return encode_lanes<1>(result, poll);
        case 2:
            return encode_lanes<2>(result, poll);
        case 4:
            return encode_lanes<4>(result, poll);
        case 8:
            return encode_lanes<8>(result, poll);
        default:
            return {Code::lane_count, 0, lanes};
    }
}

}  // namespace latens
