#include "scheduler/swap.h"

#include "kv/kv_swap.h"
#include "scheduler/pace.h"
#include "scheduler/preempt.h"
#include "scheduler/reuse.h"

#define REST_NS 10000000000ull /* between a failure to write and the next try */

enum { TRIES = 2 };

static bool possible(const tr_scheduler *s) {
    return s->config.swap_bytes > 0 && s->component[RESHARDER].n == 1; /* both pools and the space on one host */
}

bool tr_swap_is_out(const tr_scheduler *s, uint32_t slot) {
    return possible(s) && load(&entry_of(s, slot)->swap) == TR_JOURNAL_SWAP_OUT;
}

bool tr_swap_writes(const tr_scheduler *s, uint32_t slot) {
    return s->config.swap_bytes > 0 && load(&entry_of(s, slot)->swap) == TR_JOURNAL_SWAP_WRITING;
}

static bool has_space(const tr_scheduler *s, uint32_t slot) {
    return load(&entry_of(s, slot)->state) != TR_JOURNAL_FREE && load(&entry_of(s, slot)->swap) != TR_JOURNAL_SWAP_NONE;
}

static void use(tr_scheduler *s, const tr_journal_entry *e, bool more) {
    _Atomic uint64_t *used = &s->config.journal->swap_used;
    atomic_store_explicit(used, atomic_load(used) + (more ? e->swap_bytes : -e->swap_bytes), memory_order_relaxed);
}

void tr_swap_forget(tr_scheduler *s, uint32_t slot) {
    tr_journal_entry *e = entry_of(s, slot);
    if (load(&e->swap) == TR_JOURNAL_SWAP_NONE) return;
    publish(&e->swap, TR_JOURNAL_SWAP_NONE);
    use(s, e, false);
}

void tr_swap_take_over(tr_scheduler *s) {
    atomic_store(&s->config.journal->swap_used, 0);
    for (uint32_t i = 0; i < s->n_slots; i++)
        if (has_space(s, i)) use(s, entry_of(s, i), true);
}

/* ---- space ---- */
static bool overlaps(const tr_scheduler *s, uint64_t at, uint64_t bytes) {
    for (uint32_t i = tr_slots_next(&s->open, 0); i < s->n_slots; i = tr_slots_next(&s->open, i + 1)) {
        const tr_journal_entry *e = entry_of(s, i);
        if (has_space(s, i) && at < e->swap_at + e->swap_bytes && e->swap_at < at + bytes) return true;
    }
    return false;
}

/* The lowest place: the begin, or behind some image. */
static bool find_space(const tr_scheduler *s, uint64_t bytes, uint64_t *at_out) {
    const uint64_t size = s->config.swap_bytes;
    bool found = bytes <= size && !overlaps(s, 0, bytes);
    *at_out = 0;
    for (uint32_t i = tr_slots_next(&s->open, 0); i < s->n_slots && bytes <= size; i = tr_slots_next(&s->open, i + 1)) {
        const uint64_t at = entry_of(s, i)->swap_at + entry_of(s, i)->swap_bytes;
        if (!has_space(s, i) || at > size - bytes || (found && at >= *at_out) || overlaps(s, at, bytes)) continue;
        *at_out = at;
        found = true;
    }
    return found;
}

/* ---- out ---- */
/* What it takes to compute [pos, end) of one sequence in steps of a chunk each. */
static uint64_t compute_ns(const tr_scheduler *s, uint32_t phase, uint32_t pos, uint32_t end) {
    uint64_t ns = 0;
    for (uint32_t rows; pos < end; pos += rows) {
        tr_cost_work work = {0};
        rows = end - pos < s->config.chunk ? end - pos : s->config.chunk;
        tr_pace_add(s, &work, pos, rows);
        ns += tr_cost_ns(&s->cost[phase], work);
    }
    return ns;
}

/* Until there are measurements it is tried: that is how they come. */
static bool pays(const tr_scheduler *s, uint32_t slot, uint64_t bytes) {
    const uint32_t prompt = s->sequence[slot].prefill_end;
    const uint64_t ns =
        compute_ns(s, PREFILL, 0, prompt) + compute_ns(s, DECODE, prompt, load(&entry_of(s, slot)->kv_decoded));
    return s->swap_bytes == 0 || ns == 0 ||
           2.0 * (double)bytes / (double)s->swap_bytes * (double)s->swap_ns < (double)ns;
}

/* All of it lies in the decode pool, and is its own or complete. What came from a file comes from there again. */
static bool whole(const tr_scheduler *s, uint32_t slot) {
    tr_journal_entry *e = entry_of(s, slot);
    const uint32_t end = s->sequence[slot].prefill_end;
    return load(&e->kv_prefilled) == end && load(&e->kv_moved) == end && load(&e->fork) == 0 && !e->restore[0];
}

static bool can_issue(tr_scheduler *s, const tr_effects *fx) {
    return s->component[RESHARDER].state == COMPONENT_RUNNING && tr_handoff_free_job(s) != NULL && room(s, fx, 1);
}

static void issue(tr_scheduler *s, uint32_t slot, uint32_t file, tr_effects *fx) {
    const tr_journal_entry *e = entry_of(s, slot);
    tr_handoff_job *job = tr_handoff_free_job(s);
    *job = (tr_handoff_job){.rid = e->rid, .slot = slot, .file = file, .pool = pool_of(s, DECODE), .tok1 = e->swap_end};
    for (uint32_t g = 0; g < TR_KV_GROUPS_MAX; g++) job->tok_min[g] = e->swap_min[g];
    tr_handoff_issue(s, slot, job, fx);
}

