/* Property: for random pairs of topologies, page sizes and tables, in any cut of the token range, every (layer, head,
 * position) that the destination needs is written exactly once, from where it was written. */
#include "kv/reshard_plan.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 7, HEADS = 3, CONTEXT = 300, SLOTS = 3, PAGES = 80 };

typedef struct side {
    tr_kv_layout layout;
    uint32_t *table;
    uint32_t split[LAYERS + 1], n_stages;
    uint64_t (*cell)[HEADS][PAGES * 64]; /* [layer][head][page * page_tok + token] */
} side;

static uint32_t below(tr_rng *r, uint32_t n) { return (uint32_t)tr_rng_below(r, n); }

static void make_side(tr_rng *r, side *s, const tr_kv_model *m, tr_kv_format format) {
    uint32_t pages[TR_KV_GROUPS_MAX] = {PAGES, PAGES};
    tr_error err;
    assert_int_equal(tr_kv_layout_init(&s->layout, m, format, 16u << below(r, 3), SLOTS, CONTEXT, pages, &err), TR_OK);
    s->table = calloc(1, s->layout.table_bytes);
    s->cell = calloc(LAYERS, sizeof *s->cell);
    uint32_t n = (uint32_t)(s->layout.table_bytes / 4);
    for (uint32_t i = 0; i < n; i++) s->table[i] = TR_KV_NO_PAGE;
    s->n_stages = 1 + below(r, m->n_layers);
    s->split[0] = 0;
    for (uint32_t i = 1; i <= s->n_stages; i++)
        s->split[i] = i == s->n_stages ? m->n_layers : s->split[i - 1] + below(r, m->n_layers - s->split[i - 1] + 1);
}

/* Random distinct pages for positions [from, to) of a group. */
static void fill_row(tr_rng *r, side *s, uint32_t slot, uint32_t g, uint32_t from, uint32_t to) {
    uint32_t perm[PAGES];
    for (uint32_t i = 0; i < PAGES; i++) perm[i] = i;
    for (uint32_t i = PAGES - 1; i > 0; i--) {
        uint32_t k = below(r, i + 1), t = perm[i];
        perm[i] = perm[k];
        perm[k] = t;
    }
    for (uint32_t i = from / s->layout.page_tok, n = 0; i * s->layout.page_tok < to; i++)
        s->table[tr_kv_layout_entry(&s->layout, slot, g, i)] = perm[n++];
}

static uint64_t *cell(side *s, uint32_t slot, uint32_t layer, uint32_t head, uint32_t pos) {
    uint32_t g = s->layout.layer_group[layer], pt = s->layout.page_tok;
    uint32_t page = s->table[tr_kv_layout_entry(&s->layout, slot, g, pos / pt)];
    assert_true(page < PAGES);
    return &s->cell[layer][head][page * pt + pos % pt];
}

static void apply(side *src, side *dst, const tr_reshard_op *op) {
    assert_true(op->n_tok >= 1 && op->copy);
    assert_true(op->src_tok % 16 == op->pos % 16 && op->dst_tok % 16 == op->pos % 16); /* tiles are cut alike */
    assert_true(op->layer >= src->split[op->src_stage] && op->layer < src->split[op->src_stage + 1]);
    assert_true(op->layer >= dst->split[op->dst_stage] && op->layer < dst->split[op->dst_stage + 1]);
    for (uint32_t t = 0; t < op->n_tok; t++) {
        uint64_t *d = &dst->cell[op->layer][op->kv_head][op->dst_page * dst->layout.page_tok + op->dst_tok + t];
        assert_int_equal(*d, 0); /* written once */
        *d = src->cell[op->layer][op->kv_head][op->src_page * src->layout.page_tok + op->src_tok + t];
    }
}

