// Bytes of files: a cursor that stays within them, checksums, and zlib streams.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "outcome.hpp"

namespace latens {

struct View {
    const std::uint8_t* data = nullptr;
    std::size_t size = 0;

    View part(std::size_t from, std::size_t count) const { return {data + from, count}; }
};

using Buffer = std::vector<std::uint8_t>;

inline constexpr unsigned varint_bytes = 5;
inline constexpr std::uint64_t varint_max = (std::uint64_t{1} << 7 * varint_bytes) - 1;

// Never reads past the end.
class Reader {
  public:
    explicit Reader(View data, std::size_t pos = 0) : data_(data), pos_(pos) {}

    std::size_t pos() const { return pos_; }
    std::size_t left() const { return data_.size - pos_; }
    Outcome take(std::uint64_t count, const char* what, View& result);
    // Little-endian, of 1 to 4 bytes.
    Outcome uint(unsigned bytes, const char* what, std::uint32_t& result);
    // In its shortest form, of at most `varint_bytes`.
    Outcome varint(const char* what, std::uint64_t& result);

  private:
    View data_;
    std::size_t pos_;
};

void put_uint(Buffer& out, std::uint32_t value, unsigned bytes);
void put_varint(Buffer& out, std::uint64_t value);
inline void put(Buffer& out, View data) {
    out.insert(out.end(), data.data, data.data + data.size);
}

// That of zlib, PNG and gzip.
std::uint32_t crc32(View data, std::uint32_t before = 0);

class Sha256 {
  public:
    void add(View data);
    void add(const std::string& text) {
        add({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    }
    // 64 hexadecimal digits; nothing can be added after.
    std::string finish();

  private:
    void block(const std::uint8_t* data);

    std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::uint8_t, 64> rest_{};
    std::uint64_t size_ = 0;
};

std::string hexadecimal(View data);

// Inflates a whole zlib stream (RFC 1950) to at most `limit` bytes; more are never made.
Outcome inflate(View stream, std::size_t limit, const char* what, Buffer& out);
// A zlib stream of these bytes, as they are.
void store(View data, Buffer& out);

}  // namespace latens
