/* Whether workers spin or sleep, on a virtual clock: with a core for each they spin, without they do not, and what a
 * single slow operation does to one barrier of a step is neither. */
#include "stages/spin_policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

typedef struct clock {
    uint64_t spun_ns, waited_ns;
    uint32_t spins, sleeps; /* waits that began with spinning, that did not */
} clock;

/* One wait for others who arrive after arrival_ns. */
static void wait_for(tr_spin_policy *p, uint64_t arrival_ns, clock *c) {
    const uint32_t budget = tr_spin_policy_budget(p);
    c->waited_ns += arrival_ns;
    c->spins += budget > 0;
    c->sleeps += budget == 0;
    c->spun_ns += arrival_ns < budget ? arrival_ns : budget;
    if (arrival_ns < budget)
        tr_spin_policy_hit(p);
    else
        tr_spin_policy_miss(p);
}

static void free_cores_spin(void **state) {
    (void)state;
    tr_spin_policy p = {0};
    clock c = {0};
    for (uint32_t i = 0; i < 100000; i++) wait_for(&p, 200 + i * 37 % 4000, &c);
    assert_int_equal(c.sleeps, 0);
    assert_int_equal(c.spun_ns, c.waited_ns);
}

/* An operation that one worker does alone, in every step of a hundred barriers. */
static void a_long_wait_a_step_changes_nothing(void **state) {
    (void)state;
    tr_spin_policy p = {0};
    clock c = {0};
    for (uint32_t i = 0; i < 100000; i++) wait_for(&p, i % 100 == 7 ? 400000 : 1000, &c);
    assert_int_equal(c.sleeps, 0);
    assert_true(c.spun_ns <= 100000ull * 1000 + 1000ull * TR_SPIN_POLICY_NS);
}

/* The one who is waited for stands behind a time slice again and again. */
static void no_core_no_spinning(void **state) {
    (void)state;
    tr_spin_policy p = {0};
    clock c = {0};
    for (uint32_t i = 0; i < 100000; i++) wait_for(&p, 1000000, &c);
    assert_true(c.spins <= 3 + 100000 / TR_SPIN_POLICY_PROBE);
    assert_true(c.spun_ns * 200 < c.waited_ns);
}

/* Each way within two probes. */
static void follows_the_load(void **state) {
    (void)state;
    tr_spin_policy p = {0};
    for (int turn = 0; turn < 50; turn++) {
        clock quiet = {0}, settled = {0}, busy = {0};
        for (int i = 0; i < 4 * TR_SPIN_POLICY_PROBE; i++) wait_for(&p, 1500, &quiet);
        for (int i = 0; i < 100; i++) wait_for(&p, 1500, &settled);
        assert_int_equal(settled.sleeps, 0);
        for (int i = 0; i < TR_SPIN_POLICY_PROBE; i++) wait_for(&p, 3000000, &busy);
        assert_true(busy.spins <= TR_SPIN_POLICY_FULL / TR_SPIN_POLICY_MISS + 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_cores_spin),
        cmocka_unit_test(a_long_wait_a_step_changes_nothing),
        cmocka_unit_test(no_core_no_spinning),
        cmocka_unit_test(follows_the_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
