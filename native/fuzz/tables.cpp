// Builds tables from any integers; if they are accepted, every symbol must survive both streams.
#include <cstring>

#include "fuzz.hpp"

namespace {

// An input: number of tables (1), entries in a row (2), then sizes, offsets and entries as int32; what is
// missing is 0.
Cdfs parse(const std::uint8_t* data, std::size_t size) {
    std::vector<std::int32_t> numbers((size - 3) / 4);
    if (!numbers.empty()) std::memcpy(numbers.data(), data + 3, 4 * numbers.size());
    const std::size_t count = data[0] % 8u;
    Cdfs result;
    result.stride = data[1] + 256u * (data[2] & 3u);
    numbers.resize(count * (2 + result.stride));
    auto at = numbers.begin();
    const auto take = [&](std::size_t n) {
        at += static_cast<std::ptrdiff_t>(n);
        return std::vector<std::int32_t>(at - static_cast<std::ptrdiff_t>(n), at);
    };
    result.sizes = take(count);
    result.offsets = take(count);
    result.cdfs = take(count * result.stride);
    return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 3) return 0;
    const Cdfs cdfs = parse(data, size);
    std::shared_ptr<const latens::Tables> tables;
    const latens::Status status = cdfs.build(tables);
    if (!status.ok()) {
        require(!latens::describe(status).empty(), "an error without a message");
        return 0;
    }
    std::vector<std::int32_t> symbols, indexes;
    for (std::size_t i = 0; i < cdfs.sizes.size(); ++i)
        for (std::int32_t s = -2; s < cdfs.sizes[i] + 2; ++s) {
            symbols.push_back(cdfs.offsets[i] + s);
            indexes.push_back(static_cast<std::int32_t>(i));
        }
    const latens::Ints all{indexes.data(), latens::Kind::int32, indexes.size()};
    latens::Backlog backlog(latens::lane_escape_nibbles);
    require(
        backlog.push({symbols.data(), latens::Kind::int32, symbols.size()}, all, tables, 0, keep_going).ok(),
        "symbols near their table were refused");
    latens::Bytes stream;
    require(backlog.encode_stream(stream, keep_going).ok(), "encoding failed");
    latens::StreamDecoder decoder;
    std::vector<std::int32_t> decoded(symbols.size());
    require(decoder.open(stream.data, stream.size).ok() &&
                decoder.decode(all, *tables, decoded.data(), keep_going).ok() && decoder.finish().ok(),
            "a stream was refused");
    require(decoded == symbols, "symbols changed");

    require(backlog.encode_lanes(8, stream, keep_going).ok(), "encoding failed");
    latens::LaneDecoder lanes;
    std::vector<std::int16_t> narrow(symbols.size());
    require(lanes.open(stream.data, stream.size, 8).ok(), "a stream was refused");
    if (!lanes.decode(all, *tables, narrow.data(), keep_going, 0).ok()) return 0;  // beyond 16 bits
    require(lanes.finish().ok() && std::vector<std::int32_t>(narrow.begin(), narrow.end()) == symbols,
            "symbols changed");
    return 0;
}

Input valid_input(Random& random) {
    const std::size_t count = 1 + below(random, 7);
    const Cdfs cdfs = random_cdfs(random, count, 2 + below(random, 1000));
    Input input{static_cast<std::uint8_t>(count), static_cast<std::uint8_t>(cdfs.stride),
                static_cast<std::uint8_t>(cdfs.stride >> 8)};
    for (const auto* part : {&cdfs.sizes, &cdfs.offsets, &cdfs.cdfs}) {
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(part->data());
        input.insert(input.end(), bytes, bytes + 4 * part->size());
    }
    return input;
}
