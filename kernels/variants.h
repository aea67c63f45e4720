/* kernels/variants.h - prototypes of every variant's operations; only ops.c and the variants include it. */
#ifndef TR_VARIANTS_H
#define TR_VARIANTS_H
#include "kernels/ops.h"

#define OP(name, ret, args)                                                                                            \
    TR_DEVICE ret tr_ref_##name args;                                                                                  \
    ret tr_avx2_##name args;                                                                                           \
    ret tr_avx512_##name args;
TR_OPS(OP)
#undef OP
void tr_avx2vnni_gemm_i8(const tr_gemm_i8_args *a);
void tr_avx512vnni_gemm_i8(const tr_gemm_i8_args *a);
void tr_avx512vnni_attn_int8(const tr_attn_args *a);
void tr_avx512vnni_attn_int8_static(const tr_attn_args *a);
void tr_avx512vnni_attn_int8_residual(const tr_attn_args *a);
void tr_avx512bf16_bf16_row(void *row, const float *x, size_t k);
void tr_avx512bf16_gemm_bf16(const tr_gemm_bf16_args *a);
void tr_avx512bf16_attn_bf16(const tr_attn_args *a);
void tr_avx512vnni_planes_bound(const tr_planes_args *a);
float tr_avx512vnni_planes_output(const tr_planes *w, const tr_planes_query *q, size_t n, int32_t coarse);
void tr_avx512vnni_gemm_i8a16(const tr_gemm_i8a16_args *a);
void tr_avx512vnni_gemm_groups(const tr_gemm_groups_args *a);
void tr_amx_gemm_i8(const tr_gemm_i8_args *a);
#endif
