// How an encoder finds motion: whole pixels on a quarter of the sides, then blocks from large to small in the
// order of coding, each with what its neighbours have and what it finds for itself, and divided where that is
// cheaper. Costs are sums of absolute transformed differences and bits times their price.
#include <algorithm>
#include <bit>
#include <cstdlib>
#include <limits>
#include <memory>
#include <vector>

#include "motion_loops.hpp"
#include "motion_syntax.hpp"
#include "pool.hpp"

namespace latens {
namespace {

constexpr int coarse = 4;                   // pixels of a side of one of the small pictures
constexpr int coarse_block = 4;             // its blocks
constexpr int coarse_reach = 24;            // how far they are sought
constexpr int margin = motion_square + 16;  // of pictures, on all sides
constexpr int square = motion_square / motion_unit;

using Plane = std::vector<std::uint8_t>;

struct Size {
    int height, width;
    std::size_t count() const { return static_cast<std::size_t>(height) * static_cast<std::size_t>(width); }
};

Plane grey_of(const std::uint16_t* rgb, Size size) {
    Plane result(size.count());
    const std::size_t row = static_cast<std::size_t>(size.width);
    share(static_cast<std::size_t>(size.height), threads_max, [&](std::size_t y, unsigned) {
        motion_loops().grey(rgb + 3 * y * row, row, result.data() + y * row);
    });
    return result;
}

// Means of 4x4.
Plane small_of(const Plane& from, Size size) {
    const int h = size.height / coarse, w = size.width / coarse;
    Plane result(static_cast<std::size_t>(h) * static_cast<std::size_t>(w));
    for (int y = 0; y < h; ++y)
        for (int x = 0; x < w; ++x) {
            unsigned sum = 8;
            for (int i = 0; i < coarse; ++i)
                for (int j = 0; j < coarse; ++j)
                    sum += from[static_cast<std::size_t>(coarse * y + i) * size.width + coarse * x + j];
            result[static_cast<std::size_t>(y) * w + x] = static_cast<std::uint8_t>(sum >> 4);
        }
    return result;
}

Plane bordered(const Plane& from, Size size, int border) {
    const std::size_t step = static_cast<std::size_t>(size.width + 2 * border);
    Plane result(step * static_cast<std::size_t>(size.height + 2 * border));
    for (int y = 0; y < size.height + 2 * border; ++y) {
        const std::uint8_t* const line =
            from.data() + static_cast<std::size_t>(std::clamp(y - border, 0, size.height - 1)) * size.width;
        std::uint8_t* const to = result.data() + static_cast<std::size_t>(y) * step;
        std::fill_n(to, border, line[0]);
        std::copy_n(line, size.width, to + border);
        std::fill_n(to + border + size.width, border, line[size.width - 1]);
    }
    return result;
}

// A reference at all quarter positions, with a border; and small.
class Reference {
  public:
    Reference(const std::uint16_t* rgb, Size size)
        : size_(size), step_(static_cast<std::size_t>(size.width + 2 * margin)) {
        const Plane grey = grey_of(rgb, size);
        small = bordered(small_of(grey, size), {size.height / coarse, size.width / coarse}, coarse_reach + 2);
        phases(grey);
    }

    // The samples of a block; one that lies far outside sees what the border is.
    const std::uint8_t* at(int row, int column, Vector v, int side) const {
        const int y = std::clamp(row + (v.down >> 2), -margin, size_.height + margin - side);
        const int x = std::clamp(column + (v.right >> 2), -margin, size_.width + margin - side);
        return planes_[(v.down & 3) * 4 + (v.right & 3)].data() +
               static_cast<std::size_t>(y + margin) * step_ + static_cast<std::size_t>(x + margin);
    }
    std::size_t step() const { return step_; }

    Plane small;

