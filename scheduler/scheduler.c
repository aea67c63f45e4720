#include "scheduler/pace.h"

#include "base/checked.h"
#include "base/rng.h"
#include "scheduler/preempt.h"
#include "scheduler/swap.h"

#include <string.h>

static bool pipelines_sound(const tr_scheduler_config *c) {
    if (c->n_pipelines < 1 || c->n_pipelines > 2) return false;
    for (uint32_t p = 0; p < c->n_pipelines; p++) {
        const tr_scheduler_pipeline *l = &c->pipeline[p];
        if (l->n_stages < 1 || l->n_stages > TR_SCHEDULER_STAGES_MAX) return false;
        if (l->n_ranks && (l->n_ranks < l->n_stages || l->n_ranks > TR_SCHEDULER_STAGES_MAX)) return false;
        if (l->max_in_flight < 1 || l->max_in_flight > TR_SCHEDULER_STAGES_MAX) return false;
    }
    return true;
}

static bool layout_sound(const tr_scheduler_config *c, const tr_kv_layout *l) {
    return l->page_tok > 0 && l->n_groups >= 1 && l->n_groups <= TR_KV_GROUPS_MAX &&
           l->n_slots >= c->journal->n_slots && (uint64_t)l->pages_per_seq * l->page_tok >= c->context;
}

static bool sound(const tr_scheduler_config *c) {
    if (!pipelines_sound(c) || c->journal == NULL || c->journal->n_slots == 0) return false;
    if (c->context == 0 || c->context > TR_MAX_TOKENS || c->journal->context != c->context || c->vocab == 0)
        return false;
    if (c->chunk == 0 || c->max_rows < c->chunk || c->max_rows > TR_MAX_STEP_ROWS) return false;
    if (c->max_batch == 0 || c->max_batch > TR_MAX_SPANS || c->max_waiting == 0 || c->promise_tok == 0) return false;
    if (c->policy >= TR_POLICY_END) return false;
    if (c->n_eos > TR_SCHEDULER_EOS_MAX || !layout_sound(c, &c->layout[0])) return false;
    if (c->one_pool) return true;
    return c->resharder != TR_NOBODY && layout_sound(c, &c->layout[1]) &&
           c->layout[0].n_groups == c->layout[1].n_groups;
}

static uint32_t flights_of(const tr_scheduler_config *c) {
    uint32_t n = 0;
    for (uint32_t p = 0; p < c->n_pipelines; p++) n += c->pipeline[p].max_in_flight + c->pipeline[p].feeds;
    return n + 1; /* one parked */
}

static uint32_t pools_of(const tr_scheduler_config *c) { return c->one_pool ? 1 : 2; }

enum { CLIENTS_A_SLOT = 2 }; /* counters that are kept */

static size_t prefix_bytes(const tr_scheduler_config *c) {
    size_t n = 0;
    for (uint32_t p = 0; p < pools_of(c) && c->prefix_cache; p++) n += tr_kv_prefix_bytes(&c->layout[p]);
    return n;
}

enum { SLOT_SETS = 4 };

static size_t index_bytes(size_t slots) {
    return tr_align_up(slots * sizeof(tr_turn), 64) +
           SLOT_SETS * tr_align_up(tr_slots_words((uint32_t)slots) * sizeof(uint64_t), 64) +
           tr_align_up(tr_slots_buckets((uint32_t)slots) * sizeof(uint32_t), 64) +
           tr_align_up(slots * sizeof(uint32_t), 64);
}

size_t tr_scheduler_bytes(const tr_scheduler_config *config) {
    if (!sound(config)) return 0;
    size_t slots = config->journal->n_slots, flights = flights_of(config);
    return tr_align_up(sizeof(tr_scheduler), 64) + tr_align_up(slots * sizeof(tr_sequence), 64) +
           2 * tr_align_up(slots * sizeof(uint32_t), 64) + tr_align_up(flights * sizeof(tr_flight), 64) +
           tr_align_up(flights * spans_max(config) * sizeof(tr_msg_span), 64) +
           tr_align_up(flights * config->max_rows * sizeof(uint32_t), 64) +
           tr_align_up(flights * COPIES_A_SPAN * spans_max(config) * sizeof(uint32_t), 64) +
           tr_align_up(CLIENTS_A_SLOT * slots * sizeof(tr_fair_client), 64) + index_bytes(slots) + prefix_bytes(config);
}

static void *carve(char **at, size_t bytes) {
    void *here = *at;
    *at += tr_align_up(bytes, 64);
    return here;
}

