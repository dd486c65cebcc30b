#include "lossless.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <new>

#include "adaptive.hpp"
#include "lossless_drawn.hpp"
#include "lossless_smooth.hpp"

namespace latens {
namespace {

constexpr std::uint8_t stored = 0, coded = 1, partial = 2, masked = 3;
constexpr unsigned max_scale = 16;

template <class Number>
Number read_sample(const void* samples, std::size_t at) {
    return static_cast<const Number*>(samples)[at];
}

// The value that a sample of fewer bits stands for.
constexpr std::uint32_t widen(std::uint32_t value, unsigned bits, unsigned depth) {
    const std::uint32_t top = (1u << bits) - 1;
    return (value * ((1u << depth) - 1) + top / 2) / top;
}

void put_varint(std::vector<std::uint8_t>& out, std::size_t value) {
    for (; value >= 0x80; value >>= 7) out.push_back(static_cast<std::uint8_t>(value | 0x80));
    out.push_back(static_cast<std::uint8_t>(value));
}

bool take_slice(const std::uint8_t*& at, const std::uint8_t* end, Slice& slice) {
    std::uint64_t size = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        if (at == end) return false;
        const std::uint8_t byte = *at++;
        size |= std::uint64_t{byte & 0x7fu} << shift;
        if (byte >= 0x80) continue;
        if ((byte == 0 && shift > 0) || size > static_cast<std::uint64_t>(end - at)) return false;
        slice = {at, static_cast<std::size_t>(size)};
        at += size;
        return true;
    }
    return false;
}

// How a tile is coded; what precedes all planes and pixels in its stream.
struct Plan {
    unsigned bits;   // of a sample, 1 to 8 or 16
    unsigned scale;  // each pixel stands for a square of so many
    bool smooth, drawn;
    std::uint32_t near;

