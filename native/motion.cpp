#include "motion.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "isa.hpp"
#include "motion_loops.hpp"
#include "pool.hpp"

namespace latens {

const MotionLoops& motion_loops() {
    // Sets of kernels beyond AVX2 have it, too.
    const bool wide = isa_allowed("avx2") || isa_allowed("avx512");
    const MotionLoops* const best = wide ? motion_loops_avx2() : nullptr;
    return best != nullptr ? *best : compiled;
}

bool sound_field(const FieldView& field, int references) {
    const auto sound = [](const Vector& v) {
        return std::abs(v.down) <= motion_reach && std::abs(v.right) <= motion_reach;
    };
    // Units that are in some block as often as there are units are in one each.
    std::int64_t covered = 0;
    for (int r = 0; r < field.rows; ++r)
        for (int c = 0; c < field.columns; ++c) {
            const Unit& unit = field.at(r, c);
            const Motion& m = unit.motion;
            if (unit.size != 8 && unit.size != 16 && unit.size != 32 && unit.size != 64) return false;
            if (m.references < 1 || m.references >= 1 << references) return false;
            for (int k = 0; k < 2; ++k)
                if (!sound(m.vectors[k]) || (!m.uses(k) && m.vectors[k] != Vector{})) return false;
            const int mask = ~(unit.size / motion_unit - 1);
            const Unit& first = field.at(r & mask, c & mask);
            if (first.size != unit.size || first.motion != m) return false;
            const int side = unit.size / motion_unit;
            if (&first == &unit) covered += side * side;
        }
    return covered == std::int64_t{field.rows} * field.columns;
}

namespace {

constexpr std::size_t channels = 3;
constexpr int overlap = 4;  // pixels by which a block reaches into its neighbours
constexpr int largest = motion_square;
constexpr int halo = motion_taps - 1;

// Weights of a block along one axis, in sixteenths: they fall over eight pixels across its border, and those
// of neighbours add up to 16. What borders on nothing has all of it.
int weight_at(int at, int first, int size, int end) {
    int weight = 16;
    const int before = at - (first - overlap), after = first + size + overlap - 1 - at;
    if (first > 0 && before < 2 * overlap) weight = 2 * before + 1;
    if (first + size < end && after < 2 * overlap) weight = std::min(weight, 2 * after + 1);
    return weight;
}

struct Area {
    int top, left, height, width;
};

// Samples of moved pixels, one square at a time.
class Mover {
  public:
    Mover(const std::uint16_t* const* references, const FieldView& field)
        : references_(references),
          field_(field),
          height_(field.height()),
          width_(field.width()),
          loops_(motion_loops()) {}

    void square(int top, int left, std::uint16_t* out) {
        const std::size_t out_step = static_cast<std::size_t>(width_) * channels;
        out += static_cast<std::size_t>(top) * out_step + static_cast<std::size_t>(left) * channels;
        const int first_row = std::max(top / motion_unit - 1, 0),
                  end_row = std::min((top + largest) / motion_unit + 1, field_.rows),
                  first_column = std::max(left / motion_unit - 1, 0),
                  end_column = std::min((left + largest) / motion_unit + 1, field_.columns);
        if (uniform(first_row, end_row, first_column, end_column)) {
            const std::uint16_t* const found =
                moved(field_.at(first_row, first_column).motion, {top, left, largest, largest});
            for (int y = 0; y < largest; ++y)
                std::memcpy(out + static_cast<std::size_t>(y) * out_step, found + y * row_size,
                            row_size * sizeof *out);
            return;
        }
        std::fill(sums_, sums_ + largest * row_size, 0u);
        for (int r = first_row; r < end_row; ++r)
            for (int c = first_column; c < end_column; ++c) {
                const Unit& unit = field_.at(r, c);
                const int mask = ~(unit.size / motion_unit - 1);
                // Once for each block, at the first of its units that is seen from here.
                if (r == std::max(r & mask, first_row) && c == std::max(c & mask, first_column))
                    add(unit, (r & mask) * motion_unit, (c & mask) * motion_unit, top, left);
            }
        for (int y = 0; y < largest; ++y)
            loops_.weighed(sums_ + y * row_size, row_size, out + static_cast<std::size_t>(y) * out_step);
    }

  private:
    static constexpr std::size_t row_size = largest * channels;
    static constexpr std::size_t wide_size = (largest + halo) * channels;

    bool uniform(int first_row, int end_row, int first_column, int end_column) const {
        const Motion& motion = field_.at(first_row, first_column).motion;
        for (int r = first_row; r < end_row; ++r)
            for (int c = first_column; c < end_column; ++c)
                if (field_.at(r, c).motion != motion) return false;
        return true;
    }