static void init_components(tr_scheduler *s) {
    s->component[STORE].n = s->component[STORE].n_lead = s->config.has_store != 0;
    s->component[STORE].max_in_flight = STORE_JOBS;
    s->component[STORE].actor[0] = s->config.store;
    for (uint32_t p = 0; p < s->config.n_pipelines; p++) {
        tr_component *c = &s->component[p];
        c->n_lead = s->config.pipeline[p].n_stages;
        c->n = s->config.pipeline[p].n_ranks ? s->config.pipeline[p].n_ranks : c->n_lead;
        c->max_in_flight = s->config.pipeline[p].max_in_flight;
        memcpy(c->actor, s->config.pipeline[p].stage, c->n * sizeof *c->actor);
    }
    if (s->config.resharder == TR_NOBODY) return; /* one pool, and no files */
    s->component[RESHARDER].n = s->component[RESHARDER].n_lead = s->config.two_resharders ? 2 : 1;
    s->component[RESHARDER].max_in_flight = JOBS_MAX;
    s->component[RESHARDER].actor[0] = s->config.resharder;
    s->component[RESHARDER].actor[1] = s->config.resharder_to;
}

static void init_index(tr_scheduler *s, char **at) {
    tr_slots *sets[SLOT_SETS] = {&s->open, &s->ended, &s->tell, &s->kept};
    s->turn = carve(at, s->n_slots * sizeof *s->turn);
    for (uint32_t i = 0; i < SLOT_SETS; i++) {
        const size_t bytes = tr_slots_words(s->n_slots) * sizeof(uint64_t);
        *sets[i] = (tr_slots){.word = memset(carve(at, bytes), 0, bytes), .n = s->n_slots};
    }
    s->by_rid.buckets = tr_slots_buckets(s->n_slots);
    const size_t bytes = s->by_rid.buckets * sizeof *s->by_rid.first;
    s->by_rid.first = memset(carve(at, bytes), 0xFF, bytes); /* UINT32_MAX */
    s->by_rid.next = carve(at, s->n_slots * sizeof *s->by_rid.next);
    s->deadline_ns = UINT64_MAX;
}

tr_status tr_scheduler_init(tr_scheduler *s, const tr_scheduler_config *config) {
    if (!sound(config)) return TR_CONFIG;
    char *at = (char *)s + tr_align_up(sizeof *s, 64);
    memset(s, 0, sizeof *s);
    s->config = *config;
    s->n_slots = config->journal->n_slots;
    s->n_flights = flights_of(config);
    s->sequence = carve(&at, s->n_slots * sizeof *s->sequence);
    s->running = carve(&at, s->n_slots * sizeof *s->running);
    s->waiting = carve(&at, s->n_slots * sizeof *s->waiting);
    s->flight = carve(&at, s->n_flights * sizeof *s->flight);
    const size_t n_spans = spans_max(config);
    tr_msg_span *spans = carve(&at, s->n_flights * n_spans * sizeof *spans);
    uint32_t *tokens = carve(&at, (size_t)s->n_flights * config->max_rows * sizeof *tokens);
    uint32_t *copies = carve(&at, s->n_flights * COPIES_A_SPAN * n_spans * sizeof *copies);
    s->fair.capacity = CLIENTS_A_SLOT * s->n_slots;
    s->fair.client = carve(&at, s->fair.capacity * sizeof *s->fair.client);
    init_index(s, &at);
    for (uint32_t i = 0; i < s->n_flights; i++)
        s->flight[i] = (tr_flight){.spans = spans + i * n_spans,
                                   .tokens = tokens + (size_t)i * config->max_rows,
                                   .copies = copies + i * COPIES_A_SPAN * n_spans};
    memset(s->sequence, 0, s->n_slots * sizeof *s->sequence);
    s->next_order = 1;
    s->policy = &tr_policy_table[config->policy];
    s->admission_due = true;
    init_components(s);
    for (uint32_t p = 0; p < pools_of(config); p++) {
        tr_kv_pool_attach(&s->pool[p], &s->config.layout[p], config->bitmap[p]);
        if (!config->prefix_cache) continue;
        s->pool[p].cache = s->prefix[p] = carve(&at, tr_kv_prefix_bytes(&s->config.layout[p]));
        tr_kv_prefix_init(s->prefix[p], &s->config.layout[p], config->prefix_key);
    }
    return TR_OK;
}

