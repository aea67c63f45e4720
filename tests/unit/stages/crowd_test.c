/* Verdicts on a virtual clock: when a team has its cores to itself. */
#include "stages/crowd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* n runs of 5 ms that lose a percentage; how often the verdict changed. */
static int runs(tr_crowd *c, int n, uint64_t percent) {
    int changes = 0;
    for (int i = 0; i < n; i++) changes += tr_crowd_add(c, 5000000, 50000 * percent);
    return changes;
}

static void alone_stays_alone(void **state) {
    (void)state;
    tr_crowd c = {0};
    assert_int_equal(runs(&c, 10000, 3), 0);
    assert_int_equal(runs(&c, 10000, 20), 0);
    assert_false(c.crowded);
}

static void a_busy_neighbour_is_seen_and_forgotten(void **state) {
    (void)state;
    tr_crowd c = {0};
    for (int turn = 0; turn < 20; turn++) {
        assert_int_equal(runs(&c, 40, 50), 1); /* within 200 ms */
        assert_true(c.crowded);
        assert_int_equal(runs(&c, 4000, 30), 0);
        assert_int_equal(runs(&c, 4000, 10), 0); /* between the two limits it stays */
        assert_int_equal(runs(&c, 100, 1), 0);   /* half a second of calm may be chance */
        assert_true(c.crowded);
        assert_int_equal(runs(&c, 200, 1), 1);
        assert_false(c.crowded);
    }
}

/* Short steps and single stalls count by their time. */
static void judged_by_time(void **state) {
    (void)state;
    tr_crowd c = {0};
    for (int i = 0; i < 100000; i++) {
        uint64_t stall = i % 1000 == 0 ? 8000000 : 0; /* one time slice in a second */
        assert_false(tr_crowd_add(&c, 1000000 + stall, stall));
    }
    assert_false(c.crowded);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_stays_alone),
        cmocka_unit_test(a_busy_neighbour_is_seen_and_forgotten),
        cmocka_unit_test(judged_by_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
