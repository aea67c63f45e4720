/* Dispatch: what this CPU and its operating system can run, the kernel sets, and the choice. */
#include "kernels/ops.h"

#include "base/checked.h"
#include "kernels/variants.h"

#include <cpuid.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xmmintrin.h>

/* What a set needs of the CPU and of the system (which has to save the registers). */
enum { AVX2 = 1, AVXVNNI = 2, AVX512 = 4, VNNI = 8, BF16 = 16, AMX = 32 };

typedef struct set {
    unsigned needs;
    tr_ops ops;
} set;

/* A set is the operations of another one, with some put in their place. */
#define REF(name, ret, args)      .name = tr_ref_##name,
#define AVX2OP(name, ret, args)   .name = tr_avx2_##name,
#define AVX512OP(name, ret, args) .name = tr_avx512_##name,
#define OPS_AVX2                  TR_OPS(AVX2OP)
#define OPS_AVX512                TR_OPS(AVX512OP)
#define OPS_AVX512VNNI                                                                                                 \
    OPS_AVX512.gemm_i8 = tr_avx512vnni_gemm_i8, .gemm_i8a16 = tr_avx512vnni_gemm_i8a16,                                \
    .gemm_groups = tr_avx512vnni_gemm_groups, .attn_int8 = tr_avx512vnni_attn_int8,                                    \
    .attn_int8_static = tr_avx512vnni_attn_int8_static, .attn_int8_residual = tr_avx512vnni_attn_int8_residual,        \
    .planes_bound = tr_avx512vnni_planes_bound, .planes_output = tr_avx512vnni_planes_output,
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
/* Lowest first: of sets that are equally fast the last one is taken. */
static const set sets[] = {
    {0, {"ref", TR_PORT_NONE, TR_PORT_NONE, TR_OPS(REF)}},
    {AVX2, {"avx2", TR_PORT_FMA256, TR_PORT_MADD256, OPS_AVX2}},
    {AVX2 | AVXVNNI, {"avx2vnni", TR_PORT_FMA256, TR_PORT_DOT256, OPS_AVX2.gemm_i8 = tr_avx2vnni_gemm_i8}},
    {AVX2 | AVX512, {"avx512", TR_PORT_FMA512, TR_PORT_MADD512, OPS_AVX512}},
    {AVX2 | AVX512 | VNNI, {"avx512vnni", TR_PORT_FMA512, TR_PORT_DOT512, OPS_AVX512VNNI}},
    {AVX2 | AVX512 | VNNI | BF16,
     {"avx512bf16", TR_PORT_BF16_512, TR_PORT_DOT512, OPS_AVX512VNNI.gemm_bf16 = tr_avx512bf16_gemm_bf16,
      .bf16_row = tr_avx512bf16_bf16_row, .attn_bf16 = tr_avx512bf16_attn_bf16}},
    {AVX2 | AVX512 | VNNI | AMX, {"amx", TR_PORT_FMA512, TR_PORT_TILE_U8, OPS_AVX512VNNI.gemm_i8 = tr_amx_gemm_i8}},
};
#pragma GCC diagnostic pop
enum { SETS = sizeof sets / sizeof sets[0] };

static pthread_once_t detect_once = PTHREAD_ONCE_INIT, probe_once = PTHREAD_ONCE_INIT;
static const tr_ops *available[SETS + 1];
static double rates[TR_PORT_COUNT];

/* Register state that the operating system saves (XCR0); 0 where it does not say. */
static uint64_t saved_state(void) {
    unsigned eax, ebx, ecx, edx, lo, hi;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE)) return 0;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* Linux gives the 8 KiB of tile registers only to a process that asked (its threads and forks have it too, a new
 * program asks anew); refused by kernels before 5.16, by some sandboxes, and where a signal stack is too small for
 * them. */
