/* The core of a follower: RESET is answered when its workers are at rest, once for each. */
#include "actors/stage/follower_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SCHED = 4 };
static tr_effects *fx;
static tr_follower_core core;

static void event(tr_event ev) { tr_follower_core_step(&core, &ev, fx); }
static void from(uint32_t actor, tr_msg m) { event((tr_event){.kind = TR_EVENT_MSG, .from = actor, .msg = &m}); }
static void reset(uint32_t epoch) { from(SCHED, (tr_msg){.type = TR_MSG_RESET, .as.reset.epoch = epoch}); }
static void quiet(void) { event((tr_event){.kind = TR_EVENT_COMPUTED}); }

static void assert_answer(uint32_t epoch) {
    assert_int_equal(fx->n, 1);
    assert_int_equal(fx->item[0].kind, TR_EFFECT_SEND);
    assert_int_equal(fx->item[0].to, SCHED);
    assert_int_equal(fx->item[0].msg.type, TR_MSG_RESET_DONE);
    assert_int_equal(fx->item[0].msg.as.reset_done.epoch, epoch);
}

static void answers_when_quiet(void **state) {
    (void)state;
    tr_follower_core_init(&core, SCHED);
    quiet();
    assert_int_equal(fx->n, 0); /* nobody asked */
    reset(3);
    assert_int_equal(fx->n, 0);
    assert_true(core.waits);
    const uint64_t waiting = tr_follower_core_digest(&core);
    reset(5); /* it was still busy: only the newest counts */
    quiet();
    assert_answer(5);
    assert_false(core.waits);
    assert_true(tr_follower_core_digest(&core) != waiting);
    quiet();
    assert_int_equal(fx->n, 0);
    reset(4);
    assert_false(core.waits); /* older */
    reset(5);
    quiet();
    assert_answer(5); /* its answer was lost */
    assert_int_equal(core.protocol_errors, 0);
}

static void strangers(void **state) {
    (void)state;
    tr_follower_core_init(&core, SCHED);
    from(SCHED + 1, (tr_msg){.type = TR_MSG_RESET, .as.reset.epoch = 1});
    from(SCHED, (tr_msg){.type = TR_MSG_STEP, .as.step.epoch = 1});
    reset(0);
    event((tr_event){.kind = TR_EVENT_TIMER});
    assert_false(core.waits);
    assert_int_equal(fx->n, 0);
    assert_int_equal(core.protocol_errors, 3);
}

int main(void) {
    fx = calloc(1, sizeof *fx);
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers_when_quiet), cmocka_unit_test(strangers)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(fx);
    return failed;
}
