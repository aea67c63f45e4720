/* actors/gateway/http.h - the door of libwebsockets: an HTTP/1.1 server that knows nothing of what it carries.
 * One request at a time on a connection. Its body is gathered whole within a bound, then `request` is called once; the
 * answer is a whole reply, or a stream of pieces. `gone` is called when the client has left before the end of its
 * answer; after that, and after the end, the number of the exchange means nothing any more (calls with it do nothing).
 * Slow readers: what a client has not taken yet is kept up to a bound; beyond it the connection is closed and the
 * exchange is gone. Connections, headers and waiting times are bounded.
 * Threads: one; everything happens inside tr_http_service and the calls below. */
#ifndef TR_HTTP_H
#define TR_HTTP_H
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tr_http tr_http;
typedef uint64_t tr_http_id; /* of an exchange: a request and its answer; never 0, never used again */

typedef enum tr_http_method { TR_HTTP_GET = 1, TR_HTTP_POST, TR_HTTP_OTHER } tr_http_method;

typedef struct tr_http_request { /* valid during the call */
    tr_http_id id;
    tr_http_method method;
    const char *path;          /* decoded, without the query */
    const char *query;         /* "" */
    const char *authorization; /* "" */
    const char *request_id;    /* X-Request-Id, "" */
    const char *body;          /* NUL-terminated */
    size_t body_len;
    int refused; /* 0, or the status to answer with: 400 head or body is broken, 408 the body comes too slowly, 413 it
                  * is too long */
} tr_http_request;

typedef struct tr_http_config {
    const char *host; /* address to listen on */
    uint16_t port;    /* 0: any free one */
    size_t body_max;  /* bytes */
    size_t unsent_max;
    uint32_t connections_max;
    uint32_t idle_s; /* a connection that says nothing for so long is closed */
    uint32_t body_s; /* a body that is not whole so long after its head is refused */
    void *self;
    void (*request)(void *self, const tr_http_request *request);
    void (*gone)(void *self, tr_http_id id);
} tr_http_config;

/* TR_UNAVAILABLE: the address is taken or is not of this machine. */
tr_status tr_http_open(const tr_http_config *config, tr_http **http_out, tr_error *err);
void tr_http_close(tr_http **http);
uint16_t tr_http_port(const tr_http *http);
/* Wait for something to happen, at most so long, and handle it. */
void tr_http_service(tr_http *http, int timeout_ms);
uint32_t tr_http_connections(const tr_http *http);
/* One more descriptor whose being readable ends the wait of tr_http_service, in place of the one before; -1: none. The
 * caller keeps it. */
tr_status tr_http_watch(tr_http *http, int fd);

typedef struct tr_http_header {
    const char *name, *value; /* name with its colon, lower case */
} tr_http_header;

/* The whole answer. headers end with a NULL name, or NULL. Bytes are copied. */
void tr_http_reply(tr_http *http, tr_http_id id, int status, const char *content_type, const tr_http_header *headers,
                   const void *body, size_t len);
/* An answer in pieces, whose length is not known. */
void tr_http_begin(tr_http *http, tr_http_id id, int status, const char *content_type, const tr_http_header *headers);
void tr_http_write(tr_http *http, tr_http_id id, const void *data, size_t len);
void tr_http_end(tr_http *http, tr_http_id id);
#endif
