/* AVX-512: operations on one vector, and the KV tile writers. */
#include "kernels/simd/lanes.inc"

#define FN(name) tr_avx512_##name
#include "kernels/simd/elementwise.inc"
#include "kernels/simd/kv.inc"