  private:
    void phases(const Plane& grey) {
        constexpr int rows_at_once = 32, halo = motion_taps - 1;
        const int rows = size_.height + 2 * margin;
        for (Plane& plane : planes_) plane.resize(step_ * static_cast<std::size_t>(rows));
        const MotionLoops& loops = motion_loops();
        share(static_cast<std::size_t>((rows + rows_at_once - 1) / rows_at_once), threads_max,
              [&](std::size_t part, unsigned) {
                  const int first = static_cast<int>(part) * rows_at_once,
                            end = std::min(first + rows_at_once, rows);
                  std::vector<std::uint8_t> line(step_ + halo);
                  std::vector<std::int16_t> across[4];
                  for (auto& a : across) a.resize((rows_at_once + halo) * step_);
                  for (int y = first; y < end + halo; ++y) {
                      const std::uint8_t* const from =
                          grey.data() + static_cast<std::size_t>(
                                            std::clamp(y - motion_before - margin, 0, size_.height - 1)) *
                                            size_.width;
                      const std::size_t left = margin + motion_before;
                      std::fill_n(line.begin(), left, from[0]);
                      std::copy_n(from, size_.width, line.begin() + left);
                      std::fill(line.begin() + left + size_.width, line.end(), from[size_.width - 1]);
                      for (int right = 0; right < 4; ++right)
                          loops.across(line.data(), motion_filters[right], step_,
                                       across[right].data() + static_cast<std::size_t>(y - first) * step_);
                  }
                  for (int phase = 0; phase < 16; ++phase)
                      for (int y = first; y < end; ++y)
                          loops.down(across[phase & 3].data() + static_cast<std::size_t>(y - first) * step_,
                                     step_, motion_filters[phase >> 2], step_,
                                     planes_[phase].data() + static_cast<std::size_t>(y) * step_);
              });
    }

    Size size_;
    std::size_t step_;
    Plane planes_[16];
};

// Vectors in whole pixels of 16x16 blocks, from the small pictures; each sees a little of what is around.
std::vector<Vector> coarse_vectors(const Plane& small, Size size, const Reference& reference,
                                   std::int64_t price) {
    constexpr int around = 2, side = coarse_block + 2 * around;
    const int rows = size.height / coarse / coarse_block, columns = size.width / coarse / coarse_block;
    const Plane here = bordered(small, {size.height / coarse, size.width / coarse}, coarse_reach + around);
    const std::size_t step = static_cast<std::size_t>(size.width / coarse + 2 * (coarse_reach + around));
    std::vector<Vector> result(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns));
    const MotionLoops& loops = motion_loops();
    share(static_cast<std::size_t>(rows), threads_max, [&](std::size_t row, unsigned) {
        for (int column = 0; column < columns; ++column) {
            const std::size_t corner = (row * coarse_block + coarse_reach) * step +
                                       static_cast<std::size_t>(column) * coarse_block + coarse_reach;
            std::int64_t least = std::numeric_limits<std::int64_t>::max();
            for (int dy = -coarse_reach; dy <= coarse_reach; ++dy)
                for (int dx = -coarse_reach; dx <= coarse_reach; ++dx) {
                    const std::uint8_t* const there =
                        reference.small.data() + corner + dy * static_cast<std::ptrdiff_t>(step) + dx;
                    const int bits = 2 * (std::bit_width(static_cast<unsigned>(std::abs(dy))) +
                                          std::bit_width(static_cast<unsigned>(std::abs(dx))));
                    const std::int64_t cost =
                        (std::int64_t{loops.sad(here.data() + corner, step, there, step, side, side)} << 9) +
                        price * bits;
                    if (cost >= least) continue;
                    least = cost;
                    result[row * columns + column] = {static_cast<std::int16_t>(coarse * dy),
                                                      static_cast<std::int16_t>(coarse * dx)};
                }
        }
    });
    return result;
}

struct Found {
    Motion motion;
    std::int64_t cost = std::numeric_limits<std::int64_t>::max();
};

class Search {
  public:
    Search(const std::uint16_t* picture, const std::uint16_t* const* references, int count,
           const SearchOptions& options, const Field& field)
        : field_(field),
          view_{field.units, field.rows, field.columns},
          size_{field.height(), field.width()},
          options_(options),
          count_(count),
          price_(options.price),
          loops_(motion_loops()),
          grey_(grey_of(picture, size_)) {
        const Plane small = small_of(grey_, size_);
        for (int k = 0; k < count; ++k) {
            references_[k] = std::make_unique<Reference>(references[k], size_);
            coarse_[k] = coarse_vectors(small, size_, *references_[k], price_);
        }
        std::fill_n(field.units, static_cast<std::size_t>(field.rows) * field.columns, Unit{});
        // A square needs those on its left and above, up to one further right.
        const int rows = field.rows / square, columns = field.columns / square;
        for (int step = 0; step < columns + 2 * (rows - 1); ++step) {
            const int first = std::max((step - columns + 2) / 2, 0), last = std::min(step / 2, rows - 1);
            share(static_cast<std::size_t>(std::max(last - first + 1, 0)), threads_max,
                  [&](std::size_t i, unsigned) {
                      const int row = first + static_cast<int>(i);
                      node(row * square, (step - 2 * row) * square, square, Motion{});
                  });
        }
    }

