// Adaptive binary coding: probabilities that learn, the mixing of several, and the streams of bits coded with
// them (docs/lossless.md). One class for both directions: what codes a bit returns it, so that encoder and
// decoder of a syntax are one piece of code.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "rans.hpp"

namespace latens {

// A probability that a bit is 1, in 22 bits, and how many bits it has seen, in 10.
class Bit {
  public:
    constexpr Bit() = default;
    // Of so many 256ths, as if it had seen some bits already.
    constexpr Bit(std::uint32_t probability, std::uint32_t seen) : state_(probability << 24 | seen) {}

    std::uint32_t probability() const { return std::clamp(state_ >> 16, 16u, 65520u); }
    std::uint32_t coarse() const { return state_ >> 20; }

    template <std::uint32_t limit>
    LATENS_INLINE void learn(bool bit) {
        const std::uint32_t seen = state_ & 1023, p = state_ >> 10;
        const std::int64_t distance = (bit ? 4194303 : 0) - static_cast<std::int64_t>(p);
        const auto moved =
            static_cast<std::uint32_t>(static_cast<std::int64_t>(p) + (distance * rates[seen] >> 16));
        state_ = moved << 10 | (seen < limit ? seen + 1 : seen);
    }

  private:
    static constexpr std::array<std::int32_t, 1024> rates = [] {
        std::array<std::int32_t, 1024> result{};
        for (std::int32_t n = 0; n < 1024; ++n) result[static_cast<std::size_t>(n)] = 655360 / (10 * n + 16);
        return result;
    }();

    std::uint32_t state_ = 1u << 31;
};

// 1 / (1 + e^-x) and its inverse, in integers: x in units of 1/256 within +-2815, probabilities in 1/65536.
struct Logistic {
    static constexpr std::int32_t top = 2815;
    // 65536 / (1 + e^-x) for x = -11, -10.5, ... 11
    static constexpr std::array<std::int32_t, 45> knots = {
        1,     2,     3,     5,     8,     13,    22,    36,    60,    98,    162,   267,
        439,   720,   1179,  1921,  3108,  4971,  7812,  11955, 17625, 24743, 32768, 40793,
        47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438,
        65476, 65500, 65514, 65523, 65528, 65531, 65533, 65534, 65535};
    std::array<std::uint16_t, 2 * top + 1> squash{};
    std::array<std::int16_t, 4096> stretch{};

    constexpr Logistic() {
        std::int32_t next = 0;
        for (std::int32_t x = -top; x <= top; ++x) {
            const std::int32_t at = x + top + 1;
            const std::int32_t low = knots[static_cast<std::size_t>(at / 128)];
            const std::int32_t high = knots[static_cast<std::size_t>(at / 128 + 1)];
            const std::int32_t value = low + (high - low) * (at % 128) / 128;
            squash[static_cast<std::size_t>(x + top)] =
                static_cast<std::uint16_t>(std::clamp(value, 16, 65520));
            while (next < 4096 && 16 * next + 8 <= value)
                stretch[static_cast<std::size_t>(next++)] = static_cast<std::int16_t>(x);
        }
        for (; next < 4096; ++next) stretch[static_cast<std::size_t>(next)] = top;
    }
};
inline constexpr Logistic logistic;

// Mixes `n` probabilities with weights that learn.
template <unsigned n>
class Mixer {
  public:
    Mixer() { weights_.fill(81920 / static_cast<std::int32_t>(n)); }

