#include "actors/cli/http_stream.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1 << 20 };

/* ---- address --------------------------------------------------------------------------------------------------------
 */

static tr_status resolve(const char *name, const char *port, tr_http_stream_server *out, tr_error *err) {
    struct addrinfo want = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int code = getaddrinfo(name, port, &want, &found);
    if (code != 0) return tr_error_set(err, TR_UNAVAILABLE, "host %s: %s", name, gai_strerror(code));
    memcpy(&out->address, found->ai_addr, found->ai_addrlen);
    out->address_bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return TR_OK;
}

tr_status tr_http_stream_server_parse(const char *url, const char *key, tr_http_stream_server *out, tr_error *err) {
    static const char scheme[] = "http://";
    char name[256], port[8] = "80";
    *out = (tr_http_stream_server){0};
    if (strncmp(url, scheme, sizeof scheme - 1) != 0)
        return tr_error_set(err, TR_USAGE, "--url %.200s: use http://HOST:PORT (there is no TLS here)", url);
    const char *host = url + sizeof scheme - 1, *path = host + strcspn(host, "/");
    if (path == host || (size_t)(path - host) >= sizeof out->host || strlen(path) >= sizeof out->prefix ||
        strlen(key) >= sizeof out->key || strpbrk(url, " \r\n") || strpbrk(key, "\r\n"))
        return tr_error_set(err, TR_USAGE, "--url %.200s: not http://HOST:PORT", url);
    memcpy(out->host, host, (size_t)(path - host));
    snprintf(out->prefix, sizeof out->prefix, "%s", path[0] && path[1] ? path : "/v1");
    for (size_t n = strlen(out->prefix); n > 1 && out->prefix[n - 1] == '/'; n--) out->prefix[n - 1] = 0;
    snprintf(out->key, sizeof out->key, "%s", key);
    snprintf(name, sizeof name, "%s", out->host);
    char *first = name, *colon = strrchr(name, ':'), *bracket = strrchr(name, ']');
    if (colon && (!bracket || colon > bracket)) {
        snprintf(port, sizeof port, "%.6s", colon + 1);
        *colon = 0;
    }
    if (name[0] == '[' && bracket) {
        *bracket = 0;
        first++;
    }
    return resolve(first, port, out, err);
}

/* ---- one request ----------------------------------------------------------------------------------------------------
 */

static void fail(tr_http_stream *s, const char *what, const char *why) {
    s->state = TR_HTTP_STREAM_FAILED;
    snprintf(s->error, sizeof s->error, "%s%s%s", what, why ? ": " : "", why ? why : "");
}

