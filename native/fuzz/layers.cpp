// Builds layers from any numbers; if they are accepted, sums must be those of plain arithmetic, whatever the
// inputs.
#include "layers.hpp"

#include <algorithm>

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
    std::vector<std::vector<std::int16_t>> weights;
    std::vector<latens::Layer> layers;
    std::vector<std::vector<std::int64_t>> rows;
    std::vector<latens::Added> added;
    std::vector<std::int32_t> in;
    std::size_t height, width, positions;

    explicit Case(Numbers numbers) {
        const std::size_t size = numbers.byte();
        height = 1 + size % 3;
        width = 1 + size / 3 % 14;
        positions = height * width;
        const std::size_t count = 1 + numbers.byte() % 3u;
        std::size_t inputs = numbers.byte() % 70u;
        // Sizes and forms first, at fixed places.
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t outputs = numbers.byte() % 40u;
            const bool each = numbers.byte() % 2 > 0;
            const unsigned shift = numbers.byte() % 64u;
            const std::int64_t activation = numbers.byte() % 8 - 2, top = numbers.integer(3);
            latens::Layer layer{nullptr, outputs, inputs, shift, activation, top};
            const unsigned shape = numbers.byte() % 8u;
            if (shape == 4 || shape == 5) layer.side = 3;
            if (shape == 5) layer.up = 2;
            if (shape == 6) layer.shuffle = 2;
            if (shape == 7)
                layer.side = numbers.byte() % 12u, layer.up = numbers.byte() % 10u,
                layer.shuffle = numbers.byte() % 70u;
            layers.push_back(layer);
            added.push_back({nullptr, each});
            inputs = outputs / std::max<std::size_t>(1, layer.shuffle * layer.shuffle);
        }
        // The rest repeats, so that short inputs fill large layers.
        const Numbers again = numbers;
        const auto next = [&](unsigned bytes) {
            if (numbers.size < bytes) numbers = again;
            return numbers.integer(bytes);
        };
        weights.resize(count);
        rows.resize(count);
        for (std::size_t i = 0; i < count; ++i) {
            latens::Layer& layer = layers[i];
            weights[i].resize(layer.outputs * layer.inputs * layer.side * layer.side);
            for (std::int16_t& w : weights[i]) w = static_cast<std::int16_t>(next(2));
            rows[i].resize((added[i].each ? positions : 1) * layer.outputs);
            for (std::int64_t& row : rows[i]) row = next(7);
            layer.weight = weights[i].data();
            added[i].rows = rows[i].data();
        }
        in.resize(positions * layers.front().inputs);
        for (std::int32_t& a : in) a = static_cast<std::int32_t>(next(4));
    }

    struct Plane {
        std::size_t height, width, channels;
        std::vector<std::int64_t> values = std::vector<std::int64_t>(height * width * channels);

        std::int64_t& at(std::size_t y, std::size_t x, std::size_t c) {
            return values[(y * width + x) * channels + c];
        }
    };

    // Every product where it belongs, one by one. Where rows differ between positions, layers are at single
    // positions. The sums of the last layer, or its activations.
    Plane result(bool of_sums, bool each_row) const {
        Plane a{height, width, layers.front().inputs};
        for (std::size_t i = 0; i < in.size(); ++i)
            a.values[i] = std::clamp<std::int64_t>(in[i], -latens::activation_max, latens::activation_max);
        for (std::size_t i = 0; i < layers.size(); ++i) {
            const latens::Layer& layer = layers[i];
            Plane sums{a.height * layer.up, a.width * layer.up, layer.outputs};
            for (std::size_t n = 0; n < sums.values.size(); ++n) {
                const bool each = each_row && added[i].each;
                sums.values[n] = std::clamp(rows[i][each ? n : n % layer.outputs], -latens::exact_limit,
                                            latens::exact_limit);
            }
            for (std::size_t y = 0; y < a.height; ++y)
                for (std::size_t x = 0; x < a.width; ++x)
                    for (std::size_t r = 0; r < layer.side; ++r)
                        for (std::size_t c = 0; c < layer.side; ++c) {
                            // What lies outside wraps around to large numbers.
                            const bool spread = layer.up > 1;
                            const std::size_t reach = layer.side / 2, side = layer.side - 1;
                            const std::size_t to_y = layer.up * y + (spread ? r : side - r) - reach;
                            const std::size_t to_x = layer.up * x + (spread ? c : side - c) - reach;
                            if (to_y >= sums.height || to_x >= sums.width) continue;
                            for (std::size_t o = 0; o < layer.outputs; ++o)
                                for (std::size_t k = 0; k < layer.inputs; ++k)
                                    sums.at(to_y, to_x, o) +=
                                        layer.weight[((o * layer.inputs + k) * layer.side + r) * layer.side +
                                                     c] *
                                        a.at(y, x, k);
                        }
            if (i + 1 == layers.size() && of_sums) return sums;
            const std::size_t n = layer.shuffle;
            a = Plane{sums.height * n, sums.width * n, layer.outputs / (n * n)};
            for (std::size_t y = 0; y < a.height; ++y)
                for (std::size_t x = 0; x < a.width; ++x)
                    for (std::size_t c = 0; c < a.channels; ++c)
                        a.at(y, x, c) = activated(sums.at(y / n, x / n, (c * n + y % n) * n + x % n), layer);
        }
        return a;
    }

    static std::int64_t activated(std::int64_t sum, const latens::Layer& layer) {
        const std::int64_t unit = std::int64_t{1} << layer.shift;
        const std::int64_t rounded = sum + unit / 2;
        std::int64_t a = rounded / unit - (rounded % unit < 0 ? 1 : 0);
        a = std::min(std::max(a, layer.activation == 1 ? 0 : -latens::activation_max), layer.top);
        if (layer.activation != 2 || a >= 0) return a;
        const std::int64_t leaky = 655 * a + 32768;
        return leaky / 65536 - (leaky % 65536 < 0 ? 1 : 0);
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const Case given({data, size});
    std::shared_ptr<const latens::Layers> layers;
    const latens::Status status = latens::Layers::build(given.layers, layers);
    if (!status.ok()) {
        require(status.concerns_layers() && !latens::describe(status).empty(), "an error without a message");
        return 0;
    }
    const Case::Plane sums = given.result(true, false), activations = given.result(false, false);
    for (const unsigned threads : {1u, 3u}) {
        latens::set_threads(threads);
        std::vector<std::int64_t> found(sums.values.size(), -1);
        std::vector<std::int32_t> active(activations.values.size(), -1);
        layers->run(given.in.data(), given.height, given.width, given.added.data(), found.data(), nullptr);
        require(found == sums.values, "sums differ");
        layers->run(given.in.data(), given.height, given.width, given.added.data(), nullptr, active.data());
        require(std::equal(active.begin(), active.end(), activations.values.begin()), "activations differ");
        if (!layers->pointwise()) continue;
        layers->run(given.in.data(), given.positions, given.added.data(), found.data());
        require(found == given.result(true, true).values, "sums at single positions differ");
    }
    return 0;
}

Input valid_input(Random& random) {
    Input input(27 + below(random, 4000));
    for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(random());
    const auto put = [&](std::size_t place, std::size_t value) {
        input[place] = static_cast<std::uint8_t>(value);
    };
    // Largest weights and activations, half of the time, so that sums come near to their limits.
    if (below(random, 2) > 0)
        for (std::size_t i = 27; i < input.size(); ++i) put(i, i % 2 > 0 ? 0x7f : 0xff);
    put(0, below(random, 42));
    put(2, 1 + below(random, 69));
    for (std::size_t form = 3; form < 27; form += 8) {
        const std::size_t shape = below(random, 7);
        put(form, shape == 6 ? 4 * (1 + below(random, 9)) : 1 + below(random, 39));
        put(form + 2, below(random, 53));
        put(form + 3, 2 + below(random, 3));
        put(form + 6, below(random, 16));
        put(form + 7, shape);
    }
    return input;
}
