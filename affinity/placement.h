/* affinity/placement.h - which stage runs on which cores: a pure function of the machine and the wish.
 * Own cores (at least one core a stage; on a single node at least four, unless wished): every stage gets cores of its
 * own. Stages of a pipeline are spread over the NUMA nodes in layer order, in proportion to the cores there, so that
 * both phases use the memory bandwidth of all nodes and a layer tends to have its two KV pools on one node. A stage
 * stays on one node wherever stages are at least as many as nodes. All stages of a pipeline can run at once:
 * max_in_flight = its stages. Shared (fewer cores than that, or wished): every stage gets all cores, one stage computes
 * at a time (exclusive, max_in_flight 1): on a small machine that is the fastest, every step has the whole machine.
 * Tensor parallel ranks divide the cores of their stage in runs, so that a rank tends to stay on one node; with fewer
 * cores than ranks several ranks share one.
 * Errors: TR_CONFIG (more ranks than bounds; own cores wished where there are too few). */
#ifndef TR_PLACEMENT_H
#define TR_PLACEMENT_H
#include "affinity/machine.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { TR_PLACEMENT_RANKS_MAX = 64 /* of a pipeline */, TR_PLACEMENT_CPUS_MAX = 64 };

typedef enum tr_placement_cores { TR_PLACEMENT_AUTO, TR_PLACEMENT_OWN, TR_PLACEMENT_SHARED } tr_placement_cores;

typedef struct tr_placement_want {
    uint32_t n_pipelines; /* 1 or 2 */
    uint32_t n_stages[2];
    uint32_t tp[2];     /* ranks a stage; 0 counts as 1 */
    uint32_t max_cores; /* over all stages; 0: what the machine grants */
    tr_placement_cores cores;
} tr_placement_want;

/* One rank of a stage. */
typedef struct tr_placement_rank {
    uint32_t n_cpus;
    uint32_t cpus[TR_PLACEMENT_CPUS_MAX]; /* system numbers, ascending by node */
    int32_t numa_node;                    /* system number; -1: cores of several nodes */
} tr_placement_rank;

typedef struct tr_placement {
    bool exclusive;
    uint32_t n_cores; /* used, over all stages */
    uint32_t max_in_flight[2];
    tr_placement_rank rank[2][TR_PLACEMENT_RANKS_MAX]; /* rank r of stage s: [pipeline][s * tp + r] */
} tr_placement;

tr_status tr_placement_compute(const tr_machine *machine, const tr_placement_want *want, tr_placement *placement_out,
                               tr_error *err);
#endif
