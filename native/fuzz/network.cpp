// Builds networks from any numbers; what is accepted must run without going astray, and give the same whole
// and in pieces.
#include "network.hpp"

#include <algorithm>
#include <memory>

#include "fuzz.hpp"
#include "pool.hpp"

namespace {

struct Numbers {
    const std::uint8_t* data;
    std::size_t size;

    std::uint8_t byte() { return size > 0 ? (--size, *data++) : 0; }
    std::int64_t integer(unsigned bytes) {
        std::uint64_t value = 0;
        for (unsigned i = 0; i < bytes; ++i) value |= std::uint64_t{byte()} << (8 * i);
        const unsigned unused = 64 - 8 * bytes;
        return static_cast<std::int64_t>(value << unused) >> unused;
    }
};

struct Case {
    std::vector<std::unique_ptr<std::int16_t[]>> weights;
    std::vector<std::unique_ptr<std::int32_t[]>> biases;
    std::vector<std::unique_ptr<std::uint8_t[]>> shifts;
    std::vector<latens::StageForm> stages;
    std::vector<std::vector<std::int32_t>> m, s;
    std::size_t height, width;
    latens::Limits limits;
    latens::Samples samples;
    Numbers rest;

    explicit Case(Numbers numbers) : rest(numbers) {
        height = numbers.byte() % 40u;
        width = numbers.byte() % 40u;
        limits.low = numbers.byte() % 4 > 0 ? -32768 : numbers.integer(2);
        limits.high = numbers.byte() % 4 > 0 ? 32767 : numbers.integer(3);
        samples = {numbers.byte() % 19, numbers.byte() % 4u};
        const std::size_t count = numbers.byte() % 6u;
        std::size_t channels = numbers.byte() % 50u;
        for (std::size_t i = 0; i < count; ++i) {
            latens::StageForm form;
            form.kind = static_cast<latens::StageKind>(numbers.byte() % 8);
            form.channels = channels;
            // The rest repeats what there is, so that short inputs fill large weights.
            const Numbers again = numbers;
            const auto part = [&](std::size_t outputs, std::size_t kernel, std::size_t inputs,
                                  bool depthwise) {
                return make(numbers, again, outputs, kernel, inputs, depthwise);
            };
            switch (form.kind) {
                case latens::StageKind::product: {
                    const std::size_t outputs = numbers.byte() % 50u, kernel = numbers.byte() % 4 > 0 ? 1 : 3;
                    form.parts[0] = part(outputs, kernel, channels, false);
                    channels = outputs;
                    break;
                }
                case latens::StageKind::depthwise:
                    form.parts[0] = part(channels, 3, 1, true);
                    break;
                case latens::StageKind::block: {
                    const std::size_t inner = numbers.byte() % 40u, hidden = numbers.byte() % 40u;
                    form.parts = {part(inner, 1, channels, false), part(inner, 3, 1, true),
                                  part(channels, 1, inner, false), part(hidden, 1, channels, false),
                                  part(channels, 1, hidden, false)};
                    break;
                }
                case latens::StageKind::shuffle:
                case latens::StageKind::unshuffle: {
                    const std::int64_t r = numbers.byte() % 5;
                    form.number = r;
                    const auto square = static_cast<std::size_t>(r * r);
                    if (form.kind == latens::StageKind::unshuffle)
                        channels *= square;
                    else if (square > 0)
                        channels /= square;
                    if (channels > 400) return;
                    break;
                }
                case latens::StageKind::scale: {
                    form.number = numbers.integer(1) / 32;
                    if (form.number < 0 || form.number > 3) break;
                    m.resize(std::max(m.size(), static_cast<std::size_t>(form.number) + 1));
                    s.resize(m.size());
                    for (std::size_t c = 0; c < channels; ++c) {
                        m[static_cast<std::size_t>(form.number)].push_back(numbers.byte() * 129);
                        s[static_cast<std::size_t>(form.number)].push_back(numbers.byte() % 64 - 16);
                    }
                    break;
                }
                case latens::StageKind::pixels:
                    form.parts[0] = part(192, 1, channels, false);
                    std::fill_n(const_cast<std::uint8_t*>(form.parts[0].shift), 192, numbers.byte() % 25);
                    break;
                case latens::StageKind::input:
                    channels = 192;
            }
            stages.push_back(form);
        }
        rest = numbers;
    }