tr_msg *tr_scheduler_send(tr_effects *fx, uint32_t to, tr_msg_type type) {
    tr_check(fx->n < TR_EFFECTS_MAX);
    tr_effect *e = &fx->item[fx->n++];
    memset(e, 0, sizeof *e);
    e->kind = TR_EFFECT_SEND;
    e->to = to;
    e->msg.type = type;
    return &e->msg;
}

static uint64_t since(uint64_t begin, uint64_t end) { return end > begin && begin != 0 ? end - begin : 0; }

static void output(tr_scheduler *s, uint32_t slot, tr_effects *fx) {
    tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    uint32_t have = generated(s, slot), from = q->sent < have ? q->sent : have;
    tr_msg_output *m = &tr_scheduler_send(fx, s->config.frontend, TR_MSG_OUTPUT)->as.output;
    m->rid = e->rid;
    q->sent = tr_journal_view(s->config.journal, e, from, have, m);
    q->announce = false;
    if (q->sent < have) {
        s->more = true;
        return;
    }
    if (q->state != SEQUENCE_ENDED || tr_keep_saving(s, slot)) return;
    q->finish_sent = true;
    m->finish = e->finish;
    m->code = e->code;
    m->error = (tr_str){e->error, (uint32_t)strnlen(e->error, sizeof e->error)};
    m->queue_ns = since(e->accepted_ns, e->first_step_ns);
    m->ttft_ns = since(e->accepted_ns, e->first_token_ns);
    m->cached_tokens = e->cached;
    m->handoff_ns = e->handoff_ns;
    m->handoff_bytes = e->handoff_bytes;
    m->visible_ns = e->visible_ns;
    m->saved_bytes = e->saved_bytes;
    m->note = (tr_str){e->note, (uint32_t)strnlen(e->note, sizeof e->note)};
    m->total_ns = since(e->accepted_ns, e->last_token_ns);
}

/* False: no room. Who has ended and is still being saved is looked at again. */
static bool flush(tr_scheduler *s, uint32_t slot, tr_effects *fx) {
    const tr_sequence *q = &s->sequence[slot];
    const bool ended = q->state == SEQUENCE_ENDED && !q->finish_sent, saving = tr_keep_saving(s, slot);
    if (q->state != SEQUENCE_NONE && (q->announce || (ended && !saving) || generated(s, slot) > q->sent)) {
        if (!room(s, fx, 1)) return false;
        output(s, slot, fx);
    }
    if (!ended || !saving) tr_slots_remove(&s->tell, slot);
    return true;
}

static void flush_outputs(tr_scheduler *s, tr_effects *fx) {
    const tr_slots *all = &s->tell;
    for (uint32_t i = tr_slots_next(all, 0); i < s->n_slots && s->frontend_up; i = tr_slots_next(all, i + 1))
        if (!flush(s, i, fx)) return;
}

static void on_msg(tr_scheduler *s, const tr_event *ev, tr_effects *fx) {
    const tr_msg *m = ev->msg;
    bool frontend = ev->from == s->config.frontend;
    bool resharder =
        s->component[RESHARDER].n > 0 &&
        (ev->from == s->config.resharder || (s->config.two_resharders && ev->from == s->config.resharder_to));
    if (m->type == TR_MSG_SUBMIT && frontend)
        tr_intake_submit(s, &m->as.submit, fx);
    else if (m->type == TR_MSG_CANCEL && frontend)
        tr_intake_cancel(s, &m->as.cancel);
    else if (m->type == TR_MSG_RELEASE && frontend)
        tr_intake_release(s, &m->as.release);
    else if (m->type == TR_MSG_DRAIN && frontend)
        s->draining = true;
    else if (m->type == TR_MSG_STEP_DONE)
        tr_progress_step_done(s, ev->from, &m->as.step_done, fx);
    else if (m->type == TR_MSG_STEP_LAYERS)
        tr_progress_step_layers(s, ev->from, &m->as.step_layers);
    else if (m->type == TR_MSG_RESHARD_DONE && resharder)
        tr_handoff_done(s, &m->as.reshard_done, fx);
    else if (m->type == TR_MSG_STORE_DONE && s->config.has_store && ev->from == s->config.store)
        tr_stored_done(s, &m->as.store_done);
    else if (m->type == TR_MSG_STORE_STATE && s->config.has_store && ev->from == s->config.store)
        tr_stored_state(s, &m->as.store_state);
    else if (m->type == TR_MSG_RESET_DONE)
        tr_recovery_reset_done(s, ev->from, &m->as.reset_done);
    else
        s->stats.protocol_errors++;
}

