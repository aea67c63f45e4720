/* kernels/planes.h - a wide matrix of int8 weights in two planes of 4 bits, and an upper bound of x W^T from the upper
 * plane alone: half of the bytes tell which few outputs can be the largest, those are then computed from both planes.
 *
 * A weight is w = 16 h - 128 + l, h and l in 0..15. Upper plane: [n/16][line], 64 bytes a line:
 *   k/8 lines       4 bytes a row; byte b of line i: h of input 8 i + b, and of input 8 i + 4 + b in the high half
 *   coords/8 lines  the same of codes c_j, see below
 *   1 line          4 bytes a row: norms q_0, q_1, 0, 0
 * Lower plane, row-major [n][k/2]: byte 4 i + b of a row: l of input 8 i + b, and of input 8 i + 4 + b in the high
 * half.
 *
 * The bound. Let a = x - 128 (signed activations), e = 2 l - 15 (odd, within +-15), A = sum a. Then
 *   2 (a.w) = 2 C + 15 A + a.e,   C = 16 a.h - 128 A,
 * and only a.e needs the lower plane. a has most of its length in a few directions that are known beforehand: some
 * coordinates of the inputs before their rotation. With s_j the +-1 vector (rows of Sylvester's matrix, length `block`
 * inside one block, else 0) of such a coordinate, A_j = s_j.a and E_j = s_j.e,
 *   a.e = sum_j A_j E_j / block + (rests of a and e, orthogonal to all s_j)
 *      <= sum_j A_j E'_j / block + |par a| |par(e) - E'| + |perp a| |perp e|             (Cauchy-Schwarz, twice)
 * with E'_j = T (2 c_j - 15) what the code c_j says of E_j, and the two norms of e rounded up to multiples q of
 * sqrt(k) / 16: the largest possible, 15 sqrt(k), fits. A_j is rounded to 2^s alpha_j; what that leaves out is at most
 * 15 T |A_j - 2^s alpha_j| a coordinate. All of it is integers, rounded up (kernels/ref/ref_planes.c: the formula).
 * From the bound of the sum to that of the output only monotone operations follow (conversion and two products with
 * scales >= 0), the same that give the output: no margin is needed for their rounding.
 * Threads: pure. */
#ifndef TR_PLANES_H
#define TR_PLANES_H
#include "base/device.h"

#include <stddef.h>
#include <stdint.h>

enum { TR_PLANES_K_MAX = 8192, TR_PLANES_COORDS_MAX = 128, TR_PLANES_LINE = 64 };

/* A matrix [n, k] (borrowed memory); n is padded to 16 with zero rows. */
typedef struct tr_planes {
    const uint8_t *upper, *lower;
    const float *scale;    /* [n], >= 0 */
    const uint16_t *coord; /* [tr_planes_coords(k)] different coordinates below k */
    uint32_t k;            /* multiple of 32, at most TR_PLANES_K_MAX */
    uint32_t block;        /* of the rotation: power of two, 32 .. 128, divides k */
} tr_planes;

/* One row of activations, ready for the bound. */
typedef struct tr_planes_query {
    const int8_t *x;      /* quads of a of even index, of odd index; the same of alpha; 4 norms */
    float scale;          /* of the activations, >= 0 or NaN */
    int32_t center;       /* -128 A */
    int32_t offset;       /* 15 A */
    int32_t coord_mul;    /* T 2^(s+1) */
    int32_t coord_add;    /* -15 T 2^s sum alpha + 15 T sum |A_j - 2^s alpha_j| + block - 1 */
    uint32_t coord_shift; /* log2 block */
    uint32_t norm_shift;
} tr_planes_query;

/* Multiple of 8, about a tenth of k. */
static inline TR_DEVICE uint32_t tr_planes_coords(uint32_t k) {
    uint32_t n = (k / 10 + 7) / 8 * 8;
    return n < TR_PLANES_COORDS_MAX ? n : TR_PLANES_COORDS_MAX;
}
/* Lines of a block of 16 rows; bytes of the row that a query points to. */
static inline TR_DEVICE size_t tr_planes_lines(uint32_t k) { return k / 8 + tr_planes_coords(k) / 8 + 1; }
static inline TR_DEVICE size_t tr_planes_query_bytes(uint32_t k) {
    return ((size_t)k + tr_planes_coords(k) + 4 + 63) / 64 * 64;
}

/* Planes of block `index` of 16 rows from its packed int8 form [k/4][16][4]; writes w->upper and w->lower (the memory
 * behind them must be writable). */
void tr_planes_pack_block(const tr_planes *w, size_t index, const int8_t *packed);
/* x: [k] as quant_u8 gives them; memory: tr_planes_query_bytes(k), 64-byte aligned, kept while the query is used.
 * quads: where the row stands among those that planes_bound takes together: tr_planes_lines(k) times 8 bytes, `stride`
 * bytes apart, of what each line meets: the quads for its low and its high halves. */
void tr_planes_query_init(tr_planes_query *q, const tr_planes *w, const uint8_t *x, float x_scale, int8_t *memory,
                          int8_t *quads, size_t stride);
#endif
