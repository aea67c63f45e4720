/* The scheduler by hand: one event, the effects it must have. (All of it under faults: tests/sim.) */
#include "scheduler/scheduler.h"

#include "kv/kv_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FRONT = 0, RESHARDER = 2, P0 = 3, P1 = 4, D0 = 5, D1 = 6, SLOTS = 8, CONTEXT = 256, EOS = 9 };

static tr_scheduler *sched;
static tr_scheduler_config config;
static tr_effects *fx;
static uint64_t now;

static void event(tr_event ev) {
    ev.now_ns = now += 1000;
    tr_scheduler_step(sched, &ev, fx);
}
static void msg(uint32_t from, tr_msg m) { event((tr_event){.kind = TR_EVENT_MSG, .from = from, .msg = &m}); }
static void up(uint32_t actor, uint32_t incarnation) {
    event((tr_event){.kind = TR_EVENT_PEER_UP, .from = actor, .incarnation = incarnation});
}
static void down(uint32_t actor, bool counted) {
    event((tr_event){.kind = TR_EVENT_PEER_DOWN, .from = actor, .as.counted = counted});
}
static void reset_done(uint32_t actor, uint32_t epoch) {
    msg(actor, (tr_msg){.type = TR_MSG_RESET_DONE, .as.reset_done.epoch = epoch});
}
/* n-th message of the type to the actor in the last effects; NULL: there is none. */
static const tr_msg *sent(uint32_t to, tr_msg_type type, uint32_t n) {
    for (uint32_t i = 0; i < fx->n; i++)
        if (fx->item[i].kind == TR_EFFECT_SEND && fx->item[i].to == to && fx->item[i].msg.type == type && n-- == 0)
            return &fx->item[i].msg;
    return NULL;
}

static void free_all(void) {
    free(config.journal);
    free(config.table[0]);
    free((void *)config.bitmap[0]);
    if (!config.one_pool) free(config.table[1]);
    if (!config.one_pool) free((void *)config.bitmap[1]);
    free(sched);
    sched = NULL;
    config.journal = NULL;
}

static void create_scheduler(void) {
    free(sched);
    size_t n = tr_scheduler_bytes(&config);
    assert_true(n > 0);
    sched = aligned_alloc(64, n);
    memset(sched, 0, n);
    assert_int_equal(tr_scheduler_init(sched, &config), TR_OK);
    event((tr_event){.kind = TR_EVENT_START});
}

/* Two pipelines of two stages (or one for both), a sliding window of 20, pages of 16. */
static void create(bool unified, bool exclusive, uint32_t pages0) {
    tr_kv_model m = {.n_layers = 4, .n_kv_heads = 1, .head_dim = 16, .window = 20, .layer_is_global = {1, 0, 1, 0}};
    if (config.journal) free_all();
    config = (tr_scheduler_config){.n_pipelines = unified ? 1 : 2,
                                   .pipeline = {{2, {P0, P1}, 2}, {2, {D0, D1}, 2}},
                                   .exclusive = exclusive,
                                   .frontend = FRONT,
                                   .resharder = unified ? TR_NOBODY : RESHARDER,
                                   .chunk = 32,
                                   .max_rows = 40,
                                   .max_batch = 4,
                                   .max_waiting = 3,
                                   .promise_tok = TR_SCHEDULER_PROMISE_ALL,
                                   .one_pool = unified,
                                   .context = CONTEXT,
                                   .vocab = 100,
                                   .n_eos = 1,
                                   .eos = {EOS}};
    tr_error err;
    for (uint32_t p = 0; p < 2; p++) {
        const uint32_t pages[TR_KV_GROUPS_MAX] = {pages0, 40};
        assert_int_equal(tr_kv_layout_init(&config.layout[p], &m, TR_KV_BF16, 16, SLOTS, CONTEXT, pages, &err), TR_OK);
        if (p == 1 && unified) {
            config.table[1] = config.table[0];
            config.bitmap[1] = config.bitmap[0];
            break;
        }
        config.table[p] = calloc(1, config.layout[p].table_bytes);
        config.bitmap[p] = calloc(1, tr_kv_pool_bitmap_bytes(&config.layout[p]));
    }
    config.journal = aligned_alloc(64, tr_journal_bytes(SLOTS, CONTEXT));
    memset(config.journal, 0, tr_journal_bytes(SLOTS, CONTEXT));
    tr_journal_init(config.journal, SLOTS, CONTEXT);
    create_scheduler();
}

