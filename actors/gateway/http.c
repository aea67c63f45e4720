#include "actors/gateway/http.h"

#include "actors/gateway/chunked.h"
#include "base/log.h"

#include <fcntl.h>
#include <libwebsockets.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_MAX_BYTES = 1024, HEADER_MAX_BYTES = 1024, HEAD_BYTES = 4096, PIECE_BYTES = 16384 };

typedef enum phase { PHASE_IDLE, PHASE_BODY, PHASE_ASKED, PHASE_HEAD, PHASE_STREAM, PHASE_LAST } phase;

/* What lws keeps for a connection; zeroed at its begin. */
typedef struct conn {
    struct conn *next;
    struct lws *wsi;
    tr_http_id id;
    phase phase;
    tr_http_method method;
    char path[PATH_MAX_BYTES], query[PATH_MAX_BYTES], authorization[HEADER_MAX_BYTES], request_id[HEADER_MAX_BYTES];
    int refused;
    lws_usec_t body_end; /* no byte of the body is waited for any longer */
    bool in_chunks;      /* the body is */
    tr_chunked chunks;
    bool close; /* after the answer: what comes behind the request is not understood */
    char *body;
    size_t body_len, body_room;
    uint8_t *out; /* LWS_PRE bytes of room, then what is not sent yet */
    size_t out_begin, out_len, out_room;
    bool whole; /* the length was told: no chunks, no end to be marked */
    bool listed;
} conn;

struct tr_http {
    tr_http_config config;
    struct lws_context *context;
    struct lws_vhost *vhost;
    conn *conns;
    uint32_t n_conns;
    tr_http_id next_id;
    lws_sorted_usec_list_t timer;
    struct lws *watch;
};

static conn *find(tr_http *h, tr_http_id id) {
    for (conn *c = h->conns; c; c = c->next)
        if (c->id == id && id != 0) return c;
    return NULL;
}

static void list(tr_http *h, conn *c) {
    if (c->listed) return;
    c->listed = true;
    c->next = h->conns;
    h->conns = c;
    h->n_conns++;
}

static void unlist(tr_http *h, conn *c) {
    for (conn **p = &h->conns; *p; p = &(*p)->next)
        if (*p == c) {
            *p = c->next;
            h->n_conns--;
            break;
        }
    c->listed = false;
}

/* ---- what is to be sent ---- */

/* False: no memory, or the client is too slow. */
static bool queue(tr_http *h, conn *c, const void *data, size_t len) {
    if (c->out_begin > 0 && c->out_begin == c->out_len) c->out_begin = c->out_len = 0;
    if (len > h->config.unsent_max || c->out_len - c->out_begin > h->config.unsent_max - len) return false;
    if (LWS_PRE + c->out_len + len > c->out_room) {
        size_t room = 2 * (LWS_PRE + c->out_len + len);
        uint8_t *more = realloc(c->out, room);
        if (!more) return false;
        c->out = more;
        c->out_room = room;
    }
    memcpy(c->out + LWS_PRE + c->out_len, data, len);
    c->out_len += len;
    return true;
}

static void finish(tr_http *h, conn *c) { /* the exchange is over as far as the owner goes */
    (void)h;
    c->id = 0;
    free(c->body);
    c->body = NULL;
    c->body_len = c->body_room = 0;
}

/* The client will not get the rest. */
static void drop(tr_http *h, conn *c) {
    tr_http_id id = c->id;
    finish(h, c);
    c->phase = PHASE_IDLE;
    if (id) h->config.gone(h->config.self, id);
}

static bool add_headers(conn *c, int status, const char *type, const tr_http_header *headers, lws_filepos_t len) {
    uint8_t buffer[LWS_PRE + HEAD_BYTES], *start = buffer + LWS_PRE, *p = start, *end = buffer + sizeof buffer - 1;
    if (lws_add_http_common_headers(c->wsi, (unsigned)status, type, len, &p, end) != 0) return false;
    for (; headers && headers->name; headers++)
        if (lws_add_http_header_by_name(c->wsi, (const uint8_t *)headers->name, (const uint8_t *)headers->value,
                                        (int)strlen(headers->value), &p, end) != 0)
            return false;
    if (c->close && c->whole &&
        lws_add_http_header_by_name(c->wsi, (const uint8_t *)"connection:", (const uint8_t *)"close", 5, &p, end) != 0)
        return false;
    return lws_finalize_write_http_header(c->wsi, start, &p, end) == 0;
}

