// Opens and decodes any bytes as files and as weights, through the C interface. Checksums would keep damage
// away from what is behind them, so most inputs are put together here, with right ones.
#include <array>
#include <cstring>
#include <string>

#include "fuzz.hpp"
#include "library/bytes.hpp"
#include "library/ltn.h"

namespace {

using latens::Buffer;

// A safetensors file in the making.
class Arrays {
  public:
    template <class T>
    void add(const std::string& name, const char* type, const std::vector<std::size_t>& shape,
             const std::vector<T>& values) {
        const std::size_t start = body_.size();
        for (const T value : values)
            for (std::size_t i = 0; i < sizeof(T); ++i)
                body_.push_back(static_cast<std::uint8_t>(static_cast<std::uint64_t>(value) >> 8 * i));
        std::string sizes;
        for (const std::size_t n : shape) {
            if (!sizes.empty()) sizes += ',';
            sizes += std::to_string(n);
        }
        header_ += ",\"" + name + "\":{\"dtype\":\"" + type + "\",\"shape\":[" + sizes +
                   "],\"data_offsets\":[" + std::to_string(start) + "," + std::to_string(body_.size()) + "]}";
    }
    Buffer finish() const {
        const std::string about =
            "{\"__metadata__\":{\"format\":\"latens-weights-2\",\"family\":\"pictures\"," +
            std::string("\"name\":\"t\"}") + header_ + "}";
        Buffer out;
        latens::put_uint(out, static_cast<std::uint32_t>(about.size()), 4);
        latens::put_uint(out, 0, 4);
        out.insert(out.end(), about.begin(), about.end());
        latens::put(out, {body_.data(), body_.size()});
        return out;
    }

