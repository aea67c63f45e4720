/* The stage core, rule by rule (the simulator tests them together). */
#include "actors/stage/stage_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SCHED = 1 };
static tr_effects *fx;
static tr_stage_core *stage;

static void make(uint32_t first, uint32_t last) {
    tr_stage_core_config c = {
        .scheduler = SCHED, .first = first, .last = last, .queue = 2, .max_spans = 4, .max_rows = 8};
    free(stage);
    stage = aligned_alloc(64, tr_stage_core_bytes(&c));
    memset(stage, 0xab, tr_stage_core_bytes(&c)); /* init owes nothing to zeroed memory */
    assert_int_equal(tr_stage_core_init(stage, &c), TR_OK);
}

static void event(tr_event ev) { tr_stage_core_step(stage, &ev, fx); }
static void msg(tr_msg m) { event((tr_event){.kind = TR_EVENT_MSG, .from = SCHED, .msg = &m}); }
static void reset(uint32_t epoch) { msg((tr_msg){.type = TR_MSG_RESET, .as.reset.epoch = epoch}); }
static void room(void) { event((tr_event){.kind = TR_EVENT_OUTPUT_ROOM}); }
static void input(uint32_t epoch, uint64_t step) {
    event((tr_event){.kind = TR_EVENT_INPUT, .as.input = {.epoch = epoch, .step = step}});
}
static void aborted(void) {
    tr_event ev = {.kind = TR_EVENT_COMPUTED};
    ev.as.computed.aborted = true;
    event(ev);
}
static void computed(uint32_t status) {
    static const uint32_t sampled[4] = {11, 12, 13, 14};
    tr_event ev = {.kind = TR_EVENT_COMPUTED};
    ev.as.computed.status = status;
    ev.as.computed.error = status ? "broken row" : NULL;
    ev.as.computed.sampled = sampled;
    event(ev);
}
static void step(uint32_t epoch, uint64_t id) {
    tr_msg_span spans[2] = {{.rid = 5, .rows = 2}, {.rid = 6, .rows = 1}};
    uint32_t tokens[3] = {1, 2, 3};
    tr_msg m = {.type = TR_MSG_STEP};
    m.as.step =
        (tr_msg_step){.epoch = epoch, .step = id, .phase = TR_PHASE_DECODE, .spans = {spans, 2}, .tokens = {tokens, 3}};
    msg(m);
    memset(spans, 0xee, sizeof spans); /* the core has its own copy */
    memset(tokens, 0xee, sizeof tokens);
}
static void expect(uint32_t i, tr_effect_kind kind) {
    assert_true(i < fx->n);
    assert_int_equal(fx->item[i].kind, kind);
}

static void only_stage_computes_and_answers(void **state) {
    (void)state;
    make(1, 1);
    step(1, 1);
    assert_int_equal(fx->n, 0); /* no RESET yet: nothing counts */
    reset(1);
    expect(0, TR_EFFECT_SEND);
    assert_int_equal(fx->item[0].msg.as.reset_done.epoch, 1);
    step(1, 1);
    expect(0, TR_EFFECT_COMPUTE);
    assert_int_equal(fx->item[0].msg.as.step.spans.data[1].rid, 6);
    assert_int_equal(fx->item[0].msg.as.step.tokens.data[2], 3);
    step(1, 2);
    assert_int_equal(fx->n, 0); /* one at a time */
    step(1, 2);
    step(1, 1);
    computed(0);
    assert_int_equal(fx->n, 2); /* answer, and the next one starts; the repeats are gone */
    assert_int_equal(fx->item[0].msg.type, TR_MSG_STEP_DONE);
    assert_int_equal(fx->item[0].msg.as.step_done.sampled.len, 2);
    assert_int_equal(fx->item[0].msg.as.step_done.sampled.data[1], 12);
    expect(1, TR_EFFECT_COMPUTE);
    computed(0);
    assert_int_equal(fx->n, 1);
}

