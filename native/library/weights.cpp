#include "weights.hpp"

#include <algorithm>
#include <tuple>

#include "json.hpp"
#include "packed.hpp"

namespace latens {
namespace {

constexpr std::size_t header_max = std::size_t{4} << 20;

Outcome damaged(const std::string& message) {
    return failed(LTN_ERROR_MODEL, "weights: " + message);
}

// Whether the sizes multiply to `count` values.
bool fits(const std::vector<std::uint64_t>& shape, std::uint64_t count) {
    std::uint64_t product = 1;
    for (const std::uint64_t n : shape) {
        if (n > 0 && product > (std::uint64_t{1} << 40) / n) return false;
        product *= n;
    }
    return product == count;
}

Outcome describe_array(const std::string& name, const Json& entry, View content, Array& array) {
    const Json *type = entry.find("dtype"), *shape = entry.find("shape");
    const Outcome unknown = damaged(name.substr(0, 80) + " has a type or shape that is not known");
    if (type == nullptr || shape == nullptr || shape->kind != Json::Kind::list) return unknown;
    const auto* found = std::find_if(std::begin(type_names), std::end(type_names),
                                     [&](const TypeName& t) { return type->text == t.stored; });
    if (found == std::end(type_names)) return unknown;
    array.type = static_cast<Type>(found - std::begin(type_names));
    for (const Json& n : shape->items) {
        std::uint64_t size = 0;
        if (!n.whole(size)) return unknown;
        array.shape.push_back(size);
    }
    array.content = content;
    if (content.size % found->bytes != 0 || !fits(array.shape, array.count()))
        return damaged(name.substr(0, 80) + " has a type or shape that does not fit");
    return {};
}

Outcome read_safetensors(View data, WeightsFile& result) {
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < std::min<std::size_t>(8, data.size); ++i)
        length |= std::uint64_t{data.data[i]} << 8 * i;
    if (data.size < 8 || length > std::min<std::uint64_t>(header_max, data.size - 8))
        return damaged("not a safetensors file, or cut off");
    const auto size = static_cast<std::size_t>(length);
    Json header;
    if (!parse_json(reinterpret_cast<const char*>(data.data) + 8, size, header) ||
        header.kind != Json::Kind::object)
        return damaged("the header is damaged");
    const View body = data.part(8 + size, data.size - 8 - size);
    std::vector<std::tuple<std::uint64_t, std::uint64_t, std::size_t>> places;
    for (std::size_t i = 0; i < header.names.size(); ++i) {
        const Json& entry = header.items[i];
        if (entry.kind != Json::Kind::object) return damaged("the header is damaged");
        if (header.names[i] == "__metadata__") {
            for (std::size_t k = 0; k < entry.names.size(); ++k) {
                if (entry.items[k].kind != Json::Kind::text) return damaged("the header is damaged");
                result.metadata[entry.names[k]] = entry.items[k].text;
            }
            continue;
        }
        const Json* at = entry.find("data_offsets");
        std::uint64_t start = 0, stop = 0;
        if (at == nullptr || at->kind != Json::Kind::list || at->items.size() != 2 ||
            !at->items[0].whole(start) || !at->items[1].whole(stop))
            return damaged("the header is damaged");
        places.emplace_back(start, stop, i);
    }
    std::sort(places.begin(), places.end());
    std::uint64_t end = 0;
    for (const auto& [start, stop, i] : places) {
        const std::string& name = header.names[i];
        // Neither gaps nor overlaps: what a file holds is what its hash stands for.
        if (start != end || stop < start || stop > body.size)
            return damaged(name.substr(0, 80) + " lies outside the file, or over another array");
        Array array{};
        LATENS_TRY(describe_array(
            name, header.items[i],
            body.part(static_cast<std::size_t>(start), static_cast<std::size_t>(stop - start)), array));
        if (!result.arrays.emplace(name, std::move(array)).second)
            return damaged(name.substr(0, 80) + " is there twice");
        end = stop;
    }
    if (end != body.size) return damaged("there are bytes behind the last array");
    Sha256 digest;
    digest.add(data);
    result.id = digest.finish();
    return {};
}

}  // namespace

Outcome read_weights(View data, WeightsFile& result) {
    result = {};
    return is_packed(data) ? read_packed(data, result) : read_safetensors(data, result);
}

Outcome read_number_lists(const std::string& text, std::map<std::string, std::vector<double>>& result) {
    Json json;
    const Outcome wrong = damaged("not an object with lists of numbers");
    if (!parse_json(text.data(), text.size(), json) || json.kind != Json::Kind::object) return wrong;
    for (std::size_t i = 0; i < json.names.size(); ++i) {
        std::vector<double> values;
        if (json.items[i].kind != Json::Kind::list) return wrong;
        for (const Json& item : json.items[i].items) {
            if (item.kind != Json::Kind::number) return wrong;
            values.push_back(item.number);
        }
        result[json.names[i]] = std::move(values);
    }
    return {};
}

}  // namespace latens
