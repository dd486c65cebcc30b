#include "motion.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "pool.hpp"

namespace latens {
namespace {

constexpr int block = static_cast<int>(motion_block);
constexpr int taps = 6;
constexpr int before = 2;  // taps before the position that is rounded down to
constexpr int side = block + taps - 1;
constexpr unsigned slots = threads_max;

// Between whole positions, as in ITU-T H.264, 8.4.2.2.1: times 32.
template <class T>
std::int32_t between(const T* x, std::size_t step) {
    const auto at = [x, step](std::size_t i) { return static_cast<std::int32_t>(x[i * step]); };
    return at(0) + at(5) - 5 * (at(1) + at(4)) + 20 * (at(2) + at(3));
}

int within(int value, int size) {
    return std::clamp(value, 0, size - 1);
}

void move_block(const std::uint16_t* reference, int height, int width, std::size_t channels, int top,
                int left, int down, int right, std::int32_t* space, std::uint16_t* out) {
    const bool half_down = (down & 1) != 0, half_right = (right & 1) != 0;
    top += down >> 1;
    left += right >> 1;
    const int rows = half_down ? side : block, columns = half_right ? side : block;
    const int first_row = half_down ? top - before : top, first_column = half_right ? left - before : left;
    const std::size_t stride = static_cast<std::size_t>(side) * channels;
    std::int32_t* const values = space;
    std::int32_t* const across = space + side * stride;
    for (int r = 0; r < rows; ++r) {
        const std::uint16_t* const row =
            reference + static_cast<std::size_t>(within(first_row + r, height)) * width * channels;
        for (int c = 0; c < columns; ++c) {
            const std::uint16_t* const from =
                row + static_cast<std::size_t>(within(first_column + c, width)) * channels;
            for (std::size_t k = 0; k < channels; ++k) values[r * stride + c * channels + k] = from[k];
        }
        if (half_right)
            for (std::size_t i = 0; i < block * channels; ++i)
                across[r * stride + i] = between(values + r * stride + i, channels);
    }
    const std::int32_t* const found = half_right ? across : values;
    const int shift = (half_right ? 5 : 0) + (half_down ? 5 : 0);
    const std::int32_t half = shift ? 1 << (shift - 1) : 0;
    const std::size_t out_stride = static_cast<std::size_t>(width) * channels;
    for (int r = 0; r < block; ++r)
        for (std::size_t i = 0; i < block * channels; ++i) {
            const std::int32_t* const at = found + r * stride + i;
            const std::int32_t sum = half_down ? between(at, stride) : *at;
            out[r * out_stride + i] = static_cast<std::uint16_t>(std::clamp((sum + half) >> shift, 0, 65535));
        }
}

constexpr int coarse = 4;
constexpr int steps = motion_reach / 2 / coarse - 1;  // leaves room for what refines
constexpr int refine = 3;
constexpr int margin = motion_reach / 2 + 4;

struct Vector {
    int down, right;
};

// One search. All vectors are found from those of the step before, so that blocks do not depend on each
// other.
class Search {
  public:
    Search(const std::uint16_t* x, const std::uint16_t* reference, int height, int width,
           const std::int32_t* costs)
        : x_(x),
          width_(width),
          rows_(height / block),
          columns_(width / block),
          costs_(costs),
          stride_(static_cast<std::size_t>(width) + 2 * margin) {
        phases(reference, height);
        coarsely(reference, height);
        each([this](int r, int c, Vector v) { return whole(r, c, v); });
        each([this](int r, int c, Vector v) { return halves(r, c, v); });
        each([this](int r, int c, Vector v) { return agreeing(r, c, v); });
    }

    const std::vector<Vector>& found() const { return vectors_; }

