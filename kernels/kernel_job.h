/* kernels/kernel_job.h - one row of the kernel benchmark: an operation on a shape of a real model, with memory of its
 * own, and the limit that it should come near to; private to kernel_bench.c. Owns: its memory, until release. */
#ifndef TR_KERNEL_JOB_H
#define TR_KERNEL_JOB_H
#include "kernels/ops.h"

typedef enum tr_kernel_job_limit {
    TR_KERNEL_JOB_PORT, /* an instruction */
    TR_KERNEL_JOB_SUM,  /* reading memory */
    TR_KERNEL_JOB_COPY  /* memcpy of as many bytes, read and written */
} tr_kernel_job_limit;

typedef struct tr_kernel_job tr_kernel_job;
struct tr_kernel_job {
    const tr_ops *ops;
    char name[64];
    tr_kernel_job_limit limit;
    tr_port port;
    double macs, bytes; /* of one run */
    void (*run)(const tr_kernel_job *j);
    tr_gemm_bf16_args bf16;
    tr_gemm_i8_args i8;
    tr_gemm_groups_args groups;
    tr_attn_args attn;
    tr_kv_format kv;
    tr_kv_head head;
    tr_planes planes_w;
    tr_planes_query query[16];
    tr_planes_args planes;
    const uint8_t *mem; /* what TR_KERNEL_JOB_SUM reads, and TR_KERNEL_JOB_COPY copies to b */
    size_t mem_bytes;
    float *x, *y, *z;
    uint8_t *a, *b;
    size_t n, rows, block;
    tr_kv_format from, to; /* of a hand-off: rows tokens in runs of block, at tile numbers of their own */
    const uint32_t *from_tile, *to_tile;
    void *owned[12];
    size_t n_owned;
};

/* Fills *j (zeroed, with ops set) with row i; false when there is none. */
bool tr_kernel_job_setup(tr_kernel_job *j, unsigned i);
/* From now on by these operations: rows of a bf16 matmul are ready for one kernel set only. */
void tr_kernel_job_use(tr_kernel_job *j, const tr_ops *ops);
void tr_kernel_job_release(tr_kernel_job *j);
#endif
