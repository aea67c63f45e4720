/* I1: run is raised only while every worker who takes part is done with the runs before, so a barrier's memory belongs
 * to one run. Who takes part stands in the same word: one who is away may look at it whenever he comes to it. I2: the
 * bit of an abort is cleared only by the leader, before a run, and only for good when all ranks are present: a rank is
 * marked absent before the bit is set, so either the leader sees the one or the bit stays. */
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
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LOOKS = 16 /* at the word between two readings of the clock */, ABORT = 1, NEXT = 2 };
enum { CALLED_NS = 100000 /* of spinning until the run begins, by a worker who was called for it */ };
enum { PAUSE_NS = 400000 /* between runs: a worker looks that long for the next one where the last came within it */ };
enum { NEXT_RUN = 512, WIDTH = NEXT_RUN - 1 /* of a run: the workers that take part */ };
_Static_assert((int)TR_TEAM_WORKERS_MAX <= (int)WIDTH, "width of a run");

typedef struct worker {
    _Alignas(64) tr_team *team;
    uint32_t index;
    _Atomic uint32_t done; /* last run that it has left */
    int32_t tid;
    pthread_t thread;
} worker;

struct tr_team {
    uint32_t n, first, total; /* workers of this process, the first one's index, of all ranks */
    uint32_t rank, n_ranks;
    uint32_t width; /* workers that take part: the first ones; changes between runs only, of several ranks never */
    bool spin;      /* every worker may have a core of its own */
    int private;    /* flag of futexes that no other process waits on */
    uint32_t *cpus; /* [total] or NULL */
    tr_crowd crowd;
    bool roam;                 /* workers are bound to all cores of the team instead of one each */
    _Atomic uint64_t lost_ns;  /* of all workers of this process together, in long waits of this run */
    _Atomic uint32_t spin_cut; /* crowd.h: of the time to spin; workers that change it at once do not matter */
    tr_team_fn fn;
    void *arg;
    _Atomic uint64_t *beat;
    tr_team_meeting *m, own;
    tr_team_lobby *lobby;                        /* of this team, or NULL */
    tr_team_lobby *next;                         /* see tr_team_hand_on */
    _Alignas(64) _Atomic uint32_t started, gone; /* threads that look for runs; that have ended */
    _Atomic uint32_t quit, waiting;              /* waiting: workers of this process that sleep at the barrier */
    worker w[];
};

/* ---- meeting --------------------------------------------------------------------------------------------------------
 */

static void futex_wait(const tr_team *t, _Atomic uint32_t *word, uint32_t seen, const struct timespec *timeout) {
    syscall(SYS_futex, word, FUTEX_WAIT | t->private, seen, timeout, NULL, 0);
}

/* Worker `index` waits for a run, so that he need not be woken for one without him. */
static void futex_wait_run(const tr_team *t, uint32_t index, uint32_t seen) {
    syscall(SYS_futex, &t->m->run, FUTEX_WAIT_BITSET | t->private, seen, NULL, NULL, 1u << index % 32);
}

static void futex_wake_run(const tr_team *t) {
    const uint32_t takers = t->width < 32 ? (1u << t->width) - 1 : UINT32_MAX;
    syscall(SYS_futex, &t->m->run, FUTEX_WAKE_BITSET | t->private, INT_MAX, NULL, NULL, takers);
}

static void futex_wake_all(int private, _Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE | private, INT_MAX, NULL, NULL, 0);
}

/* Wake workers in a lobby: those of these bits. */
static void call(tr_team_lobby *l, uint32_t who) {
    if (atomic_load(&l->asleep) == 0) return;
    atomic_fetch_add(&l->calls, 1);
    syscall(SYS_futex, &l->calls, FUTEX_WAKE_BITSET, INT_MAX, NULL, NULL, who);
}

void tr_team_meeting_init(tr_team_meeting *m) { atomic_store(&m->generation, ABORT); }

void tr_team_meeting_leave(tr_team_meeting *m, uint32_t rank) {
    atomic_store(&m->present[rank], 0);
    atomic_fetch_or(&m->generation, ABORT);
    futex_wake_all(0, &m->generation);
    futex_wake_all(0, &m->run); /* who raised it may have died before it woke anybody */
}

