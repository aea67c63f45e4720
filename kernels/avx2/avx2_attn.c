/* AVX2: attention. */
#include "kernels/simd/lanes.inc"

#define FN(name)  tr_avx2_##name
#define QK_LANES  1
#define QK_TOK    4
#define PV_PAIRS  6
#define PV_NV     1
#define ONE_TILES 1
#define ONE_NV    1
#include "kernels/simd/attn.inc"
