// The C interface: handles, codes, and nothing that a C program could not take.
#include "ltn.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "lossless.hpp"
#include "packed.hpp"
#include "picture.hpp"
#include "pool.hpp"

struct ltn_model {
    std::shared_ptr<const latens::Model> core;
};

struct ltn_image {
    latens::Picture core;
};

namespace {

using latens::Outcome;

// Takes no memory, for there may be none.
ltn_code report(ltn_code code, const char* message, ltn_error* error) {
    if (error == nullptr) return code;
    error->code = code;
    std::size_t n = 0;
    for (; message[n] != '\0' && n + 1 < sizeof error->message; ++n)
        error->message[n] = message[n] >= ' ' && message[n] <= '~' ? message[n] : '?';
    error->message[n] = '\0';
    return code;
}

// Nothing that is thrown leaves the library.
template <class Work>
ltn_code guarded(ltn_error* error, const Work& work) {
    try {
        const Outcome outcome = work();
        return report(outcome.code, outcome.message.c_str(), error);
    } catch (...) {  // there is nothing else that the library's containers throw
        return report(LTN_ERROR_MEMORY, "there is not enough memory", error);
    }
}

Outcome senseless(const char* message) {
    return latens::failed(LTN_ERROR_ARGUMENT, message);
}

// What the caller's structure holds of ours; the rest is 0.
template <class T>
Outcome take(const T* given, T& own) {
    std::memset(&own, 0, sizeof own);
    if (given == nullptr) return {};
    if (given->struct_size < sizeof given->struct_size) return senseless("struct_size is not set");
    std::memcpy(&own, given, std::min(given->struct_size, sizeof own));
    return {};
}

Outcome limits_of(const ltn_limits* given, latens::FileLimits& limits) {
    ltn_limits own;
    LATENS_TRY(take(given, own));
    if (own.max_pixels > 0) limits.max_pixels = own.max_pixels;
    if (own.max_memory > 0) limits.max_memory = own.max_memory;
    return {};
}

template <std::size_t size>
void put_text(const std::string& text, char (&out)[size]) {
    const std::size_t n = std::min(text.size(), size - 1);
    std::memcpy(out, text.data(), n);
    out[n] = '\0';
}

Outcome tell(const latens::Header& h, bool alpha, const std::optional<latens::Density>& density,
             ltn_header* header) {
    if (header == nullptr || header->struct_size < sizeof header->struct_size)
        return senseless("a header with its struct_size is needed");
    ltn_header own{};
    own.struct_size = header->struct_size;
    const auto small = [](std::size_t n) { return static_cast<std::uint32_t>(n); };
    own.width = small(h.width);
    own.height = small(h.height);
    own.channels = h.channels;
    own.bit_depth = h.bit_depth;
    own.lossless = h.lossless;
    own.near = h.near;
    own.alpha = alpha;
    own.quality = h.quality;
    own.tile_size = small(h.tile_size);
    own.tiles = small(h.tiles());
    std::copy(h.colour.begin(), h.colour.end(), own.colour);
    if (density) {
        for (std::size_t i = 0; i < 4; ++i)
            own.density[i] =
                static_cast<std::uint32_t>(std::min<std::uint64_t>(density->fractions[i], 0xffffffff));
        own.density_unit = density->unit;
    }
    put_text(h.model, own.model);
    put_text(h.entropy_id, own.entropy_id);
    put_text(h.weights_id, own.weights_id);
    std::memcpy(header, &own, std::min(header->struct_size, sizeof own));
    return {};
}

// What a source says, checked.
Outcome take_source(const ltn_source* given, latens::Picture& about, latens::Plane& pixels,
                    latens::Plane& alpha) {
    ltn_source own;
    if (given == nullptr) return senseless("no source");
    LATENS_TRY(take(given, own));
    latens::Header& h = about.header;
    if (own.width < 1 || own.width > 65535 || own.height < 1 || own.height > 65535)
        return senseless("width and height must be 1 to 65535");
    if (own.channels != 1 && own.channels != 3) return senseless("channels must be 1 or 3");
    if (own.bit_depth == 0) own.bit_depth = 8;
    if (own.bit_depth < 8 || own.bit_depth > 16) return senseless("bit_depth must be 8 to 16");
    if (own.pixels == nullptr) return senseless("no pixels");
    h.width = own.width;
    h.height = own.height;
    h.channels = own.channels;
    h.bit_depth = own.bit_depth;
    if (h.width * h.height > latens::FileLimits{}.max_pixels)
        return latens::failed(LTN_ERROR_LIMIT, "a picture of more than 2^28 pixels");
    const std::size_t row = h.width * h.sample_bytes();
    pixels = {static_cast<const std::uint8_t*>(own.pixels), own.pitch > 0 ? own.pitch : row * h.channels};
    alpha = {static_cast<const std::uint8_t*>(own.alpha), own.alpha_pitch > 0 ? own.alpha_pitch : row};
    const bool whole = pixels.pitch % h.sample_bytes() == 0 && alpha.pitch % h.sample_bytes() == 0;
    if (pixels.pitch < row * h.channels || alpha.pitch < row || !whole)
        return senseless("pitch is shorter than a row, or no whole number of samples");
    const struct {
        const void* data;
        std::size_t size;
    } parts[] = {{own.icc, own.icc_size}, {own.exif, own.exif_size}, {own.xmp, own.xmp_size}};
    for (std::size_t i = 0; i < about.metadata.size(); ++i)
        if (parts[i].data != nullptr) {
            const auto* data = static_cast<const std::uint8_t*>(parts[i].data);
            about.metadata[i].assign(data, data + parts[i].size);
        }
    if (std::any_of(own.colour, own.colour + 4, [](std::uint8_t code) { return code != 0; }))
        std::copy_n(own.colour, 4, h.colour.begin());
    if (h.colour[2] != 0 || h.colour[3] > 1)
        return senseless("colour must have matrix 0, and 0 or 1 for range");
    if (std::any_of(own.density, own.density + 4, [](std::uint32_t part) { return part != 0; })) {
        latens::Density& density = about.density.emplace();
        std::copy_n(own.density, 4, density.fractions.begin());
        density.unit = own.density_unit;
        if (density.unit > 3 || std::count(own.density, own.density + 4, 0u) > 0)
            return senseless("density must have positive fractions, and a unit of 0 to 3");
    }
    return {};
}

// Gives a file to the caller.
Outcome hand_over(const latens::Buffer& found, void** file, std::size_t* size) {
    *file = std::malloc(found.size());
    if (*file == nullptr) return latens::failed(LTN_ERROR_MEMORY, "there is not enough memory");
    std::memcpy(*file, found.data(), found.size());
    *size = found.size();
    return {};
}

latens::View view(const void* data, std::size_t size) {
    return {static_cast<const std::uint8_t*>(data), size};
}

}  // namespace