static void all_up(uint32_t incarnation) {
    up(FRONT, incarnation);
    for (uint32_t p = 0; p < config.n_pipelines; p++) {
        const uint32_t *stage = config.pipeline[p].stage;
        up(stage[0], incarnation);
        assert_null(sent(stage[0], TR_MSG_RESET, 0)); /* not before the whole pipeline is there */
        up(stage[1], incarnation);
        assert_non_null(sent(stage[0], TR_MSG_RESET, 0));
        uint32_t epoch = sent(stage[1], TR_MSG_RESET, 0)->as.reset.epoch;
        reset_done(stage[0], epoch);
        reset_done(stage[1], epoch);
    }
    if (config.one_pool) return;
    up(RESHARDER, incarnation);
    reset_done(RESHARDER, sent(RESHARDER, TR_MSG_RESET, 0)->as.reset.epoch);
}

static void submit(uint64_t rid, uint32_t prompt, uint32_t forced, uint32_t max_tokens) {
    static uint32_t tokens[CONTEXT * 2];
    for (uint32_t i = 0; i < prompt && i < CONTEXT * 2; i++) tokens[i] = 10 + i % 50;
    tr_msg m = {.type = TR_MSG_SUBMIT};
    m.as.submit = (tr_msg_submit){
        .rid = rid, .tokens = {tokens, prompt}, .forced = forced, .max_tokens = max_tokens, .id = 100 + rid};
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
    const tr_msg *m = sent(actor, TR_MSG_STEP, 0);
    assert_non_null(m);
    return m->as.step;
}
static tr_msg_reshard reshard(void) {
    assert_non_null(sent(RESHARDER, TR_MSG_RESHARD, 0));
    return sent(RESHARDER, TR_MSG_RESHARD, 0)->as.reshard;
}
static void reshard_done(tr_msg_reshard r) {
    msg(RESHARDER,
        (tr_msg){.type = TR_MSG_RESHARD_DONE, .as.reshard_done = {.epoch = r.epoch, .job = r.job, .bytes = 8}});
}

static void life_of_one_request(void **state) {
    (void)state;
    create(false, false, 40);
    all_up(1);
    submit(7, 70, 0, 2);
    assert_int_equal(sent(FRONT, TR_MSG_ACCEPTED, 0)->as.accepted.rid, 7);
    tr_msg_step a = step_to(P0), b = sent(P0, TR_MSG_STEP, 1)->as.step; /* two chunks follow each other */
    assert_int_equal(a.spans.data[0].pos0, 0);
    assert_int_equal(a.spans.data[0].rows, 32);
    assert_int_equal(b.spans.data[0].pos0, 32);
    assert_int_equal(b.spans.data[0].flags, 0);
    assert_int_equal(step_to(P1).step, a.step); /* every stage of the pipeline gets it */
    step_done(P1, a, 0);
    tr_msg_step c = step_to(P0);
    assert_int_equal(c.spans.data[0].rows, 6);
    assert_int_equal(c.spans.data[0].flags, 1); /* the last chunk samples */
    tr_msg_reshard r = reshard();               /* hand-off overlaps prefill */
    assert_int_equal(r.tok0, 0);
    assert_int_equal(r.tok1, 32);
    assert_int_equal(r.tok_min.data[0], 0);
    assert_int_equal(r.tok_min.data[1], 48); /* the page of 70 + 1 - 20, what the first decoded row still sees */
    step_done(P1, b, 0);
    tr_msg_reshard r2 = reshard();
    step_done(P1, c, 42);
    assert_int_equal(sent(FRONT, TR_MSG_OUTPUT, 0)->as.output.tokens.data[0], 42);
    assert_null(sent(D0, TR_MSG_STEP, 0)); /* not all is there yet */
    tr_msg_reshard r3 = reshard();
    assert_int_equal(r3.tok1, 70);
    reshard_done(r);
    reshard_done(r2);
    tr_scheduler_stats stats;
    tr_scheduler_get_stats(sched, &stats);
    assert_true(stats.pool_free[0] < stats.pool_pages[0]);
    reshard_done(r3);
    tr_scheduler_get_stats(sched, &stats);
    assert_int_equal(stats.pool_free[0], stats.pool_pages[0]); /* handed over: the prefill pages are free */
    tr_msg_step d = step_to(D0);
    assert_int_equal(d.phase, TR_PHASE_DECODE);
    assert_int_equal(d.spans.data[0].pos0, 70);
    assert_int_equal(d.tokens.data[0], 42);
    step_done(D1, d, 43);
    const tr_msg_output *o = &sent(FRONT, TR_MSG_OUTPUT, 0)->as.output;
    assert_int_equal(o->index, 1);
    assert_int_equal(o->finish, TR_FINISH_LENGTH);
    assert_int_equal(o->handoff_bytes, 24);
    assert_true(tr_scheduler_idle(sched));
    tr_scheduler_get_stats(sched, &stats);
    assert_int_equal(stats.pool_free[1], stats.pool_pages[1]);
    assert_int_equal(atomic_load(&tr_journal_at(config.journal, 0)->state), TR_JOURNAL_DONE);
    msg(FRONT, (tr_msg){.type = TR_MSG_RELEASE, .as.release.rid = 7});
    assert_int_equal(atomic_load(&tr_journal_at(config.journal, 0)->state), TR_JOURNAL_FREE);
}

