/* kernels/kernel_bench.h - rate of each operation on shapes of real models, beside the peak of this machine measured in
 * the same rounds (the instruction that the kernel set uses, kernels/port.h, or reading, kernels/read_probe.h): a share
 * travels between machines, a rate does not. Rates are per processor time, so a neighbour on the core does not count.
 * With several threads every thread has data of its own and the rates add up. Threads: one caller; starts and ends its
 * own. Blocks: some 80 ms a round. */
#ifndef TR_KERNEL_BENCH_H
#define TR_KERNEL_BENCH_H
#include "base/status.h"
#include "kernels/ops.h"

enum { TR_KERNEL_BENCH_ROUNDS_MAX = 1000, TR_KERNEL_BENCH_THREADS_MAX = 64 };

typedef struct tr_kernel_bench_want {
    const tr_ops *ops;
    const tr_ops *other;      /* set to compare with, in turn; NULL: none */
    unsigned threads, rounds; /* 1 .. the maximum */
    const char *filter;       /* part of a name; NULL: all */
} tr_kernel_bench_want;

typedef struct tr_kernel_bench_result {
    char name[64];      /* operation, rows x inputs -> outputs; empty: left out by the filter */
    const char *limit;  /* name of the instruction, "summing" or "memcpy" */
    bool reads;         /* the limit is one of bytes, not of multiply-adds */
    double us;          /* one run on one thread */
    double macs, bytes; /* multiply-adds and bytes a second, all threads */
    double peak;        /* of the limit, in its unit a second, all threads; 0: none on this CPU */
    double share;       /* of the peak, median of the rounds; lowest and highest: */
    double share_min, share_max;
    double ratio; /* rate over the other set's; 0 without one */
} tr_kernel_bench_result;

/* Benchmark number i; false behind the last one. */
bool tr_kernel_bench_run(const tr_kernel_bench_want *want, unsigned i, tr_kernel_bench_result *result_out);
#endif
