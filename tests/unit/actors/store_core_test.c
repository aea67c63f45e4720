/* The store's queue: one job at a time, epochs, repeats, RESET_DONE only when nothing older runs. */
#include "actors/store/store_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { SCHED = 1 };
static tr_store_core core;
static tr_effects fx;

static int setup(void **state) {
    (void)state;
    tr_store_core_init(&core, SCHED);
    return 0;
}

static void send(const tr_msg *m, uint32_t from) {
    tr_event e = {.kind = TR_EVENT_MSG, .from = from, .msg = m};
    tr_store_core_step(&core, &e, &fx);
}

static void reset(uint32_t epoch) {
    tr_msg m = {.type = TR_MSG_RESET, .as.reset.epoch = epoch};
    send(&m, SCHED);
}

static void get(uint32_t epoch, uint64_t job) {
    uint32_t tok_min[2] = {7, (uint32_t)job}; /* gone when this returns */
    tr_msg m = {.type = TR_MSG_STORE_GET};
    m.as.store_get = (tr_msg_store_get){.epoch = epoch, .job = job, .tok1 = 32, .tok_min = {tok_min, 2}};
    send(&m, SCHED);
    memset(tok_min, 0xee, sizeof tok_min);
}

static void put(uint32_t epoch, uint64_t job) {
    tr_msg m = {.type = TR_MSG_STORE_PUT, .as.store_put = {.epoch = epoch, .job = job, .tok1 = 48}};
    send(&m, SCHED);
}

static void computed(uint32_t status, uint32_t positions) {
    tr_event e = {.kind = TR_EVENT_COMPUTED, .from = TR_NOBODY};
    e.as.computed.status = status;
    e.as.computed.positions = positions;
    tr_store_core_step(&core, &e, &fx);
}

static const tr_effect *only(uint32_t i, tr_effect_kind kind) {
    assert_true(i < fx.n);
    assert_int_equal(fx.item[i].kind, kind);
    return &fx.item[i];
}

static void in_order(void **state) {
    (void)state;
    reset(3);
    assert_int_equal(only(0, TR_EFFECT_SEND)->msg.as.reset_done.epoch, 3);
    get(3, 1);
    assert_int_equal(only(0, TR_EFFECT_COMPUTE)->msg.as.store_get.job, 1);
    put(3, 2);
    get(3, 3);
    assert_int_equal(fx.n, 0);
    const tr_u32v *list = &core.current.msg.as.store_get.tok_min;
    assert_int_equal(list->data[1], 1);
    computed(0, 16);
    const tr_msg_store_done *done = &only(0, TR_EFFECT_SEND)->msg.as.store_done;
    assert_true(done->epoch == 3 && done->job == 1 && done->status == 0 && done->tok1 == 16);
    assert_int_equal(only(1, TR_EFFECT_COMPUTE)->msg.type, TR_MSG_STORE_PUT);
    computed(0, 48);
    assert_int_equal(only(0, TR_EFFECT_SEND)->msg.as.store_done.job, 2);
    assert_int_equal(only(1, TR_EFFECT_COMPUTE)->msg.as.store_get.tok_min.data[1], 3);
    computed(1, 0);
    assert_int_equal(only(0, TR_EFFECT_SEND)->msg.as.store_done.status, 1);
    assert_int_equal(fx.n, 1);
}

static void repeats_and_other_epochs(void **state) {
    (void)state;
    get(1, 1); /* before any RESET */
    assert_int_equal(fx.n, 0);
    reset(2);
    get(2, 5);
    get(2, 5);
    get(2, 4);
    get(1, 6);
    get(9, 7);
    computed(0, 0);
    assert_int_equal(fx.n, 1);
    assert_int_equal(core.dropped, 5);
    reset(1);
    assert_int_equal(fx.n, 0);
    reset(2); /* a repeat is answered */
    assert_int_equal(only(0, TR_EFFECT_SEND)->msg.as.reset_done.epoch, 2);
}

static void reset_waits_for_what_runs(void **state) {
    (void)state;
    reset(1);
    put(1, 1);
    put(1, 2);
    reset(2);
    assert_int_equal(fx.n, 0);
    assert_true(tr_store_core_stale(&core));
    get(2, 1);
    assert_int_equal(fx.n, 0);
    computed(0, 0);
    assert_int_equal(only(0, TR_EFFECT_SEND)->msg.type, TR_MSG_RESET_DONE);
    assert_int_equal(only(1, TR_EFFECT_COMPUTE)->msg.type, TR_MSG_STORE_GET); /* of the new epoch alone */
    assert_false(tr_store_core_stale(&core));
}

static void nonsense_is_counted(void **state) {
    (void)state;
    reset(1);
    computed(0, 0);
    tr_msg m = {.type = TR_MSG_STEP};
    send(&m, SCHED);
    m.type = TR_MSG_STORE_GET;
    send(&m, 9);
    for (uint32_t i = 0; i < TR_STORE_CORE_QUEUE + 3; i++) put(1, i + 1); /* one runs */
    assert_int_equal(core.protocol_errors, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(in_order, setup), cmocka_unit_test_setup(repeats_and_other_epochs, setup),
        cmocka_unit_test_setup(reset_waits_for_what_runs, setup), cmocka_unit_test_setup(nonsense_is_counted, setup)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
