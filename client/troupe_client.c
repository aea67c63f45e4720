#include "client/troupe_client.h"
#include "base/clock.h"
#include "client/client_state.h"
#include "transport/zmq_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { CONNECT_MS = 5000, LOST_MS = 30000, CLOSE_MS = 250, ROUTING_ID_BYTES = 16, RECONNECT_MAX_MS = 200 };
#define FRAME_MAX (256ll << 20)

/* ---- open and close -----------------------------------------------------------------------------------------------
 */

/* First byte not 0: that is for ids that ZeroMQ makes. */
static tr_status random_id(uint8_t id[ROUTING_ID_BYTES], tr_error *err) {
    if (getrandom(id, ROUTING_ID_BYTES, 0) != ROUTING_ID_BYTES)
        return tr_error_set(err, TR_SYSTEM, "no random numbers: %s", strerror(errno));
    id[0] |= 1;
    return TR_OK;
}

static tr_status open_client(tr_client *c, const tr_client_options *o, tr_error *err) {
    uint8_t id[ROUTING_ID_BYTES];
    void *context = o->zmq_context;
    size_t arena_bytes = tr_codec_arena_bytes(TR_MAX_TOKENS, 0), size = sizeof c->fd;
    TR_TRY(random_id(id, err));
    c->arena_memory = malloc(arena_bytes);
    if (!c->arena_memory) return tr_error_set(err, TR_UNAVAILABLE, "no memory for a client");
    tr_codec_arena_init(&c->arena, c->arena_memory, arena_bytes);
    if (!context) {
        TR_TRY(tr_zmq_socket_context(&c->context, err));
        context = c->context;
    }
    tr_zmq_socket_options socket = {.type = ZMQ_DEALER,
                                    .immediate = true,
                                    .max_message_bytes = o->max_frame_bytes ? o->max_frame_bytes : FRAME_MAX,
                                    .routing_id = id,
                                    .routing_id_len = sizeof id,
                                    .reconnect_max_ms = RECONNECT_MAX_MS};
    TR_TRY(tr_zmq_socket_open(context, c->endpoint, &socket, &c->socket, err));
    TR_TRY(tr_client_open_monitor(c, context, err));
    if (zmq_getsockopt(c->socket, ZMQ_FD, &c->fd, &size) != 0)
        return tr_error_set(err, TR_SYSTEM, "cannot wait for %s: %s", c->endpoint, zmq_strerror(errno));
    return TR_OK;
}

static tr_status wait_for_welcome(tr_client *c, int timeout_ms, tr_error *err) {
    uint64_t end = tr_clock_now_ns() + (uint64_t)timeout_ms * TR_NS_PER_MS;
    for (uint64_t now; (now = tr_clock_now_ns()) < end;) {
        tr_client_event event;
        tr_status status = tr_client_poll(c, (int)((end - now) / TR_NS_PER_MS) + 1, &event, err);
        if (c->welcomed) return TR_OK;
        if (status == TR_OK && event.kind == TR_CLIENT_ERROR)
            return tr_error_set(err, TR_UNAVAILABLE, "%s", event.error);
        if (status != TR_OK && status != TR_AGAIN && status != TR_PEER) return status;
        if (status == TR_AGAIN && tr_clock_now_ns() < end)
            return tr_error_set(err, TR_CANCELLED, "interrupted while waiting for %s", c->endpoint);
    }
    return tr_error_set(err, TR_UNAVAILABLE,
                        "no company answers at %s (waited %d ms): start one with `troupe serve`, or check --connect",
                        c->endpoint, timeout_ms);
}

tr_status tr_client_connect(const char *endpoint, const tr_client_options *options, tr_client **out, tr_error *err) {
    tr_client_options o = options ? *options : (tr_client_options){0};
    if (strlen(endpoint) >= sizeof(((tr_client *)0)->endpoint))
        return tr_error_set(err, TR_USAGE, "endpoint %.60s...: too long", endpoint);
    tr_client *c = calloc(1, sizeof *c);
    if (!c) return tr_error_set(err, TR_UNAVAILABLE, "no memory for a client");
    snprintf(c->endpoint, sizeof c->endpoint, "%s", endpoint);
    snprintf(c->name, sizeof c->name, "%s", o.name ? o.name : "client");
    c->next_id = 1;
    c->down = true;
    c->ping_ns = tr_clock_now_ns();
    c->lost_ns = (uint64_t)(o.lost_timeout_ms > 0 ? o.lost_timeout_ms : LOST_MS) * TR_NS_PER_MS;
    tr_status status = open_client(c, &o, err);
    if (status == TR_OK)
        status = wait_for_welcome(c, o.connect_timeout_ms > 0 ? o.connect_timeout_ms : CONNECT_MS, err);
    if (status != TR_OK)
        tr_client_close(&c);
    else
        *out = c;
    return status;
}

