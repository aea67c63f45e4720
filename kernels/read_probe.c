#include "kernels/read_probe.h"

#include <immintrin.h>
#include <stdatomic.h>
#include <stdint.h>

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

bool tr_read_probe_run(const void *mem, size_t bytes, unsigned n_streams) {
    if (!__builtin_cpu_supports("avx2") || mem == NULL) return false;
    (n_streams == 1 ? sum_one : sum_four)(mem, bytes);
    return true;
}