void tr_http_begin(tr_http *h, tr_http_id id, int status, const char *type, const tr_http_header *headers) {
    conn *c = find(h, id);
    if (!c || c->phase != PHASE_ASKED) return;
    c->phase = PHASE_STREAM;
    c->whole = false;
    if (!add_headers(c, status, type, headers, LWS_ILLEGAL_HTTP_CONTENT_LEN)) {
        drop(h, c);
        lws_set_timeout(c->wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_ASYNC);
    }
}

void tr_http_write(tr_http *h, tr_http_id id, const void *data, size_t len) {
    conn *c = find(h, id);
    if (!c || c->phase != PHASE_STREAM || len == 0) return;
    if (!queue(h, c, data, len)) {
        tr_log(TR_LOG_WARN, "slow_client", "unsent=%zu: closed", c->out_len - c->out_begin);
        drop(h, c);
        lws_set_timeout(c->wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_ASYNC);
        return;
    }
    lws_callback_on_writable(c->wsi);
}

void tr_http_end(tr_http *h, tr_http_id id) {
    conn *c = find(h, id);
    if (!c || c->phase != PHASE_STREAM) return;
    finish(h, c);
    c->phase = PHASE_LAST;
    lws_callback_on_writable(c->wsi);
}

void tr_http_reply(tr_http *h, tr_http_id id, int status, const char *type, const tr_http_header *headers,
                   const void *body, size_t len) {
    conn *c = find(h, id);
    if (!c || c->phase != PHASE_ASKED) return;
    c->whole = true;
    c->phase = PHASE_LAST;
    size_t bound = h->config.unsent_max;
    h->config.unsent_max = SIZE_MAX; /* one whole answer is never too much: it exists already */
    bool queued = queue(h, c, body, len);
    h->config.unsent_max = bound;
    finish(h, c); /* not before: the answer may be made of the request */
    if (!queued || !add_headers(c, status, type, headers, len))
        lws_set_timeout(c->wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_ASYNC);
    else
        lws_callback_on_writable(c->wsi);
}

/* As much as the socket takes. Non-zero closes the connection. */
static int send_more(tr_http *h, conn *c) {
    (void)h;
    size_t left = c->out_len - c->out_begin;
    bool ends = c->phase == PHASE_LAST;
    if (left == 0 && !ends) return 0;
    size_t n = left < PIECE_BYTES ? left : PIECE_BYTES;
    bool last = ends && n == left;
    uint8_t none[LWS_PRE + 1];
    uint8_t *p = n ? c->out + LWS_PRE + c->out_begin : none + LWS_PRE;
    if (n || !c->whole || last) {
        uint8_t kept[LWS_PRE]; /* lws writes in front of what it sends */
        memcpy(kept, p - LWS_PRE, LWS_PRE);
        int wrote = lws_write(c->wsi, p, n, last ? LWS_WRITE_HTTP_FINAL : LWS_WRITE_HTTP);
        memcpy(p - LWS_PRE, kept, LWS_PRE);
        if (wrote < 0) return -1;
    }
    c->out_begin += n;
    if (!last) {
        if (c->out_begin < c->out_len || ends) lws_callback_on_writable(c->wsi);
        return 0;
    }
    c->out_begin = c->out_len = 0;
    c->phase = PHASE_IDLE;
    return c->close || lws_http_transaction_completed(c->wsi) ? -1 : 0;
}

/* ---- requests ---- */

static void copy_header(struct lws *wsi, enum lws_token_indexes token, char *out, size_t cap, conn *c) {
    out[0] = 0;
    int len = lws_hdr_total_length(wsi, token);
    if (len <= 0) return;
    if ((size_t)len >= cap || lws_hdr_copy(wsi, out, (int)cap, token) < 0) {
        out[0] = 0;
        c->refused = 400;
    }
}

static void copy_named(struct lws *wsi, const char *name, char *out, size_t cap, conn *c) {
    out[0] = 0;
    int len = lws_hdr_custom_length(wsi, name, (int)strlen(name));
    if (len <= 0) return;
    if ((size_t)len >= cap || lws_hdr_custom_copy(wsi, out, (int)cap, name, (int)strlen(name)) < 0) {
        out[0] = 0;
        c->refused = 400;
    }
}

static void ask(tr_http *h, conn *c) {
    c->phase = PHASE_ASKED;
    tr_http_request r = {.id = c->id,
                         .method = c->method,
                         .path = c->path,
                         .query = c->query,
                         .authorization = c->authorization,
                         .request_id = c->request_id,
                         .body = c->body ? c->body : "",
                         .body_len = c->body_len,
                         .refused = c->refused};
    h->config.request(h->config.self, &r);
}

