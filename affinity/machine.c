#include "affinity/machine.h"

#include "affinity/cgroup.h"

#include <hwloc.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Node with the fewest cores among those that hold the object's memory: the local one. */
static hwloc_obj_t local_node(hwloc_topology_t topo, hwloc_obj_t core) {
    hwloc_obj_t node = NULL, best = NULL;
    while ((node = hwloc_get_next_obj_by_type(topo, HWLOC_OBJ_NUMANODE, node)) != NULL) {
        if (!node->cpuset || !hwloc_bitmap_isincluded(core->cpuset, node->cpuset)) continue;
        if (!best || hwloc_bitmap_weight(node->cpuset) < hwloc_bitmap_weight(best->cpuset)) best = node;
    }
    return best;
}

static uint32_t node_index(tr_machine *m, hwloc_obj_t node) {
    uint32_t os = node ? node->os_index : 0;
    for (uint32_t i = 0; i < m->n_nodes; i++)
        if (m->node[i].os_index == os) return i;
    if (m->n_nodes == TR_MACHINE_NODES_MAX) return TR_MACHINE_NODES_MAX - 1;
    m->node[m->n_nodes] = (tr_machine_node){.os_index = os};
    if (node && node->attr) m->node[m->n_nodes].memory_bytes = node->attr->numanode.local_memory;
    return m->n_nodes++;
}

static void add_core(hwloc_topology_t topo, tr_machine *m, hwloc_obj_t core, hwloc_const_bitmap_t allowed) {
    hwloc_bitmap_t mine = hwloc_bitmap_alloc();
    if (!mine) return;
    hwloc_bitmap_and(mine, core->cpuset, allowed);
    int cpu = hwloc_bitmap_first(mine), threads = hwloc_bitmap_weight(mine);
    hwloc_bitmap_free(mine);
    if (cpu < 0) return;
    m->n_cpus += (uint32_t)threads;
    if (m->n_cores == TR_MACHINE_CORES_MAX) return;
    uint32_t node = node_index(m, local_node(topo, core));
    m->core[m->n_cores++] = (tr_machine_core){.cpu = (uint32_t)cpu, .node = node};
    m->node[node].n_cores++;
}

static int by_node(const void *a, const void *b) {
    const tr_machine_core *x = a, *y = b;
    if (x->node != y->node) return x->node < y->node ? -1 : 1;
    return x->cpu < y->cpu ? -1 : x->cpu > y->cpu;
}

static tr_status read_topology(hwloc_topology_t topo, hwloc_const_bitmap_t allowed, tr_machine *m, tr_error *err) {
    /* Some containers show no cores, only hardware threads. */
    hwloc_obj_type_t type = hwloc_get_nbobjs_by_type(topo, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    hwloc_obj_t core = NULL;
    while ((core = hwloc_get_next_obj_by_type(topo, type, core)) != NULL) add_core(topo, m, core, allowed);
    if (m->n_cores == 0)
        return tr_error_set(err, TR_UNAVAILABLE, "no usable core found: check the cpuset of this process");
    qsort(m->core, m->n_cores, sizeof m->core[0], by_node);
    return TR_OK;
}

static void drop_disallowed(hwloc_topology_t topo, hwloc_bitmap_t allowed) {
    hwloc_bitmap_t mask = hwloc_bitmap_alloc();
    if (!mask) return;
    if (hwloc_get_cpubind(topo, mask, HWLOC_CPUBIND_THREAD) == 0 && !hwloc_bitmap_iszero(mask))
        hwloc_bitmap_and(allowed, allowed, mask);
    hwloc_bitmap_free(mask);
}

/* At most one of the two is given. xml: path of a file. */
static tr_status load(hwloc_topology_t topo, const char *synthetic, const char *xml, tr_error *err) {
    if (synthetic && hwloc_topology_set_synthetic(topo, synthetic) != 0)
        return tr_error_set(err, TR_CONFIG,
                            "'%.100s' is no machine description that hwloc knows: write it like \"node:2 core:4 pu:1\"",
                            synthetic);
    if (xml && hwloc_topology_set_xml(topo, xml) != 0)
        return tr_error_set(err, TR_CONFIG, "%.200s is no machine description that hwloc can read", xml);
    if (hwloc_topology_load(topo) == 0) return TR_OK;
    return xml ? tr_error_set(err, TR_CONFIG, "%.200s is no machine description that hwloc can read", xml)
               : tr_error_set(err, TR_UNAVAILABLE, "hwloc cannot read this machine");
}

static tr_status discover(const char *synthetic, const char *xml, tr_machine *m, tr_error *err) {
    hwloc_topology_t topo;
    memset(m, 0, sizeof *m);
    if (hwloc_topology_init(&topo) != 0) return tr_error_set(err, TR_UNAVAILABLE, "hwloc cannot be started");
    tr_status loaded = load(topo, synthetic, xml, err);
    if (loaded != TR_OK) {
        hwloc_topology_destroy(topo);
        return loaded;
    }
    m->is_this_system = hwloc_topology_is_thissystem(topo) != 0;
    hwloc_bitmap_t allowed = hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(topo));
    tr_status status = TR_UNAVAILABLE;
    if (allowed) {
        if (m->is_this_system) drop_disallowed(topo, allowed);
        status = read_topology(topo, allowed, m, err);
    } else {
        tr_error_set(err, TR_UNAVAILABLE, "hwloc has no memory");
    }
    hwloc_bitmap_free(allowed);
    hwloc_topology_destroy(topo);
    return status;
}

tr_status tr_machine_discover(tr_machine *m, tr_error *err) {
    /* hwloc itself passes over a description that it does not understand and takes this machine. */
    const char *synthetic = getenv("HWLOC_SYNTHETIC"), *xml = getenv("HWLOC_XMLFILE");
    if (xml && !*xml) xml = NULL;
    if (xml || (synthetic && !*synthetic)) synthetic = NULL;
    TR_TRY(discover(synthetic, xml, m, err));
    tr_cgroup group;
    tr_cgroup_read("/proc", "/sys/fs/cgroup", &group);
    if (m->is_this_system) m->quota = group.cpu_quota;
    uint64_t pages = (uint64_t)sysconf(_SC_PHYS_PAGES), page = (uint64_t)sysconf(_SC_PAGESIZE);
    m->memory_bytes = pages * page;
    if (group.memory_bytes && group.memory_bytes < m->memory_bytes) m->memory_bytes = group.memory_bytes;
    return TR_OK;
}

tr_status tr_machine_synthetic(const char *description, tr_machine *m, tr_error *err) {
    TR_TRY(discover(description, NULL, m, err));
    for (uint32_t i = 0; i < m->n_nodes; i++) m->memory_bytes += m->node[i].memory_bytes;
    return TR_OK;
}

uint32_t tr_machine_usable_cores(const tr_machine *m) {
    return m->quota && m->quota < m->n_cores ? m->quota : m->n_cores;
}
