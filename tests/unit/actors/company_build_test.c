/* The plan of a company: every size and reference in it holds, and what cannot be built is refused in words. */
#include "actors/runtime/company_build.h"
#include "actors/runtime/control.h"
#include "kv/kv_pool.h"
#include "scheduler/journal.h"
#include "transport/event.h"
#include "transport/ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static tr_company c;
static tr_machine machine;
static tr_error err;

/* 18 layers, every sixth global, window 512: the shape of Gemma 3 270M. */
static tr_model_config gemma(void) {
    tr_model_config m = {.arch = TR_ARCH_GEMMA3,
                         .n_layers = 18,
                         .hidden = 640,
                         .ffn = 2048,
                         .n_heads = 4,
                         .n_kv_heads = 1,
                         .head_dim = 256,
                         .vocab = 262144,
                         .context_max = 32768,
                         .sliding_window = 512,
                         .tied_embeddings = true,
                         .n_eos = 2,
                         .eos_ids = {1, 106}};
    for (uint32_t i = 5; i < 18; i += 6) m.layer_is_global[i] = 1;
    return m;
}

static tr_company_build_want want(uint32_t prefill, uint32_t decode) {
    tr_company_build_want w = {.unified = decode == 0, .chunk = 256, .max_waiting = 64};
    w.side[0] =
        (tr_company_build_side){.pp = prefill, .tp = 1, .dtype = TR_PRECISION_BF16, .kv = TR_KV_BF16, .page = 16};
    w.side[1] = (tr_company_build_side){
        .pp = decode ? decode : prefill, .tp = 1, .dtype = TR_PRECISION_INT8, .kv = TR_KV_INT8, .page = 16};
    return w;
}

static void describe(const char *text, uint64_t memory) {
    assert_int_equal(tr_machine_synthetic(text, &machine, &err), TR_OK);
    machine.is_this_system = true; /* as if it were: the plan pins */
    machine.memory_bytes = memory;
}

static tr_status build(const tr_company_build_want *w) {
    tr_model_config m = gemma();
    memset(&err, 0, sizeof err);
    return tr_company_build(w, &m, &machine, &c, &err);
}
static void must(const tr_company_build_want *w) {
    if (build(w) != TR_OK) fail_msg("%s", err.text);
}

/* What holds in every plan. */
static void assert_sound(void) {
    uint64_t end = 0;
    assert_int_equal(c.segment[TR_SEGMENT_CONTROL].bytes, sizeof(tr_control));
    assert_int_equal(c.segment[TR_SEGMENT_JOURNAL].bytes, tr_journal_bytes(c.n_slots, c.context));
    for (uint32_t i = 0; i < c.n_links; i++) {
        const tr_company_link *l = &c.link[i];
        assert_int_equal(l->offset % 64, 0);
        assert_true(l->offset >= end); /* rings do not overlap */
        assert_true(l->bytes >= tr_ring_bytes(l->capacity));
        assert_true(l->capacity >= tr_ring_capacity(2, l->record_max));
        assert_true(l->from < c.n_actors && l->to < c.n_actors && l->from != l->to);
        assert_ptr_equal(tr_company_find_link(&c, (tr_link_kind)l->kind, l->from, l->to), l); /* one of a kind */
        end = l->offset + l->bytes;
    }
    assert_true(end <= c.segment[TR_SEGMENT_LINKS].bytes);
    for (uint32_t p = 0; p < (c.one_pool ? 1u : 2u); p++) {
        assert_true(c.table_offset[p] + c.layout[p].table_bytes <= c.bitmap_offset[p]);
        assert_true(c.bitmap_offset[p] + tr_kv_pool_bitmap_bytes(&c.layout[p]) <= c.segment[TR_SEGMENT_TABLES].bytes);
        assert_int_equal(c.bitmap_offset[p] % 64, 0);
        assert_true((uint64_t)c.layout[p].pages_per_seq * c.layout[p].page_tok >= c.context);
        assert_int_equal(c.layout[p].n_slots, c.n_slots);
    }
    assert_true(c.max_rows >= c.chunk && c.max_rows >= c.max_batch);
    assert_true(c.resharder == TR_NOBODY ? c.one_pool : !c.one_pool);
}