static uint32_t cached_pages(const tr_scheduler *s, uint32_t p) {
    uint32_t n = 0;
    for (uint32_t g = 0; g < s->config.layout[p].n_groups && s->prefix[p]; g++)
        n += tr_kv_prefix_cached(s->prefix[p], g);
    return n;
}

/* An ended sequence keeps pages only while something could touch them, or until they are saved. */
static bool quarantined(const tr_scheduler *s, uint32_t slot) {
    const tr_sequence *q = &s->sequence[slot];
    if (tr_transfer_lost(q->transfer)) return true;
    return q->state == SEQUENCE_ENDED && (q->steps > 0 || q->unsettled != 0 || q->transfer == TR_TRANSFER_DRAINING);
}

static uint32_t quarantined_pages(const tr_scheduler *s, uint32_t p) {
    const bool known = s->component[RESHARDER].n == 0 || s->component[RESHARDER].state == COMPONENT_RUNNING;
    const tr_slots *all = known ? &s->ended : &s->open;
    uint32_t n = 0;
    for (uint32_t i = tr_slots_next(all, 0); i < s->n_slots; i = tr_slots_next(all, i + 1))
        for (uint32_t g = 0; g < s->config.layout[p].n_groups && quarantined(s, i); g++)
            n += tr_kv_table_held(&s->sequence[i].row[p], g);
    return n;
}

/* For those who look from outside. */
static void tell_pools(tr_scheduler *s) {
    tr_journal *j = s->config.journal;
    for (uint32_t p = 0; p < pools_of(&s->config); p++) {
        atomic_store_explicit(&j->cached[p], cached_pages(s, p), memory_order_relaxed);
        atomic_store_explicit(&j->quarantined[p], quarantined_pages(s, p), memory_order_relaxed);
    }
}

/* What is in these that could let somebody in says so where it is done. */
static bool tells_itself(tr_msg_type type) {
    return type == TR_MSG_STEP_DONE || type == TR_MSG_STEP_LAYERS || type == TR_MSG_CANCEL || type == TR_MSG_RELEASE;
}

void tr_scheduler_step(tr_scheduler *s, const tr_event *event, tr_effects *fx) {
    fx->n = 0;
    s->now_ns = event->now_ns;
    s->more = false;
    if (!s->started && event->kind != TR_EVENT_START) return; /* START comes first, whatever the rings hold */
    s->admission_due |= event->kind != TR_EVENT_MSG || !tells_itself(event->msg->type);
    switch (event->kind) {
    case TR_EVENT_START:
        if (!s->started) tr_recovery_start(s);
        s->started = true;
        break;
    case TR_EVENT_MSG: on_msg(s, event, fx); break;
    case TR_EVENT_PEER_UP: tr_recovery_peer_up(s, event, fx); break;
    case TR_EVENT_PEER_DOWN: tr_recovery_peer_down(s, event->from, event->as.counted); break;
    case TR_EVENT_TIMER: break;
    case TR_EVENT_STOP: s->draining = true; break;
    default: return;
    }
    const uint64_t deadline = tr_progress_expire(s);
    tr_recovery_pump(s, fx);
    tr_preempt_pump(s, fx);
    tr_intake_admit(s);
    tr_keep_pump(s, fx);
    tr_stored_pump(s, fx);
    tr_swap_pump(s, fx);
    tr_handoff_pump(s, fx); /* what it finds moved can be decoded at once */
    tr_batcher_pump(s, fx);
    flush_outputs(s, fx);
    tell_pools(s);
    tr_waits_tell(s);
    if (s->more || deadline != UINT64_MAX) {
        tr_effect *e = &fx->item[fx->n++];
        memset(e, 0, sizeof *e);
        e->kind = TR_EFFECT_TIMER;
        e->delay_ns = s->more ? 0 : deadline - s->now_ns;
    }
}