void tr_client_close(tr_client **client) {
    tr_client *c = *client;
    if (!c) return;
    if (c->socket) {
        for (size_t i = 0; i < c->n_requests && !c->down; i++) {
            tr_msg m = {.type = TR_MSG_ABORT, .as.abort.id = c->request[i].id};
            (void)tr_client_send(c, &m);
        }
        int linger = c->down ? 0 : CLOSE_MS;
        zmq_setsockopt(c->socket, ZMQ_LINGER, &linger, sizeof linger);
    }
    tr_client_drop_views(c);
    tr_zmq_socket_close(&c->monitor);
    tr_zmq_socket_close(&c->socket);
    if (c->context) zmq_ctx_term(c->context);
    for (size_t i = 0; i < c->n_requests; i++) free(c->request[i].add);
    free(c->request);
    free(c->arena_memory);
    free(c);
    *client = NULL;
}

const tr_client_info *tr_client_about(const tr_client *c) { return &c->info; }
size_t tr_client_open_requests(const tr_client *c) { return c->n_requests; }
int tr_client_fd(const tr_client *c) { return c->fd; }

/* ---- requests -----------------------------------------------------------------------------------------------------
 */

static tr_status check_stops(const tr_client_params *p, tr_str *stop, tr_error *err) {
    if (p->n_stop > TR_MAX_STOPS)
        return tr_error_set(err, TR_USAGE, "%zu stop texts: at most %d are allowed", p->n_stop, TR_MAX_STOPS);
    for (size_t i = 0; i < p->n_stop; i++) {
        size_t n = strlen(p->stop[i]);
        if (n == 0 || n > TR_MAX_STOP_BYTES)
            return tr_error_set(err, TR_USAGE, "stop text %zu has %zu bytes: 1 to %d are allowed", i + 1, n,
                                TR_MAX_STOP_BYTES);
        if (!tr_codec_utf8_valid(p->stop[i], n))
            return tr_error_set(err, TR_USAGE, "stop text %zu is not valid UTF-8", i + 1);
        stop[i] = (tr_str){p->stop[i], (uint32_t)n};
    }
    return TR_OK;
}