/* Prefill of everything that is asked of P0 and P1, hand-off included, until nothing more comes. */
static void prefill_all(uint32_t token) {
    tr_msg_step steps[8];
    tr_msg_reshard jobs[8];
    uint32_t n_steps = 0, n_jobs = 0, done = 0, moved = 0;
    for (bool any = true; any;) {
        for (uint32_t i = 0; sent(P1, TR_MSG_STEP, i); i++) steps[n_steps++] = sent(P1, TR_MSG_STEP, i)->as.step;
        for (uint32_t i = 0; sent(RESHARDER, TR_MSG_RESHARD, i); i++)
            jobs[n_jobs++] = sent(RESHARDER, TR_MSG_RESHARD, i)->as.reshard;
        any = done < n_steps || moved < n_jobs;
        if (done < n_steps)
            step_done(P1, steps[done++], token);
        else if (moved < n_jobs)
            reshard_done(jobs[moved++]);
    }
}

/* The second request with the same beginning computes and moves what is left of it; one of another tenant all. */
static void known_prefix(void **state) {
    (void)state;
    static uint32_t tokens[100];
    create(false, false, 40);
    config.prefix_cache = 1;
    create_scheduler();
    all_up(1);
    for (uint32_t i = 0; i < 100; i++) tokens[i] = 10 + i % 50;
    submit(1, 70, 0, 1);
    prefill_all(42);
    msg(FRONT, (tr_msg){.type = TR_MSG_RELEASE, .as.release.rid = 1});
    tr_scheduler_stats stats;
    tr_scheduler_get_stats(sched, &stats);
    assert_int_equal(stats.pool_free[0], stats.pool_pages[0]);
    assert_int_equal(stats.pool_cached[0], 2 * 4);
    assert_int_equal(stats.pool_cached[1], 0); /* max_tokens 1: nothing was handed over */
    submit(2, 70, 0, 9);
    tr_msg_step a = step_to(P0);
    assert_int_equal(a.spans.data[0].pos0, 64);
    assert_int_equal(a.spans.data[0].rows, 6);
    assert_int_equal(reshard().tok0, 0); /* what is known is moved at once */
    assert_int_equal(reshard().tok1, 64);
    prefill_all(42);
    tr_msg_step d = step_to(D0);
    submit(3, 75, 0, 9); /* while the second still runs */
    a = step_to(P0);
    assert_int_equal(a.spans.data[0].pos0, 64);
    assert_int_equal(a.spans.data[0].rows, 11);
    step_done(P1, a, 42);
    assert_int_equal(reshard().tok0, 64);
    assert_int_equal(reshard().tok1, 75);
    step_done(D1, d, EOS);
    const tr_msg_output *o = &sent(FRONT, TR_MSG_OUTPUT, 0)->as.output;
    assert_int_equal(o->finish, TR_FINISH_STOP);
    assert_int_equal(o->cached_tokens, 64);
    msg(FRONT, (tr_msg){.type = TR_MSG_SUBMIT,
                        .as.submit = {.rid = 4, .tokens = {tokens, 70}, .max_tokens = 9, .cache_salt = {"x", 1}}});
    assert_int_equal(step_to(P0).spans.data[0].pos0, 0);
    msg(FRONT, (tr_msg){.type = TR_MSG_RELEASE, .as.release.rid = 2});
    msg(FRONT, (tr_msg){.type = TR_MSG_SUBMIT, .as.submit = {.rid = 5, .tokens = {tokens, 64}, .max_tokens = 9}});
    assert_int_equal(tr_journal_at(config.journal, 0)->rid, 5); /* the last prompt token is always computed */
    assert_int_equal(atomic_load(&tr_journal_at(config.journal, 0)->kv_prefilled), 48);
    tr_scheduler_get_stats(sched, &stats);
    assert_int_equal(stats.prefix_hits, 3);
    assert_int_equal(stats.prefix_hit_tokens, 64 + 64 + 48);
    /* a new scheduler knows nothing, and holds what the tables say */
    uint32_t before[2] = {stats.pool_free[0], stats.pool_free[1]};
    create_scheduler();
    tr_scheduler_get_stats(sched, &stats);
    assert_int_equal(stats.pool_cached[0] + stats.pool_cached[1], 0);
    assert_int_equal(stats.pool_free[0], before[0]);
    assert_int_equal(stats.pool_free[1], before[1]);
}

