#include "scheduler/journal.h"

#include "base/checked.h"

static bool entry_bytes(uint32_t context, uint64_t *bytes_out) {
    uint64_t n;
    return tr_checked_add(context, 2 * TR_MAX_LOGPROB_ENTRIES, &n) && tr_checked_mul(n, sizeof(uint32_t), &n) &&
           tr_checked_add(n, sizeof(tr_journal_entry), &n) && tr_checked_align(n, 64, bytes_out);
}

uint64_t tr_journal_bytes(uint32_t n_slots, uint32_t context) {
    uint64_t n;
    if (!entry_bytes(context, &n) || !tr_checked_mul(n, n_slots, &n) || !tr_checked_add(n, sizeof(tr_journal), &n))
        return 0;
    return n;
}

void tr_journal_init(tr_journal *j, uint32_t n_slots, uint32_t context) {
    uint64_t bytes;
    tr_check(entry_bytes(context, &bytes));
    j->n_slots = n_slots;
    j->context = context;
    j->entry_bytes = bytes;
    for (uint32_t p = 0; p < 2; p++) atomic_init(&j->waits[p], TR_LEDGER_STARVATION);
}

bool tr_journal_edits(const tr_journal_entry *e, uint32_t position) {
    return e->n_bias > 0 || e->presence_penalty != 0 || e->frequency_penalty != 0 || e->repetition_penalty != 1 ||
           position < (uint64_t)e->prompt_len + e->min_tokens;
}

/* The oldest half is left out: the writer may be at it while somebody else looks. */
uint32_t tr_journal_view(const tr_journal *j, tr_journal_entry *e, uint32_t from, uint32_t end, tr_msg_output *m) {
    const uint32_t keep = TR_MAX_LOGPROB_TOKENS / 2, have = end;
    if (e->logprobs > 0 && from < end) {
        const uint32_t turn = from - from % TR_MAX_LOGPROB_TOKENS + TR_MAX_LOGPROB_TOKENS;
        if (end > turn) end = turn;
        uint32_t first = have > keep ? have - keep : 0;
        if (first < from) first = from;
        const uint32_t *ids = tr_journal_logprobs(j, e, first), n = first < end ? (end - first) * e->logprobs : 0;
        m->logprob_ids = (tr_u32v){ids, n};
        m->logprobs = (tr_realv){(const float *)(const void *)(ids + TR_MAX_LOGPROB_ENTRIES), n};
    }
    m->index = from;
    m->tokens = (tr_u32v){e->tokens + e->prompt_len + from, end - from};
    return end;
}
