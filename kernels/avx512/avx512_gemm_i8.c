/* AVX-512 without VNNI: int8 matmul. */
#include "kernels/simd/lanes.inc"

#define FN(name) tr_avx512_##name
#include "kernels/simd/gemm_i8_widen.inc"
