/* Page tables: append, drop behind a window, read back, damage. */
#include "kv/kv_table.h"

#include "kv/kv_budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SLOTS = 3, PER_SEQ = 8 };
static uint32_t table[SLOTS * 2 * PER_SEQ];
static _Atomic uint64_t bits[64];
static tr_kv_layout layout;
static tr_kv_pool pool;

static int setup(void **state) {
    (void)state;
    layout = (tr_kv_layout){.n_groups = 2, .page_tok = 16, .n_slots = SLOTS, .pages_per_seq = PER_SEQ};
    layout.group[0].n_pages = 10;
    layout.group[1].n_pages = 5;
    layout.group[1].window = 20;
    memset((void *)bits, 0, sizeof bits);
    tr_kv_table_clear(&layout, table);
    tr_kv_pool_attach(&pool, &layout, bits);
    return 0;
}

static void append_and_drop(void **state) {
    (void)state;
    tr_kv_table_row row = {0};
    assert_int_equal(tr_kv_table_missing(&layout, &row, 0, 0, 33), 3);
    assert_int_equal(tr_kv_table_extend(&layout, table, 1, &row, 0, 0, 33, &pool), TR_OK);
    assert_int_equal(tr_kv_table_held(&row, 0), 3);
    assert_int_equal(tr_kv_table_missing(&layout, &row, 0, 0, 48), 0);
    assert_int_equal(tr_kv_table_missing(&layout, &row, 0, 0, 49), 1);
    assert_int_equal(pool.n_free[0], 7);
    assert_true(table[tr_kv_layout_entry(&layout, 1, 0, 2)] != TR_KV_NO_PAGE);
    assert_int_equal(table[tr_kv_layout_entry(&layout, 1, 0, 3)], TR_KV_NO_PAGE);
    assert_int_equal(table[tr_kv_layout_entry(&layout, 0, 0, 0)], TR_KV_NO_PAGE); /* other slots are untouched */
    /* a sliding group begins where it is needed */
    assert_int_equal(tr_kv_table_extend(&layout, table, 1, &row, 1, 40, 70, &pool), TR_OK);
    assert_int_equal(row.first[1], 2);
    assert_int_equal(row.end[1], 5);
    assert_int_equal(tr_kv_table_drop(&layout, table, 1, &row, 1, 63, &pool), 1); /* page 3 still holds 48..63 */
    assert_int_equal(row.first[1], 3);
    assert_int_equal(tr_kv_table_drop(&layout, table, 1, &row, 1, 64, &pool), 1);
    assert_int_equal(pool.n_free[1], 4);
    tr_kv_table_drop_all(&layout, table, 1, &row, &pool);
    assert_int_equal(pool.n_free[0], 10);
    assert_int_equal(pool.n_free[1], 5);
    for (uint32_t i = 0; i < SLOTS * 2 * PER_SEQ; i++) assert_int_equal(table[i], TR_KV_NO_PAGE);
}

static void exhausted_changes_nothing(void **state) {
    (void)state;
    tr_kv_table_row row = {0};
    assert_int_equal(tr_kv_table_extend(&layout, table, 0, &row, 1, 0, 96, &pool), TR_EXHAUSTED);
    assert_int_equal(pool.n_free[1], 5);
    assert_int_equal(tr_kv_table_held(&row, 1), 0);
    assert_int_equal(table[tr_kv_layout_entry(&layout, 0, 1, 0)], TR_KV_NO_PAGE);
}

static void read_back(void **state) {
    (void)state;
    tr_kv_table_row row = {0}, again;
    assert_int_equal(tr_kv_table_extend(&layout, table, 2, &row, 0, 0, 40, &pool), TR_OK);
    assert_int_equal(tr_kv_table_extend(&layout, table, 2, &row, 1, 20, 60, &pool), TR_OK);
    assert_true(tr_kv_table_scan(&layout, table, 2, &again));
    assert_memory_equal(&row, &again, sizeof row);
    tr_kv_pool_clear(&pool);
    tr_kv_table_mark(&layout, table, 2, &again, &pool);
    assert_int_equal(pool.n_free[0], 7);
    assert_int_equal(pool.n_free[1], 2);
    assert_true(tr_kv_table_scan(&layout, table, 0, &again)); /* nothing held is sound */
    assert_int_equal(tr_kv_table_held(&again, 0), 0);
}

