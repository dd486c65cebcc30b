// Decodes any bytes as a lane stream of any number of lanes, with and without skipping.
#include "fuzz.hpp"

namespace {

unsigned lanes_of(const std::uint8_t* data) {
    return 1u << (data[3] & 3);
}
std::uint32_t skip_of(const std::uint8_t* data) {
    return (data[3] >> 2) % 40u;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < header) return 0;
    const std::vector<std::uint8_t> indexes = indexes_of(data);
    std::vector<std::int16_t> out(indexes.size());
    latens::LaneDecoder decoder;
    if (!decoder.open(data + header, size - header, lanes_of(data)).ok()) return 0;
    const std::size_t first = indexes.size() / 3;
    const latens::Ints head{indexes.data(), latens::Kind::uint8, first};
    const latens::Ints tail{indexes.data() + first, latens::Kind::uint8, indexes.size() - first};
    if (!decoder.decode(head, *fixed_tables(), out.data(), keep_going, 0).ok()) return 0;
    if (!decoder.decode(tail, *fixed_tables(), out.data() + first, keep_going, skip_of(data)).ok()) return 0;
    if (!decoder.finish().ok()) return 0;

    latens::Backlog backlog(latens::lane_escape_nibbles);
    latens::Bytes again;
    require(
        backlog.push({out.data(), latens::Kind::int16, first}, head, fixed_tables(), 0, keep_going).ok() &&
            backlog
                .push({out.data() + first, latens::Kind::int16, out.size() - first}, tail, fixed_tables(),
                      skip_of(data), keep_going)
                .ok(),
        "decoded symbols cannot be coded");
    require(backlog.encode_lanes(lanes_of(data), again, keep_going).ok(), "encoding failed");
    require(std::vector(again.data, again.data + again.size) == std::vector(data + header, data + size),
            "decoded symbols encode to other bytes");
    return 0;
}

Input valid_input(Random& random) {
    Input input{static_cast<std::uint8_t>(random()), static_cast<std::uint8_t>(random()),
                static_cast<std::uint8_t>(random()), static_cast<std::uint8_t>(random())};
    const std::vector<std::uint8_t> indexes = indexes_of(input.data());
    const std::size_t first = indexes.size() / 3;
    std::vector<std::int16_t> symbols(indexes.size());
    for (std::size_t i = 0; i < symbols.size(); ++i)
        if (i < first || indexes[i] >= skip_of(input.data()))
            symbols[i] = static_cast<std::int16_t>(static_cast<std::int16_t>(random()) >>
                                                   (below(random, 8) == 0 ? 2 + below(random, 14) : 8));
    latens::Backlog backlog(latens::lane_escape_nibbles);
    latens::Bytes stream;
    const latens::Ints head{indexes.data(), latens::Kind::uint8, first};
    const latens::Ints tail{indexes.data() + first, latens::Kind::uint8, indexes.size() - first};
    require(backlog.push({symbols.data(), latens::Kind::int16, first}, head, fixed_tables(), 0, keep_going)
                    .ok() &&
                backlog
                    .push({symbols.data() + first, latens::Kind::int16, symbols.size() - first}, tail,
                          fixed_tables(), skip_of(input.data()), keep_going)
                    .ok(),
            "valid symbols were refused");
    require(backlog.encode_lanes(lanes_of(input.data()), stream, keep_going).ok(), "encoding failed");
    input.insert(input.end(), stream.data, stream.data + stream.size);
    return input;
}
