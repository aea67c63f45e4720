/* The bitmap allocator against a plain array, all-or-nothing, group borders, rebuild. */
#include "kv/kv_pool.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static tr_kv_layout layout_of(uint32_t pages0, uint32_t pages1) {
    tr_kv_layout l = {.n_groups = pages1 ? 2 : 1, .page_tok = 16, .n_slots = 1, .pages_per_seq = 4};
    l.group[0].n_pages = pages0;
    l.group[1].n_pages = pages1;
    return l;
}

static void bitmap_size(void **state) {
    (void)state;
    tr_kv_layout l = layout_of(64, 0);
    assert_int_equal(tr_kv_pool_bitmap_bytes(&l), 64 + 64 * 4);
    l = layout_of(64 * 8 + 1, 0);
    assert_int_equal(tr_kv_pool_bitmap_bytes(&l), 128 + (64 * 8 + 16) * 4);
    l = layout_of(1, 64 * 7 + 1);
    assert_int_equal(tr_kv_pool_bitmap_bytes(&l), 128 + (64 * 7 + 16) * 4);
}

static void all_or_nothing(void **state) {
    (void)state;
    _Atomic uint64_t bits[64] = {0};
    uint32_t page[200];
    tr_kv_layout l = layout_of(70, 3);
    tr_kv_pool p;
    tr_kv_pool_attach(&p, &l, bits);
    assert_int_equal(p.n_free[0], 70);
    assert_int_equal(tr_kv_pool_take(&p, 0, 71, page), TR_EXHAUSTED);
    assert_int_equal(p.n_free[0], 70);
    assert_int_equal(tr_kv_pool_take(&p, 0, 70, page), TR_OK);
    for (uint32_t i = 0; i < 70; i++) assert_int_equal(page[i], i); /* never past the group's last page */
    assert_int_equal(tr_kv_pool_take(&p, 0, 1, page), TR_EXHAUSTED);
    assert_int_equal(tr_kv_pool_take(&p, 1, 3, page), TR_OK); /* the other group is untouched */
    assert_int_equal(p.n_free[1], 0);
    tr_kv_pool_free(&p, 0, 69);
    assert_int_equal(tr_kv_pool_take(&p, 0, 1, page), TR_OK);
    assert_int_equal(page[0], 69);
    assert_int_equal(tr_kv_pool_take(&p, 0, 0, page), TR_OK);
}

static void rebuild(void **state) {
    (void)state;
    _Atomic uint64_t bits[64] = {0};
    uint32_t page[8];
    tr_kv_layout l = layout_of(70, 3);
    tr_kv_pool p, q;
    tr_kv_pool_attach(&p, &l, bits);
    assert_int_equal(tr_kv_pool_take(&p, 0, 5, page), TR_OK);
    tr_kv_pool_attach(&q, &l, bits); /* the next life sees the same */
    assert_int_equal(q.n_free[0], 65);
    tr_kv_pool_clear(&q);
    assert_int_equal(q.n_free[0], 70);
    assert_true(tr_kv_pool_hold(&q, 0, 69));
    assert_true(tr_kv_pool_hold(&q, 0, 69)); /* second holder */
    assert_false(tr_kv_pool_hold(&q, 0, 70));
    assert_false(tr_kv_pool_hold(&q, 2, 0));
    assert_int_equal(tr_kv_pool_holders(&q, 0, 69), 2);
    assert_int_equal(q.n_free[0], 69);
    tr_kv_pool_free(&q, 0, 69);
    assert_int_equal(q.n_free[0], 69);
    assert_true(tr_kv_pool_taken(&q, 0, 69));
    assert_false(tr_kv_pool_taken(&q, 0, 0));
}

static void against_a_plain_array(void **state) {
    (void)state;
    tr_rng rng = {7};
    for (uint32_t run = 0; run < 50; run++) {
        _Atomic uint64_t bits[256] = {0};
        bool model[400] = {false};
        uint32_t n = 1 + (uint32_t)tr_rng_below(&rng, 400), have = n, page[400];
        tr_kv_layout l = layout_of(n, 0);
        tr_kv_pool p;
        tr_kv_pool_attach(&p, &l, bits);
        for (uint32_t i = 0; i < 300; i++) {
            uint32_t k = (uint32_t)tr_rng_below(&rng, 20), at = (uint32_t)tr_rng_below(&rng, n);
            if (tr_rng_below(&rng, 2) && model[at]) {
                tr_kv_pool_free(&p, 0, at);
                model[at] = false;
                have++;
            } else if (k > have) {
                assert_int_equal(tr_kv_pool_take(&p, 0, k, page), TR_EXHAUSTED);
            } else {
                assert_int_equal(tr_kv_pool_take(&p, 0, k, page), TR_OK);
                for (uint32_t j = 0; j < k; j++) {
                    assert_true(page[j] < n);
                    assert_false(model[page[j]]);
                    model[page[j]] = true;
                }
                have -= k;
            }
            assert_int_equal(p.n_free[0], have);
            assert_int_equal(tr_kv_pool_count_free(&p, 0), have);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(bitmap_size), cmocka_unit_test(all_or_nothing),
                                       cmocka_unit_test(rebuild), cmocka_unit_test(against_a_plain_array)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
