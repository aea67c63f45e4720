/* base/ledger.h - where the time of a worker goes: every nanosecond is booked under one kind, by one clock reading at
 * each change. So the kinds sum up to the time since the first change, exactly, whatever the worker does.
 * Lies in shared memory, one cache line. Writer: the worker alone; after its death, whoever knows of it. Readers take
 * it without a lock, the running period included, and what they see of a kind never goes back.
 * What the kinds mean for a stage: docs/operations.md. */
#ifndef TR_LEDGER_H
#define TR_LEDGER_H
#include <stdatomic.h>
#include <stdint.h>

/* X(NAME, name) */
#define TR_LEDGER_MAP(X)                                                                                               \
    X(COMPUTE, compute)                                                                                                \
    X(COMMUNICATION, communication)                                                                                    \
    X(FILL_DRAIN, fill_drain)                                                                                          \
    X(IMBALANCE, imbalance)                                                                                            \
    X(STARVATION, starvation)                                                                                          \
    X(KV_WAIT, kv_wait)

typedef enum tr_ledger_kind {
#define X(name, text) TR_LEDGER_##name,
    TR_LEDGER_MAP(X)
#undef X
        TR_LEDGER_KINDS
} tr_ledger_kind;

/* Zeroed memory: nothing is booked yet. */
typedef struct tr_ledger {
    _Alignas(64) _Atomic uint32_t version; /* odd: a change is under way */
    _Atomic uint32_t kind;                 /* of the running period */
    _Atomic uint64_t since_ns;             /* its begin; 0: there is none, nothing runs on */
    _Atomic uint64_t ns[TR_LEDGER_KINDS];  /* of the periods before */
} tr_ledger;

const char *tr_ledger_name(tr_ledger_kind kind);
/* From now on time is of this kind; the time since the last change is booked. Returns the clock's reading. */
uint64_t tr_ledger_turn(tr_ledger *l, tr_ledger_kind kind);
/* Sums of all kinds up to now, of the clock's reading that is returned. */
uint64_t tr_ledger_read(const tr_ledger *l, uint64_t ns_out[TR_LEDGER_KINDS]);
/* Sums that were told from another host: nothing runs on here. */
void tr_ledger_set(tr_ledger *l, const uint64_t ns[TR_LEDGER_KINDS]);
#endif
