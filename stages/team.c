#include "stages/team.h"

#include "affinity/bind.h"
#include "base/clock.h"
#include "base/log.h"
#include "kernels/ops.h"
#include "stages/crowd.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TEAM_MAX = 256, LOOKS = 16 /* at the word between two readings of the clock */ };

typedef struct worker {
    _Alignas(64) tr_team *team;
    uint32_t index;
    int32_t tid;
    pthread_t thread;
    _Alignas(64) _Atomic uint32_t run; /* raised to start a run of this worker; he sleeps on it */
    _Atomic uint32_t asleep;
} worker;

struct tr_team {
    uint32_t n;
    uint32_t width; /* workers that take part: the first ones; changes between runs only */
    bool spin;      /* every worker may have a core of its own */
    uint32_t *cpus; /* [n] or NULL */
    tr_crowd crowd;
    bool roam;                /* workers are bound to all cores of the team instead of one each */
    _Atomic uint64_t lost_ns; /* of all workers together, in long waits of this run */
    tr_team_fn fn;
    void *arg;
    _Atomic uint32_t quit;
    _Alignas(64) _Atomic uint32_t arrived;    /* workers at the barrier */
    _Alignas(64) _Atomic uint32_t generation; /* raised by the last to arrive */
    _Atomic uint32_t sleepers;
    worker w[];
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* True when *word differs from seen, false when the wait that began at `begin` is a long one. */
static bool spin(_Atomic uint32_t *word, uint32_t seen, uint64_t begin) {
    while (tr_clock_now_ns() - begin < TR_CROWD_WAIT_NS) {
        for (int i = 0; i < LOOKS; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != seen) return true;
            __builtin_ia32_pause();
        }
    }
    return false;
}

static void sleep_until_change(_Atomic uint32_t *sleepers, _Atomic uint32_t *word, uint32_t seen) {
    atomic_fetch_add(sleepers, 1);
    while (atomic_load(word) == seen) futex_wait(word, seen);
    atomic_fetch_sub(sleepers, 1);
}

void tr_team_barrier(tr_team *t) {
    /* Neither changes before this worker has arrived. */
    const uint32_t width = t->width;
    if (width == 1) return;
    const uint32_t generation = atomic_load_explicit(&t->generation, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) + 1 == width) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        atomic_store(&t->generation, generation + 1);
        if (atomic_load(&t->sleepers)) futex_wake_all(&t->generation);
        return;
    }
    const uint64_t begin = tr_clock_now_ns();
    if (t->spin && spin(&t->generation, generation, begin)) return;
    sleep_until_change(&t->sleepers, &t->generation, generation);
    const uint64_t waited = tr_clock_now_ns() - begin;
    if (waited > TR_CROWD_WAIT_NS) atomic_fetch_add_explicit(&t->lost_ns, waited, memory_order_relaxed);
}

/* One core for each worker; with one away all cores for all, for any may be taken. */
static bool bind(const tr_team *t, const worker *w) {
    if (!t->cpus) return true;
    return (t->roam ? tr_bind_task(w->tid, t->cpus, t->n) : tr_bind_task(w->tid, &t->cpus[w->index], 1)) == TR_OK;
}

static void begin_worker(worker *w) {
    w->tid = (int32_t)syscall(SYS_gettid);
    if (!bind(w->team, w))
        tr_log(TR_LOG_WARN, "not_pinned", "worker=%u cpu=%u the system refused it", w->index, w->team->cpus[w->index]);
    tr_ops_thread_init();
}

static void *worker_main(void *arg) {
    worker *w = arg;
    tr_team *t = w->team;
    begin_worker(w);
    tr_team_barrier(t); /* all are where they belong */
    for (uint32_t seen = 0;;) {
        sleep_until_change(&w->asleep, &w->run, seen);
        seen = atomic_load(&w->run);
        if (atomic_load(&t->quit)) return NULL;
        t->fn(t->arg, w->index, t->width);
        tr_team_barrier(t);
    }
}