static tr_status check_params(const tr_client_params *p, tr_error *err) {
    if (p->prompt_len > TR_MAX_TEXT_BYTES)
        return tr_error_set(err, TR_DATA, "the prompt has %zu bytes: at most %d are allowed", p->prompt_len,
                            TR_MAX_TEXT_BYTES);
    if (!tr_codec_utf8_valid(p->prompt, p->prompt_len))
        return tr_error_set(err, TR_DATA, "the prompt is not valid UTF-8: convert it first");
    if (p->n_tokens > TR_MAX_TOKENS)
        return tr_error_set(err, TR_DATA, "the prompt has %zu tokens: at most %d are allowed", p->n_tokens,
                            TR_MAX_TOKENS);
    if (p->n_tokens && p->prompt_len) return tr_error_set(err, TR_USAGE, "a request has a prompt or tokens, not both");
    if (p->max_tokens > TR_MAX_TOKENS)
        return tr_error_set(err, TR_USAGE, "max_tokens is %u: at most %d are allowed", p->max_tokens, TR_MAX_TOKENS);
    if ((p->save && strlen(p->save) > TR_MAX_FILE_NAME_BYTES) ||
        (p->restore && strlen(p->restore) > TR_MAX_FILE_NAME_BYTES))
        return tr_error_set(err, TR_USAGE, "the name of a saved sequence has at most %d bytes", TR_MAX_FILE_NAME_BYTES);
    if (p->forced > TR_MAX_TOKENS)
        return tr_error_set(err, TR_USAGE, "forced is %u: at most %d are allowed", p->forced, TR_MAX_TOKENS);
    if (p->n > TR_MAX_SAMPLES)
        return tr_error_set(err, TR_USAGE, "n is %u: at most %d samples are possible", p->n, TR_MAX_SAMPLES);
    if (p->timeout_ms > TR_MAX_TIMEOUT_MS)
        return tr_error_set(err, TR_USAGE, "timeout of %u ms: at most %d are possible", p->timeout_ms,
                            TR_MAX_TIMEOUT_MS);
    if (p->cache_salt &&
        (strlen(p->cache_salt) > TR_MAX_SALT_BYTES || !tr_codec_utf8_valid(p->cache_salt, strlen(p->cache_salt))))
        return tr_error_set(err, TR_USAGE, "cache_salt: at most %d bytes of UTF-8 are allowed", TR_MAX_SALT_BYTES);
    if (p->n_bias > TR_MAX_BIAS || p->n_stop_tokens > TR_MAX_STOP_TOKENS || p->top_logprobs > TR_MAX_LOGPROBS)
        return tr_error_set(err, TR_USAGE, "at most %d biases, %d stop tokens, and %d log-probabilities of a token",
                            TR_MAX_BIAS, TR_MAX_STOP_TOKENS, TR_MAX_LOGPROBS);
    for (size_t i = 0; i < p->n_bias; i++)
        if (!(p->bias[i] >= -100 && p->bias[i] <= 100))
            return tr_error_set(err, TR_USAGE, "bias of token %u is %g: -100 to 100 are allowed", p->bias_tokens[i],
                                (double)p->bias[i]);
    if (!(p->presence_penalty >= -2 && p->presence_penalty <= 2) ||
        !(p->frequency_penalty >= -2 && p->frequency_penalty <= 2) ||
        !(p->repetition_penalty >= 0 && p->repetition_penalty <= 100) || !(p->min_p >= 0 && p->min_p <= 1) ||
        p->min_tokens > TR_MAX_TOKENS)
        return tr_error_set(err, TR_USAGE, "a penalty, min_p or min_tokens is out of its bounds");
    if (!(p->temperature >= 0 && p->temperature <= 100))
        return tr_error_set(err, TR_USAGE, "temperature is %g: 0 to 100 are allowed", (double)p->temperature);
    if (!(p->top_p >= 0 && p->top_p <= 1))
        return tr_error_set(err, TR_USAGE, "top_p is %g: 0 to 1 are allowed", (double)p->top_p);
    return TR_OK;
}

static tr_status grow(tr_client *c, tr_error *err) {
    if (c->n_requests < c->cap_requests) return TR_OK;
    size_t cap = c->cap_requests ? 2 * c->cap_requests : 16;
    tr_client_request *bigger = realloc(c->request, cap * sizeof *bigger);
    if (!bigger) return tr_error_set(err, TR_UNAVAILABLE, "no memory for %zu requests", cap);
    c->request = bigger;
    c->cap_requests = cap;
    return TR_OK;
}

static uint32_t logits_of(const tr_client_params *p) {
    if (p->hidden) return TR_LOGITS_HIDDEN;
    return !p->logits ? 0 : p->keep_cache ? TR_LOGITS_COMPUTED : TR_LOGITS_ALL;
}

tr_status tr_client_add(tr_client *c, const tr_client_params *p, uint64_t *id_out, tr_error *err) {
    tr_str stop[TR_MAX_STOPS];
    TR_TRY(check_params(p, err));
    TR_TRY(check_stops(p, stop, err));
    TR_TRY(grow(c, err));
    tr_msg m = {.type = TR_MSG_ADD,
                .as.add = {.id = c->next_id,
                           .prompt = {p->prompt, (uint32_t)p->prompt_len},
                           .tokens = {p->tokens, (uint32_t)p->n_tokens},
                           .max_tokens = p->max_tokens,
                           .temperature = p->temperature,
                           .top_p = p->top_p,
                           .top_k = p->top_k,
                           .seed = p->seed,
                           .ignore_eos = p->ignore_eos,
                           .priority = (uint32_t)p->priority,
                           .stop = {stop, (uint32_t)p->n_stop},
                           .parse_special = p->parse_special,
                           .no_bos = p->no_bos,
                           .forced = p->forced,
                           .save = {p->save, p->save ? (uint32_t)strlen(p->save) : 0},
                           .restore = {p->restore, p->restore ? (uint32_t)strlen(p->restore) : 0},
                           .restore_end = p->restore_end,
                           .n = p->n,
                           .logits = logits_of(p),
                           .min_p = p->min_p,
                           .presence_penalty = p->presence_penalty,
                           .frequency_penalty = p->frequency_penalty,
                           .repetition_penalty = p->repetition_penalty,
                           .bias_tokens = {p->bias_tokens, (uint32_t)p->n_bias},
                           .bias = {p->bias, (uint32_t)p->n_bias},
                           .min_tokens = p->min_tokens,
                           .stop_tokens = {p->stop_tokens, (uint32_t)p->n_stop_tokens},
                           .include_stop = p->include_stop,
                           .show_special = p->show_special,
                           .logprobs = p->logprobs ? 1 + p->top_logprobs : 0,
                           .marked = p->marked,
                           .timeout_ms = p->timeout_ms,
                           .cache_salt = {p->cache_salt, p->cache_salt ? (uint32_t)strlen(p->cache_salt) : 0}}};
    tr_client_request r = {.id = c->next_id, .n = p->n > 1 ? p->n : 1, .logprobs = m.as.add.logprobs};
    r.open = (1u << r.n) - 1;
    size_t cap = tr_codec_size_bound(&m);
    r.add = malloc(cap);
    if (!r.add) return tr_error_set(err, TR_UNAVAILABLE, "no memory for a request of %zu bytes", cap);
    tr_status status = tr_codec_encode(&m, r.add, cap, &r.add_bytes);
    if (status != TR_OK) {
        free(r.add);
        return tr_error_set(err, status, "the request cannot be encoded: %s", tr_status_text(status));
    }
    c->request[c->n_requests++] = r;
    c->next_id++;
    tr_client_look(c);
    if (!c->down && !c->hello_waits) /* else with the welcome */
        c->request[c->n_requests - 1].sent = zmq_send(c->socket, r.add, r.add_bytes, ZMQ_DONTWAIT) >= 0;
    *id_out = r.id;
    return TR_OK;
}

