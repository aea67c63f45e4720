/* checkk: matmuls of bf16 and int8 weights. */
#include "tests/kernels/checkk.h"

#include "base/numeric.h"

#include <math.h>
#include <string.h>

typedef struct shape {
    size_t rows, k, ldx, ldy, n_blocks, block0, blocks;
} shape;

static shape any_shape(checkk *c) {
    static const uint8_t rows_most[] = {20, 20, 20, 40, 40, 100};
    shape s = {.rows = checkk_between(c, 1, rows_most[checkk_below(c, 6)]),
               .k = 32 * checkk_between(c, 1, 10),
               .n_blocks = checkk_between(c, 1, 13)};
    s.ldx = s.k + 16 * checkk_below(c, 3); /* bytes or floats */
    s.ldx = (s.ldx + 15) & ~(size_t)15;
    s.ldy = 16 * (s.n_blocks + checkk_below(c, 3));
    s.block0 = checkk_below(c, (uint32_t)s.n_blocks);
    s.blocks = checkk_between(c, 1, (uint32_t)(s.n_blocks - s.block0));
    return s;
}

/* What a row looks like is a table's own: each table's matmul reads what its bf16_row wrote. */
static void *bf16_rows(checkk *c, const tr_ops *ops, const float *x, const shape *s) {
    uint8_t *rows = checkk_buffer(c, s->rows * s->ldx);
    for (size_t m = 0; m < s->rows; m++) ops->bf16_row(rows + m * s->ldx, x + m * s->k, s->k);
    return rows;
}
static double round_bf16(float x) { return (double)tr_bf16_to_f32(tr_f32_to_bf16(x)); }

static void gemm_bf16(checkk *c) {
    shape s = any_shape(c);
    s.ldx = (s.k + 16 * checkk_below(c, 3)) * sizeof(float);
    checkk_kind kind = (checkk_kind)checkk_below(c, CHECKK_KINDS);
    checkk_begin(c, "gemm_bf16", "rows=%zu k=%zu ldx=%zu ldy=%zu block0=%zu blocks=%zu/%zu kind=%d", s.rows, s.k, s.ldx,
                 s.ldy, s.block0, s.blocks, s.n_blocks, (int)kind);
    float *x = checkk_floats(c, s.rows * s.k, kind);
    if (checkk_below(c, 4) == 0) /* half way between two bf16 numbers */
        for (size_t i = 0; i < s.rows * s.k; i++)
            x[i] = tr_f32_from_bits((tr_f32_to_bits(x[i]) & 0xffff0000u) | 0x8000u);
    uint16_t *w = checkk_buffer(c, s.n_blocks * 16 * s.k * 2);
    checkk_fill_bf16(c, w, s.n_blocks * 16 * s.k, kind);
    size_t y_n = s.rows * s.ldy;
    float *want = checkk_buffer(c, y_n * 4), *got = checkk_buffer(c, y_n * 4), *again = checkk_buffer(c, y_n * 4);
    tr_gemm_bf16_args a = {.x = bf16_rows(c, c->ref, x, &s),
                           .w = w,
                           .y = want,
                           .rows = s.rows,
                           .k = s.k,
                           .ldx = s.ldx,
                           .ldy = s.ldy,
                           .block0 = s.block0,
                           .blocks = s.blocks};
    a.panel = checkk_buffer(c, tr_ops_panel_floats(s.k) * 4);
    c->ref->gemm_bf16(&a);
    uint8_t *rows = bf16_rows(c, c->ops, x, &s);
    a.x = rows;
    a.y = got;
    c->ops->gemm_bf16(&a);
    checkk_same_floats(c, "y", got, want, y_n);
    for (size_t m = 0; m < s.rows; m++) /* rows one by one, blocks in two parts: the same bits */
        for (size_t part = 0; part < 2; part++) {
            size_t first = s.blocks / 3;
            tr_gemm_bf16_args one = a;
            one.x = rows + m * s.ldx;
            one.y = again + m * s.ldy;
            one.rows = 1;
            one.block0 = part ? s.block0 + first : s.block0;
            one.blocks = part ? s.blocks - first : first;
            c->ops->gemm_bf16(&one);
        }
    checkk_same_floats(c, "y by rows", again, want, y_n);
    if (kind == CHECKK_PLAIN)
        for (size_t i = 0; i < 16 * s.blocks; i++) {
            size_t n = 16 * s.block0 + i, m = checkk_below(c, (uint32_t)s.rows);
            double sum = 0, mass = 0;
            for (size_t k = 0; k < s.k; k++) {
                uint16_t weight = w[n / 16 * 16 * s.k + (k / 2 * 16 + n % 16) * 2 + k % 2];
                double p = round_bf16(x[m * s.k + k]) * (double)tr_bf16_to_f32(weight);
                sum += p;
                mass += fabs(p);
            }
            checkk_near(c, "y against double", (double)got[m * s.ldy + n], sum, mass * (double)s.k * 0x1p-25 + 1e-7);
        }
    checkk_end_case(c);
}