/* How the body comes. False: it is not understood, and where it ends is not known. */
static bool read_length(tr_http *h, conn *c, struct lws *wsi, bool *any) {
    char length[32], coding[32];
    const bool told = lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH) > 0;
    c->in_chunks = lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_TRANSFER_ENCODING) > 0;
    copy_header(wsi, WSI_TOKEN_HTTP_CONTENT_LENGTH, length, sizeof length, c);
    copy_header(wsi, WSI_TOKEN_HTTP_TRANSFER_ENCODING, coding, sizeof coding, c);
    *any = c->in_chunks || strtoull(length, NULL, 10) > 0;
    if (strtoull(length, NULL, 10) > h->config.body_max) c->refused = 413;
    return !c->in_chunks || (!told && c->method == TR_HTTP_POST && strcasecmp(coding, "chunked") == 0);
}

static int on_head(tr_http *h, conn *c, struct lws *wsi, const char *uri) {
    c->wsi = wsi;
    c->refused = 0;
    c->close = false;
    c->chunks = (tr_chunked){0};
    c->phase = PHASE_BODY;
    c->body_len = 0;
    c->out_begin = c->out_len = 0;
    c->id = ++h->next_id;
    list(h, c);
    bool post = lws_hdr_total_length(wsi, WSI_TOKEN_POST_URI) > 0, any;
    c->method = post ? TR_HTTP_POST : lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) > 0 ? TR_HTTP_GET : TR_HTTP_OTHER;
    if (strlen(uri) >= sizeof c->path)
        c->refused = 400, c->path[0] = 0;
    else
        memcpy(c->path, uri, strlen(uri) + 1);
    copy_header(wsi, WSI_TOKEN_HTTP_URI_ARGS, c->query, sizeof c->query, c);
    copy_header(wsi, WSI_TOKEN_HTTP_AUTHORIZATION, c->authorization, sizeof c->authorization, c);
    copy_named(wsi, "x-request-id:", c->request_id, sizeof c->request_id, c);
    if (!read_length(h, c, wsi, &any)) c->refused = 400, c->close = true;
    if (!post || !any || c->close)
        ask(h, c);
    else {
        const lws_usec_t wait = (lws_usec_t)h->config.body_s * LWS_USEC_PER_SEC;
        c->body_end = lws_now_usecs() + wait;
        lws_set_timer_usecs(wsi, wait);
    }
    return 0;
}

static void keep_body(tr_http *h, conn *c, const void *data, size_t len) {
    if (len > h->config.body_max - c->body_len) c->refused = 413;
    if (c->refused) return; /* read and forgotten */
    if (c->body_len + len + 1 > c->body_room) {
        size_t room = 2 * (c->body_len + len) + 1024;
        char *more = realloc(c->body, room);
        if (!more) {
            c->refused = 503;
            return;
        }
        c->body = more;
        c->body_room = room;
    }
    memcpy(c->body + c->body_len, data, len);
    c->body_len += len;
    c->body[c->body_len] = 0;
}

/* The library hands on what comes behind the head as it is, and would wait for a length: this is the last request of
 * the connection, and one that is refused is answered at once. */
static void on_chunks(tr_http *h, conn *c, const char *data, size_t len) {
    tr_chunked_result result;
    const char *piece;
    size_t n;
    c->close = true;
    while ((result = tr_chunked_next(&c->chunks, &data, &len, &piece, &n)) == TR_CHUNKED_PIECE && !c->refused)
        keep_body(h, c, piece, n);
    if (result == TR_CHUNKED_BAD) c->refused = 400;
    if (result == TR_CHUNKED_END || c->refused) ask(h, c);
}

static void on_body(tr_http *h, conn *c, const void *data, size_t len) {
    if (c->phase != PHASE_BODY) return;
    if (c->in_chunks)
        on_chunks(h, c, data, len);
    else
        keep_body(h, c, data, len);
}

