/* A team over processes: barriers hold everybody, and whoever is killed at whatever instruction - leader or follower,
 * in a run, at a barrier or between runs - nobody hangs, and after the ranks have agreed the next run is whole again.
 * This process plays the supervisor and the scheduler: it sees deaths, starts new lives, and asks who is idle. */
#include "base/clock.h"
#include "base/rng.h"
#include "stages/team.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { RANKS = 3, WORKERS = 2, TOTAL = RANKS * WORKERS, PHASES = 30, DEATHS = 60 };

typedef struct shared {
    tr_team_meeting meeting;
    uint64_t cell[TOTAL]; /* plain memory: only the barrier orders it */
    _Atomic uint32_t wrong, whole, aborted;
    _Atomic uint32_t reset;        /* raised by the parent when all ranks are up */
    _Atomic uint32_t quiet[RANKS]; /* the last reset that the rank has answered */
    _Atomic uint32_t go;           /* the last reset that all have answered */
    _Atomic uint32_t stop, ready[RANKS];
} shared;

static shared *s;
static tr_team *team;

/* Each phase every worker adds what all others wrote in the phase before. Checked only in runs that were whole. */
static void phases(void *arg, uint32_t worker, uint32_t n_workers) {
    uint64_t expected = 1, bad = n_workers != TOTAL;
    (void)arg;
    s->cell[worker] = expected;
    for (int p = 0; p < PHASES; p++) {
        if (!tr_team_barrier(team)) return;
        uint64_t sum = 0;
        for (uint32_t i = 0; i < TOTAL; i++) sum += s->cell[i];
        if (!tr_team_barrier(team)) return;
        bad += sum != expected * TOTAL;
        expected = sum % 1000003;
        s->cell[worker] = expected;
    }
    if (bad) atomic_fetch_add(&s->wrong, 1);
}

static void join(uint32_t rank) {
    tr_error err = {0};
    const tr_team_config c = {.meeting = &s->meeting,
                              .rank = rank,
                              .n_ranks = RANKS,
                              .n_workers = WORKERS,
                              .first = rank * WORKERS,
                              .total = TOTAL,
                              .follow = phases};
    if (tr_team_join(&c, &team, &err) != TR_OK) _exit(3);
    tr_team_enter(team);
    atomic_store(&s->ready[rank], 1);
}

static void follow(uint32_t rank) {
    while (!atomic_load(&s->stop)) {
        const uint32_t reset = atomic_load(&s->reset);
        if (tr_team_what(team) > 7) atomic_fetch_add(&s->wrong, 1);
        if (reset != atomic_load(&s->quiet[rank]) && tr_team_idle(team)) atomic_store(&s->quiet[rank], reset);
        usleep(200);
    }
}

/* Runs steps while all is well, like a stage: after a run that was not whole it waits for a new reset. */
static void lead(void) {
    uint32_t needed = atomic_load(&s->reset) + 1; /* a new life begins with one */
    for (uint32_t i = 0; !atomic_load(&s->stop); i++) {
        const uint32_t reset = atomic_load(&s->reset);
        atomic_store(&s->quiet[0], reset);
        if ((int32_t)(atomic_load(&s->go) - needed) < 0 || atomic_load(&s->go) != reset) {
            usleep(100);
            continue;
        }
        if (tr_team_run(team, phases, NULL, i % 8)) {
            atomic_fetch_add(&s->whole, 1);
        } else {
            atomic_fetch_add(&s->aborted, 1);
            needed = atomic_load(&s->go) + 1;
        }
    }
}

static pid_t start(uint32_t rank) {
    atomic_store(&s->ready[rank], 0);
    const pid_t pid = fork();
    if (pid != 0) return pid;
    join(rank);
    if (rank == 0)
        lead();
    else
        follow(rank);
    tr_team_destroy(&team);
    _exit(0);
}

static void until(const char *what, bool (*done)(uint32_t), uint32_t arg) {
    const uint64_t end = tr_clock_now_ns() + 60 * TR_NS_PER_S;
    while (!done(arg)) {
        if (tr_clock_now_ns() > end) fail_msg("waited in vain: %s (%u)", what, arg);
        usleep(100);
    }
}
static bool is_ready(uint32_t rank) { return atomic_load(&s->ready[rank]) != 0; }
static bool is_quiet(uint32_t rank) { return atomic_load(&s->quiet[rank]) == atomic_load(&s->reset); }
static bool has_run(uint32_t n) { return atomic_load(&s->whole) >= n; }

