/* affinity/bind.h - put a thread on its cores and memory on its NUMA node, and prove it.
 * A refusal (container without the right, core taken away) is never fatal: TR_UNAVAILABLE comes back, the caller warns,
 * notes it (placed = 2) and goes on. Memory is preferred on its node, not bound to it: a full node then costs speed,
 * not the process. Threads: any. */
#ifndef TR_BIND_H
#define TR_BIND_H
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Pin the calling thread to cpus[n] (logical CPU numbers of the system) and check that it took. n == 0: TR_OK. */
tr_status tr_bind_thread(const uint32_t *cpus, uint32_t n);
/* The same for any thread of this process, by its kernel id. */
tr_status tr_bind_task(int32_t tid, const uint32_t *cpus, uint32_t n);
/* True when the calling thread may run on exactly these CPUs. */
bool tr_bind_thread_verify(const uint32_t *cpus, uint32_t n);

/* Wish the whole pages of [addr, addr + bytes) onto a NUMA node (system number); pages that exist are moved. To be
 * called before first touch. node < 0, bytes 0, or a machine of one node: nothing to do, TR_OK. */
tr_status tr_bind_memory(void *addr, uint64_t bytes, int32_t node);

typedef struct tr_bind_pages {
    uint64_t checked; /* pages looked at (at most 1024, evenly spread) that exist */
    uint64_t remote;  /* of these: on another node */
} tr_bind_pages;
/* Where pages really lie. TR_UNAVAILABLE: the system does not tell. */
tr_status tr_bind_memory_verify(const void *addr, uint64_t bytes, int32_t node, tr_bind_pages *pages_out);
#endif
