#include "scheduler/scheduler_state.h"

/* Hold the decode pages that positions up to tok1 need; sliding groups begin at tok_min. */
static bool hold_pages(tr_scheduler *s, uint32_t slot, const uint32_t *tok_min, uint32_t tok1) {
    const tr_kv_layout *l = &s->config.layout[1];
    tr_sequence *q = &s->sequence[slot];
    for (uint32_t g = 0; g < l->n_groups; g++)
        if (tr_kv_table_held(&q->row[1], g) + tr_kv_table_missing(l, &q->row[1], g, tok_min[g], tok1) >
            q->need.pages[1][g])
            return false;
    for (uint32_t g = 0; g < l->n_groups; g++)
        tr_check(tr_kv_table_extend(l, s->config.table[1], slot, &q->row[1], g, tok_min[g], tok1, &s->pool[1]) ==
                 TR_OK);
    q->table_version++;
    return true;
}

static void issue(tr_scheduler *s, uint32_t slot, tr_handoff_job *job, tr_effects *fx) {
    tr_component *c = &s->component[RESHARDER];
    tr_sequence *q = &s->sequence[slot];
    job->used = true;
    job->job = c->next_id++;
    c->in_flight++;
    q->jobs++;
    q->move_issued = job->tok1;
    tr_msg_reshard *m = &tr_scheduler_send(fx, c->actor[0], TR_MSG_RESHARD)->as.reshard;
    m->epoch = c->epoch;
    m->job = job->job;
    m->rid = job->rid;
    m->src_slot = m->dst_slot = slot;
    m->tok0 = job->tok0;
    m->tok1 = job->tok1;
    m->tok_min = (tr_u32v){job->tok_min, s->config.layout[1].n_groups};
}

static tr_handoff_job *free_job(tr_scheduler *s) {
    for (uint32_t i = 0; i < JOBS_MAX; i++)
        if (!s->job[i].used) return &s->job[i];
    return NULL;
}

static bool to_move(const tr_scheduler *s, uint32_t slot) {
    const tr_sequence *q = &s->sequence[slot];
    return q->decode_end > q->prefill_end && !(q->unsettled & 1u << RESHARDER) &&
           q->move_issued < load(&entry_of(s, slot)->kv_prefilled);
}

/* Requests that were in flight at a counted death are moved alone, so that the next death names one. */
static bool suspect_flies(const tr_scheduler *s) {
    for (uint32_t i = 0; i < JOBS_MAX; i++)
        if (s->job[i].used && entry_of(s, s->job[i].slot)->deaths > 0) return true;
    return false;
}

void tr_handoff_pump(tr_scheduler *s, tr_effects *fx) {
    tr_component *c = &s->component[RESHARDER];
    for (uint32_t i = 0; i < s->n_running; i++) {
        uint32_t slot = s->running[i];
        if (c->n == 0 || c->state != COMPONENT_RUNNING || suspect_flies(s) || !room(s, fx, 1)) return;
        if (!to_move(s, slot)) continue;
        if (entry_of(s, slot)->deaths > 0 && c->in_flight > 0) return;
        tr_handoff_job *job = free_job(s);
        if (job == NULL) return;
        tr_sequence *q = &s->sequence[slot];
        job->rid = entry_of(s, slot)->rid;
        job->slot = slot;
        job->tok0 = q->move_issued;
        job->tok1 = load(&entry_of(s, slot)->kv_prefilled);
        const tr_kv_layout *l = &s->config.layout[1];
        for (uint32_t g = 0; g < l->n_groups; g++) job->tok_min[g] = moved_from(s, g, q);
        if (hold_pages(s, slot, job->tok_min, job->tok1)) issue(s, slot, job, fx);
    }
}

void tr_handoff_drop_job(tr_scheduler *s, tr_handoff_job *job) {
    tr_sequence *q = &s->sequence[job->slot];
    job->used = false;
    s->component[RESHARDER].in_flight--;
    s->stats.replays++;
    q->jobs--;
    if (q->state != SEQUENCE_ENDED) q->move_issued = load(&entry_of(s, job->slot)->kv_moved);
    tr_progress_tidy(s, job->slot);
}
