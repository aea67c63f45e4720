/* Tensor parallel ranks: what stages/team.h does over processes, in virtual time. Rank 0 of a stage computes as if it
 * were alone; the other ranks (followers) are in its run from beginning to end. Whoever is in a run when another rank
 * dies goes on for a while with whatever there is: it leaves garbage in the cells of that step (garble), which nobody
 * may ever read, and must have ended before anything else is computed there. */
#include "tests/sim/sim.h"

#include <string.h>

static bool follows(const world *w, uint32_t actor, uint32_t lead) {
    return actor >= w->first_follower && actor < w->n_actors && w->lead_of[actor] == lead;
}

static bool present(const world *w, uint32_t lead) {
    for (uint32_t a = FIRST_STAGE; a < w->n_actors; a++)
        if (w->lead_of[a] == lead && !w->process[a].present) return false;
    return true;
}

bool sim_ranks_begin(world *w, uint32_t lead, const tr_msg_step *m) {
    process *p = &w->process[lead];
    if (p->aborted) {
        p->aborted = false;
        if (!present(w, lead)) {
            p->aborted = true;
            sim_push(w, sim_delay(w), W_ABORT, lead, 0, 0);
            return false;
        }
    }
    for (uint32_t a = w->first_follower; a < w->n_actors; a++) {
        process *f = &w->process[a];
        if (!follows(w, a, lead) || f->state != ALIVE) continue; /* nobody knows yet that one has died */
        if (f->in_run) sim_fail(w, "actor %u is in two runs at once", a);
        if (!f->present) sim_fail(w, "a run begins without actor %u", a);
        f->in_run = true;
        f->run = *m;
        memcpy(f->run_spans, m->spans.data, m->spans.len * sizeof *f->run_spans);
        f->run.spans.data = f->run_spans;
        if (sim_faults_on(w, HANG) && w->counted_left > 0 && sim_chance(w, 2)) {
            sim_faults_count(w, SIM_HUNG);
            f->hung = f->busy = true; /* the others wait for it, which is no hang */
            p->busy = false;
            sim_publish_state(w, a);
            sim_publish_state(w, lead);
        }
    }
    return true;
}

bool sim_ranks_whole(const world *w, uint32_t lead) {
    for (uint32_t a = w->first_follower; a < w->n_actors; a++)
        if (follows(w, a, lead) && (!w->process[a].in_run || w->process[a].hung)) return false;
    return !w->process[lead].aborted;
}

void sim_ranks_end(world *w, uint32_t lead) {
    for (uint32_t a = w->first_follower; a < w->n_actors; a++) {
        if (!follows(w, a, lead)) continue;
        w->process[a].in_run = false;
        w->process[a].progress++;
        sim_publish_state(w, a);
        sim_ranks_quiet(w, a);
    }
}

static void leave_run(world *w, uint32_t actor) {
    process *f = &w->process[actor];
    if (!f->in_run) return;
    f->in_run = false;
    sim_model_garble(w, w->lead_of[actor], &f->run, (uint32_t)sim_random(w, 40));
}

void sim_ranks_died(world *w, uint32_t actor) {
    if (actor >= w->first_follower) leave_run(w, actor);
}

/* The supervisor has seen the death: all ranks of the stage are let through. */
void sim_ranks_leave(world *w, uint32_t actor) {
    uint32_t lead = w->lead_of[actor];
    if (actor < FIRST_STAGE || (w->store && actor == w->store_actor)) return;
    w->process[actor].present = false;
    w->process[lead].aborted = true;
    for (uint32_t a = FIRST_STAGE; a < w->n_actors; a++)
        if (w->lead_of[a] == lead && w->process[a].state == ALIVE) sim_push(w, sim_random(w, MS), W_ABORT, a, 0, 0);
}

void sim_ranks_abort(world *w, uint32_t actor) {
    process *p = &w->process[actor];
    if (p->state != ALIVE || p->hung || !w->process[w->lead_of[actor]].aborted) return;
    if (actor >= w->first_follower) {
        leave_run(w, actor);
        sim_ranks_quiet(w, actor);
    } else if (p->computing && p->status == 0) {
        sim_model_garble(w, actor, &p->compute.as.step, (uint32_t)sim_random(w, 40));
        p->computing = p->busy = false;
        sim_publish_state(w, actor);
        tr_event ev = {.kind = TR_EVENT_COMPUTED, .from = TR_NOBODY};
        ev.as.computed.aborted = true;
        sim_driver_event(w, actor, &ev);
    }
}

void sim_ranks_quiet(world *w, uint32_t actor) {
    process *p = &w->process[actor];
    if (p->state != ALIVE || p->in_run || !((tr_follower_core *)p->core)->waits) return;
    sim_driver_event(w, actor, &(tr_event){.kind = TR_EVENT_COMPUTED, .from = TR_NOBODY});
}
