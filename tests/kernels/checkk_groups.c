/* checkk: the matmul of weights in groups, every format. */
#include "tests/kernels/checkk.h"

#include <math.h>
#include <string.h>

typedef struct shape {
    tr_groups_format format;
    size_t rows, k, ldx, ldy, n_blocks, block0, blocks;
    bool extreme;
} shape;

static shape any_shape(checkk *c, tr_groups_format format) {
    static const uint8_t rows_most[] = {1, 4, 20, 40};
    const bool two_levels = tr_groups_describe(format)->levels == 2;
    shape s = {.format = format,
               .rows = checkk_between(c, 1, rows_most[checkk_below(c, 4)]),
               .k = two_levels ? 256 * checkk_between(c, 1, 3) : 32 * checkk_between(c, 1, 12),
               .n_blocks = checkk_between(c, 1, 9),
               .extreme = checkk_below(c, 2) != 0};
    s.ldx = tr_groups_x_bytes(s.k) + 64 * checkk_below(c, 3);
    s.ldy = 16 * (s.n_blocks + checkk_below(c, 3));
    s.block0 = checkk_below(c, (uint32_t)s.n_blocks);
    s.blocks = checkk_between(c, 1, (uint32_t)(s.n_blocks - s.block0));
    return s;
}

/* fp16 of any size (no infinity, no NaN). */
static uint16_t any_f16(checkk *c) {
    uint32_t magnitude = checkk_below(c, 4) ? checkk_between(c, 0x2000, 0x3c00) : checkk_below(c, 0x7c00);
    return (uint16_t)(magnitude | checkk_below(c, 2) << 15);
}

static void fill_channel(checkk *c, const shape *s, uint8_t *block, size_t channel) {
    const tr_groups_info *f = tr_groups_describe(s->format);
    const bool two = f->levels == 2;
    const uint32_t codes = 1u << f->bits;
    for (size_t at = 0; at < s->k / (two ? 256 : 32); at++)
        for (int level = 0; level < (f->min ? 2 : 1); level++)
            tr_groups_put_f16(s->format, block, channel, at, level, any_f16(c));
    for (size_t g = 0; two && g < s->k / f->group; g++)
        for (int level = 0; level < (f->min ? 2 : 1); level++)
            tr_groups_put_u8(s->format, block, channel, g, level, (uint8_t)checkk_below(c, f->min ? 64 : 256));
    for (size_t u = 0; u < s->k / 32; u++) {
        uint8_t code[32];
        for (size_t i = 0; i < 32; i++)
            code[i] = (uint8_t)(s->extreme ? (checkk_below(c, 8) ? codes - 1 : 0) : checkk_below(c, codes));
        tr_groups_put_codes(s->format, block, s->k, channel, u, code);
    }
}

/* Rows made by the reference, or codes at the ends of their range, so that a saturating step would show. */
static void fill_rows(checkk *c, const shape *s, uint8_t *x) {
    checkk_kind kind = (checkk_kind)checkk_below(c, CHECKK_KINDS);
    float *in = checkk_floats(c, s->k, kind), *tmp = checkk_buffer(c, s->k * 4);
    for (size_t m = 0; m < s->rows; m++) {
        checkk_fill(c, in, s->k, kind);
        for (size_t i = 0; i < s->k && s->extreme; i++) in[i] = checkk_below(c, 8) ? 1.0f : -1.0f;
        c->ref->quant_groups(x + m * s->ldx, in, tmp, s->k, 1);
    }
}

static double exact(const shape *s, const uint8_t *x, const uint8_t *block, size_t channel, double *mass_out) {
    const tr_groups_info *f = tr_groups_describe(s->format);
    double sum = 0;
    *mass_out = 0;
    uint8_t codes[32];
    for (size_t i = 0; i < s->k; i++) {
        if (i % 32 == 0) tr_groups_codes(s->format, block, s->k, channel, i / 32, codes);
        double w = (double)tr_groups_scale(s->format, block, channel, i / f->group) *
                   ((double)codes[i % 32] - (f->shift ? 1 << f->shift : 0));
        double min = (double)tr_groups_min(s->format, block, channel, i / f->group);
        double v = (double)(int8_t)x[i] * (double)tr_groups_x_scale(x, s->k)[i / 32];
        sum += (w + min) * v;
        *mass_out += (fabs(w) + fabs(min)) * fabs(v);
        if (32 * fabs(v) > 3e38) *mass_out = INFINITY; /* the row's own scaled sums may leave the range */
    }
    return sum;
}

static void gemm_groups(checkk *c, tr_groups_format format) {
    shape s = any_shape(c, format);
    checkk_begin(c, "gemm_groups", "%s rows=%zu k=%zu ldx=%zu ldy=%zu block0=%zu blocks=%zu/%zu extreme=%d",
                 tr_groups_describe(format)->name, s.rows, s.k, s.ldx, s.ldy, s.block0, s.blocks, s.n_blocks,
                 s.extreme);
    const size_t block_bytes = tr_groups_block_bytes(format, s.k), y_n = s.rows * s.ldy;
    uint8_t *w = checkk_buffer(c, s.n_blocks * block_bytes), *x = checkk_buffer(c, s.rows * s.ldx);
    memset(w, 0, s.n_blocks * block_bytes);
    for (size_t n = 0; n < s.n_blocks * 16; n++) fill_channel(c, &s, w + n / 16 * block_bytes, n % 16);
    fill_rows(c, &s, x);
    float *want = checkk_buffer(c, y_n * 4), *got = checkk_buffer(c, y_n * 4), *again = checkk_buffer(c, y_n * 4);
    tr_gemm_groups_args a = {.x = x,
                             .w = w,
                             .y = want,
                             .panel = checkk_buffer(c, tr_ops_panel_floats(s.k) * 4),
                             .format = format,
                             .rows = s.rows,
                             .k = s.k,
                             .ldx = s.ldx,
                             .ldy = s.ldy,
                             .block0 = s.block0,
                             .blocks = s.blocks};
    c->ref->gemm_groups(&a);
    a.y = got;
    c->ops->gemm_groups(&a);
    checkk_same_floats(c, "y", got, want, y_n);
    for (size_t m = 0; m < s.rows; m++) /* rows one by one, blocks in two parts: the same bits */
        for (size_t part = 0; part < 2; part++) {
            size_t first = s.blocks / 3;
            tr_gemm_groups_args one = a;
            one.x = x + m * s.ldx;
            one.y = again + m * s.ldy;
            one.rows = 1;
            one.block0 = part ? s.block0 + first : s.block0;
            one.blocks = part ? s.blocks - first : first;
            c->ops->gemm_groups(&one);
        }
    checkk_same_floats(c, "y by rows", again, want, y_n);
    for (size_t i = 0; i < 16 * s.blocks; i++) {
        size_t n = 16 * s.block0 + i, m = checkk_below(c, (uint32_t)s.rows);
        double mass, sum = exact(&s, x + m * s.ldx, w + n / 16 * block_bytes, n % 16, &mass);
        if (mass < 1e36) /* else a step may leave the range */
            checkk_near(c, "y against double", (double)got[m * s.ldy + n], sum, mass * (double)s.k * 0x1p-25 + 1e-30);
    }
    checkk_end_case(c);
}

void checkk_groups(checkk *c) {
    for (unsigned i = 0; i < (c->effort + 3) / 4; i++)
        for (int f = 0; f < TR_GROUPS_FORMATS; f++) gemm_groups(c, (tr_groups_format)f);
}
