#include "kernels/port.h"

#include "base/clock.h"

#include <stddef.h>
#include <stdint.h>

#define TIMES12(X)  X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define TIMES24(X)  TIMES12(X) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23)
#define STR(n)      #n
#define CLOBBER(n)  , "xmm" STR(n)
#define FMA512(n)   "vfmadd231ps %%zmm30, %%zmm30, %%zmm" STR(n) "\n\t"
#define BF16_512(n) "vdpbf16ps %%zmm30, %%zmm30, %%zmm" STR(n) "\n\t"
#define MADD512(n)  "vpmaddwd %%zmm30, %%zmm30, %%zmm" STR(n) "\n\t"
#define DOT512(n)   "vpdpbusd %%zmm30, %%zmm30, %%zmm" STR(n) "\n\t"
#define FMA256(n)   "vfmadd231ps %%ymm15, %%ymm15, %%ymm" STR(n) "\n\t"
#define MADD256(n)  "vpmaddwd %%ymm15, %%ymm15, %%ymm" STR(n) "\n\t"
#define DOT256(n)   "%{vex%} vpdpbusd %%ymm15, %%ymm15, %%ymm" STR(n) "\n\t"

/* All operands zero: sums stay finite, and no denormal slows a step. */
enum { LOOPS512 = 2000, LOOPS256 = 4000, LOOPS_TILE = 200 };
#define PORT512(TEXT)                                                                                                  \
    __attribute__((target("avx512f"))) static double run_##TEXT(void) {                                                \
        __asm__ volatile("vpxord %%zmm30, %%zmm30, %%zmm30" ::: "xmm30");                                              \
        for (int i = 0; i < LOOPS512; i++) __asm__ volatile(TIMES24(TEXT)::: "xmm30" TIMES24(CLOBBER));                \
        return 24.0 * LOOPS512;                                                                                        \
    }
#define PORT256(TEXT)                                                                                                  \
    __attribute__((target("avx2"))) static double run_##TEXT(void) {                                                   \
        __asm__ volatile("vpxor %%xmm15, %%xmm15, %%xmm15" ::: "xmm15");                                               \
        for (int i = 0; i < LOOPS256; i++) __asm__ volatile(TIMES12(TEXT)::: "xmm15" TIMES12(CLOBBER));                \
        return 12.0 * LOOPS256;                                                                                        \
    }
PORT256(FMA256)
PORT512(FMA512)
PORT512(BF16_512)
PORT256(MADD256)
PORT512(MADD512)
PORT256(DOT256)
PORT512(DOT512)

/* Eight tiles of zeros, of which six take turns as sums. */
static double run_TILE_U8(void) {
    static const uint8_t config[64] __attribute__((aligned(64))) = {
        [0] = 1,   [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64, [30] = 64,
        [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16};
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
    for (int i = 0; i < LOOPS_TILE; i++)
        __asm__ volatile("tdpbusd %tmm7, %tmm6, %tmm0\n\t"
                         "tdpbusd %tmm7, %tmm6, %tmm1\n\t"
                         "tdpbusd %tmm7, %tmm6, %tmm2\n\t"
                         "tdpbusd %tmm7, %tmm6, %tmm3\n\t"
                         "tdpbusd %tmm7, %tmm6, %tmm4\n\t"
                         "tdpbusd %tmm7, %tmm6, %tmm5");
    __asm__ volatile("tilerelease");
    return 6.0 * LOOPS_TILE;
}

static const struct port {
    const char *name;
    double macs;
    double (*run)(void); /* returns how many instructions */
} ports[TR_PORT_COUNT] = {[TR_PORT_NONE] = {"scalar", 0, NULL},
#define X(port, name, macs) [TR_PORT_##port] = {name, macs, run_##port},
                          TR_PORT_MAP(X)
#undef X
};

const char *tr_port_name(tr_port p) { return ports[p].name; }
double tr_port_run(tr_port p) { return ports[p].run ? ports[p].run() * ports[p].macs : 0; }

double tr_port_rate(tr_port p) {
    const uint64_t budget_ns = 500000;
    double best = 0;
    uint64_t start = tr_clock_now_ns(), before = start, now;
    if (!ports[p].run) return 0;
    do {
        double macs = tr_port_run(p);
        now = tr_clock_now_ns();
        double rate = now > before ? macs * 1e9 / (double)(now - before) : 0;
        if (rate > best) best = rate;
        before = now;
    } while (now - start < budget_ns);
    return best;
}
