#include "picture.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "lossless.hpp"
#include "pool.hpp"

namespace latens {
namespace {

constexpr std::size_t rows_at_once = 8;  // of y, that synthesis takes: what comes out is much larger
// What a position of y in a row takes while synthesis looks at it and its neighbours, about.
constexpr std::size_t bytes_per_column = 96 * 1024;

bool always() {
    return true;
}

std::string tile_name(std::size_t index) {
    return "tile " + std::to_string(index) + ": ";
}

// CRC-32 of rows of samples, in the order of files.
std::uint32_t sample_crc(const std::uint8_t* samples, std::size_t bytes, bool deep,
                         std::uint32_t before = 0) {
    if (std::endian::native == std::endian::little || !deep) return crc32({samples, bytes}, before);
    Buffer swapped(samples, samples + bytes);
    for (std::size_t i = 0; i + 1 < bytes; i += 2) std::swap(swapped[i], swapped[i + 1]);
    return crc32({swapped.data(), bytes}, before);
}

// Of a rectangle of a picture.
std::uint32_t rect_crc(const std::uint8_t* picture, const Rect& rect, std::size_t pitch, std::size_t pixel,
                       bool deep) {
    std::uint32_t crc = 0;
    for (std::size_t row = 0; row < rect.height; ++row)
        crc = sample_crc(picture + (rect.y + row) * pitch + rect.x * pixel, rect.width * pixel, deep, crc);
    return crc;
}

// Decodes lossless tiles of a whole picture on all threads; `streams` has one for each tile.
Outcome decode_tiles(const Header& h, const std::vector<View>& streams, unsigned channels, Buffer& out,
                     const std::string& where) {
    if (h.tile_size > max_tile_side)
        return failed(LTN_ERROR_LIMIT, "tiles are above the limit of 4096 pixels");
    const std::size_t pixel = channels * h.sample_bytes(), pitch = h.width * pixel;
    out.assign(pitch * h.height, 0);
    std::vector<Status> found(streams.size());
    share(streams.size(), threads(), [&](std::size_t i, unsigned) {
        const Rect rect = h.tile(i);
        const TileShape shape{rect.width, rect.height, h.width * channels, channels, h.deep()};
        found[i] = decode_tile(streams[i].data, streams[i].size, shape,
                               out.data() + rect.y * pitch + rect.x * pixel);
    });
    for (std::size_t i = 0; i < found.size(); ++i)
        LATENS_TRY(outcome_of(found[i], LTN_ERROR_CODER, where + tile_name(i)));
    return {};
}

// The drawn blocks of a tile.
struct Layer {
    Rect rect;
    Buffer samples;
    std::vector<std::uint8_t> mask;  // of each pixel, whether it is there
};

Outcome decode_layer(const Header& h, const FileTile& tile, std::size_t index, Layer& layer) {
    layer.rect = h.tile(index);
    const std::size_t pixel = h.channels * h.sample_bytes();
    const TileShape shape{layer.rect.width, layer.rect.height, layer.rect.width * h.channels, h.channels,
                          h.deep()};
    layer.samples.assign(layer.rect.width * layer.rect.height * pixel, 0);
    layer.mask.assign(shape.width * shape.height, 0);
    LATENS_TRY(outcome_of(
        decode_tile(tile.drawn.data, tile.drawn.size, shape, layer.samples.data(), layer.mask.data()),
        LTN_ERROR_CODER, tile_name(index)));
    if (sample_crc(layer.samples.data(), layer.samples.size(), h.deep()) != tile.drawn_checksum)
        return failed(LTN_ERROR_CHECKSUM, tile_name(index) + "its drawn blocks have another checksum");
    return {};
}

// Lays drawn blocks over rows `top` to `end` of a picture.
void compose(const Header& h, const Layer& layer, std::size_t top, std::size_t end, std::uint8_t* picture) {
    const Rect& r = layer.rect;
    const std::size_t pixel = h.channels * h.sample_bytes();
    for (std::size_t y = std::max(top, r.y); y < std::min(end, r.y + r.height); ++y) {
        const std::uint8_t* const first = layer.mask.data() + (y - r.y) * r.width;
        for (const std::uint8_t *at = first, *last = first + r.width; at < last;) {
            const std::uint8_t* const begin = std::find(at, last, 1);
            at = std::find(begin, last, 0);
            std::memcpy(picture + (y * h.width + r.x + static_cast<std::size_t>(begin - first)) * pixel,
                        layer.samples.data() +
                            ((y - r.y) * r.width + static_cast<std::size_t>(begin - first)) * pixel,
                        static_cast<std::size_t>(at - begin) * pixel);
        }
    }
}

// The picture that latents of tiles become, row of tiles by row of tiles.
class Synthesis {
  public:
    Synthesis(const Model& model, const Header& header, Buffer& pixels)
        : model_(model), h_(header), pixels_(pixels), width_(coded(header.width) / latent_side) {}

