// WeightsFile files: named arrays in the safetensors format, or packed (docs/packed.md).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "bytes.hpp"

namespace latens {

enum class Type : std::uint8_t { i8, u8, i16, u16, i32, u32, i64, f16, f32, f64 };

struct TypeName {
    const char* stored;  // in safetensors
    const char* numpy;   // in hashes
    unsigned bytes;
};
inline constexpr TypeName type_names[] = {{"I8", "int8", 1},    {"U8", "uint8", 1},    {"I16", "int16", 2},
                                          {"U16", "uint16", 2}, {"I32", "int32", 4},   {"U32", "uint32", 4},
                                          {"I64", "int64", 8},  {"F16", "float16", 2}, {"F32", "float32", 4},
                                          {"F64", "float64", 8}};

struct Array {
    Type type;
    std::vector<std::uint64_t> shape;
    View content;  // little-endian

    std::uint64_t count() const { return content.size / type_names[static_cast<std::size_t>(type)].bytes; }
};

// Arrays are views of what they were read from, or of `kept`.
struct WeightsFile {
    std::map<std::string, Array> arrays;
    std::map<std::string, std::string> metadata;
    std::string id;  // SHA-256 of the safetensors file
    std::deque<Buffer> kept;
};

// Of either kind.
Outcome read_weights(View data, WeightsFile& result);

// Numbers from the text of a JSON object whose values are lists of numbers.
Outcome read_number_lists(const std::string& text, std::map<std::string, std::vector<double>>& result);

}  // namespace latens
