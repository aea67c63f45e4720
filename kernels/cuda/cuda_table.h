/* kernels/cuda/cuda_table.h - the device as one more kernel set: each operation takes host memory, copies it to the
 * device, runs there and copies back. For checkk alone: it proves the kernels and is of no use to a stage.
 * Threads: one at a time. A failing call of CUDA ends the process: it is a test that failed. */
#ifndef TR_CUDA_TABLE_H
#define TR_CUDA_TABLE_H
#include "kernels/cuda/cuda_ops.h"

/* "cuda" on device 0; NULL where there is no device. */
const tr_ops *tr_cuda_table(void);
#endif
