/* Ceilings of this machine. The loops are asm: no compiler may fold, spill or vectorize them otherwise. */
#include "kernels/kernel_probe.h"

#include <immintrin.h>
#include <stdatomic.h>
#include <string.h>

#define TIMES8(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define TIMES24(X)                                                                                                     \
    TIMES8(X) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23)
#define STR(n) #n
enum { PROBE_LOOPS = 20000 };
#define FMA512(n)  "vfmadd231ps %%zmm30, %%zmm30, %%zmm" STR(n) "\n\t"
#define DOT512(n)  "vpdpbusd %%zmm30, %%zmm30, %%zmm" STR(n) "\n\t"
#define FMA256(n)  "vfmadd231ps %%ymm15, %%ymm15, %%ymm" STR(n) "\n\t"
#define MADD256(n) "vpmaddwd %%ymm15, %%ymm15, %%ymm" STR(n) "\n\t"
#define CLOBBER(n) , "xmm" STR(n)

#define PROBE512(name, TEXT)                                                                                           \
    __attribute__((target("avx512f"))) static void name(void) {                                                        \
        __asm__ volatile("vpxord %%zmm30, %%zmm30, %%zmm30\n\t" ::: "xmm30");                                          \
        for (int i = 0; i < PROBE_LOOPS; i++) __asm__ volatile(TIMES24(TEXT)::: "xmm30" TIMES24(CLOBBER));             \
    }
#define PROBE256(name, TEXT)                                                                                           \
    __attribute__((target("avx2"))) static void name(void) {                                                           \
        __asm__ volatile("vpxor %%xmm15, %%xmm15, %%xmm15\n\t" ::: "xmm15");                                           \
        for (int i = 0; i < PROBE_LOOPS; i++)                                                                          \
            __asm__ volatile(TIMES8(TEXT) TEXT(8) TEXT(9) TEXT(10) TEXT(11)::                                          \
                                 : "xmm15" TIMES8(CLOBBER), "xmm8", "xmm9", "xmm10", "xmm11");                         \
    }
PROBE512(probe_fma512, FMA512)
PROBE512(probe_dot512, DOT512)
PROBE256(probe_fma256, FMA256)
PROBE256(probe_madd256, MADD256)

/* Eight tiles of zeros, of which six take turns as sums. */
static void probe_tiles(void) {
    static const uint8_t config[64] __attribute__((aligned(64))) = {
        [0] = 1,   [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64, [30] = 64,
        [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16};
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
    for (int i = 0; i < PROBE_LOOPS / 10; i++)
        __asm__ volatile("tdpbusd %tmm7, %tmm6, %tmm0\n\t"
                         "tdpbusd %tmm7, %tmm6, %tmm1\n\t"
                         "tdpbusd %tmm7, %tmm6, %tmm2\n\t"
                         "tdpbusd %tmm7, %tmm6, %tmm3\n\t"
                         "tdpbusd %tmm7, %tmm6, %tmm4\n\t"
                         "tdpbusd %tmm7, %tmm6, %tmm5");
    __asm__ volatile("tilerelease");
}

static _Atomic uint64_t sink; /* what was summed, so that no reading can be left out */

/* Four streams, a quarter apart: one alone does not get all that memory gives to a core. */
__attribute__((target("avx2"))) static void sum_four(const uint8_t *p, size_t n) {
    __m256i s[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    const size_t quarter = n / 4 & ~(size_t)63;
    for (size_t i = 0; i < quarter; i += 64)
        for (int v = 0; v < 4; v++) {
            const uint8_t *q = p + (size_t)v * quarter + i;
            _mm_prefetch((const char *)q + 2048, _MM_HINT_T0);
            s[v] = _mm256_add_epi64(s[v], _mm256_loadu_si256((const __m256i *)(const void *)q));
            s[v] = _mm256_add_epi64(s[v], _mm256_loadu_si256((const __m256i *)(const void *)(q + 32)));
        }
    s[0] = _mm256_add_epi64(_mm256_add_epi64(s[0], s[1]), _mm256_add_epi64(s[2], s[3]));
    sink += (uint64_t)_mm256_extract_epi64(s[0], 0);
}

/* One stream, left to the prefetcher of the CPU: the better one inside a cache. */
__attribute__((target("avx2"))) static void sum_one(const uint8_t *p, size_t n) {
    __m256i s[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t i = 0; i + 64 <= n; i += 64) {
        s[0] = _mm256_add_epi64(s[0], _mm256_loadu_si256((const __m256i *)(const void *)(p + i)));
        s[1] = _mm256_add_epi64(s[1], _mm256_loadu_si256((const __m256i *)(const void *)(p + i + 32)));
    }
    sink += (uint64_t)_mm256_extract_epi64(_mm256_add_epi64(s[0], s[1]), 0);
}

bool tr_kernel_probe_read(const void *mem, size_t bytes, unsigned n_streams) {
    if (!__builtin_cpu_supports("avx2") || mem == NULL) return false;
    (n_streams == 1 ? sum_one : sum_four)(mem, bytes);
    return true;
}

const char *tr_kernel_probe_name(tr_kernel_limit limit) {
    static const char *const names[TR_KERNEL_LIMITS] = {"FMA peak", "int8 dot peak", "summing"};
    return names[limit];
}

double tr_kernel_probe_run(tr_kernel_limit limit, const tr_ops *ops, const void *mem, size_t bytes) {
    bool tiles = strcmp(ops->name, "amx") == 0, wide = tiles || strncmp(ops->name, "avx512", 6) == 0;
    switch (limit) {
    case TR_KERNEL_LIMIT_FMA:
        if (strcmp(ops->name, "ref") == 0) return 0;
        (wide ? probe_fma512 : probe_fma256)();
        return (double)PROBE_LOOPS * (wide ? 24 * 16 : 12 * 8);
    case TR_KERNEL_LIMIT_DOT:
        if (tiles) {
            probe_tiles();
            return (double)(PROBE_LOOPS / 10) * 6 * 16 * 16 * 64;
        }
        if (strcmp(ops->name, "avx512vnni") == 0) {
            probe_dot512();
            return (double)PROBE_LOOPS * 24 * 64;
        }
        if (strcmp(ops->name, "ref") == 0) return 0;
        probe_madd256();
        return (double)PROBE_LOOPS * 12 * 16;
    default: return tr_kernel_probe_read(mem, bytes, 4) ? (double)bytes : 0;
    }
}
