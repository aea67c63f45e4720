/* checkk [--seed N] [--effort N] [--variant NAME] [--small] [--expect NAME] | --bench [OP] [--threads N] [--variant
 * NAME] [--against NAME]. Without --variant: every variant, or those up to the one that TROUPE_CPU names. --expect
 * fails unless dispatch chose NAME. */
#include "tests/kernels/checkk.h"

#include "base/clock.h"
#include "kernels/kernel_bench.h"

#ifdef TROUPE_CUDA
#include "kernels/cuda/cuda_table.h"
#endif

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CANARY_BYTES = 256, PAGE = 4096, CANARY = 0xc7, UNSET = 0xff, FAILURES_SHOWN = 20 };

void checkk_begin(checkk *c, const char *op, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    c->op = op;
    vsnprintf(c->param, sizeof c->param, fmt, args);
    va_end(args);
    c->cases++;
}

void checkk_fail(checkk *c, const char *fmt, ...) {
    if (c->failures++ >= FAILURES_SHOWN) return;
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "FAIL %s/%s (%s) seed %llu: ", c->ops->name, c->op, c->param, (unsigned long long)c->seed);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
}

void *checkk_buffer(checkk *c, size_t bytes) {
    size_t rounded = (bytes + 63) & ~(size_t)63;
    size_t map_bytes = ((CANARY_BYTES + rounded + PAGE - 1) & ~(size_t)(PAGE - 1)) + PAGE;
    uint8_t *map = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    tr_check(map != MAP_FAILED && c->n_buffers < CHECKK_BUFFERS_MAX);
    tr_check(mprotect(map + map_bytes - PAGE, PAGE, PROT_NONE) == 0);
    uint8_t *data = map + map_bytes - PAGE - rounded;
    memset(map, CANARY, (size_t)(data - map));
    memset(data, UNSET, rounded);
    c->buffers[c->n_buffers++] = (checkk_buffer_info){map, map_bytes, data};
    return data;
}

void checkk_end_case(checkk *c) {
    for (size_t i = 0; i < c->n_buffers; i++) {
        checkk_buffer_info *b = &c->buffers[i];
        for (uint8_t *p = b->map; p < b->data; p++)
            if (*p != CANARY) {
                checkk_fail(c, "wrote %zu bytes before buffer %zu", (size_t)(b->data - p), i);
                break;
            }
        munmap(b->map, b->map_bytes);
    }
    c->n_buffers = 0;
}

uint32_t checkk_below(checkk *c, uint32_t n) { return (uint32_t)tr_rng_below(&c->rng, n); }
uint32_t checkk_between(checkk *c, uint32_t lo, uint32_t hi) { return lo + checkk_below(c, hi - lo + 1); }

float checkk_float(checkk *c, checkk_kind kind) {
    static const float odd[] = {0.0f,         -0.0f,     0x1p-149f,  -0x1p-149f, 0x1.fffffcp-127f,
                                -0x1.8p-128f, 0x1p-126f, -0x1p-126f, 0x1p-100f,  1.0f,
                                -1.0f,        127.5f};
    static const float bad[] = {0x1.fffffep127f, -0x1.fffffep127f, INFINITY, -INFINITY, NAN,
                                1e30f,           -1e30f,           88.0f,    -88.0f};
    float plain = (float)(2.0 * tr_rng_unit(&c->rng) - 1.0);
    switch (kind) {
    case CHECKK_WIDE: return ldexpf(plain, (int)checkk_below(c, 61) - 30);
    case CHECKK_TINY: return odd[checkk_below(c, 8)];
    case CHECKK_HOSTILE: {
        uint32_t which = checkk_below(c, 64);
        if (which == 0) return bad[checkk_below(c, sizeof bad / sizeof bad[0])];
        return which < 16 ? odd[checkk_below(c, sizeof odd / sizeof odd[0])] : 10.0f * plain;
    }
    case CHECKK_EDGE: return ldexpf(plain, -60 - (int)checkk_below(c, 20));
    case CHECKK_ZERO: return 0.0f;
    default: return plain;
    }
}

