// The coder against the text of docs/coder.md, written down once more in the plainest way: division, no
// reciprocals, no lookup, no lanes side by side.
#include "coder.hpp"

#include <algorithm>
#include <vector>

#include "check.hpp"

namespace {

struct Table {
    std::vector<std::int32_t> cdf;
    std::int32_t offset;
};

Table random_table(Random& random, unsigned symbols) {
    Table table{{0}, static_cast<std::int32_t>(between(random, -20, 20))};
    std::vector<std::int32_t> cuts;
    for (unsigned s = 1; s < symbols; ++s) {
        // Steps at odd places, with probabilities from one in 65,536 on.
        const std::int64_t room = 65536 - table.cdf.back() - (symbols - s);
        table.cdf.push_back(table.cdf.back() + static_cast<std::int32_t>(between(
                                                   random, 1, 1 + room * (1 + below(random, 4)) / 8)));
    }
    table.cdf.push_back(65536);
    return table;
}

std::shared_ptr<const latens::Tables> built(const std::vector<Table>& tables) {
    std::size_t stride = 0;
    for (const Table& table : tables) stride = std::max(stride, table.cdf.size());
    std::vector<std::int32_t> cdfs(stride * tables.size()), sizes, offsets;
    for (std::size_t i = 0; i < tables.size(); ++i) {
        std::copy(tables[i].cdf.begin(), tables[i].cdf.end(), &cdfs[i * stride]);
        sizes.push_back(static_cast<std::int32_t>(tables[i].cdf.size()));
        offsets.push_back(tables[i].offset);
    }
    std::shared_ptr<const latens::Tables> result;
    CHECK(
        latens::Tables::build(cdfs.data(), sizes.data(), offsets.data(), tables.size(), stride, result).ok());
    return result;
}

// One state over words of 32 bits, symbols coded last to first; all symbols are in their tables.
std::vector<std::uint8_t> plain_stream(const std::vector<std::int32_t>& symbols,
                                       const std::vector<std::int32_t>& indexes,
                                       const std::vector<Table>& tables) {
    std::uint64_t state = std::uint64_t{1} << 31;
    std::vector<std::uint32_t> words;  // in the order in which they are written: the last one comes first
    for (std::size_t i = symbols.size(); i-- > 0;) {
        const Table& table = tables[static_cast<std::size_t>(indexes[i])];
        const auto number = static_cast<std::size_t>(symbols[i] - table.offset);
        const auto start = static_cast<std::uint64_t>(table.cdf[number]);
        const std::uint64_t freq = static_cast<std::uint64_t>(table.cdf[number + 1]) - start;
        if (state >= freq << 47) {
            words.push_back(static_cast<std::uint32_t>(state));
            state >>= 32;
        }
        state = state / freq * 65536 + state % freq + start;
    }
    words.push_back(static_cast<std::uint32_t>(state >> 32));
    words.push_back(static_cast<std::uint32_t>(state));
    std::vector<std::uint8_t> bytes;
    for (std::size_t i = words.size(); i-- > 0;)
        for (unsigned shift = 0; shift < 32; shift += 8)
            bytes.push_back(static_cast<std::uint8_t>(words[i] >> shift));
    return bytes;
}

latens::Ints ints(const std::vector<std::int32_t>& values) {
    return {values.data(), latens::Kind::int32, values.size()};
}

void test_the_stream_is_that_of_the_text(Random& random) {
    for (unsigned round = 0; round < 200; ++round) {
        std::vector<Table> tables;
        for (unsigned i = 0; i < 1 + round % 7; ++i)
            tables.push_back(random_table(random, 2 + below(random, 60)));
        const auto native = built(tables);
        std::vector<std::int32_t> symbols(below(random, 300)), indexes(symbols.size());
        for (std::size_t i = 0; i < symbols.size(); ++i) {
            indexes[i] = static_cast<std::int32_t>(below(random, static_cast<std::uint32_t>(tables.size())));
            const Table& table = tables[static_cast<std::size_t>(indexes[i])];
            // The last symbol of a table is for escapes.
            symbols[i] = table.offset + static_cast<std::int32_t>(
                                            below(random, static_cast<std::uint32_t>(table.cdf.size() - 2)));
        }
        latens::Backlog backlog(latens::stream_escape_nibbles);
        latens::Bytes stream;
        CHECK(backlog.push(ints(symbols), ints(indexes), native, 0, keep_going).ok());
        CHECK(backlog.encode_stream(stream, keep_going).ok());
        CHECK(plain_stream(symbols, indexes, tables) == std::vector(stream.data, stream.data + stream.size));

        latens::StreamDecoder decoder;
        std::vector<std::int32_t> out(symbols.size());
        CHECK(decoder.open(stream.data, stream.size).ok());
        CHECK(decoder.decode(ints(indexes), *native, out.data(), keep_going).ok());
        CHECK(decoder.finish().ok());
        CHECK(out == symbols);
    }
}

void test_lanes_bring_back_what_was_coded(Random& random) {
    std::vector<Table> tables;
    for (unsigned i = 0; i < 9; ++i) tables.push_back(random_table(random, 2 + below(random, 200)));
    const auto native = built(tables);
    for (const unsigned lanes : {1u, 2u, 4u, 8u}) {
        for (std::size_t size = 0; size < 70; ++size) {
            const std::uint32_t skip = below(random, 4);
            std::vector<std::uint8_t> indexes(size);
            std::vector<std::int16_t> symbols(size);
            for (std::size_t i = 0; i < size; ++i) {
                indexes[i] = static_cast<std::uint8_t>(below(random, 9));
                // Escapes, too; where nothing is coded there are zeros.
                if (indexes[i] >= skip)
                    symbols[i] =
                        static_cast<std::int16_t>(between(random, -300, 300) * (below(random, 9) ? 1 : 100));
            }
            const latens::Ints where{indexes.data(), latens::Kind::uint8, size};
            latens::Backlog backlog(latens::lane_escape_nibbles);
            latens::Bytes stream;
            CHECK(backlog.push({symbols.data(), latens::Kind::int16, size}, where, native, skip, keep_going)
                      .ok());
            CHECK(backlog.encode_lanes(lanes, stream, keep_going).ok());
            latens::LaneDecoder decoder;
            std::vector<std::int16_t> out(size, 77);
            CHECK(decoder.open(stream.data, stream.size, lanes).ok());
            CHECK(decoder.decode(where, *native, out.data(), keep_going, skip).ok());
            CHECK(decoder.finish().ok());
            CHECK(out == symbols);
            // A byte less is found.
            latens::LaneDecoder cut;
            CHECK(!(cut.open(stream.data, stream.size - 1, lanes).ok() &&
                    cut.decode(where, *native, out.data(), keep_going, skip).ok() && cut.finish().ok()));
        }
    }
}

void test_what_is_not_right_has_a_code() {
    using latens::Code;
    std::shared_ptr<const latens::Tables> result;
    const auto code = [&](std::vector<std::int32_t> cdf) {
        const std::int32_t size = static_cast<std::int32_t>(cdf.size()), offset = 0;
        return latens::Tables::build(cdf.data(), &size, &offset, 1, cdf.size(), result).code;
    };
    CHECK(code({0, 100, 65536}) == Code::ok);
    CHECK(code({1, 100, 65536}) == Code::table_start);
    CHECK(code({0, 100, 65535}) == Code::table_end);
    CHECK(code({0, 100, 100, 65536}) == Code::table_order);
    CHECK(code({0, 200, 100, 65536}) == Code::table_order);

    const auto tables = built({{{0, 30000, 60000, 65536}, 0}});
    latens::Backlog backlog(latens::stream_escape_nibbles);
    CHECK(backlog.push(ints({0, 1}), ints({0, 1}), tables, 0, keep_going).code == Code::index_range);
    CHECK(backlog.push(ints({0}), ints({-1}), tables, 0, keep_going).code == Code::index_range);
    CHECK(backlog.push(ints({1}), ints({0}), tables, 1, keep_going).code == Code::symbol_skipped);
    CHECK(backlog.size() == 0);
    latens::Bytes stream;
    CHECK(backlog.encode_lanes(3, stream, keep_going).code == Code::lane_count);
    CHECK(backlog.push(ints({0, 1, 1}), ints({0, 0, 0}), tables, 0, keep_going).ok());
    latens::StreamDecoder decoder;
    const std::uint8_t zeros[8] = {};
    CHECK(decoder.open(zeros, 7).code == Code::stream_size);
    CHECK(!decoder.open(zeros, 8).ok());
}

}  // namespace

int main() {
    Random random(1);
    test_the_stream_is_that_of_the_text(random);
    test_lanes_bring_back_what_was_coded(random);
    test_what_is_not_right_has_a_code();
}
