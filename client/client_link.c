/* The connection. States: down (ZeroMQ tries again by itself) -> hello sent -> welcomed. A frontend that was restarted
 * is noticed in two ways: the monitor saw the connection break, or a ping is answered by WELCOME (it does not know us).
 * Either way HELLO goes out and its WELCOME makes all open requests go out again; the frontend ignores those it finds
 * in the journal, and runs the others anew: with the same text, so what was delivered is recognized by index and
 * offset. */
#include "base/clock.h"
#include "client/client_state.h"
#include "transport/zmq_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PING_NS  TR_NS_PER_S
#define HELLO_NS TR_NS_PER_S
#define DOWN_NS  (20 * TR_NS_PER_MS) /* how often a lost connection is looked at */

static tr_status send_bytes(tr_client *c, const void *data, size_t n) {
    if (zmq_send(c->socket, data, n, ZMQ_DONTWAIT) >= 0) return TR_OK;
    return errno == EAGAIN || errno == EINTR ? TR_AGAIN : TR_SYSTEM;
}

/* For the small messages; ADD is encoded to memory of its own. */
tr_status tr_client_send(tr_client *c, const tr_msg *m) {
    uint8_t buffer[512];
    size_t n;
    TR_TRY(tr_codec_encode(m, buffer, sizeof buffer, &n));
    return send_bytes(c, buffer, n);
}

tr_status tr_client_send_hello(tr_client *c, uint64_t now_ns) {
    tr_msg m = {.type = TR_MSG_HELLO,
                .as.hello = {.major = TR_PROTOCOL_MAJOR,
                             .minor = TR_PROTOCOL_MINOR,
                             .name = {c->name, (uint32_t)strlen(c->name)}}};
    TR_TRY(tr_client_send(c, &m));
    c->hello_waits = true;
    c->hello_ns = now_ns;
    return TR_OK;
}

/* ---- requests -----------------------------------------------------------------------------------------------------
 */

tr_client_request *tr_client_find(tr_client *c, uint64_t id) {
    size_t lo = 0, hi = c->n_requests;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (c->request[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < c->n_requests && c->request[lo].id == id ? &c->request[lo] : NULL;
}

void tr_client_remove(tr_client *c, tr_client_request *r) {
    free(r->add);
    size_t after = (size_t)(c->request + c->n_requests - r) - 1;
    memmove(r, r + 1, after * sizeof *r);
    c->n_requests--;
}

static void send_request(tr_client *c, tr_client_request *r) {
    r->sent = send_bytes(c, r->add, r->add_bytes) == TR_OK;
    if (!r->sent || !r->aborted) return;
    tr_msg m = {.type = TR_MSG_ABORT, .as.abort.id = r->id};
    r->sent = tr_client_send(c, &m) == TR_OK;
}

static void send_requests(tr_client *c, bool again) {
    for (size_t i = 0; i < c->n_requests; i++) {
        tr_client_request *r = &c->request[i];
        if (again) r->again |= r->sent;
        if (again) r->sent = false;
        if (!r->sent) send_request(c, r);
        if (!r->sent) return; /* no connection, or full: at the next tick */
    }
}

tr_status tr_client_on_welcome(tr_client *c, const tr_msg_welcome *m, uint64_t now_ns, tr_error *err) {
    if (m->major != TR_PROTOCOL_MAJOR)
        return tr_error_set(err, TR_PROTO, "%s speaks protocol %u.%u, this library %d.%d: use a matching client",
                            c->endpoint, m->major, m->minor, TR_PROTOCOL_MAJOR, TR_PROTOCOL_MINOR);
    if (c->welcomed && m->company != c->info.company) {
        c->fail_before_id = c->next_id;
        snprintf(c->fail_text, sizeof c->fail_text, "the company was started anew and lost the request: add it again");
    }
    c->welcomed = true;
    snprintf(c->info.model, sizeof c->info.model, "%.*s", (int)m->model.len, m->model.len ? m->model.data : "");
    c->info.vocab = m->vocab;
    c->info.context = m->context;
    c->info.instruct = m->instruct != 0;
    c->info.company = m->company;
    if (c->hello_waits) {
        c->hello_waits = false;
        send_requests(c, true);
    } else if (tr_client_send_hello(c, now_ns) != TR_OK) {
        c->down = true;
    }
    return TR_OK;
}

/* ---- time ---------------------------------------------------------------------------------------------------------
 */

tr_status tr_client_open_monitor(tr_client *c, void *context, tr_error *err) {
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "inproc://troupe-monitor-%p", (void *)c);
    if (zmq_socket_monitor(c->socket, endpoint, ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED) != 0)
        return tr_error_set(err, TR_SYSTEM, "cannot watch the connection: %s", zmq_strerror(errno));
    tr_zmq_socket_options o = {.type = ZMQ_PAIR, .max_message_bytes = 4096};
    return tr_zmq_socket_open(context, endpoint, &o, &c->monitor, err);
}

void tr_client_look(tr_client *c) {
    uint8_t event[6]; /* u16 event, u32 value; a second frame holds the address */
    char address[256];
    while (zmq_recv(c->monitor, event, sizeof event, ZMQ_DONTWAIT) == (int)sizeof event) {
        uint16_t kind;
        memcpy(&kind, event, sizeof kind);
        zmq_recv(c->monitor, address, sizeof address, ZMQ_DONTWAIT);
        if (kind == ZMQ_EVENT_DISCONNECTED) c->down = true;
    }
}

static bool can_send(tr_client *c) {
    int events = 0;
    size_t size = sizeof events;
    return zmq_getsockopt(c->socket, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLOUT);
}

static void ping(tr_client *c, uint64_t now_ns) {
    tr_msg m = {.type = TR_MSG_PING, .as.ping.nonce = now_ns};
    c->ping_ns = now_ns;
    if (c->silent_since == 0) c->silent_since = now_ns;
    if (tr_client_send(c, &m) != TR_OK) c->down = true;
}

void tr_client_tick(tr_client *c, uint64_t now_ns) {
    tr_client_look(c);
    if (!can_send(c))
        c->down = true;
    else if (c->down)
        c->down = tr_client_send_hello(c, now_ns) != TR_OK;
    else if (c->hello_waits && now_ns - c->hello_ns >= HELLO_NS)
        tr_client_send_hello(c, now_ns);
    if (now_ns - c->ping_ns >= PING_NS) ping(c, now_ns);
    if (!c->down && !c->hello_waits) send_requests(c, false);
}

bool tr_client_lost(tr_client *c, uint64_t now_ns) {
    if (c->silent_since == 0 || now_ns - c->silent_since < c->lost_ns || c->silence_told) return false;
    c->silence_told = true;
    c->fail_before_id = c->next_id;
    snprintf(c->fail_text, sizeof c->fail_text, "the company at %.200s has not answered for %llu s", c->endpoint,
             (unsigned long long)((now_ns - c->silent_since) / TR_NS_PER_S));
    return true;
}

uint64_t tr_client_next_tick_ns(const tr_client *c, uint64_t now_ns) {
    uint64_t next = c->ping_ns + PING_NS, lost = c->silent_since + c->lost_ns;
    if (c->down && now_ns + DOWN_NS < next) next = now_ns + DOWN_NS;
    if (c->silent_since != 0 && !c->silence_told && lost < next) next = lost;
    return next;
}