void checkk_fill(checkk *c, float *x, size_t n, checkk_kind kind) {
    for (size_t i = 0; i < n; i++) x[i] = checkk_float(c, kind);
}
void checkk_fill_bf16(checkk *c, uint16_t *x, size_t n, checkk_kind kind) {
    for (size_t i = 0; i < n; i++) {
        float f = checkk_float(c, kind);
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        x[i] = (uint16_t)(u >> 16);
    }
}
float *checkk_floats(checkk *c, size_t n, checkk_kind kind) {
    float *x = checkk_buffer(c, n * sizeof *x);
    checkk_fill(c, x, n, kind);
    return x;
}

void checkk_same_floats(checkk *c, const char *what, const float *got, const float *want, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t g, w;
        memcpy(&g, got + i, sizeof g);
        memcpy(&w, want + i, sizeof w);
        bool both_nan = (g & 0x7fffffffu) > 0x7f800000u && (w & 0x7fffffffu) > 0x7f800000u;
        if (g == w || both_nan) continue;
        checkk_fail(c, "%s[%zu] is %.9g (%08x), expected %.9g (%08x)", what, i, (double)got[i], g, (double)want[i], w);
        return;
    }
}
void checkk_same_bytes(checkk *c, const char *what, const void *got, const void *want, size_t n) {
    const uint8_t *g = got, *w = want;
    for (size_t i = 0; i < n; i++)
        if (g[i] != w[i]) {
            checkk_fail(c, "%s byte %zu is %u, expected %u", what, i, g[i], w[i]);
            return;
        }
}
void checkk_near(checkk *c, const char *what, double got, double want, double tolerance) {
    if (!(fabs(got - want) <= tolerance))
        checkk_fail(c, "%s is %.9g, expected %.9g +- %.3g", what, got, want, tolerance);
}

static int check_variant(const tr_ops *ref, const tr_ops *ops, uint64_t seed, unsigned effort) {
    checkk *c = calloc(1, sizeof *c);
    tr_check(c != NULL);
    *c = (checkk){.rng = {seed}, .seed = seed, .ref = ref, .ops = ops, .effort = effort, .op = ""};
    uint64_t start = tr_clock_now_ns();
    checkk_elementwise(c);
    checkk_kv(c);
    checkk_gemm(c);
    checkk_planes(c);
    checkk_groups(c);
    checkk_attn(c);
    printf("%-11s %6u cases, %u failures, %.1f s\n", ops->name, c->cases, c->failures,
           (double)(tr_clock_now_ns() - start) * 1e-9);
    int failed = c->failures != 0;
    free(c);
    return failed;
}

/* Every set of this CPU, then avx2 with the kernel of checkk_evex.c. */
static const tr_ops *const *variants(void) {
    enum { VARIANTS_MAX = 16 };
    static const tr_ops *all[VARIANTS_MAX + 1];
    static tr_ops evex;
    const tr_ops *const *t = tr_ops_available();
    size_t n = 0;
    if (all[0]) return all;
    for (; t[n]; n++) {
        tr_check(n + 1 < VARIANTS_MAX);
        all[n] = t[n];
    }
    if (!tr_ops_find("avx512vnni")) return all;
    evex = *tr_ops_find("avx2");
    evex.name = "avx2evex";
    evex.gemm_i8 = checkk_evex_gemm_i8;
    evex.int8_port = TR_PORT_DOT512; /* the same unit */
    all[n] = &evex;
    return all;
}
static const tr_ops *find_variant(const char *name) {
#ifdef TROUPE_CUDA
    if (strcmp(name, "cuda") == 0) return tr_cuda_table();
#endif
    for (const tr_ops *const *t = variants(); *t; t++)
        if (strcmp((*t)->name, name) == 0) return *t;
    return NULL;
}