static void refusals(void **state) {
    (void)state;
    create(false, false, 8);
    all_up(1);
    const struct {
        uint32_t prompt, forced, max_tokens, code;
    } bad[] = {{0, 0, 1, 64}, {CONTEXT + 1, 0, 1, 64}, {5, 5, 1, 64}, {CONTEXT, 0, 1, 69}}; /* the last never fits */
    for (uint32_t i = 0; i < 4; i++) {
        submit(1, bad[i].prompt, bad[i].forced, bad[i].max_tokens);
        const tr_msg *m = sent(FRONT, TR_MSG_OUTPUT, 0);
        assert_non_null(m);
        assert_int_equal(m->as.output.finish, TR_FINISH_ERROR);
        assert_int_equal(m->as.output.code, bad[i].code);
        assert_true(m->as.output.error.len > 10);
    }
    submit(1, 100, 0, 10); /* takes 7 of 8 pages */
    for (uint64_t rid = 2; rid <= 4; rid++) submit(rid, 100, 0, 10);
    assert_non_null(sent(FRONT, TR_MSG_ACCEPTED, 0));
    submit(5, 100, 0, 10); /* three wait already */
    assert_int_equal(sent(FRONT, TR_MSG_OUTPUT, 0)->as.output.code, 69);
    submit(3, 100, 0, 10); /* a repeat is answered again */
    assert_non_null(sent(FRONT, TR_MSG_ACCEPTED, 0));
    tr_scheduler_stats stats;
    tr_scheduler_get_stats(sched, &stats);
    assert_int_equal(stats.running, 1);
    assert_int_equal(stats.waiting, 3);
    msg(FRONT, (tr_msg){.type = TR_MSG_DRAIN});
    submit(9, 5, 0, 1);
    assert_int_equal(sent(FRONT, TR_MSG_OUTPUT, 0)->as.output.code, 69);
}

static void phases_take_turns_on_shared_cores(void **state) {
    (void)state;
    create(true, true, 60);
    config.pipeline[0].max_in_flight = 1;
    create_scheduler();
    all_up(1);
    submit(1, 10, 0, 50);
    tr_msg_step s = step_to(P0);
    step_done(P1, s, 20); /* one is decoding now */
    s = step_to(P0);
    submit(2, 200, 0, 5);
    assert_null(sent(P0, TR_MSG_STEP, 0)); /* the cores are taken */
    uint32_t last = 0, changes = 0;
    for (uint32_t i = 0; i < 10; i++) {
        changes += s.phase != last;
        last = s.phase;
        step_done(P1, s, 20);
        s = step_to(P0);
    }
    assert_true(changes >= 9); /* decode, prefill, decode, prefill ... */
}

