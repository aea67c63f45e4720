/* Requests that give way to earlier ones, by hand: whose turn it is, what the journal says, and that a text goes on as
 * if nothing had been. (All of it under faults: tests/sim --tight.) */
#include "scheduler/scheduler.h"

#include "kv/kv_pool.h"
#include "kv/kv_swap.h"
#include "kv/kv_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FRONT = 0, RESHARDER = 2, P0 = 3, SLOTS = 6, CONTEXT = 128, FLIGHTS = 64 };

static tr_scheduler *sched;
static tr_scheduler_config config;
static tr_effects *fx;
static tr_msg_step flight[FLIGHTS];
static uint32_t n_flight, n_prefilled_rows, widest_replay;
static tr_msg_reshard carry[SLOTS]; /* jobs of the swap space that are out, oldest first */
static uint32_t n_carry;

/* The token of a position: the "model". */
static uint32_t token_of(uint64_t rid, uint32_t pos) { return 10 + (pos * 7 + (uint32_t)rid * 3) % 60; }

static tr_journal_entry *entry(uint64_t rid) {
    for (uint32_t i = 0; i < SLOTS; i++)
        if (tr_journal_at(config.journal, i)->rid == rid) return tr_journal_at(config.journal, i);
    fail_msg("no entry");
    return NULL;
}

static void event(tr_event ev) {
    ev.now_ns = 1000;
    tr_scheduler_step(sched, &ev, fx);
    for (uint32_t i = 0; i < fx->n; i++)
        if (fx->item[i].kind == TR_EFFECT_SEND && fx->item[i].msg.type == TR_MSG_RESHARD)
            carry[n_carry++] = fx->item[i].msg.as.reshard;
        else if (fx->item[i].kind == TR_EFFECT_SEND && fx->item[i].msg.type == TR_MSG_STEP) {
            const tr_msg_step *s = &fx->item[i].msg.as.step;
            flight[n_flight] = *s;
            tr_msg_span *spans = malloc(s->spans.len * sizeof *spans);
            memcpy(spans, s->spans.data, s->spans.len * sizeof *spans);
            flight[n_flight++].spans.data = spans;
        }
}
static void msg(uint32_t from, tr_msg m) { event((tr_event){.kind = TR_EVENT_MSG, .from = from, .msg = &m}); }

/* Confirm the oldest step that is out. False: there is none. */
static bool confirm(void) {
    uint32_t sampled[8] = {0};
    if (n_flight == 0) return false;
    tr_msg_step s = flight[0];
    memmove(flight, flight + 1, --n_flight * sizeof *flight);
    for (uint32_t i = 0; i < s.spans.len; i++) {
        const tr_msg_span *span = &s.spans.data[i];
        sampled[i] = token_of(span->rid, span->pos0 + span->rows);
        if (s.phase == TR_PHASE_PREFILL)
            n_prefilled_rows += span->rows;
        else if (span->rows > widest_replay)
            widest_replay = span->rows;
    }
    tr_msg m = {
        .type = TR_MSG_STEP_DONE,
        .as.step_done = {.epoch = s.epoch, .step = s.step, .phase = s.phase, .sampled = {sampled, s.spans.len}}};
    free((void *)s.spans.data);
    msg(P0, m);
    return true;
}

static void create_scheduler(void) {
    free(sched);
    size_t n = tr_scheduler_bytes(&config);
    assert_true(n > 0);
    sched = aligned_alloc(64, n);
    memset(sched, 0, n);
    assert_int_equal(tr_scheduler_init(sched, &config), TR_OK);
    while (n_flight > 0) free((void *)flight[--n_flight].spans.data);
    event((tr_event){.kind = TR_EVENT_START});
    event((tr_event){.kind = TR_EVENT_PEER_UP, .from = FRONT, .incarnation = 1});
    event((tr_event){.kind = TR_EVENT_PEER_UP, .from = P0, .incarnation = 1});
    uint32_t epoch = atomic_load(&config.journal->epoch);
    if (config.swap_bytes > 0) {
        event((tr_event){.kind = TR_EVENT_PEER_UP, .from = RESHARDER, .incarnation = 1});
        epoch = atomic_load(&config.journal->epoch);
        msg(RESHARDER, (tr_msg){.type = TR_MSG_RESET_DONE, .as.reset_done.epoch = epoch--});
    }
    msg(P0, (tr_msg){.type = TR_MSG_RESET_DONE, .as.reset_done.epoch = epoch});
}

