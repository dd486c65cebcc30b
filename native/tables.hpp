// CDF tables: checked once, then held in the forms that encoder and decoder want.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "status.hpp"

namespace latens {

inline constexpr unsigned precision = 16;
inline constexpr std::uint32_t total = 1u << precision;
inline constexpr std::size_t max_tables = 65'536;
inline constexpr std::size_t max_table_size = total + 1;
inline constexpr std::size_t max_symbols = std::size_t{1} << 21;  // of all tables together: 80 MB at most
inline constexpr std::int32_t max_offset = 1 << 24;

// One symbol as the encoder sees it: x / freq is a multiplication and a shift, exact for x < 2^63.
struct EncoderSymbol {
    std::uint64_t reciprocal;
    std::uint32_t bias;  // start, plus 65,535 where freq is 1 (its reciprocal gives x - 1 instead of x)
    std::uint16_t freq;  // 1..65,535: a table has at least two symbols
    std::uint8_t shift;
};

struct EncoderTable {
    std::uint32_t first;   // of its symbols in `Tables::symbols()`
    std::uint32_t escape;  // number of the escape symbol, the table's last
    std::int32_t offset;   // what symbol number 0 stands for
};

// One symbol as the decoder sees it: its first slot and their number.
struct DecoderSymbol {
    std::uint16_t start;
    std::uint16_t freq;
};

// The decoder looks a slot's bucket up, then searches from there. `bounds[s]` is the last slot of symbol s;
// eight entries of 0xFFFF follow: a search may read eight at once, and always ends. The pointers are into the
// vectors of the `Tables` that hold this.
struct DecoderTable {
    const std::uint16_t* bounds;
    const std::uint16_t* lookup;  // entry `slot >> shift` is the symbol to start from
    const DecoderSymbol* symbols;
    std::int32_t offset;
    std::uint16_t escape;
    std::uint8_t shift;
};

class Tables {
  public:
    // `cdfs` has `count` rows of `stride` entries, of which the first `sizes[i]` are table i.
    static Status build(const std::int32_t* cdfs, const std::int32_t* sizes, const std::int32_t* offsets,
                        std::size_t count, std::size_t stride, std::shared_ptr<const Tables>& result);

    std::size_t count() const { return decoder_.size(); }
    // The first table with a symbol, other than the escape, that is no int16; count() if there is none.
    std::size_t first_beyond_int16() const { return first_beyond_int16_; }
    const EncoderTable* encoder() const { return encoder_.data(); }
    const EncoderSymbol* symbols() const { return symbols_.data(); }
    const DecoderTable* decoder() const { return decoder_.data(); }

    Tables() = default;
    Tables(const Tables&) = delete;
    Tables& operator=(const Tables&) = delete;

  private:
    void add(const std::int32_t* cdf, std::size_t size, std::int32_t offset);
    void link();

    std::size_t first_beyond_int16_ = 0;
    std::vector<EncoderTable> encoder_;
    std::vector<EncoderSymbol> symbols_;
    std::vector<DecoderTable> decoder_;
    std::vector<DecoderSymbol> decoder_symbols_;
    std::vector<std::uint16_t> bounds_;
    std::vector<std::uint16_t> lookup_;
};

}  // namespace latens
