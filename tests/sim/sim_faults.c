/* Faults that are aimed: each strikes when some request is in a state that was drawn, so that states that pass quickly
 * are met too. What every fault, aimed or not, found open is counted by state and kind. */
#include "tests/sim/sim.h"

#include "scheduler/reuse.h"
#include "scheduler/swap.h"

#include <signal.h>
#include <stdio.h>

static const char *const state_name[SIM_STATES] = {
    "scheduler away", "on its way", "waiting", "forked, waits", "restoring", "in a reset", "prefill",
    "hand-off",       "decode",     "saving",  "not told",      "fetching",  "preempted",  "swapping"};
static const char *const kind_name[SIM_KINDS] = {"abort",  "client", "timeout", "stage",   "rank", "reshard", "sched",
                                                 "instep", "front",  "effects", "crashed", "hung", "cut",     "store"};

static bool resets(const tr_scheduler *s, uint32_t component) {
    return s->component[component].n > 0 && s->component[component].state != COMPONENT_RUNNING;
}

/* As the scheduler sees it; SIM_STATES: it is not open. */
static uint32_t state_of(world *w, uint32_t i) {
    const request *r = &w->request[i];
    const tr_scheduler *s = w->process[SCHEDULER].core;
    const bool open = r->submitted && !r->ended;
    if (w->process[SCHEDULER].state != ALIVE || s == NULL || !s->started) return open ? SIM_AWAY : SIM_STATES;
    const uint32_t slot = tr_intake_find(s, r->rid);
    if (slot == NO_SLOT || s->sequence[slot].state == SEQUENCE_NONE) return open ? SIM_ON_ITS_WAY : SIM_STATES;
    const tr_sequence *q = &s->sequence[slot];
    const bool prefilled = load(&entry_of(s, slot)->kv_prefilled) >= q->prefill_end;
    if (tr_keep_saving(s, slot)) return SIM_SAVING;
    if (q->state == SEQUENCE_ENDED) return SIM_NOT_TOLD;
    if (q->state == SEQUENCE_RUNNING && (tr_swap_writes(s, slot) || tr_swap_is_out(s, slot))) return SIM_SWAPPING;
    if (tr_sample_waits(s, slot) || load(&entry_of(s, slot)->fork) != 0) return SIM_FORKED;
    if (q->state == SEQUENCE_WAITING) return load(&entry_of(s, slot)->evictions) > 0 ? SIM_PREEMPTED : SIM_WAITING;
    if (resets(s, component_of(s, prefilled ? DECODE : PREFILL)) || (q->jobs > 0 && resets(s, RESHARDER)))
        return SIM_IN_RESET;
    if (q->fetch != TR_STORED_NO) return SIM_FETCHING;
    if (tr_keep_restoring(s, slot)) return SIM_RESTORING;
    if (q->jobs > 0) return SIM_HANDOFF;
    return prefilled ? SIM_DECODE : SIM_PREFILL;
}

void sim_faults_count(world *w, sim_kind kind) {
    w->hits.faults++;
    for (uint32_t i = 0; i < w->n_requests; i++) {
        const uint32_t state = state_of(w, i);
        if (state < SIM_STATES) w->hits.cell[state][kind]++;
    }
}

/* An abort counts where the scheduler learns of it, or where it cannot. */
void sim_faults_client(world *w, uint32_t i, bool received) {
    const uint32_t state = state_of(w, i);
    if (!received) w->hits.faults++;
    if (state < SIM_STATES && received == (state > SIM_ON_ITS_WAY))
        w->hits.cell[state][w->request[i].gone ? SIM_CLIENT : SIM_ABORT]++;
}

/* Those whose timeout passes with this step of the scheduler. */
void sim_faults_timeouts(world *w) {
    tr_scheduler *s = w->process[SCHEDULER].core;
    for (uint32_t i = 0; i < w->n_requests && w->aimed; i++) {
        const uint32_t slot = s->started ? tr_intake_find(s, w->request[i].rid) : NO_SLOT;
        if (slot == NO_SLOT || s->sequence[slot].state == SEQUENCE_ENDED) continue;
        const uint64_t at = entry_of(s, slot)->deadline_ns;
        if (at == 0 || w->now < at) continue;
        w->hits.faults++;
        const uint32_t state = state_of(w, i);
        if (state < SIM_STATES) w->hits.cell[state][SIM_TIMEOUT]++;
    }
}

/* ---- aimed ---- */
void sim_faults_config(world *w) {
    static const uint32_t needs[SIM_KINDS] = {CANCELS,
                                              CANCELS,
                                              0,
                                              CRASH_STAGE,
                                              CRASH_STAGE,
                                              CRASH_RESHARDER,
                                              CRASH_SCHEDULER,
                                              CRASH_SCHEDULER,
                                              CRASH_FRONTEND,
                                              CRASH_IN_EFFECTS,
                                              COUNTED,
                                              HANG,
                                              0,
                                              0};
    w->aim_rng.state = tr_rng_mix(w->seed ^ 0xa1);
    for (uint32_t k = 0; k < SIM_AIMS; k++) {
        sim_aim *a = &w->aim[k];
        a->state = (uint32_t)tr_rng_below(&w->aim_rng, SIM_FETCHING);
        if (w->tight && tr_rng_below(&w->aim_rng, 12) == 0) a->state = SIM_PREEMPTED;
        if (w->tight && tr_rng_below(&w->aim_rng, 8) == 0) a->state = SIM_SWAPPING;
        a->kind = (uint32_t)tr_rng_below(&w->aim_rng, SIM_CUT);
        a->skip = (uint32_t)tr_rng_below(&w->aim_rng, tr_rng_below(&w->aim_rng, 2) ? 4 : 40);
        if ((a->kind == SIM_RANK && !w->ranks) || a->kind == SIM_TIMEOUT) a->kind = SIM_CLIENT;
        w->faults |= needs[a->kind];
        if (w->store && tr_rng_below(&w->aim_rng, 3) == 0) a->state = SIM_FETCHING;
        if (w->store && tr_rng_below(&w->aim_rng, 3) == 0) a->kind = SIM_STORE;
    }
}