/* Weights of all sizes, or the extremes only, so that a saturating step would show. */
static void fill_bytes(checkk *c, uint8_t *x, size_t n, bool extreme, uint8_t lo, uint8_t hi) {
    for (size_t i = 0; i < n; i++) x[i] = extreme ? (checkk_below(c, 8) ? hi : lo) : (uint8_t)checkk_below(c, 256);
}

/* planes: 1 of 8 bits, 2 of a number of 16 bits. */
static void gemm_i8(checkk *c, const size_t planes) {
    shape s = any_shape(c);
    s.ldx = (s.ldx + 63) & ~(size_t)63;
    bool extreme = checkk_below(c, 2) != 0;
    checkk_begin(c, planes == 2 ? "gemm_i8a16" : "gemm_i8",
                 "rows=%zu k=%zu ldx=%zu ldy=%zu block0=%zu blocks=%zu/%zu extreme=%d", s.rows, s.k, s.ldx, s.ldy,
                 s.block0, s.blocks, s.n_blocks, extreme);
    void (*want_op)(const tr_gemm_i8_args *) = planes == 2 ? c->ref->gemm_i8a16 : c->ref->gemm_i8;
    void (*got_op)(const tr_gemm_i8_args *) = planes == 2 ? c->ops->gemm_i8a16 : c->ops->gemm_i8;
    uint8_t *x = checkk_buffer(c, planes * s.rows * s.ldx);
    int8_t *w = checkk_buffer(c, s.n_blocks * 16 * s.k);
    int32_t *comp = checkk_buffer(c, s.n_blocks * 16 * 4);
    fill_bytes(c, x, planes * s.rows * s.ldx, extreme, 1, 255);
    fill_bytes(c, (uint8_t *)w, s.n_blocks * 16 * s.k, extreme, 0x81, 0x7f);
    for (size_t n = 0; n < s.n_blocks * 16; n++) {
        int32_t sum = 0;
        for (size_t k = 0; k < s.k; k++) sum += w[n / 16 * 16 * s.k + (k / 4 * 16 + n % 16) * 4 + k % 4];
        comp[n] = -128 * sum;
    }
    float *x_scale = checkk_floats(c, s.rows, CHECKK_WIDE), *w_scale = checkk_floats(c, s.n_blocks * 16, CHECKK_WIDE);
    size_t y_n = s.rows * s.ldy;
    float *want = checkk_buffer(c, y_n * 4), *got = checkk_buffer(c, y_n * 4), *again = checkk_buffer(c, y_n * 4);
    tr_gemm_i8_args a = {.x = x,
                         .x_scale = x_scale,
                         .w = w,
                         .comp = comp,
                         .w_scale = w_scale,
                         .y = want,
                         .rows = s.rows,
                         .k = s.k,
                         .ldx = s.ldx,
                         .ldy = s.ldy,
                         .block0 = s.block0,
                         .blocks = s.blocks};
    want_op(&a);
    a.y = got;
    got_op(&a);
    checkk_same_floats(c, "y", got, want, y_n);
    for (size_t b = 0; b < s.blocks; b++) { /* block by block, rows in two parts: the same bits */
        size_t first = checkk_below(c, (uint32_t)s.rows);
        for (size_t part = 0; part < 2; part++) {
            tr_gemm_i8_args one = a;
            size_t m = part ? first : 0;
            one.x = x + planes * m * s.ldx;
            one.x_scale = x_scale + m;
            one.y = again + m * s.ldy;
            one.rows = part ? s.rows - first : first;
            one.block0 = s.block0 + b;
            one.blocks = 1;
            got_op(&one);
        }
    }
    checkk_same_floats(c, "y by parts", again, want, y_n);
    for (size_t i = 0; i < 16 * s.blocks; i++) {
        size_t n = 16 * s.block0 + i, m = checkk_below(c, (uint32_t)s.rows);
        int64_t sum = 0;
        for (size_t k = 0; k < s.k; k++) {
            int64_t v = (int64_t)x[planes * m * s.ldx + k] - 128;
            if (planes == 2) v = 256 * v + x[(2 * m + 1) * s.ldx + k];
            sum += v * w[n / 16 * 16 * s.k + (k / 4 * 16 + n % 16) * 4 + k % 4];
        }
        double exact = (double)sum * (double)w_scale[n] * (double)x_scale[m];
        checkk_near(c, "y against integers", (double)got[m * s.ldy + n], exact,
                    fabs(exact) * 4e-7 +
                        (planes == 2 ? (double)s.k * 0.1 * (double)fabsf(w_scale[n] * x_scale[m]) : 0) + 1e-36);
    }
    checkk_end_case(c);
}

void checkk_gemm(checkk *c) {
    for (unsigned i = 0; i < c->effort; i++) {
        gemm_bf16(c);
        gemm_i8(c, 1);
        gemm_i8(c, 2);
    }
}
