/* checkk: attention over every page format, scattered pages, windows, split and page borders. */
#include "kernels/kv_codec.h"
#include "tests/kernels/checkk.h"

#include <math.h>
#include <string.h>

enum { KEYS_MAX = 1200 };

typedef struct scene {
    tr_kv_format format;
    uint32_t d, heads, rows, pos0, window, page_tok;
    checkk_kind kind;
    float q_gain;
} scene;

static scene any_scene(checkk *c) {
    static const uint32_t heads[] = {1, 2, 3, 4, 4, 5, 8, 9, 20, 50}, windows[] = {0, 0, 0, 1, 5, 16, 33, 64, 512};
    static const uint32_t starts[] = {0, 0, 1, 14, 15, 16, 17, 31, 63, 64, 100, 500, 511, 512, 513, 530, 1020, 1024};
    static const uint32_t rows[] = {1, 1, 1, 2, 3, 4, 5, 7, 12, 13, 16, 20, 33};
#define PICK(list) list[checkk_below(c, sizeof list / sizeof list[0])]
    scene s = {.format = (tr_kv_format)checkk_between(c, TR_KV_NONE + 1, TR_KV_FORMAT_END - 1),
               .d = 16 * checkk_between(c, 1, 6),
               .heads = PICK(heads),
               .rows = PICK(rows),
               .pos0 = PICK(starts),
               .window = PICK(windows),
               .page_tok = 16u << checkk_below(c, 3)};
    if (checkk_below(c, 6) == 0) s.d = checkk_below(c, 2) ? 128 : 256;
    while ((size_t)s.d * s.heads * s.rows * (s.pos0 + s.rows) > 4000000) { /* keep the reference quick */
        if (s.rows > 1)
            s.rows = s.rows / 2;
        else if (s.heads > 4)
            s.heads = 4;
        else
            s.d = 64, s.pos0 /= 2;
    }
    s.kind = checkk_below(c, 8) ? CHECKK_PLAIN : checkk_below(c, 2) ? CHECKK_TINY : CHECKK_HOSTILE;
    s.q_gain = checkk_below(c, 3) ? 1.0f : 200.0f; /* the second: one key takes all the weight */
#undef PICK
    return s;
}

/* Pages with the tokens [first, end) stored, everything else unset (NaN as a number); pages nobody may touch do not
 * exist. Returns page 0; keys and values in token order are kept for the comparison in double. */
static uint8_t *build_pages(checkk *c, const scene *s, const tr_kv_head *head, uint32_t *table, size_t page_bytes,
                            float *keys, float *values) {
    uint32_t end = s->pos0 + s->rows, pages = (end + s->page_tok - 1) / s->page_tok;
    uint32_t first = s->window && s->pos0 + 1 > s->window ? s->pos0 + 1 - s->window : 0;
    uint8_t *base = checkk_buffer(c, pages * page_bytes);
    float *tmp = checkk_buffer(c, s->d * 4);
    for (uint32_t p = 0; p < pages; p++) table[p] = p;
    for (uint32_t p = pages; p > 1; p--) {
        uint32_t j = checkk_below(c, p), t = table[p - 1];
        table[p - 1] = table[j];
        table[j] = t;
    }
    for (uint32_t pos = first; pos < end; pos++) {
        float *k = keys + (size_t)pos * s->d, *v = values + (size_t)pos * s->d;
        checkk_fill(c, k, s->d, s->kind);
        checkk_fill(c, v, s->d, s->kind);
        uint8_t *tile =
            base + table[pos / s->page_tok] * page_bytes + pos % s->page_tok / 16 * tr_kv_tile_bytes(s->format, s->d);
        tr_kv_codec_store(c->ref, s->format, tile, pos % 16, k, v, s->d, head, tmp);
        tr_kv_codec_correct(c->ref, s->format, tile, pos % 16, k, v, s->d, head, tmp);
        if (s->format == TR_KV_INT8_STATIC) tr_kv_codec_load(c->ref, s->format, tile, pos % 16, k, v, s->d, head);
    }
    for (uint32_t p = 0; p < first / 16 * 16 / s->page_tok; p++) table[p] = UINT32_MAX; /* would fault */
    return base;
}

/* One output vector in double precision from the unrounded keys and values. */
static void near_double(checkk *c, const tr_attn_args *a, const float *keys, const float *values, uint32_t row,
                        uint32_t head, tr_kv_format format) {
    uint32_t pos = a->pos0 + row, lo = a->window && pos + 1 > a->window ? pos + 1 - a->window : 0;
    double score[KEYS_MAX], max = -INFINITY, sum = 0;
    for (uint32_t t = lo; t <= pos; t++) {
        double dot = 0;
        for (uint32_t i = 0; i < a->d; i++)
            dot += (double)a->q[row * a->ldq + head * a->d + i] * (double)keys[(size_t)t * a->d + i];
        score[t] = dot * (double)a->scale;
        max = fmax(max, score[t]);
    }
    for (uint32_t t = lo; t <= pos; t++) sum += score[t] = exp(score[t] - max);
    for (uint32_t i = 0; i < a->d; i++) {
        double o = 0;
        for (uint32_t t = lo; t <= pos; t++) o += score[t] / sum * (double)values[(size_t)t * a->d + i];
        checkk_near(c, "out against double", (double)a->out[row * a->ldo + head * a->d + i], o,
                    format == TR_KV_BF16 ? 0.012 : 0.03);
    }
}

