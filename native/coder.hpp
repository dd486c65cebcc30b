// The two streams: the field's single-state one, and interleaved lanes (docs/coder.md has both, bit by bit).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "status.hpp"
#include "tables.hpp"

namespace latens {

// A value outside of its table is escaped in at most so many nibbles.
inline constexpr unsigned stream_escape_nibbles = 8;
inline constexpr unsigned lane_escape_nibbles = 4;
inline constexpr unsigned max_lanes = 8;

// A contiguous array of integers of one of the types that cross the boundary.
enum class Kind : std::uint8_t { uint8, int16, int32 };
struct Ints {
    const void* data;
    Kind kind;
    std::size_t size;
};

template <class Function>
Status visit(const Ints& ints, const Function& function) {
    switch (ints.kind) {
        case Kind::uint8:
            return function(static_cast<const std::uint8_t*>(ints.data));
        case Kind::int16:
            return function(static_cast<const std::int16_t*>(ints.data));
        case Kind::int32:
            break;
    }
    return function(static_cast<const std::int32_t*>(ints.data));
}

// An encoded stream: the last `size` bytes of a larger block, since it is written from its end.
struct Bytes {
    std::unique_ptr<std::uint8_t[]> block;
    const std::uint8_t* data = nullptr;
    std::size_t size = 0;
};

// Symbols wait here until all are known, because rANS codes the last one first.
class Backlog {
  public:
    // `escape_nibbles` limits how far from its table a symbol may lie.
    explicit Backlog(unsigned escape_nibbles) : escape_nibbles_(escape_nibbles) {}

    // Appends symbols[i] coded with table indexes[i]. Positions whose index is below `skip_below` are left
    // out and must hold 0. On failure nothing is appended.
    Status push(const Ints& symbols, const Ints& indexes, std::shared_ptr<const Tables> tables,
                std::uint32_t skip_below, Poll poll);

    std::size_t size() const { return items_.size(); }

    Status encode_stream(Bytes& result, Poll poll) const;
    Status encode_lanes(unsigned lanes, Bytes& result, Poll poll) const;

  private:
    struct Segment {
        std::shared_ptr<const Tables> tables;
        std::size_t begin;  // its first item
    };

    template <class Symbol, class Index>
    Status append(const Symbol* symbols, const Index* indexes, std::size_t begin, std::size_t end,
                  const Tables& tables, std::uint32_t skip_below);
    template <unsigned lanes>
    Status encode_lanes(Bytes& result, Poll poll) const;

    unsigned escape_nibbles_;
    std::vector<std::uint32_t> items_;    // position in Tables::symbols(); the top bit marks an escape
    std::vector<std::uint32_t> escapes_;  // the folded values of the escapes, in order
    std::vector<Segment> segments_;
};

// Both decoders read `data` in place: it must outlive them. After an error every call returns that error.
class StreamDecoder {
  public:
    Status open(const std::uint8_t* data, std::size_t size);
    Status decode(const Ints& indexes, const Tables& tables, std::int32_t* out, Poll poll);
    Status finish() const;

  private:
    Code decode_block(const std::uint16_t* ids, std::size_t n, const Tables& tables, std::int32_t* out);

    Status status_;
    const std::uint8_t* at_ = nullptr;
    const std::uint8_t* end_ = nullptr;
    std::uint64_t state_ = 0;
    std::int64_t count_ = 0;  // of symbols decoded so far
};

class LaneDecoder {
  public:
    Status open(const std::uint8_t* data, std::size_t size, unsigned lanes);
    // `out` has one entry per index; positions whose index is below `skip_below` become 0.
    Status decode(const Ints& indexes, const Tables& tables, std::int16_t* out, Poll poll,
                  std::uint32_t skip_below);
    Status finish() const;

  private:
    template <unsigned lanes>
    Code decode_block(const std::uint16_t* ids, std::size_t n, const Tables& tables, std::int16_t* out);
    Code decode_block(const std::uint16_t* ids, std::size_t n, const Tables& tables, std::int16_t* out);
    template <class Index>
    Status decode_array(const Index* indexes, std::size_t size, const Tables& tables, std::int16_t* out,
                        Poll poll, std::uint32_t skip_below);

    Status status_;
    const std::uint8_t* at_ = nullptr;
    const std::uint8_t* end_ = nullptr;
    std::uint64_t states_[max_lanes] = {};
    unsigned lanes_ = 0;
    unsigned lane_ = 0;  // the next symbol's
    std::int64_t count_ = 0;
};

}  // namespace latens