  private:
    // The reference at whole and half positions, half down in the second bit, with a border.
    void phases(const std::uint16_t* reference, int height) {
        const std::size_t size = stride_ * static_cast<std::size_t>(height + 2 * margin);
        for (auto& phase : phases_) phase.resize(size);
        share(static_cast<std::size_t>(height + 2 * margin), slots, [&](std::size_t row, unsigned) {
            std::vector<std::int32_t> lines(taps * (stride_ + taps)), across(taps * stride_);
            for (int t = 0; t < taps; ++t) {
                const int y = within(static_cast<int>(row) - margin + t - before, height);
                std::int32_t* const line = lines.data() + t * (stride_ + taps);
                for (std::size_t i = 0; i < stride_ + taps; ++i)
                    line[i] = reference[static_cast<std::size_t>(y) * width_ +
                                        within(static_cast<int>(i) - margin - before, width_)];
                for (std::size_t i = 0; i < stride_; ++i) across[t * stride_ + i] = between(line + i, 1);
            }
            const auto sample = [](std::int32_t sum, int shift) {
                return static_cast<std::uint16_t>(std::clamp((sum + (1 << (shift - 1))) >> shift, 0, 1023));
            };
            const std::int32_t* const middle = lines.data() + before * (stride_ + taps);
            for (std::size_t i = 0; i < stride_; ++i) {
                const std::size_t at = row * stride_ + i;
                phases_[0][at] = static_cast<std::uint16_t>(middle[i + before]);
                phases_[1][at] = sample(across[before * stride_ + i], 5);
                phases_[2][at] = sample(between(lines.data() + i + before, stride_ + taps), 5);
                phases_[3][at] = sample(between(across.data() + i, stride_), 10);
            }
        });
    }

    // Multiples of four pixels, seen together with blocks around.
    void coarsely(const std::uint16_t* reference, int height) {
        const int h = height / coarse, w = width_ / coarse;
        const std::vector<std::int32_t> small = sums(x_, h, w), other = sums(reference, h, w);
        const std::size_t blocks = static_cast<std::size_t>(rows_) * columns_;
        constexpr int width = 2 * steps + 1;
        std::vector<std::int32_t> found(width * width * blocks);
        share(width * width, slots, [&](std::size_t step, unsigned) {
            const int dy = static_cast<int>(step) / width - steps,
                      dx = static_cast<int>(step) % width - steps;
            std::vector<std::int32_t> own(blocks);
            for (int y = 0; y < h; ++y)
                for (int x = 0; x < w; ++x) {
                    const std::int32_t there =
                        other[static_cast<std::size_t>(within(y + dy, h)) * w + within(x + dx, w)];
                    own[static_cast<std::size_t>(y / coarse) * columns_ + x / coarse] +=
                        std::abs(small[static_cast<std::size_t>(y) * w + x] - there);
                }
            for (int r = 0; r < rows_; ++r)
                for (int c = 0; c < columns_; ++c) {
                    std::int64_t total = 0, count = 0;
                    for (int i = std::max(r - 1, 0); i <= std::min(r + 1, rows_ - 1); ++i)
                        for (int j = std::max(c - 1, 0); j <= std::min(c + 1, columns_ - 1); ++j, ++count)
                            total += own[static_cast<std::size_t>(i) * columns_ + j];
                    const std::size_t at = static_cast<std::size_t>(r) * columns_ + c;
                    found[step * blocks + at] =
                        static_cast<std::int32_t>((own[at] * count + total) / (2 * count)) +
                        bits({2 * coarse * dy, 2 * coarse * dx});
                }
        });
        vectors_.resize(blocks);
        for (std::size_t at = 0; at < blocks; ++at) {
            std::int32_t best = std::numeric_limits<std::int32_t>::max();
            for (int step = 0; step < width * width; ++step)
                if (found[step * blocks + at] < best) {
                    best = found[step * blocks + at];
                    vectors_[at] = {coarse * (step / width - steps), coarse * (step % width - steps)};
                }
        }
    }

    std::vector<std::int32_t> sums(const std::uint16_t* from, int h, int w) const {
        std::vector<std::int32_t> found(static_cast<std::size_t>(h) * w);
        for (int y = 0; y < coarse * h; ++y)
            for (int x = 0; x < coarse * w; ++x)
                found[static_cast<std::size_t>(y / coarse) * w + x / coarse] +=
                    from[static_cast<std::size_t>(y) * width_ + x];
        return found;
    }

    template <class Better>
    void each(Better better) {
        std::vector<Vector> next(vectors_.size());
        share(static_cast<std::size_t>(rows_), slots, [&](std::size_t r, unsigned) {
            for (int c = 0; c < columns_; ++c)
                next[r * columns_ + c] = better(static_cast<int>(r), c, vectors_[r * columns_ + c]);
        });
        vectors_ = std::move(next);
    }

