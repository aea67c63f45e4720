/* AVX-512 without VNNI: weights in two planes. */
#include "kernels/simd/lanes.inc"

#define FN(name) tr_avx512_##name
#include "kernels/simd/planes.inc"
