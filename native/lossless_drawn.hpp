// Pixels of drawings: runs of one colour, colours that followed the same surroundings before, colours of
// neighbours, and only then samples (docs/lossless.md, "Drawn pixels").
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "adaptive.hpp"
#include "aligned.hpp"

namespace latens {

// Pixels with a margin: four columns on both sides, two rows above. All samples of a pixel are in one number,
// `bits` for each, the first lowest.
template <class Pixel>
struct Canvas {
    static constexpr std::size_t margin = 4, above = 2;

    Canvas(std::size_t width_, std::size_t height_)
        : width(width_), height(height_), stride(width_ + 2 * margin), pixels(stride * (height_ + above)) {}

    Pixel* row(std::size_t y) { return pixels.data() + (y + above) * stride + margin; }
    // The margin of a row: its left part continues the row above, its right part the last pixel.
    void pad_left(std::size_t y) {
        Pixel* at = row(y);
        std::fill(at - margin, at, *(at - stride));
    }
    void pad_right(std::size_t y) {
        Pixel* end = row(y) + width;
        std::fill(end, end + margin, end[-1]);
    }

    std::size_t width, height, stride;
    Large<Pixel> pixels;
};

inline constexpr std::size_t map_block = 32;

// What blocks of 32 x 32 pixels are, row by row: 0 smooth, 1 drawn, 2 left out.
struct BlockMap {
    static constexpr std::uint8_t left_out = 2;

    std::size_t columns = 0, rows = 0;
    std::vector<std::uint8_t> drawn;
    // Of tiles in which blocks are coded in part: for each pixel whether it is. A block that is cut is drawn.
    std::vector<std::uint8_t> mask;
    std::vector<std::uint8_t> cut;

    BlockMap(std::size_t width, std::size_t height)
        : columns((width + map_block - 1) / map_block),
          rows((height + map_block - 1) / map_block),
          drawn(columns * rows) {}

    // Calls `smooth(from, to)` and `other(from, to)` for what a row of so many pixels consists of.
    template <class Smooth, class Other>
    void parts_of_row(std::size_t y, std::size_t width, const Smooth& smooth, const Other& other) const {
        const std::uint8_t* blocks = drawn.data() + y / map_block * columns;
        for (std::size_t i = 0; i < columns;) {
            std::size_t j = i + 1;
            while (j < columns && blocks[j] == blocks[i]) ++j;
            const std::size_t end = std::min(j * map_block, width);
            if (blocks[i] != 0)
                other(i * map_block, end);
            else
                smooth(i * map_block, end);
            i = j;
        }
    }
};

template <class Coder, class Pixel>
class Drawn {
  public:
    // `channels` of `bits` each. Encoding, samples of a pixel (but alpha) may be changed in `canvas` by as
    // much as `slack` says, row by row; by nothing if it is null.
    Drawn(Coder& coder, Canvas<Pixel>& canvas, unsigned channels, unsigned bits, const BlockMap& map,
          const std::uint16_t* slack = nullptr)
        : coder_(coder),
          canvas_(canvas),
          channels_(channels),
          bits_(bits),
          map_(map),
          slack_(slack),
          hash_bits_(
              static_cast<unsigned>(std::clamp<int>(std::bit_width(canvas.width * canvas.height), 12, 18))),
          slot_bits_(static_cast<unsigned>(
              std::clamp<int>(std::bit_width(canvas.width * canvas.height) - 2, 8, 16))),
          far_(std::size_t{1} << slot_bits_),
          wide_(std::size_t{1} << slot_bits_),
          close_(std::size_t{1} << slot_bits_),
          by_first_(std::size_t{1} << slot_bits_),
          match_(768),
          match_around_(4608),
          wide_hit_(1536),
          close_hit_(1024),
          neighbour_(8192),
          neighbour_colour_(std::size_t{1} << hash_bits_) {
        sample_.resize(sample_tables << hash_bits_);
        if (channels_ >= 3)
            order_ = {1, 0, 2, 3};
        else
            order_ = {0, 1, 2, 3};
    }