static void free_all(void) {
    while (n_flight > 0) free((void *)flight[--n_flight].spans.data);
    free(config.journal);
    free(config.table[0]);
    free((void *)config.bitmap[0]);
    free(sched);
    sched = NULL;
    config.journal = NULL;
}

/* One stage, one pool, pages of 16 tokens, all layers global. */
static void create(uint32_t pages0, uint32_t promise) {
    tr_kv_model m = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 16, .layer_is_global = {1}};
    const uint32_t pages[TR_KV_GROUPS_MAX] = {pages0};
    tr_error err;
    if (config.journal) free_all();
    n_prefilled_rows = widest_replay = 0;
    config = (tr_scheduler_config){.n_pipelines = 1,
                                   .pipeline = {{1, {P0}, 1}},
                                   .frontend = FRONT,
                                   .resharder = TR_NOBODY,
                                   .chunk = 32,
                                   .max_rows = 40,
                                   .max_batch = 4,
                                   .max_waiting = 4,
                                   .promise_tok = promise,
                                   .one_pool = true,
                                   .context = CONTEXT,
                                   .vocab = 100};
    assert_int_equal(tr_kv_layout_init(&config.layout[0], &m, TR_KV_BF16, 16, SLOTS, CONTEXT, pages, &err), TR_OK);
    config.layout[1] = config.layout[0];
    config.table[0] = config.table[1] = calloc(1, config.layout[0].table_bytes);
    config.bitmap[0] = config.bitmap[1] = calloc(1, tr_kv_pool_bitmap_bytes(&config.layout[0]));
    config.journal = aligned_alloc(64, tr_journal_bytes(SLOTS, CONTEXT));
    memset(config.journal, 0, tr_journal_bytes(SLOTS, CONTEXT));
    tr_journal_init(config.journal, SLOTS, CONTEXT);
    create_scheduler();
}

static void submit(uint64_t rid, uint32_t prompt, uint32_t max_tokens) {
    uint32_t tokens[CONTEXT];
    for (uint32_t i = 0; i < prompt; i++) tokens[i] = token_of(rid, i);
    msg(FRONT, (tr_msg){.type = TR_MSG_SUBMIT,
                        .as.submit = {.rid = rid, .tokens = {tokens, prompt}, .max_tokens = max_tokens}});
}

static tr_scheduler_stats stats(void) {
    tr_scheduler_stats st;
    tr_scheduler_get_stats(sched, &st);
    return st;
}

static void ended_whole(uint64_t rid, uint32_t prompt, uint32_t max_tokens) {
    tr_journal_entry *e = entry(rid);
    assert_int_equal(atomic_load(&e->state), TR_JOURNAL_DONE);
    assert_int_equal(e->finish, TR_FINISH_LENGTH);
    assert_int_equal(atomic_load(&e->n_tokens), prompt + max_tokens);
    for (uint32_t i = 0; i < prompt + max_tokens; i++) assert_int_equal(e->tokens[i], token_of(rid, i));
}

static void run_out(void) {
    for (uint32_t i = 0; confirm(); i++) assert_true(i < 1000);
    assert_true(tr_scheduler_idle(sched));
    assert_int_equal(stats().pool_free[0], stats().pool_pages[0]);
}

/* Until somebody gives way. */
static void until_preempted(void) {
    for (uint32_t i = 0; stats().preemptions == 0; i++) {
        assert_true(i < 200);
        assert_true(confirm());
    }
}

/* Three that would like six pages each share eight: the last ones wait, nobody is lost, the first is never touched. */
static void the_last_gives_way(void **state) {
    (void)state;
    create(8, 1);
    for (uint64_t rid = 1; rid <= 3; rid++) submit(rid, 30, 60);
    assert_int_equal(stats().running, 3); /* two pages each; for max_tokens not even two would have room */
    until_preempted();
    tr_journal_entry *e = entry(3);
    assert_int_equal(stats().waiting, 1);
    assert_int_equal(atomic_load(&e->state), TR_JOURNAL_OPEN);
    assert_int_equal(atomic_load(&e->evictions), 2);
    assert_int_equal(atomic_load(&e->kv_prefilled) + atomic_load(&e->kv_moved) + atomic_load(&e->kv_decoded), 0);
    assert_true(atomic_load(&e->n_tokens) > 30); /* its tokens stay */
    for (uint32_t i = 0; i < config.layout[0].pages_per_seq; i++)
        assert_int_equal(config.table[0][tr_kv_layout_entry(&config.layout[0], 2, 0, i)], TR_KV_NO_PAGE);
    run_out();
    for (uint64_t rid = 1; rid <= 3; rid++) ended_whole(rid, 30, 60);
    assert_int_equal(atomic_load(&entry(1)->evictions), 0);
    assert_true(widest_replay > 8); /* what was generated comes back several rows a step */
    assert_true(n_prefilled_rows >= 4 * 30);
}

