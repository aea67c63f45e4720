/* Sequences to a file and back. The resharder does the work as one more job; a file that cannot be read or written
 * costs no request: the prompt is computed, or the text stays unsaved, and a note says so. */
#include "scheduler/scheduler_state.h"

#include "scheduler/swap.h"

#include <string.h>

enum { TRIES = 2 };

static bool possible(const tr_scheduler *s) { return s->component[RESHARDER].n > 0; }

static bool file_waits(const tr_scheduler *s, uint32_t slot) {
    tr_journal_entry *e = entry_of(s, slot);
    return possible(s) && e->restore[0] && load(&e->restored) == TR_JOURNAL_FILE_OPEN;
}

bool tr_keep_restoring(const tr_scheduler *s, uint32_t slot) { return file_waits(s, slot) || tr_swap_is_out(s, slot); }

bool tr_keep_saving(const tr_scheduler *s, uint32_t slot) {
    tr_journal_entry *e = entry_of(s, slot);
    return possible(s) && s->sequence[slot].state == SEQUENCE_ENDED && e->save[0] &&
           load(&e->saved) == TR_JOURNAL_FILE_OPEN;
}

static void note(tr_journal_entry *e, const char *text, uint32_t len) {
    if (e->note[0] || len == 0) return; /* the first one counts */
    if (len >= sizeof e->note) len = sizeof e->note - 1;
    memcpy(e->note, text, len);
    e->note[len] = 0;
}

/* Positions [tok_min, tok1) of the pool that the next query would see. */
static void bounds(const tr_scheduler *s, tr_handoff_job *job, uint32_t end) {
    const tr_kv_layout *l = &s->config.layout[job->pool];
    job->tok1 = end;
    for (uint32_t g = 0; g < l->n_groups; g++) job->tok_min[g] = window_begin(&l->group[g], end);
}

static void drop_pages(tr_scheduler *s, uint32_t slot) {
    const uint32_t p = pool_of(s, DECODE);
    tr_kv_table_drop_all(&s->config.layout[p], s->config.table[p], slot, &s->sequence[slot].row[p], &s->pool[p]);
    s->sequence[slot].table_version++;
}

static bool restore_job(tr_scheduler *s, uint32_t slot, tr_handoff_job *job) {
    const tr_sequence *q = &s->sequence[slot];
    if (q->state != SEQUENCE_RUNNING || q->stopped || q->jobs > 0 || !settled(q) || !file_waits(s, slot)) return false;
    job->file = TR_HANDOFF_RESTORE;
    job->pool = pool_of(s, DECODE);
    bounds(s, job, entry_of(s, slot)->restore_end);
    drop_pages(s, slot); /* what an earlier try held, whole or in part */
    return tr_handoff_hold_pages(s, slot, job->tok_min, job->tok1);
}

static bool save_job(tr_scheduler *s, uint32_t slot, tr_handoff_job *job) {
    const tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    if (q->jobs > 0 || q->steps > 0 || !settled(q) || !tr_keep_saving(s, slot)) return false;
    bool moved = q->decode_end > q->prefill_end && load(&e->kv_moved) == q->prefill_end;
    uint32_t end = moved ? load(&e->kv_decoded) : load(&e->kv_prefilled), have = load(&e->n_tokens);
    job->file = TR_HANDOFF_SAVE;
    job->pool = pool_of(s, moved ? DECODE : PREFILL);
    bounds(s, job, end < have ? end : have); /* a stop text may have cut behind what was computed */
    if (end == 0 || e->finish == TR_FINISH_ERROR || job->tok1 < end) {
        static const char text[] = "not saved: it ended before, or within, what was computed";
        note(e, text, sizeof text - 1);
        publish(&e->saved, TR_JOURNAL_FILE_FAILED);
        tr_progress_tidy(s, slot);
        return false;
    }
    return true;
}

void tr_keep_pump(tr_scheduler *s, tr_effects *fx) {
    const tr_component *c = &s->component[RESHARDER];
    if (!possible(s)) return;
    for (uint32_t slot = tr_slots_next(&s->kept, 0); slot < s->n_slots; slot = tr_slots_next(&s->kept, slot + 1)) {
        if (c->state != COMPONENT_RUNNING || !room(s, fx, 1)) return;
        tr_handoff_job *job = tr_handoff_free_job(s), next = {.rid = entry_of(s, slot)->rid, .slot = slot};
        if (job == NULL) return;
        if (!restore_job(s, slot, &next) && !save_job(s, slot, &next)) continue;
        *job = next;
        tr_handoff_issue(s, slot, job, fx);
    }
}

/* Without the file the prompt is computed from its beginning, so its pages begin there too. */
static void restored(tr_scheduler *s, uint32_t slot, bool good) {
    tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    if (!good && q->state != SEQUENCE_ENDED) drop_pages(s, slot);
    publish(&e->restored, good ? TR_JOURNAL_FILE_DONE : TR_JOURNAL_FILE_FAILED);
    if (!good || q->state == SEQUENCE_ENDED) return;
    tr_keep_mend(e);
    q->issued = q->move_issued = q->prefill_end;
}

void tr_keep_mend(tr_journal_entry *e) {
    if (load(&e->restored) != TR_JOURNAL_FILE_DONE || load(&e->kv_decoded) >= e->restore_end) return;
    publish(&e->kv_prefilled, e->prompt_len - e->forced);
    publish(&e->kv_moved, e->prompt_len - e->forced);
    publish(&e->kv_decoded, e->restore_end);
}

void tr_keep_done(tr_scheduler *s, const tr_handoff_job *job, const tr_msg_reshard_done *m) {
    tr_journal_entry *e = entry_of(s, job->slot);
    if (job->file >= TR_HANDOFF_SWAP_OUT) {
        tr_swap_answer(s, job, m);
        return;
    }
    note(e, m->note.data, m->note.len);
    if (job->file == TR_HANDOFF_RESTORE) {
        restored(s, job->slot, m->status == 0);
        return;
    }
    e->saved_bytes = m->status == 0 ? m->bytes : 0;
    publish(&e->saved, m->status == 0 ? TR_JOURNAL_FILE_DONE : TR_JOURNAL_FILE_FAILED);
}

void tr_keep_dropped(tr_scheduler *s, const tr_handoff_job *job) {
    static const char text[] = "the resharder died twice over the file of this sequence; it was left alone";
    tr_journal_entry *e = entry_of(s, job->slot);
    if (job->file >= TR_HANDOFF_SWAP_OUT) {
        tr_swap_dropped(s, job);
        return;
    }
    if (++e->file_tries < TRIES) return;
    note(e, text, sizeof text - 1);
    if (job->file == TR_HANDOFF_RESTORE)
        restored(s, job->slot, false);
    else
        publish(&e->saved, TR_JOURNAL_FILE_FAILED);
}