    // Codes all drawn blocks.
    void run() {
        struct Part {
            std::size_t begin, end;
        };
        std::vector<Part> parts, gaps;
        unsigned repeated = 0;
        for (std::size_t y = 0; y < canvas_.height; ++y) {
            if (!map_.mask.empty()) {
                parts.clear();
                gaps.clear();
                const std::uint8_t* drawn = map_.drawn.data() + y / map_block * map_.columns;
                const std::uint8_t* there = map_.mask.data() + y * canvas_.width;
                for (std::size_t x = 0; x < canvas_.width;) {
                    const bool coded = there[x] != 0 && drawn[x / map_block] == 1, gap = there[x] == 0;
                    const std::size_t begin = x;
                    for (++x; x < canvas_.width; ++x)
                        if ((there[x] != 0 && drawn[x / map_block] == 1) != coded || (there[x] == 0) != gap)
                            break;
                    if (coded)
                        parts.push_back({begin, x});
                    else if (gap)
                        gaps.push_back({begin, x});
                }
            } else if (y % map_block == 0) {
                parts.clear();
                gaps.clear();
                const std::uint8_t* drawn = map_.drawn.data() + y / map_block * map_.columns;
                for (std::size_t i = 0; i < map_.columns; ++i) {
                    const std::size_t end = std::min((i + 1) * map_block, canvas_.width);
                    if (drawn[i] == BlockMap::left_out) gaps.push_back({i * map_block, end});
                    if (drawn[i] != 1) continue;
                    if (!parts.empty() && parts.back().end == i * map_block)
                        parts.back().end = end;
                    else
                        parts.push_back({i * map_block, end});
                }
            }
            block_row_ = y / map_block * map_.columns;
            // What is left out looks like the row above.
            for (const Part& gap : gaps) {
                Pixel* row = canvas_.row(y);
                std::copy(row - canvas_.stride + gap.begin, row - canvas_.stride + gap.end, row + gap.begin);
            }
            canvas_.pad_left(y);
            if (!parts.empty()) {
                Pixel* row = canvas_.row(y);
                const Pixel* above = row - canvas_.stride;
                bool same = true;
                if constexpr (Coder::encodes)
                    for (const Part& part : parts)
                        for (std::size_t x = part.begin; same && x < part.end; ++x)
                            same = like(row[x], above[x], slack_at(y, x));
                same = coder_.bit(repeated_[repeated], same);
                repeated = (2 * repeated + same) & 7;
                for (const Part& part : parts) {
                    if (same)
                        std::copy(above + part.begin, above + part.end, row + part.begin);
                    else
                        code_part(row, part.begin, part.end, slack_ ? slack_ + y * canvas_.width : nullptr);
                }
            }
            canvas_.pad_right(y);
        }
    }

  private:
    static constexpr std::size_t sample_tables = 5;
    static constexpr unsigned none = 0, same_colour = 1, other_colour = 2;

    // What followed surroundings with this hash: `check` tells most others apart, `seen` is 0 for nothing.
    struct Slot {
        Pixel colour = 0;
        std::uint16_t check = 0;
        std::uint16_t seen = 0;
    };
    struct Place {
        std::uint32_t at = 0;
        std::uint16_t check = 0;
        std::uint16_t seen = 0;
    };
    template <class Entry>
    struct Found {
        Entry* entry;
        std::uint16_t check;
        bool known;
    };

    static std::uint32_t key(Pixel p) {
        if constexpr (sizeof(Pixel) == 8)
            return static_cast<std::uint32_t>(p) + static_cast<std::uint32_t>(p >> 32) * 0x9E3779B1u;
        else
            return p;
    }
    static std::uint32_t hash(std::uint32_t a, std::uint32_t b) {
        std::uint32_t h = a * 0x9E3779B1u + b * 0x85EBCA6Bu;
        h ^= h >> 15;
        h *= 0x2C1B3C6Du;
        return h ^ h >> 16;
    }
    template <class Entry>
    Found<Entry> find(std::vector<Entry>& table, std::uint32_t h) {
        h ^= h >> 15;
        h *= 0x2C1B3C6Du;
        h ^= h >> 13;
        const auto check = static_cast<std::uint16_t>(h);
        Entry* entry = &table[h * 0x9E3779B1u >> (32 - slot_bits_)];
        return {entry, check, entry->seen > 0 && entry->check == check};
    }
    static void learn(const Found<Slot>& found, Pixel colour) {
        Slot& slot = *found.entry;
        if (!found.known || (slot.colour != colour && slot.seen < 4))
            slot = {colour, found.check, 1};
        else if (slot.colour != colour)
            slot.seen = static_cast<std::uint16_t>(slot.seen / 4);
        else if (slot.seen < 255)
            ++slot.seen;
    }