static void middle_stage_waits_for_input_and_room(void **state) {
    (void)state;
    make(0, 0);
    reset(3);
    step(3, 1);
    step(3, 2);
    assert_int_equal(fx->n, 0);
    input(2, 9); /* older epoch */
    assert_int_equal(fx->n, 1);
    expect(0, TR_EFFECT_RELEASE_INPUT);
    input(3, 1);
    assert_int_equal(fx->n, 0); /* no room */
    room();
    expect(0, TR_EFFECT_COMPUTE);
    computed(0);
    assert_int_equal(fx->n, 2); /* no STEP_DONE from here */
    expect(0, TR_EFFECT_PUBLISH);
    expect(1, TR_EFFECT_RELEASE_INPUT);
    input(3, 1); /* that step is done: dropped */
    assert_int_equal(fx->n, 1);
    expect(0, TR_EFFECT_RELEASE_INPUT);
    input(3, 2);
    assert_int_equal(fx->n, 0); /* the room was used up by the publication */
    room();
    expect(0, TR_EFFECT_COMPUTE);
}

static void newer_input_waits_for_its_reset(void **state) {
    (void)state;
    make(0, 1);
    reset(1);
    input(2, 1);
    assert_int_equal(fx->n, 0);
    reset(2);
    assert_int_equal(fx->n, 1);
    step(2, 1);
    expect(0, TR_EFFECT_COMPUTE);
}

static void failure_is_told_and_publishes_nothing(void **state) {
    (void)state;
    make(0, 0);
    reset(1);
    room();
    step(1, 1);
    input(1, 1);
    expect(0, TR_EFFECT_COMPUTE);
    computed(2);
    assert_int_equal(fx->n, 2);
    expect(0, TR_EFFECT_RELEASE_INPUT);
    const tr_msg_step_done *m = &fx->item[1].msg.as.step_done;
    assert_int_equal(m->status, 2);
    assert_int_equal(m->error.len, strlen("broken row"));
    assert_memory_equal(m->error.data, "broken row", m->error.len);
}

static void reset_while_computing(void **state) {
    (void)state;
    make(0, 0);
    reset(1);
    room();
    step(1, 1);
    step(1, 2);
    input(1, 1);
    expect(0, TR_EFFECT_COMPUTE);
    reset(2);
    assert_int_equal(fx->n, 0); /* it still runs */
    reset(2);
    assert_int_equal(fx->n, 0);
    step(2, 1); /* waits its turn */
    computed(0);
    assert_int_equal(fx->n, 2); /* thrown away: released, not published; now the answer */
    expect(0, TR_EFFECT_RELEASE_INPUT);
    assert_int_equal(fx->item[1].msg.as.reset_done.epoch, 2);
    input(2, 1);
    expect(0, TR_EFFECT_COMPUTE);
    assert_int_equal(fx->item[0].msg.as.step.epoch, 2);
    reset(1); /* older: no answer */
    assert_int_equal(fx->n, 0);
}

static void what_makes_no_sense_is_counted(void **state) {
    (void)state;
    tr_stage_core_stats stats;
    make(1, 1);
    reset(1);
    tr_msg_span span = {.rows = 9};
    tr_msg m = {.type = TR_MSG_STEP};
    m.as.step = (tr_msg_step){.epoch = 1, .step = 1, .phase = 1, .spans = {&span, 1}, .tokens = {NULL, 0}};
    msg(m);                                                        /* rows and tokens differ */
    computed(0);                                                   /* nothing ran */
    msg((tr_msg){.type = TR_MSG_SUBMIT});                          /* not for a stage */
    event((tr_event){.kind = TR_EVENT_MSG, .from = 7, .msg = &m}); /* not from the scheduler */
    for (uint64_t i = 1; i <= 4; i++) step(1, i);                  /* one runs, two wait, one too many */
    tr_stage_core_get_stats(stage, &stats);
    assert_int_equal(stats.protocol_errors, 5);
    assert_int_equal(stats.queued, 2);
    assert_true(stats.computing);
    tr_stage_core_config c = {.queue = 1, .max_spans = TR_MAX_SPANS + 1, .max_rows = 1};
    assert_int_equal(tr_stage_core_bytes(&c), 0);
}