/* Before a run: what an aborted one left behind is cleared. False: somebody is missing. */
static bool assemble(tr_team *t) {
    const uint32_t generation = atomic_load(&t->m->generation);
    if (!(generation & ABORT)) return true;
    atomic_store(&t->m->arrived, 0);
    atomic_store(&t->m->sleepers, 0);
    atomic_store(&t->m->generation, (generation + NEXT) & ~(uint32_t)ABORT);
    for (uint32_t r = 0; r < t->n_ranks; r++)
        if (!atomic_load(&t->m->present[r])) {
            atomic_fetch_or(&t->m->generation, ABORT);
            return false;
        }
    return true;
}

bool tr_team_aborted(const tr_team *t) {
    return (atomic_load_explicit(&t->m->generation, memory_order_acquire) & ABORT) != 0;
}

/* ---- barrier --------------------------------------------------------------------------------------------------------
 */

/* True when *word differs from seen; false when budget_ns have passed since `begin`. */
static bool look(const _Atomic uint32_t *word, uint32_t seen, uint64_t begin, uint64_t budget_ns) {
    while (tr_clock_now_ns() - begin < budget_ns) {
        for (int i = 0; i < LOOKS; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != seen) return true;
            __builtin_ia32_pause();
        }
    }
    return false;
}

/* The same at a barrier, for as long as that has been worth it. */
static bool spin(tr_team *t, const _Atomic uint32_t *word, uint32_t seen, uint64_t begin) {
    const uint32_t cut = atomic_load_explicit(&t->spin_cut, memory_order_relaxed);
    const bool came = look(word, seen, begin, tr_crowd_spin_ns(cut));
    const uint32_t next = tr_crowd_spin_cut(cut, came);
    if (next != cut) atomic_store_explicit(&t->spin_cut, next, memory_order_relaxed);
    return came;
}

/* Now and then one looks up: a rank whose workers all wait is not the one that hangs. */
static void sleep_at_barrier(tr_team *t, uint32_t seen) {
    const struct timespec soon = {.tv_nsec = 25 * TR_NS_PER_MS}; /* a quarter of the shortest lease of an actor */
    atomic_fetch_add(&t->waiting, 1);
    atomic_fetch_add(&t->m->sleepers, 1);
    while (atomic_load(&t->m->generation) == seen) {
        futex_wait(t, &t->m->generation, seen, t->beat ? &soon : NULL);
        if (t->beat && atomic_load(&t->waiting) == t->n) atomic_fetch_add_explicit(t->beat, 1, memory_order_relaxed);
    }
    atomic_fetch_sub(&t->m->sleepers, 1);
    atomic_fetch_sub(&t->waiting, 1);
}

bool tr_team_barrier(tr_team *t) {
    /* Neither changes before this worker has arrived. */
    const uint32_t width = t->width;
    if (width == 1) return true;
    tr_team_meeting *m = t->m;
    const uint32_t generation = atomic_load_explicit(&m->generation, memory_order_acquire);
    if (generation & ABORT) return false;
    if (atomic_fetch_add_explicit(&m->arrived, 1, memory_order_acq_rel) + 1 == width) {
        atomic_store_explicit(&m->arrived, 0, memory_order_relaxed);
        atomic_fetch_add(&m->generation, NEXT);
        if (atomic_load(&m->sleepers)) futex_wake_all(t->private, &m->generation);
        return true;
    }
    const uint64_t begin = tr_clock_now_ns();
    if (!t->spin || !spin(t, &m->generation, generation, begin)) {
        sleep_at_barrier(t, generation);
        const uint64_t waited = tr_clock_now_ns() - begin;
        if (waited > TR_CROWD_WAIT_NS) atomic_fetch_add_explicit(&t->lost_ns, waited, memory_order_relaxed);
    }
    return !tr_team_aborted(t);
}

/* ---- workers --------------------------------------------------------------------------------------------------------
 */

/* One core for each worker; beside a busy process all cores for all, for any may be taken: see crowd.h. */
static bool bind(const tr_team *t, const worker *w) {
    if (!t->cpus) return true;
    return (t->roam ? tr_bind_task(w->tid, t->cpus, t->total) : tr_bind_task(w->tid, &t->cpus[w->index], 1)) == TR_OK;
}

static void begin_worker(worker *w) {
    w->tid = (int32_t)syscall(SYS_gettid);
    if (!bind(w->team, w))
        tr_log(TR_LOG_WARN, "not_pinned", "worker=%u cpu=%u the system refused it", w->index, w->team->cpus[w->index]);
    tr_ops_thread_init();
}

/* After a run, by one worker of the process. Alone it says how many take part in the next run; several ranks would have
 * to agree on that, and let the kernel move their workers only. */
