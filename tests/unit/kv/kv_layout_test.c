/* Layouts: groups, disjoint extents that fill the pool, table entries, budgets, and what is refused. */
#include "kv/kv_layout.h"

#include "kv/kv_budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Every period-th layer is global; period 0: none, 1: all. */
static tr_kv_model model(uint32_t n_layers, uint32_t heads, uint32_t d, uint32_t window, uint32_t period) {
    tr_kv_model m = {.n_layers = n_layers, .n_kv_heads = heads, .head_dim = d, .window = window};
    for (uint32_t i = 0; i < n_layers; i++) m.layer_is_global[i] = period && (i + 1) % period == 0;
    return m;
}

static void groups(void **state) {
    (void)state;
    static const uint32_t pages[TR_KV_GROUPS_MAX] = {100, 40};
    tr_kv_layout l;
    tr_kv_model m = model(18, 1, 256, 512, 6);
    assert_int_equal(tr_kv_layout_init(&l, &m, TR_KV_BF16, 16, 4, 1600, pages, NULL), TR_OK);
    assert_int_equal(l.n_groups, 2);
    assert_int_equal(l.group[0].window, 0);
    assert_int_equal(l.group[0].n_layers, 3);
    assert_int_equal(l.group[1].window, 512);
    assert_int_equal(l.group[1].n_layers, 15);
    assert_int_equal(l.layer_group[5], 0);
    assert_int_equal(l.layer_index[11], 1);
    assert_int_equal(l.layer_group[6], 1);
    assert_int_equal(l.layer_index[6], 5);
    assert_int_equal(l.page_bytes, 16 * 256 * 2 * 2);
    assert_int_equal(l.pages_per_seq, 100);
    assert_int_equal(l.table_bytes, 4 * 2 * 100 * 4);
    m = model(30, 3, 64, 0, 1);
    assert_int_equal(tr_kv_layout_init(&l, &m, TR_KV_INT8, 32, 1, 33, pages, NULL), TR_OK);
    assert_int_equal(l.n_groups, 1);
    assert_int_equal(l.page_bytes, 2 * (2 * 16 * 64 + 128));
    assert_int_equal(l.pages_per_seq, 2);
    m = model(4, 3, 64, 128, 0);
    assert_int_equal(tr_kv_layout_init(&l, &m, TR_KV_INT8, 32, 1, 33, pages, NULL), TR_OK);
    assert_int_equal(l.n_groups, 1);
    assert_int_equal(l.group[0].window, 128);
}

static int by_begin(const void *a, const void *b) {
    const uint64_t *x = a, *y = b;
    return x[0] < y[0] ? -1 : x[0] > y[0];
}

/* Runs of pages of all layers and heads: inside the pool, none overlaps, each group begins where it says. */
static void extents(void **state) {
    (void)state;
    for (uint32_t shape = 0; shape < 48; shape++) {
        tr_kv_model m = model(1 + shape % 9, 1 + shape % 4, 16 * (1 + shape % 5), 64, shape % 5);
        const uint32_t pages[TR_KV_GROUPS_MAX] = {7 + shape, 3 + shape % 3};
        tr_kv_layout l;
        uint64_t run[64][2];
        uint32_t n = 0;
        assert_int_equal(
            tr_kv_layout_init(&l, &m, shape % 2 ? TR_KV_INT8 : TR_KV_BF16, 16u << shape % 3, 3, 500, pages, NULL),
            TR_OK);
        for (uint32_t i = 0; i < m.n_layers; i++)
            for (uint32_t h = 0; h < m.n_kv_heads; h++, n++) {
                run[n][0] = tr_kv_layout_head_offset(&l, i, h);
                run[n][1] = run[n][0] + (uint64_t)l.group[l.layer_group[i]].n_pages * l.page_bytes;
                assert_true(run[n][0] % 64 == 0 && (h > 0 || run[n][0] % 4096 == 0));
            }
        qsort(run, n, sizeof run[0], by_begin);
        for (uint32_t i = 0; i < n; i++) assert_true(run[i][1] <= (i + 1 < n ? run[i + 1][0] : l.pool_bytes));
        assert_true(l.pool_bytes - run[n - 1][1] < 4096);
        size_t last = tr_kv_layout_entry(&l, 2, l.n_groups - 1, l.pages_per_seq - 1);
        assert_true((last + 1) * 4 <= l.table_bytes);
        assert_int_equal(tr_kv_layout_entry(&l, 1, 0, 0), l.n_groups * l.pages_per_seq);
    }
}