    latens::Weights make(Numbers& numbers, const Numbers& again, std::size_t outputs, std::size_t kernel,
                         std::size_t inputs, bool depthwise) {
        const std::size_t size = outputs * kernel * kernel * inputs;
        const auto next = [&](unsigned bytes) {
            if (numbers.size < bytes) numbers = again;
            return numbers.integer(bytes);
        };
        latens::Weights w;
        w.gate = next(1) % 16;
        w.gate = w.gate < 2 ? 0 : w.gate;
        w.low = next(1) > 0 ? -32768 : next(2);
        w.high = next(1) > 0 ? 32767 : next(2);
        // Mostly small enough for sums to fit, mostly a shift that may be.
        const std::int64_t divisor =
            next(1) > 100 ? 1 : 1 + static_cast<std::int64_t>(kernel * kernel * inputs);
        const std::uint8_t odd = next(1) == 0 ? 40 : 30;
        weights.push_back(std::make_unique<std::int16_t[]>(size));
        for (std::size_t i = 0; i < size; ++i)
            weights.back()[i] = static_cast<std::int16_t>(next(2) / divisor);
        biases.push_back(std::make_unique<std::int32_t[]>(outputs));
        for (std::size_t i = 0; i < outputs; ++i) biases.back()[i] = static_cast<std::int32_t>(next(3));
        shifts.push_back(std::make_unique<std::uint8_t[]>(outputs));
        for (std::size_t i = 0; i < outputs; ++i)
            shifts.back()[i] = static_cast<std::uint8_t>(1 + static_cast<std::uint8_t>(next(1)) % odd);
        w.weight = weights.back().get();
        w.bias = biases.back().get();
        w.shift = shifts.back().get();
        w.outputs = outputs;
        w.kernel = kernel;
        w.inputs = depthwise ? 1 : inputs;
        return w;
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const bool set = (latens::set_threads(3), true);
    static_cast<void>(set);
    Case given({data, size});
    std::shared_ptr<const latens::Network> network;
    const latens::Status status = latens::Network::build(given.stages, given.limits, network);
    if (!status.ok()) {
        require(status.concerns_layers() && !latens::describe(status).empty(), "an error without a message");
        return 0;
    }
    std::size_t height = 0, width = 0;
    const latens::Status high = network->outcome(given.height, height),
                         wide = network->outcome(given.width, width);
    if (!high.ok() || !wide.ok()) {
        require(!latens::describe(high).empty() && !latens::describe(wide).empty(),
                "an error without a message");
        return 0;
    }
    std::vector<latens::Scale> scales;
    for (std::size_t i = 0; i < given.m.size(); ++i)
        scales.push_back({given.m[i].data(), given.s[i].data(), given.m[i].size()});
    const std::size_t sample = given.samples.depth > 8 ? 2 : 1;
    const auto row = [&](bool samples, std::size_t columns, std::size_t channels) {
        return columns * (samples ? given.samples.channels * sample : 2 * channels);
    };
    const std::size_t in_row = row(network->takes_samples(), given.width, network->inputs());
    const std::size_t out_row = row(network->gives_samples(), width, network->outputs());
    // Blocks of exactly these sizes, so that the sanitizer sees the first byte beyond them.
    const auto in = std::make_unique<std::uint8_t[]>(given.height * in_row);
    const auto out = std::make_unique<std::uint8_t[]>(height * out_row);
    for (std::size_t i = 0; i < given.height * in_row; ++i)
        in[i] = given.rest.size > 0 ? given.rest.byte() : static_cast<std::uint8_t>(i * i >> 3);
    if (!latens::run(network, in.get(), given.height, given.width, scales, given.samples, out.get(),
                     keep_going)
             .ok())
        return 0;
    latens::Stream stream;
    require(stream.open(network, given.width, scales, given.samples).ok(), "a stream was refused");
    std::size_t done = 0;
    for (std::size_t y = 0, turn = 0; done < height; ++turn) {
        const std::size_t some = std::min<std::size_t>(given.height - y, data[turn % size] % 7 + (turn > 50));
        const bool last = y + some == given.height;
        const std::size_t rows = stream.ready(some, last);
        const auto piece = std::make_unique<std::uint8_t[]>(rows * out_row);
        require(stream.push(in.get() + y * in_row, some, last, piece.get(), keep_going).ok(),
                "rows were refused");
        require(done + rows <= height &&
                    std::equal(piece.get(), piece.get() + rows * out_row, out.get() + done * out_row),
                "pieces differ");
        done += rows;
        y += some;
    }
    return 0;
}

Input valid_input(Random& random) {
    Input input(200 + below(random, 2000));
    for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(random());
    input[4] = static_cast<std::uint8_t>(1 + below(random, 16));  // samples
    input[5] = below(random, 2) > 0 ? 1 : 3;
    return input;
}