/* refused: why it is not whole. */
static void body_ends(tr_http *h, conn *c, int refused) {
    if (!c || c->phase != PHASE_BODY) return;
    if (refused) c->refused = refused, c->close = true;
    ask(h, c);
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len) {
    struct lws_context *context = lws_get_context(wsi);
    tr_http *h = context ? lws_context_user(context) : NULL;
    conn *c = user;
    switch (reason) {
    case LWS_CALLBACK_FILTER_NETWORK_CONNECTION: return h && h->n_conns >= h->config.connections_max ? 1 : 0;
    case LWS_CALLBACK_HTTP: return on_head(h, c, wsi, in);
    case LWS_CALLBACK_HTTP_BODY: on_body(h, c, in, len); return 0;
    case LWS_CALLBACK_HTTP_BODY_COMPLETION: body_ends(h, c, c->in_chunks ? 413 : 0); return 0;
    case LWS_CALLBACK_TIMER: /* it may be of a request before */
        if (c && lws_now_usecs() >= c->body_end) body_ends(h, c, 408);
        return 0;
    case LWS_CALLBACK_HTTP_WRITEABLE: return c ? send_more(h, c) : 0;
    case LWS_CALLBACK_CLOSED_HTTP:
    case LWS_CALLBACK_HTTP_DROP_PROTOCOL:
        if (!c || !h || !c->listed) return 0;
        unlist(h, c);
        drop(h, c);
        free(c->out);
        c->out = NULL;
        c->out_room = c->out_begin = c->out_len = 0;
        return 0;
    case LWS_CALLBACK_RAW_CLOSE_FILE:
        if (h && h->watch == wsi) h->watch = NULL;
        return 0;
    default: return 0;
    }
}

static void log_line(int level, const char *line) {
    if (level & (LLL_ERR | LLL_WARN)) tr_log(TR_LOG_WARN, "http", "%.*s", (int)strcspn(line, "\n"), line);
}

static const struct lws_protocols protocols[] = {{"http", on_event, sizeof(conn), 0, 0, NULL, 0},
                                                 {"watch", on_event, 0, 0, 0, NULL, 0},
                                                 {NULL, NULL, 0, 0, 0, NULL, 0}};

tr_status tr_http_open(const tr_http_config *config, tr_http **http_out, tr_error *err) {
    tr_http *h = calloc(1, sizeof *h);
    if (!h) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the HTTP server");
    h->config = *config;
    lws_set_log_level(0, log_line); /* a failure here is one error, said below */
    struct lws_context_creation_info info = {.options =
                                                 LWS_SERVER_OPTION_EXPLICIT_VHOSTS |
                                                 LWS_SERVER_OPTION_DISABLE_IPV6 * (strchr(config->host, ':') == NULL),
                                             .user = h,
                                             .gid = (gid_t)-1,
                                             .uid = (uid_t)-1,
                                             .fd_limit_per_thread = config->connections_max + 64,
                                             .max_http_header_data = 8192,
                                             .max_http_header_pool = config->connections_max,
                                             .pt_serv_buf_size = PIECE_BYTES + 1024};
    h->context = lws_create_context(&info);
    struct lws_context_creation_info vhost = {.port = config->port ? config->port : 0,
                                              .iface = config->host,
                                              .protocols = protocols,
                                              .keepalive_timeout = (int)config->idle_s,
                                              .timeout_secs = config->idle_s,
                                              .vhost_name = "troupe"};
    if (h->context) h->vhost = lws_create_vhost(h->context, &vhost);
    bool ok = h->vhost != NULL && lws_get_vhost_listen_port(h->vhost) > 0;
    if (!ok) {
        tr_http_close(&h);
        return tr_error_set(err, TR_UNAVAILABLE, "cannot listen on %s port %u: it is taken, or not of this machine%s",
                            config->host, config->port, config->port < 1024 ? ", or below 1024 and not allowed" : "");
    }
    lws_set_log_level(LLL_ERR | LLL_WARN, log_line);
    *http_out = h;
    return TR_OK;
}

void tr_http_close(tr_http **http) {
    tr_http *h = *http;
    if (!h) return;
    if (h->context) lws_context_destroy(h->context);
    free(h);
    *http = NULL;
}

tr_status tr_http_watch(tr_http *h, int fd) {
    if (h->watch) lws_set_timeout(h->watch, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_ASYNC);
    h->watch = NULL;
    if (fd < 0) return TR_OK;
    lws_sock_file_fd_type own = {.filefd = fcntl(fd, F_DUPFD_CLOEXEC, 0)}; /* lws closes what it is given */
    if (own.filefd >= 0) h->watch = lws_adopt_descriptor_vhost(h->vhost, LWS_ADOPT_RAW_FILE_DESC, own, "watch", NULL);
    return h->watch ? TR_OK : TR_SYSTEM;
}

uint16_t tr_http_port(const tr_http *h) { return (uint16_t)lws_get_vhost_listen_port(h->vhost); }
uint32_t tr_http_connections(const tr_http *h) { return h->n_conns; }

static void on_time(lws_sorted_usec_list_t *sul) { (void)sul; }

/* lws 4 does not look at the timeout that it is given: a timer of ours ends its wait. */
void tr_http_service(tr_http *h, int timeout_ms) {
    lws_sul_schedule(h->context, 0, &h->timer, on_time, (lws_usec_t)timeout_ms * 1000 + 1);
    lws_service(h->context, 0);
}
