// Just enough of JSON (RFC 8259) to read the header of a weights file, of a bounded number of values.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace latens {

struct Json {
    enum class Kind : std::uint8_t { nothing, boolean, number, text, list, object };

    Kind kind = Kind::nothing;
    double number = 0;
    std::string text;
    std::vector<Json> items;         // of a list, or the values of an object
    std::vector<std::string> names;  // of an object

    const Json* find(const std::string& name) const {
        for (std::size_t i = 0; i < names.size(); ++i)
            if (names[i] == name) return &items[i];
        return nullptr;
    }
    // Whether it is a whole number of 0 to 2^53.
    bool whole(std::uint64_t& value) const {
        if (kind != Kind::number || !(number >= 0 && number <= 9007199254740992.0)) return false;
        value = static_cast<std::uint64_t>(number);
        return static_cast<double>(value) == number;
    }
};

// Whether `text` is one value, and nothing else but white space.
bool parse_json(const char* text, std::size_t size, Json& result);

}  // namespace latens
