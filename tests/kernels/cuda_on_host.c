/* Memory of a "device" that is the host: with kernels/cuda/cuda_ops.cu built as C++ (TR_CUDA_ON_HOST) checkk runs what
 * a device would be asked to do, without one. */
#include "kernels/cuda/cuda_memory.h"

#include "base/checked.h"

#include <stdlib.h>
#include <string.h>

int tr_cuda_memory_devices(void) { return 1; }

tr_status tr_cuda_memory_create(int device, tr_cuda_memory_kind kind, size_t bytes, void **out, tr_error *err) {
    (void)device, (void)kind, (void)err;
    *out = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    tr_check(*out != NULL);
    return TR_OK;
}
void tr_cuda_memory_destroy(tr_cuda_memory_kind kind, void *memory) {
    (void)kind;
    free(memory);
}
tr_status tr_cuda_memory_copy(tr_cuda_stream stream, void *to, const void *from, size_t bytes, tr_error *err) {
    (void)stream, (void)err;
    memcpy(to, from, bytes);
    return TR_OK;
}
tr_status tr_cuda_memory_wait(tr_cuda_stream stream, tr_error *err) {
    (void)stream, (void)err;
    return TR_OK;
}