static void judge(tr_team *t, uint64_t run_ns) {
    if (!t->spin || t->total == 1) return;
    const bool alone = t->n_ranks == 1;
    const uint32_t here = alone ? t->width : t->n;
    const uint64_t lost_ns = atomic_exchange_explicit(&t->lost_ns, 0, memory_order_relaxed);
    tr_crowd_add(&t->crowd, alone ? t->total : 2, run_ns, here > 1 ? lost_ns / (here - 1) : lost_ns);
    if (alone) t->width = t->total - t->crowd.away;
}

static void run_once(tr_team *t, worker *w, uint32_t width) {
    const uint64_t begin = tr_clock_now_ns();
    t->fn(t->arg, w->index, width);
    tr_team_barrier(t);
    if (t->rank == 0 || w != &t->w[0]) return;
    judge(t, tr_clock_now_ns() - begin);
    tr_team_settle(t);
}

/* The word is read before the last look, so what begins in between ends the sleep. */
static void sleep_in_lobby(tr_team *t, uint32_t index, uint32_t seen) {
    tr_team_lobby *l = t->lobby;
    atomic_fetch_add(&l->asleep, 1);
    const uint32_t calls = atomic_load(&l->calls);
    if (atomic_load(&t->m->run) == seen && !atomic_load(&t->quit))
        syscall(SYS_futex, &l->calls, FUTEX_WAIT_BITSET, calls, NULL, NULL, 1u << index % 32);
    atomic_fetch_sub(&l->asleep, 1);
}

/* Until there is another run than `seen`, or no more. Whoever was not in that one is not called for the next. soon: it
 * is worth to look for it before a sleep, which costs a step of decoding a twentieth on a virtual machine. */
static void await_run(tr_team *t, uint32_t index, uint32_t seen, bool soon) {
    if (soon && t->spin && atomic_load(&t->spin_cut) == 0) look(&t->m->run, seen, tr_clock_now_ns(), PAUSE_NS);
    while (atomic_load(&t->m->run) == seen && !atomic_load(&t->quit)) {
        if (!t->lobby || index >= (seen & WIDTH)) {
            futex_wait_run(t, index, seen);
            continue;
        }
        sleep_in_lobby(t, index, seen);
        look(&t->m->run, seen, tr_clock_now_ns(), CALLED_NS);
    }
}

