// Decodes any bytes as the compatible stream.
#include "fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < header) return 0;
    const std::vector<std::uint8_t> indexes = indexes_of(data);
    std::vector<std::int32_t> out(indexes.size());
    latens::StreamDecoder decoder;
    if (!decoder.open(data + header, size - header).ok()) return 0;
    const std::size_t first = indexes.size() / 3;
    const latens::Ints head{indexes.data(), latens::Kind::uint8, first};
    const latens::Ints tail{indexes.data() + first, latens::Kind::uint8, indexes.size() - first};
    if (!decoder.decode(head, *fixed_tables(), out.data(), keep_going).ok()) return 0;
    if (!decoder.decode(tail, *fixed_tables(), out.data() + first, keep_going).ok()) return 0;
    if (!decoder.finish().ok()) return 0;

    // What decodes to the end must encode to the same bytes: the format has no second spelling.
    latens::Backlog backlog(latens::stream_escape_nibbles);
    latens::Bytes again;
    const latens::Ints symbols{out.data(), latens::Kind::int32, out.size()};
    const latens::Ints all{indexes.data(), latens::Kind::uint8, indexes.size()};
    require(backlog.push(symbols, all, fixed_tables(), 0, keep_going).ok(),
            "decoded symbols cannot be coded");
    require(backlog.encode_stream(again, keep_going).ok(), "encoding failed");
    require(std::vector(again.data, again.data + again.size) == std::vector(data + header, data + size),
            "decoded symbols encode to other bytes");
    return 0;
}

Input valid_input(Random& random) {
    Input input{static_cast<std::uint8_t>(random()), static_cast<std::uint8_t>(random()),
                static_cast<std::uint8_t>(random()), 0};
    const std::vector<std::uint8_t> indexes = indexes_of(input.data());
    std::vector<std::int32_t> symbols(indexes.size());
    for (std::int32_t& symbol : symbols)
        symbol = static_cast<std::int32_t>(random()) >> (below(random, 8) == 0 ? 2 + below(random, 30) : 24);
    latens::Backlog backlog(latens::stream_escape_nibbles);
    latens::Bytes stream;
    const latens::Ints values{symbols.data(), latens::Kind::int32, symbols.size()};
    const latens::Ints all{indexes.data(), latens::Kind::uint8, indexes.size()};
    require(backlog.push(values, all, fixed_tables(), 0, keep_going).ok(), "valid symbols were refused");
    require(backlog.encode_stream(stream, keep_going).ok(), "encoding failed");
    input.insert(input.end(), stream.data, stream.data + stream.size);
    return input;
}