/* With everything promised nobody gives way, and the second waits. */
static void all_promised(void **state) {
    (void)state;
    create(8, TR_SCHEDULER_PROMISE_ALL);
    submit(1, 30, 60);
    submit(2, 30, 60);
    assert_int_equal(stats().running, 1);
    run_out();
    assert_int_equal(stats().preemptions, 0);
    ended_whole(2, 30, 60);
    config.promise_tok = 0;
    assert_int_equal(tr_scheduler_bytes(&config), 0);
}

/* What never fits alone is refused, whatever is promised at first. */
static void too_large_is_refused(void **state) {
    (void)state;
    create(5, 1);
    submit(1, 30, 60);
    assert_int_equal(fx->item[0].msg.as.output.refused, 1);
    assert_int_equal(stats().running + stats().waiting, 0);
}

static void cancelled_while_it_waits(void **state) {
    (void)state;
    create(8, 1);
    for (uint64_t rid = 1; rid <= 3; rid++) submit(rid, 30, 60);
    until_preempted();
    uint32_t have = atomic_load(&entry(3)->n_tokens) - 30;
    msg(FRONT, (tr_msg){.type = TR_MSG_CANCEL, .as.cancel = {.rid = 3, .finish = TR_FINISH_ABORT, .keep = have}});
    assert_int_equal(entry(3)->finish, TR_FINISH_ABORT);
    assert_int_equal(entry(3)->kept, have);
    msg(FRONT, (tr_msg){.type = TR_MSG_RELEASE, .as.release.rid = 3});
    run_out();
    ended_whole(1, 30, 60);
    ended_whole(2, 30, 60);
}

/* A victim with a step in flight keeps its pages until that is confirmed, and the others wait for it. */
static void what_is_in_flight_is_waited_for(void **state) {
    (void)state;
    create(8, 1);
    config.pipeline[0].max_in_flight = 3; /* a micro-batch each */
    create_scheduler();
    for (uint64_t rid = 1; rid <= 3; rid++) submit(rid, 30, 60);
    uint32_t most = 0;
    for (uint32_t i = 0; stats().preemptions == 0; i++) {
        assert_true(i < 400);
        if (n_flight > most) most = n_flight;
        assert_true(confirm());
        for (uint32_t k = 0; k < n_flight; k++) /* nothing is out for one that was evicted */
            for (uint32_t j = 0; j < flight[k].spans.len && stats().preemptions > 0; j++)
                assert_int_not_equal(flight[k].spans.data[j].rid, 3);
    }
    assert_true(most >= 2);
    run_out();
    for (uint64_t rid = 1; rid <= 3; rid++) ended_whole(rid, 30, 60);
}

/* A scheduler that dies within an eviction leaves the word odd: the next one finishes it. One that dies while somebody
 * waits finds that too. */
static void a_new_scheduler_goes_on(void **state) {
    (void)state;
    create(8, 1);
    for (uint64_t rid = 1; rid <= 3; rid++) submit(rid, 30, 60);
    for (uint32_t i = 0; i < 12; i++) assert_true(confirm());
    tr_journal_entry *e = entry(2);
    assert_true(atomic_load(&e->kv_decoded) > 30);
    atomic_store(&e->evictions, 1); /* the rest did not happen any more */
    create_scheduler();
    assert_int_equal(atomic_load(&e->evictions), 2);
    until_preempted();
    create_scheduler();
    run_out();
    for (uint64_t rid = 1; rid <= 3; rid++) ended_whole(rid, 30, 60);
}

/* ---- the swap space ---- */
static void create_with_swap(uint32_t images) {
    const uint32_t none[TR_KV_GROUPS_MAX] = {0};
    create(8, 1);
    config.swap_bytes = images * tr_kv_swap_bytes(&config.layout[0], none, 90);
    config.resharder = RESHARDER;
    n_carry = 0;
    create_scheduler();
    for (uint64_t rid = 1; rid <= 3; rid++) submit(rid, 30, 60);
    for (uint32_t i = 0; n_carry == 0 && stats().preemptions == 0; i++) {
        assert_true(i < 200);
        assert_true(confirm());
    }
}

