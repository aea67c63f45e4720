/* AVX-512: attention. */
#include "kernels/simd/lanes.inc"

#define FN(name) tr_avx512_##name
#include "kernels/simd/attn_common.inc"

#include "kernels/simd/attn_bf16_fma.inc"

#define BF16_PAIRS 5
#define BF16_TILES 4
#define BF16_NV    4
#include "kernels/simd/attn_bf16.inc"

#define I8_PAIRS 3
#define I8_TILES 2
#define I8_NV    2
#include "kernels/simd/attn_int8_widen.inc"

#include "kernels/simd/attn_int8.inc"

#include "kernels/simd/attn_merge.inc"