    std::size_t across(const TileShape& shape) const { return (shape.width + scale - 1) / scale; }
    std::size_t down(const TileShape& shape) const { return (shape.height + scale - 1) / scale; }
};

template <class Coder>
bool code_plan(Coder& coder, const TileShape& shape, Plan& plan) {
    plan.bits = coder.uniform(plan.bits - 1, 4) + 1;
    plan.scale = coder.uniform(plan.scale - 1, 4) + 1;
    plan.smooth = coder.uniform(plan.smooth, 1) != 0;
    plan.drawn = coder.uniform(plan.drawn, 1) != 0;
    plan.near = coder.uniform(plan.near, 8);
    return plan.bits <= (shape.deep ? 16u : 8u) && (plan.smooth || plan.drawn);
}

// Of a tile of which only parts are coded: which blocks are left out. False: all are.
template <class Coder>
bool code_part(Coder& coder, BlockMap& map) {
    constexpr std::size_t per_side = part_block / map_block;
    const std::size_t columns = (map.columns + per_side - 1) / per_side;
    const std::size_t rows = (map.rows + per_side - 1) / per_side;
    std::array<Bit, 4> models{};
    std::vector<std::uint8_t> there(columns * rows);
    for (std::size_t i = 0; i < there.size(); ++i) {
        const std::size_t x = i % columns, y = i / columns;
        const unsigned left = x > 0 ? there[i - 1] : 0;
        const unsigned above = y > 0 ? there[i - columns] : 0;
        const bool wanted = map.drawn[y * per_side * map.columns + x * per_side] != BlockMap::left_out;
        there[i] = static_cast<std::uint8_t>(coder.bit(models[2 * left + above], wanted));
        if (there[i]) continue;
        for (std::size_t v = y * per_side; v < std::min((y + 1) * per_side, map.rows); ++v)
            for (std::size_t u = x * per_side; u < std::min((x + 1) * per_side, map.columns); ++u)
                map.drawn[v * map.columns + u] = BlockMap::left_out;
    }
    return std::find(there.begin(), there.end(), 1) != there.end();
}

// Of a tile of which single pixels may be left out: which ones. `map.mask` has its size. False: all are.
template <class Coder>
bool code_mask(Coder& coder, BlockMap& map, std::size_t width, std::size_t height) {
    const std::size_t columns = (width + part_block - 1) / part_block;
    std::array<Bit, 4> there_models{}, whole_models{};
    std::array<Bit, 2> same_models{};
    std::array<Bit, 16> pixel_models{};
    std::vector<std::uint8_t> there(columns * ((height + part_block - 1) / part_block)), whole(there.size());
    bool same = true;
    for (std::size_t i = 0; i < there.size(); ++i) {
        const std::size_t left = i % columns * part_block, right = std::min(left + part_block, width);
        const std::size_t top = i / columns * part_block, bottom = std::min(top + part_block, height);
        const auto context = [&](const std::vector<std::uint8_t>& blocks) {
            return 2u * (left > 0 ? blocks[i - 1] : 0u) + (top > 0 ? blocks[i - columns] : 0u);
        };
        bool some = false, all = true;
        if constexpr (Coder::encodes)
            for (std::size_t y = top; y < bottom; ++y)
                for (std::size_t x = left; x < right; ++x) {
                    some |= map.mask[y * width + x] != 0;
                    all &= map.mask[y * width + x] != 0;
                }
        there[i] = coder.bit(there_models[context(there)], some);
        if (there[i]) whole[i] = coder.bit(whole_models[context(whole)], all);
        for (std::size_t y = top; y < bottom; ++y) {
            std::uint8_t* row = map.mask.data() + y * width;
            const std::uint8_t* above = y > 0 ? row - width : nullptr;
            if (!there[i] || whole[i]) {
                std::fill(row + left, row + right, there[i]);
                continue;
            }
            const auto over = [&](std::size_t x) { return above ? above[x] : 0u; };
            bool now = true;
            if constexpr (Coder::encodes)
                for (std::size_t x = left; x < right; ++x) now &= row[x] == over(x);
            now = coder.bit(same_models[same], now);
            same = now;
            for (std::size_t x = left; x < right; ++x) {
                if (now) {
                    row[x] = static_cast<std::uint8_t>(over(x));
                    continue;
                }
                const unsigned around = 8 * (x > 0 ? row[x - 1] : 0u) + 4 * over(x) +
                                        2 * (x > 0 ? over(x - 1) : 0u) + (x > 1 ? row[x - 2] : 0u);
                row[x] = static_cast<std::uint8_t>(coder.bit(pixel_models[around], row[x] != 0));
            }
        }
    }
    return std::find(map.mask.begin(), map.mask.end(), 1) != map.mask.end();
}

// Which blocks a mask leaves out, and which it cuts.
void apply_mask(BlockMap& map, std::size_t width, std::size_t height) {
    map.cut.assign(map.drawn.size(), 0);
    for (std::size_t i = 0; i < map.drawn.size(); ++i) {
        const std::size_t left = i % map.columns * map_block, right = std::min(left + map_block, width);
        const std::size_t top = i / map.columns * map_block, bottom = std::min(top + map_block, height);
        std::size_t count = 0;
        for (std::size_t y = top; y < bottom; ++y)
            count += static_cast<std::size_t>(
                std::count(map.mask.data() + y * width + left, map.mask.data() + y * width + right, 1));
        if (count == 0)
            map.drawn[i] = BlockMap::left_out;
        else if (count < (right - left) * (bottom - top))
            map.drawn[i] = map.cut[i] = 1;
    }
}

// False: there are blocks that must be drawn, and none is.
template <class Coder>
bool code_map(Coder& coder, const Plan& plan, BlockMap& map) {
    const auto cut = [&](std::size_t i) { return !map.cut.empty() && map.cut[i] != 0; };
    if (!plan.smooth || !plan.drawn) {
        for (std::size_t i = 0; i < map.drawn.size(); ++i) {
            if (cut(i) && !plan.drawn) return false;
            if (map.drawn[i] != BlockMap::left_out) map.drawn[i] = static_cast<std::uint8_t>(plan.drawn);
        }
        return true;
    }
    std::array<Bit, 4> models{};
    for (std::size_t y = 0; y < map.rows; ++y) {
        for (std::size_t x = 0; x < map.columns; ++x) {
            std::uint8_t* at = &map.drawn[y * map.columns + x];
            if (*at == BlockMap::left_out || cut(y * map.columns + x)) continue;
            const unsigned left = x > 0 && at[-1] == 1;
            const unsigned above = y > 0 && at[-static_cast<std::ptrdiff_t>(map.columns)] == 1;
            *at = static_cast<std::uint8_t>(coder.bit(models[2 * left + above], *at != 0));
        }
    }
    return true;
}

unsigned plane_channel(unsigned plane, unsigned channels) {
    constexpr std::array<std::uint8_t, 4> order = {1, 0, 2, 3};
    return channels >= 3 ? order[plane] : plane;
}

template <class Sample>
SmoothShape smooth_shape(const TileShape& shape, const Plan& plan) {
    return {plan.across(shape), plan.down(shape), shape.channels, plan.bits, plan.near};
}

// ---- decoding

// Pixels whose samples have all bits of a Number, as samples side by side.
template <unsigned channels, class Number, class Pixel>
void spread_pixels(const Pixel* pixels, std::size_t count, Number* out) {
    for (std::size_t x = 0; x < count; ++x)
        for (unsigned c = 0; c < channels; ++c)
            out[x * channels + c] = static_cast<Number>(pixels[x] >> (8 * sizeof(Number) * c));
}
template <class Number, class Pixel>
void spread_pixels(const Pixel* pixels, std::size_t count, unsigned channels, Number* out) {
    switch (channels) {
        case 1:
            return spread_pixels<1>(pixels, count, out);
        case 2:
            return spread_pixels<2>(pixels, count, out);
        case 3:
            return spread_pixels<3>(pixels, count, out);
        default:
            return spread_pixels<4>(pixels, count, out);
    }
}

// Puts what planes have in smooth blocks into a canvas.
template <class Sample, class Pixel>
void take_smooth(const BlockMap& map, unsigned bits, const Planes<Sample>& planes, Canvas<Pixel>& canvas) {
    const auto channels = static_cast<unsigned>(planes.samples.size());
    for (std::size_t y = 0; y < canvas.height; ++y) {
        Pixel* row = canvas.row(y);
        const auto take = [&](std::size_t from, std::size_t to) {
            std::fill(row + from, row + to, Pixel{0});
            for (unsigned p = 0; p < channels; ++p) {
                const unsigned shift = bits * plane_channel(p, channels);
                const Sample* samples = planes.samples[p].row(y);
                for (std::size_t x = from; x < to; ++x) row[x] |= static_cast<Pixel>(samples[x]) << shift;
            }
        };
        map.parts_of_row(y, canvas.width, take, [](std::size_t, std::size_t) {});
    }
}

template <class Sample, class Pixel, class Number>
Status decode_coded(const std::uint8_t* data, std::size_t size, const TileShape& shape, Number* samples,
                    std::uint8_t kind, std::uint8_t* mask) {
    const Status damaged{Code::tile_damaged};
    const std::uint8_t* at = data;
    const std::uint8_t* const end = data + size;
    Slice first{};
    if (!take_slice(at, end, first)) return damaged;
    BitDecoder coder(first.data, first.size);
    Plan plan{1, 1, false, false, 0};
    if (!coder.sound() || !code_plan(coder, shape, plan)) return damaged;
    const std::size_t width = plan.across(shape), height = plan.down(shape);
    BlockMap map(width, height);
    if (kind != coded && plan.scale > 1) return damaged;
    if (kind == partial && !code_part(coder, map)) return damaged;
    if (kind == masked) {
        map.mask.assign(width * height, 0);
        if (!code_mask(coder, map, width, height) || !coder.sound()) return damaged;
        apply_mask(map, width, height);
    }
    if (!code_map(coder, plan, map)) return damaged;
    Canvas<Pixel> canvas(plan.drawn ? width : 0, plan.drawn ? height : 0);
    std::unique_ptr<Planes<Sample>> planes;
    if (plan.smooth) {
        const SmoothShape smooth = smooth_shape<Sample>(shape, plan);
        std::vector<PlaneCode> codes(shape.channels);
        std::vector<Slice> streams(shape.channels);
        for (unsigned p = 0; p < shape.channels; ++p) {
            if (!code_plane(coder, smooth, p, map, codes[p]) || !coder.sound()) return damaged;
            if (!take_slice(at, end, streams[p])) return damaged;
        }
        planes = std::make_unique<Planes<Sample>>(width, height, shape.channels, true);
        if (!decode_planes(smooth, map, codes, streams, *planes)) return damaged;
    }
    if (at != end) return damaged;
    if (plan.drawn) {
        if (plan.smooth) take_smooth(map, plan.bits, *planes, canvas);
        Drawn<BitDecoder, Pixel>(coder, canvas, shape.channels, plan.bits, map).run();
    }
    if (!coder.finished()) return damaged;

    const unsigned depth = shape.deep ? 16 : 8;
    std::vector<Number> widened(std::size_t{1} << plan.bits);
    for (std::size_t v = 0; v < widened.size(); ++v)
        widened[v] = static_cast<Number>(widen(static_cast<std::uint32_t>(v), plan.bits, depth));
    const bool as_is = plan.bits == depth;
    const auto most = static_cast<Pixel>(widened.size() - 1);
    const unsigned channels = shape.channels;
    for (std::size_t y = 0; y < shape.height; ++y) {
        Number* row = samples + y * shape.pitch;
        if (y % plan.scale != 0) {
            std::copy(row - shape.pitch, row - shape.pitch + shape.width * channels, row);
            continue;
        }
        if (plan.drawn) {
            const Pixel* from = canvas.row(y / plan.scale);
            if (plan.scale == 1 && as_is)
                spread_pixels(from, shape.width, channels, row);
            else
                for (std::size_t x = 0; x < shape.width; ++x)
                    for (unsigned c = 0; c < channels; ++c)
                        row[x * channels + c] =
                            widened[static_cast<std::size_t>(from[x / plan.scale] >> (plan.bits * c) & most)];
            continue;
        }
        for (unsigned p = 0; p < channels; ++p) {
            Number* out = row + plane_channel(p, channels);
            const Sample* from = planes->samples[p].row(y / plan.scale);
            if (plan.scale == 1 && as_is)
                for (std::size_t x = 0; x < shape.width; ++x)
                    out[x * channels] = static_cast<Number>(from[x]);
            else
                for (std::size_t x = 0; x < shape.width; ++x)
                    out[x * channels] = widened[static_cast<std::size_t>(from[x / plan.scale])];
        }
    }
    if (kind == coded) return {};
    for (std::size_t y = 0; y < shape.height; ++y) {
        const std::uint8_t* blocks = map.drawn.data() + y / map_block * map.columns;
        for (std::size_t x = 0; x < shape.width; ++x) {
            std::uint8_t& there = mask[y * shape.width + x];
            there = kind == masked ? map.mask[y * width + x] : blocks[x / map_block] != BlockMap::left_out;
            if (!there) std::fill_n(samples + y * shape.pitch + x * channels, channels, Number{0});
        }
    }
    return {};
}

// ---- encoding

// The fewest bits that all samples can be told apart with, the largest scale.
template <class Number>
class Finder {
  public:
    Finder(const Number* samples, const TileShape& shape) : samples_(samples), shape_(shape) {}