static void carried(uint32_t status) {
    const tr_msg_reshard job = carry[0];
    memmove(carry, carry + 1, --n_carry * sizeof *carry);
    msg(RESHARDER,
        (tr_msg){.type = TR_MSG_RESHARD_DONE,
                 .as.reshard_done = {.epoch = job.epoch, .job = job.job, .status = status, .bytes = 4096, .ns = 1}});
}

/* Out, its pages go to the others, and back: nothing of it is computed twice. */
static void swapped_and_back(void **state) {
    (void)state;
    create_with_swap(2);
    tr_journal_entry *e = entry(3);
    assert_int_equal(carry[0].file, 3);
    assert_int_equal(carry[0].rid, 3);
    assert_int_equal(atomic_load(&e->swap), TR_JOURNAL_SWAP_WRITING);
    assert_int_equal(stats().running, 3); /* its pages are being read */
    const uint32_t had = atomic_load(&e->kv_decoded);
    carried(0);
    assert_int_equal(stats().waiting, 1);
    assert_int_equal(atomic_load(&e->swap), TR_JOURNAL_SWAP_OUT);
    assert_int_equal(atomic_load(&e->kv_decoded), 0);
    assert_int_equal(atomic_load(&config.journal->swap_used), e->swap_bytes);
    for (uint32_t i = 0; n_carry == 0 || carry[0].file != 4; i++) { /* another may have to go too */
        assert_true(i < 400);
        if (n_carry > 0)
            carried(0);
        else
            assert_true(confirm());
    }
    n_carry = 0;
    create_scheduler(); /* a new one asks for it again */
    while (n_carry == 0) assert_true(confirm());
    assert_int_equal(carry[0].file, 4);
    const uint64_t back = carry[0].rid;
    carried(0);
    assert_int_equal(atomic_load(&entry(back)->swap), TR_JOURNAL_SWAP_NONE);
    if (back == 3) assert_int_equal(atomic_load(&e->kv_decoded), had);
    for (uint32_t i = 0; n_carry > 0 || confirm(); i++) {
        assert_true(i < 1000);
        if (n_carry > 0) carried(0);
    }
    assert_true(tr_scheduler_idle(sched));
    for (uint64_t rid = 1; rid <= 3; rid++) ended_whole(rid, 30, 60);
    assert_int_equal(atomic_load(&config.journal->swap_used), 0);
    assert_int_equal(n_prefilled_rows, 3 * 30);
    assert_int_equal(stats().preempted_tokens, 0);
}

/* A write that fails, and an image that does not come back: both are computed again. */
static void a_swap_that_fails(void **state) {
    (void)state;
    create_with_swap(2);
    assert_int_equal(carry[0].file, 3);
    carried(1);
    assert_int_equal(atomic_load(&entry(3)->swap), TR_JOURNAL_SWAP_NONE);
    assert_int_equal(stats().waiting, 1);
    run_out(); /* and nothing is tried again at once */
    assert_int_equal(n_carry, 0);
    for (uint64_t rid = 1; rid <= 3; rid++) ended_whole(rid, 30, 60);

    create_with_swap(2);
    carried(0);
    for (uint32_t i = 0; n_carry > 0 || confirm(); i++) {
        assert_true(i < 1000);
        if (n_carry > 0) carried(carry[0].file == 4);
    }
    for (uint64_t rid = 1; rid <= 3; rid++) ended_whole(rid, 30, 60);
    assert_true(stats().swaps_lost > 0);
    assert_int_equal(atomic_load(&config.journal->swap_used), 0);
    assert_int_equal(stats().pool_free[0], stats().pool_pages[0]);
}

/* No room for one more image. */
static void a_full_swap_space(void **state) {
    (void)state;
    create_with_swap(0);
    assert_int_equal(config.swap_bytes, 0);
    assert_int_equal(n_carry, 0);
    run_out();
    for (uint64_t rid = 1; rid <= 3; rid++) ended_whole(rid, 30, 60);
}

int main(void) {
    fx = calloc(1, sizeof *fx);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_gives_way),
        cmocka_unit_test(all_promised),
        cmocka_unit_test(too_large_is_refused),
        cmocka_unit_test(cancelled_while_it_waits),
        cmocka_unit_test(what_is_in_flight_is_waited_for),
        cmocka_unit_test(a_new_scheduler_goes_on),
        cmocka_unit_test(swapped_and_back),
        cmocka_unit_test(a_swap_that_fails),
        cmocka_unit_test(a_full_swap_space),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free_all();
    free(fx);
    return failed;
}
