/* The worker team: every worker that takes part runs once, barriers hold everybody, shares cover, more workers than
 * cores. */
#include "stages/team.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORKERS_MAX = 9, PHASES = 200 };

typedef struct job {
    tr_team *team;
    uint32_t n, width;          /* of the last run: fewer than n on a crowded machine */
    uint64_t cell[WORKERS_MAX]; /* plain memory: only the barrier orders it */
    _Atomic uint32_t wrong, seen;
} job;

/* Each phase every worker adds what all others wrote in the phase before; a barrier that lets one through early gives
 * another number. */
static void phases(void *arg, uint32_t worker, uint32_t n_workers) {
    job *j = arg;
    uint64_t expected = 1;
    if (n_workers > j->n || worker >= n_workers) atomic_fetch_add(&j->wrong, 1);
    if (worker == 0) j->width = n_workers;
    atomic_fetch_add(&j->seen, 1u << (3 * worker));
    j->cell[worker] = expected;
    for (int p = 0; p < PHASES; p++) {
        tr_team_barrier(j->team);
        uint64_t sum = 0;
        for (uint32_t i = 0; i < n_workers; i++) sum += j->cell[i];
        tr_team_barrier(j->team);
        if (sum != expected * n_workers) atomic_fetch_add(&j->wrong, 1);
        expected = sum % 1000003;
        if (p % 50 == (int)worker) usleep(200); /* some must sleep */
        j->cell[worker] = expected;
    }
}

static void barriers(void **state) {
    (void)state;
    for (uint32_t n = 1; n <= WORKERS_MAX; n += n < 4 ? 1 : 5) {
        job j = {.n = n};
        tr_error err = {0};
        if (tr_team_create(n, NULL, &j.team, &err) != TR_OK) fail_msg("%s", err.text);
        assert_int_equal(tr_team_size(j.team), n);
        for (int run = 0; run < 20; run++) {
            j.seen = 0;
            tr_team_run(j.team, phases, &j, 0);
            assert_true(run > 0 || j.width == n);
            for (uint32_t w = 0; w < n; w++) assert_int_equal(j.seen >> (3 * w) & 7, w < j.width);
            if (run % 5 == 0) usleep(1000); /* workers sleep between runs */
        }
        assert_int_equal(j.wrong, 0);
        tr_team_destroy(&j.team);
        assert_null(j.team);
        tr_team_destroy(&j.team);
    }
}

static void where(void *arg, uint32_t worker, uint32_t n_workers) {
    (void)n_workers;
    sched_getaffinity(0, sizeof(cpu_set_t), &((cpu_set_t *)arg)[worker]);
}

/* The first two CPUs of this process, the first one again when there is one only. */
static void two_cpus(uint32_t cpus[2]) {
    cpu_set_t mine;
    int n = 0;
    assert_int_equal(sched_getaffinity(0, sizeof mine, &mine), 0);
    for (int c = 0; c < CPU_SETSIZE && n < 2; c++)
        if (CPU_ISSET(c, &mine)) cpus[n++] = (uint32_t)c;
    for (; n < 2; n++) cpus[n] = cpus[0];
}

static void bound(void **state) {
    (void)state;
    cpu_set_t before, got[3];
    uint32_t two[2];
    sched_getaffinity(0, sizeof before, &before);
    two_cpus(two);
    const uint32_t cpus[3] = {two[0], two[1], two[0]}; /* two workers on one core is allowed */
    tr_team *team = NULL;
    assert_int_equal(tr_team_create(3, cpus, &team, NULL), TR_OK);
    tr_team_run(team, where, got, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(CPU_COUNT(&got[i]), 1);
        assert_true(CPU_ISSET(cpus[i], &got[i]));
    }
    tr_team_destroy(&team);
    sched_setaffinity(0, sizeof before, &before);
}

static void one_is_late(void *arg, uint32_t worker, uint32_t n_workers) {
    (void)arg, (void)n_workers;
    if (worker == 1) usleep(2000);
}

static void alone_is_slow(void *arg, uint32_t worker, uint32_t n_workers) {
    (void)arg, (void)worker;
    if (n_workers == 1) usleep(2000);
}

/* A late worker is somebody without a core: the team goes on without him on all its cores, and calls him back. */
static void crowded(void **state) {
    (void)state;
    cpu_set_t before, got[2];
    uint32_t cpus[2];
    sched_getaffinity(0, sizeof before, &before);
    two_cpus(cpus);
    if (cpus[0] == cpus[1]) skip();
    tr_team *team = NULL;
    assert_int_equal(tr_team_create(2, cpus, &team, NULL), TR_OK);
    CPU_ZERO(&got[1]);
    for (int i = 0; i < 200; i++) {
        tr_team_run(team, one_is_late, NULL, 0);
        tr_team_settle(team);
    }
    tr_team_run(team, where, got, 0);
    assert_int_equal(CPU_COUNT(&got[0]), 2);
    assert_true(CPU_ISSET(cpus[0], &got[0]) && CPU_ISSET(cpus[1], &got[0]));
    assert_int_equal(CPU_COUNT(&got[1]), 0);
    for (int i = 0; i < 5000 && CPU_COUNT(&got[1]) == 0; i++) {
        tr_team_run(team, alone_is_slow, NULL, 0);
        tr_team_settle(team);
        tr_team_run(team, where, got, 0);
    }
    for (int i = 0; i < 2; i++) assert_true(CPU_COUNT(&got[i]) == 1 && CPU_ISSET(cpus[i], &got[i]));
    tr_team_destroy(&team);
    sched_setaffinity(0, sizeof before, &before);
}

