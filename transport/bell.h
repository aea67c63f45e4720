/* transport/bell.h - the doorbell of an actor: one word in shared memory that everybody who hands it work rings.
 * Why: an actor waits on many links; it sleeps on one futex. No system call unless the owner sleeps.
 * Protocol of the owner: seen = tr_bell_read(b); look at all links; if nothing: tr_bell_wait(b, seen, timeout).
 * An owner that also has descriptors (ZeroMQ) gives an eventfd and polls it with them: tr_bell_prepare / tr_bell_done.
 * Waiting spins spin_ns first (only where the plan gives the actor a core of its own), then sleeps.
 * Lies in memory of the supervisor; survives the owner. Threads: ring by anyone. */
#ifndef TR_BELL_H
#define TR_BELL_H
#include <stdbool.h>
#include <stdint.h>

typedef struct tr_bell {
    _Alignas(64) _Atomic uint32_t count; /* rings so far */
    _Atomic uint32_t sleeper;            /* 0 awake, 1 sleeps on count, 2 polls the eventfd */
    _Atomic uint32_t slept_at;           /* rings that the owner knew of when it last went to sleep */
    int32_t event_fd;                    /* EFD_NONBLOCK; same number in every process of the company; -1: none */
} tr_bell;

void tr_bell_init(tr_bell *b, int event_fd);
void tr_bell_ring(tr_bell *b);
uint32_t tr_bell_read(const tr_bell *b);
/* Returns when count differs from seen, after timeout_ns (UINT64_MAX: never), or on a signal. */
void tr_bell_wait(tr_bell *b, uint32_t seen, uint64_t spin_ns, uint64_t timeout_ns);
/* Announce that the owner is about to poll(event_fd); false when the count moved already (do not sleep). */
bool tr_bell_prepare(tr_bell *b, uint32_t seen);
void tr_bell_done(tr_bell *b); /* after poll: awake again, eventfd drained */
/* From outside: the owner sleeps and no ring is waiting for it. False for long without progress: it hangs. */
bool tr_bell_asleep(const tr_bell *b);
#endif
