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

// Which blocks of 64 x 64 of a picture are coded, cut into tiles.
class Parts {
  public:
    template <class Array_>
    Parts(const Grid& grid, const Array_& map)
        : grid_(grid), columns_((grid.width + side - 1) / side), rows_((grid.height + side - 1) / side) {
        if (map.shape(0) != rows_ || map.shape(1) != columns_ || grid.tile % side != 0)
            raise("ShapeError", "expected a byte for each block of 64 x 64 pixels of whole tiles");
    }

    std::size_t blocks(std::size_t i) const { return latens::part_blocks(grid_.shape(i)); }
    // Calls `each(in the map of the picture, in that of the tile)`.
    template <class Each>
    void walk(std::size_t i, const Each& each) const {
        const latens::TileShape shape = grid_.shape(i);
        const std::size_t across = (shape.width + side - 1) / side;
        for (std::size_t k = 0; k < blocks(i); ++k)
            each((grid_.top(i) / side + k / across) * columns_ + grid_.left(i) / side + k % across, k);
    }

  private:
    static constexpr std::size_t side = latens::part_block;
    const Grid& grid_;
    std::size_t columns_, rows_;
};

using PartMap = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutPartMap = nb::ndarray<std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutBits = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <class Array_>
void check_mask(const Grid& grid, const Array_& mask) {
    if (mask.shape(0) != grid.height || mask.shape(1) != grid.width)
        raise("ShapeError", "expected a byte for each pixel");
}

nb::list encode(const Samples& samples, std::size_t tile, std::uint32_t near, std::uint32_t slack,
                unsigned effort, unsigned content, const std::optional<PartMap>& part,
                const std::optional<PartMap>& mask) {
    const Grid grid(samples, tile);
    const latens::LosslessOptions options{near, slack, effort,
                                          static_cast<latens::Content>(std::min(content, 2u))};
    std::optional<Parts> parts;
    if (part) parts.emplace(grid, *part);
    if (mask) check_mask(grid, *mask);
    std::vector<std::vector<std::uint8_t>> streams(grid.count());
    std::vector<latens::Status> status(grid.count());
    const auto* data = static_cast<const std::uint8_t*>(samples.data());
    std::atomic<bool> stop{false};
    {
        nb::gil_scoped_release release;
        latens::share(grid.count(), slots(), [&](std::size_t i, unsigned slot) {
            if (stop) return;
            if (slot == 0 && !poll()) stop = true;
            latens::LosslessOptions own = options;
            std::vector<std::uint8_t> blocks;
            if (parts) {
                blocks.resize(parts->blocks(i));
                parts->walk(i, [&](std::size_t from, std::size_t to) { blocks[to] = part->data()[from]; });
                if (std::find(blocks.begin(), blocks.end(), 1) == blocks.end()) return;
                if (std::find(blocks.begin(), blocks.end(), 0) != blocks.end()) own.part = blocks.data();
            }
            std::vector<std::uint8_t> pixels;
            if (mask) {
                const latens::TileShape shape = grid.shape(i);
                for (std::size_t y = 0; y < shape.height; ++y) {
                    const std::uint8_t* row = mask->data() + (grid.top(i) + y) * grid.width + grid.left(i);
                    pixels.insert(pixels.end(), row, row + shape.width);
                }
                if (std::find(pixels.begin(), pixels.end(), 1) == pixels.end()) return;
                own.mask = pixels.data();
            }
            status[i] = latens::encode_tile(data + grid.offset(i), grid.shape(i), own, streams[i]);
        });
    }
    if (stop) check({latens::Code::interrupted});
    for (const latens::Status& each : status) check(each);
    nb::list result;
    for (const auto& stream : streams) result.append(nb::bytes(stream.data(), stream.size()));
    return result;
}

std::vector<std::optional<std::string>> decode(const nb::sequence& given, std::size_t tile,
                                               const OutSamples& out, const std::optional<OutPartMap>& mask) {
    const Grid grid(out, tile);
    if (mask) check_mask(grid, *mask);
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
            const latens::TileShape shape = grid.shape(i);
            std::vector<std::uint8_t> there(mask ? shape.width * shape.height : 0);
            status[i] = latens::decode_tile(bytes, streams[i]->size(), shape, data + grid.offset(i),
                                            mask ? there.data() : nullptr);
            if (!mask || !status[i].ok()) return;
            for (std::size_t y = 0; y < shape.height; ++y)
                std::copy_n(there.data() + y * shape.width, shape.width,
                            mask->data() + (grid.top(i) + y) * grid.width + grid.left(i));
        });
    }
    if (stop) check({latens::Code::interrupted});
    std::vector<std::optional<std::string>> problems(grid.count());
    for (std::size_t i = 0; i < problems.size(); ++i)
        if (!status[i].ok()) problems[i] = latens::describe(status[i]);
    return problems;
}

void measure(const Samples& samples, std::size_t tile, std::uint32_t slack, const PartMap& part,
             const OutBits& out) {
    const Grid grid(samples, tile);
    const Parts parts(grid, part), same(grid, out);
    std::vector<latens::Status> status(grid.count());
    const auto* data = static_cast<const std::uint8_t*>(samples.data());
    {
        nb::gil_scoped_release release;
        latens::share(grid.count(), slots(), [&](std::size_t i, unsigned) {
            std::vector<std::uint8_t> blocks(parts.blocks(i));
            std::vector<float> bits(blocks.size());
            parts.walk(i, [&](std::size_t from, std::size_t to) { blocks[to] = part.data()[from]; });
            if (std::find(blocks.begin(), blocks.end(), 1) != blocks.end()) {
                latens::LosslessOptions options;
                options.slack = slack;
                options.part = blocks.data();
                status[i] = latens::measure_tile(data + grid.offset(i), grid.shape(i), options, bits.data());
            }
            parts.walk(i, [&](std::size_t to, std::size_t from) { out.data()[to] = bits[from]; });
        });
    }
    for (const latens::Status& each : status) check(each);
}

}  // namespace

void add_lossless(nb::module_& m) {
    m.def("lossless_encode", &encode, "samples"_a.noconvert(), "tile"_a, "near"_a, "slack"_a, "effort"_a,
          "content"_a, "part"_a.none(), "mask"_a.none());
    m.def("lossless_decode", &decode, "streams"_a, "tile"_a, "out"_a.noconvert(),
          "mask"_a.noconvert().none());
    m.def("lossless_measure", &measure, "samples"_a.noconvert(), "tile"_a, "slack"_a, "part"_a,
          "out"_a.noconvert());
}

}  // namespace bindings