    Outcome open() {
        const Samples samples{h_.deep() ? 16 : 8, h_.channels};
        LATENS_TRY(model_.synthesis(width_, h_.quality, samples, stream_));
        pixels_.resize(h_.width * h_.height * h_.channels * h_.sample_bytes());
        return {};
    }

    void put(std::size_t index, const Latents& latents, std::optional<Layer> layer) {
        const Rect rect = h_.tile(index);
        const std::size_t channels = model_.channels(), columns = coded(rect.width) / latent_side;
        rows_ = coded(rect.height) / latent_side;
        band_.resize(rows_ * width_ * channels);
        for (std::size_t row = 0; row < rows_; ++row)
            std::copy_n(latents.entry.begin() + static_cast<std::ptrdiff_t>(row * columns * channels),
                        columns * channels,
                        band_.begin() +
                            static_cast<std::ptrdiff_t>((row * width_ + rect.x / latent_side) * channels));
        if (layer) layers_.push_back(std::move(*layer));
    }

    // After all tiles of a row of them.
    Outcome band(bool last) {
        for (std::size_t row = 0; row < rows_; row += rows_at_once) {
            const std::size_t some = std::min(rows_at_once, rows_ - row);
            LATENS_TRY(
                push(band_.data() + row * width_ * model_.channels(), some, last && row + some == rows_));
        }
        return {};
    }
    std::uint32_t crc() const { return crc_; }

  private:
    Outcome push(const std::int16_t* rows, std::size_t count, bool last) {
        const std::size_t ready = stream_.ready(count, last), pixel = h_.channels * h_.sample_bytes();
        const std::size_t pitch = stream_.out_width() * pixel, row = h_.width * pixel;
        out_.resize(ready * pitch);
        LATENS_TRY(outcome_of(stream_.push(rows, count, last, out_.data(), always), LTN_ERROR_MODEL));
        const std::size_t end = std::min(h_.height, top_ + ready);
        for (std::size_t y = top_; y < end; ++y)
            std::memcpy(pixels_.data() + y * row, out_.data() + (y - top_) * pitch, row);
        for (const Layer& layer : layers_) compose(h_, layer, top_, end, pixels_.data());
        layers_.erase(std::remove_if(layers_.begin(), layers_.end(),
                                     [&](const Layer& l) { return l.rect.y + l.rect.height <= end; }),
                      layers_.end());
        crc_ = sample_crc(pixels_.data() + top_ * row, (end - top_) * row, h_.deep(), crc_);
        top_ = end;
        return {};
    }

