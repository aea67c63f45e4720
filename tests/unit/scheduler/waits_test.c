/* Why the stages of a pipeline wait, as the scheduler tells it: a company of two pipelines of two stages by hand. */
#include "kv/kv_pool.h"
#include "scheduler/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FRONT = 0, RESHARDER = 2, P0 = 3, P1 = 4, D0 = 5, D1 = 6, SLOTS = 8, CONTEXT = 256 };

static tr_scheduler *sched;
static tr_scheduler_config config;
static tr_effects *fx;
static uint64_t now;

static void event(tr_event ev) {
    ev.now_ns = now += 1000;
    tr_scheduler_step(sched, &ev, fx);
}
static void msg(uint32_t from, tr_msg m) { event((tr_event){.kind = TR_EVENT_MSG, .from = from, .msg = &m}); }
static const tr_msg *sent(uint32_t to, tr_msg_type type, uint32_t n) {
    for (uint32_t i = 0; i < fx->n; i++)
        if (fx->item[i].kind == TR_EFFECT_SEND && fx->item[i].to == to && fx->item[i].msg.type == type && n-- == 0)
            return &fx->item[i].msg;
    return NULL;
}

static void *zeroed(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    memset(p, 0, bytes);
    return p;
}

/* Up, and reset where that is asked for. */
static void up(uint32_t actor) {
    event((tr_event){.kind = TR_EVENT_PEER_UP, .from = actor, .incarnation = 1});
    uint32_t epoch[D1 + 1];
    for (uint32_t a = 0; a <= D1; a++)
        epoch[a] = sent(a, TR_MSG_RESET, 0) ? sent(a, TR_MSG_RESET, 0)->as.reset.epoch : 0;
    for (uint32_t a = 0; a <= D1; a++)
        if (epoch[a]) msg(a, (tr_msg){.type = TR_MSG_RESET_DONE, .as.reset_done.epoch = epoch[a]});
}

static void create(bool exclusive, uint32_t pages) {
    tr_kv_model m = {.n_layers = 4, .n_kv_heads = 1, .head_dim = 16, .window = 20, .layer_is_global = {1, 0, 1, 0}};
    const uint32_t actors[] = {FRONT, P0, P1, D0, D1, RESHARDER}, room[][TR_KV_GROUPS_MAX] = {{pages, 40}, {40, 40}};
    tr_error err;
    config = (tr_scheduler_config){.n_pipelines = 2,
                                   .pipeline = {{2, {P0, P1}, 2}, {2, {D0, D1}, 2}},
                                   .exclusive = exclusive,
                                   .frontend = FRONT,
                                   .resharder = RESHARDER,
                                   .chunk = 32,
                                   .max_rows = 40,
                                   .max_batch = 4,
                                   .max_waiting = 3,
                                   .promise_tok = TR_SCHEDULER_PROMISE_ALL,
                                   .context = CONTEXT,
                                   .vocab = 100};
    for (uint32_t p = 0; p < 2; p++) {
        assert_int_equal(tr_kv_layout_init(&config.layout[p], &m, TR_KV_BF16, 16, SLOTS, CONTEXT, room[p], &err), 0);
        config.table[p] = zeroed(config.layout[p].table_bytes);
        config.bitmap[p] = zeroed(tr_kv_pool_bitmap_bytes(&config.layout[p]));
    }
    config.journal = zeroed(tr_journal_bytes(SLOTS, CONTEXT));
    tr_journal_init(config.journal, SLOTS, CONTEXT);
    sched = zeroed(tr_scheduler_bytes(&config));
    assert_int_equal(tr_scheduler_init(sched, &config), TR_OK);
    event((tr_event){.kind = TR_EVENT_START});
    for (uint32_t i = 0; i < sizeof actors / sizeof *actors; i++) up(actors[i]);
}

static void destroy(void) {
    for (uint32_t p = 0; p < 2; p++) {
        free(config.table[p]);
        free((void *)config.bitmap[p]);
    }
    free(config.journal);
    free(sched);
}

