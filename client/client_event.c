/* Messages become events. The company is trusted with its text but not with our memory: a message that does not decode,
 * leaves a gap, or brings logits of a wrong shape ends its request with an error and nothing else. */
#include "base/checked.h"
#include "base/clock.h"
#include "client/client_state.h"
#include "transport/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tr_client_drop_views(tr_client *c) {
    if (c->message_open) zmq_msg_close(&c->message);
    if (c->payload_open) zmq_msg_close(&c->payload);
    c->message_open = c->payload_open = false;
    free(c->rows);
    free(c->json);
    c->rows = NULL;
    c->json = NULL;
    tr_codec_arena_reset(&c->arena);
}

static void error_event(tr_client *c, uint64_t id, uint32_t code, const char *text, size_t len,
                        tr_client_event *event) {
    snprintf(c->error_text, sizeof c->error_text, "%.*s", (int)len, len ? text : "");
    *event = (tr_client_event){.kind = TR_CLIENT_ERROR, .id = id, .code = code, .error = c->error_text};
}

void tr_client_fail(tr_client *c, tr_client_request *r, uint32_t code, const char *text, tr_client_event *event) {
    error_event(c, r->id, code, text, strlen(text), event);
    event->sample = r->n > 1 ? TR_MAX_SAMPLES : 0;
    event->last = true;
    tr_client_remove(c, r);
}

/* A sample has ended; the request with the last one. One that was added again may still run samples whose end was here
 * before. */
static void end_sample(tr_client *c, tr_client_request *r, uint32_t sample, tr_client_event *event) {
    event->sample = sample;
    r->open &= sample < TR_MAX_SAMPLES ? ~(1u << sample) : 0;
    event->last = r->open == 0;
    if (!event->last) return;
    tr_msg m = {.type = TR_MSG_ABORT, .as.abort.id = r->id};
    if (r->again && r->n > 1) (void)tr_client_send(c, &m);
    tr_client_remove(c, r);
}

/* The company still runs it: it should stop. */
static tr_status fail_and_abort(tr_client *c, tr_client_request *r, const char *text, tr_client_event *event) {
    tr_msg m = {.type = TR_MSG_ABORT, .as.abort.id = r->id};
    (void)tr_client_send(c, &m);
    tr_client_fail(c, r, 70, text, event);
    return TR_OK;
}

/* ---- text ---------------------------------------------------------------------------------------------------------
 */

/* Logits of the second frame; false: malformed. */
static bool take_logits(tr_client *c, tr_client_event *event) {
    tr_wire_header h;
    size_t size = zmq_msg_size(&c->payload);
    const uint8_t *data = zmq_msg_data(&c->payload);
    uint64_t cells, bytes;
    if (size < sizeof h) return false;
    memcpy(&h, data, sizeof h);
    const bool hidden = h.kind == TR_WIRE_HIDDEN;
    if ((h.kind != TR_WIRE_LOGITS && !hidden) || h.rows == 0 || h.cols == 0 ||
        !tr_checked_mul(h.rows, h.cols, &cells) || !tr_checked_mul(cells, sizeof(float), &bytes) ||
        bytes != h.payload_bytes || bytes != size - sizeof h)
        return false;
    if (c->info.vocab != 0 && h.cols != c->info.vocab && !hidden) return false;
    data += sizeof h;
    if (((uintptr_t)data & (_Alignof(float) - 1)) != 0) {
        c->rows = malloc((size_t)bytes);
        if (!c->rows) return false;
        memcpy(c->rows, data, (size_t)bytes);
        data = (const uint8_t *)c->rows;
    }
    event->hidden = hidden;
    event->pos0 = h.pos0;
    event->rows = h.rows;
    event->cols = h.cols;
    event->logits = (const float *)(const void *)data;
    return true;
}

