#include "scheduler/scheduler_state.h"

static tr_transfer_action transfer(tr_scheduler *s, uint32_t slot, tr_transfer_event event) {
    const tr_transfer_action action = tr_transfer_step(&s->sequence[slot].transfer, event);
    tr_check(action != TR_TRANSFER_DO_WRONG);
    return action;
}

bool tr_handoff_hold_pages(tr_scheduler *s, uint32_t slot, const uint32_t *tok_min, uint32_t tok1) {
    const uint32_t p = pool_of(s, DECODE);
    const tr_kv_layout *l = &s->config.layout[p];
    tr_sequence *q = &s->sequence[slot];
    for (uint32_t g = 0; g < l->n_groups; g++)
        if (tr_kv_table_held(&q->row[p], g) + tr_kv_table_missing(l, &q->row[p], g, tok_min[g], tok1) >
            q->need.pages[p][g])
            return false;
    for (uint32_t g = 0; g < l->n_groups; g++)
        tr_check(tr_kv_table_extend(l, s->config.table[p], slot, &q->row[p], g, tok_min[g], tok1, &s->pool[p]) ==
                 TR_OK);
    q->table_version++;
    return true;
}

void tr_handoff_issue(tr_scheduler *s, uint32_t slot, tr_handoff_job *job, tr_effects *fx) {
    tr_component *c = &s->component[RESHARDER];
    tr_sequence *q = &s->sequence[slot];
    job->used = true;
    job->job = c->next_id++;
    c->in_flight++;
    q->jobs++;
    static const tr_transfer_event issued[] = {
        TR_TRANSFER_ON_ISSUE_MOVE, [TR_HANDOFF_SAVE] = TR_TRANSFER_ON_ISSUE_SAVE,
        [TR_HANDOFF_RESTORE] = TR_TRANSFER_ON_ISSUE_RESTORE, [TR_HANDOFF_SWAP_OUT] = TR_TRANSFER_ON_ISSUE_SWAP,
        [TR_HANDOFF_SWAP_IN] = TR_TRANSFER_ON_ISSUE_RESTORE};
    transfer(s, slot, issued[job->file]);
    if (job->file) {
        /* moves nothing */
    } else if (job->part) {
        q->part_end = job->tok1;
        q->part_layers = job->layer1;
    } else {
        q->move_issued = job->tok1;
        q->part_layers = 0;
    }
    for (uint32_t i = 0; i < c->n; i++) {
        tr_msg_reshard *m = &tr_scheduler_send(fx, c->actor[i], TR_MSG_RESHARD)->as.reshard;
        m->epoch = c->epoch;
        m->job = job->job;
        m->rid = job->rid;
        m->src_slot = m->dst_slot = slot;
        m->tok0 = job->tok0;
        m->tok1 = job->tok1;
        m->tok_min = (tr_u32v){job->tok_min, s->config.layout[1].n_groups};
        m->layer0 = job->layer0;
        m->layer1 = job->layer1;
        m->file = job->file;
        m->pool = job->pool;
    }
}

tr_handoff_job *tr_handoff_free_job(tr_scheduler *s) {
    for (uint32_t i = 0; i < JOBS_MAX; i++)
        if (!s->job[i].used) return &s->job[i];
    return NULL;
}

static bool moves(const tr_scheduler *s, uint32_t slot) {
    const tr_sequence *q = &s->sequence[slot];
    return !s->config.one_pool && !q->stopped && q->decode_end > q->prefill_end && !tr_keep_restoring(s, slot);
}

/* The span of a running step that comes next for this sequence; NULL: none. */
static const tr_msg_span *running_span(const tr_scheduler *s, uint32_t slot, uint32_t *layers_out) {
    uint32_t pos = load(&entry_of(s, slot)->kv_prefilled);
    for (uint32_t i = 0; i < s->n_flights; i++) {
        const tr_flight *f = &s->flight[i];
        for (uint32_t k = 0; f->used && f->phase == PREFILL && f->layers > 0 && k < f->n_spans; k++)
            if (f->spans[k].slot == slot && f->spans[k].pos0 == pos && f->spans[k].rid == entry_of(s, slot)->rid) {
                *layers_out = f->layers;
                return &f->spans[k];
            }
    }
    return NULL;
}

