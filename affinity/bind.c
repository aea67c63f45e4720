#include "affinity/bind.h"

#include <errno.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { NODES_MAX = 1024, CPUS_MAX = 8192, SAMPLES_MAX = 1024 };

typedef struct cpu_mask {
    unsigned long bits[CPUS_MAX / (8 * sizeof(unsigned long))];
} cpu_mask;

static bool fill(cpu_mask *mask, const uint32_t *cpus, uint32_t n) {
    memset(mask, 0, sizeof *mask);
    for (uint32_t i = 0; i < n; i++) {
        if (cpus[i] >= CPUS_MAX) return false;
        CPU_SET_S(cpus[i], sizeof *mask, (cpu_set_t *)(void *)mask);
    }
    return true;
}

static bool stands_on(int32_t tid, const uint32_t *cpus, uint32_t n) {
    cpu_mask want, have;
    memset(&have, 0, sizeof have);
    if (!fill(&want, cpus, n)) return false;
    if (sched_getaffinity(tid, sizeof have, (cpu_set_t *)(void *)&have) != 0) return false;
    return memcmp(&want, &have, sizeof want) == 0;
}

bool tr_bind_thread_verify(const uint32_t *cpus, uint32_t n) { return stands_on(0, cpus, n); }

tr_status tr_bind_task(int32_t tid, const uint32_t *cpus, uint32_t n) {
    cpu_mask want;
    if (n == 0) return TR_OK;
    if (!fill(&want, cpus, n)) return TR_UNAVAILABLE;
    if (sched_setaffinity(tid, sizeof want, (const cpu_set_t *)(const void *)&want) != 0) return TR_UNAVAILABLE;
    /* The kernel silently intersects with what the cgroup allows. */
    return stands_on(tid, cpus, n) ? TR_OK : TR_UNAVAILABLE;
}

tr_status tr_bind_thread(const uint32_t *cpus, uint32_t n) { return tr_bind_task(0, cpus, n); }

/* One node: every page is where it should be, and containers often refuse the call itself. */
static bool single_node(void) {
    static int known; /* 0 unknown, 1 one node, 2 several; a race writes the same value */
    if (known == 0) {
        char text[64] = "";
        FILE *f = fopen("/sys/devices/system/node/online", "re");
        if (f) {
            if (!fgets(text, sizeof text, f)) text[0] = 0;
            fclose(f);
        }
        known = strpbrk(text, "-,") ? 2 : 1;
    }
    return known == 1;
}

/* Largest run of whole pages inside the range. */
static bool whole_pages(uintptr_t addr, uint64_t bytes, uintptr_t *begin_out, uint64_t *bytes_out) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (addr + page - 1) & ~(page - 1), end = (addr + bytes) & ~(page - 1);
    if (end <= begin) return false;
    *begin_out = begin;
    *bytes_out = end - begin;
    return true;
}

tr_status tr_bind_memory(void *addr, uint64_t bytes, int32_t node) {
    uintptr_t begin;
    uint64_t len;
    if (node < 0 || bytes == 0 || single_node()) return TR_OK;
    if (node >= NODES_MAX) return TR_UNAVAILABLE;
    if (!whole_pages((uintptr_t)addr, bytes, &begin, &len)) return TR_OK;
    unsigned long mask[NODES_MAX / (8 * sizeof(unsigned long))] = {0};
    mask[(size_t)node / (8 * sizeof(unsigned long))] |= 1ul << ((size_t)node % (8 * sizeof(unsigned long)));
    return mbind((void *)begin, len, MPOL_PREFERRED, mask, NODES_MAX, MPOL_MF_MOVE) == 0 ? TR_OK : TR_UNAVAILABLE;
}

tr_status tr_bind_memory_verify(const void *addr, uint64_t bytes, int32_t node, tr_bind_pages *pages_out) {
    *pages_out = (tr_bind_pages){0};
    uintptr_t begin, page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uint64_t len;
    if (node < 0 || bytes == 0 || single_node()) return TR_OK;
    if (!whole_pages((uintptr_t)addr, bytes, &begin, &len)) return TR_OK;
    uint64_t n_pages = len / page, n = n_pages < SAMPLES_MAX ? n_pages : SAMPLES_MAX;
    void *at[SAMPLES_MAX];
    int where[SAMPLES_MAX];
    for (uint64_t i = 0; i < n; i++) at[i] = (void *)(begin + page * (uintptr_t)(i * n_pages / n));
    if (move_pages(0, n, at, NULL, where, 0) != 0) return TR_UNAVAILABLE;
    for (uint64_t i = 0; i < n; i++) {
        if (where[i] < 0) continue; /* not touched yet */
        pages_out->checked++;
        pages_out->remote += where[i] != node;
    }
    return TR_OK;
}
