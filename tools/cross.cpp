// Runs networks and motion that tools/cross.py has written down:  cross IN OUT
// Everything in both files is an integer of 64 bits, its lowest byte first, on any processor.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "motion.hpp"
#include "network.hpp"
#include "pool.hpp"

namespace {

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "%s\n", what.c_str());
    std::exit(1);
}

void check(const latens::Status& status) {
    if (!status.ok()) fail(latens::describe(status));
}

class In {
  public:
    explicit In(const char* path) : file_(path, std::ios::binary) {}
    std::int64_t number() {
        unsigned char bytes[8];
        if (!file_.read(reinterpret_cast<char*>(bytes), 8)) fail("the file ends early");
        std::uint64_t value = 0;
        for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
        return static_cast<std::int64_t>(value);
    }
    std::size_t size() { return static_cast<std::size_t>(number()); }
    // As many as a number in front of them says. They stay as long as this does.
    template <class T>
    T* array() {
        auto values = std::make_shared<std::vector<T>>(size());
        for (T& value : *values) value = static_cast<T>(number());
        kept_.push_back(values);
        return values->data();
    }

  private:
    std::ifstream file_;
    std::vector<std::shared_ptr<void>> kept_;
};

class Out {
  public:
    explicit Out(const char* path) : file_(path, std::ios::binary) {}
    void number(std::int64_t value) {
        for (int i = 0; i < 8; ++i)
            file_.put(static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i)));
    }

  private:
    std::ofstream file_;
};

latens::Weights weights(In& in) {
    latens::Weights w;
    w.outputs = in.size();
    w.kernel = in.size();
    w.inputs = in.size();
    w.low = in.number();
    w.high = in.number();
    w.gate = in.number();
    w.weight = in.array<std::int16_t>();
    w.bias = in.array<std::int32_t>();
    w.shift = in.array<std::uint8_t>();
    return w;
}

void run(In& in, Out& out) {
    latens::Limits limits;
    limits.low = in.number();
    limits.high = in.number();
    latens::Samples samples;
    samples.depth = in.number();
    samples.channels = in.size();
    std::vector<latens::StageForm> stages(in.size());
    for (latens::StageForm& stage : stages) {
        stage.kind = static_cast<latens::StageKind>(in.number());
        stage.number = in.number();
        stage.channels = in.size();
        const std::size_t parts = in.size();
        for (std::size_t i = 0; i < parts; ++i) stage.parts.at(i) = weights(in);
    }
    std::vector<latens::Scale> scales(in.size());
    for (latens::Scale& scale : scales) {
        scale.count = in.size();
        scale.m = in.array<std::int32_t>();
        scale.s = in.array<std::int32_t>();
    }
    const std::size_t height = in.size(), width = in.size();
    std::shared_ptr<const latens::Network> network;
    check(latens::Network::build(stages, limits, network));
    std::size_t out_height = 0, out_width = 0;
    check(network->outcome(height, out_height));
    check(network->outcome(width, out_width));
    const bool bytes = samples.depth <= 8;
    const void* x = network->takes_samples() && bytes ? static_cast<const void*>(in.array<std::uint8_t>())
                                                      : in.array<std::uint16_t>();
    const std::size_t channels = network->gives_samples() ? samples.channels : network->outputs();
    const std::size_t count = out_height * out_width * channels;
    std::vector<std::uint16_t> result(count);
    check(latens::run(network, x, height, width, scales, samples, result.data(), [] { return true; }));
    out.number(static_cast<std::int64_t>(count));
    for (std::size_t i = 0; i < count; ++i) {
        if (!network->gives_samples())
            out.number(static_cast<std::int16_t>(result[i]));
        else
            out.number(bytes ? reinterpret_cast<const std::uint8_t*>(result.data())[i] : result[i]);
    }
}

// A field of motion from its stream, and what it predicts.
void move(In& in, Out& out) {
    const int rows = static_cast<int>(in.number()), columns = static_cast<int>(in.number());
    const std::size_t references = in.size(), size = in.size();
    std::vector<std::uint8_t> stream(size);
    for (std::uint8_t& byte : stream) byte = static_cast<std::uint8_t>(in.number());
    std::vector<const std::uint16_t*> from;
    for (std::size_t i = 0; i < references; ++i) from.push_back(in.array<std::uint16_t>());
    std::vector<latens::Unit> units(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns));
    const latens::Field field{units.data(), rows, columns};
    check(latens::decode_field(stream.data(), size, static_cast<int>(references), field));
    const latens::FieldView view{units.data(), rows, columns};
    std::vector<std::uint16_t> picture(3 * 64 * units.size());
    latens::compensate(from.data(), view, picture.data());
    for (const latens::Unit& unit : units)
        for (const std::int16_t value :
             {unit.size, unit.motion.references, unit.motion.vectors[0].down, unit.motion.vectors[0].right,
              unit.motion.vectors[1].down, unit.motion.vectors[1].right})
            out.number(value);
    for (const std::uint16_t sample : picture) out.number(sample);
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 3) fail("cross IN OUT");
    latens::set_threads(2);
    In in(arguments[1]);
    Out out(arguments[2]);
    for (std::size_t cases = in.size(); cases > 0; --cases) run(in, out);
    for (std::size_t cases = in.size(); cases > 0; --cases) move(in, out);
    std::printf("%s\n", [] {
        const latens::Kernels* kernels = nullptr;
        return latens::choose_kernels(kernels).ok() ? kernels->name : "none";
    }());
}
