/* base/clock.h - monotonic time. Drivers read it; pure cores receive it as now_ns. */
#ifndef TR_CLOCK_H
#define TR_CLOCK_H
#include <stdint.h>
/* CLOCK_MONOTONIC in nanoseconds; comparable between processes of one host. */
uint64_t tr_clock_now_ns(void);
#define TR_NS_PER_MS 1000000ull
#define TR_NS_PER_S  1000000000ull
#endif