    const Model& model_;
    const Header& h_;
    Buffer& pixels_;
    std::size_t width_, rows_ = 0, top_ = 0;
    Stream stream_;
    Int16s band_;
    Buffer out_;
    std::vector<Layer> layers_;
    std::uint32_t crc_ = 0;
};

// About the bytes that decoding takes beside the file; 0 where that is more than can be counted.
std::uint64_t memory_needed(const Container& c, const Model* model) {
    const Header& h = c.header;
    const std::uint64_t area = std::uint64_t{h.width} * h.height;
    std::uint64_t sum = area * h.sample_bytes() * (h.channels + (c.has_alpha() ? 1 : 0));
    const std::uint64_t side = coded(std::min(h.tile_size, std::max(h.width, h.height)));
    const std::uint64_t tile_area =
        coded(std::min(h.tile_size, h.width)) * coded(std::min(h.tile_size, h.height));
    // The models of a lossless tile, and its colours.
    const std::uint64_t lossless = tile_area * h.channels * h.sample_bytes() * 4 + (std::uint64_t{8} << 20);
    if (h.lossless) return 2 * sum + std::min<std::uint64_t>(threads(), h.tiles()) * lossless;
    if (model != nullptr) {
        const std::uint64_t columns = coded(h.width) / latent_side;
        sum += model->memory(tile_area / (latent_side * latent_side));
        sum += columns * (side / latent_side) * model->channels() * 2;
        sum += columns * bytes_per_column;
    }
    const bool draws =
        std::any_of(c.tiles.begin(), c.tiles.end(), [](const FileTile& t) { return t.drawn.size > 0; });
    if (draws) sum += lossless + coded(h.width) * side * h.channels * h.sample_bytes();
    return sum;
}

Outcome check_model(const Model* model, const Header& h) {
    if (model == nullptr)
        return failed(LTN_ERROR_WRONG_WEIGHTS,
                      "the file needs the model " + h.model + ", and none was given");
    if (model->entropy_id().compare(0, 8, h.entropy_id) != 0)
        return failed(LTN_ERROR_WRONG_WEIGHTS, "the file was made with " + h.model + " of entropy id " +
                                                   h.entropy_id + ", the model at hand is " + model->name() +
                                                   " with " + model->entropy_id().substr(0, 8));
    if (model->weights_id().compare(0, 8, h.weights_id) != 0)
        return failed(LTN_ERROR_WRONG_WEIGHTS, "the file was made with weights " + h.weights_id +
                                                   ", those at hand are " + model->weights_id().substr(0, 8));
    return {};
}

// Alpha of the file of a model.
Outcome decode_alpha(Container& c, Buffer& out) {
    if (!c.alpha_tiles.empty()) return decode_tiles(c.header, c.alpha_tiles, 1, out, "alpha: ");
    out = std::move(c.alpha);
    if (std::endian::native != std::endian::little && c.header.deep())
        for (std::size_t i = 0; i + 1 < out.size(); i += 2) std::swap(out[i], out[i + 1]);
    return {};
}

Outcome decode_lossless(const Container& c, Picture& result) {
    const Header& h = c.header;
    const unsigned channels = h.channels + (h.alpha ? 1 : 0);
    std::vector<View> streams;
    for (const FileTile& tile : c.tiles) streams.push_back(tile.stream);
    Buffer all;
    LATENS_TRY(decode_tiles(h, streams, channels, all, ""));
    const std::size_t sample = h.sample_bytes(), pixel = channels * sample;
    for (std::size_t i = 0; i < c.tiles.size(); ++i)
        if (rect_crc(all.data(), h.tile(i), h.width * pixel, pixel, h.deep()) != c.tiles[i].checksum)
            return failed(LTN_ERROR_CHECKSUM, tile_name(i) + "its samples have another checksum");
    if (c.pixels && !h.alpha && sample_crc(all.data(), all.size(), h.deep()) != *c.pixels)
        return failed(LTN_ERROR_CHECKSUM, "the decoded picture has another checksum");
    if (!h.alpha) {
        result.pixels = std::move(all);
        return {};
    }
    const std::size_t count = h.width * h.height, colour = h.channels * sample;
    result.pixels.resize(count * colour);
    result.alpha.resize(count * sample);
    for (std::size_t i = 0; i < count; ++i) {
        std::memcpy(result.pixels.data() + i * colour, all.data() + i * pixel, colour);
        std::memcpy(result.alpha.data() + i * sample, all.data() + i * pixel + colour, sample);
    }
    return {};
}

Outcome decode_modelled(const Model& model, Container& c, Picture& result) {
    const Header& h = c.header;
    if (h.tile_size > max_tile_side)
        return failed(LTN_ERROR_LIMIT, "tiles are above the limit of 4096 pixels");
    Synthesis synthesis(model, h, result.pixels);
    LATENS_TRY(synthesis.open());
    const std::size_t columns = h.columns(), count = h.tiles();
    for (std::size_t i = 0; i < count; ++i) {
        const FileTile& tile = c.tiles[i];
        const Rect rect = h.tile(i);
        Latents latents;
        Outcome o = model.decode(tile.stream, coded(rect.height), coded(rect.width), h.quality, h.skip,
                                 h.lanes, latents);
        if (!o.ok()) return failed(o.code, tile_name(i) + o.message);
        if (latents.checksum != tile.checksum)
            return failed(LTN_ERROR_CHECKSUM, tile_name(i) + "its symbols have another checksum");
        std::optional<Layer> layer;
        if (tile.drawn.size > 0) LATENS_TRY(decode_layer(h, tile, i, layer.emplace()));
        synthesis.put(i, latents, std::move(layer));
        if ((i + 1) % columns == 0) LATENS_TRY(synthesis.band(i + 1 == count));
    }
    if (c.pixels && synthesis.crc() != *c.pixels)
        return failed(LTN_ERROR_CHECKSUM, "the decoded picture has another checksum than was stored");
    return decode_alpha(c, result.alpha);
}

constexpr std::size_t tile_side = 1024;
constexpr unsigned lanes_of_many = 8;  // in files of several tiles
// One lossless tile sees the whole picture, several are coded at the same time: what takes long is cut.
constexpr std::size_t one_tile_pixels = std::size_t{1} << 22, lossless_side = 2048;

// Lossless tiles of a picture whose rows are `pitch` bytes apart, on all threads.
Outcome encode_tiles(const Header& h, Plane plane, unsigned channels, const LosslessOptions& options,
                     std::vector<Buffer>& streams) {
    const std::size_t sample = h.sample_bytes();
    streams.assign(h.tiles(), {});
    std::vector<Status> found(streams.size());
    share(streams.size(), threads(), [&](std::size_t i, unsigned) {
        const Rect rect = h.tile(i);
        const TileShape shape{rect.width, rect.height, plane.pitch / sample, channels, h.deep()};
        const std::uint8_t* data = plane.data + rect.y * plane.pitch + rect.x * channels * sample;
        found[i] = encode_tile(data, shape, options, streams[i]);
        if (options.near == 0 || !found[i].ok()) return;
        // Errors make new colours of a drawing's few: a tile may be smaller without any.
        LosslessOptions exact = options;
        Buffer other;
        exact.near = 0;
        found[i] = encode_tile(data, shape, exact, other);
        if (other.size() < streams[i].size()) streams[i] = std::move(other);
    });
    for (const Status& status : found) LATENS_TRY(outcome_of(status, LTN_ERROR_ARGUMENT));
    return {};
}

// What is the same in all files of a picture.
Container begin(const Picture& about) {
    Container c;
    c.header = about.header;
    c.metadata = about.metadata;
    c.density = about.density;
    return c;
}

// Rows of samples in the order in which they come, with the border repeated up to whole blocks.
class Padded {
  public:
    Padded(const Header& h, Plane plane)
        : h_(h), plane_(plane), pixel_(h.channels * h.sample_bytes()), row_(coded(h.width) * pixel_) {}

