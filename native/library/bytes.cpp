#include "bytes.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace latens {

Outcome Reader::take(std::uint64_t count, const char* what, View& result) {
    if (count > left())
        return failed(LTN_ERROR_TRUNCATED, std::string("the data end inside ") + what + ": " +
                                               std::to_string(count) + " bytes expected at byte " +
                                               std::to_string(pos_) + ", " + std::to_string(left()) +
                                               " left");
    result = data_.part(pos_, static_cast<std::size_t>(count));
    pos_ += result.size;
    return {};
}

Outcome Reader::uint(unsigned bytes, const char* what, std::uint32_t& result) {
    View part;
    LATENS_TRY(take(bytes, what, part));
    result = 0;
    for (unsigned i = 0; i < bytes; ++i) result |= std::uint32_t{part.data[i]} << 8 * i;
    return {};
}

Outcome Reader::varint(const char* what, std::uint64_t& result) {
    result = 0;
    for (unsigned group = 0; group < varint_bytes; ++group) {
        std::uint32_t byte = 0;
        LATENS_TRY(uint(1, what, byte));
        result |= std::uint64_t{byte & 0x7f} << 7 * group;
        if (byte >= 0x80) continue;
        if (byte == 0 && group > 0)
            return failed(LTN_ERROR_FORMAT, std::string(what) + ": a varint is not in its shortest form");
        return {};
    }
    return failed(LTN_ERROR_FORMAT, std::string(what) + ": a varint is too long");
}

void put_uint(Buffer& out, std::uint32_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) out.push_back(static_cast<std::uint8_t>(value >> 8 * i));
}

void put_varint(Buffer& out, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) out.push_back(static_cast<std::uint8_t>(value | 0x80));
    out.push_back(static_cast<std::uint8_t>(value));
}

namespace {

// Of each byte, followed by so many zero bytes.
constexpr auto crc_tables = [] {
    std::array<std::array<std::uint32_t, 256>, 8> tables{};
    for (std::uint32_t n = 0; n < 256; ++n) {
        std::uint32_t c = n;
        for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? 0xedb88320 ^ (c >> 1) : c >> 1;
        tables[0][n] = c;
    }
    for (std::size_t k = 1; k < 8; ++k)
        for (std::size_t n = 0; n < 256; ++n) {
            const std::uint32_t before = tables[k - 1][n];
            tables[k][n] = (before >> 8) ^ tables[0][before & 255];
        }
    return tables;
}();

constexpr std::array<std::uint32_t, 64> sha_constants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

}  // namespace

std::uint32_t crc32(View data, std::uint32_t before) {
    std::uint32_t c = ~before;
    const std::uint8_t *at = data.data, *end = data.data + data.size;
    const auto& t = crc_tables;
    for (; end - at >= 8; at += 8) {
        c ^= std::uint32_t{at[0]} | std::uint32_t{at[1]} << 8 | std::uint32_t{at[2]} << 16 |
             std::uint32_t{at[3]} << 24;
        c = t[7][c & 255] ^ t[6][c >> 8 & 255] ^ t[5][c >> 16 & 255] ^ t[4][c >> 24] ^ t[3][at[4]] ^
            t[2][at[5]] ^ t[1][at[6]] ^ t[0][at[7]];
    }
    for (; at < end; ++at) c = t[0][(c ^ *at) & 255] ^ (c >> 8);
    return ~c;
}

void Sha256::add(View data) {
    std::size_t filled = size_ % 64;
    size_ += data.size;
    while (data.size > 0) {
        if (filled == 0 && data.size >= 64) {
            block(data.data);
            data = data.part(64, data.size - 64);
            continue;
        }
        const std::size_t some = std::min(data.size, 64 - filled);
        std::copy_n(data.data, some, rest_.begin() + static_cast<std::ptrdiff_t>(filled));
        data = data.part(some, data.size - some);
        filled += some;
        if (filled == 64) {
            block(rest_.data());
            filled = 0;
        }
    }
}

