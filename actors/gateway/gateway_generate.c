/* actors/gateway/gateway_generate.c - from the company's texts to one answer or a stream of server-sent events. */
#include "actors/gateway/gateway.h"

#include "base/clock.h"
#include "base/rng.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PING_NS (10 * TR_NS_PER_S)

/* sample TR_MAX_SAMPLES: any of the request's. */
static tr_gateway_exchange *find(tr_gateway *g, uint64_t id, uint32_t sample, tr_gateway_choice **choice_out) {
    for (uint32_t i = 0; i < TR_GATEWAY_EXCHANGES; i++)
        for (uint32_t k = 0; g->exchange[i].http && k < g->exchange[i].n_choices; k++)
            if (g->exchange[i].choice[k].id == id &&
                (sample == TR_MAX_SAMPLES || k % g->exchange[i].samples == sample)) {
                *choice_out = &g->exchange[i].choice[k];
                return &g->exchange[i];
            }
    return NULL;
}

static void forget(tr_gateway *g, tr_gateway_exchange *x) {
    uint64_t aborted = 0; /* samples of a prompt lie side by side */
    for (uint32_t k = 0; k < x->n_choices; k++) {
        const uint64_t id = x->choice[k].id;
        if (id && id != aborted && g->client) tr_client_abort(g->client, id);
        if (id) aborted = id;
        free(x->choice[k].text);
        tr_gateway_scores_free(&x->choice[k]);
    }
    free(x->choice);
    *x = (tr_gateway_exchange){0};
}

static tr_openai_answer answer_of(const tr_gateway *g, const tr_gateway_exchange *x) {
    return (tr_openai_answer){.kind = x->kind, .id = x->id, .model = g->rt->company->model_name, .created = x->created};
}

/* ---- out ---- */

static void begin_stream(tr_gateway *g, tr_gateway_exchange *x) {
    const tr_http_header headers[] = {
        {"cache-control:", "no-cache"}, {x->request_id[0] ? "x-request-id:" : NULL, x->request_id}, {NULL, NULL}};
    if (x->begun) return;
    x->begun = true;
    tr_http_begin(g->http, x->http, 200, "text/event-stream", headers);
}

static void send_event(tr_gateway *g, tr_gateway_exchange *x, char *json) {
    const tr_http_id id = x->http; /* a slow client may be gone after the first of these */
    begin_stream(g, x);
    if (json) {
        tr_http_write(g->http, id, "data: ", 6);
        tr_http_write(g->http, id, json, strlen(json));
        tr_http_write(g->http, id, "\n\n", 2);
    }
    free(json);
    x->told_ns = g->now_ns;
}

static tr_openai_usage usage_of(const tr_gateway_exchange *x) {
    tr_openai_usage u = {0};
    for (uint32_t k = 0; k < x->n_choices; k++) u.generated += x->choice[k].generated;
    for (uint32_t k = 0; k < x->n_choices; k += x->samples) { /* computed once for all its samples */
        u.prompt += x->choice[k].prompt_tokens;
        u.cached += x->choice[k].cached_tokens;
    }
    return u;
}

/* "logprobs" of what has not been told of a choice yet; NULL: not asked for. */
static json_t *logprobs_of(const tr_gateway *g, const tr_gateway_exchange *x, tr_gateway_choice *c) {
    const uint32_t from = c->told;
    c->told = c->scores.n;
    return x->logprobs ? tr_openai_logprobs_json(x->kind, &c->scores, from, g->tokenizer, &c->offset) : NULL;
}

static char *whole_answer(const tr_gateway *g, const tr_gateway_exchange *x) {
    const tr_openai_answer a = answer_of(g, x);
    const tr_openai_usage u = usage_of(x);
    if (x->kind == TR_OPENAI_EMBEDDING) {
        float *vectors = tr_gateway_scores_vectors(g, x);
        char *json = vectors
                         ? tr_openai_embeddings_json(&a, vectors, x->n_choices, g->rt->company->hidden, x->base64, &u)
                         : NULL;
        free(vectors);
        return json;
    }
    tr_openai_choice choices[TR_OPENAI_CHOICES_MAX];
    uint32_t n = 0;
    for (uint32_t prompt = 0; prompt < x->n_choices / x->samples; prompt++) {
        uint32_t chosen[TR_MAX_SAMPLES];
        tr_gateway_scores_best(x, prompt, chosen);
        for (uint32_t k = 0; k < x->answers; k++) {
            tr_gateway_choice *c = &x->choice[chosen[k]];
            choices[n++] = (tr_openai_choice){c->text ? c->text : "", c->len, c->finish, logprobs_of(g, x, c)};
        }
    }
    return tr_openai_whole_json(&a, choices, n, &u);
}

static void end(tr_gateway *g, tr_gateway_exchange *x) {
    const tr_openai_answer a = answer_of(g, x);
    const tr_openai_usage u = usage_of(x);
    if (x->stream) {
        const tr_http_id id = x->http;
        if (x->include_usage) send_event(g, x, tr_openai_usage_json(&a, &u));
        begin_stream(g, x);
        tr_http_write(g->http, id, "data: [DONE]\n\n", 14);
        tr_http_end(g->http, id);
    } else {
        char *json = whole_answer(g, x);
        const tr_http_header headers[] = {{x->request_id[0] ? "x-request-id:" : NULL, x->request_id}, {NULL, NULL}};
        if (json) tr_http_reply(g->http, x->http, 200, "application/json", headers, json, strlen(json));
        free(json);
    }
    forget(g, x);
}

