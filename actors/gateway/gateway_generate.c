/* actors/gateway/gateway_generate.c - completions and chats: from the request's JSON to requests of the company, and
 * from its texts to one answer or a stream of server-sent events. */
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
        tr_openai_choice choices[TR_OPENAI_CHOICES_MAX];
        for (uint32_t k = 0; k < x->n_choices; k++)
            choices[k] =
                (tr_openai_choice){x->choice[k].text ? x->choice[k].text : "", x->choice[k].len, x->choice[k].finish};
        char *json = tr_openai_whole_json(&a, choices, x->n_choices, &u);
        const tr_http_header headers[] = {{x->request_id[0] ? "x-request-id:" : NULL, x->request_id}, {NULL, NULL}};
        if (json) tr_http_reply(g->http, x->http, 200, "application/json", headers, json, strlen(json));
        free(json);
    }
    forget(g, x);
}

/* The whole exchange ends with one error. */
static void fail(tr_gateway *g, tr_gateway_exchange *x, const tr_openai_refusal *why) {
    const tr_http_id id = x->http;
    if (x->stream && x->begun) {
        send_event(g, x, tr_openai_error_json(why));
        tr_http_end(g->http, id);
    } else
        tr_gateway_refuse(g, id, x->request_id, why);
    forget(g, x);
}

static bool keep(tr_gateway_choice *c, const char *text, size_t len) {
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
    fail(g, x, &why);
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
    tr_gateway_measure(g, x, c, e);
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
    if (x->stream) {
        const tr_openai_answer a = answer_of(g, x);
        const tr_http_id id = x->http;
        const uint32_t index = (uint32_t)(c - x->choice);
        const bool first = !c->begun;
        c->begun = true; /* now: with a client that leaves meanwhile the choice goes too */
        if (e->text_bytes > 0 || last)
            send_event(g, x, tr_openai_chunk_json(&a, index, e->text, e->text_bytes, first, 0));
        if (last && x->http == id) send_event(g, x, tr_openai_chunk_json(&a, index, "", 0, false, e->finish));
        if (x->http != id) return; /* it left meanwhile */
    } else if (!keep(c, e->text, e->text_bytes)) {
        tr_openai_refusal why;
        tr_openai_refuse(&why, 500, "", "", "no memory for the answer");
        fail(g, x, &why);
        return;
    }
    if (x->n_open == 0) end(g, x);
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
        if (g->exchange[i].http) fail(g, &g->exchange[i], &why);
}

/* ---- in, from HTTP ---- */

static tr_gateway_exchange *new_exchange(tr_gateway *g, const tr_http_request *r, const tr_openai_request *q,
                                         uint32_t prompts) {
    const uint32_t choices = prompts * q->params.n;
    for (uint32_t i = 0; i < TR_GATEWAY_EXCHANGES; i++) {
        tr_gateway_exchange *x = &g->exchange[i];
        if (x->http) continue;
        *x = (tr_gateway_exchange){.http = r->id,
                                   .kind = q->kind,
                                   .stream = q->stream,
                                   .include_usage = q->include_usage,
                                   .created = (int64_t)time(NULL),
                                   .asked_ns = g->now_ns,
                                   .told_ns = g->now_ns,
                                   .samples = q->params.n,
                                   .n_choices = choices,
                                   .choice = calloc(choices, sizeof *x->choice)};
        snprintf(x->id, sizeof x->id, "%s-%016" PRIx64 "%08" PRIx64, q->kind == TR_OPENAI_CHAT ? "chatcmpl" : "cmpl",
                 g->rt->company->id, ++g->next_id);
        snprintf(x->request_id, sizeof x->request_id, "%.63s", r->request_id);
        if (x->choice) return x;
        x->http = 0;
        return NULL;
    }
    return NULL;
}

static bool add(tr_gateway *g, tr_gateway_exchange *x, uint32_t prompt, const tr_client_params *p,
                tr_openai_refusal *refusal) {
    tr_error err = {0};
    uint64_t id = 0;
    tr_status status = tr_client_add(g->client, p, &id, &err);
    if (status == TR_OK) {
        for (uint32_t s = 0; s < x->samples; s++) x->choice[prompt * x->samples + s].id = id;
        x->n_open += x->samples;
        return true;
    }
    return tr_openai_refuse(refusal, status == TR_USAGE || status == TR_DATA ? 400 : 503, "", "", "%s", err.text);
}

static bool add_ids(tr_gateway *g, tr_gateway_exchange *x, uint32_t k, tr_client_params *p, const json_t *ids,
                    tr_openai_refusal *refusal) {
    size_t n = json_array_size(ids);
    uint32_t *tokens = n <= TR_MAX_TOKENS ? malloc((n + 1) * sizeof *tokens) : NULL;
    if (!tokens)
        return tr_openai_refuse(refusal, 400, "prompt", "invalid_value", "prompt: %zu tokens, at most %d are possible",
                                n, TR_MAX_TOKENS);
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        json_int_t id = json_integer_value(json_array_get(ids, i));
        if (id < 0 || id >= (json_int_t)g->rt->company->vocab)
            ok = tr_openai_refuse(refusal, 400, "prompt", "invalid_value",
                                  "prompt: token %" JSON_INTEGER_FORMAT " is not in the vocabulary of %u", id,
                                  g->rt->company->vocab);
        tokens[i] = (uint32_t)id;
    }
    p->prompt = NULL, p->prompt_len = 0;
    p->tokens = tokens, p->n_tokens = n;
    ok = ok && add(g, x, k, p, refusal);
    free(tokens);
    return ok;
}