/* One row, split by split into parts, then merged. */
static void by_splits(checkk *c, const tr_attn_args *whole, uint32_t row, tr_kv_format format, const float *want) {
    const size_t ld = tr_ops_attn_part_floats(whole->d);
    uint32_t pos = whole->pos0 + row, lo = whole->window && pos + 1 > whole->window ? pos + 1 - whole->window : 0;
    uint32_t first = lo / TR_OPS_ATTN_SPLIT_TOK, n = pos / TR_OPS_ATTN_SPLIT_TOK + 1 - first;
    float *parts = checkk_buffer(c, n * whole->heads * ld * 4), *out = checkk_buffer(c, whole->d * 4);
    tr_attn_args one = *whole;
    one.q = whole->q + row * whole->ldq;
    one.rows = 1;
    one.pos0 = pos;
    one.out = NULL;
    for (uint32_t i = n; i-- > 0;) { /* in any order */
        one.split = first + i;
        one.next = one.split + checkk_below(c, 3);
        one.part = parts + i * whole->heads * ld;
        tr_kv_codec_attend(c->ops, format, &one);
    }
    for (uint32_t h = 0; h < whole->heads; h++) {
        c->ops->attn_merge(out, parts + h * ld, n, whole->heads * ld, whole->d);
        checkk_same_floats(c, "out by splits", out, want + row * whole->ldo + (size_t)h * whole->d, whole->d);
    }
}

static void attn(checkk *c) {
    scene s = any_scene(c);
    checkk_begin(c, "attn", "%s d=%u heads=%u rows=%u pos0=%u window=%u page_tok=%u kind=%d gain=%g",
                 tr_kv_format_name(s.format), s.d, s.heads, s.rows, s.pos0, s.window, s.page_tok, (int)s.kind,
                 (double)s.q_gain);
    const tr_kv_head *head = checkk_kv_head(c, s.d);
    size_t keys_n = (size_t)(s.pos0 + s.rows) * s.d, width = (size_t)s.heads * s.d;
    size_t ldq = width + 16 * checkk_below(c, 3), ldo = width + 16 * checkk_below(c, 3);
    size_t page_bytes = tr_kv_page_bytes(s.format, s.d, s.page_tok) + 64 * checkk_below(c, 2);
    float *keys = checkk_buffer(c, keys_n * 4), *values = checkk_buffer(c, keys_n * 4);
    uint32_t *table = checkk_buffer(c, (s.pos0 + s.rows) / s.page_tok * 4 + 4);
    uint8_t *pages = build_pages(c, &s, head, table, page_bytes, keys, values);
    float *q = checkk_floats(c, s.rows * ldq, s.kind), *rotated = checkk_buffer(c, s.rows * ldq * 4);
    for (size_t i = 0; i < s.rows * ldq; i++) q[i] *= s.q_gain;
    memcpy(rotated, q, s.rows * ldq * 4);
    for (size_t i = 0; i < (size_t)s.rows * s.heads && tr_kv_describe(s.format)->rotated; i++)
        c->ref->hadamard(rotated + i / s.heads * ldq + i % s.heads * s.d, s.d, tr_kv_rotation(s.d));
    size_t out_n = s.rows * ldo;
    float *want = checkk_buffer(c, out_n * 4), *got = checkk_buffer(c, out_n * 4), *again = checkk_buffer(c, out_n * 4);
    tr_attn_args a = {.q = rotated,
                      .out = want,
                      .pages = pages,
                      .table = table,
                      .page_bytes = page_bytes,
                      .ldq = ldq,
                      .ldo = ldo,
                      .page_tok = s.page_tok,
                      .rows = s.rows,
                      .heads = s.heads,
                      .d = s.d,
                      .pos0 = s.pos0,
                      .window = s.window,
                      .kv = head,
                      .scale = 1.0f / sqrtf((float)s.d)};
    a.scratch = checkk_buffer(c, tr_ops_attn_scratch_floats(s.heads, s.d) * 4);
    tr_kv_codec_attend(c->ref, s.format, &a);
    a.out = got;
    tr_kv_codec_attend(c->ops, s.format, &a);
    checkk_same_floats(c, "out", got, want, out_n);
    for (uint32_t r = 0; r < s.rows; r++) { /* each row on its own: the same bits */
        tr_attn_args one = a;
        one.q = rotated + r * ldq;
        one.out = again + r * ldo;
        one.rows = 1;
        one.pos0 = s.pos0 + r;
        tr_kv_codec_attend(c->ops, s.format, &one);
    }
    checkk_same_floats(c, "out by rows", again, want, out_n);
    by_splits(c, &a, checkk_below(c, s.rows), s.format, want);
    a.q = q;
    if (s.kind == CHECKK_PLAIN && s.q_gain == 1.0f)
        near_double(c, &a, keys, values, checkk_below(c, s.rows), checkk_below(c, s.heads), s.format);
    checkk_end_case(c);
}

void checkk_attn(checkk *c) {
    for (unsigned i = 0; i < 2 * c->effort; i++) attn(c);
}
