/* The .ltn picture format from C: what a file says, its pixels, and files of pixels.
 *
 * Nothing is kept between calls but in handles that the caller owns. A model may be used by several threads
 * at once; so may all functions. Every function that can fail returns an `ltn_code`, and describes the
 * failure in `error`, which may be NULL. No C++ exception leaves a function. Files and weights may be
 * hostile: what they ask for is checked against `ltn_limits` before memory is taken.
 *
 * Structures that callers fill in begin with their own size, and are zeroed beyond it: programs built with an
 * older header go on working. 0 is the default of every field of them.
 */
#ifndef LTN_H
#define LTN_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define LTN_API __attribute__((visibility("default")))
#else
#define LTN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when functions or fields are added; files and existing functions stay as they are. */
#define LTN_API_VERSION 2

typedef enum ltn_code {
    LTN_OK = 0,
    LTN_ERROR_ARGUMENT = 1,       /* a call that makes no sense */
    LTN_ERROR_NOT_LTN = 2,        /* the bytes do not begin like a .ltn file */
    LTN_ERROR_TRUNCATED = 3,      /* the file ends too early */
    LTN_ERROR_VERSION = 4,        /* newer than this library, or a video */
    LTN_ERROR_CHECKSUM = 5,       /* damaged */
    LTN_ERROR_LIMIT = 6,          /* above the limits */
    LTN_ERROR_FORMAT = 7,         /* damaged in another way */
    LTN_ERROR_CODER = 8,          /* the stream of a tile is damaged */
    LTN_ERROR_MODEL = 9,          /* a weights file is damaged, or not of a model that this library knows */
    LTN_ERROR_WRONG_WEIGHTS = 10, /* the file was made with another model */
    LTN_ERROR_MEMORY = 11         /* there is not enough */
} ltn_code;

/* English, printable ASCII, ends with 0. */
typedef struct ltn_error {
    ltn_code code;
    char message[252];
} ltn_error;

typedef struct ltn_limits {
    size_t struct_size;
    uint64_t max_pixels; /* width times height; 2^28 by default */
    uint64_t max_memory; /* bytes that decoding may take, about; 2^32 - 1 by default */
} ltn_limits;

/* What a file says about itself. `struct_size` is set by the caller. */
typedef struct ltn_header {
    size_t struct_size;
    uint32_t width, height;
    uint32_t channels;  /* 1 (grey) or 3 (red, green, blue) */
    uint32_t bit_depth; /* 8 to 16 bits that the picture had; samples above 8 are on the scale 0 to 65535 */
    uint32_t lossless;  /* 1: no model is needed */
    uint32_t near;      /* of a lossless file: largest error of a sample */
    uint32_t alpha;     /* 1: it has an alpha plane */
    uint32_t quality;   /* level of the model, 0 to 65535 */
    uint32_t tile_size, tiles;
    uint8_t colour[4];   /* code points of ITU-T H.273: primaries, transfer, matrix, full range */
    uint32_t density[4]; /* samples per unit across and down, numerators and denominators; all 0: not said */
    uint32_t density_unit;               /* 0 none, 1 inch, 2 centimetre, 3 metre */
    char model[68];                      /* name of the model, "lossless" if there is none */
    char entropy_id[12], weights_id[12]; /* first 8 hexadecimal digits of each */
} ltn_header;

typedef struct ltn_model ltn_model; /* weights, ready to run */
typedef struct ltn_image ltn_image; /* a decoded picture */

/* 64 threads at most, for the whole process; 0: as many as there are processors. */
LTN_API void ltn_set_threads(unsigned count);

/* Reads the structure of a whole file and checks it, all but what streams of tiles hold. */
LTN_API ltn_code ltn_info(const void* data, size_t size, const ltn_limits* limits, ltn_header* header,
                          ltn_error* error);

/* The small copy that a file carries, if it does, else NULL: a file, too, within `data`, with an eighth of
 * the sides and of the same model. Since version 2. */
LTN_API ltn_code ltn_preview(const void* data, size_t size, const ltn_limits* limits, const void** preview,
                             size_t* preview_size, ltn_error* error);

/* Makes a model of a weights file: safetensors as `latens` ships them, or packed. `data` are not needed
 * after. */
LTN_API ltn_code ltn_model_load(const void* data, size_t size, ltn_model** model, ltn_error* error);
LTN_API void ltn_model_free(ltn_model* model);
LTN_API const char* ltn_model_name(const ltn_model* model);
/* 64 hexadecimal digits; files carry the first 8. */
LTN_API const char* ltn_model_weights_id(const ltn_model* model);
LTN_API const char* ltn_model_entropy_id(const ltn_model* model);

/* Decodes a file. `model` may be NULL for lossless files; it must be the one that the header names. */
LTN_API ltn_code ltn_decode(const ltn_model* model, const void* data, size_t size, const ltn_limits* limits,
                            ltn_image** image, ltn_error* error);
LTN_API void ltn_image_free(ltn_image* image);
/* The header of the file that it came from. */
LTN_API ltn_code ltn_image_header(const ltn_image* image, ltn_header* header);
/* height x width x channels samples, uint8_t, or uint16_t where bit_depth is above 8. */
LTN_API const void* ltn_image_pixels(const ltn_image* image);
/* height x width samples of the same type, straight; NULL if there is none. */
LTN_API const void* ltn_image_alpha(const ltn_image* image);

typedef enum ltn_metadata { LTN_ICC = 0, LTN_EXIF = 1, LTN_XMP = 2 } ltn_metadata;
/* NULL if there is none. */
LTN_API const uint8_t* ltn_image_metadata(const ltn_image* image, ltn_metadata kind, size_t* size);

/* A picture to encode. `struct_size` is set by the caller. */
typedef struct ltn_source {
    size_t struct_size;
    uint32_t width, height;
    uint32_t channels;  /* 1 or 3 */
    uint32_t bit_depth; /* 8 (or 0): uint8_t; 9 to 16: uint16_t on the scale 0 to 65535 */
    const void* pixels; /* rows from top to bottom, samples of a pixel side by side */
    size_t pitch;       /* bytes from row to row; 0: no gaps */
    const void* alpha;  /* of the same type, straight, or NULL */
    size_t alpha_pitch;
    const void *icc, *exif, *xmp; /* EXIF begins with its byte-order mark */
    size_t icc_size, exif_size, xmp_size;
    uint8_t colour[4];   /* as in a header; all 0: sRGB */
    uint32_t density[4]; /* likewise; all 0: not said */
    uint32_t density_unit;
} ltn_source;

/* Encodes with a model; `quality` is 0 (smallest) to 100 (best). `*file` is freed by `ltn_free`. */
LTN_API ltn_code ltn_encode(const ltn_model* model, const ltn_source* source, double quality, void** file,
                            size_t* size, ltn_error* error);
/* Encodes without loss, or with samples off by `near` (0 to 255) at most; `effort` is 1 or 2. */
LTN_API ltn_code ltn_encode_lossless(const ltn_source* source, uint32_t near, uint32_t effort, void** file,
                                     size_t* size, ltn_error* error);
LTN_API void ltn_free(void* file);

/* Packs a weights file: what decoding needs, or, with `encoding`, what only encoding needs beyond that. A
 * model is made of the first alone, or of both, one behind the other. `*file` is freed by `ltn_free`. */
LTN_API ltn_code ltn_weights_pack(const void* data, size_t data_size, int encoding, void** file, size_t* size,
                                  ltn_error* error);

#ifdef __cplusplus
}
#endif
#endif
