// Runs a fuzz target without libFuzzer: valid inputs, damaged ones, and noise.  driver [COUNT [SEED]]
#include <algorithm>

#include "fuzz.hpp"

namespace {

void damage(Input& input, Random& random) {
    for (std::uint32_t times = 1 + below(random, 4); times-- > 0 && !input.empty();) {
        const std::uint32_t at = below(random, static_cast<std::uint32_t>(input.size()));
        switch (below(random, 5)) {
            case 0:
                input[at] ^= static_cast<std::uint8_t>(1u << below(random, 8));
                break;
            case 1:
                input[at] = static_cast<std::uint8_t>(random());
                break;
            case 2:
                input.resize(at);
                break;
            case 3:
                input.insert(input.end(), 1 + below(random, 8), static_cast<std::uint8_t>(random()));
                break;
            default:
                std::fill(input.begin() + at, input.begin() + std::min<std::size_t>(at + 8, input.size()),
                          static_cast<std::uint8_t>(below(random, 2) * 255));
        }
    }
}

void run(const Input& input) {
    // A block of exactly this size, so that the sanitizer sees the first byte read beyond it.
    const auto copy = std::make_unique<std::uint8_t[]>(input.size());
    std::copy(input.begin(), input.end(), copy.get());
    LLVMFuzzerTestOneInput(copy.get(), input.size());
}

}  // namespace

int main(int count, char** arguments) {
    const long inputs = count > 1 ? std::atol(arguments[1]) : 10'000;
    Random random(count > 2 ? static_cast<std::uint64_t>(std::atol(arguments[2])) : 1);
    for (long i = 0; i < inputs; ++i) {
        Input input = valid_input(random);
        run(input);
        damage(input, random);
        run(input);
        Input noise(below(random, 400));
        for (std::uint8_t& byte : noise) byte = static_cast<std::uint8_t>(random());
        run(noise);
    }
    std::printf("%ld inputs, each whole and damaged, and as much noise\n", inputs);
}