static void decode_is_divided_over_the_stages(void **state) {
    (void)state;
    create(true, false, 60);
    all_up(1);
    tr_msg_step queue[64] = {0};
    uint32_t head = 0, tail = 0, halves = 0;
    for (uint64_t rid = 1; rid <= 4; rid++) {
        submit(rid, 5, 0, 50);
        for (uint32_t k = 0; sent(P0, TR_MSG_STEP, k); k++) queue[tail++] = sent(P0, TR_MSG_STEP, k)->as.step;
    }
    for (uint32_t i = 0; i < 20; i++) {
        assert_true(tail - head <= 2); /* stages that can run at once */
        uint32_t spans = queue[head].spans.len, phase = queue[head].phase;
        if (phase == TR_PHASE_DECODE && i >= 10) {
            assert_int_equal(spans, 2); /* four sequences, two micro-batches */
            halves++;
        }
        step_done(P1, queue[head++], 20);
        for (uint32_t k = 0; sent(P0, TR_MSG_STEP, k); k++) queue[tail++] = sent(P0, TR_MSG_STEP, k)->as.step;
    }
    assert_int_equal(halves, 10);
    assert_int_equal(tail - head, 2);
}

/* A stage that waits for its input sleeps until that comes; then it must have the step. */
static void first_stage_is_told_last(void **state) {
    (void)state;
    create(true, true, 60);
    create_scheduler();
    all_up(1);
    submit(1, 10, 0, 4);
    uint32_t told = 0;
    for (uint32_t i = 0; i < fx->n; i++) {
        const tr_effect *e = &fx->item[i];
        if (e->kind != TR_EFFECT_SEND || e->msg.type != TR_MSG_STEP) continue;
        assert_int_equal(e->to, told++ == 0 ? P1 : P0);
        assert_int_equal(e->quiet, e->to == P1);
    }
    assert_int_equal(told, 2);
}

/* Where tokens are fed back a lone decode step is followed by the next one before it has ended. */
static void decode_is_issued_ahead(void **state) {
    (void)state;
    create(true, true, 60);
    config.pipeline[0].max_in_flight = 1;
    config.pipeline[0].feeds = true;
    create_scheduler();
    all_up(1);
    submit(1, 10, 0, 4);
    step_done(P1, step_to(P0), 20);
    tr_msg_step a = step_to(P0), b = sent(P0, TR_MSG_STEP, 1)->as.step;
    assert_int_equal(a.tokens.data[0], 20);
    assert_int_equal(a.source_step, 0);
    assert_int_equal(b.source_step, a.step);
    assert_int_equal(b.tokens.data[0], TR_TOKEN_OF_STEP);
    assert_int_equal(b.spans.data[0].pos0, 11);
    assert_null(sent(P0, TR_MSG_STEP, 2));
    submit(2, 40, 0, 9);                   /* it has the next turn */
    assert_null(sent(P0, TR_MSG_STEP, 0)); /* and the cores are taken */
    step_done(P1, a, 21);
    assert_null(sent(P0, TR_MSG_STEP, 0));
    assert_int_equal(sent(FRONT, TR_MSG_OUTPUT, 0)->as.output.tokens.data[0], 21);
    step_done(P1, b, 22);
    a = step_to(P0);
    assert_int_equal(a.phase, TR_PHASE_PREFILL);
    assert_null(sent(P0, TR_MSG_STEP, 1));
    step_done(P1, a, 0);
    a = step_to(P0); /* the last one of request 1: the prompt's rest has the next turn */
    assert_int_equal(a.tokens.data[0], 22);
    assert_null(sent(P0, TR_MSG_STEP, 1));
    step_done(P1, a, 23);
    assert_int_equal(sent(FRONT, TR_MSG_OUTPUT, 0)->as.output.finish, TR_FINISH_LENGTH);
    step_done(P1, step_to(P0), 30);
    a = step_to(P0), b = sent(P0, TR_MSG_STEP, 1)->as.step;
    step_done(P1, a, EOS); /* what was issued ahead is for nothing */
    assert_int_equal(sent(FRONT, TR_MSG_OUTPUT, 0)->as.output.finish, TR_FINISH_STOP);
    assert_null(sent(P0, TR_MSG_STEP, 0));
    tr_scheduler_stats stats;
    tr_scheduler_get_stats(sched, &stats);
    assert_true(stats.pool_free[0] < stats.pool_pages[0]); /* it may still write there */
    step_done(P1, b, 31);
    assert_true(tr_scheduler_idle(sched));
    tr_scheduler_get_stats(sched, &stats);
    assert_int_equal(stats.pool_free[0], stats.pool_pages[0]);
}

