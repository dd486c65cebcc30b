// Convolves images of any size with any taps; what comes out must be what plain sums give.
#include "winograd.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "fuzz.hpp"

namespace {

// The polynomial of three taps at the points: 0, +-3/4, +-3/2 and infinity.
constexpr std::array<double, 5> finite = {0, 0.75, -0.75, 1.5, -1.5};

double power(std::size_t point, std::size_t tap) {
    return point < finite.size() ? std::pow(finite[point], static_cast<double>(tap)) : tap == 2 ? 1 : 0;
}

struct Case {
    std::size_t inputs, outputs, gather, scatter, batch, height, width, threads;
    std::vector<float> taps;  // (scatter^2, outputs, gather^2, inputs, 3, 3)
    std::vector<float> in, bias;

    explicit Case(const std::array<std::uint8_t, 9>& b)
        : inputs(1 + b[0] % 40u),
          outputs(1 + b[1] % 70u),
          gather(1 + b[2] % 2u),
          scatter(1 + b[3] % 2u),
          batch(1 + b[4] % 2u),
          height(1 + b[5] % 30u),
          width(1 + b[6] % 60u),
          threads(1 + b[7] % 3u) {
        Random random(b[8]);
        const auto fill = [&](std::vector<float>& values, std::size_t count) {
            values.resize(count);
            for (float& value : values) value = static_cast<float>(below(random, 201)) / 100 - 1;
        };
        fill(taps, scatter * scatter * outputs * gather * gather * inputs * 9);
        // As taps of a convolution of stride 2 have them.
        if (below(random, 2) > 0)
            for (std::size_t i = 0; i < taps.size(); ++i)
                if (i / 9 / inputs % 2 > 0 && i % 3 == 2) taps[i] = 0;
        fill(in, batch * height * width * inputs);
        fill(bias, below(random, 2) * outputs);
    }

    std::size_t tall() const { return (height + gather - 1) / gather; }
    std::size_t wide() const { return (width + gather - 1) / gather; }

    const float* nine(std::size_t phase, std::size_t output, std::size_t from, std::size_t input) const {
        return &taps[(((phase * outputs + output) * gather * gather + from) * inputs + input) * 9];
    }

    double plain(std::size_t image, std::size_t y, std::size_t x, std::size_t phase,
                 std::size_t output) const {
        double sum = bias.empty() ? 0 : bias[output];
        for (std::size_t from = 0; from < gather * gather; ++from)
            for (std::size_t i = 0; i < 9; ++i) {
                const std::size_t row = (y + i / 3 - 1) * gather + from / gather;
                const std::size_t column = (x + i % 3 - 1) * gather + from % gather;
                if (y + i / 3 == 0 || x + i % 3 == 0 || row >= height || column >= width) continue;
                const float* pixel = &in[((image * height + row) * width + column) * inputs];
                for (std::size_t c = 0; c < inputs; ++c) sum += nine(phase, output, from, c)[i] * pixel[c];
            }
        return sum;
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::array<std::uint8_t, 9> bytes{};
    std::copy_n(data, std::min(size, bytes.size()), bytes.begin());
    const Case c(bytes);
    using W = latens::Winograd;
    W layer{
        c.inputs, c.outputs, c.gather, c.scatter, nullptr, nullptr, c.bias.empty() ? nullptr : c.bias.data()};
    const std::size_t into = c.scatter * c.scatter, from = c.gather * c.gather;
    std::vector<float> weight(into * layer.panels() * W::points * from * c.inputs * W::panel);
    std::vector<std::uint8_t> zero(into * W::points * from, 1);
    for (std::size_t s = 0; s < into; ++s)
        for (std::size_t o = 0; o < c.outputs; ++o)
            for (std::size_t p = 0; p < W::points; ++p)
                for (std::size_t g = 0; g < from; ++g)
                    for (std::size_t k = 0; k < c.inputs; ++k) {
                        double value = 0;
                        for (std::size_t i = 0; i < 9; ++i)
                            value += c.nine(s, o, g, k)[i] * power(p % 6, i / 3) * power(p / 6, i % 3);
                        if (value != 0) zero[(s * W::points + p) * from + g] = 0;
                        const std::size_t row =
                            (((s * layer.panels() + o / W::panel) * W::points + p) * from + g) * c.inputs + k;
                        weight[row * W::panel + o % W::panel] = static_cast<float>(value);
                    }
    layer.weight = weight.data();
    layer.zero = zero.data();
    std::vector<float> out(c.batch * c.tall() * c.wide() * into * c.outputs, NAN);
    std::vector<float> scratch(c.threads * layer.scratch(), NAN);
    layer.run(c.in.data(), c.batch, c.height, c.width, out.data(), scratch.data(), c.threads);
    Random random(bytes[8]);
    for (int i = 0; i < 60; ++i) {
        const std::size_t image = random() % c.batch, y = random() % c.tall(), x = random() % c.wide();
        const std::size_t phase = random() % into, output = random() % c.outputs;
        const std::size_t row = (image * c.tall() + y) * c.scatter + phase / c.scatter;
        const std::size_t column = x * c.scatter + phase % c.scatter;
        const float found = out[(row * c.wide() * c.scatter + column) * c.outputs + output];
        require(std::abs(found - c.plain(image, y, x, phase, output)) < 2e-4, "sums differ");
    }
    for (const float value : out) require(std::isfinite(value), "an output is missing");
    return 0;
}

Input valid_input(Random& random) {
    Input input(9);
    for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(random());
    return input;
}
