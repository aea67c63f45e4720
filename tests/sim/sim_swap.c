/* The swap space of a company: an array that the resharder writes and reads where the journal says. Its writes and its
 * reads fail now and then, as a full disk or a torn image would; some machines copy fast and some slowly, so that both
 * ways of giving way pay somewhere. */
#include "tests/sim/sim.h"

#include "kv/kv_swap.h"

#include <stdlib.h>
#include <string.h>

void sim_swap_config(world *w) {
    tr_scheduler_config *c = &w->scheduler;
    const tr_kv_layout *l = &c->layout[c->one_pool ? 0 : 1];
    const uint32_t none[TR_KV_GROUPS_MAX] = {0};
    w->swap_rng.state = tr_rng_mix(w->seed ^ 0x54a9);
    if (!w->tight || tr_rng_below(&w->swap_rng, 4) == 0) return;
    c->swap_bytes = tr_kv_swap_bytes(l, none, c->context) * (1 + tr_rng_below(&w->swap_rng, 8)) / 4;
    w->swap_cheap = tr_rng_below(&w->swap_rng, 3) != 0;
    w->swap = calloc(1, c->swap_bytes + 1);
    if (w->swap == NULL) abort();
}

void sim_swap_free(world *w) { free(w->swap); }

uint64_t sim_swap_moved(const world *w, const tr_msg_reshard *job) {
    return w->swap_cheap ? tr_journal_at(w->journal_mem, job->dst_slot)->swap_bytes : 64;
}

bool sim_swap_run(world *w, const tr_msg_reshard *job, uint64_t max_cells) {
    const tr_journal_entry *e = tr_journal_at(w->journal_mem, job->dst_slot);
    const tr_kv_layout *l = &w->scheduler.layout[job->pool];
    uint64_t at = e->swap_at;
    const bool out = job->file == 3;
    if (e->rid != job->rid || job->tok1 != e->swap_end || w->swap == NULL) sim_fail(w, "swap job of another request");
    const bool fails = tr_rng_below(&w->swap_rng, 12) == 0;
    if (fails) max_cells = tr_rng_below(&w->swap_rng, 20);
    for (uint32_t i = 0; i < w->model.n_layers; i++)
        for (uint32_t h = 0; h < w->model.n_kv_heads; h++)
            for (uint32_t pos = e->swap_min[l->layer_group[i]]; pos < job->tok1 && max_cells > 0; pos++, max_cells--) {
                uint64_t *cell = sim_model_cell(w, job->pool, job->dst_slot, i, h, pos);
                if (at + sizeof *cell > e->swap_at + e->swap_bytes || at + sizeof *cell > w->scheduler.swap_bytes)
                    sim_fail(w, "an image is larger than its place");
                if (out)
                    memcpy(w->swap + at, cell, sizeof *cell);
                else
                    memcpy(cell, w->swap + at, sizeof *cell);
                at += sizeof *cell;
            }
    return !fails;
}

static bool there(tr_journal_entry *e) {
    return atomic_load(&e->state) != TR_JOURNAL_FREE && atomic_load(&e->swap) != TR_JOURNAL_SWAP_NONE;
}

/* Between two steps of the scheduler: no place is used twice, all places are counted, and what is at work on one works
 * on that of its request. */
void sim_swap_check(world *w) {
    tr_journal *j = w->journal_mem;
    uint64_t used = 0;
    for (uint32_t i = 0; i < j->n_slots; i++) {
        tr_journal_entry *a = tr_journal_at(j, i);
        if (!there(a)) continue;
        used += a->swap_bytes;
        if (a->swap_at + a->swap_bytes > w->scheduler.swap_bytes) sim_fail(w, "slot %u: an image outside", i);
        for (uint32_t k = 0; k < i; k++) {
            const tr_journal_entry *b = tr_journal_at(j, k);
            if (there(tr_journal_at(j, k)) && a->swap_at < b->swap_at + b->swap_bytes &&
                b->swap_at < a->swap_at + a->swap_bytes)
                sim_fail(w, "slots %u and %u: one place in the swap space", i, k);
        }
    }
    if (used != atomic_load(&j->swap_used))
        sim_fail(w, "%lu bytes of the swap space leaked", (unsigned long)(atomic_load(&j->swap_used) - used));
    const process *p = &w->process[RESHARDER_ACTOR];
    const tr_msg_reshard *job = &p->compute.as.reshard;
    if (p->state != ALIVE || !p->computing || p->compute.type != TR_MSG_RESHARD || job->file < 3) return;
    tr_journal_entry *e = tr_journal_at(j, job->dst_slot);
    if (e->rid != job->rid || !there(e)) sim_fail(w, "slot %u: its image was given up under work", job->dst_slot);
}