/* Copies come along, and the answer has as many tokens as the spans draw. */
static void draws_and_copies(void **state) {
    (void)state;
    make(1, 1);
    reset(1);
    tr_msg_span spans[2] = {{.rid = 5, .rows = 2, .draws = 3}, {.rid = 6, .rows = 1}};
    uint32_t tokens[3] = {1, 2, 3}, copies[6] = {0, 7, 8, 1, 9, 10};
    tr_msg m = {.type = TR_MSG_STEP};
    m.as.step = (tr_msg_step){.epoch = 1,
                              .step = 1,
                              .phase = TR_PHASE_PREFILL,
                              .spans = {spans, 2},
                              .tokens = {tokens, 3},
                              .copies = {copies, 6}};
    msg(m);
    memset(copies, 0xee, sizeof copies);
    expect(0, TR_EFFECT_COMPUTE);
    assert_int_equal(fx->item[0].msg.as.step.copies.len, 6);
    assert_int_equal(fx->item[0].msg.as.step.copies.data[5], 10);
    computed(0);
    assert_int_equal(fx->item[0].msg.as.step_done.sampled.len, 4);
    assert_int_equal(fx->item[0].msg.as.step_done.sampled.data[3], 14);
    uint32_t many[7 * 6] = {0};
    m.as.step.step = 2;
    m.as.step.copies = (tr_u32v){many, 13}; /* more than two pages a span */
    msg(m);
    assert_int_equal(fx->n, 0);
    m.as.step.copies = (tr_u32v){many, 12};
    m.as.step.phase = TR_PHASE_DECODE; /* where a span has one token: it is fed */
    msg(m);
    assert_int_equal(fx->n, 0);
    m.as.step.phase = TR_PHASE_PREFILL;
    msg(m);
    expect(0, TR_EFFECT_COMPUTE);
}

/* Another rank died in the step: nobody hears of it, nothing else runs, the RESET that comes ends it. */
static void an_aborted_step_waits_for_its_reset(void **state) {
    (void)state;
    make(0, 1);
    reset(1);
    step(1, 1);
    step(1, 2);
    input(1, 1);
    expect(0, TR_EFFECT_COMPUTE);
    aborted();
    assert_int_equal(fx->n, 0);
    aborted(); /* only once: a second one is an error of the driver */
    assert_int_equal(fx->n, 0);
    reset(1); /* a repeat of the epoch's own RESET changes nothing */
    expect(0, TR_EFFECT_SEND);
    assert_int_equal(fx->n, 1);
    reset(2);
    expect(0, TR_EFFECT_RELEASE_INPUT);
    expect(1, TR_EFFECT_SEND);
    assert_int_equal(fx->item[1].msg.as.reset_done.epoch, 2);
    assert_int_equal(fx->n, 2);
    step(2, 1);
    input(2, 1);
    expect(0, TR_EFFECT_COMPUTE);
    reset(3);
    assert_int_equal(fx->n, 0); /* it runs still */
    aborted();                  /* after the RESET: like any other end of it */
    expect(0, TR_EFFECT_RELEASE_INPUT);
    expect(1, TR_EFFECT_SEND);
    assert_int_equal(fx->item[1].msg.as.reset_done.epoch, 3);
}

static void tokens(uint32_t epoch, uint64_t id, uint32_t slot, uint32_t token) {
    tr_wire_token data[2] = {{.slot = 77, .token = 3}, {.slot = slot, .token = token}};
    tr_event ev = {.kind = TR_EVENT_TOKENS};
    ev.as.tokens.epoch = epoch, ev.as.tokens.step = id, ev.as.tokens.n = 2, ev.as.tokens.data = data;
    event(ev);
}
/* One row of slot 4, whose token the step before samples, behind a known one of slot 5. */
static void step_ahead(uint32_t epoch, uint64_t id, uint64_t source) {
    tr_msg_span spans[2] = {{.rid = 6, .rows = 1, .slot = 5}, {.rid = 5, .rows = 1, .slot = 4}};
    uint32_t known[2] = {9, TR_TOKEN_OF_STEP};
    tr_msg m = {.type = TR_MSG_STEP};
    m.as.step = (tr_msg_step){.epoch = epoch,
                              .step = id,
                              .phase = TR_PHASE_DECODE,
                              .spans = {spans, 2},
                              .tokens = {known, 2},
                              .source_step = source};
    msg(m);
}