  private:
    // Decides about a square of `size` units, puts its blocks into the field, and tells their cost.
    std::int64_t node(int row, int column, int size, const Motion& parent) {
        Found whole = block(row, column, size, parent);
        put_block(field_, row, column, size, whole.motion);
        if (size == 1) return whole.cost;
        const int level = std::countr_zero(static_cast<unsigned>(size)) - 1;
        const int smaller = is_smaller(row, column - 1, size) + is_smaller(row - 1, column, size);
        whole.cost += bits(FieldPriors::split_cost(level, smaller, false));
        std::int64_t divided = bits(FieldPriors::split_cost(level, smaller, true));
        // What else a division needs at least.
        if (whole.cost <= divided + bits(4 * 2)) return whole.cost;
        for (int r = row; r < row + size; ++r) std::fill_n(&field_.at(r, column), size, Unit{});
        const int half = size / 2;
        for (int i = 0; i < 4 && divided < whole.cost; ++i)
            divided += node(row + i / 2 * half, column + i % 2 * half, half, whole.motion);
        if (divided < whole.cost) return divided;
        put_block(field_, row, column, size, whole.motion);
        return whole.cost;
    }

    int is_smaller(int row, int column, int size) const {
        return row >= 0 && column >= 0 && field_.at(row, column).size < size * motion_unit ? 1 : 0;
    }
    std::int64_t bits(int eighths) const { return price_ * eighths / 8; }

    struct Block {
        int top, left, side;
        int height, width;  // as far as it is visible, in whole units
        const std::uint8_t* samples;
    };

    Found block(int row, int column, int size, const Motion& parent) const {
        Block b{row * motion_unit, column * motion_unit, size * motion_unit, 0, 0, nullptr};
        b.height = visible(b.top, b.side, options_.visible_height);
        b.width = visible(b.left, b.side, options_.visible_width);
        b.samples = grey_.data() + static_cast<std::size_t>(b.top) * size_.width + b.left;
        const Candidates candidates(view_, row, column, size, count_);
        const int level = std::countr_zero(static_cast<unsigned>(size));
        // Of saying that there is a vector, and to which references.
        const std::int64_t other = bits(FieldPriors::own_cost(level, candidates) + (count_ == 2 ? 12 : 0));
        Found best;
        for (int i = 0; i < candidates.count(); ++i)
            take(best, candidates[i],
                 (difference(b, candidates[i]) << 7) + bits(FieldPriors::index_cost(level, candidates, i)));
        if (b.height == 0 || b.width == 0 || best.cost <= other) return best;
        Found own[2];
        for (int k = 0; k < count_; ++k) {
            own[k] = single(b, k, candidates, parent, other);
            take(best, own[k].motion, own[k].cost);
        }
        if (count_ == 2) {
            const Found found = mean_of(b, own, candidates, other);
            take(best, found.motion, found.cost);
        }
        return best;
    }

    static int visible(int first, int side, int end) {
        const int count = std::clamp(end - first, 0, side);
        return (count + motion_unit - 1) / motion_unit * motion_unit;
    }

    static void take(Found& best, const Motion& motion, std::int64_t cost) {
        if (cost < best.cost) best = {motion, cost};
    }

    std::int64_t difference(const Block& b, const Motion& m) const {
        if (m.references == 3) {
            std::uint8_t mixed[motion_square * motion_square];
            loops_.mean8(references_[0]->at(b.top, b.left, m.vectors[0], b.side), references_[0]->step(),
                         references_[1]->at(b.top, b.left, m.vectors[1], b.side), references_[1]->step(),
                         b.height, b.width, mixed);
            return loops_.satd(b.samples, size_.width, mixed, b.width, b.height, b.width);
        }
        const int k = m.uses(0) ? 0 : 1;
        return transformed(b, k, m.vectors[k]);
    }

    std::int64_t transformed(const Block& b, int k, Vector v) const {
        return loops_.satd(b.samples, size_.width, references_[k]->at(b.top, b.left, v, b.side),
                           references_[k]->step(), b.height, b.width);
    }
    std::int64_t plain(const Block& b, int k, Vector v) const {
        return loops_.sad(b.samples, size_.width, references_[k]->at(b.top, b.left, v, b.side),
                          references_[k]->step(), b.height, b.width);
    }

    // What a vector takes.
    std::int64_t bits(Vector v, Vector predicted) const {
        return bits(FieldPriors::difference_cost(v.down - predicted.down) +
                    FieldPriors::difference_cost(v.right - predicted.right));
    }

