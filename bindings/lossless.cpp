// Pictures without loss, tile by tile on all threads.
#include "lossless.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "pool.hpp"
#include "shared.hpp"

namespace bindings {
namespace {

using Samples = nb::ndarray<nb::ro, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using OutSamples = nb::ndarray<nb::ndim<3>, nb::c_contig, nb::device::cpu>;

// A picture cut into tiles.
struct Grid {
    std::size_t height, width, channels, tile;
    bool deep;

    template <class Array_>
    Grid(const Array_& samples, std::size_t tile_)
        : height(samples.shape(0)), width(samples.shape(1)), channels(samples.shape(2)), tile(tile_) {
        if (samples.dtype() == nb::dtype<std::uint16_t>())
            deep = true;
        else if (samples.dtype() == nb::dtype<std::uint8_t>())
            deep = false;
        else
            raise("ShapeError", "expected samples of uint8 or uint16");
        if (height == 0 || width == 0 || channels == 0 || channels > 4)
            raise("ShapeError", "expected height x width x 1 to 4 samples");
        if (tile == 0 || tile > latens::max_tile_side)
            raise("ShapeError", "tiles have sides of 1 to " + std::to_string(latens::max_tile_side) +
                                    " pixels, got " + std::to_string(tile));
    }

    std::size_t columns() const { return (width + tile - 1) / tile; }
    std::size_t rows() const { return (height + tile - 1) / tile; }
    std::size_t count() const { return columns() * rows(); }
    std::size_t left(std::size_t i) const { return i % columns() * tile; }
    std::size_t top(std::size_t i) const { return i / columns() * tile; }
    latens::TileShape shape(std::size_t i) const {
        return {std::min(tile, width - left(i)), std::min(tile, height - top(i)), width * channels,
                static_cast<unsigned>(channels), deep};
    }
    std::size_t offset(std::size_t i) const { return (top(i) * width + left(i)) * channels * (deep ? 2 : 1); }
};

unsigned slots() {
    return latens::threads();
}

nb::list encode(const Samples& samples, std::size_t tile, std::uint32_t near, unsigned effort,
                unsigned content) {
    const Grid grid(samples, tile);
    const latens::LosslessOptions options{near, effort, static_cast<latens::Content>(std::min(content, 2u))};
    std::vector<std::vector<std::uint8_t>> streams(grid.count());
    std::vector<latens::Status> status(grid.count());
    const auto* data = static_cast<const std::uint8_t*>(samples.data());
    std::atomic<bool> stop{false};
    {
        nb::gil_scoped_release release;
        latens::share(grid.count(), slots(), [&](std::size_t i, unsigned slot) {
            if (stop) return;
            if (slot == 0 && !poll()) stop = true;
            status[i] = latens::encode_tile(data + grid.offset(i), grid.shape(i), options, streams[i]);
        });
    }
    if (stop) check({latens::Code::interrupted});
    for (const latens::Status& each : status) check(each);
    nb::list result;
    for (const auto& stream : streams) result.append(nb::bytes(stream.data(), stream.size()));
    return result;
}

std::vector<std::optional<std::string>> decode(const nb::sequence& given, std::size_t tile,
                                               const OutSamples& out) {
    const Grid grid(out, tile);
    if (nb::len(given) != grid.count())
        raise("ShapeError",
              "expected " + std::to_string(grid.count()) + " tiles, got " + std::to_string(nb::len(given)));
    std::vector<std::optional<nb::bytes>> streams;
    for (const nb::handle each : given)
        streams.push_back(each.is_none() ? std::optional<nb::bytes>() : nb::cast<nb::bytes>(each));
    std::vector<latens::Status> status(grid.count());
    auto* data = static_cast<std::uint8_t*>(out.data());
    std::atomic<bool> stop{false};
    {
        nb::gil_scoped_release release;
        latens::share(grid.count(), slots(), [&](std::size_t i, unsigned slot) {
            if (stop || !streams[i]) return;
            if (slot == 0 && !poll()) stop = true;
            const auto* bytes = reinterpret_cast<const std::uint8_t*>(streams[i]->c_str());
            status[i] = latens::decode_tile(bytes, streams[i]->size(), grid.shape(i), data + grid.offset(i));
        });
    }
    if (stop) check({latens::Code::interrupted});
    std::vector<std::optional<std::string>> problems(grid.count());
    for (std::size_t i = 0; i < problems.size(); ++i)
        if (!status[i].ok()) problems[i] = latens::describe(status[i]);
    return problems;
}

}  // namespace

void add_lossless(nb::module_& m) {
    m.def("lossless_encode", &encode, "samples"_a.noconvert(), "tile"_a, "near"_a, "effort"_a, "content"_a);
    m.def("lossless_decode", &decode, "streams"_a, "tile"_a, "out"_a.noconvert());
}

}  // namespace bindings