static void forced_tail_and_end_token(void **state) {
    (void)state;
    create(true, false, 60);
    all_up(1);
    submit(1, 80, 60, 3); /* 20 prefilled, 60 decoded as known tokens */
    tr_msg_step s = step_to(P0);
    assert_int_equal(s.spans.data[0].rows, 20);
    assert_int_equal(s.spans.data[0].flags, 0); /* nothing is sampled there */
    step_done(P1, s, 0);
    s = step_to(P0);
    assert_int_equal(s.phase, TR_PHASE_DECODE);
    assert_int_equal(s.spans.data[0].rows, 32);
    assert_int_equal(s.spans.data[0].flags, 0);
    step_done(P1, s, 0);
    s = step_to(P0);
    assert_int_equal(s.spans.data[0].rows, 28);
    assert_int_equal(s.spans.data[0].flags, 1); /* the last known one */
    step_done(P1, s, EOS);
    const tr_msg_output *o = &sent(FRONT, TR_MSG_OUTPUT, 0)->as.output;
    assert_int_equal(o->finish, TR_FINISH_STOP);
    assert_int_equal(o->tokens.len, 0); /* the end token is no output */
    submit(2, 33, 1, 0);                /* evaluation: every position, nothing sampled */
    s = step_to(P0);
    step_done(P1, s, 0);
    s = step_to(P0);
    assert_int_equal(s.phase, TR_PHASE_DECODE);
    assert_int_equal(s.spans.data[0].flags, 0);
    step_done(P1, s, 0);
    assert_int_equal(sent(FRONT, TR_MSG_OUTPUT, 0)->as.output.finish, TR_FINISH_LENGTH);
}

static void cancel_keeps_and_waits_for_its_step(void **state) {
    (void)state;
    tr_scheduler_stats stats;
    create(true, false, 60);
    all_up(1);
    submit(1, 5, 0, 50);
    step_done(P1, step_to(P0), 20);
    step_done(P1, step_to(P0), 21);
    tr_msg_step s = step_to(P0);
    msg(FRONT, (tr_msg){.type = TR_MSG_CANCEL, .as.cancel = {.rid = 1, .finish = TR_FINISH_STOP, .keep = 1}});
    const tr_msg_output *o = &sent(FRONT, TR_MSG_OUTPUT, 0)->as.output;
    assert_int_equal(o->finish, TR_FINISH_STOP);
    assert_int_equal(o->index + o->tokens.len, 1);
    msg(FRONT, (tr_msg){.type = TR_MSG_RELEASE, .as.release.rid = 1});
    tr_scheduler_get_stats(sched, &stats);
    assert_true(stats.pool_free[0] < stats.pool_pages[0]); /* a step may still write there */
    assert_int_equal(atomic_load(&tr_journal_at(config.journal, 0)->state), TR_JOURNAL_DONE);
    step_done(P1, s, 22);
    tr_scheduler_get_stats(sched, &stats);
    assert_int_equal(stats.pool_free[0], stats.pool_pages[0]);
    assert_int_equal(atomic_load(&tr_journal_at(config.journal, 0)->state), TR_JOURNAL_FREE);
}

