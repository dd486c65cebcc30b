// Decodes fields of motion from any bytes; what is decoded without an error must survive coding, and moves
// samples without leaving them.
#include "motion.hpp"

#include <algorithm>

#include "fuzz.hpp"

namespace {

// An input: squares down and across, references (1 byte each), one unused, the stream.
struct Case {
    int rows, columns, references;
    std::vector<latens::Unit> units;

    explicit Case(const std::uint8_t* data)
        : rows(8 * (1 + data[0] % 3)),
          columns(8 * (1 + data[1] % 3)),
          references(1 + data[2] % 2),
          units(static_cast<std::size_t>(rows * columns)) {}
    latens::Field field() { return {units.data(), rows, columns}; }
    latens::FieldView view() const { return {units.data(), rows, columns}; }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < header) return 0;
    Case given(data);
    const latens::Status status =
        latens::decode_field(data + header, size - header, given.references, given.field());
    if (!status.ok()) {
        require(!latens::describe(status).empty(), "an error without a message");
        return 0;
    }
    require(latens::sound_field(given.view(), given.references), "a field that cannot be");
    std::vector<std::uint8_t> stream;
    latens::encode_field(given.view(), given.references, stream);
    Case again(data);
    require(latens::decode_field(stream.data(), stream.size(), given.references, again.field()).ok(),
            "an encoder's stream was refused");
    for (std::size_t i = 0; i < given.units.size(); ++i)
        require(again.units[i].size == given.units[i].size && again.units[i].motion == given.units[i].motion,
                "units differ");
    const std::size_t samples = given.units.size() * 64 * 3;
    const std::vector<std::uint16_t> reference(samples, 40000);
    std::vector<std::uint16_t> out(samples);
    const std::uint16_t* const references[2] = {reference.data(), reference.data()};
    latens::compensate(references, given.view(), out.data());
    // Of samples that are all alike nothing else can come.
    require(out == reference, "samples differ");
    return 0;
}

Input valid_input(Random& random) {
    Input input(header);
    for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(random());
    Case given(input.data());
    const std::uint32_t reach = 1 + below(random, random() % 2 ? 20 : latens::motion_reach);
    const auto vector = [&] {
        const auto part = [&] {
            return static_cast<std::int16_t>(static_cast<int>(below(random, 2 * reach + 1)) -
                                             static_cast<int>(reach));
        };
        return latens::Vector{part(), part()};
    };
    latens::Motion last;
    for (int r = 0; r < given.rows; ++r)
        for (int c = 0; c < given.columns; ++c) {
            if (given.field().at(r, c).size > 0) continue;
            int size = 1 << below(random, 4);
            while (r % size != 0 || c % size != 0 || given.field().at(r, c + size - 1).size > 0) size /= 2;
            if (below(random, 3) > 0) {
                last = {};
                last.references = static_cast<std::int16_t>(1 + below(random, given.references == 2 ? 3 : 1));
                for (int k = 0; k < 2; ++k)
                    if (last.uses(k)) last.vectors[k] = vector();
            }
            for (int i = 0; i < size; ++i)
                for (int j = 0; j < size; ++j)
                    given.field().at(r + i, c + j) = {static_cast<std::int16_t>(8 * size), last};
        }
    latens::encode_field(given.view(), given.references, input);
    return input;
}