    unsigned bits() const {
        const unsigned depth = 8 * sizeof(Number);
        std::vector<bool> used(std::size_t{1} << depth);
        for (std::size_t y = 0; y < shape_.height; ++y) {
            const Number* row = samples_ + y * shape_.pitch;
            for (std::size_t i = 0; i < shape_.width * shape_.channels; ++i) used[row[i]] = true;
        }
        for (unsigned bits = 1; bits < depth; ++bits) {
            if (bits < 8 && bits != 1 && bits != 2 && bits != 4) continue;
            std::vector<bool> left = used;
            for (std::uint32_t v = 0; v < 1u << bits; ++v) left[widen(v, bits, depth)] = false;
            if (std::find(left.begin(), left.end(), true) == left.end()) return bits;
        }
        return depth;
    }

    unsigned scale() const {
        for (unsigned scale = max_scale; scale > 1; --scale)
            if (scaled(scale)) return scale;
        return 1;
    }

  private:
    bool scaled(unsigned scale) const {
        const std::size_t length = shape_.width * shape_.channels;
        for (std::size_t y = 0; y < shape_.height; ++y) {
            const Number* row = samples_ + y * shape_.pitch;
            if (y % scale != 0) {
                if (std::memcmp(row, row - shape_.pitch, length * sizeof(Number)) != 0) return false;
                continue;
            }
            for (std::size_t x = 0; x < shape_.width; ++x)
                if (x % scale != 0 && std::memcmp(row + x * shape_.channels, row + (x - 1) * shape_.channels,
                                                  shape_.channels * sizeof(Number)) != 0)
                    return false;
        }
        return true;
    }

