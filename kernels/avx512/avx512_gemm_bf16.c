/* AVX-512: bf16 matmul, 6 x 64 tiles (24 of 32 registers are sums). */
#include "kernels/simd/lanes.inc"

#define FN(name)        tr_avx512_##name
#define GEMM_NV         4
#define DIRECT_NV(rows) ((void)(rows), 4u)
#include "kernels/simd/gemm_bf16.inc"
