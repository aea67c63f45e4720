/* AVX2: matmul of weights in groups, 2 x 16 tiles. */
#include "kernels/simd/lanes.inc"

#define GROUPS_ROWS 2
#define GROUPS_NV   1
#include "kernels/simd/gemm_groups.inc"

void tr_avx2_gemm_groups(const tr_gemm_groups_args *a) { groups_all(a); }
