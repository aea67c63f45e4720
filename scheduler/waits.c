/* scheduler/waits.c - why a stage that waits has nothing to do, as one word a pipeline in the journal: the kind of the
 * ledger (base/ledger.h) that the waiting counts as. Only what is in flight, and what could be, decides it:
 *   steps in flight: as many as stages, and one has passed since the pipeline was dry -> imbalance: every stage could
 *     have one, so who waits waits for a slower one. Fewer, or none has passed yet -> the pipeline fills or drains. A
 *     step that was issued ahead cannot run before its source has ended and counts for nothing. Of a pipeline of one
 *     stage: communication, since only messages are between two steps.
 *   none in flight: what stands before this pipeline and may run, but waits for its turn on shared cores -> imbalance;
 *     may run and is held back, or the pipeline is reset -> it fills or drains; has no pages, or its hand-off or what
 * it is to fetch is not there -> KV wait; nothing stands there -> starvation. */
#include "scheduler/pace.h"

static bool filled(const tr_scheduler *s, uint32_t component) {
    const tr_component *c = &s->component[component];
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_flights; i++)
        n += s->flight[i].used && s->flight[i].component == component && s->flight[i].source == 0;
    return n >= c->n_lead && c->done_ns > c->dry_ns;
}

static tr_ledger_kind flowing(const tr_scheduler *s, uint32_t component) {
    if (s->component[component].n_lead == 1) return TR_LEDGER_COMMUNICATION;
    return filled(s, component) ? TR_LEDGER_IMBALANCE : TR_LEDGER_FILL_DRAIN;
}

/* A running sequence's next positions are for this phase. */
static bool stands_before(const tr_scheduler *s, uint32_t slot, uint32_t phase) {
    const tr_sequence *q = &s->sequence[slot];
    if (phase == PREFILL) return q->issued < q->prefill_end;
    return q->decode_end > q->prefill_end && load(&entry_of(s, slot)->kv_prefilled) >= q->prefill_end;
}

static bool lacks_kv(const tr_scheduler *s, uint32_t slot, uint32_t phase) {
    if (phase == PREFILL) return tr_keep_restoring(s, slot) || s->sequence[slot].fetch != TR_STORED_NO;
    return !decoding(s, slot);
}

static tr_ledger_kind dry(const tr_scheduler *s, uint32_t component) {
    const bool turn = s->config.exclusive && s->component[PREFILL].in_flight + s->component[DECODE].in_flight > 0;
    bool lacks = s->n_waiting > 0 && component == component_of(s, PREFILL);
    for (uint32_t i = 0; i < s->n_running; i++)
        for (uint32_t phase = PREFILL; phase <= DECODE; phase++) {
            if (component_of(s, phase) != component || !stands_before(s, s->running[i], phase)) continue;
            if (!lacks_kv(s, s->running[i], phase)) return turn ? TR_LEDGER_IMBALANCE : TR_LEDGER_FILL_DRAIN;
            lacks = true;
        }
    return lacks ? TR_LEDGER_KV_WAIT : TR_LEDGER_STARVATION;
}

void tr_waits_tell(tr_scheduler *s) {
    for (uint32_t p = 0; p < s->config.n_pipelines; p++) {
        tr_component *c = &s->component[p];
        if (c->in_flight == 0) c->dry_ns = s->now_ns;
        const tr_ledger_kind kind = c->in_flight > 0 ? flowing(s, p) : dry(s, p);
        atomic_store_explicit(&s->config.journal->waits[p], kind, memory_order_relaxed);
    }
}
