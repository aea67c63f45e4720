#include "actors/resharder/resharder_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static tr_effects *fx;
static tr_resharder_core core;

static void event(tr_event ev) { tr_resharder_core_step(&core, &ev, fx); }
static void msg(tr_msg m) { event((tr_event){.kind = TR_EVENT_MSG, .from = 1, .msg = &m}); }
static void reset(uint32_t epoch) { msg((tr_msg){.type = TR_MSG_RESET, .as.reset.epoch = epoch}); }
static void job(uint32_t epoch, uint64_t id) {
    uint32_t tok_min[2] = {0, 7};
    tr_msg m = {.type = TR_MSG_RESHARD};
    m.as.reshard = (tr_msg_reshard){.epoch = epoch, .job = id, .tok1 = 16, .tok_min = {tok_min, 2}};
    msg(m);
    memset(tok_min, 0xee, sizeof tok_min);
}
static void computed(uint32_t status) {
    tr_event ev = {.kind = TR_EVENT_COMPUTED};
    ev.as.computed.status = status;
    ev.as.computed.bytes = 640;
    event(ev);
}

static void one_job_at_a_time(void **state) {
    (void)state;
    tr_resharder_core_init(&core, 1);
    job(1, 1);
    assert_int_equal(fx->n, 0); /* before RESET nothing counts */
    reset(1);
    assert_int_equal(fx->item[0].msg.as.reset_done.epoch, 1);
    job(1, 1);
    assert_int_equal(fx->item[0].kind, TR_EFFECT_COMPUTE);
    assert_int_equal(fx->item[0].msg.as.reshard.tok_min.data[1], 7);
    job(1, 1);
    job(1, 2);
    assert_int_equal(fx->n, 0);
    computed(0);
    assert_int_equal(fx->n, 2);
    assert_int_equal(fx->item[0].msg.as.reshard_done.job, 1);
    assert_int_equal(fx->item[0].msg.as.reshard_done.bytes, 640);
    assert_int_equal(fx->item[1].msg.as.reshard.job, 2);
    computed(1);
    assert_int_equal(fx->n, 1);
    assert_int_equal(fx->item[0].msg.as.reshard_done.status, 1);
    assert_false(tr_resharder_core_busy(&core));
}

static void reset_forgets(void **state) {
    (void)state;
    tr_resharder_core_init(&core, 1);
    reset(1);
    job(1, 1);
    job(1, 2);
    reset(4);
    assert_int_equal(fx->n, 0);
    computed(0);
    assert_int_equal(fx->n, 1); /* no RESHARD_DONE of the old epoch, job 2 is gone */
    assert_int_equal(fx->item[0].msg.as.reset_done.epoch, 4);
    job(1, 3);
    assert_int_equal(fx->n, 0);
    job(4, 1);
    assert_int_equal(fx->n, 1);
}

static void bounds(void **state) {
    (void)state;
    tr_resharder_core_init(&core, 1);
    reset(1);
    for (uint64_t i = 1; i <= TR_RESHARDER_CORE_QUEUE + 2; i++) job(1, i);
    assert_int_equal(core.count, TR_RESHARDER_CORE_QUEUE);
    assert_int_equal(core.protocol_errors, 1);
    uint32_t many[TR_RESHARDER_CORE_GROUPS + 1] = {0};
    tr_msg m = {.type = TR_MSG_RESHARD};
    m.as.reshard = (tr_msg_reshard){.epoch = 1, .job = 900, .tok_min = {many, TR_RESHARDER_CORE_GROUPS + 1}};
    msg(m);
    assert_int_equal(core.protocol_errors, 2);
}

int main(void) {
    fx = calloc(1, sizeof *fx);
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_job_at_a_time), cmocka_unit_test(reset_forgets),
                                       cmocka_unit_test(bounds)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(fx);
    return failed;
}
