#include "kernels/cuda/cuda_memory.h"

#include <cuda_runtime_api.h>

static tr_status told(cudaError_t e, const char *what, tr_error *err) {
    if (e == cudaSuccess) return TR_OK;
    return tr_error_set(err, e == cudaErrorMemoryAllocation ? TR_EXHAUSTED : TR_UNAVAILABLE, "CUDA: %s: %s", what,
                        cudaGetErrorString(e));
}

int tr_cuda_memory_devices(void) {
    int n = 0;
    return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

tr_status tr_cuda_memory_create(int device, tr_cuda_memory_kind kind, size_t bytes, void **out, tr_error *err) {
    TR_TRY(told(cudaSetDevice(device), "selecting the device", err));
    void *memory = NULL;
    if (kind == TR_CUDA_MEMORY_DEVICE)
        TR_TRY(told(cudaMalloc(&memory, bytes), "allocating device memory", err));
    else
        TR_TRY(told(cudaHostAlloc(&memory, bytes, cudaHostAllocDefault), "allocating pinned memory", err));
    *out = memory;
    return TR_OK;
}

void tr_cuda_memory_destroy(tr_cuda_memory_kind kind, void *memory) {
    if (memory == NULL) return;
    if (kind == TR_CUDA_MEMORY_DEVICE)
        cudaFree(memory);
    else
        cudaFreeHost(memory);
}

tr_status tr_cuda_memory_register(int device, void *memory, size_t bytes, tr_error *err) {
    TR_TRY(told(cudaSetDevice(device), "selecting the device", err));
    return told(cudaHostRegister(memory, bytes, cudaHostRegisterDefault), "registering host memory", err);
}
void tr_cuda_memory_unregister(void *memory) { cudaHostUnregister(memory); }

tr_status tr_cuda_memory_copy(tr_cuda_stream stream, void *to, const void *from, size_t bytes, tr_error *err) {
    return told(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "copying", err);
}

tr_status tr_cuda_memory_stream(int device, tr_cuda_stream *out, tr_error *err) {
    TR_TRY(told(cudaSetDevice(device), "selecting the device", err));
    return told(cudaStreamCreateWithFlags(out, cudaStreamNonBlocking), "making a stream", err);
}
void tr_cuda_memory_stream_end(tr_cuda_stream stream) { cudaStreamDestroy(stream); }

tr_status tr_cuda_memory_wait(tr_cuda_stream stream, tr_error *err) {
    TR_TRY(told(cudaGetLastError(), "launching a kernel", err));
    return told(cudaStreamSynchronize(stream), "waiting for a stream", err);
}
