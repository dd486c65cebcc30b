// Block motion.
#include "motion.hpp"

#include <algorithm>
#include <cstdlib>

#include "shared.hpp"

namespace bindings {
namespace {

constexpr std::size_t side_max = 1U << 17;

void whole_blocks(std::size_t height, std::size_t width) {
    const std::size_t block = latens::motion_block;
    if (!height || !width || height % block || width % block || height > side_max || width > side_max)
        raise("ShapeError", "expected a picture whose sides are multiples of 16");
}

nb::object compensate(const In<std::uint16_t, 3>& reference, const In<std::int16_t, 3>& vectors) {
    const std::size_t height = reference.shape(0), width = reference.shape(1), channels = reference.shape(2);
    whole_blocks(height, width);
    if (channels < 1 || channels > 4) raise("ShapeError", "expected a picture of 1 to 4 channels");
    if (vectors.shape(0) != 2 || vectors.shape(1) != height / latens::motion_block ||
        vectors.shape(2) != width / latens::motion_block)
        raise("ShapeError", "expected two components for each block of 16x16 pixels");
    if (std::any_of(vectors.data(), vectors.data() + vectors.size(),
                    [](std::int16_t v) { return std::abs(v) > latens::motion_reach; }))
        raise("ShapeError", "a vector is too long");
    std::uint16_t* out = nullptr;
    nb::object result = new_array<std::uint16_t>({height, width, channels}, out);
    run([&]() -> latens::Status {
        latens::compensate(reference.data(), height, width, channels, vectors.data(), out);
        return {};
    });
    return result;
}

nb::object search(const In<std::uint16_t, 2>& picture, const In<std::uint16_t, 2>& reference,
                  const In<std::int32_t, 1>& costs) {
    const std::size_t height = picture.shape(0), width = picture.shape(1);
    whole_blocks(height, width);
    same_size(height, reference.shape(0));
    same_size(width, reference.shape(1));
    same_size(costs.size(), 2 * latens::motion_reach + 1);
    const auto too_deep = [](std::uint16_t v) { return v > 1023; };
    if (std::any_of(picture.data(), picture.data() + picture.size(), too_deep) ||
        std::any_of(reference.data(), reference.data() + reference.size(), too_deep))
        raise("ShapeError", "expected samples of 10 bits");
    if (std::any_of(costs.data(), costs.data() + costs.size(),
                    [](std::int32_t v) { return v < 0 || v > 1 << 24; }))
        raise("ShapeError", "costs must be 0 to 2^24");
    std::int16_t* out = nullptr;
    nb::object result =
        new_array<std::int16_t>({2, height / latens::motion_block, width / latens::motion_block}, out);
    run([&]() -> latens::Status {
        latens::search_motion(picture.data(), reference.data(), height, width, costs.data(), out);
        return {};
    });
    return result;
}

}  // namespace

void add_motion(nb::module_& m) {
    m.def("compensate", &compensate, "reference"_a.noconvert(), "vectors"_a.noconvert());
    m.def("search_motion", &search, "picture"_a.noconvert(), "reference"_a.noconvert(),
          "costs"_a.noconvert());
}

}  // namespace bindings
