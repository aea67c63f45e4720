#include "affinity/placement.h"

#include <string.h>

enum { OWN_CORES_MIN = 4 }; /* cores a stage, below which the stages of one NUMA node share all of them */

/* Working view: the cores that may be used, and one entry a stage of both pipelines. */
typedef struct plan {
    const tr_machine *machine;
    uint32_t n_cores;                         /* the first ones of machine->core */
    uint32_t n_nodes;                         /* nodes that these touch, renumbered 0.. in order */
    uint32_t first[TR_MACHINE_NODES_MAX + 1]; /* first core of each node */
    uint32_t n_stages;
    uint32_t node[2 * TR_PLACEMENT_RANKS_MAX]; /* node of each stage */
    uint32_t load[TR_MACHINE_NODES_MAX];       /* stages of each node */
} plan;

static void find_nodes(plan *p) {
    p->n_nodes = 0;
    for (uint32_t i = 0; i < p->n_cores; i++)
        if (i == 0 || p->machine->core[i].node != p->machine->core[i - 1].node) p->first[p->n_nodes++] = i;
    p->first[p->n_nodes] = p->n_cores;
}

static uint32_t node_cores(const plan *p, uint32_t node) { return p->first[node + 1] - p->first[node]; }

/* Node of stage i of n when the stages are laid evenly over the row of cores. */
static uint32_t node_at(const plan *p, uint32_t i, uint32_t n) {
    uint64_t core = (uint64_t)p->n_cores * (2u * i + 1) / (2u * (uint64_t)n);
    uint32_t node = 0;
    while (p->first[node + 1] <= core) node++;
    return node;
}

static void count_load(plan *p) {
    memset(p->load, 0, sizeof p->load);
    for (uint32_t s = 0; s < p->n_stages; s++) p->load[p->node[s]]++;
}

/* No node may have more stages than cores. There is room for all: stages <= cores. */
static void relieve(plan *p) {
    for (uint32_t s = p->n_stages; s-- > 0;) {
        uint32_t from = p->node[s];
        if (p->load[from] <= node_cores(p, from)) continue;
        for (uint32_t to = 0; to < p->n_nodes; to++) {
            if (p->load[to] >= node_cores(p, to)) continue;
            p->node[s] = to;
            p->load[from]--;
            p->load[to]++;
            break;
        }
    }
}

static bool any_idle(const plan *p) {
    for (uint32_t n = 0; n < p->n_nodes; n++)
        if (p->load[n] == 0) return true;
    return false;
}

/* Pipelines side by side over the nodes; when that leaves a node without work, one after the other. */
static void assign_nodes(plan *p, const tr_placement_want *want) {
    uint32_t s = 0;
    for (uint32_t pipe = 0; pipe < want->n_pipelines; pipe++)
        for (uint32_t i = 0; i < want->n_stages[pipe]; i++) p->node[s++] = node_at(p, i, want->n_stages[pipe]);
    count_load(p);
    relieve(p);
    if (!any_idle(p)) return;
    for (s = 0; s < p->n_stages; s++) p->node[s] = node_at(p, s, p->n_stages);
    count_load(p);
    relieve(p);
}

/* Cores [begin, end) of the row become the rank's. */
static void give_rank(const plan *p, uint32_t begin, uint32_t end, tr_placement_rank *out) {
    if (end - begin > TR_PLACEMENT_CPUS_MAX) end = begin + TR_PLACEMENT_CPUS_MAX;
    out->n_cpus = end - begin;
    out->numa_node = (int32_t)p->machine->node[p->machine->core[begin].node].os_index;
    for (uint32_t i = begin; i < end; i++) {
        out->cpus[i - begin] = p->machine->core[i].cpu;
        if (p->machine->core[i].node != p->machine->core[begin].node) out->numa_node = -1;
    }
}

static uint32_t ranks(const tr_placement_want *want, uint32_t pipe) { return want->tp[pipe] ? want->tp[pipe] : 1; }