static void *worker_main(void *arg) {
    worker *w = arg;
    tr_team *t = w->team;
    begin_worker(w);
    uint32_t seen = atomic_load(&t->m->run);
    atomic_store(&w->done, seen);
    atomic_fetch_add(&t->started, 1);
    futex_wake_all(FUTEX_PRIVATE_FLAG, &t->started);
    for (bool soon = false;;) {
        const uint64_t ended_ns = tr_clock_now_ns();
        await_run(t, w->index, seen, soon);
        if (atomic_load(&t->quit)) break;
        seen = atomic_load(&t->m->run);
        soon = tr_clock_now_ns() - ended_ns < PAUSE_NS;
        const bool runs = w->index < (seen & WIDTH) && !tr_team_aborted(t);
        tr_team_lobby *next = runs ? t->next : NULL; /* the leader's until the run has ended */
        if (runs) run_once(t, w, seen & WIDTH);
        atomic_store(&w->done, seen);
        if (next) call(next, 1u << w->index % 32);
    }
    atomic_fetch_add(&t->gone, 1);
    return NULL;
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

/* First of its workers that is a thread of the team: a leader's first worker is the caller. */
static uint32_t first_thread(const tr_team *t) { return t->rank == 0; }

static tr_status start_threads(tr_team *t, tr_error *err) {
    uint32_t n = 0;
    if (t->rank == 0) begin_worker(&t->w[0]);
    for (uint32_t i = first_thread(t); i < t->n; i++, n++)
        if (pthread_create(&t->w[i].thread, NULL, worker_main, &t->w[i]) != 0) break;
    for (uint32_t seen = atomic_load(&t->started); seen < n; seen = atomic_load(&t->started))
        syscall(SYS_futex, &t->started, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    if (n == t->n - first_thread(t)) return TR_OK;
    const uint32_t wanted = t->n;
    t->n = first_thread(t) + n; /* those that run */
    return tr_error_set(err, TR_UNAVAILABLE, "cannot start %u worker threads", wanted);
}

tr_status tr_team_join(const tr_team_config *c, tr_team **team_out, tr_error *err) {
    if (c->n_workers == 0 || c->total > TR_TEAM_WORKERS_MAX || c->first + c->n_workers > c->total ||
        c->n_ranks > TR_TEAM_RANKS_MAX || c->rank >= c->n_ranks)
        return tr_error_set(err, TR_CONFIG, "a stage has 1 to %d workers, not %u", TR_TEAM_WORKERS_MAX, c->total);
    tr_team *t = aligned_alloc(64, (sizeof *t + c->n_workers * sizeof(worker) + 63) / 64 * 64);
    if (!t) return tr_error_set(err, TR_UNAVAILABLE, "no memory for %u workers", c->n_workers);
    *t = (tr_team){.n = c->n_workers, .first = c->first, .total = c->total, .rank = c->rank, .n_ranks = c->n_ranks};
    t->width = c->total;
    t->m = c->meeting ? c->meeting : &t->own;
    t->private = c->meeting ? 0 : FUTEX_PRIVATE_FLAG;
    t->lobby = c->lobby;
    if (t->lobby) atomic_store(&t->lobby->asleep, 0); /* an earlier process may have died asleep */
    t->beat = c->beat;
    t->fn = c->follow;
    t->arg = c->arg;
    t->cpus = c->cpus ? malloc(c->total * sizeof *c->cpus) : NULL;
    for (uint32_t i = 0; t->cpus && i < c->total; i++) t->cpus[i] = c->cpus[i];
    t->spin = cores(c->total, c->cpus) >= c->total;
    for (uint32_t i = 0; i < t->n; i++) t->w[i] = (worker){.team = t, .index = t->first + i};
    tr_status status = start_threads(t, err);
    if (status != TR_OK) {
        tr_team_destroy(&t);
        return status;
    }
    *team_out = t;
    return TR_OK;
}

void tr_team_hand_on(tr_team *t, tr_team_lobby *next) { t->next = next; }

void tr_team_enter(tr_team *t) { atomic_store(&t->m->present[t->rank], 1); }

tr_status tr_team_create(uint32_t n, const uint32_t *cpus, tr_team **team_out, tr_error *err) {
    return tr_team_join(&(tr_team_config){.n_ranks = 1, .n_workers = n, .total = n, .cpus = cpus}, team_out, err);
}

void tr_team_destroy(tr_team **team) {
    tr_team *t = *team;
    if (!t) return;
    if (t->m != &t->own) tr_team_meeting_leave(t->m, t->rank);
    atomic_store(&t->quit, 1);
    while (atomic_load(&t->gone) < t->n - first_thread(t)) { /* one may be about to sleep */
        futex_wake_all(t->private, &t->m->run);
        if (t->lobby) call(t->lobby, UINT32_MAX);
        sched_yield();
    }
    for (uint32_t i = first_thread(t); i < t->n; i++) pthread_join(t->w[i].thread, NULL);
    free(t->cpus);
    free(t);
    *team = NULL;
}

uint32_t tr_team_size(const tr_team *t) { return t->total; }

uint32_t tr_team_local(const tr_team *t, uint32_t *first_out) {
    *first_out = t->first;
    return t->n;
}

/* ---- runs -----------------------------------------------------------------------------------------------------------
 */

bool tr_team_idle(const tr_team *t) {
    for (uint32_t i = first_thread(t); i < t->n; i++) {
        const uint32_t run = atomic_load(&t->m->run);
        if (t->w[i].index < (run & WIDTH) && atomic_load(&t->w[i].done) != run) return false;
    }
    return true;
}

bool tr_team_run(tr_team *t, tr_team_fn fn, void *arg, uint32_t what) {
    const uint64_t begin = tr_clock_now_ns();
    if (!assemble(t)) return false;
    t->fn = fn;
    t->arg = arg;
    atomic_store_explicit(&t->m->what, what, memory_order_relaxed);
    if (t->width > 1) {
        atomic_store(&t->m->run, ((atomic_load(&t->m->run) & ~(uint32_t)WIDTH) + NEXT_RUN) | t->width);
        futex_wake_run(t);
        if (t->lobby) call(t->lobby, UINT32_MAX);
    }
    fn(arg, 0, t->width);
    const bool whole = tr_team_barrier(t);
    while (!whole && !tr_team_idle(t)) sched_yield(); /* a death is rare */
    judge(t, tr_clock_now_ns() - begin);
    return whole;
}

uint32_t tr_team_what(const tr_team *t) { return atomic_load_explicit(&t->m->what, memory_order_relaxed); }

void tr_team_settle(tr_team *t) {
    if (t->roam == (t->crowd.away > 0)) return;
    t->roam = !t->roam;
    for (uint32_t i = 0; i < t->n; i++) bind(t, &t->w[i]); /* a refusal was told at the start */
}