tr_status tr_client_abort(tr_client *c, uint64_t id) {
    tr_client_request *r = tr_client_find(c, id);
    if (!r) return TR_INVALID;
    r->aborted = true;
    tr_msg m = {.type = TR_MSG_ABORT, .as.abort.id = id};
    if (r->sent && tr_client_send(c, &m) != TR_OK) r->sent = false; /* both go out again */
    return TR_OK;
}

tr_status tr_client_status(tr_client *c, uint64_t *id_out) {
    tr_msg m = {.type = TR_MSG_STATUS, .as.status.id = c->next_id};
    TR_TRY(tr_client_send(c, &m));
    *id_out = c->next_id++;
    return TR_OK;
}

tr_status tr_client_drain(tr_client *c, bool stop) {
    tr_msg m = {.type = TR_MSG_DRAIN, .as.drain.stop = stop};
    return tr_client_send(c, &m);
}

/* ---- poll ---------------------------------------------------------------------------------------------------------
 */

/* Requests that were given up end one a call. */
static bool take_failed(tr_client *c, tr_client_event *event) {
    if (c->n_requests == 0 || c->request[0].id >= c->fail_before_id) return false;
    tr_client_drop_views(c);
    tr_client_fail(c, &c->request[0], 69, c->fail_text, event);
    return true;
}

static bool signalled(tr_client *c, uint64_t wait_ns) {
    zmq_pollitem_t item[] = {{.socket = c->socket, .events = ZMQ_POLLIN}, {.socket = c->monitor, .events = ZMQ_POLLIN}};
    long ms = (long)((wait_ns + TR_NS_PER_MS - 1) / TR_NS_PER_MS);
    return zmq_poll(item, 2, ms) < 0;
}

tr_status tr_client_poll(tr_client *c, int timeout_ms, tr_client_event *event, tr_error *err) {
    uint64_t now = tr_clock_now_ns();
    uint64_t end = timeout_ms < 0 ? UINT64_MAX : now + (uint64_t)timeout_ms * TR_NS_PER_MS;
    bool connecting = !c->welcomed;
    tr_error why = {0};
    for (;; now = tr_clock_now_ns()) {
        tr_client_tick(c, now);
        if (take_failed(c, event)) return TR_OK;
        tr_status status = tr_client_receive(c, event, &why);
        if (status != TR_AGAIN) {
            if (status != TR_OK && err) *err = why;
            return status;
        }
        if (take_failed(c, event)) return TR_OK;
        if (tr_client_lost(c, now)) {
            if (take_failed(c, event)) return TR_OK;
            return tr_error_set(err, TR_PEER, "%s", c->fail_text);
        }
        if (now >= end || (connecting && c->welcomed)) return TR_AGAIN;
        uint64_t next = tr_client_next_tick_ns(c, now), until = next < end ? next : end;
        if (until > now && signalled(c, until - now)) return TR_AGAIN;
    }
}
