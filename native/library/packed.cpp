#include "packed.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <set>

#include "adaptive.hpp"

namespace latens {
namespace {

constexpr std::uint8_t version = 1;
constexpr std::size_t most_arrays = 4096, most_metadata = 64, most_text = 65536, dimensions_max = 8;
constexpr std::uint64_t most_values = std::uint64_t{1} << 26;  // of all arrays together
constexpr unsigned raw_bits = 16;                              // that go into the stream at once

Outcome damaged(const std::string& message) {
    return failed(LTN_ERROR_MODEL, "packed weights: " + message);
}

// What codes a bit with a model, or some without. Both directions give what was coded.
class Writer {
  public:
    static constexpr bool encodes = true;

    bool bit(Bit& model, bool value) {
        events_.push_back(model.probability() | static_cast<std::uint32_t>(value) << 16);
        model.learn<255>(value);
        return value;
    }
    // A number of up to `raw_bits` bits.
    std::uint32_t raw(std::uint32_t value, unsigned bits) {
        events_.push_back(value | bits << 17 | 1u << 31);
        return value;
    }
    void finish(Buffer& out) const {
        WordStack words;
        for (std::size_t i = events_.size(); i-- > 0;) {
            const std::uint32_t e = events_[i], p = e & 0xffff;
            if (e >> 31 != 0)
                words.put(e & 0x1ffff, 1, e >> 17 & 31);
            else if (e >> 16 != 0)
                words.put(0, p, precision);
            else
                words.put(p, total - p, precision);
        }
        words.finish(out);
    }

  private:
    std::vector<std::uint32_t> events_;
};

class Decoder {
  public:
    static constexpr bool encodes = false;

    Decoder(View data) : at_(data.data), end_(data.data + data.size) {
        sound_ = read_state(at_, end_, x_);
        if (!sound_) x_ = LaneLayout::lower;
    }
    bool bit(Bit& model, bool) {
        const std::uint32_t p = model.probability();
        const auto slot = static_cast<std::uint32_t>(x_ & (total - 1));
        const bool value = slot < p;
        x_ = value ? p * (x_ >> precision) + slot : (total - p) * (x_ >> precision) + slot - p;
        refill();
        model.learn<255>(value);
        return value;
    }
    std::uint32_t raw(std::uint32_t, unsigned bits) {
        const auto value = static_cast<std::uint32_t>(x_ & ((std::uint64_t{1} << bits) - 1));
        x_ >>= bits;
        refill();
        return value;
    }
    bool sound() const { return sound_; }
    bool finished() const { return sound_ && x_ == LaneLayout::lower && at_ == end_; }

  private:
    void refill() {
        if (x_ >= LaneLayout::lower) return;
        if (end_ - at_ < 2) {
            sound_ = false;
            x_ |= LaneLayout::lower;
            return;
        }
        x_ = x_ << 16 | load_word<std::uint16_t>(at_);
        at_ += 2;
    }

    const std::uint8_t *at_, *end_;
    std::uint64_t x_ = LaneLayout::lower;
    bool sound_ = true;
};

// A size below 2^32: how many bits it has, as a tree of 6 bits; the two after the first one; the rest as it
// is.
struct SizeModel {
    std::array<Bit, 64> length;
    std::array<std::array<Bit, 4>, 33> next;

    template <class Coder>
    std::uint32_t code(Coder& coder, std::uint32_t value) {
        const auto length_of = static_cast<unsigned>(std::bit_width(value));
        unsigned node = 1;
        for (unsigned i = 6; i-- > 0;)
            node = node << 1 | (coder.bit(length[node], (length_of >> i & 1) != 0) ? 1 : 0);
        const unsigned bits = std::min(node - 64, 32u);
        if (bits < 2) return bits;
        const unsigned modelled = std::min(bits - 1, 2u);
        std::uint32_t result = 1;
        unsigned prefix = 1;
        for (unsigned i = 0; i < modelled; ++i) {
            const bool one = coder.bit(next[bits][prefix], (value >> (bits - 2 - i) & 1) != 0);
            prefix = prefix << 1 | (one ? 1 : 0);
            result = result << 1 | (one ? 1 : 0);
        }
        for (unsigned left = bits - 1 - modelled; left > 0;) {
            const unsigned some = std::min(left, raw_bits);
            left -= some;
            result = result << some | coder.raw(value >> left & ((1u << some) - 1), some);
        }
        return result;
    }
};

// About 4 log2(v + 1).
unsigned quarter_log(std::uint32_t v) {
    ++v;
    const auto bits = static_cast<unsigned>(std::bit_width(v)) - 1;
    const unsigned next = bits >= 2 ? v >> (bits - 2) & 3 : v << (2 - bits) & 3;
    return 4 * bits + next;
}

// Weights are noise around zero. How much is told by those before in the same row, and by the same input's in
// the rows before.
class NoiseModel {
  public:
    NoiseModel() : sizes_(contexts) {}

