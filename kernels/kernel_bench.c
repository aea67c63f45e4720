#include "kernels/kernel_bench.h"

#include "kernels/kernel_job.h"
#include "kernels/read_probe.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUND_NS 40000000ull

typedef struct member {
    const tr_kernel_bench_want *want;
    unsigned number;
    pthread_barrier_t *barrier;
    tr_kernel_job job;           /* its memory is gone after the run */
    double *rate, *peak, *other; /* [rounds] runs a second; peak: multiply-adds or bytes */
} member;

/* Processor time of this thread: what a neighbour takes of the core does not count. */
static uint64_t spent_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Work done by one call, in multiply-adds or bytes; 0 where there is no limit. */
static double run_limit(const tr_kernel_job *j) {
    if (j->limit == TR_KERNEL_JOB_PORT) return tr_port_run(j->port);
    if (j->limit == TR_KERNEL_JOB_COPY) {
        memcpy(j->b, j->mem, j->mem_bytes);
        return 2 * (double)j->mem_bytes; /* read and written */
    }
    return tr_read_probe_run(j->mem, j->mem_bytes, 4) ? (double)j->mem_bytes : 0;
}

static double measure(const tr_kernel_job *j, bool limit_only) {
    double done = 0;
    uint64_t start = spent_ns(), now;
    do {
        if (limit_only) {
            double work = run_limit(j);
            if (work == 0) return 0;
            done += work;
        } else {
            j->run(j);
            done += 1;
        }
        now = spent_ns();
    } while (now - start < ROUND_NS);
    return done * 1e9 / (double)(now - start);
}

static void *run_member(void *arg) {
    member *m = arg;
    tr_kernel_job *j = &m->job;
    tr_ops_thread_init();
    j->ops = m->want->ops;
    tr_kernel_job_setup(j, m->number);
    tr_kernel_job_use(j, m->want->ops);
    j->run(j);
    for (unsigned r = 0; r < m->want->rounds; r++) {
        pthread_barrier_wait(m->barrier);
        m->peak[r] = measure(j, true);
        pthread_barrier_wait(m->barrier);
        m->rate[r] = measure(j, false);
        if (!m->want->other) continue;
        tr_kernel_job_use(j, m->want->other);
        pthread_barrier_wait(m->barrier);
        m->other[r] = measure(j, false);
        tr_kernel_job_use(j, m->want->ops);
    }
    tr_kernel_job_release(j);
    return NULL;
}

static int by_value(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}
static double median(double *x, unsigned n) {
    qsort(x, n, sizeof *x, by_value);
    return x[n / 2];
}

/* Sums over the threads, round by round, then the medians. */
static void sum_up(member *team, const tr_kernel_bench_want *want, tr_kernel_bench_result *out) {
    static double rate[TR_KERNEL_BENCH_ROUNDS_MAX], peak[TR_KERNEL_BENCH_ROUNDS_MAX];
    static double share[TR_KERNEL_BENCH_ROUNDS_MAX], ratio[TR_KERNEL_BENCH_ROUNDS_MAX];
    const tr_kernel_job *j = &team->job;
    for (unsigned r = 0; r < want->rounds; r++) {
        double slower = 0;
        rate[r] = peak[r] = 0;
        for (unsigned t = 0; t < want->threads; t++) {
            rate[r] += team[t].rate[r];
            peak[r] += team[t].peak[r];
            slower += team[t].other[r];
        }
        ratio[r] = want->other ? rate[r] / slower : 0;
        share[r] = peak[r] > 0 ? rate[r] * (j->limit == TR_KERNEL_JOB_PORT ? j->macs : j->bytes) / peak[r] : 0;
    }
    double runs = median(rate, want->rounds);
    memcpy(out->name, j->name, sizeof out->name);
    out->reads = j->limit != TR_KERNEL_JOB_PORT;
    out->limit = j->limit == TR_KERNEL_JOB_SUM    ? "summing"
                 : j->limit == TR_KERNEL_JOB_COPY ? "memcpy"
                                                  : tr_port_name(j->port);
    out->us = 1e6 * want->threads / runs;
    out->macs = runs * j->macs;
    out->bytes = runs * j->bytes;
    out->peak = median(peak, want->rounds);
    out->share = median(share, want->rounds);
    out->share_min = share[0];
    out->share_max = share[want->rounds - 1];
    out->ratio = median(ratio, want->rounds);
}

static bool wanted(const tr_kernel_bench_want *want, unsigned i, bool *there) {
    tr_kernel_job *probe = calloc(1, sizeof *probe);
    tr_check(probe != NULL);
    probe->ops = want->ops; /* names are known only after the set-up, which is cheap beside the run */
    *there = tr_kernel_job_setup(probe, i);
    bool is = *there && (!want->filter || strstr(probe->name, want->filter));
    tr_kernel_job_release(probe);
    free(probe);
    return is;
}

bool tr_kernel_bench_run(const tr_kernel_bench_want *want, unsigned i, tr_kernel_bench_result *out) {
    bool there;
    memset(out, 0, sizeof *out);
    tr_check(want->threads && want->threads <= TR_KERNEL_BENCH_THREADS_MAX);
    tr_check(want->rounds && want->rounds <= TR_KERNEL_BENCH_ROUNDS_MAX);
    if (!wanted(want, i, &there)) return there;
    pthread_t id[TR_KERNEL_BENCH_THREADS_MAX];
    pthread_barrier_t barrier;
    member *team = calloc(want->threads, sizeof *team);
    double *samples = calloc((size_t)want->threads * want->rounds * 3, sizeof *samples);
    tr_check(team && samples && pthread_barrier_init(&barrier, NULL, want->threads) == 0);
    for (unsigned t = 0; t < want->threads; t++) {
        double *own = samples + (size_t)t * want->rounds * 3;
        team[t] = (member){.want = want, .number = i, .barrier = &barrier};
        team[t].rate = own, team[t].peak = own + want->rounds, team[t].other = own + 2 * (size_t)want->rounds;
        tr_check(pthread_create(&id[t], NULL, run_member, &team[t]) == 0);
    }
    for (unsigned t = 0; t < want->threads; t++) pthread_join(id[t], NULL);
    pthread_barrier_destroy(&barrier);
    sum_up(team, want, out);
    free(samples);
    free(team);
    return true;
}
