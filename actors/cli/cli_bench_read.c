/* Read bandwidth beside a decode step. The passes run in a thread of their own: its pins are not the command's. */
#include "actors/cli/cli_bench.h"
#include "base/clock.h"
#include "kernels/read_probe.h"
#include "model/image.h"
#include "stages/team.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PASSES = 8, LARGE_PAGE = 2 << 20 };

/* Bytes that a decode step reads of the image of the first decoding stage; all layers are in it. */
static uint64_t image_bytes(const tr_company *c) {
    char path[TR_COMPANY_PATH_MAX];
    tr_image *image = NULL;
    tr_error err = {0};
    uint64_t bytes = 0;
    for (uint32_t a = 0; a < c->n_actors && !image; a++) {
        const tr_company_phase *decode = &c->actor[a].phase[1];
        if (!decode->active) continue;
        const tr_precision precision = tr_precision_image((tr_precision)decode->precision);
        const int fd = c->image_fd[precision];
        if (fd >= 0)
            snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        else
            snprintf(path, sizeof path, "%s", c->image_path[precision]);
        if (tr_image_open(path, &image, &err) != TR_OK) return 0;
    }
    if (image) bytes = tr_image_step_bytes(image);
    tr_image_close(&image);
    return bytes;
}

/* Stages that share cores name the same ones. */
static void add_cpus(tr_cli_bench_read *r, const tr_company_actor *stage) {
    for (uint32_t i = 0; i < stage->n_cpus; i++) {
        uint32_t k = 0;
        while (k < r->n_cpus && r->cpu[k] != stage->cpus[i]) k++;
        if (k == r->n_cpus && k < TR_COMPANY_CPUS_MAX) r->cpu[r->n_cpus++] = stage->cpus[i];
    }
    if (stage->workers > r->workers) r->workers = stage->workers;
}

void tr_cli_bench_read_init(const tr_cli_session *s, tr_cli_bench_read *r) {
    memset(r, 0, sizeof *r);
    r->step_bytes = image_bytes(&s->company);
    r->bytes = (r->step_bytes < TR_CLI_BENCH_READ_MAX ? r->step_bytes : TR_CLI_BENCH_READ_MAX) & ~(uint64_t)4095;
    for (uint32_t a = 0; a < s->company.n_actors; a++)
        if (s->company.actor[a].phase[1].active) add_cpus(r, &s->company.actor[a]);
    if (r->n_cpus) r->workers = r->n_cpus;
    if (r->bytes == 0 || r->bytes > s->machine.memory_bytes / 4) return;
    r->data = aligned_alloc(LARGE_PAGE, (r->bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE);
    if (!r->data) return;
    madvise(r->data, r->bytes, MADV_HUGEPAGE); /* as images are mapped, where that can be had */
    memset(r->data, 1, r->bytes);              /* pages of its own, not the one of zeros */
}

void tr_cli_bench_read_fini(tr_cli_bench_read *r) {
    free(r->data);
    r->data = NULL;
}

typedef struct pass {
    const tr_cli_bench_read *read;
    unsigned n_streams;
    atomic_bool failed;
    double best;
} pass;

static void read_share(void *arg, uint32_t worker, uint32_t n_workers) {
    pass *p = arg;
    uint32_t begin, end;
    tr_team_share((uint32_t)(p->read->bytes / 4096), worker, n_workers, &begin, &end);
    if (!tr_read_probe_run(p->read->data + (size_t)begin * 4096, (size_t)(end - begin) * 4096, p->n_streams))
        atomic_store(&p->failed, true);
}

static void *run_passes(void *arg) {
    pass *p = arg;
    tr_team *team = NULL;
    tr_error err = {0};
    const tr_cli_bench_read *r = p->read;
    if (tr_team_create(r->workers, r->n_cpus ? r->cpu : NULL, &team, &err) != TR_OK) return NULL;
    for (int i = 0; i < PASSES; i++) {
        p->n_streams = i % 2 ? 1 : 4;
        uint64_t start = tr_clock_now_ns();
        tr_team_run(team, read_share, p, 0);
        double rate = (double)r->bytes * 1e9 / (double)(tr_clock_now_ns() - start);
        if (rate > p->best) p->best = rate;
    }
    tr_team_destroy(&team);
    return NULL;
}

double tr_cli_bench_read_rate(const tr_cli_bench_read *r) {
    pass p = {.read = r};
    pthread_t thread;
    if (!r->data || r->workers == 0 || pthread_create(&thread, NULL, run_passes, &p) != 0) return 0;
    pthread_join(thread, NULL);
    return atomic_load(&p.failed) ? 0 : p.best;
}