  private:
    std::string header_;
    Buffer body_;
};

constexpr std::size_t channels = 2;
constexpr std::int32_t product = 0, shuffle = 3, unshuffle = 4, scale = 5, pixels = 6, input = 7;

// The weights of a model with two channels of everything.
Buffer tiny_weights() {
    Random random(3);
    Arrays arrays;
    const auto numbers = [&](std::size_t count, std::int32_t most) {
        std::vector<std::int32_t> values(count);
        for (std::int32_t& v : values)
            v = static_cast<std::int32_t>(below(random, 2 * static_cast<std::uint32_t>(most) + 1)) - most;
        return values;
    };
    const auto stage = [&](const std::string& name, const std::vector<std::int32_t>& form) {
        arrays.add(name + ".form", "I32", {form.size()}, form);
    };
    const auto weights = [&](const std::string& name, std::vector<std::size_t> shape, std::int32_t most) {
        std::size_t count = 1;
        for (const std::size_t n : shape) count *= n;
        const std::vector<std::int32_t> values = numbers(count, most);
        arrays.add(name + ".weight", "I16", shape, std::vector<std::int16_t>(values.begin(), values.end()));
        arrays.add(name + ".bias", "I32", {shape[0]}, numbers(shape[0], 1 << 16));
    };
    const auto add_product = [&](const std::string& name, std::size_t out, std::size_t kernel, std::size_t in,
                                 std::int32_t low, std::int32_t high) {
        stage(name, {product, low, high, 0});
        weights(name, {out, kernel, kernel, in}, 100);
        arrays.add(name + ".shift", "U8", {out}, std::vector<std::uint8_t>(out, 7));
    };
    const auto begin = [&](const std::string& name, std::int32_t limit) {
        arrays.add("network." + name + ".limits", "I32", {2}, std::vector<std::int32_t>{-limit, limit});
        return "network." + name + ".";
    };
    for (const char* name : {"h_scale", "h_mean"}) {
        const std::string prefix = begin(name, 1023);
        const bool scales = std::strcmp(name, "h_scale") == 0;
        add_product(prefix + "0", 16 * channels, 3, channels, scales ? 0 : -500, scales ? 63 : 500);
        stage(prefix + "1", {shuffle, 4});
    }
    add_product(begin("mean_0", 32768 - 1) + "0", channels, 1, channels, -500, 500);
    add_product(begin("context", 32768 - 1) + "0", channels, 3, 2 * channels, -500, 500);
    std::string prefix = begin("g_s", 32767);
    add_product(prefix + "0", 4 * channels, 1, channels, -32768, 32767);
    stage(prefix + "1", {shuffle, 2});
    stage(prefix + "2", {scale, static_cast<std::int32_t>(channels), 0});
    stage(prefix + "3", {pixels, 8});
    weights(prefix + "3", {192, channels}, 100);
    prefix = begin("g_a", 32767);
    stage(prefix + "0", {input});
    add_product(prefix + "1", channels, 1, 192, -32768, 32767);
    stage(prefix + "2", {unshuffle, 2});
    add_product(prefix + "3", channels, 3, 4 * channels, -32768, 32767);
    prefix = begin("h_a", 32767);
    add_product(prefix + "0", channels, 1, channels, -32768, 32767);
    stage(prefix + "1", {unshuffle, 4});
    add_product(prefix + "2", channels, 1, 16 * channels, -32768, 32767);
    for (const char* name : {"gain", "mean_scale", "context_scale", "input_scale", "out_scale"})
        arrays.add(std::string("factor.") + name, "I32", {2, channels}, numbers(2 * channels, 3 << 16));
    arrays.add("z_offset", "I32", {2, channels}, numbers(2 * channels, 1000));
    for (const auto& [name, count] : {std::pair{"z", 2 * channels}, std::pair{"y", std::size_t{64}}}) {
        const Cdfs cdfs = random_cdfs(random, count, 40);
        std::vector<std::int32_t> entries;
        for (std::size_t i = 0; i < count; ++i) {
            const auto row = cdfs.cdfs.begin() + static_cast<std::ptrdiff_t>(i * cdfs.stride);
            entries.insert(entries.end(), row, row + cdfs.sizes[i]);
        }
        arrays.add(std::string(name) + ".entries", "I32", {entries.size()}, entries);
        arrays.add(std::string(name) + ".sizes", "I32", {count}, cdfs.sizes);
        arrays.add(std::string(name) + ".offsets", "I32", {count}, cdfs.offsets);
    }
    return arrays.finish();
}

const Buffer& weights_file() {
    static const Buffer file = tiny_weights();
    return file;
}

const ltn_model* model() {
    static ltn_model* const loaded = [] {
        ltn_model* made = nullptr;
        ltn_error error;
        if (ltn_model_load(weights_file().data(), weights_file().size(), &made, &error) != LTN_OK)
            require(false, error.message);
        return made;
    }();
    return loaded;
}

// The kinds of inputs, by their first byte: a file as it is; one of parts that get their checksums here;
// weights; packed ones, whose checksum is made right here.
enum Mode : std::uint8_t { whole, parts, weights_mode, packed_mode, modes };

// Parts are a header without its checksum, and chunks without theirs: type, size (2 bytes), payload.
Buffer assembled(const std::uint8_t* data, std::size_t size) {
    latens::Reader in({data, size});
    Buffer out;
    const auto checked = [&](std::size_t from) {
        latens::put_uint(out, latens::crc32({out.data() + from, out.size() - from}), 4);
    };
    std::uint32_t length = 0, type = 0;
    latens::View part;
    if (!in.uint(1, "", length).ok() || !in.take(std::min<std::size_t>(length, in.left()), "", part).ok())
        return out;
    latens::put(out, part);
    checked(0);
    while (in.uint(1, "", type).ok() && in.uint(2, "", length).ok()) {
        const std::size_t start = out.size();
        if (!in.take(std::min<std::size_t>(length, in.left()), "", part).ok()) break;
        out.push_back(static_cast<std::uint8_t>(type));
        latens::put_varint(out, part.size);
        latens::put(out, part);
        checked(start);
    }
    Buffer end;
    latens::put_varint(end, out.size());
    const std::size_t start = out.size();
    out.push_back('Z');
    latens::put_varint(out, end.size());
    latens::put(out, {end.data(), end.size()});
    checked(start);
    return out;
}

// The inverse, of a file of an encoder.
Input taken_apart(const std::uint8_t* data, std::size_t size) {
    Input out;
    // The first chunk is a tile's, alpha's or metadata: the end of the header is where its checksum fits.
    std::size_t at = 8;
    while (latens::crc32({data, at}) !=
           (data[at] | data[at + 1] << 8 | data[at + 2] << 16 | std::uint32_t{data[at + 3]} << 24))
        ++at;
    out.push_back(static_cast<std::uint8_t>(at));
    out.insert(out.end(), data, data + at);
    latens::Reader in({data, size}, at + 4);
    std::uint32_t type = 0, crc = 0;
    std::uint64_t length = 0;
    latens::View part;
    while (in.uint(1, "", type).ok() && type != 'Z') {
        require(in.varint("", length).ok() && in.take(length, "", part).ok() && in.uint(4, "", crc).ok(),
                "a file without its end");
        out.push_back(static_cast<std::uint8_t>(type));
        latens::put_uint(out, static_cast<std::uint32_t>(part.size), 2);
        out.insert(out.end(), part.data, part.data + part.size);
    }
    return out;
}

void decode(const std::uint8_t* data, std::size_t size) {
    const ltn_limits limits{sizeof(ltn_limits), 1 << 16, 64 << 20};
    ltn_header header{};
    header.struct_size = sizeof header;
    ltn_error error{};
    ltn_image* image = nullptr;
    const ltn_code known = ltn_info(data, size, &limits, &header, nullptr);
    const void* preview = nullptr;
    std::size_t preview_size = 0;
    require(ltn_preview(data, size, &limits, &preview, &preview_size, nullptr) == known, "a preview differs");
    require(preview == nullptr || (known == LTN_OK && preview >= data && preview_size < size),
            "a preview outside");
    const ltn_code code = ltn_decode(model(), data, size, &limits, &image, &error);
    require(code == error.code && (code == LTN_OK) == (image != nullptr), "an image and an error");
    require(code == LTN_OK || error.message[0] != '\0', "an error without a message");
    require(known == LTN_OK || known == code, "what is said and what is decoded differ");
    if (image == nullptr) return;
    require(ltn_image_header(image, &header) == LTN_OK && header.width * header.height <= 1 << 16,
            "too large");
    // All samples are there.
    const std::size_t count = std::size_t{header.width} * header.height * (header.bit_depth > 8 ? 2 : 1);
    const auto* samples = static_cast<const std::uint8_t*>(ltn_image_pixels(image));
    latens::crc32({samples, count * header.channels});
    if (header.alpha != 0) latens::crc32({static_cast<const std::uint8_t*>(ltn_image_alpha(image)), count});
    ltn_image_free(image);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1) return 0;
    const std::uint8_t mode = data[0] % modes;
    if (mode == weights_mode || mode == packed_mode) {
        Buffer file(data + 1, data + size);
        if (mode == packed_mode && file.size() >= 4) {
            file.resize(file.size() - 4);
            latens::put_uint(file, latens::crc32({file.data(), file.size()}), 4);
        }
        ltn_model* made = nullptr;
        ltn_error error{};
        const ltn_code code = ltn_model_load(file.data(), file.size(), &made, &error);
        require((code == LTN_OK) == (made != nullptr), "a model and an error");
        require(code == LTN_OK || error.message[0] != '\0', "an error without a message");
        ltn_model_free(made);
    } else if (mode == parts) {
        const Buffer file = assembled(data + 1, size - 1);
        decode(file.data(), file.size());
    } else {
        decode(data + 1, size - 1);
    }
    return 0;
}

