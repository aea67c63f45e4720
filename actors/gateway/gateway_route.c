/* actors/gateway/gateway_route.c - who answers which path. */
#include "actors/gateway/gateway.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool draining(const tr_gateway *g) { return atomic_load(&g->rt->control->drain) > 0; }

void tr_gateway_refuse(tr_gateway *g, tr_http_id id, const char *request_id, const tr_openai_refusal *why) {
    tr_http_header headers[3];
    uint32_t n = 0;
    if (why->status == 429 || why->status == 503) headers[n++] = (tr_http_header){"retry-after:", "1"};
    if (request_id[0]) headers[n++] = (tr_http_header){"x-request-id:", request_id};
    headers[n] = (tr_http_header){NULL, NULL};
    char *json = tr_openai_error_json(why);
    g->count.refused++;
    if (json) tr_http_reply(g->http, id, why->status, "application/json", headers, json, strlen(json));
    free(json);
}

void tr_gateway_reply_json(tr_gateway *g, tr_http_id id, const char *request_id, json_t *root) {
    const tr_http_header headers[] = {{request_id[0] ? "x-request-id:" : NULL, request_id}, {NULL, NULL}};
    char *text = json_dumps(root, JSON_COMPACT);
    if (text) tr_http_reply(g->http, id, 200, "application/json", headers, text, strlen(text));
    free(text);
    json_decref(root);
}

/* ---- what needs no model ---- */

static json_t *model_json(const tr_gateway *g) {
    const tr_company *c = g->rt->company;
    return json_pack("{s:s,s:s,s:I,s:s,s:I}", "id", c->model_name, "object", "model", "created", (json_int_t)0,
                     "owned_by", "troupe", "max_model_len", (json_int_t)c->context);
}

static void models(tr_gateway *g, const tr_http_request *r) {
    tr_gateway_reply_json(g, r->id, r->request_id, json_pack("{s:s,s:[o]}", "object", "list", "data", model_json(g)));
}

static void model(tr_gateway *g, const tr_http_request *r) {
    const char *name = r->path + strlen("/v1/models/");
    tr_openai_refusal why;
    if (strcmp(name, g->rt->company->model_name) == 0) {
        tr_gateway_reply_json(g, r->id, r->request_id, model_json(g));
        return;
    }
    tr_openai_refuse(&why, 404, "model", "model_not_found", "the model '%.200s' is not here; '%.200s' is", name,
                     g->rt->company->model_name);
    tr_gateway_refuse(g, r->id, r->request_id, &why);
}

static void live(tr_gateway *g, const tr_http_request *r) {
    tr_gateway_reply_json(g, r->id, r->request_id, json_pack("{s:s}", "status", "ok"));
}

/* 200 only where a request would be taken now. */
static void ready(tr_gateway *g, const tr_http_request *r) {
    tr_openai_refusal why;
    if (g->client && !draining(g)) {
        live(g, r);
        return;
    }
    tr_openai_refuse(&why, 503, "", "", draining(g) ? "the company is ending" : "the company is not ready yet");
    tr_gateway_refuse(g, r->id, r->request_id, &why);
}

static void version(tr_gateway *g, const tr_http_request *r) {
    tr_gateway_reply_json(g, r->id, r->request_id, json_pack("{s:s}", "version", TROUPE_VERSION));
}

static void metrics(tr_gateway *g, const tr_http_request *r) {
    size_t len = 0;
    char *text = tr_gateway_metrics(g, &len);
    if (text) tr_http_reply(g->http, r->id, 200, "text/plain; version=0.0.4", NULL, text, len);
    free(text);
}

/* ---- tokens ---- */

static bool want_tokenizer(tr_gateway *g, const tr_http_request *r) {
    tr_openai_refusal why;
    if (g->tokenizer) return true;
    tr_openai_refuse(&why, 400, "", "unsupported_value", "this model brings no tokenizer: only token ids are possible");
    tr_gateway_refuse(g, r->id, r->request_id, &why);
    return false;
}

static void tokenize(tr_gateway *g, const tr_http_request *r) {
    tr_openai_refusal why;
    json_t *root = json_loadb(r->body, r->body_len, 0, NULL), *list = NULL;
    const json_t *text = json_object_get(root, "prompt"), *special = json_object_get(root, "add_special_tokens");
    if (!text) text = json_object_get(root, "content");
    size_t len = json_string_length(text), n = 0;
    if (!want_tokenizer(g, r)) {
        json_decref(root);
        return;
    }
    uint32_t *ids = json_is_string(text) ? malloc(tr_tokenizer_bound(len) * sizeof *ids) : NULL;
    tr_error err = {0};
    const unsigned flags = TR_TOKENIZE_PARSE_SPECIAL | (json_is_false(special) ? 0u : TR_TOKENIZE_BOS);
    if (!ids || tr_tokenizer_encode(g->tokenizer, json_string_value(text), len, flags, ids, tr_tokenizer_bound(len), &n,
                                    &err) != TR_OK) {
        tr_openai_refuse(&why, 400, "prompt", "invalid_type", "prompt: %s",
                         err.text[0] ? err.text : "a text is wanted");
        tr_gateway_refuse(g, r->id, r->request_id, &why);
    } else {
        list = json_array();
        for (size_t i = 0; i < n; i++) json_array_append_new(list, json_integer(ids[i]));
        tr_gateway_reply_json(g, r->id, r->request_id,
                              json_pack("{s:I,s:I,s:o}", "count", (json_int_t)n, "max_model_len",
                                        (json_int_t)g->rt->company->context, "tokens", list));
    }
    free(ids);
    json_decref(root);
}

