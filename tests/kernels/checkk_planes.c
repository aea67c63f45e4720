/* checkk: weights in two planes. Against the reference, against the int8 matmul, and the bound against what it bounds.
 */
#include "tests/kernels/checkk.h"

#include <math.h>
#include <string.h>

typedef struct matrix {
    tr_planes w;
    size_t blocks;
    int8_t *packed;
    int32_t *comp;
    float *scale;
} matrix;

static int8_t weight(const matrix *m, size_t row, size_t i) {
    return m->packed[row / 16 * 16 * m->w.k + (i / 4 * 16 + row % 16) * 4 + i % 4];
}

/* Bytes anywhere, the extremes only, nothing, or all of the lower plane at its largest. */
static uint8_t any_byte(checkk *c, unsigned kind, uint8_t zero) {
    static const uint8_t extremes[] = {0x7f, 0x80, 0x81, 0x8f, 0xff, 0x00, 0x70, 0x01};
    return kind == 0   ? (uint8_t)checkk_below(c, 256)
           : kind == 1 ? extremes[checkk_below(c, 8)]
           : kind == 2 ? zero
                       : 0xff;
}

static void any_matrix(checkk *c, matrix *m, unsigned kind) {
    const uint32_t k = m->w.k, coords = tr_planes_coords(k);
    m->packed = checkk_buffer(c, m->blocks * 16 * k);
    m->comp = checkk_buffer(c, m->blocks * 16 * sizeof *m->comp);
    m->scale = checkk_buffer(c, m->blocks * 16 * sizeof *m->scale);
    uint16_t *coord = checkk_buffer(c, (coords + 1) * sizeof *coord);
    for (uint32_t j = 0, at = checkk_below(c, k); j < coords; j++) coord[j] = (uint16_t)((at + 7 * j) % k);
    for (size_t i = 0; i < m->blocks * 16 * k; i++) m->packed[i] = (int8_t)any_byte(c, kind, 0);
    for (size_t n = 0; n < 16 * m->blocks; n++) {
        int32_t sum = 0;
        for (uint32_t i = 0; i < k; i++) sum += weight(m, n, i);
        m->comp[n] = -128 * sum;
        m->scale[n] = fabsf(checkk_float(c, (checkk_kind)checkk_below(c, CHECKK_KINDS)));
    }
    m->w.scale = m->scale, m->w.coord = coord;
    m->w.upper = checkk_buffer(c, m->blocks * tr_planes_lines(k) * TR_PLANES_LINE);
    m->w.lower = checkk_buffer(c, m->blocks * 16 * k / 2);
    for (size_t b = 0; b < m->blocks; b++) tr_planes_pack_block(&m->w, b, m->packed + b * 16 * k);
}

/* Activations at random, or along what one row's lower plane holds: there the bound is nearly reached. */
static void any_row(checkk *c, const matrix *m, uint8_t *x) {
    const unsigned kind = checkk_below(c, 5);
    const size_t row = checkk_below(c, (uint32_t)(16 * m->blocks));
    const int sign = checkk_below(c, 2) ? 1 : -1, size = (int)checkk_between(c, 1, 8);
    for (uint32_t i = 0; i < m->w.k; i++)
        x[i] = kind == 4 ? (uint8_t)(128 + sign * size * (2 * ((uint8_t)weight(m, row, i) & 15) - 15))
                         : any_byte(c, kind, 128);
}

static void planes(checkk *c) {
    enum { ROWS = 40 };
    const uint32_t k = 32 * checkk_between(c, 1, 24), rows = checkk_between(c, 1, ROWS), kind = checkk_below(c, 4);
    matrix m = {.w.k = k, .w.block = (k & (~k + 1u)) < 128 ? k & (~k + 1u) : 128, .blocks = checkk_between(c, 1, 11)};
    const size_t n = 16 * m.blocks, block0 = checkk_below(c, (uint32_t)m.blocks), bytes = tr_planes_query_bytes(k);
    const size_t blocks = checkk_between(c, 1, (uint32_t)(m.blocks - block0)), ld = n + 16 * checkk_below(c, 2);
    checkk_begin(c, "planes", "k=%u rows=%u blocks=%zu+%zu/%zu kind=%u", k, rows, block0, blocks, m.blocks, kind);
    any_matrix(c, &m, kind);
    uint8_t *x = checkk_buffer(c, rows * k);
    float *x_scale = checkk_buffer(c, rows * sizeof *x_scale);
    int8_t *memory = checkk_buffer(c, rows * bytes), *quads = checkk_buffer(c, 8 * rows * tr_planes_lines(k));
    tr_planes_query query[ROWS];
    for (uint32_t r = 0; r < rows; r++) {
        any_row(c, &m, x + r * k);
        x_scale[r] = fabsf(checkk_float(c, (checkk_kind)checkk_below(c, CHECKK_KINDS)));
        tr_planes_query_init(&query[r], &m.w, x + r * k, x_scale[r], memory + r * bytes, quads + 8 * r, 8 * rows);
    }
    float *y = checkk_buffer(c, rows * ld * 4), *want = checkk_buffer(c, rows * ld * 4);
    float *got = checkk_buffer(c, rows * ld * 4), *out = checkk_buffer(c, rows * ld * 4);
    memcpy(out, y, rows * ld * 4); /* what no call writes */
    int32_t *want_coarse = checkk_buffer(c, rows * ld * 4), *coarse = checkk_buffer(c, rows * ld * 4);
    tr_planes_args a = {.w = &m.w,
                        .query = query,
                        .quads = quads,
                        .bound = want,
                        .coarse = want_coarse,
                        .rows = rows,
                        .ld = ld,
                        .block0 = block0,
                        .blocks = blocks};
    c->ref->planes_bound(&a);
    a.bound = got, a.coarse = coarse;
    c->ops->planes_bound(&a);
    checkk_same_floats(c, "bound", got, want, rows * ld);
    checkk_same_bytes(c, "coarse", coarse, want_coarse, rows * ld * 4);
    c->ref->gemm_i8(&(tr_gemm_i8_args){.x = x,
                                       .x_scale = x_scale,
                                       .w = m.packed,
                                       .comp = m.comp,
                                       .w_scale = m.scale,
                                       .y = y,
                                       .rows = rows,
                                       .k = k,
                                       .ldx = k,
                                       .ldy = ld,
                                       .block0 = block0,
                                       .blocks = blocks});
    for (uint32_t r = 0; r < rows; r++)
        for (size_t i = r * ld + 16 * block0; i < r * ld + 16 * (block0 + blocks); i++) {
            const size_t at = i - 16 * block0; /* of bounds */
            out[i] = c->ops->planes_output(&m.w, &query[r], i - r * ld, coarse[at]);
            if (got[at] < y[i]) checkk_fail(c, "bound %g of output %g, row %u", (double)got[at], (double)y[i], r);
        }
    checkk_same_floats(c, "output", out, y, rows * ld);
    int8_t *again = checkk_buffer(c, 16 * k);
    for (size_t b = 0; b < m.blocks; b++) {
        c->ops->planes_unpack(again, &m.w, b);
        checkk_same_bytes(c, "unpacked", again, m.packed + b * 16 * k, 16 * k);
    }
    checkk_end_case(c);
}

void checkk_planes(checkk *c) {
    for (unsigned i = 0; i < c->effort; i++) planes(c);
}
