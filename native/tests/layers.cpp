// Exact layers against convolutions that are written as their definition.
#include "layers.hpp"

#include <algorithm>
#include <vector>

#include "check.hpp"

namespace {

using Plane = std::vector<std::int64_t>;  // (height, width, channels)

std::int64_t floor_shift(std::int64_t value, unsigned shift) {
    const std::int64_t unit = std::int64_t{1} << shift;
    return value / unit - (value % unit < 0 ? 1 : 0);
}

std::int64_t activated(std::int64_t sum, const latens::Layer& layer) {
    const std::int64_t half = layer.shift > 0 ? std::int64_t{1} << (layer.shift - 1) : 0;
    const std::int64_t low = layer.activation == 1 ? 0 : -latens::activation_max;
    const std::int64_t a = std::min(std::max(floor_shift(sum + half, layer.shift), low), layer.top);
    return layer.activation == 2 && a < 0 ? floor_shift(655 * a + 32768, 16) : a;
}

Plane convolved(const Plane& in, std::size_t height, std::size_t width, const latens::Layer& layer,
                const std::vector<std::int64_t>& bias) {
    const auto reach = static_cast<std::ptrdiff_t>(layer.side / 2);
    Plane sums(height * width * layer.outputs);
    for (std::size_t y = 0; y < height; ++y)
        for (std::size_t x = 0; x < width; ++x)
            for (std::size_t o = 0; o < layer.outputs; ++o) {
                std::int64_t sum = bias[o];
                for (std::size_t i = 0; i < layer.inputs; ++i)
                    for (std::size_t v = 0; v < layer.side; ++v)
                        for (std::size_t u = 0; u < layer.side; ++u) {
                            const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(y + v) - reach;
                            const std::ptrdiff_t column = static_cast<std::ptrdiff_t>(x + u) - reach;
                            if (row < 0 || column < 0 || row >= static_cast<std::ptrdiff_t>(height) ||
                                column >= static_cast<std::ptrdiff_t>(width))
                                continue;
                            const std::size_t at =
                                static_cast<std::size_t>(row) * width + static_cast<std::size_t>(column);
                            sum += layer.weight[((o * layer.inputs + i) * layer.side + v) * layer.side + u] *
                                   in[at * layer.inputs + i];
                        }
                sums[(y * width + x) * layer.outputs + o] = sum;
            }
    return sums;
}

void test_planes(Random& random) {
    for (unsigned round = 0; round < 60; ++round) {
        const std::size_t height = 1 + below(random, 7), width = 1 + below(random, 9);
        const std::size_t count = 1 + below(random, 3);
        std::vector<std::vector<std::int16_t>> weights;
        std::vector<std::vector<std::int64_t>> biases;
        std::vector<latens::Layer> layers;
        std::size_t inputs = 1 + below(random, 20);
        const std::size_t first = inputs;
        for (std::size_t l = 0; l < count; ++l) {
            latens::Layer layer;
            layer.outputs = 1 + below(random, 40);
            layer.inputs = inputs;
            layer.side = 1 + 2 * below(random, 3);
            layer.shift = below(random, 20);
            layer.activation = below(random, 3);
            weights.emplace_back(layer.outputs * inputs * layer.side * layer.side);
            for (std::int16_t& weight : weights.back())
                weight = static_cast<std::int16_t>(between(random, -32767, 32767));
            biases.emplace_back(layer.outputs);
            for (std::int64_t& bias : biases.back()) bias = between(random, -(1 << 30), 1 << 30);
            layers.push_back(layer);
            inputs = layer.outputs;
        }
        std::vector<latens::Added> added(count);
        for (std::size_t l = 0; l < count; ++l) {
            layers[l].weight = weights[l].data();
            added[l].rows = biases[l].data();
        }
        std::vector<std::int32_t> in(height * width * first);
        for (std::int32_t& a : in)
            a = static_cast<std::int32_t>(between(random, -latens::activation_max, latens::activation_max));

        Plane plane(in.begin(), in.end());
        for (std::size_t l = 0; l < count; ++l) {
            plane = convolved(plane, height, width, layers[l], biases[l]);
            if (l + 1 < count)
                for (std::int64_t& a : plane) a = activated(a, layers[l]);
        }
        std::shared_ptr<const latens::Layers> native;
        CHECK(latens::Layers::build(layers, native).ok());
        Plane sums(plane.size(), -1);
        native->run(in.data(), height, width, added.data(), sums.data(), nullptr);
        CHECK(sums == plane);
        std::vector<std::int32_t> activations(plane.size(), -1);
        native->run(in.data(), height, width, added.data(), nullptr, activations.data());
        for (std::size_t i = 0; i < plane.size(); ++i)
            CHECK(activations[i] == activated(plane[i], layers.back()));
        if (native->pointwise()) {
            native->run(in.data(), height * width, added.data(), sums.data());
            CHECK(sums == plane);
        }
    }
}

void test_what_cannot_be_exact_is_refused() {
    const std::vector<std::int16_t> weight(8, 1);
    latens::Layer layer;
    layer.weight = weight.data();
    layer.outputs = 4;
    layer.inputs = 2;
    std::shared_ptr<const latens::Layers> native;
    const auto code = [&](auto change) {
        latens::Layer changed = layer;
        change(changed);
        return latens::Layers::build({changed}, native).code;
    };
    using latens::Code;
    CHECK(code([](latens::Layer&) {}) == Code::ok);
    CHECK(code([](latens::Layer& l) { l.shift = 64; }) == Code::layer_shift);
    CHECK(code([](latens::Layer& l) { l.activation = 3; }) == Code::layer_activation);
    CHECK(code([](latens::Layer& l) { l.side = 2 * latens::side_max; }) == Code::layer_side);
    CHECK(code([](latens::Layer& l) { l.outputs = 0; }) == Code::layer_size);
    CHECK(code([](latens::Layer& l) { l.shuffle = 3; }) == Code::layer_shuffle);
}

}  // namespace

int main() {
    Random random(2);
    test_planes(random);
    test_what_cannot_be_exact_is_refused();
}