static void count(void *arg, uint32_t worker, uint32_t n_workers) {
    (void)n_workers;
    atomic_fetch_add((_Atomic uint32_t *)arg + worker, 1);
}

static bool comes_to(const _Atomic uint32_t *word, uint32_t value) {
    for (int i = 0; i < 20000 && atomic_load(word) != value; i++) usleep(100);
    return atomic_load(word) == value;
}

/* Two teams in turn, as stages do it: each run wakes the workers of the other team, who wait in a lobby. */
static void hands_on(void **state) {
    (void)state;
    enum { N = 3, TURNS = 500 };
    static tr_team_lobby lobby[2];
    _Atomic uint32_t runs[2][N] = {0};
    tr_team *team[2];
    atomic_store(&lobby[1].asleep, 7); /* of a process that died */
    for (int i = 0; i < 2; i++) {
        const tr_team_config c = {.n_ranks = 1, .n_workers = N, .total = N, .lobby = &lobby[i]};
        assert_int_equal(tr_team_join(&c, &team[i], NULL), TR_OK);
        tr_team_run(team[i], count, runs[i], 0);
        assert_true(comes_to(&lobby[i].asleep, N - 1)); /* the first is this thread */
    }
    assert_int_equal(atomic_load(&lobby[1].calls), 0); /* handed on to nobody */
    tr_team_hand_on(team[0], &lobby[1]);
    tr_team_run(team[0], count, runs[0], 0);
    assert_true(comes_to(&lobby[1].calls, N - 1));  /* by each worker but the first */
    assert_true(comes_to(&lobby[1].asleep, N - 1)); /* no run came: they sleep again */
    assert_int_equal(atomic_load(&runs[1][1]), 1);
    tr_team_hand_on(team[1], &lobby[0]);
    for (int i = 2; i < TURNS; i++) {
        tr_team_run(team[1], count, runs[1], 0);
        tr_team_run(team[0], count, runs[0], 0);
        if (i % 50 == 0) usleep(1000);
    }
    for (int i = 0; i < 2; i++) {
        tr_team_hand_on(team[i], NULL);
        assert_int_equal(atomic_load(&runs[i][0]), i == 0 ? TURNS : TURNS - 1);
        for (int k = 1; k < N; k++) assert_in_range(atomic_load(&runs[i][k]), 1, TURNS); /* may stay away */
    }
    for (int i = 0; i < 2; i++) tr_team_destroy(&team[i]); /* from their sleep */
}

static void refused_pin_goes_on(void **state) {
    (void)state;
    cpu_set_t before;
    cpu_set_t got[2];
    CPU_ZERO(&got[0]);
    CPU_ZERO(&got[1]);
    tr_team *team = NULL;
    sched_getaffinity(0, sizeof before, &before);
    assert_int_equal(tr_team_create(2, (uint32_t[]){1020, 1021}, &team, NULL), TR_OK);
    tr_team_run(team, where, got, 0);
    assert_true(CPU_COUNT(&got[0]) > 0 && CPU_COUNT(&got[1]) > 0);
    tr_team_destroy(&team);
    sched_setaffinity(0, sizeof before, &before);
}

static void shares(void **state) {
    (void)state;
    for (uint32_t n = 0; n < 50; n++)
        for (uint32_t workers = 1; workers < 20; workers++) {
            uint32_t at = 0, least = UINT32_MAX, most = 0;
            for (uint32_t w = 0; w < workers; w++) {
                uint32_t begin, end;
                tr_team_share(n, w, workers, &begin, &end);
                assert_int_equal(begin, at);
                assert_true(end >= begin);
                at = end;
                least = end - begin < least ? end - begin : least;
                most = end - begin > most ? end - begin : most;
            }
            assert_int_equal(at, n);
            assert_true(most - least <= 1);
        }
    uint32_t begin, end;
    tr_team_share(UINT32_MAX, 255, 256, &begin, &end);
    assert_int_equal(end, UINT32_MAX);
}

static void refused(void **state) {
    (void)state;
    tr_team *team = NULL;
    assert_int_equal(tr_team_create(0, NULL, &team, NULL), TR_CONFIG);
    assert_int_equal(tr_team_create(100000, NULL, &team, NULL), TR_CONFIG);
    assert_null(team);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(barriers),
                                       cmocka_unit_test(bound),
                                       cmocka_unit_test(crowded),
                                       cmocka_unit_test(hands_on),
                                       cmocka_unit_test(refused_pin_goes_on),
                                       cmocka_unit_test(shares),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