    // The best vector to one reference.
    Found single(const Block& b, int k, const Candidates& candidates, const Motion& parent,
                 std::int64_t other) const {
        const Vector predicted = candidates.predicted(k);
        Vector best = whole(predicted);
        std::int64_t least = std::numeric_limits<std::int64_t>::max();
        const auto tried = [&](Vector v) {
            const std::int64_t cost = (plain(b, k, v) << 7) + bits(v, predicted);
            if (cost >= least) return false;
            least = cost;
            best = v;
            return true;
        };
        tried(best);
        for (int i = 0; i < candidates.count(); ++i)
            if (candidates[i].uses(k)) tried(whole(candidates[i].vectors[k]));
        if (parent.uses(k)) tried(whole(parent.vectors[k]));
        const std::vector<Vector>& seeds = coarse_[k];
        const int columns = size_.width / 16;
        for (int r = b.top / 16; r * 16 < b.top + b.side; r += std::max(b.side / 32, 1))
            for (int c = b.left / 16; c * 16 < b.left + b.side; c += std::max(b.side / 32, 1)) {
                const Vector seed = seeds[static_cast<std::size_t>(r) * columns + c];
                tried({static_cast<std::int16_t>(4 * seed.down), static_cast<std::int16_t>(4 * seed.right)});
            }
        // Steps to the best neighbour until there is none.
        for (int step : {8, 4})
            for (int i = 0; i < 16; ++i) {
                const Vector middle = best;
                bool moved = false;
                for (const auto& [dy, dx] : {std::pair{-1, 0}, {1, 0}, {0, -1}, {0, 1}})
                    moved |= tried(shifted(middle, dy * step, dx * step));
                if (!moved) break;
            }
        least = std::numeric_limits<std::int64_t>::max();
        const auto exactly = [&](Vector v) {
            const std::int64_t cost = (transformed(b, k, v) << 7) + other + bits(v, predicted);
            if (cost >= least) return;
            least = cost;
            best = v;
        };
        exactly(best);
        exactly(predicted);
        for (int step : {2, 1}) {
            const Vector middle = best;
            for (int dy = -1; dy <= 1; ++dy)
                for (int dx = -1; dx <= 1; ++dx)
                    if (dy != 0 || dx != 0) exactly(shifted(middle, dy * step, dx * step));
        }
        Motion motion;
        motion.references = static_cast<std::int16_t>(1 << k);
        motion.vectors[k] = best;
        return {motion, least};
    }

    // The mean of both, from what each has for itself; each is then moved a little with the other in place.
    Found mean_of(const Block& b, const Found (&own)[2], const Candidates& candidates,
                  std::int64_t other) const {
        Motion motion{3, {own[0].motion.vectors[0], own[1].motion.vectors[1]}};
        Found best;
        const auto tried = [&](const Motion& m) {
            take(best, m,
                 (difference(b, m) << 7) + other + bits(m.vectors[0], candidates.predicted(0)) +
                     bits(m.vectors[1], candidates.predicted(1)));
        };
        tried(motion);
        for (int k = 1; k >= 0; --k)
            for (int step : {2, 1}) {
                const Motion middle = best.motion;
                for (const auto& [dy, dx] : {std::pair{-1, 0}, {1, 0}, {0, -1}, {0, 1}}) {
                    Motion m = middle;
                    m.vectors[k] = shifted(m.vectors[k], dy * step, dx * step);
                    tried(m);
                }
            }
        return best;
    }

    static Vector shifted(Vector v, int down, int right) {
        const auto limited = [](int x) {
            return static_cast<std::int16_t>(std::clamp(x, -motion_reach, motion_reach));
        };
        return {limited(v.down + down), limited(v.right + right)};
    }
    static Vector whole(Vector v) {
        const auto rounded = [](int x) { return (x + 2) >> 2 << 2; };
        return shifted({}, rounded(v.down), rounded(v.right));
    }

    Field field_;
    FieldView view_;
    Size size_;
    SearchOptions options_;
    int count_;
    std::int64_t price_;
    const MotionLoops& loops_;
    Plane grey_;
    std::unique_ptr<Reference> references_[2];
    std::vector<Vector> coarse_[2];
};

}  // namespace

void search_motion(const std::uint16_t* picture, const std::uint16_t* const* references, int count,
                   const SearchOptions& options, const Field& field) {
    Search(picture, references, count, options, field);
}

}  // namespace latens