/* Cores that n workers stand on: of the list, or those that this thread may use. */
static uint32_t cores(uint32_t n, const uint32_t *cpus) {
    cpu_set_t allowed;
    if (!cpus) return sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? (uint32_t)CPU_COUNT(&allowed) : 1;
    uint32_t distinct = 0;
    for (uint32_t i = 0; i < n; i++) {
        bool again = false;
        for (uint32_t j = 0; j < i; j++) again |= cpus[j] == cpus[i];
        distinct += !again;
    }
    return distinct;
}

tr_status tr_team_create(uint32_t n, const uint32_t *cpus, tr_team **team_out, tr_error *err) {
    if (n == 0 || n > TEAM_MAX) return tr_error_set(err, TR_CONFIG, "a stage has 1 to %d workers, not %u", TEAM_MAX, n);
    tr_team *t = aligned_alloc(64, (sizeof *t + n * sizeof(worker) + 63) / 64 * 64);
    if (!t) return tr_error_set(err, TR_UNAVAILABLE, "no memory for %u workers", n);
    *t = (tr_team){.n = n, .width = n};
    t->cpus = cpus ? malloc(n * sizeof *cpus) : NULL;
    for (uint32_t i = 0; t->cpus && i < n; i++) t->cpus[i] = cpus[i];
    t->spin = cores(n, cpus) >= n;
    for (uint32_t i = 0; i < n; i++) t->w[i] = (worker){.team = t, .index = i};
    begin_worker(&t->w[0]);
    for (uint32_t i = 1; i < n; i++)
        if (pthread_create(&t->w[i].thread, NULL, worker_main, &t->w[i]) != 0) {
            t->n = t->width = i; /* the ones that run, and wait at the first barrier */
            tr_team_barrier(t);
            tr_team_destroy(&t);
            return tr_error_set(err, TR_UNAVAILABLE, "cannot start %u worker threads", n);
        }
    tr_team_barrier(t);
    *team_out = t;
    return TR_OK;
}

/* Workers [1, end) begin to run. */
static void start(tr_team *t, uint32_t end) {
    for (uint32_t i = 1; i < end; i++) {
        atomic_fetch_add(&t->w[i].run, 1);
        if (atomic_load(&t->w[i].asleep)) futex_wake_all(&t->w[i].run);
    }
}

void tr_team_destroy(tr_team **team) {
    tr_team *t = *team;
    if (!t) return;
    atomic_store(&t->quit, 1);
    start(t, t->n);
    for (uint32_t i = 1; i < t->n; i++) pthread_join(t->w[i].thread, NULL);
    free(t->cpus);
    free(t);
    *team = NULL;
}

uint32_t tr_team_size(const tr_team *t) { return t->n; }

/* How many take part in the next run. */
static void judge(tr_team *t, uint64_t run_ns) {
    if (!t->spin || t->n == 1) return;
    const uint64_t lost_ns = atomic_exchange_explicit(&t->lost_ns, 0, memory_order_relaxed);
    tr_crowd_add(&t->crowd, t->n, run_ns, t->width > 1 ? lost_ns / (t->width - 1) : 0);
    t->width = t->n - t->crowd.away;
}

void tr_team_run(tr_team *t, tr_team_fn fn, void *arg) {
    const uint64_t begin = tr_clock_now_ns();
    t->fn = fn;
    t->arg = arg;
    start(t, t->width);
    fn(arg, 0, t->width);
    tr_team_barrier(t);
    judge(t, tr_clock_now_ns() - begin);
}

void tr_team_settle(tr_team *t) {
    if (t->roam == (t->crowd.away > 0)) return;
    t->roam = !t->roam;
    for (uint32_t i = 0; i < t->n; i++) bind(t, &t->w[i]); /* a refusal was told at the start */
}
