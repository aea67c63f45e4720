/* tests/kernels/checkk.h - every operation x every variant this CPU runs, compared with the scalar reference bit by
 * bit. A case takes buffers from the context, runs reference and variant on equal inputs, compares, and ends with
 * checkk_end_case, which checks the canaries before each buffer; a guard page follows each buffer. Threads: one. */
#ifndef TR_CHECKK_H
#define TR_CHECKK_H
#include "base/rng.h"
#include "kernels/ops.h"

enum { CHECKK_BUFFERS_MAX = 32 };

typedef struct checkk_buffer_info {
    uint8_t *map;
    size_t map_bytes;
    uint8_t *data;
} checkk_buffer_info;

typedef struct checkk {
    tr_rng rng;
    uint64_t seed;
    const tr_ops *ref, *ops; /* ops: the variant under test (the reference itself too, for the sanity tests) */
    const char *op;
    char param[256];
    unsigned cases, failures;
    unsigned effort; /* cases of each kind */
    checkk_buffer_info buffers[CHECKK_BUFFERS_MAX];
    size_t n_buffers;
} checkk;

typedef enum checkk_kind {
    CHECKK_PLAIN,   /* [-1, 1) */
    CHECKK_WIDE,    /* exponents -30 .. 30 */
    CHECKK_TINY,    /* denormals, zeros of both signs, smallest normals */
    CHECKK_HOSTILE, /* plain numbers with +-0, denormals, +-max, infinities and NaN among them */
    CHECKK_EDGE,    /* products of two lie around the smallest normal number */
    CHECKK_ZERO,
    CHECKK_KINDS
} checkk_kind;

/* Name the case; printed with the seed when it fails. */
void checkk_begin(checkk *c, const char *op, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* 64-byte aligned memory, filled with a pattern that is a NaN as a float. Lives until checkk_end_case. */
void *checkk_buffer(checkk *c, size_t bytes);
void checkk_end_case(checkk *c);
void checkk_fail(checkk *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

uint32_t checkk_below(checkk *c, uint32_t n);
uint32_t checkk_between(checkk *c, uint32_t lo, uint32_t hi); /* both ends included */
float checkk_float(checkk *c, checkk_kind kind);
void checkk_fill(checkk *c, float *x, size_t n, checkk_kind kind);
void checkk_fill_bf16(checkk *c, uint16_t *x, size_t n, checkk_kind kind);
float *checkk_floats(checkk *c, size_t n, checkk_kind kind);

/* A calibration of one head: steps up to 1/64, some of them 0. */
tr_kv_head *checkk_kv_head(checkk *c, uint32_t d);

/* Bits must agree; any NaN equals any NaN. The first mismatch is printed. */
void checkk_same_floats(checkk *c, const char *what, const float *got, const float *want, size_t n);
void checkk_same_bytes(checkk *c, const char *what, const void *got, const void *want, size_t n);
/* |got - want| <= tolerance, for comparisons with double precision. */
void checkk_near(checkk *c, const char *what, double got, double want, double tolerance);

/* int8 matmul of checkk_evex.c. */
void checkk_evex_gemm_i8(const tr_gemm_i8_args *a);

void checkk_elementwise(checkk *c);
void checkk_gemm(checkk *c);
void checkk_planes(checkk *c);
void checkk_groups(checkk *c);
void checkk_kv(checkk *c);
void checkk_attn(checkk *c);
#endif
