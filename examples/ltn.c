/* Decodes a .ltn file to a PAM file, with libltn alone.
 *
 *   make library
 *   cc examples/ltn.c -Inative/library -Lbuild/library -lltn -o build/ltn-example
 *   LD_LIBRARY_PATH=build/library build/ltn-example picture.ltn picture.pam
 * src/latens/zoo/data/latens-eye-1.safetensors
 *
 * Lossless files need no weights.
 */
#include <ltn.h>
#include <stdio.h>
#include <stdlib.h>

static void* read_file(const char* path, size_t* size) {
    FILE* file = fopen(path, "rb");
    unsigned char* data = NULL;
    size_t held = 0, some = 1;
    *size = 0;
    while (file != NULL && some > 0) {
        if (*size == held) {
            unsigned char* more = realloc(data, held = held > 0 ? 2 * held : 65536);
            if (more == NULL) break;
            data = more;
        }
        some = fread(data + *size, 1, held - *size, file);
        *size += some;
    }
    if (file == NULL || some > 0 || ferror(file)) {
        fprintf(stderr, "%s cannot be read\n", path);
        exit(1);
    }
    fclose(file);
    return data;
}

/* Samples of 16 bits are most significant byte first in PAM files. */
static void put_sample(FILE* file, const void* samples, size_t index, int deep) {
    if (deep) {
        const unsigned sample = ((const uint16_t*)samples)[index];
        putc((int)(sample >> 8), file);
        putc((int)(sample & 255), file);
    } else {
        putc(((const uint8_t*)samples)[index], file);
    }
}

int main(int argc, char** argv) {
    ltn_header header;
    ltn_error error;
    ltn_model* model = NULL;
    ltn_image* image = NULL;
    size_t size, weights_size, i, count;
    void *data, *weights;
    const void *pixels, *alpha;
    FILE* out;
    int deep;
    unsigned c;

    if (argc < 3) {
        fprintf(stderr, "usage: %s FILE.ltn OUTPUT.pam [WEIGHTS]\n", argv[0]);
        return 2;
    }
    header.struct_size = sizeof header;
    data = read_file(argv[1], &size);
    if (ltn_info(data, size, NULL, &header, &error) != LTN_OK) goto failed;
    fprintf(stderr, "%u x %u, %u bits, model %s\n", header.width, header.height, header.bit_depth,
            header.model);
    if (argc > 3) {
        weights = read_file(argv[3], &weights_size);
        if (ltn_model_load(weights, weights_size, &model, &error) != LTN_OK) goto failed;
        free(weights); /* the model keeps what it needs */
    }
    if (ltn_decode(model, data, size, NULL, &image, &error) != LTN_OK) goto failed;

    pixels = ltn_image_pixels(image);
    alpha = ltn_image_alpha(image);
    deep = header.bit_depth > 8;
    count = (size_t)header.width * header.height;
    out = fopen(argv[2], "wb");
    if (out == NULL) {
        fprintf(stderr, "%s cannot be written\n", argv[2]);
        return 1;
    }
    fprintf(out, "P7\nWIDTH %u\nHEIGHT %u\nDEPTH %u\nMAXVAL %d\nTUPLTYPE %s%s\nENDHDR\n", header.width,
            header.height, header.channels + (alpha != NULL), deep ? 65535 : 255,
            header.channels == 1 ? "GRAYSCALE" : "RGB", alpha != NULL ? "_ALPHA" : "");
    for (i = 0; i < count; ++i) {
        for (c = 0; c < header.channels; ++c) put_sample(out, pixels, i * header.channels + c, deep);
        if (alpha != NULL) put_sample(out, alpha, i, deep);
    }
    if (fclose(out) != 0) return 1;
    ltn_image_free(image);
    ltn_model_free(model);
    free(data);
    return 0;

failed:
    fprintf(stderr, "%s (error %d)\n", error.message, (int)error.code);
    ltn_model_free(model);
    return 1;
}