    unsigned sample(Pixel p, unsigned channel) const {
        return static_cast<unsigned>(p >> (bits_ * channel)) & ((1u << bits_) - 1);
    }
    unsigned slack_at(std::size_t y, std::size_t x) const {
        return slack_ ? slack_[y * canvas_.width + x] : 0;
    }
    // The largest difference between samples of two colours; that of alpha counts as too much for all.
    unsigned difference(Pixel p, Pixel q) const {
        if (p == q) return 0;
        const unsigned alpha = channels_ % 2 == 0 ? channels_ - 1 : channels_;
        unsigned most = 0;
        for (unsigned i = 0; i < channels_; ++i) {
            const unsigned a = sample(p, i), b = sample(q, i), off = a > b ? a - b : b - a;
            if (i == alpha && off > 0) return ~0u;
            most = std::max(most, off);
        }
        return most;
    }
    // Whether `coded` may stand for `wanted`.
    bool like(Pixel wanted, Pixel coded, unsigned slack) const {
        return wanted == coded || (slack > 0 && difference(wanted, coded) <= slack);
    }
    // Of colours that are cheap, in this order, what is to stand for `wanted`: itself if it is among them,
    // else the one that is the closest, if it is close enough.
    template <std::size_t n>
    Pixel replacement(Pixel wanted, const std::array<Pixel, n>& cheap, std::size_t count,
                      unsigned slack) const {
        Pixel best = wanted;
        unsigned least = slack + 1;
        for (std::size_t i = 0; i < count; ++i)
            if (const unsigned off = difference(wanted, cheap[i]); off < least) {
                best = cheap[i];
                least = off;
            }
        return best;
    }

