/* troupe bench kernel [FILTER]: each operation on shapes of real models, as a share of the peak that is probed in the
 * same rounds. GOPS counts a multiply-add as two operations. */
#include "actors/cli/cli_bench.h"
#include "affinity/machine.h"
#include "kernels/kernel_bench.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct table {
    tr_kernel_bench_want want;
    const char *form; /* md, json, csv */
    uint32_t n;
    json_t *rows; /* json only */
} table;

static void print_head(table *t) {
    if (strcmp(t->form, "json") == 0)
        t->rows = json_array();
    else if (strcmp(t->form, "csv") == 0)
        puts("kernel,set,threads,us,rate,peak,unit,share,share_min,share_max,limit");
    else
        puts("| kernel | set | threads | us | rate | peak | share | min | max | of |\n"
             "|---|---|---|---|---|---|---|---|---|---|");
}

static void print_row(table *t, const tr_kernel_bench_result *r) {
    double rate = (r->reads ? r->bytes : 2 * r->macs) * 1e-9, peak = (r->reads ? 1 : 2) * r->peak * 1e-9;
    const char *unit = r->reads ? "GB/s" : "GOPS", *set = t->want.ops->name, *of = r->limit;
    t->n++;
    if (t->rows)
        json_array_append_new(t->rows, json_pack("{s:s,s:s,s:i,s:f,s:f,s:f,s:s,s:f,s:f,s:f,s:s}", "kernel", r->name,
                                                 "set", set, "threads", (int)t->want.threads, "us", r->us, "rate", rate,
                                                 "peak", peak, "unit", unit, "share", r->share, "share_min",
                                                 r->share_min, "share_max", r->share_max, "limit", of));
    else if (strcmp(t->form, "csv") == 0)
        printf("%s,%s,%u,%.3f,%.3f,%.3f,%s,%.3f,%.3f,%.3f,%s\n", r->name, set, t->want.threads, r->us, rate, peak, unit,
               r->share, r->share_min, r->share_max, of);
    else
        printf("| %s | %s | %u | %.2f | %.1f %s | %.1f | %.2f | %.2f | %.2f | %s |\n", r->name, set, t->want.threads,
               r->us, rate, unit, peak, r->share, r->share_min, r->share_max, of);
    fflush(stdout);
}

static void print_end(table *t) {
    char *text = t->rows ? json_dumps(t->rows, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (text) puts(text);
    free(text);
    json_decref(t->rows);
}

static tr_status choose(table *t, const tr_options *o, tr_error *err) {
    static tr_machine machine;
    TR_TRY(tr_cli_bench_options(o, TR_CLI_BENCH_KERNEL, err));
    TR_TRY(tr_ops_select(&t->want.ops, err));
    TR_TRY(tr_machine_discover(&machine, err));
    t->want.rounds = tr_options_u32(o, TR_OPTION_BENCH_R);
    uint32_t asked = tr_options_u32(o, TR_OPTION_THREADS); /* 0: not given */
    t->want.threads = tr_machine_usable_cores(&machine);
    if (asked && asked < t->want.threads) t->want.threads = asked;
    if (t->want.threads > TR_KERNEL_BENCH_THREADS_MAX) t->want.threads = TR_KERNEL_BENCH_THREADS_MAX;
    t->want.filter = o->n_positional ? o->positional[0] : NULL;
    t->form = tr_options_text(o, TR_OPTION_BENCH_OUT);
    return TR_OK;
}

static tr_status bench_kernel(table *t, const tr_options *o, tr_error *err) {
    tr_kernel_bench_result r;
    TR_TRY(choose(t, o, err));
    for (unsigned i = 0; tr_kernel_bench_run(&t->want, i, &r); i++) {
        if (tr_cli_signalled()) return TR_CANCELLED;
        if (!r.name[0]) continue;
        if (t->n == 0) print_head(t);
        print_row(t, &r);
    }
    if (t->n == 0)
        return tr_error_set(err, TR_USAGE, "no kernel of that name: %s; troupe bench kernel lists all", t->want.filter);
    print_end(t);
    return TR_OK;
}

int tr_cli_bench_kernel(tr_options *o) {
    table t = {0};
    tr_error err = {0};
    tr_status status = bench_kernel(&t, o, &err);
    return status == TR_OK ? 0 : tr_cli_fail(&err, status);
}