static void detokenize(tr_gateway *g, const tr_http_request *r) {
    tr_openai_refusal why;
    json_t *root = json_loadb(r->body, r->body_len, 0, NULL);
    const json_t *list = json_object_get(root, "tokens");
    bool ok = json_is_array(list);
    if (!want_tokenizer(g, r)) {
        json_decref(root);
        return;
    }
    const size_t most = tr_tokenizer_max_piece(g->tokenizer), n = json_array_size(list);
    char *text = ok && n <= TR_MAX_TOKENS ? malloc(n * most + 1) : NULL;
    size_t at = 0, len;
    for (size_t i = 0; text && ok && i < n; i++) {
        json_int_t id = json_integer_value(json_array_get(list, i));
        ok = json_is_integer(json_array_get(list, i)) && id >= 0 && id < UINT32_MAX &&
             tr_tokenizer_piece(g->tokenizer, (uint32_t)id, true, text + at, most, &len) == TR_OK;
        if (ok) at += len;
    }
    json_t *s = ok && text ? json_stringn(text, at) : NULL;
    if (s)
        tr_gateway_reply_json(g, r->id, r->request_id, json_pack("{s:o}", "prompt", s));
    else {
        tr_openai_refuse(&why, 400, "tokens", "invalid_value",
                         "tokens: a list of ids of the vocabulary that make whole characters is wanted");
        tr_gateway_refuse(g, r->id, r->request_id, &why);
    }
    free(text);
    json_decref(root);
}

static void completions(tr_gateway *g, const tr_http_request *r) { tr_gateway_ask(g, r, TR_OPENAI_COMPLETION); }
static void chat_completions(tr_gateway *g, const tr_http_request *r) { tr_gateway_ask(g, r, TR_OPENAI_CHAT); }

static void embeddings(tr_gateway *g, const tr_http_request *r) { tr_gateway_ask(g, r, TR_OPENAI_EMBEDDING); }

/* ---- the table ---- */

static const struct route {
    tr_http_method method;
    const char *path; /* with '/' at its end: all below it */
    bool open;        /* needs no key */
    void (*answer)(tr_gateway *g, const tr_http_request *r);
} routes[] = {
    {TR_HTTP_GET, "/v1/models", false, models},
    {TR_HTTP_GET, "/v1/models/", false, model},
    {TR_HTTP_POST, "/v1/completions", false, completions},
    {TR_HTTP_POST, "/v1/chat/completions", false, chat_completions},
    {TR_HTTP_POST, "/v1/embeddings", false, embeddings},
    {TR_HTTP_POST, "/apply-template", false, tr_gateway_apply_template},
    {TR_HTTP_POST, "/tokenize", false, tokenize},
    {TR_HTTP_POST, "/detokenize", false, detokenize},
    {TR_HTTP_GET, "/health", true, ready},
    {TR_HTTP_GET, "/ready", true, ready},
    {TR_HTTP_GET, "/live", true, live},
    {TR_HTTP_GET, "/ping", true, live},
    {TR_HTTP_GET, "/version", true, version},
    {TR_HTTP_GET, "/metrics", false, metrics},
};

/* Takes as long for a wrong key as for a right one. */
static bool same(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    unsigned char differs = n != m;
    for (size_t i = 0; i < n; i++) differs |= (unsigned char)(a[i] ^ b[m ? i % m : 0]);
    return !differs;
}

static bool authorized(const tr_gateway *g, const tr_http_request *r) {
    bool any = g->n_keys == 0;
    const char *given = strncmp(r->authorization, "Bearer ", 7) == 0 ? r->authorization + 7 : "";
    for (uint32_t i = 0; i < g->n_keys; i++) any |= same(g->key[i], given);
    return any;
}

static bool matches(const struct route *t, const char *path) {
    size_t n = strlen(t->path);
    return t->path[n - 1] == '/' ? strncmp(path, t->path, n) == 0 && path[n] : strcmp(path, t->path) == 0;
}

void tr_gateway_on_request(void *gateway, const tr_http_request *r) {
    tr_gateway *g = gateway;
    tr_openai_refusal why;
    const struct route *found = NULL;
    bool other_method = false;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (!matches(&routes[i], r->path)) continue;
        if (routes[i].method == r->method)
            found = &routes[i];
        else
            other_method = true;
    }
    if (r->refused)
        tr_openai_refuse(&why, r->refused, "", "",
                         r->refused == 413   ? "the body is too long"
                         : r->refused == 411 ? "Content-Length is missing"
                                             : "the request's head is not understood");
    else if (!(found && found->open) && !authorized(g, r))
        tr_openai_refuse(&why, 401, "", "invalid_api_key", "Authorization: Bearer with a key of this server is wanted");
    else if (!found)
        tr_openai_refuse(&why, other_method ? 405 : 404, "", "", "%s is not here%s", r->path,
                         other_method ? " by this method" : "");
    else {
        found->answer(g, r);
        return;
    }
    tr_gateway_refuse(g, r->id, r->request_id, &why);
}
