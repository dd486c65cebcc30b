#include "container.hpp"

#include <algorithm>
#include <cstring>
#include <tuple>

namespace latens {
namespace {

constexpr std::size_t max_side = 65535, max_tiles = 65536, max_metadata = std::size_t{16} << 20;
constexpr std::size_t max_unknown = 256, name_max = 64, indexed_from = 16;
constexpr std::uint8_t optional_bit = 0x20;
constexpr const char* newer = " is newer than this library; update it";

constexpr std::array<const char*, 3> prefixes = {"latens-base-", "latens-eye-", "latens-psnr-"};

// The order of chunks in a file; `T` and `D` are one kind.
enum class Chunk : std::uint8_t {
    icc,
    exif,
    xmp,
    density,
    alpha,
    tile,
    pixels,
    preview,
    index,
    end,
    unknown
};

Chunk kind_of(std::uint8_t type) {
    switch (type) {
        case 'i':
            return Chunk::icc;
        case 'e':
            return Chunk::exif;
        case 'x':
            return Chunk::xmp;
        case 'd':
            return Chunk::density;
        case 'A':
            return Chunk::alpha;
        case 'T':
        case 'D':
            return Chunk::tile;
        case 'c':
            return Chunk::pixels;
        case 'p':
            return Chunk::preview;
        case 'n':
            return Chunk::index;
        case 'Z':
            return Chunk::end;
        default:
            return Chunk::unknown;
    }
}

Outcome wrong(const std::string& message) {
    return failed(LTN_ERROR_FORMAT, message);
}
Outcome too_much(const std::string& message) {
    return failed(LTN_ERROR_LIMIT, message);
}

// As a header stores it.
std::string packed_name(std::string name) {
    for (std::size_t i = 0; i < prefixes.size(); ++i) {
        const std::string prefix = prefixes[i];
        if (name.size() > prefix.size() && name.compare(0, prefix.size(), prefix) == 0) {
            name = static_cast<char>(i + 1) + name.substr(prefix.size());
            break;
        }
    }
    name.back() = static_cast<char>(static_cast<unsigned char>(name.back()) | 0x80);
    return name;
}

Outcome read_header(View data, Header& h, std::size_t& end) {
    static constexpr std::uint8_t signature[] = {'L', 'T', 'N'};
    const std::size_t compared = std::min<std::size_t>(data.size, 3);
    if (data.size > 0 && std::memcmp(data.data, signature, compared) != 0)
        return failed(LTN_ERROR_NOT_LTN, "not a .ltn file: it does not begin with 'LTN'");
    if (data.size < 3)
        return failed(LTN_ERROR_TRUNCATED, "the file ends after " + std::to_string(data.size) + " bytes");
    Reader in(data, 3);
    const char* const what = "the header";
    std::uint32_t version = 0, flags = 0, tiling = 0, stored = 0;
    LATENS_TRY(in.uint(1, what, version));
    if (version != 1) return failed(LTN_ERROR_VERSION, "format version " + std::to_string(version) + newer);
    LATENS_TRY(in.uint(1, what, flags));
    const std::uint32_t profile = flags & 3, left_out = flags >> 5;
    if (profile == 1) return failed(LTN_ERROR_VERSION, "a video, which this library does not read");
    h.lossless = profile == 2;
    std::uint64_t width = 0, height = 0;
    LATENS_TRY(in.varint(what, width));
    LATENS_TRY(in.varint(what, height));
    const bool explicit_colour = (flags >> 4 & 1) != 0;
    const std::array<std::uint8_t, 4> srgb = h.colour;
    if (explicit_colour) {
        View part;
        LATENS_TRY(in.take(4, what, part));
        std::copy_n(part.data, 4, h.colour.begin());
    }
    std::string name;
    if (!h.lossless) {
        for (std::uint32_t byte = 0; byte < 0x80;) {
            if (name.size() == name_max) return wrong("model: the name is too long");
            LATENS_TRY(in.uint(1, what, byte));
            name += static_cast<char>(byte);
        }
        View ids;
        LATENS_TRY(in.take(8, what, ids));
        h.entropy_id = hexadecimal(ids.part(0, 4));
        h.weights_id = hexadecimal(ids.part(4, 4));
        std::uint32_t quality = 0;
        LATENS_TRY(in.uint(2, what, quality));
        h.quality = quality;
    } else {
        std::uint32_t near = 0;
        LATENS_TRY(in.uint(1, what, near));
        h.near = near;
    }
    LATENS_TRY(in.uint(1, what, tiling));
    if (!h.lossless) {
        std::uint32_t skip = 0;
        LATENS_TRY(in.uint(1, what, skip));
        h.skip = skip;
    }
    const std::uint32_t computed = crc32(data.part(0, in.pos()));
    LATENS_TRY(in.uint(4, what, stored));
    if (computed != stored) return failed(LTN_ERROR_CHECKSUM, "the header is damaged: its CRC-32 differs");
    end = in.pos();
    // Values count only now that they are what was written.
    if (profile == 3) return failed(LTN_ERROR_VERSION, std::string("profile 3") + newer);
    h.channels = (flags >> 2 & 1) != 0 ? 1 : 3;
    const bool deep = (flags >> 3 & 1) != 0;
    if (left_out > 0 && !deep)
        return failed(LTN_ERROR_VERSION, std::string("reserved bits of the header") + newer);
    h.bit_depth = deep ? 16 - left_out : 8;
    for (const auto& [side, value] : {std::pair{"width", width}, std::pair{"height", height}}) {
        if (value == 0) return wrong(std::string(side) + ": expected 1 or more");
        if (value > max_side) return too_much(std::string(side) + ": more than 65535 pixels");
    }
    h.width = static_cast<std::size_t>(width);
    h.height = static_cast<std::size_t>(height);
    if (explicit_colour) {
        if (h.colour == srgb) return wrong("colour: sRGB must not be spelled out");
        if (h.colour[2] != 0 || h.colour[3] > 1) return wrong("colour: not that of RGB samples");
    }
    if ((tiling & 15) > 10) return failed(LTN_ERROR_VERSION, std::string("the size of tiles") + newer);
    h.tile_size = block_side << (tiling & 15);
    if (h.lossless) {
        h.alpha = (tiling >> 4 & 1) != 0;
        if (tiling >> 5 != 0)
            return failed(LTN_ERROR_VERSION, std::string("reserved bits of the header") + newer);
        return {};
    }
    if (tiling >> 4 > 10) return failed(LTN_ERROR_VERSION, std::string("the number of lanes") + newer);
    h.lanes = 1u << (tiling >> 4);
    h.model = name;
    h.model.back() = static_cast<char>(h.model.back() & 0x7f);
    const auto code = static_cast<unsigned char>(h.model[0]);
    if (code >= 1 && code <= prefixes.size()) h.model = prefixes[code - 1] + h.model.substr(1);
    if (!name_is_valid(h.model)) return wrong("model: not a name");
    if (packed_name(h.model) != name) return wrong("model: the name is not stored in its shortest form");
    return {};
}

Outcome check_size(const Header& h, const FileLimits& limits) {
    if (std::uint64_t{h.width} * h.height > limits.max_pixels)
        return too_much(std::to_string(h.width) + " x " + std::to_string(h.height) +
                        " pixels are above the limit of " + std::to_string(limits.max_pixels));
    if (h.tiles() > max_tiles) return too_much(std::to_string(h.tiles()) + " tiles are above the limit");
    return {};
}

Outcome stream_fits(std::size_t index, std::size_t size, const Rect& rect) {
    if (size <= max_stream(rect)) return {};
    return too_much("tile " + std::to_string(index) + ": a stream of " + std::to_string(size) +
                    " bytes is above the limit");
}

// Takes the chunks one by one.
class Collector {
  public:
    Collector(Container& container, const FileLimits& limits, bool inner)
        : c_(container), h_(container.header), limits_(limits), inner_(inner) {
        c_.tiles.resize(h_.tiles());
    }