void Sha256::block(const std::uint8_t* data) {
    std::array<std::uint32_t, 64> w;
    for (std::size_t i = 0; i < 16; ++i, data += 4)
        w[i] = std::uint32_t{data[0]} << 24 | std::uint32_t{data[1]} << 16 | std::uint32_t{data[2]} << 8 |
               data[3];
    using std::rotr;
    for (std::size_t i = 16; i < 64; ++i)
        w[i] = w[i - 16] + (rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ (w[i - 15] >> 3)) + w[i - 7] +
               (rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ (w[i - 2] >> 10));
    auto [a, b, c, d, e, f, g, h] = state_;
    for (std::size_t i = 0; i < 64; ++i) {
        const std::uint32_t t1 =
            h + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + ((e & f) ^ (~e & g)) + sha_constants[i] + w[i];
        const std::uint32_t t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    const std::array<std::uint32_t, 8> more{a, b, c, d, e, f, g, h};
    for (std::size_t i = 0; i < 8; ++i) state_[i] += more[i];
}

std::string Sha256::finish() {
    const std::uint64_t bits = 8 * size_;
    Buffer tail{0x80};
    while ((size_ + tail.size()) % 64 != 56) tail.push_back(0);
    for (int i = 7; i >= 0; --i) tail.push_back(static_cast<std::uint8_t>(bits >> 8 * i));
    add({tail.data(), tail.size()});
    Buffer digest;
    for (const std::uint32_t word : state_)
        for (int i = 3; i >= 0; --i) digest.push_back(static_cast<std::uint8_t>(word >> 8 * i));
    return hexadecimal({digest.data(), digest.size()});
}

std::string hexadecimal(View data) {
    std::string result;
    constexpr const char* digits = "0123456789abcdef";
    for (std::size_t i = 0; i < data.size; ++i) {
        result += digits[data.data[i] >> 4];
        result += digits[data.data[i] & 15];
    }
    return result;
}

namespace {

constexpr std::uint32_t adler_modulus = 65521;

std::uint32_t adler32(View data) {
    std::uint32_t a = 1, b = 0;
    for (std::size_t i = 0; i < data.size;) {
        // As many as fit before a sum leaves 32 bits.
        for (const std::size_t end = std::min(data.size, i + 5552); i < end; ++i) b += a += data.data[i];
        a %= adler_modulus;
        b %= adler_modulus;
    }
    return b << 16 | a;
}

// Why deflated data cannot be inflated.
enum class Deflate : std::uint8_t { ok, ended, damaged, too_long };

// Bits of deflated data, from the least significant one of each byte.
class BitReader {
  public:
    explicit BitReader(View data) : data_(data) {}

    bool bits(unsigned count, std::uint32_t& result) {
        while (held_ < count) {
            if (pos_ == data_.size) return false;
            waiting_ |= std::uint64_t{data_.data[pos_++]} << held_;
            held_ += 8;
        }
        result = static_cast<std::uint32_t>(waiting_ & ((std::uint64_t{1} << count) - 1));
        waiting_ >>= count;
        held_ -= count;
        return true;
    }
    // The next whole byte, of which fewer than 8 bits have been read ahead.
    std::size_t align() {
        pos_ -= held_ / 8;
        waiting_ = 0;
        held_ = 0;
        return pos_;
    }
    void skip(std::size_t bytes) { pos_ += bytes; }

  private:
    View data_;
    std::size_t pos_ = 0;
    std::uint64_t waiting_ = 0;
    unsigned held_ = 0;
};

constexpr unsigned longest_code = 15;

// A prefix code, given by the lengths of its words (RFC 1951, 3.2.2).
class PrefixCode {
  public:
    // Whether such a code exists. Words must use up the code, but for a single one of 1 bit, or none.
    bool build(const std::uint8_t* lengths, std::size_t count) {
        counts_.fill(0);
        for (std::size_t i = 0; i < count; ++i) ++counts_[lengths[i]];
        counts_[0] = 0;
        std::int64_t room = 1;
        unsigned words = 0;
        std::array<std::uint16_t, longest_code + 2> first{};
        for (unsigned length = 1; length <= longest_code; ++length) {
            room = 2 * room - counts_[length];
            if (room < 0) return false;
            words += counts_[length];
            first[length + 1] = static_cast<std::uint16_t>(first[length] + counts_[length]);
        }
        symbols_.assign(words, 0);
        for (std::size_t i = 0; i < count; ++i)
            if (lengths[i] > 0) symbols_[first[lengths[i]]++] = static_cast<std::uint16_t>(i);
        return room == 0 || (words <= 1 && counts_[1] == words);
    }

    Deflate read(BitReader& in, std::uint32_t& symbol) const {
        std::uint32_t code = 0, start = 0, index = 0;
        for (unsigned length = 1; length <= longest_code; ++length) {
            std::uint32_t bit = 0;
            if (!in.bits(1, bit)) return Deflate::ended;
            code = code << 1 | bit;
            const std::uint32_t here = counts_[length];
            if (code < start + here) {
                symbol = symbols_[index + code - start];
                return Deflate::ok;
            }
            index += here;
            start = (start + here) << 1;
        }
        return Deflate::damaged;
    }

  private:
    std::array<std::uint16_t, longest_code + 1> counts_{};
    std::vector<std::uint16_t> symbols_;
};

constexpr std::size_t literals = 286, distances = 30, fixed_literals = 288;

class Inflater {
  public:
    Inflater(View data, std::size_t limit, Buffer& out) : data_(data), in_(data), limit_(limit), out_(out) {}

    Deflate run() {
        for (std::uint32_t last = 0; last == 0;) {
            std::uint32_t kind = 0;
            if (!in_.bits(1, last) || !in_.bits(2, kind)) return Deflate::ended;
            Deflate done = Deflate::damaged;
            if (kind == 0) done = stored();
            if (kind == 1) done = fixed();
            if (kind == 2) done = dynamic();
            if (done != Deflate::ok) return done;
        }
        return Deflate::ok;
    }
    std::size_t used() { return in_.align(); }

  private:
    Deflate stored() {
        const std::size_t pos = in_.align();
        if (data_.size - pos < 4) return Deflate::ended;
        const std::uint8_t* at = data_.data + pos;
        const std::size_t size = at[0] | at[1] << 8;
        if ((size ^ (at[2] | at[3] << 8)) != 0xffff) return Deflate::damaged;
        if (data_.size - pos - 4 < size) return Deflate::ended;
        if (size > limit_ - out_.size()) return Deflate::too_long;
        put(out_, data_.part(pos + 4, size));
        in_.skip(4 + size);
        return Deflate::ok;
    }

    Deflate fixed() {
        std::array<std::uint8_t, fixed_literals + 30> lengths{};
        for (std::size_t i = 0; i < fixed_literals; ++i)
            lengths[i] = static_cast<std::uint8_t>(i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8);
        std::array<std::uint8_t, 32> fives{};
        fives.fill(5);
        PrefixCode literal, distance;
        literal.build(lengths.data(), fixed_literals);
        distance.build(fives.data(), fives.size());
        return codes(literal, distance);
    }

    Deflate dynamic() {
        static constexpr std::array<std::uint8_t, 19> order = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                               11, 4,  12, 3, 13, 2, 14, 1, 15};
        std::uint32_t n_literals = 0, n_distances = 0, n_lengths = 0;
        if (!in_.bits(5, n_literals) || !in_.bits(5, n_distances) || !in_.bits(4, n_lengths))
            return Deflate::ended;
        n_literals += 257;
        n_distances += 1;
        n_lengths += 4;
        if (n_literals > literals || n_distances > distances) return Deflate::damaged;
        std::array<std::uint8_t, 19> own{};
        for (std::uint32_t i = 0; i < n_lengths; ++i) {
            std::uint32_t length = 0;
            if (!in_.bits(3, length)) return Deflate::ended;
            own[order[i]] = static_cast<std::uint8_t>(length);
        }
        PrefixCode code;
        if (!code.build(own.data(), own.size())) return Deflate::damaged;
        std::array<std::uint8_t, literals + distances> lengths{};
        for (std::uint32_t i = 0; i < n_literals + n_distances;) {
            std::uint32_t symbol = 0;
            if (const Deflate d = code.read(in_, symbol); d != Deflate::ok) return d;
            if (symbol < 16) {
                lengths[i++] = static_cast<std::uint8_t>(symbol);
                continue;
            }
            if (symbol == 16 && i == 0) return Deflate::damaged;
            const std::uint8_t value = symbol == 16 ? lengths[i - 1] : 0;
            std::uint32_t more = 0;
            if (!in_.bits(symbol == 16 ? 2 : symbol == 17 ? 3 : 7, more)) return Deflate::ended;
            const std::uint32_t times = more + (symbol == 18 ? 11 : 3);
            if (times > n_literals + n_distances - i) return Deflate::damaged;
            std::fill_n(lengths.begin() + i, times, value);
            i += times;
        }
        PrefixCode literal, distance;
        // Without a word for the end there would be none.
        if (lengths[256] == 0 || !literal.build(lengths.data(), n_literals) ||
            !distance.build(lengths.data() + n_literals, n_distances))
            return Deflate::damaged;
        return codes(literal, distance);
    }

    Deflate codes(const PrefixCode& literal, const PrefixCode& distance) {
        static constexpr std::array<std::uint16_t, 29> length_base = {
            3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
            31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
        static constexpr std::array<std::uint8_t, 29> length_bits = {
            0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
        static constexpr std::array<std::uint16_t, 30> distance_base = {
            1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
            193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
        for (;;) {
            std::uint32_t symbol = 0, more = 0;
            if (const Deflate d = literal.read(in_, symbol); d != Deflate::ok) return d;
            if (symbol < 256) {
                if (out_.size() == limit_) return Deflate::too_long;
                out_.push_back(static_cast<std::uint8_t>(symbol));
                continue;
            }
            if (symbol == 256) return Deflate::ok;
            if (symbol >= literals) return Deflate::damaged;
            if (!in_.bits(length_bits[symbol - 257], more)) return Deflate::ended;
            const std::size_t length = length_base[symbol - 257] + more;
            if (const Deflate d = distance.read(in_, symbol); d != Deflate::ok) return d;
            if (symbol >= distances) return Deflate::damaged;
            if (!in_.bits(symbol < 2 ? 0 : (symbol - 2) / 2, more)) return Deflate::ended;
            const std::size_t back = distance_base[symbol] + more;
            if (back > out_.size()) return Deflate::damaged;
            if (length > limit_ - out_.size()) return Deflate::too_long;
            for (std::size_t i = 0; i < length; ++i) out_.push_back(out_[out_.size() - back]);
        }
    }

    View data_;
    BitReader in_;
    std::size_t limit_;
    Buffer& out_;
};

}  // namespace

Outcome inflate(View stream, std::size_t limit, const char* what, Buffer& out) {
    const std::string where = what;
    out.clear();
    const Outcome damaged = failed(LTN_ERROR_FORMAT, where + ": the zlib stream is damaged");
    const Outcome incomplete = failed(LTN_ERROR_FORMAT, where + ": the zlib stream is incomplete");
    if (stream.size < 2) return incomplete;
    const std::uint32_t head = stream.data[0] * 256u + stream.data[1];
    const bool known = (head >> 8 & 15) == 8 && head >> 12 <= 7 && head % 31 == 0 && (head & 32) == 0;
    if (!known) return damaged;
    Inflater inflater(stream.part(2, stream.size - 2), limit, out);
    switch (inflater.run()) {
        case Deflate::ok:
            break;
        case Deflate::ended:
            return incomplete;
        case Deflate::damaged:
            return damaged;
        case Deflate::too_long:
            return failed(LTN_ERROR_LIMIT,
                          where + ": inflates to more than the " + std::to_string(limit) + " bytes allowed");
    }
    const std::size_t end = 2 + inflater.used();
    if (stream.size - end < 4) return incomplete;
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < 4; ++i) sum = sum << 8 | stream.data[end + i];
    if (sum != adler32({out.data(), out.size()})) return damaged;
    if (stream.size - end > 4)
        return failed(LTN_ERROR_FORMAT,
                      where + ": " + std::to_string(stream.size - end - 4) + " bytes follow the zlib stream");
    return {};
}

void store(View data, Buffer& out) {
    out.push_back(0x78);
    out.push_back(0x01);
    std::size_t at = 0;
    do {
        const std::size_t some = std::min<std::size_t>(data.size - at, 65535);
        out.push_back(at + some == data.size ? 1 : 0);
        put_uint(out, static_cast<std::uint32_t>(some), 2);
        put_uint(out, static_cast<std::uint32_t>(some ^ 0xffff), 2);
        put(out, data.part(at, some));
        at += some;
    } while (at < data.size);
    const std::uint32_t sum = adler32(data);
    for (int i = 3; i >= 0; --i) out.push_back(static_cast<std::uint8_t>(sum >> 8 * i));
}

}  // namespace latens