static void submit(uint64_t rid, uint32_t prompt, uint32_t max_tokens) {
    uint32_t tokens[CONTEXT];
    for (uint32_t i = 0; i < prompt; i++) tokens[i] = 10 + i % 50;
    tr_msg m = {.type = TR_MSG_SUBMIT};
    m.as.submit = (tr_msg_submit){.rid = rid, .tokens = {tokens, prompt}, .max_tokens = max_tokens, .id = 100 + rid};
    msg(FRONT, m);
}

static void step_done(uint32_t from, tr_msg_step step, uint32_t token) {
    uint32_t sampled[4] = {token, token, token, token};
    tr_msg m = {.type = TR_MSG_STEP_DONE};
    m.as.step_done = (tr_msg_step_done){
        .epoch = step.epoch, .step = step.step, .phase = step.phase, .sampled = {sampled, step.spans.len}};
    msg(from, m);
}
static tr_msg_step step_to(uint32_t actor) {
    assert_non_null(sent(actor, TR_MSG_STEP, 0));
    return sent(actor, TR_MSG_STEP, 0)->as.step;
}
static tr_msg_reshard reshard(void) {
    assert_non_null(sent(RESHARDER, TR_MSG_RESHARD, 0));
    return sent(RESHARDER, TR_MSG_RESHARD, 0)->as.reshard;
}
static void reshard_done(tr_msg_reshard r) {
    msg(RESHARDER,
        (tr_msg){.type = TR_MSG_RESHARD_DONE, .as.reshard_done = {.epoch = r.epoch, .job = r.job, .bytes = 8}});
}

/* What the waiting of a pipeline's stages counts as. */
static void waits_are(tr_ledger_kind prefill, tr_ledger_kind decode) {
    assert_int_equal(atomic_load(&config.journal->waits[0]), prefill);
    assert_int_equal(atomic_load(&config.journal->waits[1]), decode);
}

static void waits_have_a_reason(void **state) {
    (void)state;
    create(false, 6);
    waits_are(TR_LEDGER_STARVATION, TR_LEDGER_STARVATION);
    submit(7, 70, 2); /* chunks of 32, 32 and 6 */
    tr_msg_step a = step_to(P0), b = sent(P0, TR_MSG_STEP, 1)->as.step;
    waits_are(TR_LEDGER_FILL_DRAIN, TR_LEDGER_STARVATION); /* none has passed yet */
    step_done(P1, a, 0);
    tr_msg_reshard r = reshard();
    tr_msg_step c = step_to(P0);
    waits_are(TR_LEDGER_IMBALANCE, TR_LEDGER_STARVATION); /* two for two stages */
    step_done(P1, b, 0);
    tr_msg_reshard r2 = reshard();
    waits_are(TR_LEDGER_FILL_DRAIN, TR_LEDGER_STARVATION);
    submit(8, 70, 2); /* the pool has room for one of them */
    step_done(P1, c, 42);
    tr_msg_reshard r3 = reshard();
    waits_are(TR_LEDGER_KV_WAIT, TR_LEDGER_KV_WAIT); /* no pages; the hand-off is pending */
    for (int i = 0; i < 3; i++) reshard_done(i == 0 ? r : i == 1 ? r2 : r3);
    waits_are(TR_LEDGER_FILL_DRAIN, TR_LEDGER_FILL_DRAIN); /* the next one is let in; a lone stream */
    step_done(D1, step_to(D0), 43);
    waits_are(TR_LEDGER_FILL_DRAIN, TR_LEDGER_STARVATION);
    destroy();
}

static void waits_for_a_turn_on_shared_cores(void **state) {
    (void)state;
    create(true, 40);
    submit(7, 10, 50);
    step_done(P1, step_to(P0), 42);
    reshard_done(reshard());
    step_to(D0);
    submit(8, 10, 50);
    waits_are(TR_LEDGER_IMBALANCE, TR_LEDGER_FILL_DRAIN);
    destroy();
}

int main(void) {
    fx = calloc(1, sizeof *fx);
    const struct CMUnitTest tests[] = {cmocka_unit_test(waits_have_a_reason),
                                       cmocka_unit_test(waits_for_a_turn_on_shared_cores)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(fx);
    return failed;
}