    Outcome add(std::uint8_t type, View payload, std::size_t start, std::size_t end) {
        const Chunk kind = kind_of(type);
        if (kind == Chunk::unknown) {
            if ((type & optional_bit) == 0)
                return failed(LTN_ERROR_VERSION, "the chunk at byte " + std::to_string(start) + newer);
            unknown_size_ += end - start;
            if (++unknown_ > max_unknown || unknown_size_ > max_metadata)
                return too_much("chunks of unknown type exceed the limit");
            return {};
        }
        const std::string where = "the chunk at byte " + std::to_string(start);
        if (kind < last_) return wrong(where + " is out of order");
        if (kind == last_ && seen_any_ && kind != Chunk::tile) return wrong(where + " is repeated");
        if (inner_ && (kind < Chunk::alpha || kind == Chunk::preview))
            return wrong(where + " must not be in a preview");
        last_ = kind;
        seen_any_ = true;
        switch (kind) {
            case Chunk::icc:
            case Chunk::exif:
            case Chunk::xmp: {
                static constexpr std::array<const char*, 3> names = {"ICC profile", "EXIF", "XMP"};
                const auto i = static_cast<std::size_t>(kind);
                LATENS_TRY(inflate(payload, max_metadata, names[i], c_.metadata[i]));
                return c_.metadata[i].empty() ? wrong(std::string(names[i]) + " is empty") : Outcome{};
            }
            case Chunk::density:
                return density(payload);
            case Chunk::alpha:
                return alpha(payload);
            case Chunk::tile:
                return tile(type, payload, start, end);
            case Chunk::pixels: {
                if (payload.size != 4) return wrong("checksum of the picture: expected 4 bytes");
                std::uint32_t crc = 0;
                LATENS_TRY(Reader(payload).uint(4, "the picture's checksum", crc));
                c_.pixels = crc;
                return {};
            }
            case Chunk::preview:
                return preview(payload);
            case Chunk::index:
                return index(payload);
            default:
                return finish(payload, start);
        }
    }
    bool ended() const { return ended_; }
    std::size_t missing() const { return c_.tiles.size() - sizes_.size(); }