Input valid_input(Random& random) {
    const std::uint32_t kind = below(random, 16);
    if (kind == 1) {
        void* packed = nullptr;
        std::size_t size = 0;
        require(ltn_weights_pack(weights_file().data(), weights_file().size(), 0, &packed, &size, nullptr) ==
                    LTN_OK,
                "weights cannot be packed");
        Input input{packed_mode};
        input.insert(input.end(), static_cast<std::uint8_t*>(packed),
                     static_cast<std::uint8_t*>(packed) + size);
        ltn_free(packed);
        return input;
    }
    if (kind == 0) {
        Input weights{weights_mode};
        weights.insert(weights.end(), weights_file().begin(), weights_file().end());
        return weights;
    }
    ltn_source source{};
    source.struct_size = sizeof source;
    source.width = 1 + below(random, 90);
    source.height = 1 + below(random, 90);
    source.channels = below(random, 2) > 0 ? 3 : 1;
    source.bit_depth = below(random, 3) > 0 ? 8 : 9 + below(random, 8);
    const std::size_t count = std::size_t{source.width} * source.height;
    std::vector<std::uint16_t> samples(count * source.channels), alpha(count);
    for (std::uint16_t& v : samples) v = static_cast<std::uint16_t>(below(random, 4) > 0 ? 0x3030 : random());
    source.pixels = samples.data();
    if (below(random, 2) > 0) source.alpha = alpha.data();
    if (below(random, 3) == 0) {
        source.xmp = "<x/>";
        source.xmp_size = 4;
    }
    void* file = nullptr;
    std::size_t size = 0;
    ltn_error error;
    const bool lossless = below(random, 2) == 0;
    const auto encode = [&] {
        const ltn_code code = lossless
                                  ? ltn_encode_lossless(&source, below(random, 3), 1, &file, &size, &error)
                                  : ltn_encode(model(), &source, below(random, 101), &file, &size, &error);
        require(code == LTN_OK, code == LTN_OK ? "" : error.message);
    };
    encode();
    const auto* data = static_cast<const std::uint8_t*>(file);
    // What an encoder made decodes.
    ltn_image* image = nullptr;
    if (ltn_decode(model(), data, size, nullptr, &image, &error) != LTN_OK) require(false, error.message);
    ltn_image_free(image);
    Input input{kind < 5 ? whole : parts};
    if (kind < 5) {
        input.insert(input.end(), data, data + size);
    } else {
        const Input apart = taken_apart(data, size);
        input.insert(input.end(), apart.begin(), apart.end());
        if (below(random, 3) == 0) {
            ltn_free(file);
            source.width = (source.width + 7) / 8;
            source.height = (source.height + 7) / 8;
            source.xmp = nullptr;
            source.xmp_size = 0;
            encode();
            input.push_back('p');
            latens::put_uint(input, static_cast<std::uint32_t>(size), 2);
            input.insert(input.end(), static_cast<std::uint8_t*>(file),
                         static_cast<std::uint8_t*>(file) + size);
        }
    }
    ltn_free(file);
    return input;
}