    void begin(std::size_t columns) { columns_.assign(columns, 0); }
    void row() { row_ = -1; }

    template <class Coder>
    std::int32_t code(Coder& coder, std::int32_t value, std::size_t column) {
        std::uint32_t& above = columns_[column];
        const std::uint32_t beside = row_ < 0 ? above : static_cast<std::uint32_t>(row_);
        const std::uint32_t expected = above == 0 ? beside : (3 * std::uint64_t{beside} + above) / 4;
        SizeModel& model = sizes_[std::min(quarter_log(expected / 16), contexts - 1)];
        const std::uint32_t size = model.code(coder, static_cast<std::uint32_t>(value < 0 ? -value : value));
        // Moving means, in 16ths.
        const std::uint32_t now = std::min<std::uint32_t>(size, 32768) * 16;
        const auto moved = [now](std::uint32_t mean, std::uint32_t shift) {
            return static_cast<std::uint32_t>((static_cast<std::int64_t>(mean) * ((1 << shift) - 1) + now) >>
                                              shift);
        };
        row_ = row_ < 0 ? static_cast<std::int64_t>(now) : moved(static_cast<std::uint32_t>(row_), 5);
        above = above == 0 ? now : moved(above, 4);
        if (size == 0) return 0;
        const bool negative = coder.raw(value < 0 ? 1 : 0, 1) != 0;
        return negative ? -static_cast<std::int32_t>(size) : static_cast<std::int32_t>(size);
    }

  private:
    static constexpr unsigned contexts = 80;
    std::vector<SizeModel> sizes_;
    std::vector<std::uint32_t> columns_;
    std::int64_t row_ = -1;
};

// Anything else: differences of neighbours, by the size of the one before.
class StepModel {
  public:
    StepModel() : sizes_(34) {}

    void begin() {
        before_ = 0;
        size_ = 33;
    }
    // Of 32 bits, as unsigned numbers that wrap.
    template <class Coder>
    std::uint32_t code(Coder& coder, std::uint32_t value) {
        const std::uint32_t step = value - before_;
        const std::uint32_t folded = step >> 31 != 0 ? ~(step << 1) : step << 1;
        const std::uint32_t coded = sizes_[size_].code(coder, folded);
        size_ = static_cast<unsigned>(std::bit_width(coded));
        before_ += (coded & 1) != 0 ? ~(coded >> 1) : coded >> 1;
        return before_;
    }

  private:
    std::vector<SizeModel> sizes_;
    std::uint32_t before_ = 0;
    unsigned size_ = 33;
};

bool packable(Type type) {
    return type == Type::i8 || type == Type::u8 || type == Type::i16 || type == Type::i32;
}

unsigned bytes_of(Type type) {
    return type_names[static_cast<std::size_t>(type)].bytes;
}

std::uint32_t load(const std::uint8_t* at, unsigned bytes) {
    std::uint32_t value = 0;
    for (unsigned i = 0; i < bytes; ++i) value |= std::uint32_t{at[i]} << 8 * i;
    return value;
}

// The values of all arrays, one syntax for both directions.
class Values {
  public:
    // `data` are read when encoding, and written when decoding.
    template <class Coder>
    void code(Coder& coder, const Array& array, std::uint8_t* data) {
        const auto count = static_cast<std::size_t>(array.count());
        const unsigned bytes = bytes_of(array.type);
        if (array.type == Type::i16) {
            const auto rows = static_cast<std::size_t>(array.shape.empty() ? 1 : array.shape[0]);
            const std::size_t columns = rows > 0 ? count / rows : 0;
            noise_.begin(columns);
            for (std::size_t r = 0; r < rows; ++r) {
                noise_.row();
                for (std::size_t c = 0; c < columns; ++c, data += 2) {
                    std::int32_t value = 0;
                    if constexpr (Coder::encodes) value = static_cast<std::int16_t>(load(data, 2));
                    value = noise_.code(coder, value, c);
                    if constexpr (!Coder::encodes) put(data, static_cast<std::uint32_t>(value), 2);
                }
            }
            return;
        }
        steps_.begin();
        for (std::size_t i = 0; i < count; ++i, data += bytes) {
            std::uint32_t value = 0;
            if constexpr (Coder::encodes) value = load(data, bytes);
            value = steps_.code(coder, value);
            if constexpr (!Coder::encodes) put(data, value, bytes);
        }
    }