  private:
    Outcome density(View payload) {
        Reader in(payload);
        Density d;
        std::uint32_t unit = 0;
        LATENS_TRY(in.uint(1, "density", unit));
        if (unit > 3) return failed(LTN_ERROR_VERSION, std::string("density: its unit") + newer);
        d.unit = unit;
        for (std::uint64_t& part : d.fractions) LATENS_TRY(in.varint("density", part));
        for (const std::uint64_t part : d.fractions)
            if (part == 0) return wrong("density: a fraction has a zero");
        if (in.left() > 0) return wrong("density: its payload is too long");
        c_.density = d;
        return {};
    }

    Outcome alpha(View payload) {
        if (h_.lossless) return wrong("alpha has a chunk of its own in a lossless file");
        if (payload.size == 0) return wrong("alpha: the chunk is empty");
        const std::uint8_t filter = payload.data[0];
        if (filter > 2) return failed(LTN_ERROR_VERSION, std::string("alpha: its filter") + newer);
        Reader in(payload, 1);
        if (filter == 2) {
            c_.alpha_tiles.resize(h_.tiles());
            for (std::size_t i = 0; i < c_.alpha_tiles.size(); ++i) {
                std::uint64_t size = 0;
                LATENS_TRY(in.varint("alpha", size));
                if (size > max_stream(h_.tile(i))) return too_much("alpha: a tile is above the limit");
                LATENS_TRY(in.take(size, "alpha", c_.alpha_tiles[i]));
            }
            return in.left() > 0 ? wrong("alpha: its payload is too long") : Outcome{};
        }
        const std::size_t stride = h_.width * h_.sample_bytes(), size = stride * h_.height;
        Outcome o = inflate(payload.part(1, payload.size - 1), size, "alpha", c_.alpha);
        if (o.code == LTN_ERROR_LIMIT) o.code = LTN_ERROR_FORMAT;
        if (!o.ok()) return o;
        if (c_.alpha.size() != size) return wrong("alpha: it does not have the size of the image");
        if (filter == 1)
            for (std::size_t i = stride; i < size; ++i)
                c_.alpha[i] = static_cast<std::uint8_t>(c_.alpha[i] + c_.alpha[i - stride]);
        return {};
    }

    Outcome tile(std::uint8_t type, View payload, std::size_t start, std::size_t end) {
        Reader in(payload);
        const std::size_t count = c_.tiles.size(), next = sizes_.size();
        std::uint64_t number = 0;
        if (count > 1) LATENS_TRY(in.varint("a tile's number", number));
        if (number >= count) return wrong("tile " + std::to_string(number) + " does not exist");
        if (number < next) return wrong("tile " + std::to_string(number) + " is repeated");
        if (number > next)
            return wrong("tile " + std::to_string(number) + " where tile " + std::to_string(next) +
                         " was expected");
        FileTile& t = c_.tiles[next];
        const Rect rect = h_.tile(next);
        LATENS_TRY(in.uint(4, "a tile", t.checksum));
        if (type == 'D') {
            if (h_.lossless) return wrong("drawn blocks in a lossless file");
            std::uint64_t size = 0;
            LATENS_TRY(in.varint("a tile", size));
            LATENS_TRY(in.take(size, "a tile", t.stream));
            LATENS_TRY(in.uint(4, "a tile", t.drawn_checksum));
            LATENS_TRY(in.take(in.left(), "a tile", t.drawn));
            LATENS_TRY(stream_fits(next, t.drawn.size, rect));
            if (t.drawn.size == 0) return wrong("a tile has no drawn blocks, and should be no D chunk");
        } else {
            LATENS_TRY(in.take(in.left(), "a tile", t.stream));
        }
        LATENS_TRY(stream_fits(next, t.stream.size, rect));
        if (next == 0) first_ = start;
        sizes_.push_back(end - start);
        return {};
    }