static char *request_text(const tr_http_stream_server *server, const char *method, const char *path, const char *body,
                          size_t *bytes) {
    char *text = NULL, key[600] = "", type[128] = "";
    if (server->key[0]) snprintf(key, sizeof key, "Authorization: Bearer %s\r\n", server->key);
    if (body) snprintf(type, sizeof type, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    int n = asprintf(&text, "%s %s%s HTTP/1.1\r\nHost: %s\r\n%s%sConnection: close\r\n\r\n%s", method, server->prefix,
                     path, server->host, key, type, body ? body : "");
    *bytes = n < 0 ? 0 : (size_t)n;
    return n < 0 ? NULL : text;
}

void tr_http_stream_open(tr_http_stream *s, const tr_http_stream_server *server, const char *method, const char *path,
                         const char *body) {
    int on = 1;
    *s = (tr_http_stream){.fd = socket(server->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    s->out = request_text(server, method, path, body, &s->out_bytes);
    if (s->fd < 0 || !s->out) {
        fail(s, "no socket", strerror(errno));
        return;
    }
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(s->fd, (const struct sockaddr *)&server->address, server->address_bytes) != 0 && errno != EINPROGRESS)
        fail(s, "cannot connect", strerror(errno));
}

bool tr_http_stream_writes(const tr_http_stream *s) {
    return s->state == TR_HTTP_STREAM_CONNECTING || s->state == TR_HTTP_STREAM_SENDING;
}

void tr_http_stream_close(tr_http_stream *s) {
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
    free(s->out);
    free(s->line);
    s->out = s->line = NULL;
}

static void send_some(tr_http_stream *s) {
    while (s->out_at < s->out_bytes) {
        ssize_t n = send(s->fd, s->out + s->out_at, s->out_bytes - s->out_at, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n < 0) {
            fail(s, "cannot send", strerror(errno));
            return;
        }
        s->out_at += (size_t)n;
    }
    s->state = TR_HTTP_STREAM_READING;
}

/* ---- the response ---------------------------------------------------------------------------------------------------
 */

static void head_line(tr_http_stream *s, const char *line) {
    if (s->status == 0) {
        if (sscanf(line, "HTTP/1.%*d %d", &s->status) != 1 || s->status < 100) fail(s, "no HTTP response", NULL);
    } else if (strncasecmp(line, "Transfer-Encoding:", 18) == 0) {
        s->chunked = strcasestr(line + 18, "chunked") != NULL;
    } else if (strncasecmp(line, "Content-Length:", 15) == 0) {
        s->sized = sscanf(line + 15, "%lu", &s->left) == 1;
    } else if (line[0] == 0) {
        s->in_body = true;
        s->chunk_head = s->chunked;
        if (!s->chunked && s->sized && s->left == 0) s->state = TR_HTTP_STREAM_ENDED;
    }
}

/* Size of the next chunk. */
static void chunk_line(tr_http_stream *s, const char *line) {
    char *end;
    if (line[0] == 0 || s->last_chunk) return; /* the end of a chunk; a trailer */
    s->left = strtoull(line, &end, 16);
    if (end == line || (*end && *end != ';' && *end != ' ')) {
        fail(s, "malformed chunk", NULL);
        return;
    }
    s->last_chunk = s->left == 0;
    s->chunk_head = s->last_chunk;
}

static void body_end(tr_http_stream *s, tr_http_stream_line *on_line, void *context) {
    s->state = TR_HTTP_STREAM_ENDED;
    if (s->line_bytes == 0) return;
    s->line[s->line_bytes] = 0; /* the last line needs no end */
    on_line(context, s, s->line, s->line_bytes);
}

static void push(tr_http_stream *s, char c) {
    if (s->line_bytes + 2 > s->line_room) {
        size_t room = s->line_room ? 2 * s->line_room : 1024;
        char *grown = room <= LINE_MAX_BYTES ? realloc(s->line, room) : NULL;
        if (!grown) {
            fail(s, "a line of the response is too long", NULL);
            return;
        }
        s->line = grown;
        s->line_room = room;
    }
    s->line[s->line_bytes++] = c;
}

/* A byte of the head or of the content. */
static void take_text(tr_http_stream *s, char c, tr_http_stream_line *on_line, void *context) {
    if (c != '\n') {
        push(s, c);
        return;
    }
    push(s, 0);
    if (s->state == TR_HTTP_STREAM_FAILED) return;
    size_t bytes = s->line_bytes - 1;
    if (bytes && s->line[bytes - 1] == '\r') s->line[--bytes] = 0;
    s->line_bytes = 0;
    if (s->in_body)
        on_line(context, s, s->line, bytes);
    else
        head_line(s, s->line);
}

/* A byte of the lines between chunks; a line of the content may go on in the next chunk. */
static void take_frame(tr_http_stream *s, char c, tr_http_stream_line *on_line, void *context) {
    if (c == '\r') return;
    if (c != '\n') {
        if (s->frame_bytes < sizeof s->frame - 1) s->frame[s->frame_bytes++] = c;
        return;
    }
    s->frame[s->frame_bytes] = 0;
    if (s->frame_bytes == 0 && s->last_chunk)
        body_end(s, on_line, context);
    else
        chunk_line(s, s->frame);
    s->frame_bytes = 0;
}

static void take(tr_http_stream *s, char c, tr_http_stream_line *on_line, void *context) {
    if (s->in_body && s->chunk_head) {
        take_frame(s, c, on_line, context);
        return;
    }
    bool counted = s->in_body && (s->chunked || s->sized);
    take_text(s, c, on_line, context);
    if (!counted || s->state != TR_HTTP_STREAM_READING || --s->left > 0) return;
    if (s->chunked)
        s->chunk_head = true;
    else
        body_end(s, on_line, context);
}

static void read_some(tr_http_stream *s, tr_http_stream_line *on_line, void *context) {
    char buffer[16384];
    while (s->state == TR_HTTP_STREAM_READING) {
        ssize_t n = recv(s->fd, buffer, sizeof buffer, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n < 0) {
            fail(s, "cannot receive", strerror(errno));
        } else if (n == 0) {
            if (s->in_body && !s->chunked && !s->sized)
                body_end(s, on_line, context);
            else
                fail(s, "the server closed the connection", NULL);
        } else {
            for (ssize_t i = 0; i < n && s->state == TR_HTTP_STREAM_READING; i++) take(s, buffer[i], on_line, context);
        }
    }
}

void tr_http_stream_turn(tr_http_stream *s, tr_http_stream_line *on_line, void *context) {
    if (s->state == TR_HTTP_STREAM_CONNECTING) {
        int code = 0;
        socklen_t size = sizeof code;
        getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &code, &size);
        if (code != 0) {
            fail(s, "cannot connect", strerror(code));
            return;
        }
        s->state = TR_HTTP_STREAM_SENDING;
    }
    if (s->state == TR_HTTP_STREAM_SENDING) send_some(s);
    if (s->state == TR_HTTP_STREAM_READING) read_some(s, on_line, context);
}