/* Cores [begin, end) of the row become those of stage s, its ranks divide them. */
static void give(const plan *p, const tr_placement_want *want, uint32_t s, uint32_t begin, uint32_t end,
                 tr_placement *out) {
    const uint32_t pipe = s >= want->n_stages[0], stage = s - (pipe ? want->n_stages[0] : 0);
    const uint32_t tp = ranks(want, pipe), n = end - begin;
    for (uint32_t r = 0; r < tp; r++) {
        const uint32_t from = begin + n * r / tp, to = begin + n * (r + 1) / tp;
        give_rank(p, from, to > from ? to : from + 1, &out->rank[pipe][stage * tp + r]);
    }
}

static void place_own(plan *p, const tr_placement_want *want, tr_placement *out) {
    for (uint32_t pipe = 0; pipe < want->n_pipelines; pipe++) out->max_in_flight[pipe] = want->n_stages[pipe];
    if (p->n_stages < p->n_nodes) { /* a stage over several nodes: whole nodes each */
        for (uint32_t s = 0; s < p->n_stages; s++)
            give(p, want, s, p->first[(uint64_t)p->n_nodes * s / p->n_stages],
                 p->first[(uint64_t)p->n_nodes * (s + 1) / p->n_stages], out);
        return;
    }
    assign_nodes(p, want);
    uint32_t done[TR_MACHINE_NODES_MAX] = {0};
    for (uint32_t s = 0; s < p->n_stages; s++) {
        uint32_t node = p->node[s], cores = node_cores(p, node), i = done[node]++;
        give(p, want, s, p->first[node] + cores * i / p->load[node], p->first[node] + cores * (i + 1) / p->load[node],
             out);
    }
}

static void place_shared(plan *p, const tr_placement_want *want, tr_placement *out) {
    out->exclusive = p->n_stages > 1;
    for (uint32_t pipe = 0; pipe < want->n_pipelines; pipe++) out->max_in_flight[pipe] = 1;
    for (uint32_t s = 0; s < p->n_stages; s++) give(p, want, s, 0, p->n_cores, out);
}

tr_status tr_placement_compute(const tr_machine *machine, const tr_placement_want *want, tr_placement *out,
                               tr_error *err) {
    plan p = {.machine = machine, .n_cores = tr_machine_usable_cores(machine)};
    uint32_t n_ranks = 0;
    memset(out, 0, sizeof *out);
    if (want->n_pipelines < 1 || want->n_pipelines > 2 || p.n_cores == 0)
        return tr_error_set(err, TR_INVALID, "placement of %u pipelines on %u cores", want->n_pipelines, p.n_cores);
    for (uint32_t pipe = 0; pipe < want->n_pipelines; pipe++) {
        const uint32_t stages = want->n_stages[pipe], tp = ranks(want, pipe);
        if (stages == 0 || stages > TR_PLACEMENT_RANKS_MAX || tp > TR_PLACEMENT_RANKS_MAX / stages)
            return tr_error_set(err, TR_CONFIG, "a pipeline of %u stages with tp %u: 1 to %d ranks are possible in all",
                                stages, tp, TR_PLACEMENT_RANKS_MAX);
        p.n_stages += stages;
        n_ranks += stages * tp;
    }
    if (want->max_cores && want->max_cores < p.n_cores) p.n_cores = want->max_cores;
    out->n_cores = p.n_cores;
    bool own = p.n_cores >= p.n_stages;
    if (want->cores == TR_PLACEMENT_OWN && p.n_cores < n_ranks)
        return tr_error_set(err, TR_CONFIG,
                            "%u %s cannot have cores of their own on %u cores: use fewer, or scheduler.cores: auto",
                            n_ranks, n_ranks > p.n_stages ? "ranks" : "stages", p.n_cores);
    find_nodes(&p);
    if (want->cores == TR_PLACEMENT_SHARED) own = false;
    /* On one node a lone stream would run on a fraction of the cores that could all serve it. */
    if (want->cores == TR_PLACEMENT_AUTO && p.n_stages > 1 && p.n_nodes == 1 && p.n_cores < OWN_CORES_MIN * p.n_stages)
        own = false;
    if (own)
        place_own(&p, want, out);
    else
        place_shared(&p, want, out);
    return TR_OK;
}