static void first_stage_waits_for_tokens(void **state) {
    (void)state;
    make(1, 0);
    reset(1);
    room();
    step_ahead(1, 2, 1);
    tokens(2, 1, 4, 40); /* of another epoch */
    assert_int_equal(fx->n, 0);
    tokens(1, 1, 4, 41);
    expect(0, TR_EFFECT_COMPUTE);
    assert_int_equal(fx->item[0].msg.as.step.tokens.data[0], 9);
    assert_int_equal(fx->item[0].msg.as.step.tokens.data[1], 41);
    computed(0);
    reset(2);
    room();
    step_ahead(2, 2, 1); /* what was fed before the reset does not count */
    assert_int_equal(fx->n, 0);
    tokens(2, 1, 4, 42);
    expect(0, TR_EFFECT_COMPUTE);
    assert_int_equal(fx->item[0].msg.as.step.tokens.data[1], 42);
    tr_stage_core_stats stats;
    step_ahead(2, 5, 3); /* not the step right before */
    tr_stage_core_get_stats(stage, &stats);
    assert_int_equal(stats.protocol_errors, 1);
    assert_int_equal(stats.queued, 0);
}

static void last_stage_feeds_after_its_answer(void **state) {
    (void)state;
    make(0, 1);
    reset(1);
    step_ahead(1, 2, 1); /* it has its input, so the step before has ended */
    assert_false(tr_stage_core_followed(stage));
    input(1, 2);
    expect(0, TR_EFFECT_COMPUTE);
    assert_false(tr_stage_core_followed(stage));
    step_ahead(1, 3, 2);
    assert_true(tr_stage_core_followed(stage));
    computed(0);
    assert_false(tr_stage_core_followed(stage));
    assert_int_equal(fx->n, 3);
    expect(0, TR_EFFECT_RELEASE_INPUT);
    assert_int_equal(fx->item[1].msg.type, TR_MSG_STEP_DONE);
    expect(2, TR_EFFECT_FEED);
    input(1, 3);
    step(1, 4);
    assert_false(tr_stage_core_followed(stage)); /* by a step of other sequences */
    computed(1);
    for (uint32_t i = 0; i < fx->n; i++) assert_int_not_equal(fx->item[i].kind, TR_EFFECT_FEED);
}

static void only_stage_feeds_itself(void **state) {
    (void)state;
    make(1, 1);
    reset(1);
    step(1, 1); /* spans of slot 0 */
    step_ahead(1, 2, 1);
    computed(0);
    assert_int_equal(fx->n, 2);
    expect(1, TR_EFFECT_COMPUTE);
    assert_int_equal(fx->item[1].msg.as.step.tokens.data[1], TR_TOKEN_OF_STEP); /* slot 4 sampled nothing */
    step_ahead(1, 3, 2);
    computed(0);
    expect(1, TR_EFFECT_COMPUTE);
    assert_int_equal(fx->item[1].msg.as.step.tokens.data[1], 12);
}

int main(void) {
    fx = calloc(1, sizeof *fx);
    const struct CMUnitTest tests[] = {cmocka_unit_test(only_stage_computes_and_answers),
                                       cmocka_unit_test(middle_stage_waits_for_input_and_room),
                                       cmocka_unit_test(newer_input_waits_for_its_reset),
                                       cmocka_unit_test(failure_is_told_and_publishes_nothing),
                                       cmocka_unit_test(reset_while_computing),
                                       cmocka_unit_test(what_makes_no_sense_is_counted),
                                       cmocka_unit_test(an_aborted_step_waits_for_its_reset),
                                       cmocka_unit_test(draws_and_copies),
                                       cmocka_unit_test(first_stage_waits_for_tokens),
                                       cmocka_unit_test(last_stage_feeds_after_its_answer),
                                       cmocka_unit_test(only_stage_feeds_itself)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(stage);
    free(fx);
    return failed;
}