static void damage_is_seen(void **state) {
    (void)state;
    tr_kv_table_row row = {0}, again;
    assert_int_equal(tr_kv_table_extend(&layout, table, 2, &row, 0, 0, 60, &pool), TR_OK);
    uint32_t *hole = &table[tr_kv_layout_entry(&layout, 2, 0, 1)], page = *hole;
    *hole = TR_KV_NO_PAGE;
    assert_false(tr_kv_table_scan(&layout, table, 2, &again));
    *hole = 10; /* no such page */
    assert_false(tr_kv_table_scan(&layout, table, 2, &again));
    *hole = page;
    assert_true(tr_kv_table_scan(&layout, table, 2, &again));
}

/* What a sliding sequence really holds, step by step and at every alignment, stays within the reservation. */
static void budget_covers_every_walk(void **state) {
    (void)state;
    for (uint32_t window = 1; window < 70; window += 3)
        for (uint32_t ahead = 1; ahead < 50; ahead += 7)
            for (uint32_t page_tok = 16; page_tok <= 64; page_tok *= 2) {
                uint32_t most = tr_kv_budget_pages(window, page_tok, 0, 400, ahead), seen = 0;
                for (uint32_t pos = 0; pos + ahead <= 400; pos++) {
                    uint32_t begin = pos + 1 <= window ? 0 : pos + 1 - window;
                    uint32_t held = (pos + ahead - 1) / page_tok - begin / page_tok + 1;
                    seen = held > seen ? held : seen;
                }
                assert_true(seen <= most);
                assert_true(most <= seen + 1); /* and is not generous either */
            }
    assert_int_equal(tr_kv_budget_pages(0, 16, 0, 100, 5), 7);
    assert_int_equal(tr_kv_budget_pages(0, 16, 20, 100, 5), 6);
    assert_int_equal(tr_kv_budget_pages(8, 16, 50, 50, 5), 0);
}

/* Several rows name one page: it is free when the last one has given it back; the ends of a row go first. */
static void shared_pages(void **state) {
    (void)state;
    tr_kv_table_row a = {0}, b = {0};
    assert_int_equal(tr_kv_table_extend(&layout, table, 0, &a, 0, 0, 48, &pool), TR_OK);
    for (uint32_t i = 0; i < 2; i++)
        tr_kv_table_share(&layout, table, 1, &b, 0, i, table[tr_kv_layout_entry(&layout, 0, 0, i)], &pool);
    assert_int_equal(tr_kv_table_extend(&layout, table, 1, &b, 0, 0, 48, &pool), TR_OK);
    assert_int_equal(pool.n_free[0], 6);
    uint32_t shared = table[tr_kv_layout_entry(&layout, 1, 0, 0)];
    assert_int_equal(tr_kv_pool_holders(&pool, 0, shared), 2);
    tr_kv_table_drop_all(&layout, table, 0, &a, &pool);
    assert_int_equal(pool.n_free[0], 7);
    assert_true(tr_kv_pool_taken(&pool, 0, shared));
    tr_kv_table_drop_all(&layout, table, 1, &b, &pool);
    assert_int_equal(pool.n_free[0], 10);
    /* a sliding group may begin with a shared page in the middle */
    tr_kv_table_share(&layout, table, 1, &b, 1, 3, 4, &pool);
    assert_int_equal(b.first[1], 3);
    assert_int_equal(b.end[1], 4);
    assert_int_equal(tr_kv_table_extend(&layout, table, 1, &b, 1, 50, 70, &pool), TR_OK);
    assert_int_equal(b.end[1], 5);
}

