/* Chunks in slices of layers, by hand: a decode step between any two, the stage's state is never crossed, and nobody's
 * rest is computed for nothing. (All of it under faults: tests/sim.) */
#include "scheduler/scheduler.h"

#include "kv/kv_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FRONT = 0, STAGE = 1, SLOTS = 8, CONTEXT = 512, MS = 1000000 };

static tr_scheduler *sched;
static tr_effects *fx;
static tr_journal *journal;
static uint64_t now;

static void event(tr_event ev) {
    ev.now_ns = now += 1000;
    tr_scheduler_step(sched, &ev, fx);
}
static void msg(uint32_t from, tr_msg m) { event((tr_event){.kind = TR_EVENT_MSG, .from = from, .msg = &m}); }

static void *zeroed(size_t bytes) {
    assert_true(bytes > 0);
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    return memset(p, 0, (bytes + 63) / 64 * 64);
}

static void create(tr_scheduler_config *c) {
    const tr_kv_model m = {.n_layers = 4, .n_kv_heads = 1, .head_dim = 16, .layer_is_global = {1, 1, 1, 1}};
    const uint32_t pages[TR_KV_GROUPS_MAX] = {100};
    tr_error err;
    *c = (tr_scheduler_config){.n_pipelines = 1,
                               .pipeline = {{.n_stages = 1, .stage = {STAGE}, .max_in_flight = 1}},
                               .frontend = FRONT,
                               .resharder = TR_NOBODY,
                               .chunk = 32,
                               .max_rows = 40,
                               .max_batch = 4,
                               .max_waiting = 4,
                               .promise_tok = TR_SCHEDULER_PROMISE_ALL,
                               .one_pool = 1,
                               .context = CONTEXT,
                               .slo_ns = 4 * MS, /* a decode step takes 3 */
                               .vocab = 100};
    assert_int_equal(tr_kv_layout_init(&c->layout[0], &m, TR_KV_BF16, 16, SLOTS, CONTEXT, pages, &err), TR_OK);
    c->layout[1] = c->layout[0];
    c->table[0] = c->table[1] = zeroed(c->layout[0].table_bytes);
    c->bitmap[0] = c->bitmap[1] = zeroed(tr_kv_pool_bitmap_bytes(&c->layout[0]));
    c->journal = journal = zeroed(tr_journal_bytes(SLOTS, CONTEXT));
    tr_journal_init(journal, SLOTS, CONTEXT);
    sched = zeroed(tr_scheduler_bytes(c));
    assert_int_equal(tr_scheduler_init(sched, c), TR_OK);
    event((tr_event){.kind = TR_EVENT_START});
    event((tr_event){.kind = TR_EVENT_PEER_UP, .from = FRONT, .incarnation = 1});
    event((tr_event){.kind = TR_EVENT_PEER_UP, .from = STAGE, .incarnation = 1});
    msg(STAGE, (tr_msg){.type = TR_MSG_RESET_DONE, .as.reset_done.epoch = atomic_load(&journal->epoch)});
}

static void destroy(tr_scheduler_config *c) {
    free(sched);
    free(c->table[0]);
    free((void *)c->bitmap[0]);
    free(journal);
}

static void submit(uint64_t rid, uint32_t prompt, uint32_t max_tokens) {
    uint32_t tokens[CONTEXT];
    for (uint32_t i = 0; i < prompt; i++) tokens[i] = (uint32_t)rid + i % 50;
    msg(FRONT,
        (tr_msg){.type = TR_MSG_SUBMIT,
                 .as.submit = {.rid = rid, .tokens = {tokens, prompt}, .max_tokens = max_tokens, .ignore_eos = 1}});
}

static tr_msg_step step(void) {
    for (uint32_t i = 0; i < fx->n; i++)
        if (fx->item[i].kind == TR_EFFECT_SEND && fx->item[i].msg.type == TR_MSG_STEP) return fx->item[i].msg.as.step;
    fail_msg("no step was issued");
    return (tr_msg_step){0};
}

/* The stage needs `ns` for the step; the one that comes next. */
static tr_msg_step took(tr_msg_step s, uint64_t ns) {
    uint32_t sampled[4] = {20, 20, 20, 20};
    now += ns;
    msg(STAGE, (tr_msg){.type = TR_MSG_STEP_DONE,
                        .as.step_done = {.epoch = s.epoch,
                                         .step = s.step,
                                         .phase = s.phase,
                                         .sampled = {sampled, s.layer1 > 0 ? 0 : s.spans.len}}});
    return step();
}

/* One stream runs, what steps take is known, and a long prompt has come. */
static tr_msg_step long_prompt(tr_scheduler_config *c) {
    create(c);
    submit(1, 40, 400);
    tr_msg_step s = step();
    while (s.phase == TR_PHASE_PREFILL) s = took(s, 4 * MS);
    for (uint32_t i = 0; i < 20; i++) s = took(s, 3 * MS);
    submit(2, 300, 5);
    return s;
}

static void a_decode_step_lies_between(void **state) {
    (void)state;
    tr_scheduler_config c;
    tr_msg_step s = long_prompt(&c);
    uint32_t slices = 0, rows = 0, layer = 0;
    for (uint32_t i = 0; i < 100 && rows < 64; i++) {
        const bool prompt = s.phase == TR_PHASE_PREFILL;
        if (prompt) {
            assert_int_equal(s.layer0, layer); /* where the one before ended */
            layer = s.layer1;
            slices += s.layer1 > 0;
            rows += s.layer1 > 0 ? 0 : s.tokens.len;
        }
        s = took(s, prompt ? 1 * MS : 3 * MS);
        if (prompt) assert_int_equal(s.phase, TR_PHASE_DECODE);
    }
    assert_true(slices > 2 && rows >= 64);
    assert_true(atomic_load(&journal->slices) > slices);
    destroy(&c);
}

static void who_is_cancelled_is_not_gone_on_with(void **state) {
    (void)state;
    tr_scheduler_config c;
    tr_scheduler_stats stats;
    tr_msg_step s = long_prompt(&c);
    while (s.layer1 == 0) s = took(s, 2 * MS);
    s = took(s, 1 * MS);
    msg(FRONT, (tr_msg){.type = TR_MSG_CANCEL, .as.cancel = {.rid = 2, .finish = TR_FINISH_ABORT}});
    for (uint32_t i = 0; i < 3; i++, s = took(s, 3 * MS)) assert_int_equal(s.phase, TR_PHASE_DECODE);
    msg(FRONT, (tr_msg){.type = TR_MSG_RELEASE, .as.release.rid = 2});
    assert_int_equal(atomic_load(&tr_journal_at(journal, 1)->state), TR_JOURNAL_FREE);
    tr_scheduler_get_stats(sched, &stats);
    assert_int_equal(stats.protocol_errors, 0);
    destroy(&c);
}

int main(void) {
    fx = calloc(1, sizeof *fx);
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_decode_step_lies_between),
                                       cmocka_unit_test(who_is_cancelled_is_not_gone_on_with)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(fx);
    return failed;
}
