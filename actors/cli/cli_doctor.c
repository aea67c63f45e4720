/* troupe doctor: what this machine offers and what it refuses, tried out rather than guessed; size of the cache. */
#include "actors/cli/cli.h"
#include "affinity/bind.h"
#include "affinity/machine.h"
#include "kernels/ops.h"
#include "model/model_cache.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* WARN: troupe runs without it, slower or with less; NO: it does not. */
typedef enum verdict { OK, WARN, NO } verdict;
static const char *const verdict_names[] = {"ok", "warn", "no"};

typedef struct check {
    const char *name;
    verdict verdict;
    char detail[256];
} check;

enum { CHECKS_MAX = 16 };
typedef struct report {
    uint32_t n;
    check item[CHECKS_MAX];
} report;

__attribute__((format(printf, 4, 5))) static void add(report *r, const char *name, verdict how, const char *fmt, ...) {
    tr_check(r->n < CHECKS_MAX);
    check *c = &r->item[r->n++];
    c->name = name;
    c->verdict = how;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->detail, sizeof c->detail, fmt, ap);
    va_end(ap);
}

static void check_machine(report *r, const tr_machine *m) {
    char quota[64] = "";
    if (m->quota) snprintf(quota, sizeof quota, ", time of %u granted", m->quota);
    add(r, "cores", OK, "%u core%s, %u hardware thread%s%s%s", m->n_cores, m->n_cores == 1 ? "" : "s", m->n_cpus,
        m->n_cpus == 1 ? "" : "s", quota, m->is_this_system ? "" : " (described, not this system)");
    add(r, "numa", OK, "%u node%s", m->n_nodes, m->n_nodes == 1 ? "" : "s");
    add(r, "memory", OK, "%" PRIu64 " MiB may be used", m->memory_bytes >> 20);
}

static void check_kernels(report *r) {
    char names[128] = "";
    const tr_ops *chosen = NULL;
    tr_error err = {0};
    for (const tr_ops *const *o = tr_ops_available(); *o; o++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", names[0] ? ", " : "", (*o)->name);
    if (tr_ops_select(&chosen, &err) != TR_OK) {
        add(r, "kernels", NO, "%.200s", err.text);
        return;
    }
    add(r, "kernels", OK, "%s (available: %s)", chosen->name, names);
    char rates[200] = "";
    const double *rate = tr_ops_rates();
    for (int p = 0; p < TR_PORT_COUNT; p++)
        if (rate[p] > 0)
            snprintf(rates + strlen(rates), sizeof rates - strlen(rates), "%s%s %.0f", rates[0] ? ", " : "",
                     tr_port_name((tr_port)p), rate[p] * 1e-9);
    if (rates[0]) add(r, "instructions", OK, "10^9 multiply-adds/s of a core: %s", rates);
}

static void check_binding(report *r, const tr_machine *m) {
    cpu_set_t before;
    if (!m->is_this_system) return;
    bool kept = sched_getaffinity(0, sizeof before, &before) == 0;
    bool ok = tr_bind_thread(&m->core[0].cpu, 1) == TR_OK;
    if (kept) sched_setaffinity(0, sizeof before, &before);
    add(r, "pin threads", ok ? OK : WARN, ok ? "granted and verified" : "refused: stages run unpinned");
    size_t bytes = 1 << 20;
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return;
    int32_t node = (int32_t)m->node[m->n_nodes - 1].os_index;
    tr_bind_pages pages = {0};
    ok = tr_bind_memory(p, bytes, node) == TR_OK;
    for (size_t i = 0; i < bytes; i += 4096) p[i] = 1;
    bool told = tr_bind_memory_verify(p, bytes, node, &pages) == TR_OK;
    add(r, "bind memory", ok && told && pages.remote == 0 ? OK : WARN,
        !ok               ? "refused: memory lies where the system puts it"
        : !told           ? "granted, but the system does not tell where pages lie"
        : pages.remote    ? "granted, but pages lie elsewhere"
        : m->n_nodes == 1 ? "one node, nothing to bind"
                          : "granted and verified");
    munmap(p, bytes);
}

static void check_system(report *r) {
    int fd = memfd_create("troupe-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    add(r, "shared memory", fd >= 0 ? OK : NO, "%s", fd >= 0 ? "memfd with seals" : strerror(errno));
    if (fd >= 0) close(fd);
    fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    add(r, "watch processes", fd >= 0 ? OK : NO, "%s", fd >= 0 ? "pidfd" : strerror(errno));
    if (fd >= 0) close(fd);
    tr_cli_home home;
    tr_error err = {0};
    char name[32];
    snprintf(name, sizeof name, "doctor-%d", (int)getpid());
    bool ok = tr_cli_home_take(name, &home, &err) == TR_OK;
    char path[256];
    snprintf(path, sizeof path, "%.*s", (int)(strrchr(home.path, '/') ? strrchr(home.path, '/') - home.path : 0),
             home.path);
    add(r, "runtime folder", ok ? OK : NO, "%.200s", ok ? path : err.text);
    tr_cli_home_release(&home);
}

static void check_cache(report *r) {
    char path[TR_MODEL_CACHE_PATH_MAX];
    tr_error err = {0};
    tr_status status = tr_model_cache_folder(path, sizeof path, &err);
    if (status == TR_OK) status = tr_model_cache_probe(&err);
    if (status == TR_OK)
        add(r, "cache", OK, "%.180s, packed models take %" PRIu64 " MiB", path, tr_model_cache_bytes() >> 20);
    else
        add(r, "cache", WARN, "%.160s: models are packed anew at every start", err.text);
}

static void print_report(const report *r, bool json) {
    if (!json) {
        for (uint32_t i = 0; i < r->n; i++)
            printf("%-4s %-16s %s\n", verdict_names[r->item[i].verdict], r->item[i].name, r->item[i].detail);
        return;
    }
    json_t *root = json_array();
    for (uint32_t i = 0; i < r->n; i++)
        json_array_append_new(root,
                              json_pack("{s:s,s:b,s:s,s:s}", "check", r->item[i].name, "ok", r->item[i].verdict == OK,
                                        "verdict", verdict_names[r->item[i].verdict], "detail", r->item[i].detail));
    char *text = json_dumps(root, JSON_COMPACT);
    if (text) puts(text);
    free(text);
    json_decref(root);
}

static int clear_cache(void) {
    uint64_t freed = 0;
    tr_error err = {0};
    tr_status status = tr_model_cache_clear(&freed, &err);
    if (status != TR_OK) return tr_cli_fail(&err, status);
    printf("%" PRIu64 " MiB freed\n", freed >> 20);
    return 0;
}

int tr_cli_doctor(tr_options *o) {
    static tr_machine machine;
    static report r;
    tr_error err = {0};
    if (tr_options_flag(o, TR_OPTION_CLEAR_CACHE)) return clear_cache();
    tr_status status = tr_machine_discover(&machine, &err);
    if (status != TR_OK) return tr_cli_fail(&err, status);
    check_machine(&r, &machine);
    check_kernels(&r);
    check_binding(&r, &machine);
    check_system(&r);
    check_cache(&r);
    print_report(&r, tr_options_flag(o, TR_OPTION_JSON));
    for (uint32_t i = 0; i < r.n; i++)
        if (r.item[i].verdict == NO) return tr_status_exit_code(TR_UNAVAILABLE);
    return 0;
}
