/* The prefix index: what is found is what was put in, to the last token; pages go when they are needed, ends first; and
 * a random life against a plain list of what every page holds. */
#include "kv/kv_prefix.h"

#include "base/rng.h"
#include "kv/kv_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { T = 16, PER_SEQ = 8, PAGES0 = 20, PAGES1 = 12, WINDOW = 24, LEN = T * PER_SEQ };

static const tr_siphash_key KEY = {{1, 2}};
static const tr_kv_prefix_tenant NOBODY = {{0, 0}};
static tr_kv_layout layout;
static _Atomic uint64_t bits[64];
static tr_kv_pool pool;
static tr_kv_prefix *index_;
static uint32_t tokens[LEN];

static int setup(void **state) {
    (void)state;
    layout = (tr_kv_layout){.n_groups = 2, .page_tok = T, .n_slots = 4, .pages_per_seq = PER_SEQ};
    layout.group[0].n_pages = PAGES0;
    layout.group[1].n_pages = PAGES1;
    layout.group[1].window = WINDOW;
    memset((void *)bits, 0, sizeof bits);
    index_ = aligned_alloc(64, tr_kv_prefix_bytes(&layout));
    memset(index_, 0xee, tr_kv_prefix_bytes(&layout));
    tr_kv_prefix_init(index_, &layout, KEY);
    tr_kv_pool_attach(&pool, &layout, bits);
    pool.cache = index_;
    for (uint32_t i = 0; i < LEN; i++) tokens[i] = 100 + i;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    free(index_);
    return 0;
}

/* Take n pages of each group, and make the first n of the tokens known. */
static void put(uint32_t n, uint32_t page[2][PER_SEQ], tr_kv_prefix_tenant tenant) {
    uint64_t node = 0;
    for (uint32_t g = 0; g < 2; g++) assert_int_equal(tr_kv_pool_take(&pool, g, n, page[g]), TR_OK);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t both[2] = {page[0][i], page[1][i]};
        node = tr_kv_prefix_insert(index_, node, tenant, tokens + i * T, both);
        assert_true(node != 0);
    }
}

static void give_back(uint32_t n, uint32_t page[2][PER_SEQ]) {
    for (uint32_t g = 0; g < 2; g++)
        for (uint32_t i = n; i-- > 0;) tr_kv_pool_free(&pool, g, page[g][i]);
}

static void found_again(void **state) {
    (void)state;
    uint32_t page[2][PER_SEQ];
    put(4, page, NOBODY);
    assert_int_equal(tr_kv_prefix_find(index_, NOBODY, tokens, LEN), 4); /* while it is still held */
    give_back(4, page);
    assert_int_equal(pool.n_free[0], PAGES0);
    assert_int_equal(tr_kv_prefix_cached(index_, 0), 4);
    assert_int_equal(tr_kv_prefix_find(index_, NOBODY, tokens, LEN), 4);
    for (uint32_t i = 0; i < 4; i++) assert_int_equal(tr_kv_prefix_page(index_, i, 1), page[1][i]);
    assert_int_equal(tr_kv_prefix_usable(index_, 9, 0), 4);
    assert_int_equal(tr_kv_prefix_usable(index_, 3, 0), 3);
    assert_int_equal(tr_kv_prefix_find(index_, NOBODY, tokens, 4 * T - 1), 3); /* full pages only */
    tokens[T + 3]++;
    assert_int_equal(tr_kv_prefix_find(index_, NOBODY, tokens, LEN), 1);
    tokens[T + 3]--;
    tokens[0]++;
    assert_int_equal(tr_kv_prefix_find(index_, NOBODY, tokens, LEN), 0);
    assert_int_equal(tr_kv_prefix_page(index_, 0, 0), TR_KV_NO_PAGE);
}

