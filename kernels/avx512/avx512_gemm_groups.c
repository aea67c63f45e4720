/* AVX-512 without VNNI: matmul of weights in groups, 4 x 32 tiles. */
#include "kernels/simd/lanes.inc"

#define GROUPS_ROWS 4
#define GROUPS_NV   2
#include "kernels/simd/gemm_groups.inc"

void tr_avx512_gemm_groups(const tr_gemm_groups_args *a) { groups_all(a); }
