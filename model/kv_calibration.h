/* model/kv_calibration.h - what the calibrated KV formats know of a model: for each layer and kv head how large each
 * channel of K (rotated as it is stored) and V grows on a text.
 * Why a file: the numbers of a company follow from it, so it is made once (`troupe calibrate`), lies beside the packed
 * images in the cache or where the topology says, and its checksum is part of the numeric identity.
 * File: header, then f32 [n_layers][n_kv_heads][K, V][head_dim largest magnitudes, mean of the tokens' largest].
 * CRC-32C over all of it but itself. Errors: TR_NO_INPUT (no such file), TR_DATA (damaged, or of another model),
 * TR_CANNOT_CREATE. Threads: any, read-only after open. Owns its memory; heads are valid until destroy. */
#ifndef TR_KV_CALIBRATION_H
#define TR_KV_CALIBRATION_H
#include "base/status.h"
#include "kernels/kv_page.h"

#include <stdint.h>

typedef struct tr_kv_calibration tr_kv_calibration;

/* What a calibration is of. */
typedef struct tr_kv_calibration_model {
    uint64_t hash;
    uint32_t n_layers, n_kv_heads, head_dim;
} tr_kv_calibration_model;

/* All zero, to be filled by add. */
tr_status tr_kv_calibration_create(const tr_kv_calibration_model *model, tr_kv_calibration **out, tr_error *err);
void tr_kv_calibration_destroy(tr_kv_calibration **c); /* idempotent */
/* One token's K (rotated) and V of a layer and kv head. */
void tr_kv_calibration_add(tr_kv_calibration *c, uint32_t layer, uint32_t head, const float *k, const float *v);
/* Complete and on disk under its name, or not at all. */
tr_status tr_kv_calibration_write(tr_kv_calibration *c, const char *path, tr_error *err);
/* A file of this model (shape and hash). */
tr_status tr_kv_calibration_open(const char *path, const tr_kv_calibration_model *model, tr_kv_calibration **out,
                                 tr_error *err);
/* [n_layers * n_kv_heads], index layer * n_kv_heads + head. Of what was written or opened. */
const tr_kv_head *tr_kv_calibration_heads(const tr_kv_calibration *c);
uint32_t tr_kv_calibration_crc(const tr_kv_calibration *c);
#endif
