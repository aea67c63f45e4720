/* actors/frontend/frontend.h - the door of the company: ZeroMQ ROUTER for clients, links to the scheduler and the last
 * stages. One error boundary a request: whatever is wrong with one is answered under its id and touches no other.
 *
 *   client message | handled by          scheduler message | handled by
 *   HELLO          | on_hello            ACCEPTED          | on_accepted
 *   ADD            | on_add              OUTPUT            | on_output
 *   ABORT          | on_abort            PEER_UP           | SUBMITs without answer are sent again
 *   PING           | echo; PING and ADD: WELCOME to a client this incarnation does not know (it says HELLO and adds its
 *                  | open requests again)
 *   STATUS, DRAIN  | on_status, on_drain
 *
 * Text is made here: detokenizer and stop texts a request (request.h). A client that misses its pings for
 * CLIENT_SILENT_NS, or that the socket can't reach, is gone: its requests are cancelled. */
#ifndef TR_FRONTEND_H
#define TR_FRONTEND_H
#include "actors/frontend/request.h"
#include "actors/runtime/runtime.h"
#include "model/tokenizer.h"

enum { TR_FRONTEND_CLIENTS_MAX = 1024 };

typedef struct tr_frontend_client {
    bool used;
    uint8_t id[TR_MAX_CLIENT_ID_BYTES];
    uint32_t len;
    uint64_t seen_ns;
    uint64_t stalled_ns; /* since when its logits wait for room; 0: they do not */
} tr_frontend_client;

typedef struct tr_frontend {
    tr_runtime *rt;
    void *router;
    tr_tokenizer *tokenizer; /* NULL: the model file has no vocabulary that we read */
    tr_request_table requests;
    tr_frontend_client client[TR_FRONTEND_CLIENTS_MAX];
    bool draining, stop_after_drain;
    uint64_t born_ns; /* of this life */
    bool logits_wait; /* a record waits for a client that reads slowly */
    void *arena_memory;
    tr_codec_arena arena; /* of client messages */
    uint32_t *ids;        /* [ids_cap] tokenizer output */
    size_t ids_cap;
    char *text; /* text of one OUTPUT */
    size_t text_cap;
    char *piece; /* [piece_cap] text of one token */
    size_t piece_cap;
    uint64_t refused, dropped;
} tr_frontend;

typedef struct tr_frontend_sender {
    const uint8_t *id;
    uint32_t len;
} tr_frontend_sender;

/* frontend_check.c: false, and the client is told, when the request with a prompt of n_prompt tokens cannot be taken.
 */
bool tr_frontend_check(tr_frontend *f, tr_frontend_sender from, const tr_msg_add *m, uint32_t n_prompt);

/* frontend_client.c: the client side of the socket. */
/* Error under the client's id for a request, or 0: for the connection. */
__attribute__((format(printf, 5, 6))) void tr_frontend_refuse(tr_frontend *f, tr_frontend_sender from, uint64_t id,
                                                              uint32_t code, const char *fmt, ...);
tr_status tr_frontend_bind(tr_frontend *f, tr_error *err);
/* Take all waiting client messages. True when there were any. */
bool tr_frontend_pump_clients(tr_frontend *f);
/* Send a message. TR_PEER: unreachable; TR_AGAIN: its queue is full. */
tr_status tr_frontend_send(tr_frontend *f, const uint8_t *client, uint32_t len, const tr_msg *msg);
/* A second frame that is not copied: give_back(data, owner) is called once, from ZeroMQ's thread, when it has been
 * sent. */
typedef struct tr_frontend_bulk {
    void *data;
    size_t bytes;
    void (*give_back)(void *data, void *owner);
    void *owner;
} tr_frontend_bulk;
/* The same with a second frame (NULL: none), which is taken over whatever the result. */
tr_status tr_frontend_send_bulk(tr_frontend *f, const uint8_t *client, uint32_t len, const tr_msg *msg,
                                const tr_frontend_bulk *bulk);
/* Silent clients are gone, and so are those that never came back to this life of the frontend. */
void tr_frontend_sweep_clients(tr_frontend *f, uint64_t now_ns);
/* A client that has said hello is still connected; asked by a PING to it. */
bool tr_frontend_anyone_there(tr_frontend *f);
/* A client that has said hello to this life, or NULL. */
tr_frontend_client *tr_frontend_find_client(tr_frontend *f, const uint8_t *client, uint32_t len);

/* frontend_output.c: tokens and logits on their way to clients. */
void tr_frontend_on_scheduler(void *self, const tr_event *event);
/* Known request, or one of a client that has said hello to this life (taken up from the journal); else NULL. */
tr_request *tr_frontend_find_request(tr_frontend *f, uint64_t rid);
/* Send the ends that waited for their logits. True when one went out or still waits. */
bool tr_frontend_finish_ready(tr_frontend *f, uint64_t now_ns);
/* CANCELs that found the link full, or a new scheduler. */
void tr_frontend_send_cancels(tr_frontend *f);
void tr_frontend_cancel(tr_frontend *f, tr_request *r, uint32_t finish, uint32_t keep);
/* Take up all journaled requests of a client that is back. */
void tr_frontend_adopt_client(tr_frontend *f, const uint8_t *client, uint32_t len);
/* End the journaled requests that nobody has taken up. */
void tr_frontend_sweep_orphans(tr_frontend *f);
void tr_frontend_client_gone(tr_frontend *f, const uint8_t *client, uint32_t len);

/* frontend_logits.c: evaluation's rows from the last stages to clients. True when any went out. */
bool tr_frontend_pump_logits(tr_frontend *f);
#endif