    const Number* samples_;
    const TileShape& shape_;
};

template <class Sample, class Pixel, class Number>
class TileEncoder {
  public:
    TileEncoder(const Number* samples, const TileShape& shape, const LosslessOptions& options)
        : shape_(shape), options_(options), plan_{8 * sizeof(Number), 1, false, false, options.near} {
        const Finder<Number> finder(samples, shape);
        plan_.bits = finder.bits();
        // In units of the coder's samples, rounded down.
        plan_.near = static_cast<std::uint32_t>(std::uint64_t{options.near} * ((1u << plan_.bits) - 1) /
                                                ((1u << (8 * sizeof(Number))) - 1));
        plan_.scale = options.part || options.mask ? 1 : finder.scale();
        width_ = plan_.across(shape);
        height_ = plan_.down(shape);
        const unsigned depth = 8 * sizeof(Number);
        std::vector<std::uint32_t> narrow(std::size_t{1} << depth);
        for (std::uint32_t v = 0; v < 1u << plan_.bits; ++v) narrow[widen(v, plan_.bits, depth)] = v;
        pixels_.resize(width_ * height_);
        for (std::size_t y = 0; y < height_; ++y) {
            const Number* row = samples + y * plan_.scale * shape.pitch;
            for (std::size_t x = 0; x < width_; ++x) {
                Pixel pixel = 0;
                for (unsigned c = 0; c < shape.channels; ++c)
                    pixel |= static_cast<Pixel>(narrow[row[x * plan_.scale * shape.channels + c]])
                             << (plan_.bits * c);
                pixels_[y * width_ + x] = pixel;
            }
        }
        if (options.near > 0 || options.slack > 0) find_slack();
        base_ = BlockMap(width_, height_);
        if (!options.mask) return;
        base_.mask.assign(options.mask, options.mask + width_ * height_);
        for (std::uint8_t& pixel : base_.mask) pixel = pixel != 0;
        apply_mask(base_, width_, height_);
    }