static void one_pair(uint64_t seed) {
    tr_rng rng = {seed}, *r = &rng;
    tr_kv_model m = {.n_layers = 1 + below(r, LAYERS), .n_kv_heads = 1 + below(r, HEADS), .head_dim = 16};
    m.window = 1 + below(r, 100);
    for (uint32_t l = 0; l < m.n_layers; l++) m.layer_is_global[l] = below(r, 3) > 0;
    side src, dst;
    make_side(r, &src, &m, TR_KV_BF16);
    make_side(r, &dst, &m, TR_KV_INT8);
    uint32_t n = 1 + below(r, CONTEXT), from = below(r, n), s0 = below(r, SLOTS), d0 = below(r, SLOTS);
    uint32_t min[TR_KV_GROUPS_MAX] = {0};
    for (uint32_t g = 0; g < dst.layout.n_groups; g++) {
        uint32_t w = dst.layout.group[g].window;
        min[g] = w == 0 || n + 1 <= w ? 0 : n + 1 - w;
        fill_row(r, &src, s0, g, min[g], n);
        fill_row(r, &dst, d0, g, min[g], n);
    }
    for (uint32_t l = 0; l < m.n_layers; l++)
        for (uint32_t h = 0; h < m.n_kv_heads; h++)
            for (uint32_t p = min[src.layout.layer_group[l]]; p < n; p++)
                *cell(&src, s0, l, h, p) = 1 + l * 1000003ull + h * 10007 + p;
    const tr_reshard_side a = {&src.layout, src.table, s0, src.n_stages, src.split, 1, NULL};
    const tr_reshard_side b = {&dst.layout, dst.table, d0, dst.n_stages, dst.split, 1, NULL};
    for (uint32_t at = from; at < n;) { /* chunk by chunk, as the scheduler does */
        uint32_t end = at + 1 + below(r, n - at);
        tr_reshard_plan plan;
        tr_error err;
        tr_reshard_op op;
        uint32_t cut = below(r, m.n_layers + 1); /* and by layers */
        for (int part = 0; part < 2; part++) {
            tr_reshard_range range = {at, end, part ? cut : 0, part ? m.n_layers : cut, min, dst.layout.n_groups};
            assert_int_equal(tr_reshard_plan_init(&plan, &a, &b, &range, &err), TR_OK);
            while (tr_reshard_plan_next(&plan, &op)) apply(&src, &dst, &op);
            assert_false(tr_reshard_plan_next(&plan, &op)); /* stays at its end */
        }
        at = end;
    }
    uint64_t written = 0, want = 0;
    for (uint32_t l = 0; l < LAYERS; l++)
        for (uint32_t h = 0; h < HEADS; h++)
            for (uint32_t i = 0; i < PAGES * 64; i++) written += dst.cell[l][h][i] != 0;
    for (uint32_t l = 0; l < m.n_layers; l++)
        for (uint32_t h = 0; h < m.n_kv_heads; h++) {
            uint32_t low = min[dst.layout.layer_group[l]];
            for (uint32_t p = low > from ? low : from; p < n; p++, want++)
                assert_int_equal(*cell(&dst, d0, l, h, p), 1 + l * 1000003ull + h * 10007 + p);
        }
    assert_int_equal(written, want); /* and nothing else */
    free(src.table);
    free(src.cell);
    free(dst.table);
    free(dst.cell);
}

static void every_cell_once(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 1500; seed++) one_pair(seed);
}

static tr_status try(const tr_reshard_side *a, const tr_reshard_side *b, uint32_t tok0, uint32_t tok1, uint32_t layer1,
                     uint32_t n_min) {
    const uint32_t zero[TR_KV_GROUPS_MAX] = {0};
    const tr_reshard_range range = {tok0, tok1, 0, layer1, zero, n_min};
    tr_reshard_plan plan;
    tr_reshard_op op;
    tr_error err = {0};
    tr_status status = tr_reshard_plan_init(&plan, a, b, &range, &err);
    assert_true(status == TR_OK || err.text[0]);
    if (tok0 == tok1) assert_false(tr_reshard_plan_next(&plan, &op));
    return status;
}

