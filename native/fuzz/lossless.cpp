// Decodes tiles from any bytes; what is decoded without an error must come out of an encoder's stream again.
#include "lossless.hpp"

#include <algorithm>

#include "fuzz.hpp"

namespace {

// An input: width, height, channels and depth (4 bytes), the stream.
struct Case {
    latens::TileShape shape;

    explicit Case(const std::uint8_t* data)
        : shape{1 + data[0] % 80u, 1 + data[1] % 80u, 0, 1 + data[2] % 4u, data[3] % 2 > 0} {
        shape.pitch = shape.width * shape.channels;
    }
    std::size_t bytes() const { return shape.pitch * shape.height * (shape.deep ? 2 : 1); }
};

std::vector<std::uint8_t> aligned(std::size_t size) {
    return std::vector<std::uint8_t>(size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < header) return 0;
    const Case given(data);
    std::vector<std::uint8_t> samples = aligned(given.bytes());
    const latens::Status status =
        latens::decode_tile(data + header, size - header, given.shape, samples.data());
    if (!status.ok()) {
        require(!latens::describe(status).empty(), "an error without a message");
        return 0;
    }
    latens::LosslessOptions options;
    options.content = static_cast<latens::Content>(data[0] % 3);
    std::vector<std::uint8_t> stream, again = aligned(given.bytes());
    require(latens::encode_tile(samples.data(), given.shape, options, stream).ok(), "a tile was refused");
    require(stream.size() <= given.bytes() + 1, "a stream is longer than its samples");
    require(latens::decode_tile(stream.data(), stream.size(), given.shape, again.data()).ok(),
            "an encoder's stream was refused");
    require(again == samples, "samples differ");
    return 0;
}

Input valid_input(Random& random) {
    Input input(header);
    for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(random());
    const Case given(input.data());
    std::vector<std::uint8_t> samples = aligned(given.bytes());
    // Few colours, runs, noise, or ramps.
    const std::uint32_t kind = below(random, 4);
    const std::uint32_t colours = 1 + below(random, 255);
    for (std::size_t i = 0; i < samples.size(); ++i) {
        const std::uint32_t fresh = below(random, colours);
        samples[i] =
            static_cast<std::uint8_t>(kind == 0   ? fresh
                                      : kind == 1 ? (below(random, 9) > 0 && i > 0 ? samples[i - 1] : fresh)
                                      : kind == 2 ? random()
                                                  : i / given.shape.pitch * 3 + i % 7);
    }
    latens::LosslessOptions options;
    options.near = below(random, 4) > 0 ? 0 : below(random, 256);
    options.effort = 1 + below(random, 2);
    options.content = static_cast<latens::Content>(below(random, 3));
    require(latens::encode_tile(samples.data(), given.shape, options, input).ok(), "a tile was refused");
    return input;
}