    void run(std::vector<std::uint8_t>& out) {
        const BlockMap map = choose();
        std::vector<std::uint8_t> best = encode(map);
        if (options_.content == Content::any && (options_.effort > 1 || width_ * height_ <= small)) {
            for (const std::uint8_t all : {std::uint8_t{0}, std::uint8_t{1}}) {
                if (!has(map, static_cast<std::uint8_t>(1 - all))) continue;
                std::vector<std::uint8_t> other = encode(uniform(all));
                if (other.size() < best.size()) best.swap(other);
            }
        }
        out.insert(out.end(), best.begin(), best.end());
    }

    // Adds the bits of each block of 64 x 64.
    void measure(float* bits) const {
        const BlockMap smooth_map = uniform(0), drawn_map = uniform(1);
        std::unique_ptr<Planes<Sample>> planes = make_planes();
        const SmoothCode smooth =
            encode_planes(smooth_shape<Sample>(shape_, plan_), smooth_map, *planes, 2, 8);
        BitMeter meter(drawn_map.drawn.size());
        Canvas<Pixel> canvas = make_canvas();
        Drawn<BitMeter, Pixel>(meter, canvas, shape_.channels, plan_.bits, drawn_map, slack()).run();
        constexpr std::size_t per_side = part_block / map_block;
        const std::size_t columns = (drawn_map.columns + per_side - 1) / per_side;
        for (std::size_t i = 0; i < drawn_map.drawn.size(); ++i)
            if (there(i))
                bits[i / drawn_map.columns / per_side * columns + i % drawn_map.columns / per_side] +=
                    std::min(meter.bits()[i], smooth.bits[i]);
    }

  private:
    static constexpr std::size_t small = std::size_t{1} << 16;
    // Of the pixels of a block that repeat a neighbour: with fewer it is a photograph, with more it is drawn.
    static constexpr std::size_t percent_photo = 40, percent_unsure = 60, percent_drawn = 90;
    // Pixels of the runs that are looked for elsewhere, and by how much each is shifted in their sum of 64
    // bits.
    static constexpr unsigned shingle = 8, shingle_bits = 8;
    // Of the pixels of a block that have colours of their own: with more it is a photograph.
    static constexpr std::size_t percent_colours = 60;

    const std::uint16_t* slack() const { return slack_.empty() ? nullptr : slack_.data(); }

    // How much each pixel may be off: the more, the more its surroundings differ, which hides it. Of what
    // goes on in its colour, as areas and lines do, each change would be seen.
    void find_slack() {
        slack_.assign(pixels_.size(), static_cast<std::uint16_t>(plan_.near));
        if (options_.slack == 0) return;
        const unsigned alpha = shape_.channels % 2 == 0 ? shape_.channels - 1 : shape_.channels;
        const Pixel mask = (Pixel{1} << plan_.bits) - 1;
        for (std::size_t y = 0; y < height_; ++y) {
            const std::size_t top = y > 0 ? y - 1 : y, bottom = std::min(y + 1, height_ - 1);
            for (std::size_t x = 0; x < width_; ++x) {
                const std::size_t left = x > 0 ? x - 1 : x, right = std::min(x + 1, width_ - 1);
                const Pixel* own = &pixels_[y * width_ + x];
                std::uint16_t& at = slack_[y * width_ + x];
                const bool flat = (x > 0 && own[-1] == *own) || (x + 1 < width_ && own[1] == *own) ||
                                  (y > 0 && pixels_[top * width_ + x] == *own) ||
                                  (y + 1 < height_ && pixels_[bottom * width_ + x] == *own);
                if (flat) continue;
                std::uint32_t range = 0;
                for (unsigned c = 0; c < shape_.channels; ++c) {
                    if (c == alpha) continue;
                    Pixel low = mask, high = 0;
                    for (std::size_t v = top; v <= bottom; ++v)
                        for (std::size_t u = left; u <= right; ++u) {
                            const Pixel sample = pixels_[v * width_ + u] >> (plan_.bits * c) & mask;
                            low = std::min(low, sample);
                            high = std::max(high, sample);
                        }
                    range = std::max(range, static_cast<std::uint32_t>(high - low));
                }
                at = std::max(at, static_cast<std::uint16_t>(range * std::min(options_.slack, 256u) / 256));
            }
        }
    }