/* True while a step, all of whose layers went ahead, is unconfirmed or their jobs are out; then it counts as moved. */
static bool waits_for_parts(tr_scheduler *s, uint32_t slot) {
    tr_sequence *q = &s->sequence[slot];
    if (q->part_layers < s->config.layout[1].n_layers) return false;
    if (q->jobs > 0 || load(&entry_of(s, slot)->kv_prefilled) < q->part_end) return true;
    q->move_issued = q->part_end;
    q->part_layers = 0;
    tr_progress_moved(s, slot, q->part_end);
    tr_progress_tidy(s, slot);
    return false;
}

/* What can be moved now: positions of confirmed steps, less the layers that went ahead, or layers of the step that
 * runs. False: nothing. */
static bool next_move(const tr_scheduler *s, uint32_t slot, tr_handoff_job *job) {
    const tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    uint32_t prefilled = load(&e->kv_prefilled), layers;
    *job = (tr_handoff_job){.rid = e->rid, .slot = slot, .tok0 = q->move_issued, .layer0 = q->part_layers};
    if (q->move_issued < prefilled) {
        job->tok1 = q->part_layers > 0 ? q->part_end : prefilled;
        job->layer1 = s->config.layout[1].n_layers;
        return true;
    }
    if (e->deaths > 0 || s->component[RESHARDER].in_flight >= JOBS_MAX / 2) return false;
    const tr_msg_span *span = running_span(s, slot, &layers);
    if (span == NULL || layers <= q->part_layers) return false;
    job->part = true;
    job->tok1 = span->pos0 + span->rows;
    job->layer1 = layers;
    return true;
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
        if (c->n == 0 || c->state != COMPONENT_RUNNING || suspect_flies(s) || !room(s, fx, c->n)) return;
        tr_handoff_job next, *job = tr_handoff_free_job(s);
        if (!moves(s, slot) || waits_for_parts(s, slot) || !next_move(s, slot, &next)) continue;
        if (job == NULL || (entry_of(s, slot)->deaths > 0 && c->in_flight > 0)) return;
        const tr_kv_layout *l = &s->config.layout[1];
        for (uint32_t g = 0; g < l->n_groups; g++) next.tok_min[g] = moved_from(s, g, &s->sequence[slot]);
        if (!tr_handoff_hold_pages(s, slot, next.tok_min, next.tok1)) continue;
        *job = next;
        tr_handoff_issue(s, slot, job, fx);
    }
}

/* Jobs are done, and answered, in the order in which they were issued. */
static bool older_job(const tr_scheduler *s, uint64_t job) {
    for (uint32_t i = 0; i < JOBS_MAX; i++)
        if (s->job[i].used && s->job[i].job < job) return true;
    return false;
}

static tr_handoff_job *find_job(tr_scheduler *s, const tr_msg_reshard_done *m) {
    for (uint32_t i = 0; i < JOBS_MAX && m->epoch == s->component[RESHARDER].epoch; i++)
        if (s->job[i].used && s->job[i].job == m->job) return &s->job[i];
    return NULL;
}

static void forget(tr_scheduler *s, tr_handoff_job *job) {
    job->used = false;
    s->component[RESHARDER].in_flight--;
    s->sequence[job->slot].jobs--;
}

static void count(tr_scheduler *s, const tr_handoff_job *job, const tr_msg_reshard_done *m) {
    tr_journal_entry *e = entry_of(s, job->slot);
    if (job->file) return;
    s->stats.handoffs++;
    s->stats.handoff_bytes += m->bytes;
    s->stats.handoff_ns += m->ns;
    e->handoff_bytes += m->bytes;
    e->handoff_ns += m->ns;
}

