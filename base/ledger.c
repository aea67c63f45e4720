#include "base/ledger.h"

#include "base/clock.h"

#include <sched.h>

/* A writer that died in the middle of a change leaves an odd version until the next one. One that lost its core there
 * gets it back sooner. */
#define READ_NS (50 * TR_NS_PER_MS)

const char *tr_ledger_name(tr_ledger_kind kind) {
    static const char *const names[] = {
#define X(name, text) #text,
        TR_LEDGER_MAP(X)
#undef X
    };
    return kind < TR_LEDGER_KINDS ? names[kind] : "?";
}

/* The version is odd before the clock is read: a reader that saw it even afterwards has read the clock earlier. */
static void begin_change(tr_ledger *l) {
    uint32_t version = atomic_load_explicit(&l->version, memory_order_relaxed) | 1;
    atomic_store_explicit(&l->version, version, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

static void end_change(tr_ledger *l) {
    uint32_t version = atomic_load_explicit(&l->version, memory_order_relaxed) + 1;
    atomic_store_explicit(&l->version, version, memory_order_release);
}

uint64_t tr_ledger_turn(tr_ledger *l, tr_ledger_kind kind) {
    begin_change(l);
    const uint64_t now = tr_clock_now_ns(), since = atomic_load_explicit(&l->since_ns, memory_order_relaxed);
    if (since) {
        _Atomic uint64_t *sum = &l->ns[atomic_load_explicit(&l->kind, memory_order_relaxed)];
        atomic_store_explicit(sum, atomic_load_explicit(sum, memory_order_relaxed) + (now - since),
                              memory_order_relaxed);
    }
    atomic_store_explicit(&l->kind, kind, memory_order_relaxed);
    atomic_store_explicit(&l->since_ns, now, memory_order_relaxed);
    end_change(l);
    return now;
}

uint64_t tr_ledger_read(const tr_ledger *l, uint64_t ns_out[TR_LEDGER_KINDS]) {
    uint64_t now = 0, begin = 0;
    for (;; sched_yield()) {
        const uint32_t before = atomic_load_explicit(&l->version, memory_order_acquire);
        for (uint32_t k = 0; k < TR_LEDGER_KINDS; k++)
            ns_out[k] = atomic_load_explicit(&l->ns[k], memory_order_relaxed);
        const uint32_t kind = atomic_load_explicit(&l->kind, memory_order_relaxed);
        const uint64_t since = atomic_load_explicit(&l->since_ns, memory_order_relaxed);
        now = tr_clock_now_ns();
        if (since && now > since && kind < TR_LEDGER_KINDS) ns_out[kind] += now - since;
        atomic_thread_fence(memory_order_seq_cst);
        if (before % 2 == 0 && atomic_load_explicit(&l->version, memory_order_relaxed) == before) return now;
        if (begin == 0) begin = now;
        if (now - begin > READ_NS) return now;
    }
}

void tr_ledger_set(tr_ledger *l, const uint64_t ns[TR_LEDGER_KINDS]) {
    begin_change(l);
    for (uint32_t k = 0; k < TR_LEDGER_KINDS; k++) atomic_store_explicit(&l->ns[k], ns[k], memory_order_relaxed);
    atomic_store_explicit(&l->since_ns, 0, memory_order_relaxed);
    end_change(l);
}