static bool continues(const tr_client_request *r, const tr_msg_text *m) {
    bool bare = m->tokens.len == 0 && m->text.len == 0 && !m->finish; /* logits only */
    return bare ||
           (m->index <= r->next_index[m->sample] && (m->text.len == 0 || m->offset <= r->next_offset[m->sample]) &&
            (uint64_t)m->index + m->tokens.len <= UINT32_MAX && m->offset <= UINT64_MAX - m->text.len);
}

/* Those of the last tokens, as far as they are new. */
static void take_logprobs(const tr_client_request *r, const tr_msg_text *m, tr_client_event *event) {
    if (r->logprobs == 0 || m->logprobs.len != m->logprob_ids.len || m->logprobs.len % r->logprobs != 0) return;
    const uint32_t have = m->logprobs.len / r->logprobs, n = have < event->n_tokens ? have : event->n_tokens;
    event->n_logprobs = n;
    event->logprob_ids = m->logprob_ids.data + (size_t)(have - n) * r->logprobs;
    event->logprobs = m->logprobs.data + (size_t)(have - n) * r->logprobs;
}

/* What was delivered before is cut off the front. */
static void take_new(tr_client_request *r, const tr_msg_text *m, tr_client_event *event) {
    uint64_t tokens_end = (uint64_t)m->index + m->tokens.len, text_end = m->offset + m->text.len;
    uint32_t *next_index = &r->next_index[m->sample];
    uint64_t *next_offset = &r->next_offset[m->sample];
    event->index = *next_index;
    if (tokens_end > *next_index) {
        uint32_t known = *next_index - m->index;
        event->tokens = m->tokens.data + known;
        event->n_tokens = m->tokens.len - known;
        *next_index = (uint32_t)tokens_end;
        take_logprobs(r, m, event);
    }
    event->text = "";
    if (m->text.len != 0 && text_end > *next_offset) {
        uint64_t known = *next_offset - m->offset;
        event->text = (const char *)m->text.data + known;
        event->text_bytes = (size_t)(m->text.len - known);
        *next_offset = text_end;
    }
}

static tr_status on_text(tr_client *c, const tr_msg_text *m, tr_client_event *event) {
    tr_client_request *r = tr_client_find(c, m->id);
    if (!r || m->sample >= r->n || !(r->open >> m->sample & 1)) return TR_AGAIN; /* ended before: a repeat */
    if (!continues(r, m)) return fail_and_abort(c, r, "the company left out a part of the output: add it again", event);
    *event = (tr_client_event){.kind = m->finish ? TR_CLIENT_END : TR_CLIENT_TEXT, .id = r->id, .sample = m->sample};
    if (c->payload_open && !take_logits(c, event))
        return fail_and_abort(c, r, "the company sent malformed logits: its version may differ", event);
    take_new(r, m, event);
    if (!m->finish) return event->n_tokens || event->text_bytes || event->rows ? TR_OK : TR_AGAIN;
    event->finish = m->finish;
    event->prompt_tokens = m->prompt_tokens;
    event->generated_tokens = r->next_index[m->sample];
    event->queue_ns = m->queue_ns;
    event->ttft_ns = m->ttft_ns;
    event->handoff_ns = m->handoff_ns;
    event->handoff_bytes = m->handoff_bytes;
    event->visible_ns = m->visible_ns;
    event->total_ns = m->total_ns;
    event->saved_bytes = m->saved_bytes;
    event->note = m->note.data;
    event->note_bytes = m->note.len;
    event->cached_tokens = m->cached_tokens;
    end_sample(c, r, m->sample, event);
    return TR_OK;
}

/* ---- the others ---------------------------------------------------------------------------------------------------
 */

/* Of a request, or (id 0) of the connection. */
static tr_status on_error(tr_client *c, const tr_msg_error *m, tr_client_event *event) {
    tr_client_request *r = m->id ? tr_client_find(c, m->id) : NULL;
    if (m->id && (!r || (m->sample < TR_MAX_SAMPLES && !(r->open >> m->sample & 1)))) return TR_AGAIN;
    error_event(c, m->id, m->code, m->text.data, m->text.len, event);
    event->last = true;
    if (r) end_sample(c, r, r->n == 1 ? 0 : m->sample, event);
    return TR_OK;
}

