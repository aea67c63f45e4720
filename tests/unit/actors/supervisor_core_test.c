/* Spawn, readiness, restart budget, hang, start-up failure, end. */
#include "actors/supervisor/supervisor_core.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS 1000000ull
#define S  1000000000ull

static tr_effects *fx;
static tr_supervisor_core core;
static uint64_t now;

static void event(tr_event ev) {
    ev.now_ns = now;
    tr_supervisor_core_step(&core, &ev, fx);
}
static void state_of(uint32_t actor, uint32_t state, uint32_t busy, uint64_t progress) {
    tr_event ev = {.kind = TR_EVENT_CHILD_STATE, .from = actor};
    ev.as.child_state.state = state;
    ev.as.child_state.busy = busy;
    ev.as.child_state.progress = progress;
    event(ev);
}
static void gone(uint32_t actor, int code, int signal) {
    tr_event ev = {.kind = TR_EVENT_CHILD_EXIT, .from = actor};
    ev.as.child_exit.exit_code = signal ? -1 : code;
    ev.as.child_exit.signal = signal;
    event(ev);
}
static const tr_effect *find(tr_effect_kind kind, uint32_t to) {
    for (uint32_t i = 0; i < fx->n; i++)
        if (fx->item[i].kind == kind && fx->item[i].to == to) return &fx->item[i];
    return NULL;
}
static void begin(bool ready) {
    tr_supervisor_core_config c = {.n_children = 2,
                                   .child = {10, 11},
                                   .hang_ns = 1 * S,
                                   .start_ns = 5 * S,
                                   .term_ns = 500 * MS,
                                   .backoff_ns = 50 * MS};
    now = 1 * S;
    assert_int_equal(tr_supervisor_core_init(&core, &c), TR_OK);
    event((tr_event){.kind = TR_EVENT_START});
    assert_int_equal(fx->item[0].kind, TR_EFFECT_SPAWN); /* in the order of the table */
    assert_int_equal(fx->item[0].to, 10);
    assert_int_equal(fx->item[1].to, 11);
    assert_int_equal(fx->item[1].incarnation, 1);
    for (uint32_t a = 10; ready && a <= 11; a++) state_of(a, TR_ACTOR_READY, 0, 0);
    if (ready) assert_int_equal(core.state, TR_ACTOR_READY);
}

static void ready_is_published_and_death_restarts(void **state) {
    (void)state;
    begin(false);
    state_of(10, TR_ACTOR_READY, 0, 0);
    assert_true(find(TR_EFFECT_PEERS, 10)->up);
    assert_int_equal(core.state, TR_ACTOR_INIT); /* one is missing */
    state_of(11, TR_ACTOR_READY, 0, 0);
    assert_int_equal(core.state, TR_ACTOR_READY);
    gone(11, 0, SIGSEGV);
    assert_false(find(TR_EFFECT_PEERS, 11)->up);
    assert_true(find(TR_EFFECT_PEERS, 11)->counted);
    assert_int_equal(find(TR_EFFECT_SPAWN, 11)->incarnation, 2);
    assert_null(find(TR_EFFECT_EXIT, 11));
    state_of(11, TR_ACTOR_READY, 0, 0);
    assert_int_equal(find(TR_EFFECT_PEERS, 11)->incarnation, 2);
    gone(11, 0, SIGKILL); /* from outside */
    assert_false(find(TR_EFFECT_PEERS, 11)->counted);
}

static void outside_kills_never_escalate(void **state) {
    (void)state;
    begin(true);
    for (uint32_t i = 0; i < 100; i++) {
        gone(10, 0, SIGKILL);
        assert_non_null(find(TR_EFFECT_SPAWN, 10)); /* at once */
        state_of(10, TR_ACTOR_READY, 0, 0);
    }
    assert_int_equal(core.state, TR_ACTOR_READY);
}

/* Deaths until the company ends; 0: it did not within 20. */
static uint32_t deaths_until_end(uint64_t gap, bool progress) {
    begin(true);
    for (uint32_t i = 1; i <= 20; i++) {
        now += gap;
        gone(10, 3, 0);
        if (core.state == TR_ACTOR_DRAINING) return i;
        while (!core.child[0].alive) { /* backoff */
            now = core.timer_ns;
            event((tr_event){.kind = TR_EVENT_TIMER});
        }
        state_of(10, TR_ACTOR_READY, 0, progress ? i : 0);
    }
    return 0;
}

static void budget(void **state) {
    (void)state;
    assert_int_equal(deaths_until_end(1 * S, false), TR_SUPERVISOR_CORE_BUDGET);
    assert_int_equal(core.exit_code, 70);
    assert_int_equal(core.culprit, 10);
    assert_int_equal(deaths_until_end(1 * S, true), 0);   /* it works between its deaths */
    assert_int_equal(deaths_until_end(10 * S, false), 0); /* too rare to matter */
}

static void backoff_grows(void **state) {
    (void)state;
    begin(true);
    uint64_t wait[4];
    for (uint32_t i = 0; i < 4; i++) {
        gone(10, 3, 0);
        wait[i] = core.child[0].alive ? 0 : core.child[0].respawn_ns - now;
        uint64_t spawn_at = now + wait[i];
        while (!core.child[0].alive) {
            now = core.timer_ns;
            event((tr_event){.kind = TR_EVENT_TIMER});
        }
        assert_int_equal(now, spawn_at);
        state_of(10, TR_ACTOR_READY, 0, 0);
    }
    assert_int_equal(wait[0], 0);
    assert_int_equal(wait[1], 50 * MS);
    assert_int_equal(wait[2], 100 * MS);
    assert_int_equal(wait[3], 200 * MS);
}