    static bool has(const BlockMap& map, std::uint8_t kind) {
        return std::find(map.drawn.begin(), map.drawn.end(), kind) != map.drawn.end();
    }
    // Whether a block of the map is coded at all.
    bool there(std::size_t i) const {
        if (options_.mask) return base_.drawn[i] != BlockMap::left_out;
        if (!options_.part) return true;
        constexpr std::size_t per_side = part_block / map_block;
        const std::size_t columns = (width_ + map_block - 1) / map_block;
        return options_.part[i / columns / per_side * ((columns + per_side - 1) / per_side) +
                             i % columns / per_side] != 0;
    }

    BlockMap uniform(std::uint8_t drawn) const {
        BlockMap map(width_, height_);
        for (std::size_t i = 0; i < map.drawn.size(); ++i)
            map.drawn[i] = !there(i) ? BlockMap::left_out : cut(i) ? std::uint8_t{1} : drawn;
        map.mask = base_.mask;
        map.cut = base_.cut;
        return map;
    }
    bool cut(std::size_t i) const { return !base_.cut.empty() && base_.cut[i] != 0; }

    // What each block is, by its looks; where that does not tell, by real bits.
    BlockMap choose() const {
        if (options_.content != Content::any) return uniform(options_.content == Content::drawn);
        BlockMap map = uniform(0), either = map;
        std::size_t count = 0;
        for (std::size_t i = 0; i < map.drawn.size(); ++i) {
            if (!there(i) || cut(i)) continue;
            ++count;
            const std::size_t percent = repeated(i % map.columns, i / map.columns);
            map.drawn[i] = percent >= percent_drawn;
            either.drawn[i] = percent >= (options_.effort > 1 ? percent_photo : percent_unsure);
        }
        // A page, where a photograph would stand out.
        const bool page =
            4 * std::count(map.drawn.begin(), map.drawn.end(), 1) >= static_cast<std::ptrdiff_t>(count);
        if (page)
            for (std::size_t i = 0; i < map.drawn.size(); ++i)
                if (either.drawn[i] == 0 && !cut(i))
                    either.drawn[i] = colours(i % map.columns, i / map.columns) < percent_colours;
        std::size_t unsure = 0;
        for (std::size_t i = 0; i < map.drawn.size(); ++i) unsure += map.drawn[i] != either.drawn[i];
        const bool again = repeats();
        if (again) {
            unsure = count;
            either = uniform(1);
        }
        if (unsure == 0 || (options_.effort == 1 && !page && !again && unsure * 10 < count)) return map;
        std::unique_ptr<Planes<Sample>> planes = make_planes();
        const SmoothCode smooth = encode_planes(smooth_shape<Sample>(shape_, plan_), map, *planes, 2, 8);
        BitMeter meter(map.drawn.size());
        Canvas<Pixel> canvas = make_canvas();
        Drawn<BitMeter, Pixel>(meter, canvas, shape_.channels, plan_.bits, either, slack()).run();
        // Drawn pixels take longer to decode, which must be worth it.
        const float worth = options_.effort > 1 || page || again ? 1.0F : 0.6F;
        for (std::size_t i = 0; i < map.drawn.size(); ++i)
            if (map.drawn[i] != either.drawn[i]) map.drawn[i] = meter.bits()[i] < worth * smooth.bits[i];
        return map;
    }

    // Whether the picture has few colours, or textures that come again far from where they were: looks of
    // single blocks do not tell, and to predict samples is of no use. Looks at those short runs of pixels
    // whose hash ends in zeros, wherever they are, so that copies are found at any distance (shingles, Broder
    // 1997).
    bool repeats() const {
        constexpr std::size_t least = 64;  // runs and colours; with fewer nothing is said
        std::vector<std::uint64_t> runs;
        std::vector<Pixel> colours;
        for (std::size_t y = 0; y < height_; ++y) {
            const Pixel* row = &pixels_[y * width_];
            for (std::size_t x = y % 16; x < width_; x += 16) colours.push_back(row[x]);
            std::uint64_t window = 0;
            for (std::size_t x = 0; x < width_; ++x) {
                // What leaves the window has been shifted out of it.
                window = (window << shingle_bits) + (row[x] + 1) * std::uint64_t{0x9E3779B97F4A7C15};
                if (x < shingle || row[x] == row[x - 1]) continue;
                const std::uint64_t hash = window * std::uint64_t{0xD6E8FEB86659FD93};
                if (hash >> 58 == 0) runs.push_back(hash);
            }
        }
        const auto distinct = [](auto& values) {
            std::sort(values.begin(), values.end());
            return static_cast<std::size_t>(std::unique(values.begin(), values.end()) - values.begin());
        };
        const std::size_t count = runs.size(), seen = colours.size();
        if (count >= least && 5 * distinct(runs) < 3 * count) return true;
        // Of grey, all photographs have few.
        const std::size_t few = shape_.channels < 3 ? 64 : 512;
        return seen >= least && distinct(colours) <= std::min(few, seen / 8);
    }

