/* transport/zmq_socket.h - the one place that opens ZeroMQ sockets.
 * Why: libzmq's defaults are unbounded (message size, linger), silent (ROUTER drops) and open to the network. Every
 * socket gets limits here, and no address that other machines can reach is opened without keys: tcp without CURVE is
 * loopback only, for bind and for connect. A CURVE server needs the allow-list of transport/zmq_zap.h in its context.
 * An ipc path is bound only if nobody listens there (libzmq would take it over without a word), with mode 0700; a plain
 * file in its place is left alone. Endpoints: ipc:///path (at most 107 bytes), tcp://127.0.0.1:port, tcp://[::1]:port,
 * tcp://localhost:port, inproc:// inside a process; with keys any tcp://ADDRESS:port, and host names to connect to.
 * Threads: a socket belongs to one thread. One context a process (crash on term otherwise, with CURVE); no use after
 * fork. Errors: TR_USAGE the endpoint is malformed or not allowed, TR_UNAVAILABLE in use, TR_CANNOT_CREATE, TR_SYSTEM.
 */
#ifndef TR_ZMQ_SOCKET_H
#define TR_ZMQ_SOCKET_H
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Keys of one end (Z85 texts; borrowed until the socket is open). */
typedef struct tr_zmq_socket_curve {
    const char *public_text, *secret_text;
    const char *server_text; /* public key of the server that a client expects; NULL: this end is the server */
} tr_zmq_socket_curve;

typedef struct tr_zmq_socket_options {
    int type;                         /* ZMQ_ROUTER, ... */
    bool bind;                        /* else connect */
    bool private_dir;                 /* ipc bind: the folder must be ours and 0700 */
    bool immediate;                   /* connect: no queue for a peer that is not there, send says EAGAIN */
    int hwm;                          /* messages queued in each direction; 0: 1000 (never unlimited) */
    int64_t max_message_bytes;        /* of a received frame; must be set */
    const void *routing_id;           /* DEALER; NULL: libzmq chooses */
    size_t routing_id_len;            /* 1..255, first byte not 0 */
    int heartbeat_ms;                 /* ZMTP ping interval, dead after four; 0: none */
    int linger_ms;                    /* how long messages unsent at close are still tried; 0: dropped */
    int reconnect_ms;                 /* connect: first pause before another try; 0: 10 */
    int reconnect_max_ms;             /* pauses double up to this; 0: they stay as they are */
    const tr_zmq_socket_curve *curve; /* NULL: no keys */
} tr_zmq_socket_options;

/* The process's context. */
tr_status tr_zmq_socket_context(void **context_out, tr_error *err);
tr_status tr_zmq_socket_open(void *context, const char *endpoint, const tr_zmq_socket_options *o, void **socket_out,
                             tr_error *err);
/* Nulls; idempotent. Unsent messages are dropped, or go out until linger_ms is over while the context is ended. */
void tr_zmq_socket_close(void **socket);
/* The rules above, without opening anything. keys: the socket will have them. */
tr_status tr_zmq_socket_check(const char *endpoint, bool bind, bool keys, tr_error *err);
/* True for tcp that stays on this machine. */
bool tr_zmq_socket_is_loopback(const char *endpoint);
/* The address that a bound socket really has (port 0 or * chosen by the system). */
tr_status tr_zmq_socket_endpoint(void *socket, char *out, size_t cap);

#endif