static void budget_all_or_nothing(void **state) {
    (void)state;
    tr_kv_budget b;
    const tr_kv_table_row nothing[2] = {0};
    const tr_kv_budget_need none = {0};
    tr_kv_budget_need a = {.pages = {{6, 2}, {6, 2}}}, c = {.pages = {{4, 3}, {5, 3}}}, never = {.pages = {{11, 0}}};
    assert_true(tr_kv_budget_possible(&layout, &layout, &a));
    assert_false(tr_kv_budget_possible(&layout, &layout, &never));
    tr_kv_budget_begin(&b, &pool, &pool, 0);
    assert_true(tr_kv_budget_admit(&b, &a, &none, &none));
    assert_false(tr_kv_budget_admit(&b, &c, &none, &none)); /* decode group 0: 4 left, 5 asked */
    assert_int_equal(b.spare[0][0], 4);                     /* nothing of it stayed */
    memset(a.pages[1], 0, sizeof a.pages[1]);
    tr_kv_budget_begin(&b, &pool, &pool, 0);
    assert_true(tr_kv_budget_claim(&b, &a, nothing));
    assert_true(tr_kv_budget_admit(&b, &c, &none, &none));
    assert_int_equal(b.spare[0][0], 0);
    assert_int_equal(b.spare[1][0], 5);
    assert_false(tr_kv_budget_claim(&b, &a, nothing)); /* more than there is */
}

/* A page that two sequences share is one that is not free; a sliding group counts for each. */
static void budget_counts_shared_pages_once(void **state) {
    (void)state;
    tr_kv_budget b;
    tr_kv_table_row a[2] = {0}, c[2] = {0};
    assert_int_equal(tr_kv_table_extend(&layout, table, 0, &a[0], 0, 0, 48, &pool), TR_OK);
    for (uint32_t i = 0; i < 3; i++)
        tr_kv_table_share(&layout, table, 1, &c[0], 0, i, table[tr_kv_layout_entry(&layout, 0, 0, i)], &pool);
    const tr_kv_budget_need need = {.pages = {{5, 2}}}, known = {.pages = {{3, 0}}}, none = {0};
    tr_kv_budget_begin(&b, &pool, NULL, 0);
    assert_true(tr_kv_budget_claim(&b, &need, a));
    assert_true(tr_kv_budget_claim(&b, &need, c));
    assert_int_equal(b.spare[0][0], 10 - 3 - 2 - 2);
    assert_int_equal(b.spare[0][1], 5 - 2 - 2);
    const tr_kv_budget_need small = {.pages = {{5, 1}}};
    assert_false(tr_kv_budget_admit(&b, &small, &none, &none));
    assert_false(tr_kv_budget_admit(&b, &small, &known, &known)); /* cached pages that nobody holds cost as much */
    assert_true(tr_kv_budget_admit(&b, &small, &known, &none));
}

static void budget_watermark(void **state) {
    (void)state;
    tr_kv_budget b;
    const tr_kv_budget_need all = {.pages = {{10, 5}}}, most = {.pages = {{7, 1}}}, one = {.pages = {{1, 0}}},
                            none = {0};
    tr_kv_budget_begin(&b, &pool, NULL, 20);
    assert_true(tr_kv_budget_admit(&b, &all, &none, &none)); /* alone: everything */
    tr_kv_budget_begin(&b, &pool, NULL, 20);
    assert_true(tr_kv_budget_admit(&b, &most, &none, &none));
    assert_true(tr_kv_budget_admit(&b, &one, &none, &none));
    assert_false(tr_kv_budget_admit(&b, &one, &none, &none)); /* two of ten stay */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(append_and_drop, setup),
                                       cmocka_unit_test_setup(exhausted_changes_nothing, setup),
                                       cmocka_unit_test_setup(read_back, setup),
                                       cmocka_unit_test_setup(damage_is_seen, setup),
                                       cmocka_unit_test_setup(budget_covers_every_walk, setup),
                                       cmocka_unit_test_setup(shared_pages, setup),
                                       cmocka_unit_test_setup(budget_all_or_nothing, setup),
                                       cmocka_unit_test_setup(budget_counts_shared_pages_once, setup),
                                       cmocka_unit_test_setup(budget_watermark, setup)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