/* The same tokens of somebody else are not found, nor the same page behind another one. */
static void of_whom_and_where(void **state) {
    (void)state;
    uint32_t page[2][PER_SEQ];
    tr_kv_prefix_tenant a = tr_kv_prefix_tenant_of(KEY, "a", 1), b = tr_kv_prefix_tenant_of(KEY, "b", 1);
    assert_memory_not_equal(&a, &b, sizeof a);
    put(2, page, a);
    assert_int_equal(tr_kv_prefix_find(index_, a, tokens, LEN), 2);
    assert_int_equal(tr_kv_prefix_find(index_, b, tokens, LEN), 0);
    assert_int_equal(tr_kv_prefix_find(index_, NOBODY, tokens, LEN), 0);
    assert_int_equal(tr_kv_prefix_find(index_, a, tokens + T, LEN - T), 0); /* the second page is no beginning */
}

static void held_pages_stay(void **state) {
    (void)state;
    uint32_t page[2][PER_SEQ], all[PAGES0];
    put(4, page, NOBODY);
    for (uint32_t i = 4; i-- > 2;) tr_kv_pool_free(&pool, 0, page[0][i]); /* the first two are still in use */
    assert_int_equal(pool.n_free[0], PAGES0 - 2);
    assert_int_equal(tr_kv_pool_take(&pool, 0, PAGES0 - 1, all), TR_EXHAUSTED);
    assert_int_equal(tr_kv_pool_take(&pool, 0, PAGES0 - 4, all), TR_OK); /* what holds nothing goes first */
    assert_int_equal(tr_kv_prefix_cached(index_, 0), 2);
    assert_int_equal(tr_kv_pool_take(&pool, 0, 1, all), TR_OK);
    assert_int_equal(all[0], page[0][3]);                                /* then the end of what is known */
    assert_int_equal(tr_kv_prefix_find(index_, NOBODY, tokens, LEN), 4); /* group 1 still has its page */
    assert_int_equal(tr_kv_prefix_usable(index_, 9, 0), 3);
    assert_true(tr_kv_pool_hold(&pool, 0, page[0][2])); /* in use again: not in the list any more */
    assert_int_equal(tr_kv_pool_take(&pool, 0, 1, all), TR_EXHAUSTED);
    tr_kv_pool_free(&pool, 0, page[0][2]);
    tr_kv_prefix_flush(index_);
    assert_int_equal(pool.n_free[0], 1);
    assert_int_equal(tr_kv_prefix_cached(index_, 0), 0);
    assert_int_equal(tr_kv_prefix_find(index_, NOBODY, tokens, LEN), 0);
    assert_int_equal(tr_kv_pool_take(&pool, 0, 1, all), TR_OK);
}

/* A run counts only where the sliding group has what the next query sees. */
static void window_decides(void **state) {
    (void)state;
    uint32_t page[2][PER_SEQ], sink[PAGES1];
    put(6, page, NOBODY);
    give_back(6, page);
    assert_int_equal(tr_kv_prefix_find(index_, NOBODY, tokens, LEN), 6);
    assert_int_equal(tr_kv_prefix_usable(index_, 9, 0), 6);
    /* the end of the sliding group goes: the query at 80 sees 57..80, pages 3 and 4 */
    assert_int_equal(tr_kv_pool_take(&pool, 1, PAGES1 - 5, sink), TR_OK);
    assert_int_equal(tr_kv_prefix_find(index_, NOBODY, tokens, LEN), 6);
    assert_int_equal(tr_kv_prefix_page(index_, 5, 1), TR_KV_NO_PAGE);
    assert_int_equal(tr_kv_prefix_usable(index_, 9, 0), 5);
    /* read only from position 120 on, which sees nothing of the six pages but 97..: all of the global ones will do */
    assert_int_equal(tr_kv_prefix_usable(index_, 9, 120), 6);
    assert_int_equal(tr_kv_prefix_usable(index_, 9, 100), 5); /* 77..100: pages 4 and 5 */
}