    const Buffer& rows(std::size_t top, std::size_t count) {
        held_.resize(count * row_);
        for (std::size_t i = 0; i < count; ++i) {
            std::uint8_t* to = held_.data() + i * row_;
            std::memcpy(to, plane_.data + std::min(top + i, h_.height - 1) * plane_.pitch, h_.width * pixel_);
            for (std::size_t x = h_.width * pixel_; x < row_; ++x) to[x] = to[x - pixel_];
        }
        return held_;
    }

  private:
    const Header& h_;
    Plane plane_;
    std::size_t pixel_, row_;
    Buffer held_;
};

}  // namespace

Outcome decode_picture(const Model* model, View data, const FileLimits& limits, Picture& result) {
    Container c;
    LATENS_TRY(read_container(data, limits, c));
    const Header& h = c.header;
    if (!h.lossless) LATENS_TRY(check_model(model, h));
    if (const std::uint64_t needed = memory_needed(c, model); needed > limits.max_memory)
        return failed(LTN_ERROR_LIMIT, "decoding takes about " + std::to_string(needed >> 20) +
                                           " MiB, the limit is " + std::to_string(limits.max_memory >> 20));
    result.has_alpha = c.has_alpha();
    LATENS_TRY(h.lossless ? decode_lossless(c, result) : decode_modelled(*model, c, result));
    result.header = h;
    result.metadata = std::move(c.metadata);
    result.density = c.density;
    return {};
}

Outcome encode_picture(const Model& model, const Picture& about, Plane pixels, Plane alpha, double quality,
                       Buffer& out) {
    Container c = begin(about);
    Header& h = c.header;
    h.lossless = h.alpha = false;
    h.model = model.name();
    h.entropy_id = model.entropy_id().substr(0, 8);
    h.weights_id = model.weights_id().substr(0, 8);
    h.quality = model.level(quality);
    h.skip = Model::skip;
    h.tile_size = tile_side;
    h.lanes = lanes_of_many;
    const std::size_t width = coded(h.width), columns = width / latent_side, M = model.channels();
    Stream analysis;
    LATENS_TRY(model.analysis(width, {h.deep() ? 16 : 8, h.channels}, analysis));
    Buffer decoded;
    Synthesis synthesis(model, h, decoded);
    LATENS_TRY(synthesis.open());
    Padded padded_rows(h, pixels);
    Int16s features;  // rows that analysis gave, and no tile took
    std::size_t pushed = 0, first = 0;
    std::vector<Buffer> streams(h.tiles());
    c.tiles.resize(h.tiles());
    for (std::size_t i = 0; i < c.tiles.size(); ++i) {
        const Rect rect = h.tile(i);
        const std::size_t height = coded(rect.height), wide = coded(rect.width) / latent_side;
        // Analysis looks below: a row of tiles is known when more rows have come, or there are none.
        while (features.size() < height / latent_side * columns * M) {
            const bool last = pushed + block_side >= coded(h.height);
            const std::size_t ready = analysis.ready(block_side, last), before = features.size();
            features.resize(before + ready * columns * M);
            LATENS_TRY(outcome_of(analysis.push(padded_rows.rows(pushed, block_side).data(), block_side, last,
                                                features.data() + before, always),
                                  LTN_ERROR_MODEL));
            pushed += block_side;
        }
        Int16s own(height / latent_side * wide * M);
        for (std::size_t row = 0; row < height / latent_side; ++row)
            std::copy_n(
                features.begin() + static_cast<std::ptrdiff_t>((row * columns + rect.x / latent_side) * M),
                wide * M, own.begin() + static_cast<std::ptrdiff_t>(row * wide * M));
        CodedTile coded_tile;
        LATENS_TRY(model.encode(own, height, coded(rect.width), h.quality,
                                c.tiles.size() == 1 ? 0 : lanes_of_many, coded_tile));
        h.lanes = coded_tile.lanes;
        streams[i] = std::move(coded_tile.stream);
        c.tiles[i].checksum = coded_tile.latents.checksum;
        c.tiles[i].stream = {streams[i].data(), streams[i].size()};
        synthesis.put(i, coded_tile.latents, {});
        if (++first < h.columns()) continue;
        first = 0;
        features.erase(features.begin(),
                       features.begin() + static_cast<std::ptrdiff_t>(height / latent_side * columns * M));
        LATENS_TRY(synthesis.band(i + 1 == c.tiles.size()));
    }
    c.pixels = synthesis.crc();
    std::vector<Buffer> planes;
    if (alpha.data != nullptr) {
        LATENS_TRY(encode_tiles(h, alpha, 1, {}, planes));
        for (const Buffer& plane : planes) c.alpha_tiles.push_back({plane.data(), plane.size()});
    }
    return write_container(c, out);
}

Outcome encode_lossless(const Picture& about, Plane pixels, Plane alpha, unsigned near, unsigned effort,
                        Buffer& out) {
    Container c = begin(about);
    Header& h = c.header;
    const std::size_t longest = std::max(h.width, h.height);
    h.lossless = true;
    h.alpha = alpha.data != nullptr;
    h.near = near;
    h.tile_size = lossless_side;
    if (h.width * h.height <= one_tile_pixels && longest <= max_tile_side)
        for (h.tile_size = tile_side; h.tile_size < longest;) h.tile_size *= 2;
    const std::size_t sample = h.sample_bytes(), colour = h.channels * sample;
    const unsigned channels = h.channels + (h.alpha ? 1 : 0);
    Buffer joined;
    if (h.alpha) {
        joined.resize(h.width * h.height * (colour + sample));
        std::uint8_t* to = joined.data();
        for (std::size_t y = 0; y < h.height; ++y)
            for (std::size_t x = 0; x < h.width; ++x, to += colour + sample) {
                std::memcpy(to, pixels.data + y * pixels.pitch + x * colour, colour);
                std::memcpy(to + colour, alpha.data + y * alpha.pitch + x * sample, sample);
            }
        pixels = {joined.data(), h.width * (colour + sample)};
    }
    LosslessOptions options;
    options.near = near;
    options.effort = effort;
    std::vector<Buffer> streams;
    LATENS_TRY(encode_tiles(h, pixels, channels, options, streams));
    std::vector<View> views;
    for (const Buffer& stream : streams) views.push_back({stream.data(), stream.size()});
    Buffer kept;
    if (near > 0) {
        // What is kept of a sample that may be off is known only after decoding.
        LATENS_TRY(decode_tiles(h, views, channels, kept, ""));
        pixels = {kept.data(), h.width * channels * sample};
    }
    for (std::size_t i = 0; i < views.size(); ++i)
        c.tiles.push_back(
            {rect_crc(pixels.data, h.tile(i), pixels.pitch, channels * sample, h.deep()), views[i], {}, 0});
    return write_container(c, out);
}

}  // namespace latens
