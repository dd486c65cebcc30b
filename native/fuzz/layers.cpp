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
    std::size_t positions;

    explicit Case(Numbers numbers) : positions(1 + numbers.byte() % 40u) {
        const std::size_t count = 1 + numbers.byte() % 3u;
        std::size_t inputs = numbers.byte() % 70u;
        const std::size_t first = inputs;
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t outputs = numbers.byte() % 40u;
            const bool each = numbers.byte() % 2 > 0;
            const unsigned shift = numbers.byte() % 64u;
            const std::int64_t activation = numbers.byte() % 8 - 2, top = numbers.integer(3);
            // The rest repeats what there is, so that short inputs fill large layers.
            const Numbers again = numbers;
            const auto next = [&](unsigned bytes) {
                if (numbers.size < bytes) numbers = again;
                return numbers.integer(bytes);
            };
            weights.emplace_back(outputs * inputs);
            for (std::int16_t& w : weights.back()) w = static_cast<std::int16_t>(next(2));
            rows.emplace_back((each ? positions : 1) * outputs);
            for (std::int64_t& row : rows.back()) row = next(7);
            layers.push_back({nullptr, outputs, inputs, shift, activation, top});
            added.push_back({nullptr, each});
            inputs = outputs;
        }
        for (std::size_t i = 0; i < count; ++i) {
            layers[i].weight = weights[i].data();
            added[i].rows = rows[i].data();
        }
        in.resize(positions * first);
        for (std::int32_t& a : in) a = static_cast<std::int32_t>(numbers.integer(4));
    }

    std::vector<std::int64_t> sums() const {
        std::vector<std::int64_t> result;
        for (std::size_t p = 0; p < positions; ++p) {
            const std::size_t inputs = layers.front().inputs;
            std::vector<std::int64_t> a(in.begin() + static_cast<std::ptrdiff_t>(p * inputs),
                                        in.begin() + static_cast<std::ptrdiff_t>((p + 1) * inputs));
            for (std::int64_t& value : a)
                value = std::clamp(value, -latens::activation_max, latens::activation_max);
            for (std::size_t i = 0; i < layers.size(); ++i) {
                const latens::Layer& layer = layers[i];
                std::vector<std::int64_t> next(layer.outputs);
                for (std::size_t o = 0; o < layer.outputs; ++o) {
                    next[o] = std::clamp(rows[i][(added[i].each ? p * layer.outputs : 0) + o],
                                         -latens::exact_limit, latens::exact_limit);
                    for (std::size_t k = 0; k < layer.inputs; ++k)
                        next[o] += layer.weight[o * layer.inputs + k] * a[k];
                    if (i + 1 < layers.size()) next[o] = activated(next[o], layer);
                }
                a = next;
            }
            result.insert(result.end(), a.begin(), a.end());
        }
        return result;
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
    std::vector<std::int64_t> sums(given.positions * given.layers.back().outputs);
    for (const unsigned threads : {1u, 3u}) {
        latens::set_threads(threads);
        std::fill(sums.begin(), sums.end(), -1);
        layers->run(given.in.data(), given.positions, given.added.data(), sums.data());
        require(sums == given.sums(), "sums differ");
    }
    return 0;
}

Input valid_input(Random& random) {
    Input input(20 + below(random, 4000));
    for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(random());
    // Largest weights and activations, half of the time, so that sums come near to their limits.
    if (below(random, 2) > 0)
        for (std::size_t i = 20; i < input.size(); ++i) input[i] = i % 2 > 0 ? 0x7f : 0xff;
    for (std::size_t i = 6; i < 20; ++i) input[i] = static_cast<std::uint8_t>(below(random, 3));
    input[0] = static_cast<std::uint8_t>(below(random, 40));
    input[2] = static_cast<std::uint8_t>(1 + below(random, 69));
    input[3] = static_cast<std::uint8_t>(1 + below(random, 39));
    return input;
}
