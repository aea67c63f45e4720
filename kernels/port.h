/* kernels/port.h - the multiply-add instructions that bound the matmuls, and how fast a core runs each of them.
 * Why: kernel sets return equal bits by different instructions, and which of them is faster is not written in CPUID:
 *      vdpbf16ps does twice the multiply-adds of FMA on one CPU and half of them on another.
 * Method: a loop of independent accumulators in registers, so that only the execution ports count.
 * Threads: reentrant; measures the core that the caller runs on. The caller makes sure that the CPU has the instruction
 *   and, for TILE_U8, that the process may use tile registers. */
#ifndef TR_PORT_H
#define TR_PORT_H

/* X(instruction, name, multiply-adds of one) */
#define TR_PORT_MAP(X)                                                                                                 \
    X(FMA256, "vfmadd231ps ymm", 8)                                                                                    \
    X(FMA512, "vfmadd231ps zmm", 16)                                                                                   \
    X(BF16_512, "vdpbf16ps zmm", 32)                                                                                   \
    X(MADD256, "vpmaddwd ymm", 16)                                                                                     \
    X(MADD512, "vpmaddwd zmm", 32)                                                                                     \
    X(DOT256, "vpdpbusd ymm", 32)                                                                                      \
    X(DOT512, "vpdpbusd zmm", 64)                                                                                      \
    X(TILE_U8, "tdpbusd", 16 * 16 * 64)
typedef enum tr_port {
    TR_PORT_NONE, /* scalar code */
#define X(port, name, macs) TR_PORT_##port,
    TR_PORT_MAP(X)
#undef X
        TR_PORT_COUNT
} tr_port;

const char *tr_port_name(tr_port p);
/* Run it for 10 to 50 us; returns the multiply-adds done (0 for NONE). */
double tr_port_run(tr_port p);
/* Multiply-adds a second: the best of the runs of half a millisecond, which leaves out what neighbours take. */
double tr_port_rate(tr_port p);
#endif
