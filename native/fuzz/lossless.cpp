// Decodes tiles from any bytes; what is decoded without an error must come out of an encoder's stream again.
#include "lossless.hpp"

#include <algorithm>

#include "fuzz.hpp"

namespace {

// An input: width, height, channels and depth (4 bytes), the stream.
struct Case {
    latens::TileShape shape;
    bool parts;  // blocks may be left out

    explicit Case(const std::uint8_t* data)
        : shape{1 + data[0] % 80u, 1 + data[1] % 80u, 0, 1 + data[2] % 4u, data[3] % 2 > 0},
          parts(data[3] / 2 % 2 > 0) {
        shape.pitch = shape.width * shape.channels;
    }
    std::size_t bytes() const { return shape.pitch * shape.height * (shape.deep ? 2 : 1); }
};

// Samples of pixels that are left out become 0.
void leave_out(const Case& given, const std::vector<std::uint8_t>& mask, std::vector<std::uint8_t>& samples) {
    const std::size_t pixel = given.shape.channels * (given.shape.deep ? 2 : 1);
    for (std::size_t i = 0; i < samples.size(); ++i)
        if (!mask[i / pixel]) samples[i] = 0;
}

// Which pixels blocks consist of.
std::vector<std::uint8_t> pixels_of(const Case& given, const std::vector<std::uint8_t>& part) {
    const std::size_t width = given.shape.width;
    const std::size_t columns = (width + latens::part_block - 1) / latens::part_block;
    std::vector<std::uint8_t> mask(width * given.shape.height);
    for (std::size_t i = 0; i < mask.size(); ++i)
        mask[i] = part[i / width / latens::part_block * columns + i % width / latens::part_block];
    return mask;
}

std::vector<std::uint8_t> aligned(std::size_t size) {
    return std::vector<std::uint8_t>(size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < header) return 0;
    const Case given(data);
    std::vector<std::uint8_t> samples = aligned(given.bytes());
    std::vector<std::uint8_t> mask(given.shape.width * given.shape.height);
    std::uint8_t* const map = given.parts ? mask.data() : nullptr;
    const latens::Status status =
        latens::decode_tile(data + header, size - header, given.shape, samples.data(), map);
    if (!status.ok()) {
        require(!latens::describe(status).empty(), "an error without a message");
        return 0;
    }
    latens::LosslessOptions options;
    options.content = static_cast<latens::Content>(data[0] % 3);
    if (given.parts) {
        std::vector<std::uint8_t> masked = samples;
        leave_out(given, mask, masked);
        require(masked == samples, "samples where there is no pixel");
        options.mask = mask.data();
    }
    std::vector<std::uint8_t> stream, again = aligned(given.bytes());
    require(latens::encode_tile(samples.data(), given.shape, options, stream).ok(), "a tile was refused");
    require(given.parts || stream.size() <= given.bytes() + 1, "a stream is longer than its samples");
    std::vector<std::uint8_t> found(mask.size());
    require(latens::decode_tile(stream.data(), stream.size(), given.shape, again.data(),
                                given.parts ? found.data() : nullptr)
                .ok(),
            "an encoder's stream was refused");
    require(!given.parts || found == mask, "pixels differ");
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
    options.slack = below(random, 3) > 0 ? 0 : below(random, 65);
    options.effort = 1 + below(random, 2);
    options.content = static_cast<latens::Content>(below(random, 3));
    std::vector<std::uint8_t> part(latens::part_blocks(given.shape));
    for (std::uint8_t& block : part) block = below(random, 2) > 0;
    part[below(random, static_cast<std::uint32_t>(part.size()))] = 1;
    std::vector<std::uint8_t> mask = pixels_of(given, part);
    if (given.parts) {
        options.part = part.data();
        if (below(random, 2) > 0) {
            options.mask = mask.data();
            const std::size_t first = below(random, static_cast<std::uint32_t>(mask.size()));
            for (std::size_t i = first; i < mask.size(); i += 1 + below(random, 90)) mask[i] ^= 1;
            mask[first] = 1;
        }
        leave_out(given, mask, samples);
    }
    require(latens::encode_tile(samples.data(), given.shape, options, input).ok(), "a tile was refused");
    return input;
}
