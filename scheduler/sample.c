/* The leader (sample 0) is prefilled, draws the first token of every sample, and is handed over. Then the others fork:
 * they hold the full pages of the prompt together with it, and a page of their own for the rest of the prompt, into
 * which the stages copy the leader's at the begin of their first decode step. Until that is confirmed the leader keeps
 * its pages. A sample that finds its leader gone, cancelled or without the pages is a sequence like any other: its
 * draws are keyed by its index, so its text is the same. So is one of a prompt that fills the context: a fork is made
 * for its first decode step, and it has none. */
#include "scheduler/reuse.h"

#include <string.h>

static uint64_t leader_rid(const tr_journal_entry *e) { return e->rid - e->sample; }

uint32_t tr_sample_leader(const tr_scheduler *s, uint32_t slot) {
    tr_journal_entry *e = entry_of(s, slot);
    return e->sample > 0 ? tr_intake_find(s, leader_rid(e)) : NO_SLOT;
}

uint32_t tr_sample_find(const tr_scheduler *s, uint32_t leader, uint32_t k) {
    return tr_intake_find(s, entry_of(s, leader)->rid + k);
}

/* Its prompt is computed, and where it is decoded. */
static bool prompt_done(const tr_scheduler *s, uint32_t slot) {
    const tr_sequence *q = &s->sequence[slot];
    return load(&entry_of(s, slot)->kv_prefilled) == q->prefill_end &&
           load(&entry_of(s, slot)->kv_moved) == q->prefill_end;
}

bool tr_sample_waits(const tr_scheduler *s, uint32_t slot) {
    uint32_t leader = tr_sample_leader(s, slot);
    return leader != NO_SLOT && s->sequence[leader].state != SEQUENCE_ENDED && !prompt_done(s, leader);
}

/* ---- fork ---- */
static uint32_t decode_pool(const tr_scheduler *s) { return s->config.one_pool ? 0 : 1; }

static uint32_t first_page(const tr_scheduler *s, uint32_t slot, uint32_t g) {
    const tr_kv_layout *l = &s->config.layout[decode_pool(s)];
    return window_begin(&l->group[g], s->sequence[slot].prefill_end) / l->page_tok;
}

bool tr_sample_find_fork(tr_scheduler *s, uint32_t slot, tr_reuse *r) {
    const uint32_t p = decode_pool(s), leader = tr_sample_leader(s, slot), end = s->sequence[slot].prefill_end;
    const tr_kv_layout *l = &s->config.layout[p];
    if (leader == NO_SLOT || !prompt_done(s, leader) || s->sequence[slot].decode_end == end) return false;
    const tr_kv_table_row *row = &s->sequence[leader].row[p];
    r->start[0] = r->start[1] = end;
    r->pages[p] = end / l->page_tok;
    for (uint32_t g = 0; g < l->n_groups; g++) {
        uint32_t from = first_page(s, slot, g), to = (end + l->page_tok - 1) / l->page_tok;
        if (from < to && (from < row->first[g] || to > row->end[g])) goto gone;
        if (from < r->pages[p]) r->known.pages[p][g] = r->pages[p] - from;
    }
    r->leader = leader;
    return true;
gone:
    *r = (tr_reuse){.leader = NO_SLOT};
    return false;
}

void tr_sample_share(tr_scheduler *s, uint32_t slot, const tr_reuse *r) {
    const uint32_t p = decode_pool(s);
    const tr_kv_layout *l = &s->config.layout[p];
    tr_sequence *q = &s->sequence[slot];
    uint32_t *table = s->config.table[p];
    bool rest = q->prefill_end % l->page_tok != 0;
    if (rest) publish(&entry_of(s, slot)->fork, 1 + r->leader);
    for (uint32_t g = 0; g < l->n_groups; g++) {
        for (uint32_t i = first_page(s, slot, g); i < r->pages[p]; i++)
            tr_kv_table_share(l, table, slot, &q->row[p], g, i, table[tr_kv_layout_entry(l, r->leader, g, i)],
                              &s->pool[p]);
        if (rest) /* the budget has it */
            tr_check(tr_kv_table_extend(l, table, slot, &q->row[p], g, r->pages[p] * l->page_tok, q->prefill_end,
                                        &s->pool[p]) == TR_OK);
    }
}

uint32_t tr_sample_copies(const tr_scheduler *s, uint32_t slot, uint32_t *copies) {
    const uint32_t p = decode_pool(s), fork = load(&entry_of(s, slot)->fork);
    const tr_kv_layout *l = &s->config.layout[p];
    uint32_t n = 0, page = s->sequence[slot].prefill_end / l->page_tok;
    for (uint32_t g = 0; g < l->n_groups && fork > 0; g++) {
        copies[n++] = g;
        copies[n++] = s->config.table[p][tr_kv_layout_entry(l, fork - 1, g, page)];
        copies[n++] = s->config.table[p][tr_kv_layout_entry(l, slot, g, page)];
    }
    return n;
}

void tr_sample_copied(tr_scheduler *s, uint32_t slot) {
    uint32_t fork = load(&entry_of(s, slot)->fork);
    if (fork == 0) return;
    publish(&entry_of(s, slot)->fork, 0);
    tr_progress_tidy(s, fork - 1);
}

bool tr_sample_is_source(const tr_scheduler *s, uint32_t slot) {
    const tr_journal_entry *e = entry_of(s, slot);
    for (uint32_t k = 1; k < e->n_samples && e->sample == 0; k++) {
        const uint32_t i = tr_sample_find(s, slot, k);
        if (i != NO_SLOT && load(&entry_of(s, i)->fork) == 1 + slot) return true;
    }
    return false;
}

/* ---- what happens to the leader ---- */
void tr_sample_drawn(tr_scheduler *s, uint32_t leader, uint32_t position, const tr_progress_token *tokens) {
    tr_journal_entry *e = entry_of(s, leader);
    for (uint32_t k = 1; k < e->n_samples; k++) {
        uint32_t slot = tr_sample_find(s, leader, k);
        if (slot == NO_SLOT || s->sequence[slot].state == SEQUENCE_ENDED) continue;
        if (entry_of(s, slot)->first_step_ns == 0) entry_of(s, slot)->first_step_ns = e->first_step_ns;
        if (tr_progress_append(s, slot, position, &tokens[k])) tr_progress_check_end(s, slot);
    }
}

void tr_sample_failed(tr_scheduler *s, uint32_t leader) {
    tr_journal_entry *e = entry_of(s, leader);
    for (uint32_t k = 1; k < e->n_samples && e->sample == 0; k++) {
        uint32_t slot = tr_sample_find(s, leader, k);
        if (slot != NO_SLOT && s->sequence[slot].state == SEQUENCE_WAITING)
            tr_progress_end(s, slot, TR_FINISH_ERROR, UINT32_MAX, e->code, e->error,
                            (uint32_t)strnlen(e->error, sizeof e->error));
    }
}
