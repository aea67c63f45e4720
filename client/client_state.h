/* client/client_state.h - inside of the client library. troupe_client.c: calls of the user; client_link.c: connection,
 * pings, hello, requests sent again; client_event.c: messages become events. */
#ifndef TR_CLIENT_STATE_H
#define TR_CLIENT_STATE_H
#include "client/troupe_client.h"
#include "transport/codec.h"

#include <zmq.h>

typedef struct tr_client_request {
    uint64_t id;
    void *add; /* encoded ADD, sent again to a frontend that lost it */
    size_t add_bytes;
    bool sent, aborted;
    bool again;                           /* it was sent more than once */
    uint32_t n;                           /* samples */
    uint32_t logprobs;                    /* entries for each token */
    uint32_t open;                        /* bit a sample that has not ended */
    uint32_t next_index[TR_MAX_SAMPLES];  /* tokens delivered */
    uint64_t next_offset[TR_MAX_SAMPLES]; /* bytes of text delivered */
} tr_client_request;

struct tr_client {
    void *context; /* NULL: the user's */
    void *socket;
    void *monitor; /* tells that the connection was lost or is back */
    int fd;
    tr_client_info info;
    bool welcomed;
    uint64_t next_id;
    tr_client_request *request; /* [n_requests], ids ascend */
    size_t n_requests, cap_requests;
    uint64_t lost_ns;
    char name[64];
    char endpoint[256];

    bool down;               /* no connection at the last look */
    bool hello_waits;        /* for its welcome */
    uint64_t hello_ns;       /* sent */
    uint64_t ping_ns;        /* last one sent */
    uint64_t silent_since;   /* first ping without any message after it; 0: none */
    bool silence_told;       /* TR_PEER was returned for this silence */
    uint64_t fail_before_id; /* open requests below it end in an error with the text below */
    char fail_text[TR_MAX_ERROR_BYTES];

    zmq_msg_t message, payload; /* of the last event */
    bool message_open, payload_open;
    tr_codec_arena arena;
    void *arena_memory;
    float *rows; /* logits that came unaligned */
    char *json;  /* status with its NUL */
    char error_text[TR_MAX_ERROR_BYTES + 1];
};

/* client_link.c */
tr_status tr_client_open_monitor(tr_client *c, void *context, tr_error *err);
/* TR_AGAIN: no connection or its queue is full, nothing was sent. */
tr_status tr_client_send(tr_client *c, const tr_msg *m);
tr_status tr_client_send_hello(tr_client *c, uint64_t now_ns);
void tr_client_tick(tr_client *c, uint64_t now_ns);
/* Has the connection been lost since the last look, even if it is back? */
void tr_client_look(tr_client *c);
/* True once a silence, when it has lasted too long: all open requests are to fail. Ask only when the socket is empty.
 */
bool tr_client_lost(tr_client *c, uint64_t now_ns);
uint64_t tr_client_next_tick_ns(const tr_client *c, uint64_t now_ns);
/* A welcome came: take the company's figures, send requests again. TR_PROTO: another protocol. */
tr_status tr_client_on_welcome(tr_client *c, const tr_msg_welcome *m, uint64_t now_ns, tr_error *err);
tr_client_request *tr_client_find(tr_client *c, uint64_t id);
void tr_client_remove(tr_client *c, tr_client_request *r);

/* client_event.c. One message from the socket: TR_OK an event, TR_AGAIN the socket is empty. */
tr_status tr_client_receive(tr_client *c, tr_client_event *event, tr_error *err);
void tr_client_drop_views(tr_client *c);
/* End request r with an error event of the library's own. */
void tr_client_fail(tr_client *c, tr_client_request *r, uint32_t code, const char *text, tr_client_event *event);

#endif
