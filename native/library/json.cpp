#include "json.hpp"

#include <cmath>
#include <cstring>

namespace latens {
namespace {

constexpr unsigned deepest = 8;
constexpr std::size_t most_values = 100'000;

class Parser {
  public:
    Parser(const char* text, std::size_t size) : at_(text), end_(text + size) {}

    bool whole(Json& result) {
        if (!value(result, 0)) return false;
        space();
        return at_ == end_;
    }

  private:
    void space() {
        while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
    }
    // Whether this comes next, after white space; if so it is taken.
    bool next(char c) {
        space();
        if (at_ == end_ || *at_ != c) return false;
        ++at_;
        return true;
    }
    bool word(const char* expected) {
        const std::size_t size = std::strlen(expected);
        if (static_cast<std::size_t>(end_ - at_) < size || std::memcmp(at_, expected, size) != 0)
            return false;
        at_ += size;
        return true;
    }

    bool value(Json& result, unsigned depth) {
        if (depth == deepest || ++values_ > most_values) return false;
        space();
        if (at_ == end_) return false;
        switch (*at_) {
            case '{':
            case '[':
                return group(result, depth);
            case '"':
                result.kind = Json::Kind::text;
                return text(result.text);
            case 't':
                result.kind = Json::Kind::boolean;
                result.number = 1;
                return word("true");
            case 'f':
                result.kind = Json::Kind::boolean;
                return word("false");
            case 'n':
                return word("null");
            default:
                result.kind = Json::Kind::number;
                return number(result.number);
        }
    }

    bool group(Json& result, unsigned depth) {
        const bool object = *at_++ == '{';
        const char close = object ? '}' : ']';
        result.kind = object ? Json::Kind::object : Json::Kind::list;
        if (next(close)) return true;
        do {
            if (object) {
                std::string name;
                space();
                if (at_ == end_ || *at_ != '"' || !text(name) || !next(':')) return false;
                result.names.push_back(std::move(name));
            }
            result.items.emplace_back();
            if (!value(result.items.back(), depth + 1)) return false;
        } while (next(','));
        return next(close);
    }

    bool digits(std::uint32_t& code) {
        if (end_ - at_ < 4) return false;
        code = 0;
        for (int i = 0; i < 4; ++i, ++at_) {
            const char c = *at_;
            const int digit = c >= '0' && c <= '9'   ? c - '0'
                              : c >= 'a' && c <= 'f' ? c - 'a' + 10
                              : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                     : -1;
            if (digit < 0) return false;
            code = code << 4 | static_cast<std::uint32_t>(digit);
        }
        return true;
    }

    static void put_utf8(std::uint32_t code, std::string& out) {
        const auto put = [&](std::uint32_t byte) { out += static_cast<char>(byte); };
        if (code < 0x80) return put(code);
        if (code < 0x800) {
            put(0xc0 | code >> 6);
        } else {
            if (code < 0x10000) {
                put(0xe0 | code >> 12);
            } else {
                put(0xf0 | code >> 18);
                put(0x80 | (code >> 12 & 63));
            }
            put(0x80 | (code >> 6 & 63));
        }
        put(0x80 | (code & 63));
    }

    bool text(std::string& out) {
        out.clear();
        for (++at_; at_ < end_;) {
            const char c = *at_++;
            if (c == '"') return true;
            if (static_cast<unsigned char>(c) < 32) return false;
            if (c != '\\') {
                out += c;
                continue;
            }
            if (at_ == end_) return false;
            const char escaped = *at_++;
            static constexpr char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
            if (const char* found = std::strchr(from, escaped); found != nullptr && escaped != '\0') {
                out += to[found - from];
                continue;
            }
            std::uint32_t code = 0;
            if (escaped != 'u' || !digits(code)) return false;
            if (code >= 0xd800 && code < 0xdc00) {
                std::uint32_t low = 0;
                if (end_ - at_ < 6 || at_[0] != '\\' || at_[1] != 'u') return false;
                at_ += 2;
                if (!digits(low) || low < 0xdc00 || low > 0xdfff) return false;
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            }
            put_utf8(code, out);
        }
        return false;
    }

    // Of up to 15 digits exactly: both factors are.
    bool number(double& result) {
        const bool negative = *at_ == '-';
        if (negative) ++at_;
        double whole = 0;
        int places = 0, count = 0;
        const auto run = [&](bool fraction) {
            int own = 0;
            for (; at_ < end_ && *at_ >= '0' && *at_ <= '9'; ++at_, ++own) {
                if (count < 17) {
                    whole = 10 * whole + (*at_ - '0');
                    count += whole > 0 ? 1 : 0;
                    places -= fraction ? 1 : 0;
                } else {
                    places += fraction ? 0 : 1;
                }
            }
            return own > 0;
        };
        if (!run(false)) return false;
        if (at_ < end_ && *at_ == '.') {
            ++at_;
            if (!run(true)) return false;
        }
        if (at_ < end_ && (*at_ == 'e' || *at_ == 'E')) {
            ++at_;
            const bool down = at_ < end_ && *at_ == '-';
            if (at_ < end_ && (*at_ == '-' || *at_ == '+')) ++at_;
            int exponent = 0, own = 0;
            for (; at_ < end_ && *at_ >= '0' && *at_ <= '9'; ++at_, ++own)
                if (exponent < 10000) exponent = 10 * exponent + (*at_ - '0');
            if (own == 0) return false;
            places += down ? -exponent : exponent;
        }
        result = places < 0 ? whole / std::pow(10.0, -places) : whole * std::pow(10.0, places);
        if (negative) result = -result;
        return true;
    }

    const char *at_, *end_;
    std::size_t values_ = 0;
};

}  // namespace

bool parse_json(const char* text, std::size_t size, Json& result) {
    result = {};
    return Parser(text, size).whole(result);
}

}  // namespace latens
