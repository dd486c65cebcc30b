#include "tables.hpp"

#include <algorithm>

#include "rans.hpp"

namespace latens {
namespace {

Status check(const std::int32_t* cdf, std::int32_t size, std::int32_t offset, std::size_t stride,
             std::int64_t table) {
    const auto longest = static_cast<std::int64_t>(std::min(stride, max_table_size));
    if (size < 3 || size > longest) return {Code::table_size, table, size, longest};
    if (offset < -max_offset || offset > max_offset) return {Code::table_offset, table, offset, max_offset};
    if (cdf[0] != 0) return {Code::table_start, table, cdf[0]};
    for (std::int32_t i = 1; i < size; ++i)
        if (cdf[i] <= cdf[i - 1]) return {Code::table_order, table, cdf[i], i};
    if (cdf[size - 1] != static_cast<std::int32_t>(total))
        return {Code::table_end, table, cdf[size - 1], total};
    return {};
}

// Robison / Alverson: with 2^(k-1) < freq <= 2^k, ceil(2^(k+63) / freq) gives the exact quotient of any
// 63-bit number. The 128-bit division is done in two 64-bit steps.
EncoderSymbol encoder_symbol(std::uint32_t start, std::uint32_t freq) {
    if (freq == 1) return {~std::uint64_t{0}, start + total - 1, 1, 0};
    unsigned k = 0;
    while (freq > (1u << k)) ++k;
    const std::uint64_t high = std::uint64_t{1} << (k + 31);
    const std::uint64_t low = ((high % freq) << 32) + freq - 1;
    const std::uint64_t reciprocal = ((high / freq) << 32) + low / freq;
    return {reciprocal, start, static_cast<std::uint16_t>(freq), static_cast<std::uint8_t>(k - 1)};
}

// Writes, for each of the 2^(16-shift) buckets of slots, the symbol that holds its first slot. Returns how
// many of all slots need more than one search step from there.
std::uint32_t fill_lookup(const std::uint16_t* bounds, std::size_t symbols, unsigned shift,
                          std::vector<std::uint16_t>& lookup) {
    const std::uint32_t width = 1u << shift;
    lookup.resize(total >> shift);
    std::uint32_t symbol = 0;
    std::uint32_t far = 0;
    for (std::uint32_t bucket = 0; bucket < lookup.size(); ++bucket) {
        const std::uint32_t first = bucket * width;
        while (bounds[symbol] < first) ++symbol;
        lookup[bucket] = static_cast<std::uint16_t>(symbol);
        if (symbol + search_width < symbols) {
            const std::uint32_t reached = bounds[symbol + search_width - 1];
            const std::uint32_t last = first + width - 1;
            if (last > reached) far += last - reached;
        }
    }
    return far;
}

}  // namespace

Status Tables::build(const std::int32_t* cdfs, const std::int32_t* sizes, const std::int32_t* offsets,
                     std::size_t count, std::size_t stride, std::shared_ptr<const Tables>& result) {
    if (count < 1 || count > max_tables)
        return {Code::table_count, 0, static_cast<std::int64_t>(count),
                static_cast<std::int64_t>(max_tables)};
    std::size_t symbols = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const Status status =
            check(cdfs + i * stride, sizes[i], offsets[i], stride, static_cast<std::int64_t>(i));
        if (!status.ok()) return status;
        symbols += static_cast<std::size_t>(sizes[i]) - 1;
    }
    if (symbols > max_symbols)
        return {Code::table_memory, 0, static_cast<std::int64_t>(symbols),
                static_cast<std::int64_t>(max_symbols)};

    auto tables = std::make_shared<Tables>();
    tables->encoder_.reserve(count);
    tables->decoder_.reserve(count);
    tables->symbols_.reserve(symbols);
    tables->decoder_symbols_.reserve(symbols);
    tables->bounds_.reserve(symbols + count * search_width);
    for (std::size_t i = 0; i < count; ++i)
        tables->add(cdfs + i * stride, static_cast<std::size_t>(sizes[i]), offsets[i]);
    tables->link();
    for (const EncoderTable& table : tables->encoder_) {
        if (table.offset < INT16_MIN ||
            table.offset + static_cast<std::int32_t>(table.escape) - 1 > INT16_MAX)
            break;
        ++tables->first_beyond_int16_;
    }
    result = std::move(tables);
    return {};
}

void Tables::add(const std::int32_t* cdf, std::size_t size, std::int32_t offset) {
    const std::size_t symbols = size - 1;
    encoder_.push_back(
        {static_cast<std::uint32_t>(symbols_.size()), static_cast<std::uint32_t>(symbols - 1), offset});
    const std::size_t first = bounds_.size();
    for (std::size_t s = 0; s < symbols; ++s) {
        const auto start = static_cast<std::uint32_t>(cdf[s]);
        const auto freq = static_cast<std::uint32_t>(cdf[s + 1] - cdf[s]);
        symbols_.push_back(encoder_symbol(start, freq));
        decoder_symbols_.push_back({static_cast<std::uint16_t>(start), static_cast<std::uint16_t>(freq)});
        bounds_.push_back(static_cast<std::uint16_t>(start + freq - 1));
    }
    bounds_.insert(bounds_.end(), search_width, 0xFFFF);

    // The smallest lookup with which a second search step is rare enough to be predicted away, in
    // proportion to the table at most, lest hostile tables take more memory than they bring.
    constexpr unsigned finest = 4;
    constexpr std::uint32_t rare = total / 512;
    std::vector<std::uint16_t> buckets;
    unsigned shift = precision;
    while (fill_lookup(&bounds_[first], symbols, shift, buckets) > rare && shift > finest &&
           buckets.size() < 4 * symbols)
        --shift;
    decoder_.push_back({nullptr, nullptr, nullptr, offset, static_cast<std::uint16_t>(symbols - 1),
                        static_cast<std::uint8_t>(shift)});
    lookup_.insert(lookup_.end(), buckets.begin(), buckets.end());
}

// Sets the pointers, once the vectors have stopped moving.
void Tables::link() {
    const std::uint16_t* bounds = bounds_.data();
    const std::uint16_t* lookup = lookup_.data();
    const DecoderSymbol* symbols = decoder_symbols_.data();
    for (DecoderTable& table : decoder_) {
        table.bounds = bounds;
        table.lookup = lookup;
        table.symbols = symbols;
        bounds += table.escape + 1 + search_width;
        lookup += total >> table.shift;
        symbols += table.escape + 1;
    }
}

}  // namespace latens
