/* actors/runtime/runtime.h - what every actor process has in common: the plan, the memory, the links, the bell, the
 * peers. The real driver of a pure core is: open, then for ever { pump events into the core, send its effects, wait }.
 * At-least-once: a message is released only after the core has taken it; what an actor was handling when it died comes
 * again to its next life (ring transport), so cores ignore what they know already. Owns: mappings, channels, the
 * process's only ZeroMQ context. Threads: one. No heap after open. */
#ifndef TR_RUNTIME_H
#define TR_RUNTIME_H
#include "actors/runtime/company.h"
#include "actors/runtime/control.h"
#include "base/status.h"
#include "transport/channel.h"
#include "transport/codec.h"
#include "transport/event.h"

#include <stdbool.h>
#include <stdint.h>

enum { TR_RUNTIME_LINKS_MAX = 2 * TR_COMPANY_ACTORS_MAX + 8 };

typedef struct tr_runtime_link {
    tr_channel *channel;
    uint32_t kind, peer; /* the other end */
    bool producer;
    bool near; /* a ring to the peer itself */
} tr_runtime_link;

typedef struct tr_runtime_peer {
    uint32_t incarnation, counted_deaths;
    bool up;
} tr_runtime_peer;

typedef struct tr_runtime {
    const tr_company *company;
    const tr_company_actor *me;
    uint32_t index, incarnation;
    tr_control *control;
    tr_control_block *block;
    void *segment[TR_SEGMENT_COUNT];
    void *zmq; /* created on first use */
    uint32_t n_links;
    tr_runtime_link link[TR_RUNTIME_LINKS_MAX];
    uint32_t changes_seen;
    tr_runtime_peer peer[TR_COMPANY_ACTORS_MAX];
    tr_codec_arena arena; /* of the message that is being handled */
    void *arena_memory;
    uint64_t protocol_errors, send_full;
    int poll_fd;      /* one descriptor more that wakes it while it sleeps in poll; -1: none */
    bool poll_writes; /* also when that can be written */
    bool polls;       /* sleeps in poll (has descriptors), not on the futex */
} tr_runtime;

/* Called for each event; must have taken everything out of event->msg when it returns. */
typedef void (*tr_runtime_handler)(void *self, const tr_event *event);

/* First thing in an actor process. name: from the command line. */
tr_status tr_runtime_open(const char *name, tr_runtime *rt, tr_error *err);
void tr_runtime_close(tr_runtime *rt);
/* Have the supervisor look at the control memory. */
void tr_runtime_ring_supervisor(tr_runtime *rt);
/* Publish READY and tell the supervisor. */
void tr_runtime_ready(tr_runtime *rt);
/* True once the company is ending: leave the loop. */
bool tr_runtime_stopping(const tr_runtime *rt);

/* Deliver peer changes and all waiting control messages. Returns true when anything was delivered. */
bool tr_runtime_pump(tr_runtime *rt, tr_runtime_handler handler, void *self);
/* Encode and send to a peer's control link. TR_AGAIN: the link is full, nothing was sent (counted in send_full). */
tr_status tr_runtime_send(tr_runtime *rt, uint32_t to, const tr_msg *msg);
/* The same, but a peer of this host that sleeps goes on sleeping (tr_effect.quiet). */
tr_status tr_runtime_send_quiet(tr_runtime *rt, uint32_t to, const tr_msg *msg);
/* A data link, or NULL. */
tr_channel *tr_runtime_data_in(tr_runtime *rt, tr_link_kind kind);
tr_channel *tr_runtime_data_out(tr_runtime *rt, tr_link_kind kind);
/* Who reads what goes out there, or NULL. */
tr_control_block *tr_runtime_data_reader(tr_runtime *rt, tr_link_kind kind);

/* Sleep until the bell differs from seen, a descriptor of this actor is readable, or timeout_ns has passed. seen was
 * read by tr_bell_read before everything was looked at. socket: one ZeroMQ socket more to wait for, or NULL. */
void tr_runtime_wait(tr_runtime *rt, uint32_t seen, uint64_t timeout_ns, void *socket);
void *tr_runtime_zmq(tr_runtime *rt);
#endif
