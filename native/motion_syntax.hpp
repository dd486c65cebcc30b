// What is known of a block from those before it, and how a field is said in bits: one piece of code for
// encoder and decoder (docs/format.md).
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>

#include "adaptive.hpp"
#include "motion.hpp"

namespace latens {

// Motions that a block may take over, the likeliest first.
class Candidates {
  public:
    static constexpr int most = 6;

    // Of a block of `size` units at (row, column); units of no size are not known yet.
    Candidates(const FieldView& known, int row, int column, int size, int references) {
        const int bottom = row + size - 1, right = column + size - 1;
        const Motion* const left = at(known, bottom, column - 1);
        const Motion* const above = at(known, row - 1, right);
        const Motion* const corner = at(known, row - 1, right + 1);
        for (const Motion* near :
             {left, above, corner, at(known, bottom + 1, column - 1), at(known, row - 1, column - 1)})
            if (near != nullptr) add(*near);
        spatial_ = count_;
        if (references == 2) both();
        add({1, {}});
        if (references == 2) {
            add({3, {}});
            add({2, {}});
        }
        for (int k = 0; k < 2; ++k) predicted_[k] = median(k, left, above, corner);
    }

    int count() const { return count_; }
    // How many different ones are around.
    int spatial() const { return spatial_; }
    const Motion& operator[](int i) const { return list_[i]; }
    int find(const Motion& motion) const {
        for (int i = 0; i < count_; ++i)
            if (list_[i] == motion) return i;
        return -1;
    }
    // What a vector to a reference is coded as a difference to.
    Vector predicted(int reference) const { return predicted_[reference]; }

  private:
    static const Motion* at(const FieldView& known, int row, int column) {
        if (row < 0 || column < 0 || row >= known.rows || column >= known.columns) return nullptr;
        const Unit& unit = known.at(row, column);
        return unit.size > 0 ? &unit.motion : nullptr;
    }

    void add(const Motion& motion) {
        if (count_ < most && find(motion) < 0) list_[count_++] = motion;
    }

    // The first vector to one reference with the first to the other.
    void both() {
        Motion found{3, {}};
        for (int k = 0; k < 2; ++k) {
            int i = 0;
            while (i < spatial_ && !list_[i].uses(k)) ++i;
            if (i == spatial_) return;
            found.vectors[k] = list_[i].vectors[k];
        }
        add(found);
    }

    template <class... Near>
    static Vector median(int reference, Near... near) {
        Vector found[3];
        int n = 0;
        for (const Motion* m : {near...})
            if (m != nullptr && m->uses(reference)) found[n++] = m->vectors[reference];
        if (n < 3) return n > 0 ? found[0] : Vector{};
        const auto middle = [](std::int16_t a, std::int16_t b, std::int16_t c) {
            return std::max(std::min(a, b), std::min(std::max(a, b), c));
        };
        return {middle(found[0].down, found[1].down, found[2].down),
                middle(found[0].right, found[1].right, found[2].right)};
    }

    std::array<Motion, most> list_;
    int count_ = 0, spatial_ = 0;
    Vector predicted_[2];
};

inline void put_block(const Field& field, int row, int column, int size, const Motion& motion) {
    const Unit unit{static_cast<std::int16_t>(size * motion_unit), motion};
    for (int r = row; r < row + size; ++r) std::fill_n(&field.at(r, column), size, unit);
}

// What models say at first, in 256ths; for encoders, too, which choose by what bits cost then.
struct FieldPriors {
    static constexpr std::uint32_t seen = 8;
    static constexpr std::uint8_t split[3][3] = {{71, 133, 191}, {62, 145, 219}, {40, 150, 228}};
    static constexpr std::uint8_t taken[4][4] = {
        {128, 157, 199, 169}, {128, 198, 202, 182}, {128, 180, 196, 178}, {128, 226, 224, 192}};
    static constexpr std::uint8_t index[4][Candidates::most - 1] = {
        {128, 128, 128, 128, 128}, {37, 128, 128, 128, 128}, {108, 35, 128, 128, 128}, {159, 84, 90, 79, 70}};
    static constexpr std::uint8_t length[16] = {190, 164, 146, 148, 140, 135, 120, 120,
                                                112, 64,  64,  64,  64,  64,  64,  64};

    // Eighths of a bit that an event of so many 256ths takes.
    static constexpr int cost(std::uint32_t chance) {
        // The logarithm's bits by squaring.
        std::uint64_t x = std::uint64_t{chance} << 24;  // 1 to 2 in 2^32, after shifts
        int whole = 0;
        while (x < std::uint64_t{1} << 31) {
            x <<= 1;
            ++whole;
        }
        int log = 0;
        for (int i = 0; i < 6; ++i) {
            x = (x >> 8) * (x >> 8) >> 15;
            log <<= 1;
            if (x >= std::uint64_t{1} << 32) {
                x >>= 1;
                ++log;
            }
        }
        return 8 * (whole + 1) - (log + 4) / 8;
    }
    static constexpr int cost(std::uint8_t one, bool bit) { return cost(bit ? one : 256u - one); }