static bool add_prompt(tr_gateway *g, tr_gateway_exchange *x, uint32_t k, tr_openai_request *q, const json_t *prompt,
                       tr_openai_refusal *refusal) {
    tr_gateway_choice *choice = x->choice + (size_t)k * x->samples;
    tr_client_params p = q->params;
    if (json_is_array(prompt)) {
        if (q->echo)
            return tr_openai_refuse(refusal, 400, "echo", "unsupported_value", "echo: only for prompts that are texts");
        return add_ids(g, x, k, &p, prompt, refusal);
    }
    p.prompt = json_string_value(prompt);
    p.prompt_len = json_string_length(prompt);
    p.parse_special = true;
    for (uint32_t s = 0; q->echo && s < x->samples; s++)
        if (!keep(&choice[s], p.prompt, p.prompt_len))
            return tr_openai_refuse(refusal, 500, "", "", "no memory for the answer");
    return add(g, x, k, &p, refusal);
}

static bool completion(tr_gateway *g, tr_gateway_exchange *x, tr_openai_request *q, tr_openai_refusal *refusal) {
    bool one = json_is_string(q->prompt) || json_is_integer(json_array_get(q->prompt, 0));
    for (uint32_t k = 0; k < x->n_choices / x->samples; k++)
        if (!add_prompt(g, x, k, q, one ? q->prompt : json_array_get(q->prompt, k), refusal)) return false;
    if (q->echo && x->stream) /* the prompt first, as text of the answer */
        for (uint32_t k = 0; k < x->n_choices; k++) {
            const tr_openai_answer a = answer_of(g, x);
            send_event(g, x, tr_openai_chunk_json(&a, k, x->choice[k].text, x->choice[k].len, true, 0));
            if (!x->http) return true; /* it left meanwhile */
            x->choice[k].begun = true;
        }
    return true;
}

/* The caller frees the text. */
static bool render(tr_gateway *g, const tr_openai_request *q, char **text_out, size_t *len_out,
                   tr_openai_refusal *refusal) {
    tr_error err = {0};
    if (!g->chat)
        return tr_openai_refuse(refusal, 400, "messages", "unsupported_value",
                                "this model has no chat template: use /v1/completions");
    const tr_chat_template_input in = {.messages = q->messages,
                                       .tools = q->tools,
                                       .arguments = q->template_arguments,
                                       .add_generation_prompt = q->add_generation_prompt,
                                       .now_s = (int64_t)time(NULL)};
    return tr_chat_template_render(g->chat, &in, text_out, len_out, &err) == TR_OK ||
           tr_openai_refuse(refusal, 400, "messages", "", "%s", err.text);
}

void tr_gateway_apply_template(tr_gateway *g, const tr_http_request *r) {
    tr_openai_request q;
    tr_openai_refusal refusal;
    char *text = NULL;
    size_t len = 0;
    if (tr_openai_parse(TR_OPENAI_CHAT, r->body, r->body_len, &q, &refusal) && render(g, &q, &text, &len, &refusal))
        tr_gateway_reply_json(g, r->id, r->request_id, json_pack("{s:s%}", "prompt", text, len));
    else
        tr_gateway_refuse(g, r->id, r->request_id, &refusal);
    free(text);
    tr_openai_free(&q);
}

static bool chat(tr_gateway *g, tr_gateway_exchange *x, tr_openai_request *q, tr_openai_refusal *refusal) {
    char *text = NULL;
    size_t len = 0;
    if (!render(g, q, &text, &len, refusal)) return false;
    tr_client_params p = q->params;
    p.prompt = text, p.prompt_len = len;
    p.parse_special = p.no_bos = true; /* the template writes all special tokens, the first one included */
    if (!q->has_max_tokens) p.max_tokens = g->rt->company->context;
    bool ok = add(g, x, 0, &p, refusal);
    free(text);
    return ok;
}

static uint32_t prompts_of(const tr_openai_request *q) {
    if (q->kind == TR_OPENAI_CHAT || json_is_string(q->prompt) || json_is_integer(json_array_get(q->prompt, 0)))
        return 1;
    return (uint32_t)json_array_size(q->prompt);
}

void tr_gateway_generate(tr_gateway *g, const tr_http_request *r, tr_openai_kind kind) {
    tr_openai_request q;
    tr_openai_refusal refusal;
    tr_gateway_exchange *x = NULL;
    bool ok = tr_openai_parse(kind, r->body, r->body_len, &q, &refusal);
    if (ok && !json_is_integer(json_object_get(q.root, "seed"))) /* without one, every answer is another */
        q.params.seed = tr_rng_mix(g->rt->company->id ^ tr_rng_mix(++g->next_seed) ^ g->now_ns);
    if (ok && q.model[0] && strcmp(q.model, g->rt->company->model_name) != 0)
        ok = tr_openai_refuse(&refusal, 404, "model", "model_not_found", "the model '%.200s' is not here; '%.200s' is",
                              q.model, g->rt->company->model_name);
    if (ok && !g->client) ok = tr_openai_refuse(&refusal, 503, "", "", "the company is not ready yet");
    if (ok && !(x = new_exchange(g, r, &q, prompts_of(&q))))
        ok = tr_openai_refuse(&refusal, 429, "", "", "%d requests are open already; try again later",
                              TR_GATEWAY_EXCHANGES);
    if (ok) ok = kind == TR_OPENAI_CHAT ? chat(g, x, &q, &refusal) : completion(g, x, &q, &refusal);
    if (!ok && x) fail(g, x, &refusal);
    if (!ok && !x) tr_gateway_refuse(g, r->id, r->request_id, &refusal);
    if (ok) g->count.requests++;
    tr_openai_free(&q);
}