    // What a block gives to the square at (top, left).
    void add(const Unit& unit, int row, int column, int top, int left) {
        const int size = unit.size;
        const int y0 = std::max(row - overlap, top), y1 = std::min(row + size + overlap, top + largest);
        const int x0 = std::max(column - overlap, left),
                  x1 = std::min(column + size + overlap, left + largest);
        if (y0 >= y1 || x0 >= x1) return;
        const std::uint16_t* const found = moved(unit.motion, {y0, x0, y1 - y0, x1 - x0});
        const std::size_t count = static_cast<std::size_t>(x1 - x0) * channels;
        for (int x = x0; x < x1; ++x)
            std::fill_n(weights_ + static_cast<std::size_t>(x - x0) * channels, channels,
                        static_cast<std::uint16_t>(weight_at(x, column, size, width_)));
        for (int y = y0; y < y1; ++y)
            loops_.weigh(found + static_cast<std::size_t>(y - y0) * row_size, weights_,
                         static_cast<std::uint32_t>(weight_at(y, row, size, height_)), count,
                         sums_ + static_cast<std::size_t>(y - top) * row_size +
                             static_cast<std::size_t>(x0 - left) * channels);
    }

    const std::uint16_t* moved(const Motion& motion, const Area& area) {
        const int first = motion.uses(0) ? 0 : 1;
        moved(first, motion.vectors[first], area, moved_[0]);
        if (motion.references == 3) {
            moved(1, motion.vectors[1], area, moved_[1]);
            for (int y = 0; y < area.height; ++y)
                loops_.mean(moved_[0] + y * row_size, moved_[1] + y * row_size,
                            static_cast<std::size_t>(area.width) * channels);
        }
        return moved_[0];
    }

    void moved(int reference, const Vector& vector, const Area& area, std::uint16_t* out) {
        const int down = vector.down & 3, right = vector.right & 3;
        const int top = area.top + (vector.down >> 2) - (down ? motion_before : 0);
        const int left = area.left + (vector.right >> 2) - (right ? motion_before : 0);
        const int rows = area.height + (down ? halo : 0), columns = area.width + (right ? halo : 0);
        std::size_t step = 0;
        const std::uint16_t* from = source(references_[reference], {top, left, rows, columns}, step);
        const std::size_t count = static_cast<std::size_t>(area.width) * channels;
        if (right) {
            for (int y = 0; y < rows; ++y)
                loops_.filter(from + static_cast<std::size_t>(y) * step, channels, motion_filters[right],
                              count, down ? across_ + y * row_size : out + y * row_size);
            from = across_;
            step = row_size;
        }
        for (int y = 0; y < area.height; ++y)
            if (down)
                loops_.filter(from + static_cast<std::size_t>(y) * step, step, motion_filters[down], count,
                              out + y * row_size);
            else if (!right)
                std::memcpy(out + y * row_size, from + static_cast<std::size_t>(y) * step,
                            count * sizeof *out);
    }

    // An area of a reference, which goes on beyond its border as at it.
    const std::uint16_t* source(const std::uint16_t* reference, const Area& area, std::size_t& step) {
        const std::size_t row = static_cast<std::size_t>(width_) * channels;
        if (area.top >= 0 && area.left >= 0 && area.top + area.height <= height_ &&
            area.left + area.width <= width_) {
            step = row;
            return reference + static_cast<std::size_t>(area.top) * row +
                   static_cast<std::size_t>(area.left) * channels;
        }
        step = wide_size;
        for (int y = 0; y < area.height; ++y) {
            const std::uint16_t* const line =
                reference + static_cast<std::size_t>(std::clamp(area.top + y, 0, height_ - 1)) * row;
            std::uint16_t* const to = wide_ + static_cast<std::size_t>(y) * wide_size;
            for (int x = 0; x < area.width; ++x)
                std::copy_n(
                    line + static_cast<std::size_t>(std::clamp(area.left + x, 0, width_ - 1)) * channels,
                    channels, to + static_cast<std::size_t>(x) * channels);
        }
        return wide_;
    }

    const std::uint16_t* const* references_;
    FieldView field_;
    int height_, width_;
    const MotionLoops& loops_;
    std::uint16_t wide_[(largest + halo) * wide_size];
    std::uint16_t across_[(largest + halo) * row_size];
    std::uint16_t moved_[2][largest * row_size];
    std::uint16_t weights_[row_size];
    std::uint32_t sums_[largest * row_size];
};

}  // namespace

void compensate(const std::uint16_t* const* references, const FieldView& field, std::uint16_t* out) {
    const std::size_t columns = static_cast<std::size_t>(field.width() / largest);
    const std::size_t rows = static_cast<std::size_t>(field.height() / largest);
    share(rows, threads_max, [&](std::size_t row, unsigned) {
        const auto mover = std::make_unique<Mover>(references, field);
        for (std::size_t column = 0; column < columns; ++column)
            mover->square(static_cast<int>(row) * largest, static_cast<int>(column) * largest, out);
    });
}

}  // namespace latens
