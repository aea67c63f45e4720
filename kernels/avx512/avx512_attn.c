/* AVX-512: attention. */
#include "kernels/simd/lanes.inc"

#define FN(name)  tr_avx512_##name
#define QK_LANES  3
#define QK_TOK    8
#define PV_PAIRS  6
#define PV_NV     4
#define ONE_TILES 4
#define ONE_NV    4
#include "kernels/simd/attn.inc"
