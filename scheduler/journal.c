#include "scheduler/journal.h"

#include "base/checked.h"

static bool entry_bytes(uint32_t context, uint64_t *bytes_out) {
    uint64_t n;
    return tr_checked_mul(context, sizeof(uint32_t), &n) && tr_checked_add(n, sizeof(tr_journal_entry), &n) &&
           tr_checked_align(n, 64, bytes_out);
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