  private:
    static void put(std::uint8_t* to, std::uint32_t value, unsigned bytes) {
        for (unsigned i = 0; i < bytes; ++i) to[i] = static_cast<std::uint8_t>(value >> 8 * i);
    }

    NoiseModel noise_;
    StepModel steps_;
};

void put_text(Buffer& out, const std::string& text) {
    put_varint(out, text.size());
    out.insert(out.end(), text.begin(), text.end());
}

Outcome take_text(Reader& in, std::string& text) {
    std::uint64_t size = 0;
    View part;
    LATENS_TRY(in.varint("packed weights", size));
    if (size > most_text) return damaged("a text is too long");
    LATENS_TRY(in.take(size, "packed weights", part));
    text.assign(reinterpret_cast<const char*>(part.data), part.size);
    return {};
}

// One part; errors of the cursor are those of a damaged file.
Outcome read_part(View data, std::size_t& pos, WeightsFile& result, std::set<std::uint32_t>& kinds) {
    Reader in(data, pos);
    View part;
    std::uint32_t value = 0, kind = 0, crc = 0;
    LATENS_TRY(in.take(sizeof packed_signature, "packed weights", part));
    if (std::memcmp(part.data, packed_signature, part.size) != 0)
        return damaged("what follows is no part of them");
    LATENS_TRY(in.uint(1, "packed weights", value));
    if (value != version)
        return failed(LTN_ERROR_VERSION, "packed weights of version " + std::to_string(value) +
                                             " are newer than this library; update it");
    std::uint64_t length = 0;
    LATENS_TRY(in.varint("packed weights", length));
    LATENS_TRY(in.take(length, "packed weights", part));
    const std::size_t end = in.pos();
    LATENS_TRY(in.uint(4, "packed weights", crc));
    if (crc != crc32(data.part(pos, end - pos))) return damaged("their CRC-32 differs");
    pos = in.pos();

    Reader body(part);
    LATENS_TRY(body.uint(1, "packed weights", kind));
    if (kind > 1 || !kinds.insert(kind).second)
        return damaged("a part is there twice, or of a kind that is not known");
    View id;
    LATENS_TRY(body.take(32, "packed weights", id));
    if (!result.id.empty() && result.id != hexadecimal(id)) return damaged("parts of different weights");
    result.id = hexadecimal(id);
    std::uint64_t count = 0;
    LATENS_TRY(body.varint("packed weights", count));
    if (count > most_metadata) return damaged("too many texts");
    for (std::uint64_t i = 0; i < count; ++i) {
        std::string name;
        LATENS_TRY(take_text(body, name));
        LATENS_TRY(take_text(body, result.metadata[name]));
    }
    LATENS_TRY(body.varint("packed weights", count));
    if (count > most_arrays) return damaged("too many arrays");
    std::vector<std::pair<std::string, Array>> arrays(static_cast<std::size_t>(count));
    std::uint64_t sum = 0;
    for (auto& [name, array] : arrays) {
        LATENS_TRY(take_text(body, name));
        std::uint32_t type = 0, dimensions = 0;
        LATENS_TRY(body.uint(1, "packed weights", type));
        LATENS_TRY(body.uint(1, "packed weights", dimensions));
        if (type >= std::size(type_names) || !packable(static_cast<Type>(type)) ||
            dimensions > dimensions_max)
            return damaged("an array has a type or shape that is not known");
        array.type = static_cast<Type>(type);
        std::uint64_t size = 1;
        for (std::uint32_t d = 0; d < dimensions; ++d) {
            std::uint64_t n = 0;
            LATENS_TRY(body.varint("packed weights", n));
            if (n < 1 || n > most_values / size) return damaged("an array is empty, or too large");
            size *= n;
            array.shape.push_back(n);
        }
        sum += size;
        // A value takes a part of a bit at the least; what is far from that is no file of weights.
        if (sum > most_values || sum / 4096 > part.size) return damaged("arrays are too large");
        array.content.size = static_cast<std::size_t>(size * bytes_of(array.type));
    }
    LATENS_TRY(body.take(body.left(), "packed weights", part));
    Decoder decoder(part);
    auto values = std::make_unique<Values>();
    for (auto& [name, array] : arrays) {
        result.kept.emplace_back(array.content.size);
        values->code(decoder, array, result.kept.back().data());
        if (!decoder.sound()) return damaged("their stream ends too early");
        array.content.data = result.kept.back().data();
        if (!result.arrays.emplace(name, std::move(array)).second) return damaged("an array is there twice");
    }
    if (!decoder.finished()) return damaged("their stream is damaged");
    return {};
}

}  // namespace

bool is_packed(View data) {
    return data.size >= sizeof packed_signature &&
           std::memcmp(data.data, packed_signature, sizeof packed_signature) == 0;
}

Outcome read_packed(View data, WeightsFile& result) {
    std::set<std::uint32_t> kinds;
    for (std::size_t pos = 0; pos < data.size;) {
        Outcome o = read_part(data, pos, result, kinds);
        if (o.code == LTN_ERROR_TRUNCATED || o.code == LTN_ERROR_FORMAT) o.code = LTN_ERROR_MODEL;
        if (!o.ok()) return o;
    }
    return {};
}

Outcome pack_weights(const WeightsFile& weights, Packing what, Buffer& out) {
    static const char* const for_encoding[] = {"network.g_a.", "network.h_a.", "factor.gain", "z_offset"};
    Buffer body{static_cast<std::uint8_t>(what)};
    for (std::size_t i = 0; i < 64; i += 2)
        body.push_back(static_cast<std::uint8_t>(std::stoul(weights.id.substr(i, 2), nullptr, 16)));
    std::map<std::string, std::string> metadata;
    if (what == Packing::decoding)
        for (const char* key : {"family", "format", "name", "scale"})
            if (const auto found = weights.metadata.find(key); found != weights.metadata.end())
                metadata.insert(*found);
    put_varint(body, metadata.size());
    for (const auto& [key, text] : metadata) {
        put_text(body, key);
        put_text(body, text);
    }
    std::vector<const std::pair<const std::string, Array>*> arrays;
    for (const auto& entry : weights.arrays) {
        const std::string& name = entry.first;
        const bool encodes = std::any_of(std::begin(for_encoding), std::end(for_encoding),
                                         [&](const char* prefix) { return name.rfind(prefix, 0) == 0; });
        // What training goes on from is none of a codec's business.
        if (name.rfind("float.", 0) == 0 || encodes != (what == Packing::encoding)) continue;
        if (!packable(entry.second.type) || entry.second.count() == 0)
            return failed(LTN_ERROR_MODEL, name.substr(0, 80) + " is of a type that cannot be packed");
        arrays.push_back(&entry);
    }
    put_varint(body, arrays.size());
    for (const auto* entry : arrays) {
        put_text(body, entry->first);
        body.push_back(static_cast<std::uint8_t>(entry->second.type));
        body.push_back(static_cast<std::uint8_t>(entry->second.shape.size()));
        for (const std::uint64_t n : entry->second.shape) put_varint(body, n);
    }
    Writer writer;
    auto values = std::make_unique<Values>();
    for (const auto* entry : arrays) {
        Buffer copy(entry->second.content.data, entry->second.content.data + entry->second.content.size);
        values->code(writer, entry->second, copy.data());
    }
    writer.finish(body);
    out.assign(std::begin(packed_signature), std::end(packed_signature));
    out.push_back(version);
    put_varint(out, body.size());
    put(out, {body.data(), body.size()});
    put_uint(out, crc32({out.data(), out.size()}), 4);
    return {};
}

}  // namespace latens
