/* actors/cli/http_stream.h - one streamed request to an OpenAI-compatible server (HTTP/1.1, server-sent events), on a
 * socket that never blocks. For measuring: whoever polls sees each event when its bytes come. No TLS. Several may run
 * in one thread; the server is not trusted: lines end at 1 MiB. */
#ifndef TR_HTTP_STREAM_H
#define TR_HTTP_STREAM_H
#include "base/status.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

typedef struct tr_http_stream_server {
    char host[256];   /* as in the URL, for the Host header */
    char prefix[256]; /* path before /completions: the URL's own, or /v1 */
    char key[512];    /* sent as bearer; empty: none */
    struct sockaddr_storage address;
    socklen_t address_bytes;
} tr_http_stream_server;

/* http://HOST[:PORT][/PATH]. TR_USAGE: no such URL; TR_UNAVAILABLE: the name is not known. Blocks for the name. */
tr_status tr_http_stream_server_parse(const char *url, const char *key, tr_http_stream_server *out, tr_error *err);

typedef enum tr_http_stream_state {
    TR_HTTP_STREAM_CONNECTING,
    TR_HTTP_STREAM_SENDING,
    TR_HTTP_STREAM_READING,
    TR_HTTP_STREAM_ENDED, /* the response is complete */
    TR_HTTP_STREAM_FAILED /* see error */
} tr_http_stream_state;

typedef struct tr_http_stream {
    tr_http_stream_state state;
    int fd;
    char error[200];
    int status; /* of HTTP; 0: not known yet */
    /* private */
    bool in_body, chunked, chunk_head, last_chunk, sized;
    uint64_t left; /* of the chunk, or of a sized body */
    char *out;
    size_t out_bytes, out_at;
    char *line;
    size_t line_bytes, line_room;
    char frame[40];
    size_t frame_bytes;
} tr_http_stream;

/* One line of the response without its end: of the head, then of the body. line is valid during the call. */
typedef void tr_http_stream_line(void *context, tr_http_stream *s, char *line, size_t bytes);

/* method: GET or POST; body: JSON text or NULL. The state says what became of it. */
void tr_http_stream_open(tr_http_stream *s, const tr_http_stream_server *server, const char *method, const char *path,
                         const char *body);
/* Whether to poll for writing; else for reading. */
bool tr_http_stream_writes(const tr_http_stream *s);
/* Do what the socket allows; body lines go to on_line. */
void tr_http_stream_turn(tr_http_stream *s, tr_http_stream_line *on_line, void *context);
void tr_http_stream_close(tr_http_stream *s); /* idempotent */
#endif
