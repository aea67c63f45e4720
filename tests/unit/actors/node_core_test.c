/* When another node counts as down, and when it is given up. */
#include "actors/node/node_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { PING = 100, SILENT = 800, LOST = 5000 };
static tr_node_core c;

static int fresh(void **state) {
    (void)state;
    tr_node_core_init(&c, PING, SILENT, LOST, 1000);
    return 0;
}

/* First verdict that is not FINE while time passes in steps, and when. */
static tr_node_core_verdict run(uint64_t *now, uint64_t until, uint64_t step) {
    for (; *now <= until; *now += step) {
        tr_node_core_verdict v = tr_node_core_tick(&c, *now);
        if (v != TR_NODE_CORE_FINE) return v;
    }
    return TR_NODE_CORE_FINE;
}

static void test_pings(void **state) {
    (void)state;
    uint64_t now = 1000;
    tr_node_core_up(&c, now);
    assert_int_equal(run(&now, 5000, 10), TR_NODE_CORE_PING);
    assert_int_equal(now, 1100);
    tr_node_core_said(&c, now);
    now += 10;
    assert_int_equal(run(&now, 5000, 10), TR_NODE_CORE_PING);
    assert_int_equal(now, 1200);
}

static void test_silence(void **state) {
    (void)state;
    uint64_t now = 1000;
    tr_node_core_up(&c, now);
    for (;; now += 10) {
        tr_node_core_said(&c, now);
        if (tr_node_core_tick(&c, now) != TR_NODE_CORE_FINE) break;
        if (now <= 1500 && now % PING == 0) tr_node_core_heard(&c, now);
    }
    assert_int_equal(now, 1500 + SILENT);
    tr_node_core_down(&c, now);
    assert_int_equal(c.outages, 1);
    uint64_t down = now;
    assert_int_equal(run(&now, 20000, 10), TR_NODE_CORE_LOST);
    assert_int_equal(now, down + LOST);
    now += 10;
    assert_int_equal(run(&now, 30000, 10), TR_NODE_CORE_FINE); /* once */
    tr_node_core_up(&c, now);
    assert_true(c.up && !c.lost);
}

/* Never there at all. */
static void test_never_up(void **state) {
    (void)state;
    uint64_t now = 1000;
    assert_int_equal(run(&now, 20000, 10), TR_NODE_CORE_LOST);
    assert_int_equal(now, 1000 + LOST);
}

/* This process was stopped for a minute: that says nothing about the other. */
static void test_own_sleep(void **state) {
    (void)state;
    uint64_t now = 1000;
    tr_node_core_up(&c, now);
    tr_node_core_said(&c, now + 60000);
    assert_int_equal(tr_node_core_tick(&c, now + 60000), TR_NODE_CORE_FINE);
    now += 60000;
    for (;; now += 10) {
        tr_node_core_said(&c, now);
        if (tr_node_core_tick(&c, now) != TR_NODE_CORE_FINE) break;
    }
    assert_int_equal(now, 61000 + SILENT);
    tr_node_core_down(&c, now);
    assert_int_equal(tr_node_core_tick(&c, now + 60000), TR_NODE_CORE_FINE);
}

/* Pings that come late raise the limit, up to four times; punctual ones lower it again after a while. */
static void test_late_pings(void **state) {
    (void)state;
    const uint64_t ms = 1000000;
    uint64_t now = 1000 * ms;
    tr_node_core_init(&c, 50 * ms, 250 * ms, 10000 * ms, now);
    tr_node_core_up(&c, now);
    assert_int_equal(tr_node_core_limit(&c), 250 * ms);
    tr_node_core_heard(&c, now += 150 * ms);
    assert_int_equal(tr_node_core_limit(&c), 450 * ms);
    tr_node_core_heard(&c, now += 440 * ms);
    assert_int_equal(tr_node_core_limit(&c), 1000 * ms);
    for (uint64_t end = now + 11000 * ms; now < end;) tr_node_core_heard(&c, now += 50 * ms);
    assert_int_equal(tr_node_core_limit(&c), 250 * ms);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_pings, fresh), cmocka_unit_test_setup(test_silence, fresh),
        cmocka_unit_test_setup(test_never_up, fresh), cmocka_unit_test_setup(test_late_pings, fresh),
        cmocka_unit_test_setup(test_own_sleep, fresh)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