void tr_scheduler_get_stats(const tr_scheduler *s, tr_scheduler_stats *out) {
    *out = s->stats;
    out->running = s->n_running;
    out->waiting = s->n_waiting;
    out->draining = s->draining;
    out->prefix_hits = atomic_load(&s->config.journal->prefix_hits);
    out->prefix_hit_tokens = atomic_load(&s->config.journal->prefix_hit_tokens);
    out->prefix_query_tokens = atomic_load(&s->config.journal->prefix_query_tokens);
    out->preemptions = atomic_load(&s->config.journal->preemptions);
    out->preempted_tokens = atomic_load(&s->config.journal->preempted_tokens);
    out->swapped_out = atomic_load(&s->config.journal->swapped_out);
    out->swapped_in = atomic_load(&s->config.journal->swapped_in);
    out->swaps_lost = atomic_load(&s->config.journal->swaps_lost);
    for (uint32_t p = 0; p < pools_of(&s->config); p++) {
        out->pool_cached[p] = cached_pages(s, p);
        out->pool_quarantined[p] = quarantined_pages(s, p);
        for (uint32_t g = 0; g < s->config.layout[p].n_groups; g++) {
            out->pool_pages[p] += s->config.layout[p].group[g].n_pages;
            out->pool_free[p] += s->pool[p].n_free[g];
        }
    }
}

bool tr_scheduler_idle(const tr_scheduler *s) {
    uint32_t flying = 0;
    for (uint32_t c = 0; c < COMPONENTS; c++) flying += s->component[c].in_flight;
    for (uint32_t i = 0; i < s->n_flights; i++) flying += s->flight[i].used && s->flight[i].parked;
    for (uint32_t i = tr_slots_next(&s->kept, 0); i < s->n_slots; i = tr_slots_next(&s->kept, i + 1))
        if (tr_keep_saving(s, i)) return false;
    return s->n_running == 0 && s->n_waiting == 0 && flying == 0;
}

static uint64_t digest_sequence(const tr_scheduler *s, uint32_t slot, uint64_t h) {
    const tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    h = tr_rng_hash(h, (uint64_t)q->state << 32 | slot);
    if (q->state == SEQUENCE_NONE) return h;
    h = tr_rng_hash(tr_rng_hash(h, e->rid), (uint64_t)load(&e->n_tokens) << 32 | load(&e->kv_prefilled));
    h = tr_rng_hash(h, (uint64_t)load(&e->kv_moved) << 32 | load(&e->kv_decoded));
    h = tr_rng_hash(h, (uint64_t)q->issued << 32 | q->move_issued);
    h = tr_rng_hash(h, (uint64_t)q->part_end << 32 | q->part_layers);
    h = tr_rng_hash(h, (uint64_t)q->promised << 33 | (uint64_t)q->stopped << 32 | load(&e->evictions));
    h = tr_rng_hash(h, e->swap_at << 8 | load(&e->swap));
    if (s->config.has_store) h = tr_rng_hash(tr_rng_hash(h, q->fetch), (uint64_t)q->found << 32 | q->put_end);
    h = tr_rng_hash(h, (uint64_t)q->steps << 48 | (uint64_t)q->jobs << 32 | (uint64_t)q->transfer << 16 |
                           q->unsettled << 8 | e->deaths);
    for (uint32_t p = 0; p < 2; p++)
        for (uint32_t g = 0; g < TR_KV_GROUPS_MAX; g++)
            h = tr_rng_hash(h, (uint64_t)q->row[p].first[g] << 32 | q->row[p].end[g]);
    return tr_rng_hash(h, (uint64_t)q->sent << 8 | (uint64_t)q->announce << 2 | (uint64_t)q->finish_sent << 1 |
                              q->released);
}

uint64_t tr_scheduler_digest(const tr_scheduler *s) {
    uint64_t h = tr_rng_hash(s->next_order, s->last_decoded ^ (uint64_t)(uint32_t)s->last_priority << 32);
    for (uint32_t p = 0; p < 2; p++)
        h = tr_rng_hash(h, s->cost[p].measured ^ tr_cost_ns(&s->cost[p], (tr_cost_work){16, 16}));
    for (uint32_t i = 0; i < s->fair.n; i++) h = tr_rng_hash(h, s->fair.client[i].served ^ s->fair.client[i].open);
    h = tr_rng_hash(h, (uint64_t)s->last_phase << 8 | (uint64_t)s->frontend_up << 1 | s->draining);
    for (uint32_t i = 0; i < COMPONENTS; i++) {
        const tr_component *c = &s->component[i];
        h = tr_rng_hash(tr_rng_hash(h, (uint64_t)c->epoch << 32 | c->state), c->next_id << 8 | c->in_flight);
    }
    for (uint32_t i = 0; i < s->n_flights; i++)
        if (s->flight[i].used && s->flight[i].parked) h = tr_rng_hash(h, s->flight[i].layer);
    for (uint32_t i = 0; i < s->n_slots; i++) h = digest_sequence(s, i, h);
    return h;
}
