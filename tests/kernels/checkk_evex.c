/* The 256-bit int8 matmul of avx2vnni with the EVEX form of its instruction: runs where AVX-512 VNNI is and AVX-VNNI is
 * not, so that the text of the kernel is checked on more machines than have the VEX form. */
#include "tests/kernels/checkk.h"

#define FN(name) checkk_evex_##name
#define DOT256   "vpdpbusd"
#include "kernels/simd/gemm_i8_dot256.inc"