    Vector whole(int r, int c, Vector v) const {
        Vector best = v;
        std::int32_t least = std::numeric_limits<std::int32_t>::max();
        for (int dy = -refine; dy <= refine; ++dy)
            for (int dx = -refine; dx <= refine; ++dx) {
                const Vector tried{2 * (v.down + dy), 2 * (v.right + dx)};
                take(sum(r, c, tried) + bits(tried), tried, least, best);
            }
        return best;
    }

    Vector halves(int r, int c, Vector v) const {
        Vector best = v;
        std::int32_t least = std::numeric_limits<std::int32_t>::max();
        for (int dy = -1; dy <= 1; ++dy)
            for (int dx = -1; dx <= 1; ++dx) {
                const Vector tried{v.down + dy, v.right + dx};
                take(sum(r, c, tried) + bits(tried), tried, least, best);
            }
        return best;
    }

    // Vectors of a neighbour, or zero, where bits saved are worth the difference.
    Vector agreeing(int r, int c, Vector v) const {
        const Vector left = at(r, c - 1), right = at(r, c + 1);
        Vector best = v;
        std::int32_t least = std::numeric_limits<std::int32_t>::max();
        for (const Vector tried : {v, left, at(r - 1, c), right, at(r + 1, c), Vector{0, 0}}) {
            const std::int32_t cost = sum(r, c, tried) +
                                      bits({tried.down - left.down, tried.right - left.right}) +
                                      bits({right.down - tried.down, right.right - tried.right});
            take(cost, tried, least, best);
        }
        return best;
    }

    static void take(std::int32_t cost, Vector tried, std::int32_t& least, Vector& best) {
        if (cost >= least) return;
        least = cost;
        best = tried;
    }

    Vector at(int r, int c) const {
        return vectors_[static_cast<std::size_t>(within(r, rows_)) * columns_ + within(c, columns_)];
    }

    std::int32_t bits(Vector difference) const {
        return costs_[std::abs(difference.down)] + costs_[std::abs(difference.right)];
    }

    std::int32_t sum(int r, int c, Vector v) const {
        const std::uint16_t* const there =
            phases_[(v.down & 1) * 2 + (v.right & 1)].data() +
            static_cast<std::size_t>(margin + r * block + (v.down >> 1)) * stride_ +
            static_cast<std::size_t>(margin + c * block + (v.right >> 1));
        const std::uint16_t* const here = x_ + static_cast<std::size_t>(r) * block * width_ + c * block;
        std::int32_t total = 0;
        for (int i = 0; i < block; ++i)
            for (int j = 0; j < block; ++j)
                total += std::abs(static_cast<std::int32_t>(here[static_cast<std::size_t>(i) * width_ + j]) -
                                  static_cast<std::int32_t>(there[i * stride_ + j]));
        return total;
    }

    const std::uint16_t* x_;
    int width_, rows_, columns_;
    const std::int32_t* costs_;
    std::size_t stride_;
    std::vector<std::uint16_t> phases_[4];
    std::vector<Vector> vectors_;
};

}  // namespace

void compensate(const std::uint16_t* reference, std::size_t height, std::size_t width, std::size_t channels,
                const std::int16_t* vectors, std::uint16_t* out) {
    const std::size_t rows = height / motion_block, columns = width / motion_block;
    share(rows, slots, [&](std::size_t r, unsigned) {
        std::vector<std::int32_t> space(2 * side * side * channels);
        for (std::size_t c = 0; c < columns; ++c) {
            const std::size_t top = r * motion_block, left = c * motion_block;
            move_block(reference, static_cast<int>(height), static_cast<int>(width), channels,
                       static_cast<int>(top), static_cast<int>(left), vectors[r * columns + c],
                       vectors[(rows + r) * columns + c], space.data(),
                       out + (top * width + left) * channels);
        }
    });
}

void search_motion(const std::uint16_t* picture, const std::uint16_t* reference, std::size_t height,
                   std::size_t width, const std::int32_t* costs, std::int16_t* vectors) {
    const Search search(picture, reference, static_cast<int>(height), static_cast<int>(width), costs);
    const std::size_t blocks = search.found().size();
    for (std::size_t i = 0; i < blocks; ++i) {
        vectors[i] = static_cast<std::int16_t>(search.found()[i].down);
        vectors[blocks + i] = static_cast<std::int16_t>(search.found()[i].right);
    }
}

}  // namespace latens
