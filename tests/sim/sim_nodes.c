/* Two nodes: some stages, and perhaps the resharder, are away, and the connection to them breaks now and then, as
 * actors/node/ and transport/carrier.h have it. A break takes a part of what is under way; what is sent before it is
 * noticed is lost, what is sent later waits in its ring. Those away go down and come up again with another incarnation,
 * for everybody here, whether their processes lived through it or not; a break may be over before anybody looks. */
#include "tests/sim/sim.h"

#include <stdlib.h>

void sim_nodes_config(world *w) {
    uint32_t far = (uint32_t)sim_random(w, w->n_pipelines); /* a pipeline stays on one node */
    for (uint32_t a = FIRST_STAGE; a < w->n_actors; a++) w->away[a] = w->pipeline_of[a] == far;
    w->away[RESHARDER_ACTOR] = sim_random(w, 2) == 0;
    sim_push(w, sim_random(w, 10 * MS), W_CUT, CLIENTS, 0, 0);
}

bool sim_nodes_cross(const world *w, uint32_t a, uint32_t b) { return w->away[a] != w->away[b]; }

published sim_nodes_view(const world *w, uint32_t actor, uint32_t peer) {
    published p = w->published[peer];
    if (!sim_nodes_cross(w, actor, peer)) return p;
    if (w->cut == CUT_SEEN) p.up = 0;
    p.incarnation += w->outages;
    return p;
}

static void everybody_looks(world *w) {
    for (uint32_t a = 0; a < w->n_actors; a++)
        for (uint32_t b = 0; b < w->n_actors; b++)
            if (sim_nodes_cross(w, a, b)) sim_push(w, sim_delay(w), W_OBSERVE, a, b, 0);
}

void sim_nodes_cut(world *w) {
    if (w->now >= w->faults_until || w->cut != CUT_NONE) return;
    sim_trace(w, "the connection breaks");
    sim_faults_count(w, SIM_CUT);
    w->cut = CUT_UNSEEN;
    for (uint32_t a = 0; a < w->n_actors; a++)
        for (uint32_t b = 0; b < w->n_actors; b++) {
            link_t *k = w->link[a][b];
            if (k == NULL || !sim_nodes_cross(w, a, b)) continue;
            uint32_t keep = (uint32_t)sim_random(w, k->n + 1);
            while (k->n > keep) free(k->queue[(k->head + --k->n) % MAX_LINK].data);
        }
    sim_push(w, sim_random(w, 3 * MS), W_CUT_SEEN, CLIENTS, 0, 0);
}

void sim_nodes_seen(world *w) {
    sim_trace(w, "the break is seen");
    w->cut = CUT_SEEN;
    everybody_looks(w);
    sim_push(w, sim_random(w, sim_random(w, 3) == 0 ? 100 * US : 10 * MS), W_CUT_END, CLIENTS, 0, 0);
}

void sim_nodes_end(world *w) {
    sim_trace(w, "connected again");
    w->cut = CUT_NONE;
    w->outages++;
    everybody_looks(w);
    for (uint32_t a = 0; a < w->n_actors; a++)
        for (uint32_t b = 0; b < w->n_actors; b++)
            for (uint32_t i = 0; w->link[a][b] && sim_nodes_cross(w, a, b) && i < w->link[a][b]->n; i++)
                sim_push(w, sim_delay(w), W_MESSAGE, b, a, 0);
    sim_push(w, sim_random(w, 15 * MS), W_CUT, CLIENTS, 0, 0);
}