    Outcome preview(View payload) {
        if (payload.size > max_metadata) return too_much("the preview is above 16 MiB");
        Container found;
        Outcome o = read_container(payload, limits_, found, true);
        if (o.code == LTN_ERROR_NOT_LTN) o.code = LTN_ERROR_FORMAT;
        if (!o.ok()) {
            o.message = "preview: " + o.message;
            return o;
        }
        const Header& h = found.header;
        const auto same = [](const Header& a) {
            return std::tie(a.channels, a.bit_depth, a.colour, a.model, a.entropy_id, a.weights_id,
                            a.lossless);
        };
        if (h.width != (h_.width + 7) / 8 || h.height != (h_.height + 7) / 8 || same(h) != same(h_) ||
            found.has_alpha() != c_.has_alpha())
            return wrong("preview: it is not an eighth of the picture, or of another kind");
        c_.preview = payload;
        return {};
    }

    Outcome index(View payload) {
        Reader in(payload);
        std::uint64_t value = 0;
        LATENS_TRY(in.varint("index", value));
        bool same = missing() > 0 || value == first_;
        for (std::size_t i = 0; i < c_.tiles.size(); ++i) {
            LATENS_TRY(in.varint("index", value));
            same = same && (missing() > 0 || value == sizes_[i]);
        }
        std::uint32_t whole = 0;
        LATENS_TRY(in.uint(4, "index", whole));
        Buffer length;
        put_varint(length, payload.size);
        if (whole != 1 + length.size() + payload.size + 4 || in.left() > 0)
            return wrong("index: it does not fit to the tiles of the image");
        return same ? Outcome{} : wrong("index: it names other places than those of the tiles");
    }

    Outcome finish(View payload, std::size_t start) {
        Reader in(payload);
        std::uint64_t size = 0;
        LATENS_TRY(in.varint("END", size));
        if (in.left() > 0) return wrong("END: its payload is too long");
        if (size != start) return wrong("END names another number of bytes: chunks are missing");
        ended_ = true;
        return {};
    }

    Container& c_;
    const Header& h_;
    const FileLimits& limits_;
    const bool inner_;
    Chunk last_ = Chunk::icc;
    bool seen_any_ = false, ended_ = false;
    std::size_t unknown_ = 0, unknown_size_ = 0, first_ = 0;
    std::vector<std::size_t> sizes_;  // of the chunks of tiles
};

void put_chunk(Buffer& out, char type, const Buffer& payload) {
    const std::size_t start = out.size();
    out.push_back(static_cast<std::uint8_t>(type));
    put_varint(out, payload.size());
    put(out, {payload.data(), payload.size()});
    put_uint(out, crc32({out.data() + start, out.size() - start}), 4);
}

void put_header(Buffer& out, const Header& h) {
    const bool coloured = h.colour != Header().colour;
    const auto log2 = [](std::size_t n) {
        std::uint8_t k = 0;
        while ((std::size_t{1} << k) < n) ++k;
        return k;
    };
    const unsigned flags = (h.lossless ? 2u : 0u) | (h.channels == 1 ? 4u : 0u) | (h.deep() ? 8u : 0u) |
                           (coloured ? 16u : 0u) | (h.deep() ? 16 - h.bit_depth : 0u) << 5;
    for (const char c : {'L', 'T', 'N', '\1'}) out.push_back(static_cast<std::uint8_t>(c));
    out.push_back(static_cast<std::uint8_t>(flags));
    put_varint(out, h.width);
    put_varint(out, h.height);
    if (coloured) put(out, {h.colour.data(), 4});
    const std::uint8_t size = log2(h.tile_size / block_side);
    if (h.lossless) {
        out.push_back(static_cast<std::uint8_t>(h.near));
        out.push_back(static_cast<std::uint8_t>(size | (h.alpha ? 16 : 0)));
    } else {
        const std::string name = packed_name(h.model);
        out.insert(out.end(), name.begin(), name.end());
        for (const std::string* id : {&h.entropy_id, &h.weights_id})
            for (std::size_t i = 0; i < 8; i += 2)
                out.push_back(static_cast<std::uint8_t>(std::stoul(id->substr(i, 2), nullptr, 16)));
        put_uint(out, h.quality, 2);
        out.push_back(static_cast<std::uint8_t>(size | log2(h.lanes) << 4));
        out.push_back(static_cast<std::uint8_t>(h.skip));
    }
    put_uint(out, crc32({out.data(), out.size()}), 4);
}

}  // namespace

bool name_is_valid(const std::string& name) {
    if (name.empty() || name.size() > name_max) return false;
    for (std::size_t i = 0; i < name.size(); ++i) {
        const char c = name[i];
        const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!plain && (i == 0 || (c != '.' && c != '_' && c != '-'))) return false;
    }
    return true;
}