/* Ranks of a stage: its leader first, workers numbered through, the same memory, which no other stage has. */
static void assert_ranks(const tr_company_actor *lead) {
    uint32_t workers = 0;
    for (uint32_t r = 0; r < lead->tp; r++) {
        const tr_company_actor *s = lead + r;
        char name[64];
        snprintf(name, sizeof name, r ? "%s.%u" : "%s", lead->name, r);
        assert_string_equal(s->name, name);
        assert_int_equal(s->rank, r);
        assert_int_equal(s->worker0, workers);
        workers += s->workers;
        assert_int_equal(s->lo, lead->lo);
        assert_int_equal(s->hi, lead->hi);
        assert_int_equal(s->team_offset, lead->team_offset);
        assert_int_equal(s->team_bytes, lead->team_bytes);
        assert_memory_equal(s->phase, lead->phase, sizeof s->phase);
    }
    for (uint32_t r = 0; r < lead->tp; r++) assert_int_equal(lead[r].team_workers, workers);
    assert_int_equal(lead->team_bytes > 0, lead->tp > 1);
    if (lead->tp == 1) return;
    assert_int_equal(lead->team_offset % 4096, 0);
    assert_true(lead->team_filled > (uint64_t)c.max_rows * c.hidden * 4 && lead->team_filled <= lead->team_bytes);
    assert_true(lead->team_offset + lead->team_bytes <= c.segment[TR_SEGMENT_TEAMS].bytes);
    for (uint32_t a = 0; a < c.n_actors; a++) {
        const tr_company_actor *o = &c.actor[a];
        if (o->role != TR_ROLE_STAGE || o->tp == 1 || (o >= lead && o < lead + lead->tp)) continue;
        assert_true(o->team_offset + o->team_bytes <= lead->team_offset ||
                    o->team_offset >= lead->team_offset + lead->team_bytes);
    }
}

/* Stages of each pipeline cover all layers once, in order, and are linked in a chain. */
static void assert_chain(uint32_t pipeline, uint32_t n_stages) {
    uint32_t layer = 0, stage = 0, first = TR_NOBODY, before = TR_NOBODY;
    for (uint32_t a = 0; a < c.n_actors; a++) {
        const tr_company_actor *s = &c.actor[a];
        if (s->role != TR_ROLE_STAGE || s->pipeline != pipeline) continue;
        assert_non_null(tr_company_find_link(&c, TR_LINK_CONTROL, c.scheduler, a));
        assert_non_null(tr_company_find_link(&c, TR_LINK_CONTROL, a, c.scheduler));
        if (s->rank > 0) continue;
        assert_ranks(s);
        assert_int_equal(s->stage, stage++);
        assert_int_equal(s->n_stages, n_stages);
        assert_int_equal(s->lo, layer);
        assert_true(s->hi > s->lo);
        layer = s->hi;
        assert_true(s->workers > 0 && s->workers <= TR_COMPANY_CPUS_MAX);
        if (before != TR_NOBODY) {
            const tr_company_link *l = tr_company_find_link(&c, TR_LINK_ACTIVATION, before, a);
            assert_non_null(l);
            assert_int_equal(l->record_max, 64 + (uint64_t)c.max_rows * c.hidden * 4);
        }
        if (first == TR_NOBODY) first = a;
        before = a;
    }
    assert_int_equal(stage, n_stages);
    assert_int_equal(layer, 18);
    const tr_company_link *logits = tr_company_find_link(&c, TR_LINK_LOGITS, before, c.frontend);
    assert_non_null(logits);
    assert_int_equal(logits->record_max, 64 + 262144 * 4);
    const bool fed = n_stages > 1 && c.actor[first].phase[TR_PHASE_DECODE - 1].active;
    assert_true((tr_company_find_link(&c, TR_LINK_TOKENS, before, first) != NULL) == fed);
}

static void test_split(void **state) {
    (void)state;
    describe("node:2 core:4 pu:1", 64ull << 30);
    tr_company_build_want w = want(2, 3);
    w.n_requests = 1;
    w.request_tokens = 100;
    must(&w);
    assert_sound();
    assert_chain(0, 2);
    assert_chain(1, 3);
    assert_false(c.unified || c.one_pool || c.exclusive);
    assert_int_equal(c.context, 112);
    assert_int_equal(c.max_in_flight[0], 2);
    assert_int_equal(c.max_in_flight[1], 3);
    assert_int_equal(c.n_actors, 4 + 5);
    assert_string_equal(c.actor[c.n_actors - 1].name, "decode.2");
    const tr_company_actor *d = tr_company_find_actor(&c, "decode.1");
    assert_non_null(d);
    assert_int_equal(d->phase[0].active, 0);
    assert_int_equal(d->phase[1].active, 1);
    assert_int_equal(d->phase[1].pool, 1);
    assert_int_equal(d->phase[1].precision, TR_PRECISION_INT8);
    assert_true(d->numa_node >= 0 && d->n_cpus > 0 && d->spin_ns > 0);
    assert_int_equal(c.eos[1], 106);
    assert_int_equal(c.n_eos, 2);
    assert_null(tr_company_find_actor(&c, "gateway"));
}

