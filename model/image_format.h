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
    uint32_t n_parts;           /* of TR_IMAGE_GROUPS, one after another from data; else 0 */
    uint32_t format[TR_IMAGE_PARTS_MAX], part_n[TR_IMAGE_PARTS_MAX];
    uint32_t unused; /* keeps the entry a multiple of 8 bytes */
} tr_image_format_entry;

static inline bool tr_image_format_int8(uint32_t kind) {
    return kind == TR_IMAGE_INT8_PACK || kind == TR_IMAGE_INT8_PLANES;
}
/* Bytes of each part of a tensor; n counts padded rows. */
static inline uint64_t tr_image_format_padded(uint32_t n) { return ((uint64_t)n + 15) / 16 * 16; }
static inline uint64_t tr_image_format_part_bytes(const tr_image_format_entry *e, uint32_t part) {
    return tr_image_format_padded(e->part_n[part]) / 16 *
           tr_groups_block_bytes((tr_groups_format)e->format[part], e->k);
}
static inline uint64_t tr_image_format_data_bytes(const tr_image_format_entry *e) {
    const uint64_t n = e->n, k = e->k;
    uint64_t bytes = 0;
    switch ((tr_image_kind)e->kind) {
    case TR_IMAGE_F32: return k * 4;
    case TR_IMAGE_BF16_PACK: return tr_image_format_padded(e->n) * k * 2;
    case TR_IMAGE_INT8_PACK: return tr_image_format_padded(e->n) * k;
    case TR_IMAGE_BF16_ROWS: return n * k * 2;
    case TR_IMAGE_INT8_PLANES: return tr_image_format_padded(e->n) / 16 * tr_planes_lines(e->k) * TR_PLANES_LINE;
    case TR_IMAGE_GROUPS:
        for (uint32_t i = 0; i < e->n_parts; i++) bytes += tr_image_format_part_bytes(e, i);
        return bytes;
    }
    return 0;
}
#endif
