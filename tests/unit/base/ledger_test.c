/* The kinds of a ledger sum up to the time that went by, to the nanosecond, and readers never see one go back. */
#include "base/ledger.h"

#include "base/clock.h"
#include "base/rng.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t sum(const uint64_t ns[TR_LEDGER_KINDS]) {
    uint64_t all = 0;
    for (int k = 0; k < TR_LEDGER_KINDS; k++) all += ns[k];
    return all;
}

static tr_ledger_kind any(uint64_t seed, uint64_t i) {
    return (tr_ledger_kind)(tr_rng_hash(seed, i) % TR_LEDGER_KINDS);
}

static void names(void **state) {
    (void)state;
    assert_string_equal(tr_ledger_name(TR_LEDGER_COMPUTE), "compute");
    assert_string_equal(tr_ledger_name(TR_LEDGER_KV_WAIT), "kv_wait");
    assert_string_equal(tr_ledger_name(TR_LEDGER_KINDS), "?");
}

static void empty_before_the_first_turn(void **state) {
    (void)state;
    tr_ledger l = {0};
    uint64_t ns[TR_LEDGER_KINDS];
    tr_ledger_read(&l, ns);
    assert_int_equal(sum(ns), 0);
}

/* A model that books by the readings that turn returns agrees in every kind, after every turn. */
static void kinds_sum_up(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        tr_ledger l = {0};
        uint64_t want[TR_LEDGER_KINDS] = {0}, have[TR_LEDGER_KINDS];
        const uint64_t begin = tr_ledger_turn(&l, any(seed, 0));
        uint64_t last = begin;
        for (uint64_t i = 1; i < 500; i++) {
            const uint64_t now = tr_ledger_turn(&l, any(seed, i));
            want[any(seed, i - 1)] += now - last;
            last = now;
            const uint64_t seen = tr_ledger_read(&l, have);
            assert_int_equal(sum(have), seen - begin);
            have[any(seed, i)] -= seen - last; /* the running period */
            assert_memory_equal(have, want, sizeof want);
        }
    }
}

/* A writer that died in the middle of a change is read as well as it goes, and the next change mends it. */
static void death_in_a_change(void **state) {
    (void)state;
    tr_ledger l = {0};
    uint64_t ns[TR_LEDGER_KINDS];
    const uint64_t begin = tr_ledger_turn(&l, TR_LEDGER_COMPUTE);
    atomic_store(&l.version, atomic_load(&l.version) | 1);
    uint64_t now = tr_ledger_read(&l, ns);
    assert_int_equal(sum(ns), now - begin);
    tr_ledger_turn(&l, TR_LEDGER_FILL_DRAIN);
    assert_int_equal(atomic_load(&l.version) % 2, 0);
    now = tr_ledger_read(&l, ns);
    assert_int_equal(sum(ns), now - begin);
}

static void told_sums_stand_still(void **state) {
    (void)state;
    tr_ledger l = {0};
    const uint64_t told[TR_LEDGER_KINDS] = {1, 2, 3, 4, 5, 6};
    uint64_t ns[TR_LEDGER_KINDS];
    tr_ledger_set(&l, told);
    tr_ledger_read(&l, ns);
    assert_memory_equal(ns, told, sizeof told);
}

static tr_ledger shared;
static atomic_bool over;

static void *work(void *arg) {
    (void)arg;
    for (uint64_t i = 0; i < 300000; i++) tr_ledger_turn(&shared, any(7, i));
    atomic_store(&over, true);
    return NULL;
}

static void readers_never_see_time_go_back(void **state) {
    (void)state;
    pthread_t thread;
    uint64_t ns[TR_LEDGER_KINDS], before[TR_LEDGER_KINDS] = {0}, reads = 0;
    const uint64_t begin = tr_ledger_turn(&shared, TR_LEDGER_STARVATION);
    assert_int_equal(pthread_create(&thread, NULL, work, NULL), 0);
    while (!atomic_load(&over) || reads == 0) {
        const uint64_t now = tr_ledger_read(&shared, ns);
        assert_int_equal(sum(ns), now - begin);
        for (int k = 0; k < TR_LEDGER_KINDS; k++) assert_true(ns[k] >= before[k]);
        memcpy(before, ns, sizeof ns);
        reads++;
    }
    pthread_join(thread, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(names),
                                       cmocka_unit_test(empty_before_the_first_turn),
                                       cmocka_unit_test(kinds_sum_up),
                                       cmocka_unit_test(death_in_a_change),
                                       cmocka_unit_test(told_sums_stand_still),
                                       cmocka_unit_test(readers_never_see_time_go_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
