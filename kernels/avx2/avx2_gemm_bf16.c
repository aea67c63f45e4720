/* AVX2: bf16 matmul, 6 x 16 tiles (12 of 16 registers are sums). */
#include "kernels/simd/lanes.inc"

#define FN(name)        tr_avx2_##name
#define GEMM_NV         1
#define DIRECT_NV(rows) ((rows) <= 2 ? 2u : 1u)
#include "kernels/simd/gemm_bf16.inc"
