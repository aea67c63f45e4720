/* Who comes first. Among those that wait: the smaller number of priority; of those the lower level where there are
 * levels; of those the client that has had less; of those the one that came earlier. Among those that run: priority,
 * then arrival. */
#include "scheduler/order.h"
#include "scheduler/reuse.h"
#include "scheduler/swap.h"

#define STARVED_NS 1000000000ull /* who has waited so long for a turn is on the first level */

enum { OUTPUT_TOKEN = 4 }; /* of a client's counter: about what it costs more than a token of a prompt */

bool tr_order_before(const tr_scheduler *s, uint32_t a, uint32_t b) {
    const tr_turn *x = &s->turn[a], *y = &s->turn[b];
    return x->priority != y->priority ? x->priority < y->priority : x->order < y->order;
}

uint32_t tr_order_level(const tr_scheduler *s, uint32_t slot) {
    const tr_sequence *q = &s->sequence[slot];
    tr_journal_entry *e = entry_of(s, slot);
    if (!s->policy->feedback || s->now_ns - q->issued_ns >= STARVED_NS) return 0;
    const uint32_t prefilled = load(&e->kv_prefilled), decoded = load(&e->kv_decoded);
    const uint64_t output = decoded > q->prefill_end ? decoded - q->prefill_end : 0;
    return tr_policy_level(q->prefill_end, prefilled + output * TR_POLICY_DECODE_SERVICE);
}

static uint64_t had(const tr_scheduler *s, uint32_t slot) {
    return s->config.fair ? tr_fair_served(&s->fair, s->turn[slot].client) : 0;
}

static bool comes_before(const tr_scheduler *s, uint32_t a, uint32_t b) {
    const tr_turn *x = &s->turn[a], *y = &s->turn[b];
    if (x->priority != y->priority) return x->priority < y->priority;
    const uint32_t i = tr_order_level(s, a), k = tr_order_level(s, b);
    if (i != k) return i < k;
    return had(s, a) != had(s, b) ? had(s, a) < had(s, b) : x->order < y->order;
}

uint32_t tr_order_next(const tr_scheduler *s, bool closed) {
    uint32_t best = NO_SLOT;
    const bool sorted = !s->config.fair && !s->policy->feedback; /* as s->waiting is */
    for (uint32_t i = 0; i < s->n_waiting; i++) {
        if (best != NO_SLOT && (sorted || s->turn[s->waiting[i]].priority != s->turn[s->waiting[best]].priority)) break;
        if (best != NO_SLOT && !comes_before(s, s->waiting[i], s->waiting[best])) continue;
        if (closed && tr_sample_leader(s, s->waiting[i]) == NO_SLOT) continue;
        if (tr_swap_is_out(s, s->waiting[i]) || !tr_sample_waits(s, s->waiting[i])) best = i;
    }
    return best;
}

/* A client is who sends, and for whom: the salt of its prefixes. */
void tr_order_open(tr_scheduler *s, uint32_t slot) {
    const tr_journal_entry *e = entry_of(s, slot);
    const uint64_t who = tr_siphash(s->config.prefix_key, e->client, e->client_len);
    s->turn[slot] =
        (tr_turn){.order = e->order, .priority = e->priority, .client = tr_fair_open(&s->fair, who ^ e->tenant[0])};
    s->sequence[slot].issued_ns = s->now_ns;
}

void tr_order_charge(tr_scheduler *s, uint32_t slot, uint32_t prompt, uint32_t output) {
    tr_fair_charge(&s->fair, s->turn[slot].client, prompt + (uint64_t)output * OUTPUT_TOKEN);
}
