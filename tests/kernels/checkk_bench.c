/* checkk --bench: rate of each operation on shapes of real models, beside the peak of this machine measured in the same
 * rounds (fused multiply-add, int8 dot product, or summing memory). Short runs: medians of a few rounds. With several
 * threads every thread has data of its own and the rates add up (rates are per processor time). */
#include "tests/kernels/checkk.h"

#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 5, THREADS_MAX = 64 };
#define ROUND_NS 40000000ull

typedef enum limit { LIMIT_FMA, LIMIT_DOT, LIMIT_SUM, LIMITS } limit;

typedef struct job job;
struct job {
    const tr_ops *ops;
    char name[64];
    limit limit;
    double macs, bytes; /* of one run */
    void (*run)(const job *j);
    tr_gemm_bf16_args bf16;
    tr_gemm_i8_args i8;
    tr_gemm_groups_args groups;
    tr_attn_args attn;
    const uint8_t *mem; /* what LIMIT_SUM sums */
    size_t mem_bytes;
    float *x, *y, *z;
    uint8_t *a, *b;
    size_t n, rows, block;
    void *owned[12];
    size_t n_owned;
};

static void *take(job *j, size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    tr_check(p != NULL && j->n_owned < 12);
    j->owned[j->n_owned++] = p;
    return p;
}
static float *take_floats(job *j, size_t n) {
    float *x = take(j, n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(i * 37 % 101) / 50.0f - 1.0f;
    return x;
}
static void *take_bytes(job *j, size_t n) {
    uint8_t *x = take(j, n);
    uint64_t s = 88172645463325252ull;
    for (size_t i = 0; i < n; i++) {
        if (i % 8 == 0) s = tr_rng_mix(s);
        x[i] = (uint8_t)(s >> i % 8 * 8);
    }
    return x;
}
static uint16_t *take_bf16(job *j, size_t n) {
    uint16_t *x = take(j, n * 2);
    for (size_t i = 0; i < n; i++) x[i] = (uint16_t)(0x3f00 + (i * 29 % 97) + (i % 2 << 15));
    return x;
}

/* ---- peaks ---- */

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

static volatile uint64_t sink;

/* Four streams, a quarter apart: one alone does not get all that memory gives to a core. */
__attribute__((target("avx2"))) static void sum_memory(const uint8_t *p, size_t n) {
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

/* Work done by one call, in MAC or bytes; 0 where this CPU has no such instruction. */
static double run_limit(const job *j) {
    bool tiles = strcmp(j->ops->name, "amx") == 0, wide = tiles || strncmp(j->ops->name, "avx512", 6) == 0;
    switch (j->limit) {
    case LIMIT_FMA:
        if (strcmp(j->ops->name, "ref") == 0) return 0;
        (wide ? probe_fma512 : probe_fma256)();
        return (double)PROBE_LOOPS * (wide ? 24 * 16 : 12 * 8);
    case LIMIT_DOT:
        if (tiles) {
            probe_tiles();
            return (double)(PROBE_LOOPS / 10) * 6 * 16 * 16 * 64;
        }
        if (strcmp(j->ops->name, "avx512vnni") == 0) {
            probe_dot512();
            return (double)PROBE_LOOPS * 24 * 64;
        }
        if (strcmp(j->ops->name, "ref") == 0) return 0;
        probe_madd256();
        return (double)PROBE_LOOPS * 12 * 16;
    default:
        if (!__builtin_cpu_supports("avx2") || j->mem == NULL) return 0;
        sum_memory(j->mem, j->mem_bytes);
        return (double)j->mem_bytes;
    }
}

/* ---- jobs ---- */

static void run_bf16(const job *j) { j->ops->gemm_bf16(&j->bf16); }
static void run_i8(const job *j) { j->ops->gemm_i8(&j->i8); }
static void run_i8a16(const job *j) { j->ops->gemm_i8a16(&j->i8); }
static void run_groups(const job *j) { j->ops->gemm_groups(&j->groups); }
static void run_attn_bf16(const job *j) { j->ops->attn_bf16(&j->attn); }
static void run_attn_int8(const job *j) { j->ops->attn_int8(&j->attn); }

static void setup_bf16(job *j, size_t rows, size_t k, size_t n) {
    snprintf(j->name, sizeof j->name, "gemm_bf16 %zux%zu->%zu", rows, k, n);
    uint16_t *w = take_bf16(j, n * k);
    j->bf16 = (tr_gemm_bf16_args){.x = take_floats(j, rows * k),
                                  .w = w,
                                  .y = take_floats(j, rows * n),
                                  .rows = rows,
                                  .panel = take_floats(j, tr_ops_panel_floats(k)),
                                  .k = k,
                                  .ldx = k,
                                  .ldy = n,
                                  .blocks = n / 16};
    j->macs = (double)rows * (double)k * (double)n;
    j->bytes = (double)n * (double)k * 2;
    j->limit = rows > 6 ? LIMIT_FMA : LIMIT_SUM;
    j->mem = (const uint8_t *)w, j->mem_bytes = n * k * 2;
    j->run = run_bf16;
}

static void setup_i8(job *j, size_t rows, size_t k, size_t n) {
    snprintf(j->name, sizeof j->name, "gemm_i8 %zux%zu->%zu", rows, k, n);
    int8_t *w = take_bytes(j, n * k);
    int32_t *comp = take(j, n * 4);
    memset(comp, 0, n * 4);
    j->i8 = (tr_gemm_i8_args){.x = take_bytes(j, rows * k),
                              .x_scale = take_floats(j, rows),
                              .w = w,
                              .comp = comp,
                              .w_scale = take_floats(j, n),
                              .y = take_floats(j, rows * n),
                              .rows = rows,
                              .k = k,
                              .ldx = k,
                              .ldy = n,
                              .blocks = n / 16};
    j->macs = (double)rows * (double)k * (double)n;
    j->bytes = (double)n * (double)k;
    j->limit = rows > 16 || n * k < 8u << 20 ? LIMIT_DOT : LIMIT_SUM;
    j->mem = (const uint8_t *)w, j->mem_bytes = n * k;
    j->run = run_i8;
}

static void setup_i8a16(job *j, size_t rows, size_t k, size_t n) {
    setup_i8(j, rows, k, n);
    snprintf(j->name, sizeof j->name, "gemm_i8a16 %zux%zu->%zu", rows, k, n);
    j->i8.x = take_bytes(j, 2 * rows * k);
    j->macs *= 2; /* dot products that it takes */
    j->limit = rows > 1 ? LIMIT_DOT : LIMIT_SUM;
    j->run = run_i8a16;
}

static void setup_groups(job *j, tr_groups_format format, size_t rows, size_t k, size_t n) {
    const tr_groups_info *f = tr_groups_describe(format);
    const size_t block_bytes = tr_groups_block_bytes(format, k);
    snprintf(j->name, sizeof j->name, "gemm_groups %s %zux%zu->%zu", f->name, rows, k, n);
    uint8_t *w = take_bytes(j, n / 16 * block_bytes), *x = take(j, rows * tr_groups_x_bytes(k));
    for (size_t b = 0; b < n / 16; b++) /* numbers near 1 for the f16 scales, the codes are random */
        for (size_t i = 0; i < tr_groups_scale_bytes(format, k); i += 2)
            w[b * block_bytes + i] = 0x31, w[b * block_bytes + i + 1] = 0x2c;
    float *in = take_floats(j, k), *tmp = take_floats(j, k);
    for (size_t r = 0; r < rows; r++) j->ops->quant_groups(x + r * tr_groups_x_bytes(k), in, tmp, k, 1);
    j->groups = (tr_gemm_groups_args){.x = x,
                                      .w = w,
                                      .y = take_floats(j, rows * n),
                                      .panel = take_floats(j, tr_ops_panel_floats(k)),
                                      .format = format,
                                      .rows = rows,
                                      .k = k,
                                      .ldx = tr_groups_x_bytes(k),
                                      .ldy = n,
                                      .blocks = n / 16};
    j->macs = (double)rows * (double)k * (double)n;
    j->bytes = (double)(n / 16 * block_bytes);
    j->limit = rows > 16 || n * k < 8u << 20 ? LIMIT_DOT : LIMIT_SUM;
    j->mem = w, j->mem_bytes = n / 16 * block_bytes;
    j->run = run_groups;
}

static void setup_attn(job *j, tr_kv_format f, uint32_t rows, uint32_t pos0, uint32_t heads, uint32_t d,
                       uint32_t window) {
    enum { PAGE_TOK = 16 };
    snprintf(j->name, sizeof j->name, "attn_%s rows %u at %u d=%u heads=%u w=%u", tr_kv_format_name(f), rows, pos0, d,
             heads, window);
    uint32_t pages = (pos0 + rows + PAGE_TOK - 1) / PAGE_TOK;
    size_t page_bytes = tr_kv_page_bytes(f, d, PAGE_TOK);
    uint8_t *base = take(j, pages * page_bytes);
    uint32_t *table = take(j, pages * 4);
    float *k = take_floats(j, d), *v = take_floats(j, d), *tmp = take_floats(j, d);
    for (uint32_t p = 0; p < pages; p++) {
        table[p] = p * 7 % pages;
        if (pages % 7 == 0) table[p] = p;
        for (uint32_t t = 0; t < PAGE_TOK; t++)
            if (f == TR_KV_BF16)
                j->ops->kv_store_bf16(base + p * page_bytes, t, k, v, d);
            else
                j->ops->kv_store_int8(base + p * page_bytes, t, k, v, d, tmp);
    }
    j->attn = (tr_attn_args){.q = take_floats(j, (size_t)rows * heads * d),
                             .out = take_floats(j, (size_t)rows * heads * d),
                             .pages = base,
                             .table = table,
                             .page_bytes = page_bytes,
                             .ldq = (size_t)heads * d,
                             .ldo = (size_t)heads * d,
                             .page_tok = PAGE_TOK,
                             .rows = rows,
                             .heads = heads,
                             .d = d,
                             .pos0 = pos0,
                             .window = window,
                             .scale = 1.0f / sqrtf((float)d),
                             .scratch = take_floats(j, tr_ops_attn_scratch_floats(heads, d))};
    double seen = 0;
    for (uint32_t r = 0; r < rows; r++) seen += window && pos0 + r + 1 > window ? window : pos0 + r + 1;
    j->macs = seen * heads * d * 2;
    j->bytes = (double)(pages * page_bytes);
    j->limit = LIMIT_FMA;
    j->run = f == TR_KV_BF16 ? run_attn_bf16 : run_attn_int8;
}

static void run_rmsnorm(const job *j) {
    for (size_t r = 0; r < j->rows; r++) j->ops->rmsnorm(j->y + r * j->n, j->x + r * j->n, j->z, j->n, 1e-6f);
}
static void run_quant(const job *j) {
    float scale;
    for (size_t r = 0; r < j->rows; r++)
        j->ops->quant_u8(j->a + r * j->n, &scale, j->x + r * j->n, j->z, j->n, j->block);
}
static void run_hadamard(const job *j) {
    for (size_t r = 0; r < j->rows; r++) {
        memcpy(j->z, j->x + r * j->n, j->n * 4);
        j->ops->hadamard(j->z, j->n, j->block);
    }
}
static void run_gelu(const job *j) { j->ops->gelu_mul(j->y, j->x, j->x, j->n * j->rows); }
static void run_silu(const job *j) { j->ops->silu_mul(j->y, j->x, j->x, j->n * j->rows); }
static void run_add(const job *j) { j->ops->add(j->y, j->x, j->n * j->rows); }
static void run_rope(const job *j) {
    for (size_t r = 0; r < j->rows; r++) j->ops->rope(j->y + r * j->n, j->z, j->n);
}
static void run_argmax(const job *j) {
    float m;
    sink += j->ops->argmax(j->x, j->n * j->rows, &m);
}
static void run_store_bf16(const job *j) {
    size_t bytes = tr_kv_tile_bytes(TR_KV_BF16, (uint32_t)j->n);
    for (size_t r = 0; r < j->rows; r++)
        j->ops->kv_store_bf16(j->a + r / 16 * bytes, r % 16, j->x + r * j->n, j->y + r * j->n, (uint32_t)j->n);
}
static void run_store_int8(const job *j) {
    size_t bytes = tr_kv_tile_bytes(TR_KV_INT8, (uint32_t)j->n);
    for (size_t r = 0; r < j->rows; r++)
        j->ops->kv_store_int8(j->a + r / 16 * bytes, r % 16, j->x + r * j->n, j->y + r * j->n, (uint32_t)j->n, j->z);
}
static void run_convert(const job *j) {
    uint32_t d = (uint32_t)j->n;
    for (size_t r = 0; r < j->rows; r += 16)
        j->ops->kv_convert_bf16_int8(j->b + r / 16 * tr_kv_tile_bytes(TR_KV_INT8, d), 0,
                                     j->a + r / 16 * tr_kv_tile_bytes(TR_KV_BF16, d), 0, 16, d, j->z);
}

static void setup_rows(job *j, const char *name, void (*run)(const job *), size_t rows, size_t n, size_t block,
                       double bytes_per_element) {
    snprintf(j->name, sizeof j->name, "%s %zux%zu", name, rows, n);
    j->run = run, j->rows = rows, j->n = n, j->block = block;
    j->x = take_floats(j, rows * n), j->y = take_floats(j, rows * n), j->z = take_floats(j, n > 64 ? n : 64);
    j->a = (uint8_t *)take_bf16(j, rows * n * 2), j->b = take_bytes(j, rows * n * 2 + rows * 8);
    j->bytes = (double)rows * (double)n * bytes_per_element;
    j->limit = LIMIT_SUM;
    j->mem = (const uint8_t *)j->x, j->mem_bytes = rows * n * 4;
}

static void run_quant_groups(const job *j) {
    for (size_t r = 0; r < j->rows; r++) j->ops->quant_groups(j->a, j->x + r * j->n, j->z, j->n, j->block);
}

/* Weights in groups, and int8 weights with activations of 16 bits. */
static bool setup_others(job *j, unsigned i) {
    static const struct {
        uint8_t format;
        uint16_t rows, k;
        uint32_t n;
    } groups[] = {
        {TR_GROUPS_Q4_0, 1, 640, 262144},  {TR_GROUPS_Q4_1, 1, 576, 262144}, {TR_GROUPS_Q5_0, 1, 640, 262144},
        {TR_GROUPS_Q8_0, 1, 640, 131072},  {TR_GROUPS_NF4, 1, 640, 262144},  {TR_GROUPS_Q4_K, 1, 1024, 131072},
        {TR_GROUPS_Q6_K, 1, 2048, 65536},  {TR_GROUPS_Q4_0, 4, 640, 262144}, {TR_GROUPS_Q4_0, 8, 640, 262144},
        {TR_GROUPS_Q4_0, 16, 640, 262144}, {TR_GROUPS_Q8_0, 4, 640, 131072}, {TR_GROUPS_Q8_0, 16, 640, 131072},
        {TR_GROUPS_Q4_0, 1, 640, 1024},    {TR_GROUPS_Q4_0, 4, 640, 1024},   {TR_GROUPS_Q4_0, 6, 640, 1024},
        {TR_GROUPS_Q8_0, 1, 640, 1024},    {TR_GROUPS_Q5_0, 1, 640, 1024},   {TR_GROUPS_Q5_0, 512, 640, 4096},
        {TR_GROUPS_Q4_0, 512, 640, 4096},  {TR_GROUPS_Q8_0, 512, 640, 1536}, {TR_GROUPS_Q4_1, 512, 1536, 576},
        {TR_GROUPS_Q4_K, 512, 1024, 640},  {TR_GROUPS_Q6_K, 512, 2048, 640}};
    enum { GROUPS = sizeof groups / sizeof *groups };
    if (i < GROUPS)
        setup_groups(j, (tr_groups_format)groups[i].format, groups[i].rows, groups[i].k, groups[i].n);
    else if (i == GROUPS)
        setup_rows(j, "quant_groups", run_quant_groups, 512, 640, 1, 5);
    else if (i == GROUPS + 1)
        setup_rows(j, "quant_groups (128)", run_quant_groups, 512, 2048, 128, 5);
    else if (i == GROUPS + 2)
        setup_i8a16(j, 1, 640, 131072);
    else if (i == GROUPS + 3)
        setup_i8a16(j, 512, 640, 2048);
    else
        return false;
    return true;
}

/* Fills *j with benchmark number i; false when there is none. */
static bool setup(job *j, unsigned i) {
    switch (i) {
    case 0: setup_bf16(j, 512, 640, 4096); return true;
    case 1: setup_bf16(j, 512, 2048, 640); return true;
    case 2: setup_bf16(j, 512, 640, 1536); return true;
    case 3: setup_bf16(j, 512, 1024, 640); return true;
    case 4: setup_bf16(j, 16, 640, 4096); return true;
    case 5: setup_bf16(j, 1, 640, 65536); return true;
    case 6: setup_bf16(j, 4, 640, 65536); return true;
    case 7: setup_i8(j, 512, 640, 2048); return true;
    case 8: setup_i8(j, 512, 2048, 640); return true;
    case 9: setup_i8(j, 512, 640, 1536); return true;
    case 10: setup_i8(j, 512, 1024, 640); return true;
    case 11: setup_i8(j, 1, 640, 131072); return true;
    case 12: setup_i8(j, 4, 640, 131072); return true;
    case 13: setup_i8(j, 8, 640, 131072); return true;
    case 14: setup_i8(j, 12, 640, 131072); return true;
    case 15: setup_i8(j, 16, 640, 131072); return true;
    case 16: setup_i8(j, 1, 2048, 40960); return true;
    case 17: setup_i8(j, 16, 2048, 40960); return true;
    case 18: setup_attn(j, TR_KV_BF16, 512, 0, 4, 256, 0); return true;
    case 19: setup_attn(j, TR_KV_BF16, 512, 0, 3, 64, 0); return true;
    case 20: setup_attn(j, TR_KV_INT8, 512, 0, 4, 256, 0); return true;
    case 21: setup_attn(j, TR_KV_BF16, 512, 2048, 4, 256, 512); return true;
    case 22: setup_attn(j, TR_KV_BF16, 1, 1000, 4, 256, 0); return true;
    case 23: setup_attn(j, TR_KV_BF16, 1, 1000, 3, 64, 0); return true;
    case 24: setup_attn(j, TR_KV_INT8, 1, 1000, 4, 256, 0); return true;
    case 25: setup_attn(j, TR_KV_INT8, 1, 1000, 3, 64, 0); return true;
    case 26: setup_rows(j, "rmsnorm", run_rmsnorm, 512, 640, 0, 8); return true;
    case 27: setup_rows(j, "quant_u8 (128)", run_quant, 512, 640, 128, 5); return true;
    case 28: setup_rows(j, "quant_u8 (128)", run_quant, 512, 2048, 128, 5); return true;
    case 29: setup_rows(j, "hadamard 64", run_hadamard, 512, 256, 64, 8); return true;
    case 30: setup_rows(j, "gelu_mul", run_gelu, 512, 2048, 0, 12); return true;
    case 31: setup_rows(j, "silu_mul", run_silu, 512, 1536, 0, 12); return true;
    case 32: setup_rows(j, "add", run_add, 512, 640, 0, 12); return true;
    case 33: setup_rows(j, "rope", run_rope, 2048, 256, 0, 8); return true;
    case 34: setup_rows(j, "argmax", run_argmax, 1, 262144, 0, 4); return true;
    case 35: setup_rows(j, "kv_store_bf16", run_store_bf16, 512, 256, 0, 12); return true;
    case 36: setup_rows(j, "kv_store_int8", run_store_int8, 512, 256, 0, 10); return true;
    case 37: setup_rows(j, "kv_convert", run_convert, 16384, 256, 0, 6); return true;
    default: break;
    }
    /* Matmuls of one layer, by rows. */
    static const uint16_t rows[] = {16, 32, 64, 128}, sides[][2] = {{640, 2048}, {2048, 640}, {640, 1536}, {1024, 640}};
    if (i - 38 >= 16) return setup_others(j, i - 54);
    setup_i8(j, rows[(i - 38) / 4], sides[(i - 38) % 4][0], sides[(i - 38) % 4][1]);
    return true;
}

/* ---- timing ---- */

typedef struct team {
    const tr_ops *ops;
    unsigned threads, number;
    pthread_barrier_t *barrier;
    const tr_ops *other;                                    /* variant to compare with, or NULL */
    double rate[ROUNDS], limit[ROUNDS], other_rate[ROUNDS]; /* runs per second; limit: MAC or bytes per second */
    job first;                                              /* description (its memory is gone) */
} team;

/* Processor time of this thread: what a neighbour takes of the core does not count. */
static uint64_t spent_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double measure(const job *j, bool limit_only) {
    double done = 0;
    uint64_t start = spent_ns(), now;
    do {
        if (limit_only) {
            double work = run_limit(j);
            if (work == 0) return 0;
            done += work;
        } else {
            j->run(j);
            done += 1;
        }
        now = spent_ns();
    } while (now - start < ROUND_NS);
    return done * 1e9 / (double)(now - start);
}

static void *member(void *arg) {
    team *t = arg;
    tr_ops_thread_init();
    job *j = calloc(1, sizeof *j);
    tr_check(j != NULL);
    j->ops = t->ops;
    setup(j, t->number);
    j->run(j);
    for (int r = 0; r < ROUNDS; r++) {
        pthread_barrier_wait(t->barrier);
        t->limit[r] = measure(j, true);
        pthread_barrier_wait(t->barrier);
        t->rate[r] = measure(j, false);
        if (!t->other) continue;
        j->ops = t->other;
        pthread_barrier_wait(t->barrier);
        t->other_rate[r] = measure(j, false);
        j->ops = t->ops;
    }
    for (size_t i = 0; i < j->n_owned; i++) free(j->owned[i]);
    t->first = *j;
    free(j);
    return NULL;
}

static int by_value(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}
static double median(double *x) {
    qsort(x, ROUNDS, sizeof *x, by_value);
    return x[ROUNDS / 2];
}

static void bench_one(const tr_ops *ops, const tr_ops *other, unsigned threads, unsigned number) {
    static team teams[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, threads);
    for (unsigned t = 0; t < threads; t++) {
        teams[t] = (team){.ops = ops, .other = other, .threads = threads, .number = number, .barrier = &barrier};
        tr_check(pthread_create(&ids[t], NULL, member, &teams[t]) == 0);
    }
    for (unsigned t = 0; t < threads; t++) pthread_join(ids[t], NULL);
    pthread_barrier_destroy(&barrier);
    double rate[ROUNDS] = {0}, share[ROUNDS], ratio[ROUNDS];
    const job *j = &teams[0].first;
    for (int r = 0; r < ROUNDS; r++) {
        double peak = 0, slower = 0;
        for (unsigned t = 0; t < threads; t++)
            rate[r] += teams[t].rate[r], peak += teams[t].limit[r], slower += teams[t].other_rate[r];
        ratio[r] = other ? rate[r] / slower : 0;
        share[r] = peak > 0 ? rate[r] * (j->limit == LIMIT_SUM ? j->bytes : j->macs) / peak : 0;
    }
    static const char *const names[LIMITS] = {"of FMA peak", "of int8 dot peak", "of summing"};
    double runs = median(rate), best = median(share);
    printf("%-44s %10.2f us %8.1f GMAC/s %7.1f GB/s   %.2f %-15s", j->name, 1e6 * threads / runs, runs * j->macs * 1e-9,
           runs * j->bytes * 1e-9, best, names[j->limit]);
    if (other) printf("   %.2f x %s", median(ratio), other->name);
    putchar('\n');
    fflush(stdout);
}

int checkk_bench(const tr_ops *ops, const tr_ops *other, unsigned threads, const char *only) {
    if (threads == 0 || threads > THREADS_MAX) threads = 1;
    printf("%s, %u thread(s)\n", ops->name, threads);
    for (unsigned i = 0;; i++) {
        job probe = {.ops = ops};
        if (i >= 81) break;
        if (only) { /* names are known only after the set-up, which is cheap beside the run */
            bool there = setup(&probe, i);
            for (size_t k = 0; k < probe.n_owned; k++) free(probe.owned[k]);
            if (!there || !strstr(probe.name, only)) continue;
        }
        bench_one(ops, other, threads, i);
    }
    return 0;
}
