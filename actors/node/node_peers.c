#include "actors/node/node_agent.h"

#include <stdio.h>
#include <unistd.h>

static bool is_of(const tr_company *c, uint32_t actor, uint32_t node) {
    return c->actor[actor].node == node && actor != c->node[node].supervisor;
}

/* As the supervisor does for its own children. */
static void publish(tr_node_agent *a) {
    atomic_fetch_add(&a->rt->control->changes, 1);
    for (uint32_t i = 0; i < a->company->n_actors; i++)
        if (tr_company_is_local(a->company, i)) tr_bell_ring(&a->rt->control->actor[i].bell);
}

void tr_node_peers_down(tr_node_agent *a, uint32_t node) {
    for (uint32_t i = 0; i < a->company->n_actors; i++) {
        if (a->company->actor[i].node != node) continue;
        atomic_store(&a->rt->control->actor[i].up, 0);
        atomic_store(&a->rt->control->actor[i].pid, 0);
    }
    publish(a);
}

/* Watchers compare incarnations: one that was seen up must not come again with the same number, even when they slept
 * through the time in between. */
void tr_node_peers_renew(tr_node_agent *a, uint32_t node) {
    for (uint32_t i = 0; i < a->company->n_actors; i++)
        if (a->company->actor[i].node == node) a->life[i] = UINT32_MAX;
}

tr_status tr_node_peers_state(tr_node_agent *a, uint32_t node, const tr_msg_node_state *m) {
    if (m->actor >= a->company->n_actors || a->company->actor[m->actor].node != node || m->pid > INT32_MAX)
        return TR_PROTO;
    tr_control_block *b = &a->rt->control->actor[m->actor];
    uint32_t seen = atomic_load(&b->incarnation);
    if (a->life[m->actor] == UINT32_MAX) a->life[m->actor] = seen >= m->incarnation ? seen - m->incarnation + 1 : 0;
    uint32_t incarnation = m->incarnation + a->life[m->actor];
    bool changed = atomic_load(&b->up) != m->up || seen != incarnation;
    atomic_store(&b->progress, m->progress);
    atomic_store(&b->kernel_ns, m->kernel_ns);
    atomic_store(&b->step_ns, m->step_ns);
    atomic_store(&b->placed, m->placed);
    atomic_store(&b->rss, m->rss);
    tr_ledger_set(&b->ledger, (const uint64_t[]){
#define X(name, text) m->text##_ns,
                                  TR_LEDGER_MAP(X)
#undef X
                              });
    atomic_store(&b->pid, (int32_t)m->pid);
    if (!changed) return TR_OK;
    atomic_store(&b->counted_deaths, m->counted);
    atomic_store(&b->up, 0);
    atomic_store(&b->incarnation, incarnation);
    atomic_store(&b->up, m->up);
    publish(a);
    return TR_OK;
}

bool tr_node_peers_complete(const tr_node_agent *a) {
    for (uint32_t n = 1; n < a->company->n_nodes; n++)
        for (uint32_t i = 0; i < a->company->n_actors; i++)
            if (is_of(a->company, i, n) && !atomic_load(&a->rt->control->actor[i].up)) return false;
    return true;
}

static uint64_t resident_bytes(int pid) {
    char path[64];
    unsigned long long size = 0, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    if (fscanf(f, "%llu %llu", &size, &resident) != 2) resident = 0;
    fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

tr_status tr_node_peers_report(tr_node_agent *a, tr_carrier *to) {
    const tr_company *c = a->company;
    for (uint32_t i = 0; i < c->n_actors; i++) {
        if (!tr_company_is_local(c, i)) continue;
        tr_control_block *b = &a->rt->control->actor[i];
        int pid = atomic_load(&b->pid);
        uint64_t ns[TR_LEDGER_KINDS];
        tr_ledger_read(&b->ledger, ns);
        tr_msg m = {.type = TR_MSG_NODE_STATE,
                    .as.node_state = {.actor = i,
                                      .incarnation = atomic_load(&b->incarnation),
                                      .up = atomic_load(&b->up),
                                      .counted = atomic_load(&b->counted_deaths),
                                      .pid = pid > 0 ? (uint32_t)pid : 0,
                                      .placed = atomic_load(&b->placed),
                                      .progress = atomic_load(&b->progress),
                                      .kernel_ns = atomic_load(&b->kernel_ns),
                                      .step_ns = atomic_load(&b->step_ns),
#define X(name, text) .text##_ns = ns[TR_LEDGER_##name],
                                      TR_LEDGER_MAP(X)
#undef X
                                          .rss = pid > 0 ? resident_bytes(pid) : 0}};
        TR_TRY(tr_carrier_send(to, &m));
    }
    return TR_OK;
}