static void death_poison_and_restart(void **state) {
    (void)state;
    create(true, false, 60);
    all_up(1);
    submit(1, 5, 0, 50);
    step_done(P1, step_to(P0), 20);
    for (uint32_t death = 1; death <= 2; death++) {
        down(P0, true);
        assert_null(sent(P0, TR_MSG_STEP, 0));
        up(P0, 1 + death);
        uint32_t epoch = sent(P1, TR_MSG_RESET, 0)->as.reset.epoch;
        reset_done(P0, epoch);
        reset_done(P1, epoch - 1); /* an old answer is none */
        assert_null(sent(P0, TR_MSG_STEP, 0));
        reset_done(P1, epoch);
        if (death == 1) assert_int_equal(step_to(P0).spans.data[0].pos0, 5); /* the same again */
    }
    const tr_msg_output *o = &sent(FRONT, TR_MSG_OUTPUT, 0)->as.output;
    assert_int_equal(o->finish, TR_FINISH_ERROR);
    assert_int_equal(o->code, 70);
    submit(2, 5, 0, 50);
    step_done(P1, step_to(P0), 20);
    create_scheduler(); /* the scheduler dies and comes back to the same memory */
    all_up(1);
    const tr_msg_step s = step_to(P0);
    assert_int_equal(s.spans.data[0].rid, 2);
    assert_int_equal(s.spans.data[0].pos0, 5);
    assert_int_equal(s.tokens.data[0], 20);
    down(FRONT, false);
    up(FRONT, 2); /* a new frontend is told everything */
    assert_int_equal(sent(FRONT, TR_MSG_OUTPUT, 0)->as.output.finish, TR_FINISH_ERROR);
    assert_int_equal(sent(FRONT, TR_MSG_OUTPUT, 1)->as.output.index, 0);
    assert_int_equal(sent(FRONT, TR_MSG_OUTPUT, 1)->as.output.tokens.data[0], 20);
}

/* Ranks beside the first of a stage get no STEP, but the pipeline lives and dies with them. */
static void ranks_are_members(void **state) {
    (void)state;
    enum { F0 = 7, F1 = 8 };
    create(true, false, 60);
    config.pipeline[0].n_ranks = 4;
    config.pipeline[0].stage[2] = F0;
    config.pipeline[0].stage[3] = F1;
    create_scheduler();
    static const uint32_t all[] = {F0, P1, F1, P0};
    up(FRONT, 1);
    for (uint32_t i = 0; i < 4; i++) {
        assert_null(sent(P0, TR_MSG_RESET, 0));
        up(all[i], 1);
    }
    for (uint32_t round = 1; round <= 2; round++) {
        uint32_t epoch = sent(F1, TR_MSG_RESET, 0)->as.reset.epoch;
        for (uint32_t i = 0; i < 4; i++) assert_int_equal(sent(all[i], TR_MSG_RESET, 0)->as.reset.epoch, epoch);
        for (uint32_t i = 1; i < 4; i++) reset_done(all[i], epoch);
        if (round == 1) submit(1, 5, 0, 50);
        assert_null(sent(P0, TR_MSG_STEP, 0));
        reset_done(all[0], epoch);
        assert_non_null(sent(P1, TR_MSG_STEP, 0));
        assert_null(sent(F0, TR_MSG_STEP, 0));
        assert_null(sent(F1, TR_MSG_STEP, 0));
        const tr_msg_step s = step_to(P0);
        assert_int_equal(s.spans.data[0].rid, 1);
        if (round == 2) {
            step_done(P1, s, 20);
            break;
        }
        down(F1, true); /* in the step: it runs again once the rank is back */
        assert_null(sent(P0, TR_MSG_RESET, 0));
        up(F1, 2);
    }
    assert_int_equal(sent(FRONT, TR_MSG_OUTPUT, 0)->as.output.tokens.data[0], 20);
    config.pipeline[0].n_ranks = 1; /* fewer than stages */
    assert_int_equal(tr_scheduler_bytes(&config), 0);
}