static void test_unified(void **state) {
    (void)state;
    describe("node:1 core:2 pu:1", 8ull << 30);
    tr_company_build_want w = want(3, 0);
    must(&w);
    assert_sound();
    assert_chain(0, 3);
    assert_true(c.unified && c.exclusive);
    assert_int_equal(c.actor[c.n_actors - 1].spin_ns, 0);
    assert_int_equal(c.actor[c.n_actors - 1].phase[0].pool, 0);
    assert_int_equal(c.actor[c.n_actors - 1].phase[1].pool, 1);
    w.side[1].kv = TR_KV_BF16; /* same format: one pool, nobody copies */
    must(&w);
    assert_sound();
    assert_true(c.one_pool);
    assert_int_equal(c.actor[c.n_actors - 1].phase[1].pool, 0);
    assert_int_equal(c.segment[TR_SEGMENT_POOL_DECODE].bytes, 0);
    assert_null(tr_company_find_actor(&c, "resharder"));
}

static void test_memory_of_a_request(void **state) {
    (void)state;
    describe("node:1 core:4 pu:1", 8ull << 30);
    tr_company_build_want w = want(1, 1);
    w.n_requests = 3;
    w.request_tokens = 1000;
    must(&w);
    /* 3 sequences: 63 pages of the global group in both pools */
    for (int p = 0; p < 2; p++) assert_int_equal(c.layout[p].group[0].n_pages, 3 * 63);
    assert_true(c.layout[0].pool_bytes > c.layout[1].pool_bytes); /* bf16 against int8 */
    assert_int_equal(c.max_batch, 3);
    w.context = 512;
    assert_int_equal(build(&w), TR_DATA);
}

static void test_memory_of_a_company_that_stays(void **state) {
    (void)state;
    describe("node:1 core:4 pu:1", 64ull << 30);
    tr_company_build_want w = want(1, 1);
    must(&w);
    assert_sound();
    assert_int_equal(c.context, 32768);
    for (int p = 0; p < 2; p++) assert_int_equal(c.layout[p].group[0].n_pages, 8 * 2048); /* eight full contexts */
    describe("node:1 core:4 pu:1", 1ull << 30); /* a quarter of the memory is less */
    must(&w);
    uint64_t sum = c.layout[0].pool_bytes + c.layout[1].pool_bytes;
    assert_in_range(sum, 128 << 20, 256 << 20);
    describe("node:1 core:4 pu:1", 64ull << 20); /* not one full context: a shorter one */
    must(&w);
    assert_true(c.context < 32768 && c.context >= 512);
    assert_true(c.layout[0].pool_bytes + c.layout[1].pool_bytes <= 16 << 20);
}

static void test_kv_memory_is_kept(void **state) {
    (void)state;
    describe("node:1 core:4 pu:1", 64ull << 30);
    for (uint64_t mib = 60; mib < 4000; mib += 111) {
        tr_company_build_want w = want(2, 2);
        w.kv_memory = mib << 20;
        w.context = 4096;
        must(&w);
        assert_sound();
        assert_true(c.layout[0].pool_bytes + c.layout[1].pool_bytes <=
                    w.kv_memory + (1 << 20)); /* rounding of layers */
    }
    tr_company_build_want w = want(2, 2);
    w.kv_memory = 1 << 20;
    w.context = 4096;
    assert_int_equal(build(&w), TR_CONFIG);
    assert_non_null(strstr(err.text, "--kv-memory"));
    describe("node:1 core:4 pu:1", 1ull << 30);
    w.kv_memory = 2ull << 30; /* more than there is: said now, not by a killed process */
    assert_int_equal(build(&w), TR_CONFIG);
    assert_non_null(strstr(err.text, "1024 MiB may be used here"));
    machine.is_this_system = false;
    must(&w);
}

static void test_refused(void **state) {
    (void)state;
    describe("node:1 core:4 pu:1", 64ull << 30);
    tr_company_build_want w = want(19, 1);
    assert_int_equal(build(&w), TR_CONFIG);
    assert_non_null(strstr(err.text, "prefill.pp: 19 stages for the 18 layers"));
    w = want(1, 3);
    w.side[1].n_layers = 3;
    memcpy(w.side[1].layers, (uint32_t[]){6, 6, 7}, 12);
    assert_int_equal(build(&w), TR_CONFIG);
    assert_non_null(strstr(err.text, "decode"));
    memcpy(w.side[1].layers, (uint32_t[]){18, 0, 0}, 12);
    assert_int_equal(build(&w), TR_CONFIG);
    w.side[1].n_layers = 2;
    assert_int_equal(build(&w), TR_CONFIG);
    w = want(1, 1);
    w.side[0].page = 24;
    assert_int_equal(build(&w), TR_CONFIG);
    w = want(1, 1);
    w.context = 32769;
    assert_int_equal(build(&w), TR_CONFIG);
    w = want(1, 1);
    w.chunk = 0;
    assert_int_equal(build(&w), TR_CONFIG);
    w = want(3, 2);
    w.cores = TR_PLACEMENT_OWN;
    assert_int_equal(build(&w), TR_CONFIG);
}

