/* model/image_format.h - bytes of a packed image file; private to pack.c (writes) and image.c (reads, trusts nothing).
 */
#ifndef TR_IMAGE_FORMAT_H
#define TR_IMAGE_FORMAT_H
#include "model/image.h"

#include <stdint.h>

enum { TR_IMAGE_FORMAT_ALIGN = 4096, TR_IMAGE_FORMAT_TENSORS_MAX = 4 + TR_MODEL_MAX_LAYERS * TR_IMAGE_ROLE_COUNT };
#define TR_IMAGE_FORMAT_MAGIC 0x31474d4955505254ull /* "TRPUIMG1" */

typedef struct tr_image_format_header {
    uint64_t magic;
    uint32_t version, precision;
    uint64_t model_hash;
    uint64_t file_bytes;   /* of the whole file: a cut one is told at once */
    uint64_t config_bytes; /* sizeof(tr_model_config) of the writer */
    uint64_t n_tensors;
    uint64_t index_offset; /* tr_image_format_entry [n_tensors] */
    uint64_t complete;     /* TR_IMAGE_FORMAT_MAGIC, written last */
    tr_model_config config;
} tr_image_format_header;

typedef struct tr_image_format_entry {
    uint32_t role, layer, kind, n, k, rotation;
    uint64_t data, comp, scale; /* offsets; comp and scale 0 where there are none */
    uint64_t lower, coord;      /* INT8_PLANES only */
} tr_image_format_entry;

static inline bool tr_image_format_int8(uint32_t kind) {
    return kind == TR_IMAGE_INT8_PACK || kind == TR_IMAGE_INT8_PLANES;
}
/* Bytes of each part of a tensor; n counts padded rows. */
static inline uint64_t tr_image_format_padded(uint32_t n) { return ((uint64_t)n + 15) / 16 * 16; }
static inline uint64_t tr_image_format_data_bytes(tr_image_kind kind, uint32_t n, uint32_t k) {
    switch (kind) {
    case TR_IMAGE_F32: return (uint64_t)k * 4;
    case TR_IMAGE_BF16_PACK: return tr_image_format_padded(n) * k * 2;
    case TR_IMAGE_INT8_PACK: return tr_image_format_padded(n) * k;
    case TR_IMAGE_BF16_ROWS: return (uint64_t)n * k * 2;
    case TR_IMAGE_INT8_PLANES: return tr_image_format_padded(n) / 16 * tr_planes_lines(k) * TR_PLANES_LINE;
    }
    return 0;
}
#endif