static void second_copy_is_left_alone(void **state) {
    (void)state;
    uint32_t a[2][PER_SEQ], b[2][PER_SEQ];
    put(2, a, NOBODY);
    put(2, b, NOBODY);
    assert_int_equal(tr_kv_prefix_find(index_, NOBODY, tokens, LEN), 2);
    assert_int_equal(tr_kv_prefix_page(index_, 1, 0), a[0][1]);
    assert_false(tr_kv_prefix_knows(index_, 0, b[0][1]));
    give_back(2, b);
    assert_int_equal(tr_kv_prefix_cached(index_, 0), 0); /* just free */
    const uint32_t none[2] = {TR_KV_NO_PAGE, TR_KV_NO_PAGE};
    assert_true(tr_kv_prefix_insert(index_, 0, NOBODY, tokens, none) != 0); /* known already */
    assert_true(tr_kv_prefix_insert(index_, 0, NOBODY, tokens + 1, none) == 0);
}

/* ---- a random life ---- */
typedef struct text {
    uint32_t n, of;
    uint32_t token[LEN];
} text;
typedef struct content { /* of a page, as far as it is complete */
    bool known;
    uint32_t n, of, token[LEN];
} content;
typedef struct sequence {
    bool used;
    text t;
    uint32_t done, learnt;
    uint64_t node;
    tr_kv_table_row row;
} sequence;

static content holds[2][PAGES0];
static sequence seq[4];
static uint32_t table[4 * 2 * PER_SEQ];

/* Few tokens and few beginnings, so that texts meet. */
static text draw(tr_rng *r) {
    text t = {.n = 1 + (uint32_t)tr_rng_below(r, LEN), .of = (uint32_t)tr_rng_below(r, 2)};
    uint32_t seed = (uint32_t)tr_rng_below(r, 3), branch = (uint32_t)tr_rng_below(r, LEN * 2);
    for (uint32_t i = 0; i < t.n; i++) t.token[i] = (uint32_t)tr_rng_hash(seed, i < branch ? i : i + branch) % 7;
    return t;
}

static tr_kv_prefix_tenant whose(uint32_t of) { return of == 0 ? NOBODY : tr_kv_prefix_tenant_of(KEY, "tenant", 6); }

static void begin(sequence *s, uint32_t slot, tr_rng *r, uint64_t *hits) {
    *s = (sequence){.t = draw(r)};
    tr_kv_prefix_find(index_, whose(s->t.of), s->t.token, s->t.n - 1);
    uint32_t end = tr_kv_prefix_usable(index_, PER_SEQ, 0);
    for (uint32_t g = 0; g < 2; g++) {
        uint32_t pos = end * T, from = g == 0 || pos + 1 <= WINDOW ? 0 : (pos + 1 - WINDOW) / T;
        for (uint32_t i = from; i < end; i++) {
            uint32_t page = tr_kv_prefix_page(index_, i, g);
            assert_true(page != TR_KV_NO_PAGE);
            const content *c = &holds[g][page];
            assert_true(c->known && c->n == (i + 1) * T && c->of == s->t.of);
            assert_memory_equal(c->token, s->t.token, c->n * sizeof(uint32_t));
            tr_kv_table_share(&layout, table, slot, &s->row, g, i, page, &pool);
        }
    }
    *hits += end;
    s->used = true;
    s->done = end * T;
}

