/* Both halves of a hand-off between nodes over one ring: every cell arrives, whatever order and damage; what does not
 * fit the plan fails the job and writes nothing beyond its pages. Page tables of another node follow the scheduler's.
 */
#include "actors/node/node_tables.h"
#include "actors/resharder/kv_receive.h"
#include "actors/resharder/kv_send.h"
#include "base/rng.h"
#include "transport/ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 5, HEADS = 2, DIM = 64, CONTEXT = 700, PAGES = 64, RECORDS = 8, EPOCH = 4 };

typedef struct pool {
    tr_kv_layout layout;
    uint32_t *table, begin[2];
    uint8_t *bytes;
    tr_reshard_side side;
} pool;

static pool src, dst;
static tr_kv_send s;
static tr_kv_receive r;
static tr_channel *in, *out;
static void *ring;
static float tmp[DIM];
static tr_error err;
static const uint32_t none[2] = {0, 0};

static void make(pool *p, tr_kv_format format, uint32_t page, uint32_t step) {
    tr_kv_model m = {.n_layers = LAYERS, .n_kv_heads = HEADS, .head_dim = DIM, .window = 100};
    m.layer_is_global[1] = m.layer_is_global[4] = 1;
    uint32_t pages[TR_KV_GROUPS_MAX] = {PAGES, PAGES};
    assert_int_equal(tr_kv_layout_init(&p->layout, &m, format, page, 2, CONTEXT, pages, &err), TR_OK);
    p->table = malloc(p->layout.table_bytes);
    memset(p->table, 0xff, p->layout.table_bytes);
    for (uint32_t g = 0; g < p->layout.n_groups; g++)
        for (uint32_t i = 0; i < p->layout.pages_per_seq; i++)
            p->table[tr_kv_layout_entry(&p->layout, 1, g, i)] = (i * step + 1) % PAGES;
    p->bytes = calloc(1, p->layout.pool_bytes);
    p->begin[0] = 0;
    p->begin[1] = LAYERS;
    p->side =
        (tr_reshard_side){.layout = &p->layout, .table = p->table, .n_stages = 1, .tp = 1, .layer_begin = p->begin};
}

static int fresh(void **state) {
    (void)state;
    make(&src, TR_KV_BF16, 32, 5);
    make(&dst, TR_KV_INT8, 16, 3);
    tr_rng rng = {3};
    for (uint64_t i = 0; i + 2 <= src.layout.pool_bytes; i += 2) { /* bf16 around 1: finite */
        uint16_t v = (uint16_t)(0x3f80 ^ (tr_rng_next(&rng) & 0x807f));
        memcpy(src.bytes + i, &v, 2);
    }
    size_t capacity = tr_ring_capacity(RECORDS, tr_kv_wire_record_max(&dst.layout));
    ring = aligned_alloc(64, tr_ring_bytes(capacity));
    tr_ring_init(ring, capacity);
    assert_int_equal(tr_ring_attach_producer(ring, capacity, NULL, &out, &err), TR_OK);
    assert_int_equal(tr_ring_attach_consumer(ring, capacity, NULL, &in, &err), TR_OK);
    const tr_ops *ops = tr_ops_find("ref");
    s = (tr_kv_send){.ops = ops, .pool = src.bytes, .from = &src.layout, .to = &dst.layout, .link = out, .tmp = tmp};
    r = (tr_kv_receive){
        .ops = ops, .pool = dst.bytes, .layout = &dst.layout, .link = in, .link_name = "a -> b", .tmp = tmp};
    return 0;
}

static int clean(void **state) {
    (void)state;
    tr_channel_close(in);
    tr_channel_close(out);
    free(ring);
    for (int i = 0; i < 2; i++) {
        pool *p = i ? &dst : &src;
        free(p->table);
        free(p->bytes);
    }
    return 0;
}

static tr_msg_reshard job(uint64_t id, uint32_t tok0, uint32_t tok1) {
    return (tr_msg_reshard){.epoch = EPOCH,
                            .job = id,
                            .src_slot = 1,
                            .dst_slot = 1,
                            .tok0 = tok0,
                            .tok1 = tok1,
                            .tok_min = {none, 2},
                            .layer1 = LAYERS};
}

static void begin(uint64_t id, uint32_t tok0, uint32_t tok1) {
    tr_msg_reshard m = job(id, tok0, tok1);
    assert_int_equal(tr_kv_send_begin(&s, &m, &src.side, &dst.side, &err), TR_OK);
    assert_int_equal(tr_kv_receive_begin(&r, &m, &src.side, &dst.side, &err), TR_OK);
}

