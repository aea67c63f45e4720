/* affinity/machine.h - what this process may use of the machine: cores, NUMA nodes, memory. Flat and bounded, so that
 * placement is a pure function of it. Found by hwloc; its variables HWLOC_SYNTHETIC, HWLOC_XMLFILE and HWLOC_THISSYSTEM
 * are honoured (the file first): a description of another machine can be planned for, but nothing is pinned by it
 * (is_this_system).
 * Errors: TR_UNAVAILABLE (hwloc fails), TR_CONFIG (a description that hwloc refuses). Threads: any. */
#ifndef TR_MACHINE_H
#define TR_MACHINE_H
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { TR_MACHINE_CORES_MAX = 1024, TR_MACHINE_NODES_MAX = 64 };

typedef struct tr_machine_core {
    uint32_t cpu;  /* system number of its first allowed hardware thread */
    uint32_t node; /* index into node[] */
} tr_machine_core;

typedef struct tr_machine_node {
    uint32_t os_index;     /* system number */
    uint32_t n_cores;      /* allowed ones */
    uint64_t memory_bytes; /* 0: not told */
} tr_machine_node;

typedef struct tr_machine {
    bool is_this_system;
    uint32_t n_cores;      /* allowed by affinity mask and cpuset, ordered by node, then by number */
    uint32_t n_nodes;      /* nodes with at least one of these cores */
    uint32_t n_cpus;       /* allowed hardware threads */
    uint32_t quota;        /* cores' worth of time that the cgroup grants, rounded up; 0: no limit */
    uint64_t memory_bytes; /* what this cgroup may use, at most the machine's */
    tr_machine_core core[TR_MACHINE_CORES_MAX];
    tr_machine_node node[TR_MACHINE_NODES_MAX];
} tr_machine;

/* The machine that hwloc finds (or that its variables describe). */
tr_status tr_machine_discover(tr_machine *machine_out, tr_error *err);
/* A described machine, "node:2 core:4 pu:1" (hwloc's synthetic form); is_this_system is false. */
tr_status tr_machine_synthetic(const char *description, tr_machine *machine_out, tr_error *err);
/* Cores that a plan may use: n_cores, bounded by quota. */
uint32_t tr_machine_usable_cores(const tr_machine *machine);
#endif