    template <std::uint32_t limit, class Coder>
    LATENS_INLINE bool code(Coder& coder, Bit* const (&bits)[n], bool bit) {
        std::int32_t inputs[n];
        std::int64_t sum = 0;
        for (unsigned i = 0; i < n; ++i) {
            inputs[i] = logistic.stretch[bits[i]->coarse()];
            sum += std::int64_t{inputs[i]} * weights_[i];
        }
        const auto x =
            static_cast<std::int32_t>(std::clamp<std::int64_t>(sum >> 16, -Logistic::top, Logistic::top));
        const std::int32_t p = logistic.squash[static_cast<std::size_t>(x + Logistic::top)];
        bit = coder.code(static_cast<std::uint32_t>(p), bit);
        const std::int32_t error = ((bit ? 65536 : 0) - p) >> 4;
        for (unsigned i = 0; i < n; ++i) {
            const std::int32_t moved = weights_[i] + ((inputs[i] * error + 512) >> 10);
            weights_[i] = std::clamp(moved, -(1 << 20), 1 << 20);
            bits[i]->template learn<limit>(bit);
        }
        return bit;
    }

  private:
    std::array<std::int32_t, n> weights_;
};

// What both directions build from single bits. `Self::code(p, bit)` codes one.
template <class Self>
class BitCoder {
  public:
    template <std::uint32_t limit = 255>
    LATENS_INLINE bool bit(Bit& model, bool value) {
        value = self().code(model.probability(), value);
        model.learn<limit>(value);
        return value;
    }

    // A number of so many bits, all values alike.
    std::uint32_t uniform(std::uint32_t value, unsigned bits) {
        std::uint32_t result = 0;
        for (unsigned i = bits; i-- > 0;)
            result = result << 1 | static_cast<std::uint32_t>(self().code(32768, (value >> i & 1) != 0));
        return result;
    }

    // A number from 0 on, small ones cheap: models of how many bits follow the first 1 of value + 1, and of
    // the first of these. Above 2^24 - 2 there is nothing.
    using Number = std::array<Bit, 48>;
    std::uint32_t number(Number& models, std::uint32_t value) {
        const auto length = static_cast<unsigned>(std::bit_width(value + 1)) - 1;
        unsigned n = 0;
        while (n < 23 && bit(models[n], n < length)) ++n;
        if (n == 0) return 0;
        const std::uint32_t rest = value + 1 - (std::uint32_t{1} << n);
        const bool first = bit(models[24 + n], (rest >> (n - 1) & 1) != 0);
        const std::uint32_t low = uniform(rest & ((std::uint32_t{1} << (n - 1)) - 1), n - 1);
        return (std::uint32_t{1} << n) + (static_cast<std::uint32_t>(first) << (n - 1)) + low - 1;
    }
    std::int32_t integer(Number& models, std::int32_t value) {
        const std::uint32_t folded = value < 0 ? 2 * static_cast<std::uint32_t>(-(value + 1)) + 1
                                               : 2 * static_cast<std::uint32_t>(value);
        const std::uint32_t coded = number(models, folded);
        const auto half = static_cast<std::int32_t>(coded >> 1);
        return (coded & 1) != 0 ? -half - 1 : half;
    }

  private:
    Self& self() { return static_cast<Self&>(*this); }
};

// Bits wait here until all are known, because rANS codes the last one first.
class BitEncoder : public BitCoder<BitEncoder> {
  public:
    static constexpr bool encodes = true;

    LATENS_INLINE bool code(std::uint32_t p, bool bit) {
        events_.push_back(p | static_cast<std::uint32_t>(bit) << 16);
        return bit;
    }
    // Appends the stream to `out`.
    void finish(std::vector<std::uint8_t>& out) const;
    std::size_t size() const { return events_.size(); }

  private:
    std::vector<std::uint32_t> events_;
};

// Counts what bits would cost, for choices; `meter(where)` says what the next ones are for.
class BitMeter : public BitCoder<BitMeter> {
  public:
    static constexpr bool encodes = true;

    explicit BitMeter(std::size_t places) : bits_(places) {}

    void meter(std::size_t where) { where_ = where; }
    LATENS_INLINE bool code(std::uint32_t p, bool bit) {
        bits_[where_] += costs[(bit ? p : total - p) >> 4];
        return bit;
    }
    const std::vector<float>& bits() const { return bits_; }