    void code_part(Pixel* row, std::size_t begin, std::size_t end, const std::uint16_t* slack) {
        const Pixel* above = row - canvas_.stride;
        const Pixel* above2 = above - canvas_.stride;
        std::uint32_t length = 0;  // of the match so far
        std::size_t distance = 0;  // to what is matched
        for (std::size_t x = begin; x < end; ++x) {
            if constexpr (requires { coder_.meter(x); }) coder_.meter(block_row_ + x / map_block);
            tested_ = 0;
            if (const Pixel w = row[x - 1]; w == above[x] && w == above[x - 1] && w == above[x + 1]) {
                const std::size_t run = code_run(row, x, end, slack);
                if (run > 0) length = 0;
                x += run;
                if (x == end) break;
                if (last_whole_) {  // the run has ended with what is above it
                    --x;
                    continue;
                }
                test(w);
            }
            const Pixel w = row[x - 1], n = above[x], ne = above[x + 1], nw = above[x - 1];
            const Pixel ww = row[x - 2], nn = above2[x], nee = above[x + 2];
            const std::uint32_t close_hash =
                key(w) * 0x9E3779B1u + key(n) * 0x85EBCA6Bu + key(ne) * 0xC2B2AE35u + key(nw) * 0x27D4EB2Fu;
            const std::uint32_t wide_hash =
                close_hash + key(ww) * 0x165667B1u + key(nn) * 0xD3A2646Du + key(nee) * 0xFD7046C5u;
            const std::uint32_t far_hash = wide_hash + key(above[x - 2]) * 0xB55A4F09u +
                                           key(above2[x + 1]) * 0x7FEB352Du +
                                           key(above2[x - 1]) * 0x846CA68Bu + key(row[x - 3]) * 0x31848BABu;
            const Found<Place> far = find(far_, far_hash);
            const Found<Slot> wide = find(wide_, wide_hash);
            const Found<Slot> close = find(close_, close_hash);
            const unsigned equal =
                (w == nw) | (nw == n) << 1 | (n == ne) << 2 | (w == ww) << 3 | (n == nn) << 4 | (w == n) << 5;
            const auto place = [&](Pixel p) { return (p == w) | (p == n) << 1; };
            const auto compared = [](const Found<Slot>& found, Pixel p) {
                return !found.known ? none : found.entry->colour == p ? same_colour : other_colour;
            };
            const auto here = static_cast<std::size_t>(row + x - canvas_.pixels.data());
            Pixel wanted = row[x];
            const unsigned loose = slack ? slack[x] : 0;
            if (loose > 0) {
                std::array<Pixel, 7> cheap{};
                std::size_t count = 0;
                const auto add = [&](Pixel p) {
                    if (!was_tested(p)) cheap[count++] = p;
                };
                if (length > 0 || far.known)
                    add(canvas_.pixels[length > 0 ? here - distance : far.entry->at]);
                if (wide.known) add(wide.entry->colour);
                if (close.known) add(close.entry->colour);
                for (const Pixel p : {w, n, ne, nw}) add(p);
                wanted = replacement(wanted, cheap, count, loose);
            }
            unsigned missed = 0;
            bool hit = false;

            if (length == 0 && far.known) distance = here - far.entry->at;
            if (length > 0 || far.known) {
                const Pixel p = canvas_.pixels[here - distance];
                if (!was_tested(p)) {
                    const unsigned bucket =
                        length < 4 ? length : std::min(static_cast<unsigned>(std::bit_width(length)) + 1, 7u);
                    const unsigned seen =
                        far.known ? std::min(static_cast<unsigned>(std::bit_width(far.entry->seen)), 5u) : 0;
                    const unsigned around = (compared(wide, p) * 3 + compared(close, p)) * 64 + equal;
                    Bit* const models[] = {&match_[((bucket * 4 + place(p)) * 4 + history_) * 6 + seen],
                                           &match_around_[around * 8 + bucket]};
                    hit = match_mixer_[bucket].template code<1023>(coder_, models, wanted == p);
                    missed = 1;
                    test(p);
                }
                length = hit ? std::min(length + 1, 1000u) : 0;
                if (hit) row[x] = p;
            }
            if (!hit && wide.known && !was_tested(wide.entry->colour)) {
                const Pixel p = wide.entry->colour;
                const unsigned context =
                    (std::min<unsigned>(wide.entry->seen, 15) * 3 + compared(close, p)) * 4 + place(p);
                hit = try_colour(row[x], wanted, p, wide_hit_[(context * 2 + missed) * 4 + history_]);
                missed |= 2;
            }
            if (!hit && close.known && !was_tested(close.entry->colour)) {
                const Pixel p = close.entry->colour;
                const unsigned context = std::min<unsigned>(close.entry->seen, 15) * 4 + place(p);
                hit = try_colour(row[x], wanted, p, close_hit_[(context * 4 + missed) * 4 + history_]);
                missed |= 4;
            }
            const Pixel around[] = {w, n, ne, nw};
            for (unsigned i = 0; i < 4 && !hit; ++i) {
                const Pixel p = around[i];
                if (was_tested(p)) continue;
                Bit* const models[] = {
                    &neighbour_[((i * 64 + equal) * 4 + history_) * 8 + missed],
                    &neighbour_colour_[hash(key(p), i * 16 + tested_) >> (32 - hash_bits_)]};
                hit = neighbour_mixer_[i].template code<255>(coder_, models, wanted == p);
                test(p);
                if (hit) row[x] = p;
            }
            if (!hit) row[x] = literal(wanted, w, n, nw, ne, loose);
            history_ = (2 * history_ + hit) & 3;

            Place& entry = *far.entry;
            if (!far.known)
                entry.seen = 1;
            else if (canvas_.pixels[entry.at] != row[x])
                entry.seen = std::max<std::uint16_t>(entry.seen / 4, 1);
            else if (entry.seen < 255)
                ++entry.seen;
            entry.check = far.check;
            entry.at = static_cast<std::uint32_t>(here);
            learn(wide, row[x]);
            learn(close, row[x]);
        }
    }

    bool was_tested(Pixel p) const { return std::find(tests_, tests_ + tested_, p) != tests_ + tested_; }
    void test(Pixel p) { tests_[tested_++] = p; }

    bool try_colour(Pixel& out, Pixel wanted, Pixel p, Bit& model) {
        test(p);
        const bool hit = coder_.bit(model, wanted == p);
        if (hit) out = p;
        return hit;
    }

    // Where the four neighbours are one colour: how many pixels go on with it, as long as those above do.
    std::size_t code_run(Pixel* row, std::size_t x, std::size_t end, const std::uint16_t* slack) {
        const Pixel* above = row - canvas_.stride;
        const Pixel w = row[x - 1];
        std::size_t most = 1;
        while (x + most < end && above[x + most + 1] == w) ++most;
        std::size_t run = 0;
        if constexpr (Coder::encodes)
            while (run < most && like(row[x + run], w, slack ? slack[x + run] : 0)) ++run;
        const auto size = static_cast<unsigned>(std::bit_width(most));
        const Pixel* above2 = above - canvas_.stride;
        const unsigned calm = above2[x] == w && above2[x + 1] == w && row[x - 2] == w;
        last_whole_ = coder_.bit(whole_[(size * 2 + calm) * 2 + last_whole_], run == most);
        if (last_whole_)
            run = most;
        else
            run = code_below(run, most);
        std::fill(row + x, row + x + run, w);
        return run;
    }

