/* A small PNG of a .ltn file, for file managers: ltn-thumbnailer SIZE INPUT OUTPUT
 *
 * Weights are those of the file's model, MODEL.safetensors, in the folder that LTN_WEIGHTS names or where the
 * library was installed. */
#include <ltn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES ((size_t)1 << 30)

static int failed(const char* what, const char* why) {
    fprintf(stderr, "ltn-thumbnailer: %s: %s\n", what, why);
    return 1;
}

static unsigned char* load(const char* path, size_t* size) {
    FILE* file = fopen(path, "rb");
    unsigned char* data = NULL;
    size_t held = 0, some = 1;
    *size = 0;
    while (file != NULL && some > 0) {
        if (*size == held) {
            unsigned char* more =
                held < MOST_BYTES ? realloc(data, held = held > 0 ? 2 * held : 65536) : NULL;
            if (more == NULL) break;
            data = more;
        }
        some = fread(data + *size, 1, held - *size, file);
        *size += some;
    }
    if (file != NULL) fclose(file);
    if (file != NULL && some == 0) return data;
    free(data);
    return NULL;
}

/* Means of the pixels that a pixel of the thumbnail covers, as bytes of red, green, blue and alpha; colours
 * count as much as they can be seen. */
static void shrink(const ltn_header* h, const void* pixels, const void* alpha, unsigned char* out,
                   size_t width, size_t height) {
    const int deep = h->bit_depth > 8;
    size_t x, y, i, j;
    unsigned c;
    for (y = 0; y < height; ++y)
        for (x = 0; x < width; ++x) {
            const size_t top = y * h->height / height, bottom = (y + 1) * h->height / height;
            const size_t left = x * h->width / width, right = (x + 1) * h->width / width;
            uint64_t sums[4] = {0, 0, 0, 0}, count = (uint64_t)(bottom - top) * (right - left);
            for (i = top; i < bottom; ++i)
                for (j = left; j < right; ++j) {
                    const size_t at = i * h->width + j;
                    unsigned a = 255;
                    if (alpha != NULL)
                        a = deep ? (((const uint16_t*)alpha)[at] + 128u) / 257u : ((const uint8_t*)alpha)[at];
                    for (c = 0; c < 3; ++c) {
                        const size_t sample = at * h->channels + (h->channels == 3 ? c : 0);
                        sums[c] += (uint64_t)a * (deep ? (((const uint16_t*)pixels)[sample] + 128u) / 257u
                                                       : ((const uint8_t*)pixels)[sample]);
                    }
                    sums[3] += a;
                }
            for (c = 0; c < 3; ++c)
                *out++ = (unsigned char)(sums[3] > 0 ? (sums[c] + sums[3] / 2) / sums[3] : 0);
            *out++ = (unsigned char)((sums[3] + count / 2) / count);
        }
}

static void put32(unsigned char* at, uint32_t value) {
    int i;
    for (i = 0; i < 4; ++i) at[i] = (unsigned char)(value >> (24 - 8 * i));
}