static void refusals(void **state) {
    (void)state;
    tr_rng rng = {1};
    tr_kv_model m = {.n_layers = 4, .n_kv_heads = 2, .head_dim = 16, .layer_is_global = {1, 1, 1, 1}}, other = m;
    side src, dst;
    make_side(&rng, &src, &m, TR_KV_BF16);
    make_side(&rng, &dst, &m, TR_KV_INT8);
    fill_row(&rng, &src, 0, 0, 0, 50);
    fill_row(&rng, &dst, 0, 0, 0, 50);
    tr_reshard_side a = {&src.layout, src.table, 0, src.n_stages, src.split, 1, NULL}, c;
    tr_reshard_side b = {&dst.layout, dst.table, 0, dst.n_stages, dst.split, 1, NULL};
    assert_int_equal(try(&a, &b, 0, 50, 4, 1), TR_OK);
    assert_int_equal(try(&a, &b, 20, 20, 4, 1), TR_OK); /* empty is legal */
    assert_int_equal(try(&a, &b, 0, 50, 4, 2), TR_INVALID);
    assert_int_equal(try(&a, &b, 0, 50, 5, 1), TR_INVALID);
    assert_int_equal(try(&a, &b, 0, 200, 4, 1), TR_INVALID); /* no page there */
    assert_int_equal(try(&a, &b, 0, CONTEXT + 100, 4, 1), TR_INVALID);
    c = a;
    c.slot = SLOTS;
    assert_int_equal(try(&c, &b, 0, 50, 4, 1), TR_INVALID);
    c = a;
    c.tp = 0;
    assert_int_equal(try(&c, &b, 0, 50, 4, 1), TR_INVALID);
    c.tp = TR_RESHARD_PLAN_RANKS_MAX + 1;
    assert_int_equal(try(&a, &c, 0, 50, 4, 1), TR_INVALID);
    c = a;
    c.layer_begin = (const uint32_t[]){0, 3};
    c.n_stages = 1;
    assert_int_equal(try(&c, &b, 0, 50, 4, 1), TR_INVALID);
    other.n_kv_heads = 1;
    side odd;
    make_side(&rng, &odd, &other, TR_KV_BF16);
    c = (tr_reshard_side){&odd.layout, odd.table, 0, odd.n_stages, odd.split, 1, NULL};
    assert_int_equal(try(&c, &b, 0, 50, 4, 1), TR_INVALID);
    for (side *s = &src; s != NULL; s = s == &src ? &dst : s == &dst ? &odd : NULL) {
        free(s->table);
        free(s->cell);
    }
}

/* Pages with neighbouring ids on both sides are one run; the first gap ends it. */
static void runs(void **state) {
    (void)state;
    tr_kv_model m = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 16, .layer_is_global = {1}};
    tr_kv_layout l16, l32;
    tr_error err;
    tr_kv_layout_init(&l16, &m, TR_KV_BF16, 16, 1, 128, (const uint32_t[]){20, 20}, &err);
    tr_kv_layout_init(&l32, &m, TR_KV_BF16, 32, 1, 128, (const uint32_t[]){20, 20}, &err);
    const uint32_t t16[8] = {3, 4, 5, 6, 7, 9, 10, 11}, t32[4] = {1, 2, 8, 9}, split[2] = {0, 1}, zero[1] = {0};
    const tr_reshard_side a = {&l16, t16, 0, 1, split, 1, NULL}, b = {&l32, t32, 0, 1, split, 1, NULL};
    const uint32_t want[][3] = {{5, 59, 3}, {64, 16, 7}, {80, 40, 9}}; /* pos, n_tok, src_page */
    tr_reshard_plan plan;
    tr_reshard_op op;
    assert_int_equal(tr_reshard_plan_init(&plan, &a, &b, &(tr_reshard_range){5, 120, 0, 1, zero, 1}, &err), TR_OK);
    for (int i = 0; i < 3; i++) {
        assert_true(tr_reshard_plan_next(&plan, &op));
        assert_int_equal(op.pos, want[i][0]);
        assert_int_equal(op.n_tok, want[i][1]);
        assert_int_equal(op.src_page, want[i][2]);
    }
    assert_false(tr_reshard_plan_next(&plan, &op));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_cell_once), cmocka_unit_test(refusals),
                                       cmocka_unit_test(runs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
