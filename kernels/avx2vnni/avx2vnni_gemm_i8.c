/* AVX-VNNI: int8 matmul by the 256-bit vpdpbusd in its VEX form, for CPUs without AVX-512.
 * This form has not run yet: no machine with AVX-VNNI was at hand. Tests compile the same text with the EVEX form of
 * the instruction (tests/kernels/checkk_evex.c) and run that. */
#define FN(name) tr_avx2vnni_##name
#define DOT256   "%{vex%} vpdpbusd"
#include "kernels/simd/gemm_i8_dot256.inc"