/* A few more positions; false: no page. */
static bool go_on(sequence *s, uint32_t slot, tr_rng *r) {
    uint32_t to = s->done + 1 + (uint32_t)tr_rng_below(r, 30);
    if (to > s->t.n) to = s->t.n;
    for (uint32_t g = 0; g < 2; g++) {
        uint32_t from = g == 0 || s->done + 1 <= WINDOW ? 0 : s->done + 1 - WINDOW, held = s->row.end[g];
        bool empty = s->row.first[g] == held;
        if (tr_kv_table_extend(&layout, table, slot, &s->row, g, from, to, &pool) != TR_OK) return false;
        for (uint32_t i = empty ? s->row.first[g] : held; i < s->row.end[g]; i++)
            holds[g][table[tr_kv_layout_entry(&layout, slot, g, i)]].known = false;
    }
    s->done = to;
    for (; (s->learnt + 1) * T <= s->done; s->learnt++) {
        uint32_t page[2];
        for (uint32_t g = 0; g < 2; g++) {
            page[g] = table[tr_kv_layout_entry(&layout, slot, g, s->learnt)];
            if (page[g] == TR_KV_NO_PAGE) continue;
            content *c = &holds[g][page[g]];
            *c = (content){.known = true, .n = (s->learnt + 1) * T, .of = s->t.of};
            memcpy(c->token, s->t.token, c->n * sizeof(uint32_t));
        }
        s->node = tr_kv_prefix_insert(index_, s->node, whose(s->t.of), s->t.token + s->learnt * T, page);
        assert_true(s->node != 0); /* the global group has all of its pages */
    }
    uint32_t below = s->done + 1 <= WINDOW ? 0 : s->done + 1 - WINDOW;
    tr_kv_table_drop(&layout, table, slot, &s->row, 1, below, &pool);
    return true;
}

static void check_counts(void) {
    for (uint32_t g = 0; g < 2; g++) {
        uint32_t n = layout.group[g].n_pages, held = 0, cached = 0;
        for (uint32_t page = 0; page < n; page++) {
            bool in_list = tr_kv_prefix_cached_word(index_, g, page / 64) >> page % 64 & 1;
            assert_int_equal(tr_kv_pool_taken(&pool, g, page), tr_kv_pool_holders(&pool, g, page) > 0);
            assert_false(in_list && tr_kv_pool_taken(&pool, g, page));
            assert_false(in_list && !tr_kv_prefix_knows(index_, g, page));
            held += tr_kv_pool_taken(&pool, g, page);
            cached += in_list;
        }
        assert_int_equal(held + pool.n_free[g], n);
        assert_int_equal(cached, tr_kv_prefix_cached(index_, g));
        assert_true(cached <= pool.n_free[g]);
    }
}

static void random_lives(void **state) {
    (void)state;
    tr_rng r = {42};
    uint64_t hits = 0;
    tr_kv_table_clear(&layout, table);
    memset(seq, 0, sizeof seq);
    memset(holds, 0, sizeof holds);
    for (uint32_t i = 0; i < 60000; i++) {
        uint32_t slot = (uint32_t)tr_rng_below(&r, 4);
        sequence *s = &seq[slot];
        if (!s->used)
            begin(s, slot, &r, &hits);
        else if (s->done == s->t.n || tr_rng_below(&r, 20) == 0 || !go_on(s, slot, &r)) {
            tr_kv_table_drop_all(&layout, table, slot, &s->row, &pool);
            s->used = false;
        }
        if (tr_rng_below(&r, 5000) == 0) tr_kv_prefix_flush(index_);
        if (i % 16 == 0) check_counts();
    }
    for (uint32_t slot = 0; slot < 4; slot++) tr_kv_table_drop_all(&layout, table, slot, &seq[slot].row, &pool);
    check_counts();
    assert_int_equal(pool.n_free[0], PAGES0);
    assert_int_equal(pool.n_free[1], PAGES1);
    tr_kv_prefix_stats stats;
    tr_kv_prefix_get_stats(index_, &stats);
    assert_true(hits > 1000 && stats.evicted > 1000); /* it was a life */
    tr_kv_prefix_flush(index_);
    check_counts();
    assert_int_equal(tr_kv_prefix_cached(index_, 0) + tr_kv_prefix_cached(index_, 1), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(found_again, setup, teardown),
                                       cmocka_unit_test_setup_teardown(of_whom_and_where, setup, teardown),
                                       cmocka_unit_test_setup_teardown(held_pages_stay, setup, teardown),
                                       cmocka_unit_test_setup_teardown(window_decides, setup, teardown),
                                       cmocka_unit_test_setup_teardown(second_copy_is_left_alone, setup, teardown),
                                       cmocka_unit_test_setup_teardown(random_lives, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
