/* kv/kv_file.h - a sequence outside of a company: the canonical form of its KV, in a file. Pure: bytes in memory only.
 * The canonical form is the tiles of kernels/kv_page.h as they are, whatever the page size was, in the order
 * [group][layer][kv head][tile], each followed by its CRC-32C: any topology can write and read it.
 *   header     TR_KV_FILE_HEADER bytes, fixed
 *   tokens     u32 [n_tokens], padded to 8 bytes
 *   tiles      bytes of a tile (a multiple of 64), u32 CRC-32C of it, u32 0
 *   end        u32 CRC-32C of everything before, u32 TR_KV_FILE_END
 * Tiles of a group cover positions [tok_min rounded down to a tile, n_kv); tokens of a tile outside of [tok_min, n_kv)
 * are zero. Formats that read a calibration are not kept: their tiles say nothing without it. Numbers are
 * little-endian. The header says by which arithmetic the cells were made; where a company differs, its continuation is
 * not the one that an uninterrupted run would have given. Bounds: every number of a header is checked against the
 * limits here and the size of the file before it is used. */
#ifndef TR_KV_FILE_H
#define TR_KV_FILE_H
#include "base/status.h"
#include "kv/kv_layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TR_KV_FILE_VERSION = 1,
    TR_KV_FILE_HEADER = 320,
    TR_KV_FILE_END = 0x444e4554, /* "TEND" */
    TR_KV_FILE_TOKENS_MAX = 131072,
    TR_KV_FILE_TILE_MAX = 65536 + 256 /* bytes of the largest tile: 1024 dimensions in bf16 */
};

/* Two companies with equal ones give the same bits. */
typedef struct tr_kv_file_identity {
    uint64_t model_hash;                 /* content of the model file: weights and tokenizer */
    uint32_t image_version, ops_version; /* of the packed weights; of the definitions of kernels/ops.h */
    uint32_t precision[2], format[2];    /* prefill, decode: tr_precision, tr_kv_format of the pool */
} tr_kv_file_identity;

typedef struct tr_kv_file {
    tr_kv_file_identity identity;
    uint32_t format; /* of the tiles */
    uint32_t n_layers, n_kv_heads, head_dim, n_groups;
    uint32_t window[TR_KV_GROUPS_MAX], tok_min[TR_KV_GROUPS_MAX];
    uint8_t layer_group[TR_KV_LAYERS_MAX];
    uint32_t n_tokens;  /* ids: prompt and generated */
    uint32_t n_prefill; /* positions that the prefill path computed; the decode path computed [n_prefill, n_kv) */
    uint32_t n_kv;      /* positions with KV; sampling goes on at position n_tokens */
    float temperature, top_p;
    uint32_t top_k;
    uint64_t seed;
} tr_kv_file;

/* Shape of a layout; the rest is the caller's. */
void tr_kv_file_shape(tr_kv_file *f, const tr_kv_layout *l);
/* NULL, or what differs between the file's model shape and the layout. */
const char *tr_kv_file_differs(const tr_kv_file *f, const tr_kv_layout *l);
/* Bytes of the whole file, and of what lies before the first tile. 0: a number is out of bounds. */
uint64_t tr_kv_file_bytes(const tr_kv_file *f);
uint64_t tr_kv_file_head_bytes(const tr_kv_file *f);
/* Header into out[TR_KV_FILE_HEADER]. */
void tr_kv_file_encode(const tr_kv_file *f, uint8_t *out);
/* Header of a file of file_bytes. TR_DATA: one line says what is wrong. */
tr_status tr_kv_file_decode(const uint8_t header[TR_KV_FILE_HEADER], uint64_t file_bytes, tr_kv_file *f_out,
                            tr_error *err);

/* Tiles in the order of the file. */
typedef struct tr_kv_file_tile {
    uint32_t group, layer, kv_head;
    uint32_t pos, t0, n; /* position of token 0 of the tile; tokens [t0, t0 + n) are there */
} tr_kv_file_tile;
typedef struct tr_kv_file_walk {
    const tr_kv_file *f;
    uint32_t group, layer, kv_head, pos;
} tr_kv_file_walk;
void tr_kv_file_walk_init(tr_kv_file_walk *w, const tr_kv_file *f);
bool tr_kv_file_walk_next(tr_kv_file_walk *w, tr_kv_file_tile *tile_out);

/* A whole file in memory: header, sizes, every CRC. */
tr_status tr_kv_file_check(const uint8_t *data, size_t bytes, tr_kv_file *f_out, tr_error *err);
#endif
