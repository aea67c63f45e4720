/* AVX-512 VNNI: attention over int8 pages by byte dot products, high and low byte of the query or weight apart.
 * Inline assembly keeps the sums in registers: from the intrinsic gcc spills them. */
#include "kernels/simd/lanes.inc"

#define FN(name) tr_avx512vnni_##name
#include "kernels/simd/attn_common.inc"

/* From four words the high bytes, then the low bytes. A query's low byte is signed as well: 128 before, -128 after. */
#define QUAD_ORDER   1, 3, 5, 7, 0, 2, 4, 6
#define QUAD_ORDER_2 9, 11, 13, 15, 8, 10, 12, 14
#define QUERY_BIAS   128
#define QUERY_FLIP   (int64_t)0x8080808000000000

INLINE vi key_half(vi line, int h) {
    (void)h;
    return line;
}
INLINE vi value_half(vi line, int h) {
    (void)h;
    return line;
}
INLINE vi dot(vi sum, vi u, vi s) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(s));
    return sum;
}
INLINE vi dot_key(vi sum, vi key, vi q) { return dot(sum, key, q); }
INLINE vi dot_value(vi sum, vi value, vi p) { return dot(sum, p, value); }
INLINE vi join(vi high, vi low) { return viadd(vsll(high, 8), low); }

#define I8_PAIRS 3
#define I8_TILES 4
#define I8_NV    4
#include "kernels/simd/attn_int8.inc"