typedef struct options {
    uint64_t seed;
    unsigned effort, threads;
    const char *variant, *against, *expect, *bench_op;
    bool bench;
} options;

static bool parse(int argc, char **argv, options *o) {
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--small") == 0) {
            o->effort = 3;
        } else if (strcmp(argv[i], "--bench") == 0) {
            o->bench = true;
            if (value && value[0] != '-') o->bench_op = argv[++i];
        } else if (value && strcmp(argv[i], "--seed") == 0) {
            o->seed = strtoull(argv[++i], NULL, 0);
        } else if (value && strcmp(argv[i], "--effort") == 0) {
            o->effort = (unsigned)strtoul(argv[++i], NULL, 0);
        } else if (value && strcmp(argv[i], "--threads") == 0) {
            o->threads = (unsigned)strtoul(argv[++i], NULL, 0);
        } else if (value && strcmp(argv[i], "--variant") == 0) {
            o->variant = argv[++i];
        } else if (value && strcmp(argv[i], "--against") == 0) {
            o->against = argv[++i];
        } else if (value && strcmp(argv[i], "--expect") == 0) {
            o->expect = argv[++i];
        } else {
            fprintf(stderr, "checkk: unknown argument %s\n", argv[i]);
            return false;
        }
    }
    return true;
}

static int bench(const tr_ops *ops, const tr_ops *other, unsigned threads, const char *filter) {
    tr_kernel_bench_want want = {.ops = ops, .other = other, .threads = threads, .rounds = 5, .filter = filter};
    tr_kernel_bench_result r;
    if (threads == 0 || threads > TR_KERNEL_BENCH_THREADS_MAX) want.threads = 1;
    printf("%s, %u thread(s)\n", ops->name, want.threads);
    for (unsigned i = 0; tr_kernel_bench_run(&want, i, &r); i++) {
        if (!r.name[0]) continue;
        printf("%-44s %10.2f us %8.1f GMAC/s %7.1f GB/s   %.2f of %-15s", r.name, r.us, r.macs * 1e-9, r.bytes * 1e-9,
               r.share, r.limit);
        if (other) printf("   %.2f x %s", r.ratio, other->name);
        putchar('\n');
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv) {
    options o = {.seed = tr_clock_now_ns(), .effort = 60, .threads = 1};
    if (!parse(argc, argv, &o)) return 64;
    tr_ops_thread_init();
    tr_error err = {0};
    const tr_ops *chosen;
    if (tr_ops_select(&chosen, &err) != TR_OK) {
        fprintf(stderr, "checkk: %s\n", err.text);
        return tr_status_exit_code(err.status);
    }
    printf("checkk: seed %llu, dispatch chose %s\n", (unsigned long long)o.seed, chosen->name);
    if (o.expect && strcmp(o.expect, chosen->name) != 0) {
        fprintf(stderr, "checkk: dispatch chose %s, expected %s\n", chosen->name, o.expect);
        return 1;
    }
    if (o.variant && !(chosen = find_variant(o.variant))) {
        fprintf(stderr, "checkk: this machine cannot run %s\n", o.variant);
        return 1;
    }
    const tr_ops *other = o.against ? find_variant(o.against) : NULL;
    if (o.against && !other) {
        fprintf(stderr, "checkk: this machine cannot run %s\n", o.against);
        return 1;
    }
    if (o.bench) return bench(chosen, other, o.threads, o.bench_op);
    const tr_ops *ref = tr_ops_find("ref");
    const char *mask = getenv("TROUPE_CPU");
    int failed = 0;
    if (o.variant) return check_variant(ref, chosen, o.seed, o.effort);
    for (const tr_ops *const *t = variants(); *t; t++) {
        failed |= check_variant(ref, *t, o.seed, o.effort);
        if (*t == chosen && mask && *mask) break;
    }
    return failed;
}