  private:
    static const std::array<float, 4096> costs;
    std::vector<float> bits_;
    std::size_t where_ = 0;
};

class BitDecoder : public BitCoder<BitDecoder> {
  public:
    static constexpr bool encodes = false;

    BitDecoder(const std::uint8_t* data, std::size_t size);

    LATENS_INLINE bool code(std::uint32_t p, bool) {
        const auto slot = static_cast<std::uint32_t>(x_ & (total - 1));
        const bool bit = slot < p;
        x_ = bit ? p * (x_ >> precision) + slot : (total - p) * (x_ >> precision) + slot - p;
        if (x_ < LaneLayout::lower) refill();
        return bit;
    }
    // A stream that has ended gives zeros, and is not sound any more.
    bool sound() const { return sound_; }
    bool finished() const { return sound_ && x_ == LaneLayout::lower && at_ == end_; }

  private:
    LATENS_INLINE void refill() {
        if (LATENS_UNLIKELY(end_ - at_ < 2)) {
            sound_ = false;
            x_ |= LaneLayout::lower;
            return;
        }
        x_ = x_ << 16 | load_word<std::uint16_t>(at_);
        at_ += 2;
    }

    const std::uint8_t* at_ = nullptr;
    const std::uint8_t* end_ = nullptr;
    std::uint64_t x_ = LaneLayout::lower;
    bool sound_ = true;
};

// rANS words laid down from the end to the beginning, and turned round at last.
class WordStack {
  public:
    // An event of `freq` out of 2^bits from `start` on.
    LATENS_INLINE void put(std::uint32_t start, std::uint32_t freq, unsigned bits) {
        if (x_ >= std::uint64_t{freq} << (24 + 16 - bits)) {
            words_.push_back(static_cast<std::uint16_t>(x_));
            x_ >>= 16;
        }
        x_ = (x_ / freq << bits) + start + x_ % freq;
    }
    void reserve(std::size_t words) { words_.reserve(words); }
    void finish(std::vector<std::uint8_t>& out) const {
        for (unsigned i = 0; i < LaneLayout::state_bytes; ++i)
            out.push_back(static_cast<std::uint8_t>(x_ >> (8 * i)));
        for (std::size_t i = words_.size(); i-- > 0;) {
            out.push_back(static_cast<std::uint8_t>(words_[i]));
            out.push_back(static_cast<std::uint8_t>(words_[i] >> 8));
        }
    }

  private:
    std::uint64_t x_ = LaneLayout::lower;
    std::vector<std::uint16_t> words_;
};

inline bool read_state(const std::uint8_t*& at, const std::uint8_t* end, std::uint64_t& x) {
    const auto size = static_cast<std::size_t>(end - at);
    if (size < LaneLayout::state_bytes || (size - LaneLayout::state_bytes) % 2 != 0) return false;
    x = 0;
    for (unsigned i = 0; i < LaneLayout::state_bytes; ++i) x |= std::uint64_t{*at++} << (8 * i);
    return x >= LaneLayout::lower && x < LaneLayout::upper;
}

inline const std::array<float, 4096> BitMeter::costs = [] {
    std::array<float, 4096> result{};
    for (std::size_t i = 0; i < result.size(); ++i)
        result[i] = -std::log2((static_cast<float>(i) + 0.5F) / 4096.0F);
    return result;
}();

inline void BitEncoder::finish(std::vector<std::uint8_t>& out) const {
    WordStack words;
    for (std::size_t i = events_.size(); i-- > 0;) {
        const std::uint32_t p = events_[i] & 0xffff;
        if (events_[i] >> 16 != 0)
            words.put(0, p, precision);
        else
            words.put(p, total - p, precision);
    }
    words.finish(out);
}

inline BitDecoder::BitDecoder(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {
    sound_ = read_state(at_, end_, x_);
    if (!sound_) {
        x_ = LaneLayout::lower;
        at_ = end_;
    }
}

}  // namespace latens