    static constexpr int split_cost(int level, int smaller, bool divided) {
        return cost(split[level][smaller], divided);
    }
    static int index_cost(int level, const Candidates& candidates, int index) {
        const int around = std::min(candidates.spatial(), 3);
        int sum = cost(taken[level][around], true);
        for (int i = 0; i + 1 < candidates.count() && i <= index; ++i)
            sum += cost(FieldPriors::index[around][i], i < index);
        return sum;
    }
    static int own_cost(int level, const Candidates& candidates) {
        return cost(taken[level][std::min(candidates.spatial(), 3)], false);
    }
    static int difference_cost(int value) {
        const std::uint32_t folded =
            value < 0 ? 2 * static_cast<std::uint32_t>(-value) : 2 * static_cast<std::uint32_t>(value) + 1;
        const int size = static_cast<int>(std::bit_width(folded)) - 1;
        return lengths[std::min(size, 15)];
    }

  private:
    static constexpr std::array<int, 16> lengths_of() {
        std::array<int, 16> result{};
        int sum = 0;
        for (int size = 0; size < 16; ++size) {
            result[static_cast<std::size_t>(size)] = sum + cost(length[size], false) + 8 * size;
            sum += cost(length[size], true);
        }
        return result;
    }
    static const std::array<int, 16> lengths;
};
inline const std::array<int, 16> FieldPriors::lengths = FieldPriors::lengths_of();

// The syntax of a field. Blocks are read from `given` when encoding, and put into `known`.
template <class Coder>
class FieldSyntax {
  public:
    FieldSyntax(Coder& coder, const FieldView& given, const Field& known, int references)
        : coder_(coder),
          given_(given),
          known_(known),
          view_{known.units, known.rows, known.columns},
          references_(references) {
        const auto begin = [](auto& models, const auto& priors, std::size_t count) {
            for (std::size_t i = 0; i < count; ++i) models[i] = Bit(priors[i], FieldPriors::seen);
        };
        for (int i = 0; i < 3; ++i) begin(split_[i], FieldPriors::split[i], 3);
        for (int i = 0; i < 4; ++i) {
            begin(taken_[i], FieldPriors::taken[i], 4);
            begin(index_[i], FieldPriors::index[i], Candidates::most - 1);
        }
        for (auto& models : difference_) begin(models, FieldPriors::length, 16);
    }

    // False if a vector is too long.
    bool code() {
        constexpr int square = motion_square / motion_unit;
        for (int r = 0; r < known_.rows; r += square)
            for (int c = 0; c < known_.columns; c += square)
                if (!node(r, c, square)) return false;
        return true;
    }

  private:
    bool node(int row, int column, int size) {
        if (size > 1) {
            const int level = std::countr_zero(static_cast<unsigned>(size)) - 1;
            const int smaller = is_smaller(row, column - 1, size) + is_smaller(row - 1, column, size);
            const bool divided = Coder::encodes && given_.at(row, column).size < size * motion_unit;
            if (coder_.bit(split_[level][smaller], divided)) {
                const int half = size / 2;
                return node(row, column, half) && node(row, column + half, half) &&
                       node(row + half, column, half) && node(row + half, column + half, half);
            }
        }
        Motion motion;
        if (Coder::encodes) motion = given_.at(row, column).motion;
        if (!block(row, column, size, motion)) return false;
        put_block(known_, row, column, size, motion);
        return true;
    }

    int is_smaller(int row, int column, int size) const {
        if (row < 0 || column < 0) return 0;
        return known_.at(row, column).size < size * motion_unit ? 1 : 0;
    }

    bool block(int row, int column, int size, Motion& motion) {
        const Candidates candidates(view_, row, column, size, references_);
        const int level = std::countr_zero(static_cast<unsigned>(size));
        const int around = std::min(candidates.spatial(), 3);
        int index = Coder::encodes ? candidates.find(motion) : 0;
        if (coder_.bit(taken_[level][around], index >= 0)) {
            int i = 0;
            while (i + 1 < candidates.count() && coder_.bit(index_[around][i], i < index)) ++i;
            motion = candidates[i];
            return true;
        }
        if (references_ == 2) {
            const bool both = coder_.bit(both_[level], motion.references == 3);
            const bool second = !both && coder_.bit(second_, motion.references == 2);
            motion.references = both ? 3 : second ? 2 : 1;
        } else {
            motion.references = 1;
        }
        for (int k = 0; k < 2; ++k) {
            Vector& v = motion.vectors[k];
            if (!motion.uses(k)) {
                v = {};
                continue;
            }
            const Vector predicted = candidates.predicted(k);
            if (!component(0, predicted.down, v.down) || !component(1, predicted.right, v.right))
                return false;
        }
        return true;
    }

    bool component(int axis, std::int16_t predicted, std::int16_t& value) {
        const std::int32_t found = predicted + coder_.integer(difference_[axis], value - predicted);
        value = static_cast<std::int16_t>(found);
        return std::abs(found) <= motion_reach;
    }

    Coder& coder_;
    FieldView given_;
    Field known_;
    FieldView view_;
    int references_;
    Bit split_[3][3], taken_[4][4], index_[4][Candidates::most - 1], both_[4], second_;
    typename Coder::Number difference_[2];
};

}  // namespace latens