static int chunk(FILE* file, const char* name, const unsigned char* data, size_t size) {
    unsigned char head[8], tail[4];
    uint32_t crc = 0xFFFFFFFFu;
    size_t i;
    int bit;
    put32(head, (uint32_t)size);
    memcpy(head + 4, name, 4);
    for (i = 4; i < 8 + size; ++i) {
        crc ^= i < 8 ? head[i] : data[i - 8];
        for (bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
    }
    put32(tail, ~crc);
    return fwrite(head, 1, 8, file) == 8 && fwrite(data, 1, size, file) == size &&
           fwrite(tail, 1, 4, file) == 4;
}

/* Not compressed: it is small, and whoever made it wants it at once. Blocks hold a row each, with its filter.
 */
static int write_png(FILE* file, const unsigned char* rgba, size_t width, size_t height) {
    const size_t row = 4 * width, block = row + 6;
    unsigned char head[13] = {0, 0, 0, 0, 0, 0, 0, 0, 8, 6, 0, 0, 0};
    unsigned char *data = malloc(2 + height * block + 4), *at = data;
    uint32_t a = 1, b = 0;
    size_t y, i;
    int good;
    if (data == NULL) return 0;
    put32(head, (uint32_t)width);
    put32(head + 4, (uint32_t)height);
    *at++ = 0x78;
    *at++ = 0x01;
    for (y = 0; y < height; ++y) {
        *at++ = y + 1 == height;
        *at++ = (unsigned char)(row + 1);
        *at++ = (unsigned char)((row + 1) >> 8);
        *at++ = (unsigned char)~(row + 1);
        *at++ = (unsigned char)(~(row + 1) >> 8);
        *at++ = 0;
        memcpy(at, rgba + y * row, row);
        at += row;
        for (i = 0; i <= row; ++i) {
            a = (a + at[(ptrdiff_t)i - (ptrdiff_t)row - 1]) % 65521;
            b = (b + a) % 65521;
        }
    }
    put32(at, b << 16 | a);
    good = fwrite("\x89PNG\r\n\x1a\n", 1, 8, file) == 8 && chunk(file, "IHDR", head, 13) &&
           chunk(file, "IDAT", data, (size_t)(at + 4 - data)) && chunk(file, "IEND", NULL, 0);
    free(data);
    return good;
}

static ltn_model* model_of(const ltn_header* h, ltn_error* error) {
    const char* folder = getenv("LTN_WEIGHTS");
    char path[4096];
    size_t size;
    unsigned char* data;
    ltn_model* model = NULL;
    snprintf(path, sizeof path, "%s/%s.safetensors", folder != NULL ? folder : LTN_WEIGHTS_DIR, h->model);
    data = load(path, &size);
    if (data == NULL)
        snprintf(error->message, sizeof error->message, "the weights %s.safetensors cannot be read",
                 h->model);
    else
        ltn_model_load(data, size, &model, error);
    free(data);
    return model;
}

int main(int argc, char** argv) {
    ltn_header h;
    ltn_error error;
    ltn_limits limits;
    ltn_model* model = NULL;
    ltn_image* image = NULL;
    FILE* out;
    size_t size, small_size, width, height;
    const void* small;
    unsigned char *data, *rgba;
    long most;
    int good;

    if (argc != 4 || (most = strtol(argv[1], NULL, 10)) < 1 || most > 4096)
        return failed("usage", "ltn-thumbnailer SIZE INPUT OUTPUT, with a SIZE of 1 to 4096");
    memset(&limits, 0, sizeof limits);
    limits.struct_size = sizeof limits;
    limits.max_memory = MOST_BYTES;
    h.struct_size = sizeof h;
    data = load(argv[2], &size);
    if (data == NULL) return failed(argv[2], "cannot be read");
    if (ltn_info(data, size, &limits, &h, &error) != LTN_OK) return failed(argv[2], error.message);
    if (!h.lossless && (model = model_of(&h, &error)) == NULL) return failed(argv[2], error.message);
    if (ltn_preview(data, size, &limits, &small, &small_size, &error) != LTN_OK)
        return failed(argv[2], error.message);
    /* The small copy that is in the file, if it is not smaller than what is wanted. */
    if (small == NULL || ((h.width + 7) / 8 < (size_t)most && (h.height + 7) / 8 < (size_t)most))
        small = data, small_size = size;
    if (ltn_decode(model, small, small_size, &limits, &image, &error) != LTN_OK ||
        ltn_image_header(image, &h) != LTN_OK)
        return failed(argv[2], error.message);

    width = h.width, height = h.height;
    if (width > (size_t)most || height > (size_t)most) {
        const size_t longest = width > height ? width : height;
        width = (width * (size_t)most + longest / 2) / longest;
        height = (height * (size_t)most + longest / 2) / longest;
        width = width > 0 ? width : 1;
        height = height > 0 ? height : 1;
    }
    rgba = malloc(4 * width * height);
    if (rgba == NULL) return failed(argv[2], "not enough memory");
    shrink(&h, ltn_image_pixels(image), ltn_image_alpha(image), rgba, width, height);
    out = fopen(argv[3], "wb");
    if (out == NULL) return failed(argv[3], "cannot be written");
    good = write_png(out, rgba, width, height);
    if (fclose(out) != 0 || !good) {
        remove(argv[3]);
        return failed(argv[3], "cannot be written");
    }
    free(rgba);
    free(data);
    ltn_image_free(image);
    ltn_model_free(model);
    return 0;
}
