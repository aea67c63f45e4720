/* actors/frontend/frontend_client.c - client messages: validated fully before anything reaches the scheduler. */
#include "actors/frontend/frontend.h"
#include "actors/frontend/status_json.h"
#include "base/clock.h"
#include "base/log.h"
#include "transport/zmq_socket.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <zmq.h>

#define CLIENT_SILENT_NS (10 * TR_NS_PER_S)
#define PUMP_MAX         256
#define LAST_WORDS_MS    200 /* the end of a stream must reach its client although the company ends */

typedef tr_frontend_sender sender;

tr_status tr_frontend_bind(tr_frontend *f, tr_error *err) {
    const tr_company *c = f->rt->company;
    size_t n = strlen(c->runtime_dir);
    bool own = strncmp(c->endpoint, "ipc://", 6) == 0 && strncmp(c->endpoint + 6, c->runtime_dir, n) == 0;
    tr_zmq_socket_options options = {.type = ZMQ_ROUTER,
                                     .bind = true,
                                     .private_dir = own,
                                     .hwm = 20000,
                                     .max_message_bytes = 2 * TR_MAX_TEXT_BYTES,
                                     .linger_ms = LAST_WORDS_MS,
                                     .heartbeat_ms = 1000};
    return tr_zmq_socket_open(tr_runtime_zmq(f->rt), c->endpoint, &options, &f->router, err);
}