static void obey(tr_scheduler *s, const tr_handoff_job *job, tr_transfer_action action, const tr_msg_reshard_done *m) {
    static const char failed[] = "hand-off to the decode pool failed; see the log of the resharder";
    if (action == TR_TRANSFER_DO_FAIL)
        tr_progress_end(s, job->slot, TR_FINISH_ERROR, UINT32_MAX, 70, failed, sizeof failed - 1);
    else if (action == TR_TRANSFER_DO_RECOMPUTE || action == TR_TRANSFER_DO_UNSAVED ||
             (action == TR_TRANSFER_DO_TAKE && job->file))
        tr_keep_done(s, job, m);
    else if (action == TR_TRANSFER_DO_TAKE && !job->part)
        tr_progress_moved(s, job->slot, job->tok1);
}

void tr_handoff_done(tr_scheduler *s, const tr_msg_reshard_done *m, tr_effects *fx) {
    const tr_component *c = &s->component[RESHARDER];
    tr_handoff_job *job = find_job(s, m);
    if (job == NULL) return; /* of an older epoch, or answered already */
    tr_sequence *q = &s->sequence[job->slot];
    const bool good = m->status == 0;
    const bool next =
        job->part || job->file || q->state == SEQUENCE_ENDED || job->tok0 == load(&entry_of(s, job->slot)->kv_moved);
    /* The job before this one, or its answer, was lost with a connection: a reset is on the way. */
    if (good && (older_job(s, job->job) || !next)) return;
    forget(s, job);
    count(s, job, m);
    obey(s, job,
         transfer(s, job->slot,
                  good ? (q->jobs > 0 ? TR_TRANSFER_ON_ANSWER : TR_TRANSFER_ON_ANSWER_LAST)
                       : (q->jobs > 0 ? TR_TRANSFER_ON_REFUSED : TR_TRANSFER_ON_REFUSED_LAST)),
         m);
    tr_progress_tidy(s, job->slot);
    /* The other of two resharders still waits for what does not come. */
    if (!good && !job->file && c->n > 1 && c->state == COMPONENT_RUNNING) tr_recovery_reset(s, RESHARDER, fx);
}

static void drop_job(tr_scheduler *s, tr_handoff_job *job, bool counted) {
    tr_sequence *q = &s->sequence[job->slot];
    tr_journal_entry *e = entry_of(s, job->slot);
    if (counted && !job->file) {
        q->fell = true;
        e->suspect_move = job->tok1 > e->suspect_move ? job->tok1 : e->suspect_move;
    }
    forget(s, job);
    s->stats.replays++;
    if (q->state != SEQUENCE_ENDED) q->move_issued = load(&e->kv_moved);
    q->part_layers = 0;
    if (job->file) tr_keep_dropped(s, job);
}

void tr_handoff_lost(tr_scheduler *s) {
    for (uint32_t i = 0; i < s->n_slots; i++) transfer(s, i, TR_TRANSFER_ON_DOWN);
}

void tr_handoff_settled(tr_scheduler *s, bool counted) {
    for (uint32_t i = 0; i < JOBS_MAX; i++)
        if (s->job[i].used) drop_job(s, &s->job[i], counted);
    for (uint32_t i = 0; i < s->n_slots; i++) transfer(s, i, TR_TRANSFER_ON_SETTLED);
}

void tr_handoff_end(tr_scheduler *s, uint32_t slot) { transfer(s, slot, TR_TRANSFER_ON_END); }

void tr_handoff_take_over(tr_scheduler *s, uint32_t slot) {
    tr_sequence *q = &s->sequence[slot];
    const bool ended = q->state == SEQUENCE_ENDED, unknown = s->component[RESHARDER].n > 0;
    q->transfer = ended ? TR_TRANSFER_ENDED : TR_TRANSFER_OPEN;
    if (unknown) q->transfer = ended ? TR_TRANSFER_DRAIN_LOST : TR_TRANSFER_MOVE_LOST;
}