    // A number below `most`.
    std::size_t code_below(std::size_t value, std::size_t most) {
        const auto limit = static_cast<unsigned>(std::bit_width(most - 1));
        const auto size = static_cast<unsigned>(std::bit_width(value));
        unsigned n = 0;
        while (n < limit && !coder_.bit(run_size_[limit * 17 + n], n == size)) ++n;
        if (n < 2) return n;
        const auto bits = static_cast<std::uint32_t>(value) & ((1u << (n - 1)) - 1);
        std::uint32_t result = 1;
        for (unsigned i = n - 1; i-- > 0;) {
            const bool bit = (bits >> i & 1) != 0;
            const unsigned place = n - 2 - i;
            result =
                2 * result + (place < 2 ? coder_.bit(run_bit_[n * 2 + place], bit) : coder_.code(32768, bit));
        }
        return std::min<std::size_t>(result, most - 1);
    }

    // ---- samples

    static int median(int a, int b, int c) {
        const int low = std::min(a, b), high = std::max(a, b);
        return c >= high ? low : c <= low ? high : a + b - c;
    }
    unsigned magnitude(int value) const {
        const auto size = static_cast<unsigned>(std::bit_width(static_cast<unsigned>(value)));
        return std::min(size, 15u);
    }

    Pixel literal(Pixel wanted, Pixel w, Pixel n, Pixel nw, Pixel ne, unsigned loose) {
        const int top = (1 << bits_) - 1;
        const unsigned shift = bits_ > 6 ? bits_ - 6 : 0;
        const int least = bits_ > 5 ? 1 << (bits_ - 5) : 1;
        const unsigned first = order_[0];
        const int firsts[] = {static_cast<int>(sample(w, first)), static_cast<int>(sample(n, first)),
                              static_cast<int>(sample(nw, first)), static_cast<int>(sample(ne, first))};
        int value0 = 0, error0 = 0, error1 = 0;
        std::uint32_t before = 0;
        Pixel result = 0;
        Found<Slot> with_left{}, alone{};
        bool looked = false;
        for (unsigned i = 0; i < channels_; ++i) {
            const unsigned channel = order_[i];
            if (i == 1) {
                looked = true;
                with_left = find(by_first_, hash(before + 0x12345u, key(w)));
                alone = find(by_first_, hash(before + 0x777u, 0xABCDEFu));
                if (find_by_first(result, wanted, with_left, alone, loose)) break;
            }
            const int sw = static_cast<int>(sample(w, channel)), sn = static_cast<int>(sample(n, channel));
            const int snw = static_cast<int>(sample(nw, channel)),
                      sne = static_cast<int>(sample(ne, channel));
            const int rough = std::abs(sw - snw) + std::abs(sn - snw) + std::abs(sn - sne);
            const unsigned activity = magnitude(rough);
            const int flat = median(sw, sn, snw);
            const bool exact = loose == 0 || (channels_ % 2 == 0 && channel == channels_ - 1);
            const int step = exact ? 1 : static_cast<int>(std::bit_floor(loose + 1));
            int value = static_cast<int>(sample(wanted, channel));
            int coded;
            if (i == 0) {
                // Of all values that would do, one that many pixels have.
                value = std::min((value + step / 2) / step * step, top);
                coded = static_cast<int>(code_sample(
                    0, static_cast<unsigned>(value), activity, static_cast<unsigned>(flat) >> shift,
                    hash(key(w), key(n)), hash(key(w), 1), hash(key(n), key(ne))));
                value0 = coded;
                error0 = coded - flat;
            } else {
                const int theirs[] = {sw, sn, snw, sne};
                unsigned high = 0, low = 0;
                for (unsigned k = 1; k < 4; ++k) {
                    if (firsts[k] > firsts[high]) high = k;
                    if (firsts[k] < firsts[low]) low = k;
                }
                const int span = firsts[high] - firsts[low];
                std::int64_t guess = flat + error0;
                if (span >= least)
                    guess = theirs[low] +
                            std::int64_t{value0 - firsts[low]} * (theirs[high] - theirs[low]) / span;
                const auto guessed = static_cast<int>(std::clamp<std::int64_t>(guess, 0, top));
                int difference = value - guessed;
                if (!exact && std::abs(difference) <= static_cast<int>(loose)) difference = 0;
                const int half = 1 << (bits_ - 1);
                const unsigned folded = static_cast<unsigned>(difference + half) & static_cast<unsigned>(top);
                const int errors = std::abs(error0) + (i == 1 ? 0 : std::abs(error1));
                const unsigned back =
                    code_sample(i, folded, activity, static_cast<unsigned>(std::min(errors, top)) >> shift,
                                hash(before, key(w)),
                                hash(static_cast<std::uint32_t>(guessed), static_cast<std::uint32_t>(value0)),
                                hash(key(w), 2));
                coded = (guessed + static_cast<int>(back) - half) & top;
                if (i == 1) error1 = coded - guessed;
            }
            result |= static_cast<Pixel>(coded) << (bits_ * channel);
            before = hash(before, static_cast<std::uint32_t>(coded));
        }
        if (looked) {
            learn(with_left, result);
            learn(alone, result);
        }
        return result;
    }