/* The whole exchange ends with one error. */
void tr_gateway_fail(tr_gateway *g, tr_gateway_exchange *x, const tr_openai_refusal *why) {
    const tr_http_id id = x->http;
    if (x->stream && x->begun) {
        send_event(g, x, tr_openai_error_json(why));
        tr_http_end(g->http, id);
    } else
        tr_gateway_refuse(g, id, x->request_id, why);
    forget(g, x);
}

void tr_gateway_send_piece(tr_gateway *g, tr_gateway_exchange *x, const tr_openai_piece *piece) {
    const tr_openai_answer a = answer_of(g, x);
    const tr_openai_usage u = usage_of(x);
    tr_openai_piece p = *piece;
    if (x->continuous_usage) p.so_far = &u;
    send_event(g, x, tr_openai_chunk_json(&a, &p));
}

bool tr_gateway_keep(tr_gateway_choice *c, const char *text, size_t len) {
    if (c->len + len > c->room) {
        size_t room = 2 * (c->len + len) + 64;
        char *more = realloc(c->text, room);
        if (!more) return false;
        c->text = more;
        c->room = room;
    }
    if (len) memcpy(c->text + c->len, text, len);
    c->len += len;
    return true;
}

/* ---- in, from the company ---- */

static void on_error(tr_gateway *g, tr_gateway_exchange *x, tr_gateway_choice *c, const tr_client_event *e) {
    tr_openai_refusal why;
    const int status = e->code == 64 || e->code == 65 ? 400 : e->code == 69 ? 429 : e->code == 75 ? 504 : 500;
    tr_openai_refuse(&why, status, "", strstr(e->error, "the context") ? "context_length_exceeded" : "", "%s",
                     e->error);
    c->id = 0;
    g->count.finished[TR_FINISH_ERROR]++;
    tr_gateway_fail(g, x, &why);
}

/* False: the exchange is over. */
static bool stream_on(tr_gateway *g, tr_gateway_exchange *x, tr_gateway_choice *c, const tr_client_event *e) {
    const tr_http_id id = x->http;
    const bool last = e->kind == TR_CLIENT_END;
    tr_openai_piece piece = {
        .index = (uint32_t)(c - x->choice), .text = e->text, .len = e->text_bytes, .first = !c->begun};
    if (e->text_bytes > 0 || (last && !c->begun) || (x->logprobs && c->scores.n > c->told)) {
        c->begun = true; /* now: with a client that leaves meanwhile the choice goes too */
        piece.logprobs = logprobs_of(g, x, c);
        tr_gateway_send_piece(g, x, &piece);
    }
    if (last && x->http == id) {
        piece = (tr_openai_piece){.index = piece.index, .text = "", .finish = e->finish};
        tr_gateway_send_piece(g, x, &piece);
    }
    return x->http == id;
}

void tr_gateway_on_event(tr_gateway *g, const tr_client_event *e) {
    tr_gateway_choice *c = NULL;
    tr_gateway_exchange *x = e->id ? find(g, e->id, e->sample, &c) : NULL;
    if (!x) return;
    if (e->kind == TR_CLIENT_ERROR) {
        on_error(g, x, c, e);
        return;
    }
    if (e->kind == TR_CLIENT_STATUS) return;
    const bool last = e->kind == TR_CLIENT_END;
    if (last) {
        c->finish = e->finish;
        c->prompt_tokens = e->prompt_tokens;
        c->cached_tokens = e->cached_tokens;
        c->generated = e->generated_tokens;
        c->id = 0;
        x->n_open--;
        if (e->sample == 0) g->count.prompt_tokens += c->prompt_tokens;
        g->count.generated_tokens += c->generated;
        if (c->finish < 5) g->count.finished[c->finish]++;
    }
    tr_openai_refusal why;
    c->generated += last ? 0 : e->n_tokens;
    if (!tr_gateway_scores_take(g, x, c, e) || (!x->stream && !tr_gateway_keep(c, e->text, e->text_bytes)))
        tr_openai_refuse(&why, 500, "", "", "no memory for the answer");
    else if (last && !tr_gateway_scores_complete(x, c))
        tr_openai_refuse(&why, 503, "", "", "the company was disturbed and lost a part of the answer: try again");
    else if (x->stream && !stream_on(g, x, c, e))
        return; /* it left meanwhile */
    else {
        if (x->n_open == 0) end(g, x);
        return;
    }
    tr_gateway_fail(g, x, &why);
}

void tr_gateway_on_gone(void *gateway, tr_http_id id) {
    tr_gateway *g = gateway;
    for (uint32_t i = 0; i < TR_GATEWAY_EXCHANGES; i++)
        if (g->exchange[i].http == id) {
            g->count.left++;
            forget(g, &g->exchange[i]);
        }
}

void tr_gateway_tick(tr_gateway *g) {
    for (uint32_t i = 0; i < TR_GATEWAY_EXCHANGES; i++) {
        tr_gateway_exchange *x = &g->exchange[i];
        if (!x->http || !x->stream || g->now_ns - x->told_ns < PING_NS) continue;
        begin_stream(g, x);
        tr_http_write(g->http, x->http, ": waiting\n\n", 11);
        x->told_ns = g->now_ns;
    }
}

void tr_gateway_fail_all(tr_gateway *g, const char *message) {
    tr_openai_refusal why;
    tr_openai_refuse(&why, 503, "", "", "%s", message);
    for (uint32_t i = 0; i < TR_GATEWAY_EXCHANGES; i++)
        if (g->exchange[i].http) tr_gateway_fail(g, &g->exchange[i], &why);
}
