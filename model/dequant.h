/* model/dequant.h - the tensor types that model files hold, and their exact fp32 values.
 * Why: every precision that runs is derived from these numbers, so they equal the `gguf` Python package's
 *      dequantize() bit for bit (same order of operations, every step rounded to fp32).
 * Threads: pure functions over caller memory; source bytes need no alignment.
 * Source: GGUF specification, block layouts of the ggml quantization types. Files are little-endian. */
#ifndef TR_DEQUANT_H
#define TR_DEQUANT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(name, id in GGUF files, elements a block, bytes a block) */
#define TR_DEQUANT_MAP(X)                                                                                              \
    X(F32, 0, 1, 4)                                                                                                    \
    X(F16, 1, 1, 2)                                                                                                    \
    X(Q4_0, 2, 32, 18)                                                                                                 \
    X(Q4_1, 3, 32, 20)                                                                                                 \
    X(Q5_0, 6, 32, 22)                                                                                                 \
    X(Q5_1, 7, 32, 24)                                                                                                 \
    X(Q8_0, 8, 32, 34)                                                                                                 \
    X(Q4_K, 12, 256, 144)                                                                                              \
    X(Q5_K, 13, 256, 176)                                                                                              \
    X(Q6_K, 14, 256, 210)                                                                                              \
    X(BF16, 30, 1, 2)

typedef enum tr_dequant_type {
#define X(name, id, elems, bytes) TR_DEQUANT_##name,
    TR_DEQUANT_MAP(X)
#undef X
        TR_DEQUANT_TYPE_COUNT
} tr_dequant_type;

typedef struct tr_dequant_info {
    const char *name;     /* "Q4_K" */
    uint32_t gguf_id;     /* number in a GGUF tensor info */
    uint32_t block_elems; /* elements of one block; a row is whole blocks */
    uint32_t block_bytes;
} tr_dequant_info;

/* Facts of a type; type must be below TR_DEQUANT_TYPE_COUNT. Static storage. */
const tr_dequant_info *tr_dequant_describe(tr_dequant_type type);

/* Type of a GGUF type number; false when troupe does not read it. */
bool tr_dequant_from_gguf(uint32_t gguf_id, tr_dequant_type *type_out);

/* Name of any GGUF type number, also of those troupe does not read; NULL when the number is unknown. */
const char *tr_dequant_gguf_name(uint32_t gguf_id);

/* Bytes of a row of cols elements; false when cols is not whole blocks or the product overflows. */
bool tr_dequant_row_bytes(tr_dequant_type type, uint64_t cols, uint64_t *bytes_out);

/* Write cols floats from src; cols must be whole blocks (programmer's duty, checked). */
void tr_dequant_row(tr_dequant_type type, const void *src, size_t cols, float *out);
#endif
