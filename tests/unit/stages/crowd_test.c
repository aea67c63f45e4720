/* Verdicts on a virtual clock: how many workers of a team take part. */
#include "stages/crowd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { WINDOW = 40, PERCENT = 50000 }; /* runs of 5 ms */

/* k runs of 5 ms of n workers that lose a percentage; how often the verdict changed. */
static int runs(tr_crowd *c, uint32_t n, int k, uint64_t percent) {
    int changes = 0;
    for (int i = 0; i < k; i++) {
        const uint32_t before = c->away;
        tr_crowd_add(c, n, 100 * PERCENT, percent * PERCENT);
        changes += c->away != before;
    }
    return changes;
}

static void alone_all_take_part(void **state) {
    (void)state;
    tr_crowd c = {0};
    assert_int_equal(runs(&c, 4, 10000, 3), 0);
    assert_int_equal(runs(&c, 4, 10000, 50), 0);
    assert_int_equal(c.away, 0);
}

static void a_busy_neighbour_is_seen_and_forgotten(void **state) {
    (void)state;
    tr_crowd c = {0};
    for (int turn = 0; turn < 20; turn++) {
        assert_int_equal(runs(&c, 4, WINDOW - 1, 60), 1); /* within 200 ms, as soon as it is sure */
        assert_int_equal(c.away, 1);
        assert_int_equal(runs(&c, 4, WINDOW * (TR_CROWD_TRY - 1), 20), 0); /* the others are alone, and stay */
        assert_int_equal(runs(&c, 4, WINDOW, 0), 1);                       /* is he still there? */
        assert_int_equal(c.away, 0);
        assert_int_equal(runs(&c, 4, WINDOW, 60), 1); /* he is */
        assert_int_equal(c.away, 1);
        assert_int_equal(runs(&c, 4, WINDOW * TR_CROWD_TRY, 0), 1);
        assert_int_equal(runs(&c, 4, 4000, 3), 0); /* he is not */
        assert_int_equal(c.away, 0);
    }
}

/* Several neighbours take as many workers, but never the last one. */
static void one_always_works(void **state) {
    (void)state;
    tr_crowd c = {0};
    assert_int_equal(runs(&c, 4, 3 * (WINDOW / 2 + 1), 100), 3);
    assert_int_equal(c.away, 3);
    assert_int_equal(runs(&c, 4, WINDOW * (TR_CROWD_TRY - 1), 0), 0);
    assert_int_equal(c.away, 3);
    tr_crowd one = {0};
    assert_int_equal(runs(&one, 1, 1000, 100), 0);
}

/* Short steps and single stalls count by their time. */
static void judged_by_time(void **state) {
    (void)state;
    tr_crowd c = {0};
    for (int i = 0; i < 100000; i++) {
        uint64_t stall = i % 1000 == 0 ? 8000000 : 0; /* one time slice in a second */
        tr_crowd_add(&c, 2, 1000000 + stall, stall);
        assert_int_equal(c.away, 0);
    }
}

/* He who finds no core is not kept from one: of many such waits next to nothing is spun away. Chance is forgotten. */
static void spins_less_in_vain(void **state) {
    (void)state;
    uint32_t cut = 0;
    uint64_t spun = 0;
    assert_true(tr_crowd_spin_ns(cut) == TR_CROWD_WAIT_NS);
    for (int i = 0; i < 100; i++, cut = tr_crowd_spin_cut(cut, false)) spun += tr_crowd_spin_ns(cut);
    assert_in_range(spun, TR_CROWD_WAIT_NS, 5 * TR_CROWD_WAIT_NS);
    assert_in_range(tr_crowd_spin_ns(cut), 20000, 50000); /* meetings without work in between are seen still */
    for (int i = 0; i < 10; i++) cut = tr_crowd_spin_cut(cut, true);
    assert_true(tr_crowd_spin_ns(cut) == TR_CROWD_WAIT_NS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_all_take_part), cmocka_unit_test(a_busy_neighbour_is_seen_and_forgotten),
        cmocka_unit_test(one_always_works),    cmocka_unit_test(judged_by_time),
        cmocka_unit_test(spins_less_in_vain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
