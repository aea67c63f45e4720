/* AVX-512 BF16: attention over bf16 pages. Inline assembly keeps the sums in registers: from the intrinsic gcc spills
 * them. */
#include "kernels/simd/lanes.inc"

#define FN(name) tr_avx512bf16_##name
#include "kernels/simd/attn_common.inc"

typedef uint16_t number;
typedef vi half_line;
#define HALVES 1

INLINE vi half_of(vi line, int h) {
    (void)h;
    return line;
}
INLINE vi factor(const number *x, int h) {
    (void)h;
    return vquad(x);
}
INLINE vf mul_add(vf sum, vi half, vi x) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(half));
    return sum;
}
INLINE vf put_rounded(number *to, vf x) {
    const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(x);
    _mm256_storeu_si256((__m256i *)(void *)to, rounded);
    return vfloat(vsll(_mm512_cvtepu16_epi32(rounded), 16));
}

#define BF16_PAIRS 6
#define BF16_TILES 4
#define BF16_NV    4
#include "kernels/simd/attn_bf16.inc"
