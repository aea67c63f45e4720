/* kernels/cuda/cuda_memory.h - memory of a device, host memory that it reaches fast, and streams. NEVER RUN ON A
 * DEVICE SO FAR.
 * Ownership: what is allocated here is freed here. Errors: TR_UNAVAILABLE (no device, no driver), TR_EXHAUSTED
 * (memory). Threads: each call selects the device for the calling thread; one owner process a device. */
#ifndef TR_CUDA_MEMORY_H
#define TR_CUDA_MEMORY_H
#include "base/status.h"
#include "kernels/cuda/cuda_ops.h"

#include <stddef.h>

typedef enum tr_cuda_memory_kind {
    TR_CUDA_MEMORY_DEVICE, /* on the device; the host copies */
    TR_CUDA_MEMORY_PINNED  /* of the host, page-locked: copies to and from the device do not stop the host */
} tr_cuda_memory_kind;

/* Devices that this process can use; 0 where there is none or no driver. */
int tr_cuda_memory_devices(void);
tr_status tr_cuda_memory_create(int device, tr_cuda_memory_kind kind, size_t bytes, void **out, tr_error *err);
void tr_cuda_memory_destroy(tr_cuda_memory_kind kind, void *memory);
/* Lets the device reach host memory that the caller owns, as a pool in shared memory; until _unregister. */
tr_status tr_cuda_memory_register(int device, void *memory, size_t bytes, tr_error *err);
void tr_cuda_memory_unregister(void *memory);
/* Queued on the stream; either side may be of the host. */
tr_status tr_cuda_memory_copy(tr_cuda_stream stream, void *to, const void *from, size_t bytes, tr_error *err);
tr_status tr_cuda_memory_stream(int device, tr_cuda_stream *out, tr_error *err);
void tr_cuda_memory_stream_end(tr_cuda_stream stream);
/* Until everything queued on the stream has run. Also tells what launches before it failed of. */
tr_status tr_cuda_memory_wait(tr_cuda_stream stream, tr_error *err);
#endif
