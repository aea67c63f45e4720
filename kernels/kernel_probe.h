/* kernels/kernel_probe.h - what this machine can do at most, measured: the ceilings beside which rates of kernels and
 * of whole steps are stated. Arithmetic: loops over registers of the instruction that a kernel set lives on. Memory:
 * each byte read once by vector loads and summed. Threads: any, each for itself. Runs as long as the work takes, no
 * heap. */
#ifndef TR_KERNEL_PROBE_H
#define TR_KERNEL_PROBE_H
#include "kernels/ops.h"

#include <stddef.h>

typedef enum tr_kernel_limit {
    TR_KERNEL_LIMIT_FMA, /* fp32 multiply-adds of the widest vectors */
    TR_KERNEL_LIMIT_DOT, /* int8 multiply-adds */
    TR_KERNEL_LIMIT_SUM, /* bytes read */
    TR_KERNEL_LIMITS
} tr_kernel_limit;
const char *tr_kernel_probe_name(tr_kernel_limit limit); /* "FMA peak", "int8 dot peak", "summing" */

/* One piece of work at that limit with the instructions of a kernel set: how much it was, in multiply-adds or bytes.
 * 0: this set or CPU has no such instruction. mem [bytes] is what TR_KERNEL_LIMIT_SUM reads (NULL: 0). */
double tr_kernel_probe_run(tr_kernel_limit limit, const tr_ops *ops, const void *mem, size_t bytes);
/* Read [bytes] once, in n_streams (1 or 4) runs side by side. False where the CPU has no AVX2. */
bool tr_kernel_probe_read(const void *mem, size_t bytes, unsigned n_streams);
#endif
