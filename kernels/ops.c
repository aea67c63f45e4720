/* Dispatch: what this CPU and its operating system can run, the tables, and the choice. */
#include "kernels/ops.h"

#include "base/checked.h"
#include "kernels/variants.h"

#include <cpuid.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xmmintrin.h>

#define OP(name, ret, args) .name = tr_ref_##name,
static const tr_ops ref_table = {.name = "ref", TR_OPS(OP)};
#undef OP

#define OP(name, ret, args) .name = tr_avx2_##name,
static const tr_ops avx2_table = {.name = "avx2", TR_OPS(OP)};
#undef OP
#define OP(name, ret, args) .name = tr_avx512_##name,
static const tr_ops avx512_table = {.name = "avx512", TR_OPS(OP)};
#undef OP
/* VNNI and AMX put matmuls of their own into a copy of the table below; filled once by probe(). */
static tr_ops vnni_table, amx_table;

/* Every table, lowest first; a later one needs all that an earlier one needs. */
static const tr_ops *const ladder[] = {&ref_table, &avx2_table, &avx512_table, &vnni_table, &amx_table};
enum { VARIANTS = sizeof ladder / sizeof ladder[0] };

static pthread_once_t probe_once = PTHREAD_ONCE_INIT;
static const tr_ops *available[VARIANTS + 1];

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

/* How many tables of the ladder this CPU runs. */
static size_t runnable(void) {
    enum { YMM_STATE = 0x6, ZMM_STATE = 0xe6, TILE_STATE = 0x60000 };
    unsigned eax, ebx = 0, ecx = 0, edx = 0, ecx1 = 0;
    uint64_t state = saved_state();
    if ((state & YMM_STATE) != YMM_STATE || !__get_cpuid(1, &eax, &ebx, &ecx1, &edx)) return 1;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 1;
    const unsigned amx = 1u << 24 | 1u << 25; /* AMX-TILE, AMX-INT8 */
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL | bit_AVX512CD;
    if (!(ebx & bit_AVX2) || (ecx1 & (bit_FMA | bit_F16C)) != (bit_FMA | bit_F16C)) return 1;
    if ((state & ZMM_STATE) != ZMM_STATE || (ebx & avx512) != avx512) return 2;
    if (!(ecx & bit_AVX512VNNI)) return 3;
    return (edx & amx) == amx && (state & TILE_STATE) == TILE_STATE && tiles_granted() ? 5 : 4;
}

static void probe(void) {
    vnni_table = avx512_table;
    vnni_table.name = "avx512vnni";
    vnni_table.gemm_i8 = tr_avx512vnni_gemm_i8;
    vnni_table.gemm_i8a16 = tr_avx512vnni_gemm_i8a16;
    vnni_table.gemm_groups = tr_avx512vnni_gemm_groups;
    amx_table = vnni_table;
    amx_table.name = "amx";
    amx_table.gemm_i8 = tr_amx_gemm_i8;
    size_t n = runnable();
    for (size_t i = 0; i < VARIANTS && i < n; i++) available[i] = ladder[i];
}

const tr_ops *const *tr_ops_available(void) {
    pthread_once(&probe_once, probe);
    return available;
}

const tr_ops *tr_ops_find(const char *name) {
    for (const tr_ops *const *t = tr_ops_available(); *t; t++)
        if (strcmp((*t)->name, name) == 0) return *t;
    return NULL;
}

tr_status tr_ops_select(const tr_ops **ops_out, tr_error *err) {
    const char *mask = getenv("TROUPE_CPU");
    const tr_ops *const *tables = tr_ops_available();
    size_t limit = VARIANTS - 1;
    if (mask && *mask) {
        for (limit = 0; limit < VARIANTS; limit++)
            if (strcmp(ladder[limit]->name, mask) == 0) break;
        if (limit == VARIANTS)
            return tr_error_set(err, TR_CONFIG,
                                "TROUPE_CPU=%.32s: unknown instruction set; use ref, avx2, avx512, avx512vnni or amx",
                                mask);
    }
    size_t best = 0;
    while (best < limit && tables[best + 1]) best++;
    *ops_out = tables[best];
    return TR_OK;
}

void tr_ops_thread_init(void) {
    enum { FLUSH_TO_ZERO = 0x8000, DENORMALS_ARE_ZERO = 0x40 };
    _mm_setcsr(_mm_getcsr() | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO);
}

size_t tr_ops_panel_floats(size_t k) { return tr_align_up(k, 16) * 64; }

/* See kernels/simd/attn.inc for what lies there. */
size_t tr_ops_attn_scratch_floats(uint32_t heads, uint32_t d) {
    size_t lanes = tr_align_up(heads > 48 ? heads : 48, 16);
    return lanes * (2 * (size_t)d + 96) + 64 * (size_t)d;
}