bool tr_swap_out(tr_scheduler *s, uint32_t slot, tr_effects *fx) {
    const tr_kv_layout *l = &s->config.layout[pool_of(s, DECODE)];
    const tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    uint32_t tok_min[TR_KV_GROUPS_MAX] = {0};
    uint64_t at = 0;
    if (!possible(s) || s->now_ns < s->swap_rest_ns || e->swap_tries >= TRIES || !whole(s, slot) ||
        load(&e->swap) != TR_JOURNAL_SWAP_NONE || !can_issue(s, fx))
        return false;
    for (uint32_t g = 0; g < l->n_groups; g++) tok_min[g] = q->row[pool_of(s, DECODE)].first[g] * l->page_tok;
    const uint64_t bytes = tr_kv_swap_bytes(l, tok_min, load(&e->kv_decoded));
    if (bytes == 0 || !pays(s, slot, bytes) || !find_space(s, bytes, &at)) return false;
    e->swap_at = at;
    e->swap_bytes = bytes;
    e->swap_end = load(&e->kv_decoded);
    e->swap_n++;
    for (uint32_t g = 0; g < TR_KV_GROUPS_MAX; g++) e->swap_min[g] = tok_min[g];
    publish(&e->swap, TR_JOURNAL_SWAP_WRITING);
    use(s, e, true);
    issue(s, slot, TR_HANDOFF_SWAP_OUT, fx);
    return true;
}

/* ---- and back ---- */
static void bring_back(tr_scheduler *s, uint32_t slot, tr_effects *fx) {
    const uint32_t p = pool_of(s, DECODE);
    tr_journal_entry *e = entry_of(s, slot);
    tr_kv_table_drop_all(&s->config.layout[p], s->config.table[p], slot, &s->sequence[slot].row[p], &s->pool[p]);
    tr_check(tr_handoff_hold_pages(s, slot, e->swap_min, e->swap_end)); /* it held as many before */
    issue(s, slot, TR_HANDOFF_SWAP_IN, fx);
}

void tr_swap_pump(tr_scheduler *s, tr_effects *fx) {
    for (uint32_t i = 0; i < s->n_running && possible(s); i++) {
        const uint32_t slot = s->running[i];
        const tr_sequence *q = &s->sequence[slot];
        if (!tr_swap_is_out(s, slot) || q->stopped || q->steps > 0 || !settled(q) || tr_transfer_flies(q->transfer))
            continue;
        if (!can_issue(s, fx)) return;
        bring_back(s, slot, fx);
    }
}

void tr_swap_mend(tr_scheduler *s, uint32_t slot) {
    tr_journal_entry *e = entry_of(s, slot);
    const uint32_t prefill_end = e->prompt_len - e->forced;
    /* It died before the pages went: they are still the better copy. */
    if (load(&e->swap) == TR_JOURNAL_SWAP_OUT && load(&e->kv_prefilled) > 0) tr_swap_forget(s, slot);
    if (load(&e->swap) != TR_JOURNAL_SWAP_BACK) return;
    publish(&e->kv_prefilled, prefill_end);
    publish(&e->kv_moved, prefill_end);
    if (load(&e->kv_decoded) < e->swap_end) publish(&e->kv_decoded, e->swap_end);
    tr_swap_forget(s, slot);
}

static void count(_Atomic uint64_t *what, uint64_t n) { atomic_fetch_add_explicit(what, n, memory_order_relaxed); }

/* Its pages are known or stored already, as far as they may be. */
static void is_back(tr_scheduler *s, uint32_t slot) {
    tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    count(&s->config.journal->swapped_in, 1);
    publish(&e->swap, TR_JOURNAL_SWAP_BACK);
    tr_swap_mend(s, slot);
    e->prefilled_ns = s->now_ns;
    q->issued = q->move_issued = q->prefill_end;
    q->put_end = e->swap_end;
    q->known[0].ends = q->known[1].ends = true;
    s->admission_due |= e->n_samples > 1; /* others may wait for it */
}

static void is_out(tr_scheduler *s, uint32_t slot) {
    if (tr_sample_is_source(s, slot)) { /* meanwhile */
        tr_swap_forget(s, slot);
        return;
    }
    count(&s->config.journal->swapped_out, 1);
    publish(&entry_of(s, slot)->swap, TR_JOURNAL_SWAP_OUT);
    tr_preempt_evict(s, slot, TR_PREEMPT_TO_IMAGE);
}

static void failed(tr_scheduler *s, const tr_handoff_job *job) {
    entry_of(s, job->slot)->swap_tries++;
    if (s->sequence[job->slot].state != SEQUENCE_RUNNING) return;
    if (job->file == TR_HANDOFF_SWAP_IN)
        tr_preempt_evict(s, job->slot, TR_PREEMPT_IMAGE_LOST);
    else
        tr_swap_forget(s, job->slot);
}

void tr_swap_answer(tr_scheduler *s, const tr_handoff_job *job, const tr_msg_reshard_done *m) {
    const uint32_t slot = job->slot;
    if (m->status != 0) {
        if (job->file == TR_HANDOFF_SWAP_OUT) s->swap_rest_ns = s->now_ns + REST_NS;
        failed(s, job);
        return;
    }
    s->swap_bytes = s->swap_bytes / 4 * 3 + m->bytes;
    s->swap_ns = s->swap_ns / 4 * 3 + m->ns;
    if (s->sequence[slot].state != SEQUENCE_RUNNING) return;
    if (job->file == TR_HANDOFF_SWAP_IN)
        is_back(s, slot);
    else
        is_out(s, slot);
}

/* The resharder died over it. A way back is tried again. */
void tr_swap_dropped(tr_scheduler *s, const tr_handoff_job *job) {
    if (job->file == TR_HANDOFF_SWAP_OUT || entry_of(s, job->slot)->swap_tries + 1 >= TRIES)
        failed(s, job);
    else
        entry_of(s, job->slot)->swap_tries++;
}
