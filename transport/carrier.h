/* transport/carrier.h - records of many links over one connection between two nodes.
 * Why: an actor knows rings only. Where the ends of a link lie on two nodes there is a ring on each, and a carrier on
 * each takes records out of one and puts them into the other, in order, whole, bounded.
 * Session: from tr_carrier_begin to the next. Frames of another session are dropped, so nothing of an old connection
 * comes late; what was under way at a break is lost, and whoever runs the carrier must tell the actors above that their
 * peers went down and came up (they send again by epochs). Within a session nothing is lost.
 * Back-pressure: at most `window` records of a link are under way, counted until the receiver has put them into its
 * ring; a full ring stops its own link alone.
 * Every frame has a CRC32C: of the head for links whose records are checked by their receiver, else of all of it. A
 * damaged, unexpected or oversized frame is TR_PROTO: end the session.
 * Owns: queues of frames. Borrows: channels. Threads: one. No heap on its way but for messages of libzmq. */
#ifndef TR_CARRIER_H
#define TR_CARRIER_H
#include "base/status.h"
#include "transport/channel.h"
#include "transport/codec.h"

#include <stdbool.h>
#include <stdint.h>

enum { TR_CARRIER_HEAD_BYTES = 32, TR_CARRIER_WINDOW_MAX = 64, TR_CARRIER_LINKS_MAX = 512 };

typedef struct tr_carrier_link {
    uint32_t id;         /* the same on both nodes; below TR_CARRIER_LINKS_MAX */
    tr_channel *channel; /* out: consumer end of a ring; in: producer end */
    bool out;
    bool checked;    /* its records have checks of their own: only the frame's head has one here */
    uint32_t window; /* the same on both nodes */
    size_t record_max;
} tr_carrier_link;

typedef struct tr_carrier_config {
    uint32_t n_links;
    const tr_carrier_link *link;
    void *arg;
    /* Hand a zmq_msg_t to the socket; it is taken over whatever the result. Not TR_OK: the connection is of no use. */
    tr_status (*send)(void *arg, void *message);
    /* Before a record leaves: what must arrive first may be sent. NULL: nothing. */
    tr_status (*before)(void *arg, uint32_t id, const void *record, size_t bytes);
} tr_carrier_config;

typedef struct tr_carrier_stats {
    uint64_t frames_out, frames_in, bytes_out, bytes_in; /* records only */
    uint64_t dropped;                                    /* frames of other sessions */
} tr_carrier_stats;

typedef struct tr_carrier tr_carrier;
tr_status tr_carrier_create(const tr_carrier_config *config, tr_carrier **out, tr_error *err);
void tr_carrier_destroy(tr_carrier **c);

/* Session of both ends, not 0. Before the first one nothing is carried. */
void tr_carrier_begin(tr_carrier *c, uint32_t session);
void tr_carrier_end(tr_carrier *c);

/* A received message (zmq_msg_t, taken over). A message for the actor that runs the carrier comes out as
 * *control_out, *bytes_out (valid until the next call); else NULL. TR_PROTO with a text. */
tr_status tr_carrier_take(tr_carrier *c, void *message, const void **control_out, size_t *bytes_out, tr_error *err);
/* Move what can be moved, both ways. *any_out: something moved. */
tr_status tr_carrier_pump(tr_carrier *c, bool *any_out);
tr_status tr_carrier_send(tr_carrier *c, const tr_msg *msg);
/* A message outside of any session (session 0), through a socket alone: tr_carrier_wrap fills an empty zmq_msg_t. */
tr_status tr_carrier_wrap(const tr_msg *msg, uint32_t session, void *message_out);
/* What a control frame holds and the session that it claims. TR_PROTO: not one, or damaged. */
tr_status tr_carrier_unwrap(const void *frame, size_t bytes, const void **control_out, size_t *bytes_out,
                            uint32_t *session_out);
const tr_carrier_stats *tr_carrier_get_stats(const tr_carrier *c);
#endif