static void timers_until(uint64_t end) {
    while (core.timer_ns != 0 && core.timer_ns <= end) {
        now = core.timer_ns;
        event((tr_event){.kind = TR_EVENT_TIMER});
        if (find(TR_EFFECT_KILL, 10)) return;
    }
}

static void hang_only_while_busy(void **state) {
    (void)state;
    begin(true);
    uint64_t t = now;
    timers_until(t + 10 * S);
    assert_null(find(TR_EFFECT_KILL, 10)); /* idle for long is fine */
    now = t + 10 * S;
    state_of(10, TR_ACTOR_READY, 1, 5);
    timers_until(now + 900 * MS);
    assert_null(find(TR_EFFECT_KILL, 10));
    state_of(10, TR_ACTOR_READY, 1, 6); /* it moves */
    t = now;
    timers_until(t + 900 * MS);
    assert_null(find(TR_EFFECT_KILL, 10));
    timers_until(t + 2 * S);
    assert_int_equal(find(TR_EFFECT_KILL, 10)->signal, SIGKILL);
    gone(10, 0, SIGKILL);
    assert_true(find(TR_EFFECT_PEERS, 10)->counted); /* ours: it says something about the work */
}

/* One that runs, or works on files, has the longer limit alone; one that is stopped has the lease. */
static void lease(void **state) {
    (void)state;
    tr_event runs = {.kind = TR_EVENT_CHILD_STATE, .from = 10};
    runs.as.child_state.state = TR_ACTOR_READY;
    runs.as.child_state.busy = 1;
    runs.as.child_state.runs = true;
    begin(true);
    core.config.lease_ns = 200 * MS;
    state_of(10, TR_ACTOR_READY, 1, 5);
    timers_until(now + 150 * MS);
    assert_null(find(TR_EFFECT_KILL, 10));
    timers_until(now + 150 * MS);
    assert_int_equal(find(TR_EFFECT_KILL, 10)->signal, SIGKILL);
    begin(true);
    core.config.lease_ns = 200 * MS;
    state_of(10, TR_ACTOR_READY, 1, 5);
    runs.as.child_state.progress = 5;
    for (int i = 0; i < 9; i++) {
        timers_until(now + 100 * MS);
        assert_null(find(TR_EFFECT_KILL, 10));
        event(runs);
    }
    timers_until(now + 150 * MS);
    assert_non_null(find(TR_EFFECT_KILL, 10)); /* for ever */
    begin(true);
    core.config.lease_ns = 200 * MS;
    state_of(10, TR_ACTOR_READY, 2, 5);
    timers_until(now + 900 * MS);
    assert_null(find(TR_EFFECT_KILL, 10));
    timers_until(now + 200 * MS);
    assert_non_null(find(TR_EFFECT_KILL, 10));
}

static void own_sleep_is_no_hang(void **state) {
    (void)state;
    begin(true);
    state_of(10, TR_ACTOR_READY, 1, 5);
    now += 60 * S;
    event((tr_event){.kind = TR_EVENT_TIMER});
    assert_null(find(TR_EFFECT_KILL, 10));
    timers_until(now + 2 * S);
    assert_non_null(find(TR_EFFECT_KILL, 10)); /* but a real one is still seen */
}

static void start_up_failure(void **state) {
    (void)state;
    begin(false);
    gone(11, 78, 0);
    assert_int_equal(core.state, TR_ACTOR_DRAINING);
    assert_int_equal(find(TR_EFFECT_KILL, 10)->signal, SIGTERM);
    assert_null(find(TR_EFFECT_KILL, 11));
    gone(10, 0, 0);
    assert_int_equal(find(TR_EFFECT_EXIT, 11)->exit_code, 78);
    assert_int_equal(core.state, TR_ACTOR_DEAD);
    begin(false);
    now += 6 * S; /* READY never comes; the timer was late, so the clock starts anew */
    event((tr_event){.kind = TR_EVENT_TIMER});
    timers_until(now + 6 * S);
    assert_int_equal(find(TR_EFFECT_KILL, 10)->signal, SIGKILL);
}

static void orderly_end(void **state) {
    (void)state;
    begin(true);
    event((tr_event){.kind = TR_EVENT_STOP});
    assert_int_equal(fx->item[0].to, 11); /* reverse order */
    assert_int_equal(fx->item[0].signal, SIGTERM);
    assert_int_equal(fx->item[1].to, 10);
    gone(11, 0, 0);
    assert_null(find(TR_EFFECT_SPAWN, 11));
    now = core.deadline_ns;
    event((tr_event){.kind = TR_EVENT_TIMER});
    assert_int_equal(find(TR_EFFECT_KILL, 10)->signal, SIGKILL);
    assert_null(find(TR_EFFECT_KILL, 11));
    gone(10, 0, SIGKILL);
    assert_int_equal(find(TR_EFFECT_EXIT, TR_NOBODY)->exit_code, 0);
    event((tr_event){.kind = TR_EVENT_STOP});
    assert_int_equal(fx->n, 0); /* EXIT was the last word */
}

int main(void) {
    fx = calloc(1, sizeof *fx);
    const struct CMUnitTest tests[] = {cmocka_unit_test(ready_is_published_and_death_restarts),
                                       cmocka_unit_test(outside_kills_never_escalate),
                                       cmocka_unit_test(budget),
                                       cmocka_unit_test(backoff_grows),
                                       cmocka_unit_test(hang_only_while_busy),
                                       cmocka_unit_test(lease),
                                       cmocka_unit_test(own_sleep_is_no_hang),
                                       cmocka_unit_test(start_up_failure),
                                       cmocka_unit_test(orderly_end)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(fx);
    return failed;
}
