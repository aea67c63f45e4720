/* AVX2 without VNNI: int8 matmul. */
#include "kernels/simd/lanes.inc"

#define FN(name) tr_avx2_##name
#include "kernels/simd/gemm_i8_widen.inc"