/* A full sequence can always be reserved by the budget's own count, at any alignment of its window. */
static void needed_covers_budget(void **state) {
    (void)state;
    tr_kv_model m = model(6, 1, 64, 100, 6);
    for (uint32_t tokens = 1; tokens < 900; tokens += 7)
        for (uint32_t chunk = 1; chunk < 300; chunk += 37)
            for (uint32_t page = 16; page <= 64; page *= 2)
                for (int sliding = 0; sliding < 2; sliding++) {
                    uint32_t window = sliding ? m.window : 0;
                    assert_true(tr_kv_layout_pages_needed(&m, window, page, tokens, chunk) >=
                                tr_kv_budget_pages(window, page, 0, tokens, chunk));
                }
    assert_int_equal(tr_kv_layout_pages_needed(&m, 0, 16, 33, 1), 3);
}

static void fit(void **state) {
    (void)state;
    tr_kv_model m = model(18, 1, 256, 512, 6);
    uint32_t pages[TR_KV_GROUPS_MAX], more[TR_KV_GROUPS_MAX];
    tr_error err = {0};
    tr_kv_layout l;
    const uint32_t full = 2048 / 16, live = tr_kv_layout_pages_needed(&m, 512, 16, 2048, 128);
    assert_true(live < full);
    uint64_t one = ((uint64_t)full * 3 + (uint64_t)live * 15) * 16384;
    assert_int_equal(tr_kv_layout_fit(&m, TR_KV_BF16, 16, 2048, 128, one, 64, pages, &err), TR_OK);
    assert_int_equal(pages[0], full);
    assert_int_equal(pages[1], live);
    assert_int_equal(tr_kv_layout_fit(&m, TR_KV_BF16, 16, 2048, 128, one - 1, 64, pages, &err), TR_CONFIG);
    assert_non_null(strstr(err.text, "--kv-memory"));
    for (uint64_t budget = one; budget < 20 * one; budget += one / 3 + 12345) {
        assert_int_equal(tr_kv_layout_fit(&m, TR_KV_INT8, 32, 2048, 128, budget, 64, pages, NULL), TR_OK);
        assert_int_equal(tr_kv_layout_init(&l, &m, TR_KV_INT8, 32, 64, 2048, pages, NULL), TR_OK);
        assert_true(l.pool_bytes < budget + 18 * 4096 && l.pool_bytes > budget - one / 16);
    }
    /* never more than every slot can use */
    assert_int_equal(tr_kv_layout_fit(&m, TR_KV_BF16, 16, 2048, 128, UINT64_MAX, 5, pages, NULL), TR_OK);
    assert_int_equal(pages[0], 5 * full);
    assert_int_equal(tr_kv_layout_fit(&m, TR_KV_BF16, 16, 2048, 128, 5 * one, 5, more, NULL), TR_OK);
    assert_memory_equal(pages, more, sizeof pages);
}

static void refused(void **state) {
    (void)state;
    const tr_kv_model good = model(6, 2, 64, 128, 3);
    for (int k = 0; k < 13; k++) {
        tr_kv_model m = good;
        uint32_t page = 16, slots = 2, context = 100, pages[TR_KV_GROUPS_MAX] = {10, 10};
        switch (k) {
        case 0: m.n_layers = 0; break;
        case 1: m.n_layers = TR_KV_LAYERS_MAX + 1; break;
        case 2: m.n_kv_heads = 0; break;
        case 3: m.head_dim = 24; break;
        case 4: m.head_dim = 1u << 30; break;
        case 5: m.window = 0; break; /* sliding layers without one */
        case 6: page = 8; break;
        case 7: page = 48; break;
        case 8: slots = 0; break;
        case 9: context = 0; break;
        case 10: pages[1] = 0; break;
        case 11: pages[0] = TR_KV_NO_PAGE; break;
        case 12: context = UINT32_MAX; break;
        }
        tr_error err = {0};
        tr_kv_layout l = {.n_slots = 77};
        if (tr_kv_layout_init(&l, &m, TR_KV_BF16, page, slots, context, pages, &err) != TR_CONFIG || !err.text[0])
            fail_msg("case %d was let in", k);
        assert_int_equal(l.n_slots, 77);
        if (k < 10 && tr_kv_layout_fit(&m, TR_KV_BF16, page, context, 16, 1ull << 40, slots, pages, &err) != TR_CONFIG)
            fail_msg("case %d fits", k);
    }
    tr_kv_model big = model(128, 1024, 1024, 0, 1);
    uint32_t pages[TR_KV_GROUPS_MAX] = {TR_KV_NO_PAGE - 1, 1};
    tr_kv_layout l;
    assert_int_equal(tr_kv_layout_init(&l, &big, TR_KV_BF16, 64, 1, 100, pages, NULL), TR_CONFIG);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(groups), cmocka_unit_test(extents),
                                       cmocka_unit_test(needed_covers_budget), cmocka_unit_test(fit),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