/* One byte is flipped in the tiles of every n-th record that is no repair (1: of every record), `most` times. */
static tr_status run(uint32_t every, uint32_t most, tr_status *sent_out) {
    tr_status got = TR_AGAIN;
    *sent_out = TR_AGAIN;
    for (uint32_t turn = 0, seen = 0; turn < 100000 && (got == TR_AGAIN || *sent_out == TR_AGAIN); turn++) {
        bool any = false;
        if (*sent_out == TR_AGAIN) *sent_out = tr_kv_send_pump(&s, &any, &err);
        void *record;
        size_t n;
        if (every && most && tr_channel_peek(in, (const void **)&record, &n) == TR_OK &&
            (every == 1 || !((tr_kv_wire_head *)record)->repair) && seen++ % every == 0) {
            ((uint8_t *)record)[n - 200] ^= 4;
            most--;
        }
        if (got == TR_AGAIN) got = tr_kv_receive_pump(&r, EPOCH, &any, &err);
        for (uint32_t i = 0; i < r.n_replies; i++) tr_kv_send_reply(&s, &r.reply[i]);
        r.n_replies = 0;
        if (got != TR_OK && got != TR_AGAIN) return got;
    }
    return got;
}

/* The pool that one resharder with both pools would have made. */
static void expect_moved(uint32_t tok0, uint32_t tok1) {
    uint8_t *want = calloc(1, dst.layout.pool_bytes);
    tr_msg_reshard m = job(1, tok0, tok1);
    tr_kv_pieces pieces;
    tr_kv_piece p;
    assert_int_equal(tr_kv_pieces_init(&pieces, &m, &src.side, &dst.side, &err), TR_OK);
    while (tr_kv_pieces_next(&pieces, &p))
        tr_kv_convert(tr_ops_find("ref"), TR_KV_INT8, want + p.dst_at, p.pos % 16, TR_KV_BF16, src.bytes + p.src_at,
                      p.pos % 16, p.n_tok, DIM, NULL, NULL, tmp);
    assert_memory_equal(want, dst.bytes, dst.layout.pool_bytes);
    free(want);
}

static void test_moved(void **state) {
    static const uint32_t cuts[] = {0, 1, 16, 40, 47, 300, 611, 700};
    (void)state;
    for (uint32_t i = 0; i + 1 < sizeof cuts / sizeof cuts[0]; i++) {
        tr_status sent;
        begin(i + 1, cuts[i], cuts[i + 1]);
        assert_int_equal(run(0, 0, &sent), TR_OK);
        assert_int_equal(sent, TR_OK);
    }
    expect_moved(0, 700);
    assert_int_equal(r.damaged, 0);
}

static void test_damaged_tiles(void **state) {
    (void)state;
    tr_status sent;
    begin(1, 3, 690);
    assert_int_equal(run(2, 12, &sent), TR_OK);
    assert_int_equal(sent, TR_OK);
    assert_true(r.damaged >= 6);
    expect_moved(3, 690);
}

static void test_a_page_that_never_comes_whole(void **state) {
    (void)state;
    tr_status sent;
    begin(1, 0, 16);
    assert_int_equal(run(1, 100000, &sent), TR_PEER);
    assert_non_null(strstr(err.text, "came damaged over a -> b, 3 times"));
}

/* Every byte of a record, one at a time: caught, by its head or by a tile. */
static void test_every_byte(void **state) {
    (void)state;
    tr_msg_reshard m = job(1, 5, 25);
    assert_int_equal(tr_kv_send_begin(&s, &m, &src.side, &dst.side, &err), TR_OK);
    bool any;
    uint8_t *record;
    size_t n;
    tr_kv_wire_head h;
    assert_int_equal(tr_kv_send_pump(&s, &any, &err), TR_AGAIN);
    assert_int_equal(tr_channel_peek(in, (const void **)&record, &n), TR_OK);
    assert_int_equal(n, tr_kv_wire_record_bytes(&dst.layout, 5, 20));
    assert_int_equal(tr_kv_wire_check(&dst.layout, record, n, &h), TR_OK);
    for (size_t at = 0; at < n; at++) {
        record[at] ^= 0x20;
        bool sound = tr_kv_wire_check(&dst.layout, record, n, &h) == TR_OK;
        for (uint32_t i = 0; sound && i < tr_kv_wire_count(h.pos, h.n_tok); i++)
            sound = tr_kv_wire_tile_sound(&dst.layout, record, i);
        if (sound) fail_msg("byte %zu of %zu", at, n);
        record[at] ^= 0x20;
    }
    for (size_t less = 0; less < n; less++) assert_int_equal(tr_kv_wire_check(&dst.layout, record, less, &h), TR_PROTO);
}

