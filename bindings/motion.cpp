// Block motion.
#include "motion.hpp"

#include <nanobind/stl/vector.h>

#include <vector>

#include "shared.hpp"

namespace bindings {
namespace {

constexpr std::size_t side_max = 1U << 17;

using Picture = In<std::uint16_t, 3>;
using Units = In<std::int16_t, 3>;

std::size_t units_of(std::size_t side) {
    if (!side || side % latens::motion_square || side > side_max)
        raise("ShapeError", "expected a picture whose sides are multiples of 64");
    return side / latens::motion_unit;
}

latens::FieldView view(const Units& field, std::size_t references) {
    const std::size_t rows = units_of(field.shape(0) * latens::motion_unit),
                      columns = units_of(field.shape(1) * latens::motion_unit);
    if (field.shape(2) != 6) raise("ShapeError", "expected six numbers for each unit of a field");
    const latens::FieldView result{reinterpret_cast<const latens::Unit*>(field.data()),
                                   static_cast<int>(rows), static_cast<int>(columns)};
    if (!latens::sound_field(result, static_cast<int>(references)))
        raise("ShapeError", "a field with blocks, references or vectors that cannot be");
    return result;
}

latens::Field new_field(std::size_t rows, std::size_t columns, nb::object& owner) {
    std::int16_t* data = nullptr;
    owner = new_array<std::int16_t>({rows, columns, 6}, data);
    return {reinterpret_cast<latens::Unit*>(data), static_cast<int>(rows), static_cast<int>(columns)};
}

std::vector<const std::uint16_t*> pointers(const std::vector<Picture>& references, std::size_t height,
                                           std::size_t width) {
    if (references.empty() || references.size() > 2) raise("ShapeError", "expected one or two references");
    std::vector<const std::uint16_t*> result;
    for (const Picture& reference : references) {
        same_size(reference.shape(0), height);
        same_size(reference.shape(1), width);
        same_size(reference.shape(2), 3);
        result.push_back(reference.data());
    }
    return result;
}

nb::object compensate(const std::vector<Picture>& references, const Units& field) {
    const latens::FieldView blocks = view(field, references.size());
    const auto height = static_cast<std::size_t>(blocks.height()),
               width = static_cast<std::size_t>(blocks.width());
    const auto from = pointers(references, height, width);
    std::uint16_t* out = nullptr;
    nb::object result = new_array<std::uint16_t>({height, width, 3}, out);
    run([&]() -> latens::Status {
        latens::compensate(from.data(), blocks, out);
        return {};
    });
    return result;
}

nb::object search(const Picture& picture, const std::vector<Picture>& references, std::uint32_t price,
                  std::size_t visible_height, std::size_t visible_width) {
    const std::size_t height = picture.shape(0), width = picture.shape(1);
    same_size(picture.shape(2), 3);
    const auto from = pointers(references, height, width);
    if (price > 1U << 24 || visible_height > height || visible_width > width)
        raise("ShapeError", "a price above 2^24, or more is visible than there is");
    nb::object result;
    const latens::Field field = new_field(units_of(height), units_of(width), result);
    run([&]() -> latens::Status {
        const latens::SearchOptions options{price, static_cast<int>(visible_height),
                                            static_cast<int>(visible_width)};
        latens::search_motion(picture.data(), from.data(), static_cast<int>(from.size()), options, field);
        return {};
    });
    return result;
}

nb::bytes encode(const Units& field, std::size_t references) {
    if (references < 1 || references > 2) raise("ShapeError", "expected one or two references");
    const latens::FieldView blocks = view(field, references);
    std::vector<std::uint8_t> out;
    run([&]() -> latens::Status {
        latens::encode_field(blocks, static_cast<int>(references), out);
        return {};
    });
    return nb::bytes(reinterpret_cast<const char*>(out.data()), out.size());
}

nb::object decode(const nb::bytes& stream, std::size_t rows, std::size_t columns, std::size_t references) {
    if (references < 1 || references > 2) raise("ShapeError", "expected one or two references");
    units_of(rows * latens::motion_unit);
    units_of(columns * latens::motion_unit);
    nb::object result;
    const latens::Field field = new_field(rows, columns, result);
    const auto* const data = reinterpret_cast<const std::uint8_t*>(stream.c_str());
    const std::size_t size = stream.size();
    run([&] { return latens::decode_field(data, size, static_cast<int>(references), field); });
    return result;
}

}  // namespace

void add_motion(nb::module_& m) {
    m.def("compensate", &compensate, "references"_a, "field"_a.noconvert());
    m.def("search_motion", &search, "picture"_a.noconvert(), "references"_a, "price"_a, "visible_height"_a,
          "visible_width"_a);
    m.def("encode_field", &encode, "field"_a.noconvert(), "references"_a);
    m.def("decode_field", &decode, "stream"_a, "rows"_a, "columns"_a, "references"_a);
}

}  // namespace bindings