/* What the scheduler does once all ranks are up: all of them answer, then work goes on. */
static void settle(void) {
    for (uint32_t r = 0; r < RANKS; r++) until("rank is ready", is_ready, r);
    atomic_fetch_add(&s->reset, 1);
    for (uint32_t r = 0; r < RANKS; r++) until("rank is quiet", is_quiet, r);
    atomic_store(&s->go, atomic_load(&s->reset));
}

static void bury(pid_t pid, uint32_t rank) {
    int status;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    tr_team_meeting_leave(&s->meeting, rank);
}

/* The thread sanitizer sees one process: what another one orders looks unordered to it. */
static void skip_for_the_thread_sanitizer(void) {
#ifdef __SANITIZE_THREAD__
    skip();
#endif
}

static void deaths(void **state) {
    (void)state;
    skip_for_the_thread_sanitizer();
    pid_t pid[RANKS];
    tr_rng rng = {tr_clock_now_ns()};
    print_message("seed %llu\n", (unsigned long long)rng.state);
    tr_team_meeting_init(&s->meeting);
    for (uint32_t r = 0; r < RANKS; r++) pid[r] = start(r);
    settle();
    until("first runs", has_run, 10);
    for (int i = 0; i < DEATHS; i++) {
        const uint32_t n = 1 + (uint32_t)tr_rng_below(&rng, 2), first = (uint32_t)tr_rng_below(&rng, RANKS);
        const uint32_t before = atomic_load(&s->whole);
        usleep((useconds_t)tr_rng_below(&rng, 3000));
        for (uint32_t k = 0; k < n; k++) { /* one, or two shortly after each other */
            const uint32_t rank = (first + k) % RANKS;
            bury(pid[rank], rank);
            if (tr_rng_below(&rng, 2)) usleep(300);
            pid[rank] = start(rank);
        }
        settle();
        until("runs after a death", has_run, before + 3);
    }
    atomic_store(&s->stop, 1);
    for (uint32_t r = 0; r < RANKS; r++) {
        int status;
        assert_int_equal(waitpid(pid[r], &status, 0), pid[r]);
        assert_int_equal(status, 0);
    }
    print_message("%u whole runs, %u aborted ones\n", s->whole, s->aborted);
    assert_int_equal(s->wrong, 0);
    assert_true(s->whole > 3 * DEATHS);
}

/* Nobody runs without everybody; who leaves in order is missed too. */
static void absent(void **state) {
    (void)state;
    skip_for_the_thread_sanitizer();
    memset(s, 0, sizeof *s);
    tr_team_meeting_init(&s->meeting);
    pid_t pid[RANKS];
    for (uint32_t r = 1; r < RANKS; r++) pid[r] = start(r);
    join(0); /* after the forks: it has threads */
    for (uint32_t r = 1; r < RANKS; r++) until("rank is ready", is_ready, r);
    assert_true(tr_team_run(team, phases, NULL, 3));
    assert_false(tr_team_aborted(team));
    atomic_store(&s->stop, 1);
    for (uint32_t r = 1; r < RANKS; r++) waitpid(pid[r], NULL, 0);
    assert_false(tr_team_run(team, phases, NULL, 0));
    tr_team_destroy(&team);
    assert_int_equal(s->wrong, 0);
}

/* All workers of a rank wait for one that does not come: the rank says that it does not hang. */
static _Atomic uint64_t beat;
static void is_late(void *arg, uint32_t worker, uint32_t n_workers) {
    (void)arg, (void)worker, (void)n_workers;
    usleep(250000);
}
static void nothing(void *arg, uint32_t worker, uint32_t n_workers) { (void)arg, (void)worker, (void)n_workers; }

static void beats(void **state) {
    (void)state;
    memset(s, 0, sizeof *s);
    tr_team_meeting_init(&s->meeting);
    tr_team *leader, *other;
    tr_team_config c = {.meeting = &s->meeting, .n_ranks = 2, .n_workers = 1, .total = 2, .beat = &beat};
    assert_int_equal(tr_team_join(&c, &leader, NULL), TR_OK);
    c.rank = c.first = 1;
    c.follow = is_late;
    c.beat = NULL;
    assert_int_equal(tr_team_join(&c, &other, NULL), TR_OK);
    tr_team_enter(leader);
    assert_false(tr_team_run(leader, nothing, NULL, 0));
    assert_true(tr_team_aborted(leader));
    tr_team_enter(other);
    assert_true(tr_team_run(leader, nothing, NULL, 0));
    assert_in_range(atomic_load(&beat), 1, 20);
    tr_team_destroy(&other);
    tr_team_destroy(&leader);
}

int main(void) {
    s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(deaths), cmocka_unit_test(absent), cmocka_unit_test(beats)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
