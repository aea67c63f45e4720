/* AVX-512: attention. */
#include "kernels/simd/lanes.inc"

#define FN(name) tr_avx512_##name
#include "kernels/simd/attn_common.inc"

#define PANEL_NV  4
#define ONE_TILES 4
#define ONE_NV    4
#include "kernels/simd/attn_bf16.inc"

#define I8_PAIRS 3
#define I8_TILES 2
#define I8_NV    2
#include "kernels/simd/attn_int8_widen.inc"

#include "kernels/simd/attn_int8.inc"