static bool tiles_granted(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* arch_prctl ARCH_REQ_XCOMP_PERM; state component */
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

static unsigned features(void) {
    enum { YMM_STATE = 0x6, ZMM_STATE = 0xe6, TILE_STATE = 0x60000 };
    enum { SUB1_AVX_VNNI = 1 << 4, SUB1_AVX512_BF16 = 1 << 5 }; /* leaf 7, subleaf 1, eax */
    const unsigned amx = 1u << 24 | 1u << 25;                   /* leaf 7, edx: AMX-TILE, AMX-INT8 */
    const unsigned with_avx2 = bit_FMA | bit_F16C;
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL | bit_AVX512CD;
    unsigned eax, ebx = 0, ecx = 0, edx = 0, ecx1 = 0, sub1 = 0, ignored;
    uint64_t state = saved_state();
    if (!__get_cpuid(1, &eax, &ignored, &ecx1, &ignored)) return 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 0;
    if (eax >= 1) __get_cpuid_count(7, 1, &sub1, &ignored, &ignored, &ignored);
    unsigned f = 0;
    if ((state & YMM_STATE) == YMM_STATE && (ebx & bit_AVX2) && (ecx1 & with_avx2) == with_avx2) f |= AVX2;
    if ((state & ZMM_STATE) == ZMM_STATE && (ebx & avx512) == avx512) f |= AVX512;
    if (sub1 & SUB1_AVX_VNNI) f |= AVXVNNI;
    if (ecx & bit_AVX512VNNI) f |= VNNI;
    if (sub1 & SUB1_AVX512_BF16) f |= BF16;
    if ((edx & amx) == amx && (state & TILE_STATE) == TILE_STATE && tiles_granted()) f |= AMX;
    return f;
}

static void detect(void) {
    const unsigned f = features();
    size_t n = 0;
    for (size_t i = 0; i < SETS; i++)
        if ((sets[i].needs & ~f) == 0) available[n++] = &sets[i].ops;
}

const tr_ops *const *tr_ops_available(void) {
    pthread_once(&detect_once, detect);
    return available;
}

static void probe(void) {
    for (const tr_ops *const *t = tr_ops_available(); *t; t++) {
        const tr_port of[] = {(*t)->bf16_port, (*t)->int8_port};
        for (size_t i = 0; i < 2; i++)
            if (rates[of[i]] == 0) rates[of[i]] = tr_port_rate(of[i]);
    }
}

const double *tr_ops_rates(void) {
    pthread_once(&probe_once, probe);
    return rates;
}

const tr_ops *tr_ops_find(const char *name) {
    for (const tr_ops *const *t = tr_ops_available(); *t; t++)
        if (strcmp((*t)->name, name) == 0) return *t;
    return NULL;
}

static tr_status unknown_set(const char *name, tr_error *err) {
    char names[160] = "";
    for (size_t i = 0; i < SETS; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s",
                 i == 0          ? ""
                 : i == SETS - 1 ? " or "
                                 : ", ",
                 sets[i].ops.name);
    return tr_error_set(err, TR_CONFIG, "TROUPE_CPU=%.32s: unknown instruction set; use %s", name, names);
}

/* Of the sets below `end` the one with the largest product of both rates. A tenth is the noise of the probe. */
static const tr_ops *fastest(size_t end) {
    const tr_ops *best = available[0];
    double best_score = 0;
    if (!available[1]) return best;
    const double *rate = tr_ops_rates();
    for (size_t i = 0; i < end; i++) {
        const tr_ops *o = tr_ops_find(sets[i].ops.name);
        double score = o ? rate[o->bf16_port] * rate[o->int8_port] : 0;
        if (score == 0 || score < 0.9 * best_score) continue;
        best = o;
        best_score = score > best_score ? score : best_score;
    }
    return best;
}

tr_status tr_ops_select(const tr_ops **ops_out, tr_error *err) {
    const char *mask = getenv("TROUPE_CPU");
    size_t end = SETS;
    if (mask && *mask) {
        for (end = 0; end < SETS; end++)
            if (strcmp(sets[end].ops.name, mask) == 0) break;
        if (end == SETS) return unknown_set(mask, err);
        const tr_ops *named = tr_ops_find(mask);
        if (named) {
            *ops_out = named;
            return TR_OK;
        }
    }
    tr_ops_available();
    *ops_out = fastest(end);
    return TR_OK;
}

void tr_ops_thread_init(void) {
    enum { FLUSH_TO_ZERO = 0x8000, DENORMALS_ARE_ZERO = 0x40 };
    _mm_setcsr(_mm_getcsr() | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO);
}

size_t tr_ops_panel_floats(size_t k) { return tr_align_up(k, 16) * 64; }

/* See kernels/simd/attn_common.inc for what lies there. */
size_t tr_ops_attn_scratch_floats(uint32_t heads, uint32_t d) {
    const size_t pairs = heads > 48 ? heads : 48;
    return pairs * (TR_OPS_ATTN_SPLIT_TOK + d + tr_ops_attn_part_floats(d) + 4);
}