extern "C" {

void ltn_set_threads(unsigned count) {
    latens::set_threads(count);
}

ltn_code ltn_info(const void* data, size_t size, const ltn_limits* limits, ltn_header* header,
                  ltn_error* error) {
    return guarded(error, [&]() -> Outcome {
        if (data == nullptr) return senseless("no data");
        latens::FileLimits own;
        LATENS_TRY(limits_of(limits, own));
        latens::Container c;
        LATENS_TRY(latens::read_container(view(data, size), own, c));
        return tell(c.header, c.has_alpha(), c.density, header);
    });
}

ltn_code ltn_preview(const void* data, size_t size, const ltn_limits* limits, const void** preview,
                     size_t* preview_size, ltn_error* error) {
    return guarded(error, [&]() -> Outcome {
        if (data == nullptr || preview == nullptr || preview_size == nullptr)
            return senseless("no data, or no place for the preview");
        *preview = nullptr;
        *preview_size = 0;
        latens::FileLimits own;
        LATENS_TRY(limits_of(limits, own));
        latens::Container c;
        LATENS_TRY(latens::read_container(view(data, size), own, c));
        *preview = c.preview.data;
        *preview_size = c.preview.size;
        return {};
    });
}

ltn_code ltn_model_load(const void* data, size_t size, ltn_model** model, ltn_error* error) {
    return guarded(error, [&]() -> Outcome {
        if (data == nullptr || model == nullptr) return senseless("no data, or no place for the model");
        *model = nullptr;
        auto made = std::make_unique<ltn_model>();
        latens::WeightsFile weights;
        LATENS_TRY(latens::read_weights(view(data, size), weights));
        LATENS_TRY(latens::Model::build(weights, made->core));
        *model = made.release();
        return {};
    });
}

void ltn_model_free(ltn_model* model) {
    delete model;
}

const char* ltn_model_name(const ltn_model* model) {
    return model->core->name().c_str();
}

const char* ltn_model_weights_id(const ltn_model* model) {
    return model->core->weights_id().c_str();
}

const char* ltn_model_entropy_id(const ltn_model* model) {
    return model->core->entropy_id().c_str();
}

ltn_code ltn_decode(const ltn_model* model, const void* data, size_t size, const ltn_limits* limits,
                    ltn_image** image, ltn_error* error) {
    return guarded(error, [&]() -> Outcome {
        if (data == nullptr || image == nullptr) return senseless("no data, or no place for the image");
        *image = nullptr;
        latens::FileLimits own;
        LATENS_TRY(limits_of(limits, own));
        auto made = std::make_unique<ltn_image>();
        LATENS_TRY(latens::decode_picture(model == nullptr ? nullptr : model->core.get(), view(data, size),
                                          own, made->core));
        *image = made.release();
        return {};
    });
}

void ltn_image_free(ltn_image* image) {
    delete image;
}

ltn_code ltn_image_header(const ltn_image* image, ltn_header* header) {
    return tell(image->core.header, image->core.has_alpha, image->core.density, header).code;
}

const void* ltn_image_pixels(const ltn_image* image) {
    return image->core.pixels.data();
}

const void* ltn_image_alpha(const ltn_image* image) {
    return image->core.has_alpha ? image->core.alpha.data() : nullptr;
}

const uint8_t* ltn_image_metadata(const ltn_image* image, ltn_metadata kind, size_t* size) {
    const auto i = static_cast<std::size_t>(kind);
    const bool there = i < image->core.metadata.size() && !image->core.metadata[i].empty();
    if (size != nullptr) *size = there ? image->core.metadata[i].size() : 0;
    return there ? image->core.metadata[i].data() : nullptr;
}

ltn_code ltn_encode(const ltn_model* model, const ltn_source* source, double quality, void** file,
                    size_t* size, ltn_error* error) {
    return guarded(error, [&]() -> Outcome {
        if (model == nullptr || file == nullptr || size == nullptr)
            return senseless("no model, or no place for the file");
        *file = nullptr;
        if (!(quality >= 0 && quality <= 100)) return senseless("quality must be 0 to 100");
        latens::Picture about;
        latens::Plane pixels, alpha;
        LATENS_TRY(take_source(source, about, pixels, alpha));
        latens::Buffer found;
        LATENS_TRY(latens::encode_picture(*model->core, about, pixels, alpha, quality, found));
        return hand_over(found, file, size);
    });
}

ltn_code ltn_encode_lossless(const ltn_source* source, uint32_t near, uint32_t effort, void** file,
                             size_t* size, ltn_error* error) {
    return guarded(error, [&]() -> Outcome {
        if (file == nullptr || size == nullptr) return senseless("no place for the file");
        *file = nullptr;
        if (near > latens::max_near || effort < 1 || effort > 2)
            return senseless("near must be 0 to 255, and effort 1 or 2");
        latens::Picture about;
        latens::Plane pixels, alpha;
        LATENS_TRY(take_source(source, about, pixels, alpha));
        latens::Buffer found;
        LATENS_TRY(latens::encode_lossless(about, pixels, alpha, near, effort, found));
        return hand_over(found, file, size);
    });
}

ltn_code ltn_weights_pack(const void* data, size_t data_size, int encoding, void** file, size_t* size,
                          ltn_error* error) {
    return guarded(error, [&]() -> Outcome {
        if (data == nullptr || file == nullptr || size == nullptr)
            return senseless("no data, or no place for the file");
        *file = nullptr;
        latens::WeightsFile weights;
        LATENS_TRY(latens::read_weights(view(data, data_size), weights));
        latens::Buffer found;
        LATENS_TRY(latens::pack_weights(
            weights, encoding != 0 ? latens::Packing::encoding : latens::Packing::decoding, found));
        return hand_over(found, file, size);
    });
}

void ltn_free(void* file) {
    std::free(file);
}

}  // extern "C"