static void test_ranks(void **state) {
    (void)state;
    describe("node:2 core:4 pu:1", 64ull << 30);
    tr_company_build_want w = want(2, 3);
    w.side[0].tp = 3;
    w.side[1].tp = 2;
    must(&w);
    assert_sound();
    assert_chain(0, 2);
    assert_chain(1, 3);
    assert_int_equal(c.n_actors, 4 + 6 + 6);
    assert_non_null(tr_company_find_actor(&c, "prefill.1.2"));
    assert_non_null(tr_company_find_actor(&c, "decode.2.1"));
    assert_null(tr_company_find_actor(&c, "decode.2.2"));
    /* logits of all rows are address space, not memory */
    assert_true(c.segment[TR_SEGMENT_TEAMS].sparse + 2 * 4096 >= 2 * (uint64_t)c.max_rows * c.vocab * 4);
    assert_true(c.segment[TR_SEGMENT_TEAMS].bytes - c.segment[TR_SEGMENT_TEAMS].sparse < 200 << 20);
    w.side[1].tp = 1;
    must(&w);
    assert_sound();
    assert_chain(1, 3);
    tr_company_build_want wide = want(1, 0);
    wide.side[0].tp = 5;
    describe("node:5 core:64 pu:1", 64ull << 30);
    assert_int_equal(build(&wide), TR_CONFIG);
    assert_non_null(strstr(err.text, "unified.0 has 320 workers"));
    wide.threads = 256;
    must(&wide);
    assert_chain(0, 1);
    describe("node:2 core:4 pu:1", 64ull << 30);
    w.side[1].tp = 20;
    assert_int_equal(build(&w), TR_CONFIG);
    assert_non_null(strstr(err.text, "66 ranks of stages in all: at most 64"));
    w.side[1].tp = 0;
    assert_int_equal(build(&w), TR_CONFIG);
    tr_company_build_want u = want(2, 0);
    u.side[0].tp = 3;
    must(&u);
    assert_sound();
    assert_chain(0, 2);
    assert_non_null(tr_company_find_actor(&c, "unified.1.2"));
}

static void test_given_layers(void **state) {
    (void)state;
    describe("node:1 core:8 pu:1", 64ull << 30);
    tr_company_build_want w = want(1, 3);
    w.side[1].n_layers = 3;
    memcpy(w.side[1].layers, (uint32_t[]){10, 1, 7}, 12);
    must(&w);
    assert_int_equal(tr_company_find_actor(&c, "decode.1")->lo, 10);
    assert_int_equal(tr_company_find_actor(&c, "decode.2")->lo, 11);
}

static void test_described_machine_is_not_pinned(void **state) {
    (void)state;
    describe("node:2 core:4 pu:1", 64ull << 30);
    machine.is_this_system = false;
    tr_company_build_want w = want(2, 2);
    must(&w);
    assert_false(c.exclusive);
    for (uint32_t a = 0; a < c.n_actors; a++) {
        assert_int_equal(c.actor[a].n_cpus, 0);
        assert_int_equal(c.actor[a].numa_node, -1);
    }
    assert_true(tr_company_find_actor(&c, "prefill.0")->workers > 0);
}

/* Every shape of pipelines gives a sound plan. */
static void test_all_shapes(void **state) {
    (void)state;
    describe("node:2 core:5 pu:1", 64ull << 30);
    for (uint32_t p = 1; p <= 18; p++)
        for (uint32_t d = 0; d <= 18; d += 3) {
            tr_company_build_want w = want(p, d);
            w.n_requests = 1 + d;
            w.request_tokens = 33;
            w.logits = p % 2;
            must(&w);
            assert_sound();
            assert_chain(0, p);
            if (d) assert_chain(1, d);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_unified),
        cmocka_unit_test(test_memory_of_a_request),
        cmocka_unit_test(test_memory_of_a_company_that_stays),
        cmocka_unit_test(test_kv_memory_is_kept),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_given_layers),
        cmocka_unit_test(test_described_machine_is_not_pinned),
        cmocka_unit_test(test_all_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