static void one_bad_span_fails_alone(void **state) {
    (void)state;
    create(true, false, 60);
    all_up(1);
    submit(1, 5, 0, 50);
    tr_msg_step first = step_to(P0);
    submit(2, 5, 0, 50);
    tr_msg_step second = step_to(P0);
    tr_msg m = {.type = TR_MSG_STEP_DONE};
    m.as.step_done = (tr_msg_step_done){
        .epoch = second.epoch, .step = second.step, .status = 1, .error = {"broken", 6}}; /* from the first stage */
    msg(P0, m);
    const tr_msg_output *o = &sent(FRONT, TR_MSG_OUTPUT, 0)->as.output;
    assert_int_equal(o->rid, 2);
    assert_int_equal(o->code, 70);
    assert_memory_equal(o->error.data, "broken", 6);
    uint32_t epoch = sent(P0, TR_MSG_RESET, 0)->as.reset.epoch;
    step_done(P1, first, 20); /* of the old epoch */
    reset_done(P0, epoch);
    reset_done(P1, epoch);
    assert_int_equal(step_to(P0).spans.data[0].rid, 1); /* the other one runs again */
    assert_int_equal(step_to(P0).spans.data[0].pos0, 0);
}

/* One resharder reads, another one writes: both get every job, the second answers. An answer that was lost with the
 * connection between them is not made up by the next one; a job that failed resets both. */
static void two_resharders(void **state) {
    (void)state;
    enum { TO = 7 };
    create(false, false, 40);
    config.two_resharders = 1;
    config.resharder_to = TO;
    create_scheduler();
    up(TO, 1);
    all_up(1);
    reset_done(TO, atomic_load(&config.journal->epoch));
    submit(7, 70, 0, 2);
    tr_msg_step a = step_to(P0), b = sent(P0, TR_MSG_STEP, 1)->as.step;
    step_done(P1, a, 0);
    tr_msg_reshard r = reshard();
    assert_int_equal(sent(TO, TR_MSG_RESHARD, 0)->as.reshard.job, r.job);
    step_done(P1, b, 0);
    tr_msg_reshard r2 = reshard();
    tr_msg done = {.type = TR_MSG_RESHARD_DONE, .as.reshard_done = {.epoch = r2.epoch, .job = r2.job, .bytes = 8}};
    msg(TO, done); /* that of r never came */
    assert_null(sent(FRONT, TR_MSG_OUTPUT, 0));
    down(TO, false);
    up(TO, 2);
    uint32_t epoch = sent(TO, TR_MSG_RESET, 0)->as.reset.epoch;
    assert_int_equal(sent(RESHARDER, TR_MSG_RESET, 0)->as.reset.epoch, epoch);
    reset_done(RESHARDER, epoch);
    assert_null(sent(TO, TR_MSG_RESHARD, 0));
    reset_done(TO, epoch);
    r = sent(TO, TR_MSG_RESHARD, 0)->as.reshard;
    assert_int_equal(r.tok0, 0); /* both again */
    assert_int_equal(r.tok1, r2.tok1);
    done.as.reshard_done = (tr_msg_reshard_done){.epoch = r.epoch, .job = r.job, .status = 1};
    msg(TO, done);
    assert_int_equal(sent(FRONT, TR_MSG_OUTPUT, 0)->as.output.finish, TR_FINISH_ERROR);
    assert_int_equal(sent(RESHARDER, TR_MSG_RESET, 0)->as.reset.epoch, epoch + 1);
    assert_non_null(sent(TO, TR_MSG_RESET, 0));
    tr_scheduler_stats stats;
    tr_scheduler_get_stats(sched, &stats);
    assert_int_equal(stats.protocol_errors, 0);
}

int main(void) {
    fx = calloc(1, sizeof *fx);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(life_of_one_request),
        cmocka_unit_test(known_prefix),
        cmocka_unit_test(refusals),
        cmocka_unit_test(phases_take_turns_on_shared_cores),
        cmocka_unit_test(decode_is_divided_over_the_stages),
        cmocka_unit_test(first_stage_is_told_last),
        cmocka_unit_test(decode_is_issued_ahead),
        cmocka_unit_test(forced_tail_and_end_token),
        cmocka_unit_test(cancel_keeps_and_waits_for_its_step),
        cmocka_unit_test(death_poison_and_restart),
        cmocka_unit_test(one_bad_span_fails_alone),
        cmocka_unit_test(ranks_are_members),
        cmocka_unit_test(two_resharders),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free_all();
    free(fx);
    return failed;
}
