#include "stages/team.h"

#include "affinity/bind.h"
#include "base/clock.h"
#include "base/log.h"
#include "kernels/ops.h"
#include "stages/crowd.h"
#include "stages/spin_policy.h"

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
    uint32_t sense; /* generation of the barrier that this worker waits for next */
    tr_spin_policy spin;
    _Atomic uint64_t lost_ns; /* in waits that outlasted their budget, since the last settle */
    int32_t tid;
    pthread_t thread;
} worker;

struct tr_team {
    uint32_t n;
    bool spin;      /* every worker may have a core of its own */
    uint32_t *cpus; /* [n] or NULL */
    tr_crowd crowd;
    uint64_t run_ns; /* of runs since the last settle */
    tr_team_fn fn;
    void *arg;
    _Alignas(64) _Atomic uint32_t run; /* raised to start a run; workers sleep on it */
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

/* True when *word differs from seen; false when the budget is spent. */
static bool spin(tr_spin_policy *policy, _Atomic uint32_t *word, uint32_t seen, uint32_t budget_ns) {
    const uint64_t begin = tr_clock_now_ns();
    for (uint64_t waited = 0; waited < budget_ns; waited = tr_clock_now_ns() - begin) {
        for (int i = 0; i < LOOKS; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != seen) {
                tr_spin_policy_hit(policy);
                return true;
            }
            __builtin_ia32_pause();
        }
    }
    return false;
}

static void sleep_until_change(tr_team *t, _Atomic uint32_t *word, uint32_t seen) {
    atomic_fetch_add(&t->sleepers, 1);
    while (atomic_load(word) == seen) futex_wait(word, seen);
    atomic_fetch_sub(&t->sleepers, 1);
}

void tr_team_barrier(tr_team *t, uint32_t index) {
    if (t->n == 1) return;
    worker *w = &t->w[index];
    uint32_t generation = w->sense;
    w->sense = generation + 1;
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) + 1 == t->n) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        atomic_store(&t->generation, generation + 1);
        if (atomic_load(&t->sleepers)) futex_wake_all(&t->generation);
        return;
    }
    const uint32_t budget_ns = t->spin ? tr_spin_policy_budget(&w->spin) : 0;
    if (budget_ns > 0 && spin(&w->spin, &t->generation, generation, budget_ns)) return;
    if (t->spin) tr_spin_policy_miss(&w->spin);
    const uint64_t begin = tr_clock_now_ns();
    sleep_until_change(t, &t->generation, generation);
    atomic_fetch_add_explicit(&w->lost_ns, tr_clock_now_ns() - begin, memory_order_relaxed);
}

/* One core for each worker, or in a crowd all cores for all: see crowd.h. */
static bool bind(const tr_team *t, const worker *w) {
    if (!t->cpus) return true;
    return (t->crowd.crowded ? tr_bind_task(w->tid, t->cpus, t->n) : tr_bind_task(w->tid, &t->cpus[w->index], 1)) ==
           TR_OK;
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
    tr_team_barrier(t, w->index); /* all are where they belong */
    for (uint32_t seen = 0;;) {
        sleep_until_change(t, &t->run, seen);
        seen = atomic_load(&t->run);
        if (atomic_load(&t->quit)) return NULL;
        t->fn(t->arg, w->index, t->n);
        tr_team_barrier(t, w->index);
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
    *t = (tr_team){.n = n};
    t->cpus = cpus ? malloc(n * sizeof *cpus) : NULL;
    for (uint32_t i = 0; t->cpus && i < n; i++) t->cpus[i] = cpus[i];
    t->spin = cores(n, cpus) >= n;
    for (uint32_t i = 0; i < n; i++) t->w[i] = (worker){.team = t, .index = i};
    begin_worker(&t->w[0]);
    for (uint32_t i = 1; i < n; i++)
        if (pthread_create(&t->w[i].thread, NULL, worker_main, &t->w[i]) != 0) {
            t->n = i; /* the ones that run, and wait at the first barrier */
            tr_team_barrier(t, 0);
            tr_team_destroy(&t);
            return tr_error_set(err, TR_UNAVAILABLE, "cannot start %u worker threads", n);
        }
    tr_team_barrier(t, 0);
    *team_out = t;
    return TR_OK;
}

void tr_team_destroy(tr_team **team) {
    tr_team *t = *team;
    if (!t) return;
    atomic_store(&t->quit, 1);
    atomic_fetch_add(&t->run, 1);
    futex_wake_all(&t->run);
    for (uint32_t i = 1; i < t->n; i++) pthread_join(t->w[i].thread, NULL);
    free(t->cpus);
    free(t);
    *team = NULL;
}

uint32_t tr_team_size(const tr_team *t) { return t->n; }

void tr_team_run(tr_team *t, tr_team_fn fn, void *arg) {
    const uint64_t begin = tr_clock_now_ns();
    t->fn = fn;
    t->arg = arg;
    if (t->n > 1) {
        atomic_fetch_add(&t->run, 1);
        if (atomic_load(&t->sleepers)) futex_wake_all(&t->run);
    }
    fn(arg, 0, t->n);
    tr_team_barrier(t, 0);
    t->run_ns += tr_clock_now_ns() - begin;
}

void tr_team_settle(tr_team *t) {
    uint64_t most = 0;
    if (t->n == 1 || !t->spin || !t->cpus) return;
    for (uint32_t i = 0; i < t->n; i++) {
        const uint64_t lost = atomic_exchange_explicit(&t->w[i].lost_ns, 0, memory_order_relaxed);
        most = lost > most ? lost : most;
    }
    bool changed = tr_crowd_add(&t->crowd, t->run_ns, most);
    t->run_ns = 0;
    for (uint32_t i = 0; i < t->n && changed; i++) bind(t, &t->w[i]); /* a refusal was told at the start */
}