/* Older epochs and jobs are thrown away, later ones wait for their RESHARD. */
static void test_epochs(void **state) {
    (void)state;
    tr_status sent;
    bool any = false;
    begin(1, 0, 30);
    tr_kv_send_pump(&s, &any, &err);
    tr_kv_send_abort(&s); /* a RESET: one record is still under way */
    tr_kv_receive_abort(&r);
    any = false;
    assert_int_equal(tr_kv_receive_pump(&r, EPOCH, &any, &err), TR_AGAIN);
    assert_false(any); /* of this epoch and no job yet: it waits */
    assert_int_equal(tr_kv_receive_pump(&r, EPOCH + 1, &any, &err), TR_AGAIN);
    assert_true(any);
    begin(2, 0, 30);
    assert_int_equal(run(0, 0, &sent), TR_OK);
    expect_moved(0, 30);
    /* Another job than the one that is run: out of turn in the plan. */
    tr_msg_reshard m = job(3, 30, 60), other = job(3, 31, 60);
    assert_int_equal(tr_kv_send_begin(&s, &m, &src.side, &dst.side, &err), TR_OK);
    assert_int_equal(tr_kv_receive_begin(&r, &other, &src.side, &dst.side, &err), TR_OK);
    assert_int_equal(run(0, 0, &sent), TR_PROTO);
    assert_non_null(strstr(err.text, "out of turn"));
}

/* ---- page tables of another node ----------------------------------------------------------------------------------
 */

static tr_company company;
static uint8_t *there;
static uint32_t messages;

static tr_status to_node(void *arg, const tr_msg *m) {
    (void)arg;
    messages++;
    return tr_node_tables_apply(&company, there, &m->as.node_table);
}

static void test_tables(void **state) {
    (void)state;
    tr_node_tables t;
    memset(&company, 0, sizeof company);
    company.layout[0] = src.layout;
    company.layout[1] = dst.layout;
    company.table_offset[1] = src.layout.table_bytes;
    size_t bytes = src.layout.table_bytes + dst.layout.table_bytes;
    uint8_t *here = malloc(bytes);
    there = calloc(1, bytes);
    memset(here, 0xff, bytes);
    memset(there, 0xff, bytes); /* what fills up the last line is nobody's */
    assert_int_equal(tr_node_tables_init(&t, &company, here, &err), TR_OK);
    tr_rng rng = {5};
    for (int round = 0; round < 200; round++) {
        uint32_t p = (uint32_t)tr_rng_below(&rng, 2), slot = (uint32_t)tr_rng_below(&rng, 2);
        const tr_kv_layout *l = &company.layout[p];
        uint32_t *row = (uint32_t *)(void *)(here + company.table_offset[p]) + tr_kv_layout_entry(l, slot, 0, 0);
        for (uint64_t k = tr_rng_below(&rng, 4); k > 0; k--)
            row[tr_rng_below(&rng, l->pages_per_seq)] =
                tr_rng_below(&rng, 3) ? (uint32_t)tr_rng_below(&rng, PAGES) : TR_KV_NO_PAGE;
        if (round == 100) tr_node_tables_forget(&t);
        for (uint32_t i = 0; i < 2; i++) assert_int_equal(tr_node_tables_update(&t, i, to_node, NULL), TR_OK);
        assert_memory_equal(here, there, bytes);
    }
    messages = 0;
    assert_int_equal(tr_node_tables_update(&t, 0, to_node, NULL), TR_OK);
    assert_int_equal(messages, 0); /* nothing has changed */
    assert_int_equal(tr_node_tables_update(&t, 2, to_node, NULL), TR_PROTO);
    /* What does not fit the plan changes nothing. */
    uint32_t page = PAGES, fine[2] = {1, 2};
    const tr_msg_node_table bad[] = {{.pool = 0, .slot = 0, .pages = {&page, 1}},
                                     {.pool = 0, .slot = 2, .pages = {fine, 2}},
                                     {.pool = 1, .slot = 0, .group = 2, .pages = {fine, 2}},
                                     {.pool = 0, .slot = 0, .first = src.layout.pages_per_seq - 1, .pages = {fine, 2}},
                                     {.pool = 0, .slot = 0, .first = UINT32_MAX, .pages = {fine, 2}}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(tr_node_tables_apply(&company, there, &bad[i]), TR_PROTO);
    assert_memory_equal(here, there, bytes);
    tr_node_tables_fini(&t);
    free(here);
    free(there);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, clean)
    const struct CMUnitTest tests[] = {
        TEST(test_moved),      TEST(test_damaged_tiles), TEST(test_a_page_that_never_comes_whole),
        TEST(test_every_byte), TEST(test_epochs),        TEST(test_tables)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