static tr_status send_frames(tr_frontend *f, const uint8_t *client, uint32_t len, const tr_msg *msg, zmq_msg_t *bulk) {
    zmq_msg_t frame;
    size_t cap = tr_codec_size_bound(msg), n = 0;
    if (zmq_msg_init_size(&frame, cap) != 0) return TR_UNAVAILABLE;
    tr_status status = tr_codec_encode(msg, zmq_msg_data(&frame), cap, &n);
    /* ROUTER with MANDATORY: the identity frame tells whether the client can be reached. */
    if (status == TR_OK && zmq_send(f->router, client, len, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        status = errno == EAGAIN ? TR_AGAIN : TR_PEER;
    if (status == TR_OK) {
        zmq_send(f->router, zmq_msg_data(&frame), n, ZMQ_DONTWAIT | (bulk ? ZMQ_SNDMORE : 0));
        if (bulk) zmq_msg_send(bulk, f->router, ZMQ_DONTWAIT);
    }
    zmq_msg_close(&frame);
    return status;
}

tr_status tr_frontend_send_bulk(tr_frontend *f, const uint8_t *client, uint32_t len, const tr_msg *msg,
                                const tr_frontend_bulk *bulk) {
    zmq_msg_t frame;
    if (!bulk) return send_frames(f, client, len, msg, NULL);
    if (zmq_msg_init_data(&frame, bulk->data, bulk->bytes, bulk->give_back, bulk->owner) != 0) {
        bulk->give_back(bulk->data, bulk->owner);
        return TR_UNAVAILABLE;
    }
    tr_status status = send_frames(f, client, len, msg, &frame);
    zmq_msg_close(&frame); /* empty when it was sent */
    return status;
}

tr_status tr_frontend_send(tr_frontend *f, const uint8_t *client, uint32_t len, const tr_msg *msg) {
    return tr_frontend_send_bulk(f, client, len, msg, NULL);
}

/* What a sample of a request ends with; TR_MAX_SAMPLES: all of them. */
static void refuse_sample(tr_frontend *f, sender from, uint64_t id, uint32_t sample, uint32_t code, const char *text) {
    tr_msg m = {.type = TR_MSG_ERROR,
                .as.error = {.id = id, .code = code, .text = {text, (uint32_t)strlen(text)}, .sample = sample}};
    f->refused++;
    tr_frontend_send(f, from.id, from.len, &m);
}

void tr_frontend_refuse(tr_frontend *f, sender from, uint64_t id, uint32_t code, const char *fmt, ...) {
    char text[TR_MAX_ERROR_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    refuse_sample(f, from, id, TR_MAX_SAMPLES, code, text);
}

/* ---- clients ---- */

static tr_frontend_client *find_client(tr_frontend *f, sender from) {
    for (int i = 0; i < TR_FRONTEND_CLIENTS_MAX; i++) {
        tr_frontend_client *c = &f->client[i];
        if (c->used && c->len == from.len && memcmp(c->id, from.id, from.len) == 0) return c;
    }
    return NULL;
}

static void welcome(tr_frontend *f, sender from) {
    const tr_company *c = f->rt->company;
    tr_msg m = {.type = TR_MSG_WELCOME,
                .as.welcome = {.major = TR_PROTOCOL_MAJOR,
                               .minor = TR_PROTOCOL_MINOR,
                               .model = {c->model_name, (uint32_t)strlen(c->model_name)},
                               .vocab = c->vocab,
                               .context = c->context,
                               .instruct = c->instruct,
                               .company = c->id}};
    tr_frontend_send(f, from.id, from.len, &m);
}

static bool has_requests(tr_frontend *f, const tr_frontend_client *c) {
    for (uint32_t i = 0; i < f->requests.cap; i++) {
        const tr_request *r = &f->requests.at[i];
        if (r->used && r->client_len == c->len && memcmp(r->client, c->id, c->len) == 0) return true;
    }
    return false;
}

/* Room for one more: clients leave without a word, so the one that was silent for longest and has nothing open makes
 * room (if it lives, its next ping is answered by WELCOME and it says hello again). NULL: all have open requests. */
static tr_frontend_client *room_for_client(tr_frontend *f) {
    tr_frontend_client *oldest = NULL;
    for (int i = 0; i < TR_FRONTEND_CLIENTS_MAX; i++) {
        tr_frontend_client *c = &f->client[i];
        if (!c->used) return c;
        if ((!oldest || c->seen_ns < oldest->seen_ns) && !has_requests(f, c)) oldest = c;
    }
    return oldest;
}

static void on_hello(tr_frontend *f, sender from, const tr_msg_hello *m) {
    if (m->major != TR_PROTOCOL_MAJOR) {
        tr_frontend_refuse(
            f, from, 0, 69,
            "this company speaks protocol %d.%d, the client %u.%u: use a client of the same major version",
            TR_PROTOCOL_MAJOR, TR_PROTOCOL_MINOR, m->major, m->minor);
        return;
    }
    tr_frontend_client *c = find_client(f, from);
    if (!c) c = room_for_client(f);
    if (!c) {
        tr_frontend_refuse(f, from, 0, 69, "too many clients (%d): close one and try again", TR_FRONTEND_CLIENTS_MAX);
        return;
    }
    c->used = true;
    c->len = from.len;
    memcpy(c->id, from.id, from.len);
    c->seen_ns = tr_clock_now_ns();
    /* The ends among its requests go before WELCOME: it must not add those again. */
    tr_frontend_adopt_client(f, from.id, from.len);
    welcome(f, from);
}

tr_frontend_client *tr_frontend_find_client(tr_frontend *f, const uint8_t *client, uint32_t len) {
    return find_client(f, (sender){client, len});
}

void tr_frontend_sweep_clients(tr_frontend *f, uint64_t now_ns) {
    for (int i = 0; i < TR_FRONTEND_CLIENTS_MAX; i++) {
        tr_frontend_client *c = &f->client[i];
        if (!c->used || now_ns - c->seen_ns < CLIENT_SILENT_NS) continue;
        c->used = false;
        tr_frontend_client_gone(f, c->id, c->len);
    }
    if (now_ns - f->born_ns > CLIENT_SILENT_NS) tr_frontend_sweep_orphans(f);
}

bool tr_frontend_anyone_there(tr_frontend *f) {
    tr_msg m = {.type = TR_MSG_PING};
    for (int i = 0; i < TR_FRONTEND_CLIENTS_MAX; i++) {
        tr_frontend_client *c = &f->client[i];
        if (c->used && tr_frontend_send(f, c->id, c->len, &m) == TR_PEER) c->used = false;
        if (c->used) return true;
    }
    return false;
}

/* ---- requests ---- */

/* Ids of the prompt in f->ids or in the message. False: refused. */
static bool prompt_ids(tr_frontend *f, sender from, const tr_msg_add *m, tr_u32v *ids_out) {
    tr_error err = {0};
    if (m->tokens.len > 0) {
        for (uint32_t i = 0; i < m->tokens.len; i++)
            if (m->tokens.data[i] >= f->rt->company->vocab) {
                tr_frontend_refuse(f, from, m->id, 65, "token %u of the prompt is %u, but the vocabulary ends at %u", i,
                                   m->tokens.data[i], f->rt->company->vocab - 1);
                return false;
            }
        *ids_out = m->tokens;
        return true;
    }
    if (!f->tokenizer) {
        tr_frontend_refuse(f, from, m->id, 65, "the model file has no vocabulary that troupe reads: send token ids");
        return false;
    }
    size_t bound = tr_tokenizer_bound(m->prompt.len), n = 0;
    if (bound > f->ids_cap) {
        uint32_t *bigger = realloc(f->ids, bound * sizeof *bigger);
        if (!bigger) {
            tr_frontend_refuse(f, from, m->id, 69, "no memory to tokenize %u bytes", m->prompt.len);
            return false;
        }
        f->ids = bigger;
        f->ids_cap = bound;
    }
    unsigned flags = (m->no_bos ? 0u : TR_TOKENIZE_BOS) | (m->parse_special ? TR_TOKENIZE_PARSE_SPECIAL : 0u) |
                     (m->marked ? TR_TOKENIZE_MARKED : 0u);
    if (tr_tokenizer_encode(f->tokenizer, m->prompt.data, m->prompt.len, flags, f->ids, f->ids_cap, &n, &err) !=
        TR_OK) {
        tr_frontend_refuse(f, from, m->id, 65, "%s", err.text);
        return false;
    }
    *ids_out = (tr_u32v){f->ids, (uint32_t)n};
    return true;
}

/* A request id of which the last bits are free for the sample. */
static uint64_t new_rid(tr_frontend *f) {
    for (uint64_t rid;;) {
        if (getrandom(&rid, sizeof rid, 0) != (ssize_t)sizeof rid) rid = tr_clock_now_ns() * TR_MAX_SAMPLES;
        rid &= ~(uint64_t)(TR_MAX_SAMPLES - 1);
        bool used = rid == 0;
        for (uint32_t k = 0; k < TR_MAX_SAMPLES && !used; k++) used = tr_request_find(&f->requests, rid + k) != NULL;
        if (!used) return rid;
    }
}

/* Entries of samples [first, first + n); false: no room for all. */
static bool add_requests(tr_frontend *f, sender from, const tr_msg_add *m, uint64_t rid, uint32_t first, uint32_t n,
                         uint32_t n_prompt) {
    for (uint32_t k = first; k < first + n; k++) {
        tr_request *r = tr_request_add(&f->requests, rid + k, from.id, from.len, m->id);
        if (!r) return false;
        r->sample = k;
        r->prompt_len = n_prompt;
        r->logits = m->logits != 0;
        r->min_tokens = m->min_tokens;
        r->logprobs = m->logprobs;
        if (f->tokenizer) tr_detokenizer_init(&r->detokenizer, f->tokenizer, tr_request_text_flags(m->show_special));
        tr_stop_match_init(&r->stop, m->stop.data, m->stop.len);
        r->stop.included = m->include_stop;
        if (r->logits) r->logit_seen = calloc(f->rt->company->context / 64 + 1, sizeof(uint64_t));
        if (r->logits && !r->logit_seen) return false;
    }
    return true;
}

/* All n samples of a request, or one alone (n 1). The SUBMIT is kept with the first of them. */
static void submit(tr_frontend *f, sender from, const tr_msg_add *m, tr_u32v ids, uint32_t first, uint32_t n) {
    const uint64_t rid = new_rid(f);
    uint32_t room = f->rt->company->context - ids.len;
    tr_msg s = {.type = TR_MSG_SUBMIT,
                .as.submit = {.rid = rid,
                              .client = {from.id, from.len},
                              .id = m->id,
                              .tokens = ids,
                              .forced = m->forced,
                              .max_tokens = m->max_tokens < room ? m->max_tokens : room,
                              .temperature = m->temperature,
                              .top_p = m->top_p,
                              .top_k = m->top_k,
                              .seed = m->seed,
                              .ignore_eos = m->ignore_eos,
                              .min_p = m->min_p,
                              .presence_penalty = m->presence_penalty,
                              .frequency_penalty = m->frequency_penalty,
                              .repetition_penalty = m->repetition_penalty,
                              .bias_tokens = m->bias_tokens,
                              .bias = m->bias,
                              .min_tokens = m->min_tokens,
                              .stop_tokens = m->stop_tokens,
                              .include_stop = m->include_stop,
                              .show_special = m->show_special,
                              .logprobs = m->logprobs,
                              .priority = m->priority,
                              .stop = m->stop,
                              .logits = m->logits,
                              .save = m->save,
                              .restore = m->restore,
                              .restore_end = m->restore_end,
                              .cache_salt = m->cache_salt,
                              .n = n,
                              .sample = first,
                              .timeout_ms = m->timeout_ms}};
    tr_status status = add_requests(f, from, m, rid, first, n, ids.len) ? TR_OK : TR_EXHAUSTED;
    if (status == TR_OK) {
        tr_request *r = tr_request_find(&f->requests, rid + first);
        size_t cap = tr_codec_size_bound(&s);
        r->submit = malloc(cap);
        bool kept = r->submit && tr_codec_encode(&s, r->submit, cap, &r->submit_bytes) == TR_OK;
        status = kept ? tr_runtime_send(f->rt, f->rt->company->scheduler, &s) : TR_UNAVAILABLE;
    }
    if (status == TR_OK) return;
    char text[TR_MAX_ERROR_BYTES];
    snprintf(text, sizeof text, "the company is overloaded (%s; %u requests are open): try again",
             tr_status_text(status), f->requests.n);
    for (uint32_t k = first; k < first + n; k++) {
        tr_request *r = tr_request_find(&f->requests, rid + k);
        if (r) tr_request_remove(&f->requests, r);
    }
    refuse_sample(f, from, m->id, n > 1 ? TR_MAX_SAMPLES : first, 69, text);
}

/* Samples of the request that are nowhere: bit k. */
static uint32_t missing_samples(tr_frontend *f, sender from, const tr_msg_add *m) {
    tr_journal *journal = f->rt->segment[TR_SEGMENT_JOURNAL];
    uint32_t missing = 0, n = m->n > 1 ? m->n : 1;
    for (uint32_t k = 0; k < n; k++)
        if (!tr_request_find_client(&f->requests, from.id, from.len, m->id, k) &&
            !tr_request_journal_client(journal, from.id, from.len, m->id, k))
            missing |= 1u << k;
    return missing;
}

static void on_add(tr_frontend *f, sender from, const tr_msg_add *m) {
    if (m->id == 0) {
        tr_frontend_refuse(f, from, 0, 64, "id is 0: give every request an id of its own from 1 on");
        return;
    }
    if (!find_client(f, from)) {
        welcome(f, from); /* its HELLO went to an earlier life: it says it again, and adds again */
        return;
    }
    /* A client adds its open requests again after a restart of this actor: samples that were accepted go on by
     * themselves. Those that have ended are told at HELLO; what the journal still holds of them does not keep the id
     * from being used again. A sample whose end was lost on the way is run again: it has the same text. */
    const uint32_t n = m->n > 1 ? m->n : 1, missing = missing_samples(f, from, m);
    if (missing == 0) return;
    if (f->draining) {
        for (uint32_t k = 0; k < n; k++)
            if (missing >> k & 1)
                refuse_sample(f, from, m->id, k, 69, "the company is draining: it takes no new requests");
        return;
    }
    for (uint32_t i = 0; i < m->stop.len; i++)
        if (m->stop.data[i].len == 0 || m->stop.data[i].len > TR_MAX_STOP_BYTES) {
            tr_frontend_refuse(f, from, m->id, 64, "stop text %u has %u bytes: 1 to %d are allowed", i,
                               m->stop.data[i].len, TR_MAX_STOP_BYTES);
            return;
        }
    tr_u32v ids;
    if (!prompt_ids(f, from, m, &ids) || !tr_frontend_check(f, from, m, ids.len)) return;
    if (missing == (1u << n) - 1)
        submit(f, from, m, ids, 0, n);
    else
        for (uint32_t k = 0; k < n; k++)
            if (missing >> k & 1) submit(f, from, m, ids, k, 1);
}

static void on_abort(tr_frontend *f, sender from, const tr_msg_abort *m) {
    for (uint32_t k = 0; k < TR_MAX_SAMPLES; k++) {
        tr_request *r = tr_request_find_client(&f->requests, from.id, from.len, m->id, k);
        if (r && !r->finish) tr_frontend_cancel(f, r, TR_FINISH_ABORT, UINT32_MAX);
    }
}

static void on_status(tr_frontend *f, sender from, const tr_msg_status *m) {
    char *json = tr_status_json(f->rt);
    if (!json) return;
    tr_msg reply = {.type = TR_MSG_STATUS_REPLY,
                    .as.status_reply = {.id = m->id, .json = {json, (uint32_t)strlen(json)}}};
    tr_frontend_send(f, from.id, from.len, &reply);
    free(json);
}

static void on_drain(tr_frontend *f, const tr_msg *msg) {
    f->draining = true;
    f->stop_after_drain |= msg->as.drain.stop != 0;
    atomic_store(&f->rt->control->drain, f->stop_after_drain ? 2 : 1); /* for the next life of this actor */
    tr_runtime_send(f->rt, f->rt->company->scheduler, msg);
}

static void on_ping(tr_frontend *f, sender from, const tr_msg *msg) {
    tr_frontend_client *c = find_client(f, from);
    if (!c) {
        welcome(f, from);
        return;
    }
    c->seen_ns = tr_clock_now_ns();
    tr_frontend_send(f, from.id, from.len, msg);
}

static void on_client(tr_frontend *f, sender from, const void *data, size_t bytes) {
    tr_msg msg;
    tr_error err = {0};
    tr_codec_arena_reset(&f->arena);
    if (tr_codec_decode(data, bytes, &f->arena, &msg, &err) != TR_OK) {
        tr_msg_type type;
        uint64_t id;
        tr_codec_peek(data, bytes, &type, &id);
        f->dropped++;
        tr_frontend_refuse(f, from, id, 65, "%s", err.text);
        return;
    }
    switch (msg.type) {
    case TR_MSG_HELLO: on_hello(f, from, &msg.as.hello); break;
    case TR_MSG_ADD: on_add(f, from, &msg.as.add); break;
    case TR_MSG_ABORT: on_abort(f, from, &msg.as.abort); break;
    case TR_MSG_PING: on_ping(f, from, &msg); break;
    case TR_MSG_STATUS: on_status(f, from, &msg.as.status); break;
    case TR_MSG_DRAIN: on_drain(f, &msg); break;
    default: f->dropped++; tr_frontend_refuse(f, from, 0, 64, "this message is not for the frontend");
    }
}

/* Exactly two frames, identity and message; anything else is dropped and counted. At most PUMP_MAX messages at a time:
 * a client that floods the socket does not keep the others' texts waiting. */
bool tr_frontend_pump_clients(tr_frontend *f) {
    bool any = false;
    zmq_msg_t id, body;
    zmq_msg_init(&id);
    zmq_msg_init(&body);
    int n = 0;
    while (n < PUMP_MAX && zmq_msg_recv(&id, f->router, ZMQ_DONTWAIT) >= 0) {
        any = true;
        n++;
        bool ok = zmq_msg_more(&id) && zmq_msg_recv(&body, f->router, ZMQ_DONTWAIT) >= 0 && !zmq_msg_more(&body) &&
                  zmq_msg_size(&id) > 0 && zmq_msg_size(&id) <= TR_MAX_CLIENT_ID_BYTES;
        bool more = zmq_msg_more(&id) && zmq_msg_more(&body);
        while (more) {
            if (zmq_msg_recv(&body, f->router, ZMQ_DONTWAIT) < 0) break;
            more = zmq_msg_more(&body);
        }
        if (ok)
            on_client(f, (sender){zmq_msg_data(&id), (uint32_t)zmq_msg_size(&id)}, zmq_msg_data(&body),
                      zmq_msg_size(&body));
        else
            f->dropped++;
    }
    /* A full turn is a sign of life: a flood is no hang. */
    if (n == PUMP_MAX) atomic_fetch_add_explicit(&f->rt->block->beat, 1, memory_order_relaxed);
    zmq_msg_close(&id);
    zmq_msg_close(&body);
    return any;
}
