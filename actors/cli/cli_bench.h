/* actors/cli/cli_bench.h - what the benchmarks of the command line share. `bench model` goes through the real actors
 * (cli_bench.c), `bench kernel` calls the operations (cli_bench_kernel.c), `bench serve` asks a server by HTTP
 * (cli_bench_serve.c), `bench model --costs` takes the costs of steps (cli_bench_costs.c). */
#ifndef TR_CLI_BENCH_H
#define TR_CLI_BENCH_H
#include "actors/cli/cli_session.h"
#include "actors/cli/costs.h"

typedef enum tr_cli_bench_kind {
    TR_CLI_BENCH_MODEL = 1,
    TR_CLI_BENCH_KERNEL = 2,
    TR_CLI_BENCH_SERVE = 4
} tr_cli_bench_kind;
/* TR_USAGE: a flag was given that is for another kind: nothing is silently ignored. */
tr_status tr_cli_bench_options(const tr_options *options, tr_cli_bench_kind kind, tr_error *err);

int tr_cli_bench_kernel(tr_options *options);
int tr_cli_bench_serve(tr_options *options);
int tr_cli_bench_costs_run(tr_options *options);
/* Costs of the company that a loaded session describes, measured; it runs meanwhile. */
tr_status tr_cli_bench_costs(tr_cli_session *session, tr_costs *out, tr_error *err);

/* Memory that stands for the weights of one decode step, read by as many threads, on the same CPUs, as the stages that
 * decode have: what a step could reach. Owns the memory. */
typedef struct tr_cli_bench_read {
    uint64_t step_bytes; /* weights that a decode step reads, over all stages; 0: not known, no rates then */
    uint64_t bytes;      /* of the buffer: step_bytes, at most TR_CLI_BENCH_READ_MAX */
    uint8_t *data;
    uint32_t n_cpus, cpu[TR_COMPANY_CPUS_MAX];
    uint32_t workers;
} tr_cli_bench_read;

/* Beyond all caches the rate does not depend on the size any more. */
#define TR_CLI_BENCH_READ_MAX (1ull << 30)

/* Of a started company. Without the memory there are no rates. fini is safe after any init, idempotent. */
void tr_cli_bench_read_init(const tr_cli_session *session, tr_cli_bench_read *read_out);
void tr_cli_bench_read_fini(tr_cli_bench_read *read);
/* Bytes a second: best of several passes. 0: none. Blocks for some of these. */
double tr_cli_bench_read_rate(const tr_cli_bench_read *read);
#endif