    // Per cent of the pixels of a block that are as one of four neighbours.
    std::size_t repeated(std::size_t bx, std::size_t by) const {
        std::size_t seen = 0, found = 0;
        const std::size_t bottom = std::min((by + 1) * map_block, height_);
        const std::size_t right = std::min((bx + 1) * map_block, width_);
        for (std::size_t y = by * map_block; y < bottom; ++y) {
            for (std::size_t x = bx * map_block; x < right; ++x) {
                const Pixel* at = &pixels_[y * width_ + x];
                const Pixel* above = y > 0 ? at - width_ : at;
                ++seen;
                found += (x > 0 && at[0] == at[-1]) || (y > 0 && at[0] == above[0]) ||
                         (y > 0 && x > 0 && at[0] == above[-1]) ||
                         (y > 0 && x + 1 < width_ && at[0] == above[1]);
            }
        }
        return 100 * found / seen;
    }

    // Colours of a block, in per cent of its pixels.
    std::size_t colours(std::size_t bx, std::size_t by) const {
        std::vector<Pixel> all;
        const std::size_t bottom = std::min((by + 1) * map_block, height_);
        const std::size_t right = std::min((bx + 1) * map_block, width_);
        for (std::size_t y = by * map_block; y < bottom; ++y)
            all.insert(all.end(), &pixels_[y * width_ + bx * map_block],
                       &pixels_[y * width_ + right - 1] + 1);
        const std::size_t seen = all.size();
        std::sort(all.begin(), all.end());
        return 100 * static_cast<std::size_t>(std::unique(all.begin(), all.end()) - all.begin()) / seen;
    }

    std::unique_ptr<Planes<Sample>> make_planes() const {
        auto planes = std::make_unique<Planes<Sample>>(width_, height_, shape_.channels, false);
        for (unsigned p = 0; p < shape_.channels; ++p) {
            const unsigned shift = plan_.bits * plane_channel(p, shape_.channels);
            const auto mask = static_cast<Pixel>((Pixel{1} << plan_.bits) - 1);
            for (std::size_t y = 0; y < height_; ++y) {
                Sample* row = planes->samples[p].row(y);
                for (std::size_t x = 0; x < width_; ++x)
                    row[x] = static_cast<Sample>(pixels_[y * width_ + x] >> shift & mask);
            }
        }
        return planes;
    }

    Canvas<Pixel> make_canvas() const {
        Canvas<Pixel> canvas(width_, height_);
        for (std::size_t y = 0; y < height_; ++y)
            std::copy_n(pixels_.data() + y * width_, width_, canvas.row(y));
        return canvas;
    }

    std::vector<std::uint8_t> encode(const BlockMap& map) const {
        Plan plan = plan_;
        plan.drawn = has(map, 1);
        plan.smooth = has(map, 0);
        BitEncoder coder;
        BlockMap coded_map = map;
        code_plan(coder, shape_, plan);
        if (options_.mask)
            code_mask(coder, coded_map, width_, height_);
        else if (options_.part)
            code_part(coder, coded_map);
        code_map(coder, plan, coded_map);
        SmoothCode smooth;
        std::unique_ptr<Planes<Sample>> planes;
        if (plan.smooth) {
            planes = make_planes();
            const SmoothShape shape = smooth_shape<Sample>(shape_, plan);
            smooth = encode_planes(shape, map, *planes, options_.effort > 1 ? 8 : 4,
                                   options_.effort > 1 ? max_classes : 16);
            for (unsigned p = 0; p < shape_.channels; ++p) code_plane(coder, shape, p, map, smooth.planes[p]);
        }
        if (plan.drawn) {
            Canvas<Pixel> canvas = make_canvas();
            if (plan.smooth && plan.near > 0) take_smooth(map, plan.bits, *planes, canvas);
            Drawn<BitEncoder, Pixel>(coder, canvas, shape_.channels, plan.bits, map, slack()).run();
        }
        std::vector<std::uint8_t> first, out{options_.mask ? masked : options_.part ? partial : coded};
        coder.finish(first);
        put_varint(out, first.size());
        out.insert(out.end(), first.begin(), first.end());
        for (const auto& stream : smooth.streams) {
            put_varint(out, stream.size());
            out.insert(out.end(), stream.begin(), stream.end());
        }
        return out;
    }