Rect Header::tile(std::size_t index) const {
    const std::size_t x = index % columns() * tile_size, y = index / columns() * tile_size;
    return {x, y, std::min(tile_size, width - x), std::min(tile_size, height - y)};
}

Outcome read_container(View data, const FileLimits& limits, Container& result, bool inner) {
    std::size_t position = 0;
    LATENS_TRY(read_header(data, result.header, position));
    LATENS_TRY(check_size(result.header, limits));
    Collector collector(result, limits, inner);
    while (!collector.ended()) {
        if (position == data.size) return failed(LTN_ERROR_TRUNCATED, "the file ends without an END chunk");
        Reader in(data, position);
        std::uint32_t type = 0, stored = 0;
        std::uint64_t size = 0;
        View payload;
        LATENS_TRY(in.uint(1, "a chunk", type));
        LATENS_TRY(in.varint("a chunk's size", size));
        LATENS_TRY(in.take(size, "a chunk", payload));
        const std::uint32_t computed = crc32(data.part(position, in.pos() - position));
        LATENS_TRY(in.uint(4, "a chunk's CRC", stored));
        if (stored != computed)
            return failed(LTN_ERROR_CHECKSUM, "the chunk at byte " + std::to_string(position) +
                                                  " is damaged: its CRC-32 differs");
        LATENS_TRY(collector.add(static_cast<std::uint8_t>(type), payload, position, in.pos()));
        position = in.pos();
    }
    if (collector.missing() > 0) return wrong(std::to_string(collector.missing()) + " tiles are missing");
    if (position != data.size)
        return wrong(std::to_string(data.size - position) + " bytes follow the END chunk");
    return {};
}

Outcome write_container(const Container& c, Buffer& out) {
    const Header& h = c.header;
    out.clear();
    put_header(out, h);
    Buffer payload;
    for (std::size_t i = 0; i < c.metadata.size(); ++i) {
        if (c.metadata[i].empty()) continue;
        if (c.metadata[i].size() > max_metadata) return too_much("metadata are above 16 MiB");
        payload.clear();
        store({c.metadata[i].data(), c.metadata[i].size()}, payload);
        put_chunk(out, "iex"[i], payload);
    }
    if (c.density) {
        payload.assign(1, static_cast<std::uint8_t>(c.density->unit));
        for (const std::uint64_t part : c.density->fractions) put_varint(payload, part);
        put_chunk(out, 'd', payload);
    }
    if (!c.alpha_tiles.empty()) {
        payload.assign(1, 2);
        for (const View& stream : c.alpha_tiles) {
            put_varint(payload, stream.size);
            put(payload, stream);
        }
        put_chunk(out, 'A', payload);
    }
    const std::size_t first = out.size();
    std::vector<std::size_t> sizes;
    for (std::size_t i = 0; i < c.tiles.size(); ++i) {
        const FileTile& t = c.tiles[i];
        LATENS_TRY(stream_fits(i, t.stream.size, h.tile(i)));
        payload.clear();
        if (c.tiles.size() > 1) put_varint(payload, i);
        put_uint(payload, t.checksum, 4);
        if (t.drawn.size > 0) put_varint(payload, t.stream.size);
        put(payload, t.stream);
        if (t.drawn.size > 0) {
            put_uint(payload, t.drawn_checksum, 4);
            put(payload, t.drawn);
        }
        const std::size_t start = out.size();
        put_chunk(out, t.drawn.size > 0 ? 'D' : 'T', payload);
        sizes.push_back(out.size() - start);
    }
    if (c.pixels) {
        payload.clear();
        put_uint(payload, *c.pixels, 4);
        put_chunk(out, 'c', payload);
    }
    if (sizes.size() >= indexed_from) {
        payload.clear();
        put_varint(payload, first);
        for (const std::size_t size : sizes) put_varint(payload, size);
        Buffer length;
        put_varint(length, payload.size() + 4);
        put_uint(payload, static_cast<std::uint32_t>(1 + length.size() + payload.size() + 4 + 4), 4);
        put_chunk(out, 'n', payload);
    }
    payload.clear();
    put_varint(payload, out.size());
    put_chunk(out, 'Z', payload);
    return {};
}

}  // namespace latens
