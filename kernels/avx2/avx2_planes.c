/* AVX2 without VNNI: weights in two planes. */
#include "kernels/simd/lanes.inc"

#define FN(name) tr_avx2_##name
#include "kernels/simd/planes.inc"