    const TileShape& shape_;
    const LosslessOptions& options_;
    Plan plan_;
    std::size_t width_, height_;
    std::vector<Pixel> pixels_;
    BlockMap base_{0, 0};               // what is left out, and cut
    std::vector<std::uint16_t> slack_;  // how much each of these may be off; empty: nothing
};

template <class Number>
void store(const Number* samples, const TileShape& shape, std::vector<std::uint8_t>& out) {
    out.push_back(stored);
    for (std::size_t y = 0; y < shape.height; ++y) {
        const Number* row = samples + y * shape.pitch;
        for (std::size_t i = 0; i < shape.width * shape.channels; ++i)
            for (unsigned byte = 0; byte < sizeof(Number); ++byte)
                out.push_back(static_cast<std::uint8_t>(row[i] >> (8 * byte)));
    }
}

template <class Number>
void restore(const std::uint8_t* data, const TileShape& shape, Number* samples) {
    for (std::size_t y = 0; y < shape.height; ++y) {
        Number* row = samples + y * shape.pitch;
        for (std::size_t i = 0; i < shape.width * shape.channels; ++i) {
            row[i] = load_word<Number>(data);
            data += sizeof(Number);
        }
    }
}

Status check(const TileShape& shape) {
    const std::size_t side = std::max(shape.width, shape.height);
    if (shape.width == 0 || shape.height == 0 || side > max_tile_side)
        return {Code::tile_side, 0, static_cast<std::int64_t>(side),
                static_cast<std::int64_t>(max_tile_side)};
    if (shape.channels == 0 || shape.channels > 4) return {Code::tile_channels, 0, shape.channels, 4};
    return {};
}

}  // namespace

Status encode_tile(const void* samples, const TileShape& shape, const LosslessOptions& options,
                   std::vector<std::uint8_t>& out) {
    const Status status = check(shape);
    if (!status.ok()) return status;
    if (options.near > max_near) return {Code::tile_near, 0, options.near, max_near};
    try {
        const std::size_t before = out.size();
        const std::size_t plain = 1 + shape.width * shape.height * shape.channels * (shape.deep ? 2 : 1);
        if (shape.deep)
            TileEncoder<std::int32_t, std::uint64_t, std::uint16_t>(
                static_cast<const std::uint16_t*>(samples), shape, options)
                .run(out);
        else
            TileEncoder<std::int16_t, std::uint32_t, std::uint8_t>(static_cast<const std::uint8_t*>(samples),
                                                                   shape, options)
                .run(out);
        if (out.size() - before > plain && !options.part && !options.mask) {
            out.resize(before);
            if (shape.deep)
                store(static_cast<const std::uint16_t*>(samples), shape, out);
            else
                store(static_cast<const std::uint8_t*>(samples), shape, out);
        }
        return {};
    } catch (const std::bad_alloc&) {
        return {Code::tile_memory};
    }
}

Status measure_tile(const void* samples, const TileShape& shape, const LosslessOptions& options,
                    float* bits) {
    const Status status = check(shape);
    if (!status.ok()) return status;
    std::fill_n(bits, part_blocks(shape), 0.0F);
    LosslessOptions whole = options;
    const std::vector<std::uint8_t> all(part_blocks(shape), 1);
    if (!whole.part) whole.part = all.data();  // so that pixels are not made larger
    try {
        if (shape.deep)
            TileEncoder<std::int32_t, std::uint64_t, std::uint16_t>(
                static_cast<const std::uint16_t*>(samples), shape, whole)
                .measure(bits);
        else
            TileEncoder<std::int16_t, std::uint32_t, std::uint8_t>(static_cast<const std::uint8_t*>(samples),
                                                                   shape, whole)
                .measure(bits);
        return {};
    } catch (const std::bad_alloc&) {
        return {Code::tile_memory};
    }
}

Status decode_tile(const std::uint8_t* data, std::size_t size, const TileShape& shape, void* samples,
                   std::uint8_t* mask) {
    const Status status = check(shape);
    if (!status.ok()) return status;
    if (size == 0) return {Code::tile_damaged};
    if (mask) std::fill_n(mask, shape.width * shape.height, std::uint8_t{1});
    try {
        if (data[0] == stored) {
            const std::size_t plain = shape.width * shape.height * shape.channels * (shape.deep ? 2 : 1);
            if (size - 1 != plain) return {Code::tile_damaged};
            if (shape.deep)
                restore(data + 1, shape, static_cast<std::uint16_t*>(samples));
            else
                restore(data + 1, shape, static_cast<std::uint8_t*>(samples));
            return {};
        }
        if (data[0] > masked) return {Code::tile_kind, 0, data[0], masked};
        if (data[0] > coded && !mask) return {Code::tile_damaged};
        if (shape.deep)
            return decode_coded<std::int32_t, std::uint64_t>(
                data + 1, size - 1, shape, static_cast<std::uint16_t*>(samples), data[0], mask);
        return decode_coded<std::int16_t, std::uint32_t>(data + 1, size - 1, shape,
                                                         static_cast<std::uint8_t*>(samples), data[0], mask);
    } catch (const std::bad_alloc&) {
        return {Code::tile_memory};
    }
}

}  // namespace latens