/* One of the actors [lo, hi) that is there and, if so asked, computes. */
static uint32_t victim(world *w, uint32_t lo, uint32_t hi, bool computing) {
    for (uint32_t n = hi - lo, at = (uint32_t)tr_rng_below(&w->aim_rng, n ? n : 1), k = 0; k < n; k++) {
        const uint32_t a = lo + (at + k) % n;
        if (w->process[a].state == ALIVE && w->process[a].ready && (!computing || w->process[a].computing)) return a;
    }
    return TR_NOBODY;
}

static void kill_one(world *w, sim_kind kind) {
    const bool counts = kind == SIM_CRASHED || kind == SIM_HUNG;
    uint32_t lo = FIRST_STAGE, hi = w->first_follower;
    if (kind == SIM_RESHARDER) lo = RESHARDER_ACTOR, hi = lo + 1;
    if (kind == SIM_SCHEDULER || kind == SIM_IN_STEP) lo = SCHEDULER, hi = lo + 1;
    if (kind == SIM_FRONTEND) lo = FRONTEND, hi = lo + 1;
    if (kind == SIM_RANK) lo = w->first_follower, hi = w->n_actors - w->store;
    if (kind == SIM_STORE) lo = w->store_actor, hi = lo + 1;
    if (kind == SIM_EFFECTS) lo = FRONTEND;
    const uint32_t a = victim(w, lo, hi, kind == SIM_HUNG);
    if (a == TR_NOBODY || (counts && w->counted_left == 0)) return;
    process *p = &w->process[a];
    switch (kind) {
    case SIM_IN_STEP: w->crash_countdown = (int64_t)tr_rng_below(&w->aim_rng, 40); break;
    case SIM_EFFECTS: p->dies_in_effects = true; break;
    case SIM_HUNG:
        sim_faults_count(w, SIM_HUNG);
        p->compute_no++; /* it will never be done */
        p->hung = p->busy = true;
        sim_publish_state(w, a);
        break;
    case SIM_CRASHED:
        w->chaos_counted++;
        sim_kill(w, a, SIGSEGV, false);
        break;
    default: sim_kill(w, a, SIGKILL, false);
    }
}

void sim_faults_strike(world *w, uint32_t i, sim_kind kind) {
    if (w->now >= w->faults_until) return;
    sim_trace(w, "aimed at request %u: %s", i, kind_name[kind]);
    if (kind == SIM_ABORT)
        sim_frontend_cancel(w, i);
    else if (kind == SIM_CLIENT)
        sim_frontend_client_dies(w, i);
    else
        kill_one(w, kind);
}

void sim_faults_look(world *w) {
    if (!w->aimed || w->now >= w->faults_until) return;
    for (uint32_t i = 0; i < w->n_requests; i++) {
        const uint32_t state = state_of(w, i);
        for (uint32_t k = 0; k < SIM_AIMS && state < SIM_STATES; k++) {
            sim_aim *a = &w->aim[k];
            if (a->state != state || a->struck || a->skip-- > 0) continue;
            a->struck = true;
            sim_push(w, 0, W_STRIKE, i, a->kind, 0);
        }
    }
}

/* ---- the table ---- */
void sim_faults_add(sim_table *sum, const sim_table *t) {
    sum->faults += t->faults;
    for (uint32_t s = 0; s < SIM_STATES; s++)
        for (uint32_t k = 0; k < SIM_KINDS; k++) sum->cell[s][k] += t->cell[s][k];
}

static bool possible(uint32_t state, uint32_t kind, bool ranks, bool nodes, bool store, bool tight) {
    if (state >= SIM_PREEMPTED && !tight) return false;
    if (state == SIM_SWAPPING && nodes) return false; /* of one host */
    if ((state == SIM_FETCHING || kind == SIM_STORE) && !store) return false;
    if (kind == SIM_TIMEOUT) return state > SIM_ON_ITS_WAY && state != SIM_SAVING && state != SIM_NOT_TOLD;
    if (kind == SIM_RANK) return ranks;
    if (kind == SIM_CUT) return nodes;
    return state != SIM_AWAY || (kind != SIM_SCHEDULER && kind != SIM_IN_STEP);
}

uint32_t sim_faults_print(const sim_table *t, bool ranks, bool nodes, bool store, bool tight) {
    uint32_t empty = 0;
    printf("%lu faults; requests that they met, by state:\n%-15s", (unsigned long)t->faults, "");
    for (uint32_t k = 0; k < SIM_KINDS; k++) printf(" %7s", kind_name[k]);
    for (uint32_t s = 0; s < SIM_STATES; s++) {
        printf("\n%-15s", state_name[s]);
        for (uint32_t k = 0; k < SIM_KINDS; k++) {
            if (!possible(s, k, ranks, nodes, store, tight))
                printf(" %7s", "-");
            else
                printf(" %7lu", (unsigned long)t->cell[s][k]);
            empty += possible(s, k, ranks, nodes, store, tight) && t->cell[s][k] == 0;
        }
    }
    printf("\n");
    return empty;
}
