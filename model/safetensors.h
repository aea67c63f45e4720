/* model/safetensors.h - reader of one .safetensors file.
 * Why: the file is hostile input. Everything is checked once, in open; afterwards every accessor is total.
 * Owns: the mapping and one table entry a tensor. Tensor data are views into the file, valid until close.
 * Threads: immutable after open; any thread may read.
 * Errors: TR_DATA, text "FILE: offset N: reason" (N: where the bad thing starts; for one tensor's entry the start of
 *         the JSON header, since the parser does not keep positions, and the tensor's name is in the reason);
 *         TR_NO_INPUT, TR_SYSTEM.
 * Bounds: header up to 100,000,000 bytes, 65,536 tensors, 4 dimensions, types F32, F16, BF16. The tensors cover the
 *         data area exactly: no hole, no overlap, no trailing bytes. Names are unique.
 * Source: safetensors format description (README of the safetensors project). */
#ifndef TR_SAFETENSORS_H
#define TR_SAFETENSORS_H
#include "base/status.h"
#include "model/dequant.h"

#include <stddef.h>
#include <stdint.h>

enum {
    TR_SAFETENSORS_MAX_HEADER = 100000000, /* bytes */
    TR_SAFETENSORS_MAX_TENSORS = 65536,
    TR_SAFETENSORS_MAX_DIMS = 4,
};

typedef struct tr_safetensors_tensor {
    const char *name; /* NUL-terminated, owned by the reader */
    tr_dequant_type type;
    uint32_t n_dims;                        /* 0 for a scalar */
    uint64_t dims[TR_SAFETENSORS_MAX_DIMS]; /* outermost first, the last is contiguous; unused ones are 1 */
    uint64_t bytes;
    const uint8_t *data; /* [bytes] in the file, no alignment promised */
} tr_safetensors_tensor;

typedef struct tr_safetensors tr_safetensors;

tr_status tr_safetensors_open(const char *path, tr_safetensors **st_out, tr_error *err);
/* The same over caller memory that must outlive the reader; name stands for the file in messages. */
tr_status tr_safetensors_open_buffer(const void *data, size_t size, const char *name, tr_safetensors **st_out,
                                     tr_error *err);
void tr_safetensors_close(tr_safetensors **st); /* idempotent, sets NULL */

const char *tr_safetensors_name(const tr_safetensors *st);
uint32_t tr_safetensors_count(const tr_safetensors *st);
const tr_safetensors_tensor *tr_safetensors_at(const tr_safetensors *st, uint32_t i);         /* by name order */
const tr_safetensors_tensor *tr_safetensors_find(const tr_safetensors *st, const char *name); /* NULL when absent */

/* A name that is safe in a one-line message: at most 80 bytes, anything but printable ASCII replaced. */
typedef struct tr_safetensors_shown {
    char text[84];
} tr_safetensors_shown;
tr_safetensors_shown tr_safetensors_show(const char *name);
#endif