static tr_status on_status(tr_client *c, const tr_msg_status_reply *m, tr_client_event *event) {
    c->json = malloc((size_t)m->json.len + 1);
    if (!c->json) return TR_AGAIN;
    if (m->json.len) memcpy(c->json, m->json.data, m->json.len);
    c->json[m->json.len] = 0;
    *event = (tr_client_event){.kind = TR_CLIENT_STATUS, .id = m->id, .json = c->json};
    return TR_OK;
}

static tr_status on_undecodable(tr_client *c, const tr_error *why, tr_client_event *event) {
    tr_msg_type type;
    uint64_t id;
    tr_codec_peek(zmq_msg_data(&c->message), zmq_msg_size(&c->message), &type, &id);
    tr_client_request *r = tr_client_find(c, id);
    if (!r || (type != TR_MSG_TEXT && type != TR_MSG_ERROR)) return TR_AGAIN;
    char text[TR_MAX_ERROR_BYTES];
    snprintf(text, sizeof text, "the company sent a malformed message (%.300s)", why->text);
    return fail_and_abort(c, r, text, event);
}

static tr_status on_message(tr_client *c, tr_client_event *event, tr_error *err) {
    tr_msg m;
    tr_error why = {0};
    if (tr_codec_decode(zmq_msg_data(&c->message), zmq_msg_size(&c->message), &c->arena, &m, &why) != TR_OK)
        return on_undecodable(c, &why, event);
    c->silent_since = 0;
    c->silence_told = false;
    switch (m.type) {
    case TR_MSG_WELCOME: {
        tr_status status = tr_client_on_welcome(c, &m.as.welcome, tr_clock_now_ns(), err);
        return status == TR_OK ? TR_AGAIN : status;
    }
    case TR_MSG_TEXT: return on_text(c, &m.as.text, event);
    case TR_MSG_ERROR: return on_error(c, &m.as.error, event);
    case TR_MSG_STATUS_REPLY: return on_status(c, &m.as.status_reply, event);
    default: return TR_AGAIN; /* the echo of a ping, or something newer than this library */
    }
}

/* One whole message of one or two frames. TR_PROTO: more frames, dropped. */
static tr_status take_frames(tr_client *c) {
    zmq_msg_init(&c->message);
    c->message_open = true;
    if (zmq_msg_recv(&c->message, c->socket, ZMQ_DONTWAIT) < 0)
        return errno == EAGAIN || errno == EINTR ? TR_AGAIN : TR_SYSTEM;
    if (!zmq_msg_more(&c->message)) return TR_OK;
    zmq_msg_init(&c->payload);
    c->payload_open = true;
    if (zmq_msg_recv(&c->payload, c->socket, ZMQ_DONTWAIT) < 0) return TR_PROTO;
    tr_status status = TR_OK;
    while (zmq_msg_more(&c->payload)) {
        status = TR_PROTO;
        if (zmq_msg_recv(&c->payload, c->socket, ZMQ_DONTWAIT) < 0) break;
    }
    return status;
}

tr_status tr_client_receive(tr_client *c, tr_client_event *event, tr_error *err) {
    for (;;) {
        tr_client_drop_views(c);
        tr_status status = take_frames(c);
        if (status == TR_AGAIN) return TR_AGAIN;
        if (status == TR_SYSTEM)
            return tr_error_set(err, TR_SYSTEM, "receiving from %s: %s", c->endpoint, zmq_strerror(errno));
        if (status == TR_OK) status = on_message(c, event, err);
        if (status != TR_AGAIN && status != TR_PROTO) return status;
        if (status == TR_PROTO && err && err->status == TR_PROTO) return status; /* another protocol */
    }
}