    // The whole colour, from those that had the same first sample.
    bool find_by_first(Pixel& result, Pixel wanted, const Found<Slot>& with_left, const Found<Slot>& alone,
                       unsigned loose) {
        // They must agree in that sample: what only shares a hash is no candidate.
        const auto fits = [&](const Found<Slot>& found) {
            return found.known && sample(found.entry->colour, order_[0]) == sample(result, order_[0]);
        };
        const bool first = fits(with_left), second = fits(alone);
        if (first) {
            const Pixel p = with_left.entry->colour;
            const unsigned other = !second ? none : alone.entry->colour == p ? same_colour : other_colour;
            Bit& model = by_left_hit_[std::min<unsigned>(with_left.entry->seen, 15) * 3 + other];
            if (coder_.bit(model, like(wanted, p, loose))) {
                result = p;
                return true;
            }
        }
        if (second && !(first && with_left.entry->colour == alone.entry->colour)) {
            const Pixel p = alone.entry->colour;
            Bit& model = alone_hit_[std::min<unsigned>(alone.entry->seen, 15) * 2 + first];
            if (coder_.bit(model, like(wanted, p, loose))) {
                result = p;
                return true;
            }
        }
        return false;
    }

    unsigned code_sample(unsigned which, unsigned value, unsigned activity, unsigned expected,
                         std::uint32_t a, std::uint32_t b, std::uint32_t c) {
        const std::uint32_t bases[] = {activity, 64 + expected, a, b, c};
        // Four bits at a time share a line of the cache in each table.
        Bit* lines[5] = {};
        unsigned prefix = 1, node = 0;
        for (unsigned i = bits_; i-- > 0;) {
            if (i % 4 == 3 || node == 0) {
                for (unsigned k = 0; k < 5; ++k)
                    lines[k] = &sample_[(k << hash_bits_) +
                                        (hash(bases[k], prefix * 4 + which) >> (36 - hash_bits_) << 4)];
                node = 1;
            }
            Bit* const models[5] = {lines[0] + node, lines[1] + node, lines[2] + node, lines[3] + node,
                                    lines[4] + node};
            const bool bit =
                sample_mixer_[which * 16 + i].template code<255>(coder_, models, (value >> i & 1) != 0);
            node = 2 * node + bit;
            prefix = 2 * prefix + bit;
        }
        return prefix & ((1u << bits_) - 1);
    }

    Coder& coder_;
    Canvas<Pixel>& canvas_;
    unsigned channels_, bits_;
    const BlockMap& map_;
    const std::uint16_t* slack_;
    unsigned hash_bits_, slot_bits_;
    std::array<unsigned, 4> order_{};
    std::vector<Place> far_;
    std::vector<Slot> wide_, close_, by_first_;
    std::vector<Bit> match_, match_around_, wide_hit_, close_hit_, neighbour_, neighbour_colour_;
    Large<Bit> sample_;  // one table after the other
    std::array<Bit, 8> repeated_{};
    std::array<Bit, 128> whole_{};
    std::array<Bit, 17 * 18> run_size_{};
    std::array<Bit, 64> run_bit_{};
    std::array<Bit, 48> by_left_hit_{};
    std::array<Bit, 32> alone_hit_{};
    std::array<Mixer<2>, 8> match_mixer_{};
    std::array<Mixer<2>, 4> neighbour_mixer_{};
    std::array<Mixer<5>, 64> sample_mixer_{};
    unsigned history_ = 0;
    std::size_t block_row_ = 0;
    bool last_whole_ = true;
    Pixel tests_[8] = {};
    unsigned tested_ = 0;
};

}  // namespace latens
