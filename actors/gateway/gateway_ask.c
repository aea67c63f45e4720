/* actors/gateway/gateway_ask.c - completions, chats and embeddings: from the request's JSON to requests of the company.
 */
#include "actors/gateway/gateway.h"

#include "base/clock.h"
#include "base/rng.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static tr_gateway_exchange *new_exchange(tr_gateway *g, const tr_http_request *r, const tr_openai_request *q,
                                         uint32_t prompts) {
    const uint32_t samples = q->best_of > q->params.n ? q->best_of : q->params.n, choices = prompts * samples;
    for (uint32_t i = 0; i < TR_GATEWAY_EXCHANGES; i++) {
        tr_gateway_exchange *x = &g->exchange[i];
        if (x->http) continue;
        *x = (tr_gateway_exchange){.http = r->id,
                                   .kind = q->kind,
                                   .stream = q->stream,
                                   .include_usage = q->include_usage,
                                   .continuous_usage = q->continuous_usage,
                                   .logprobs = q->params.logprobs,
                                   .top_logprobs = q->params.top_logprobs,
                                   .echo = q->echo,
                                   .base64 = q->base64,
                                   .answers = q->params.n,
                                   .created = (int64_t)time(NULL),
                                   .asked_ns = g->now_ns,
                                   .told_ns = g->now_ns,
                                   .samples = samples,
                                   .n_choices = choices,
                                   .choice = calloc(choices, sizeof *x->choice)};
        snprintf(x->id, sizeof x->id, "%s-%016" PRIx64 "%08" PRIx64,
                 q->kind == TR_OPENAI_CHAT        ? "chatcmpl"
                 : q->kind == TR_OPENAI_EMBEDDING ? "embd"
                                                  : "cmpl",
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

/* The ids of a list; the caller frees them. */
static bool listed_ids(const tr_gateway *g, const json_t *list, const char *name, uint32_t **ids_out, size_t *n_out,
                       tr_openai_refusal *refusal) {
    const size_t n = json_array_size(list);
    uint32_t *ids = n <= TR_MAX_TOKENS ? malloc((n + 1) * sizeof *ids) : NULL;
    *ids_out = ids;
    if (!ids)
        return tr_openai_refuse(refusal, 400, name, "invalid_value", "%s: %zu tokens, at most %d are possible", name, n,
                                TR_MAX_TOKENS);
    for (size_t i = 0; i < n; i++) {
        const json_int_t id = json_integer_value(json_array_get(list, i));
        if (id < 0 || id >= (json_int_t)g->rt->company->vocab)
            return tr_openai_refuse(refusal, 400, name, "invalid_value",
                                    "%s: token %" JSON_INTEGER_FORMAT " is not in the vocabulary of %u", name, id,
                                    g->rt->company->vocab);
        ids[i] = (uint32_t)id;
    }
    *n_out = n;
    return true;
}

/* The ids of a text, as the company makes them. */
static bool text_ids(const tr_gateway *g, const tr_client_params *p, uint32_t **ids_out, size_t *n_out,
                     tr_openai_refusal *refusal) {
    tr_error err = {0};
    const size_t room = tr_tokenizer_bound(p->prompt_len);
    const unsigned flags = (p->no_bos ? 0u : TR_TOKENIZE_BOS) | (p->parse_special ? TR_TOKENIZE_PARSE_SPECIAL : 0u) |
                           (p->marked ? TR_TOKENIZE_MARKED : 0u);
    if (!g->tokenizer)
        return tr_openai_refuse(refusal, 400, "", "unsupported_value",
                                "this model brings no tokenizer: only token ids are possible");
    *ids_out = malloc(room * sizeof **ids_out);
    if (*ids_out &&
        tr_tokenizer_encode(g->tokenizer, p->prompt, p->prompt_len, flags, *ids_out, room, n_out, &err) == TR_OK)
        return true;
    return tr_openai_refuse(refusal, 500, "", "", "%s", err.text[0] ? err.text : "no memory for the prompt");
}

/* The prompt goes first in the text of each sample. */
static bool echo(tr_gateway *g, tr_gateway_exchange *x, tr_gateway_choice *choice, const tr_client_params *p,
                 tr_openai_refusal *refusal) {
    bool ok = true;
    for (uint32_t s = 0; s < x->samples && ok && p->n_tokens == 0; s++)
        ok = tr_gateway_keep(&choice[s], p->prompt, p->prompt_len);
    if (p->n_tokens > 0 && !g->tokenizer)
        return tr_openai_refuse(refusal, 400, "echo", "unsupported_value", "echo: this model brings no tokenizer");
    for (size_t i = 0; i < p->n_tokens && ok; i++) {
        char piece[1024];
        size_t n = 0;
        ok = tr_tokenizer_piece(g->tokenizer, p->tokens[i], false, piece, sizeof piece, &n) == TR_OK;
        for (uint32_t s = 0; s < x->samples && ok; s++) ok = tr_gateway_keep(&choice[s], piece, n);
    }
    return ok || tr_openai_refuse(refusal, 500, "", "", "no memory for the answer");
}

static bool add_prompt(tr_gateway *g, tr_gateway_exchange *x, uint32_t k, tr_client_params *p, const json_t *prompt,
                       tr_openai_refusal *refusal) {
    tr_gateway_choice *choice = x->choice + (size_t)k * x->samples;
    const bool scored = x->echo && x->logprobs, counted = scored || x->continuous_usage;
    uint32_t *ids = NULL;
    size_t n = 0;
    bool ok = true;
    if (json_is_array(prompt)) {
        ok = listed_ids(g, prompt, x->kind == TR_OPENAI_EMBEDDING ? "input" : "prompt", &ids, &n, refusal);
        p->tokens = ids, p->n_tokens = n;
    } else {
        if (prompt) p->prompt = json_string_value(prompt), p->prompt_len = json_string_length(prompt);
        if (counted) ok = text_ids(g, p, &ids, &n, refusal);
    }
    if (ok && x->echo) ok = echo(g, x, choice, p, refusal);
    if (ok && counted) { /* the same ids for both */
        choice->prompt_tokens = (uint32_t)n;
        p->prompt = NULL, p->prompt_len = 0, p->tokens = ids, p->n_tokens = n;
    }
    if (ok && scored) {
        p->logits = true;
        ok = tr_gateway_scores_prompt(choice, ids, (uint32_t)n, 1 + x->top_logprobs) ||
             tr_openai_refuse(refusal, 500, "", "", "no memory for the answer");
    }
    ok = ok && add(g, x, k, p, refusal);
    free(ids);
    return ok;
}

static bool completion(tr_gateway *g, tr_gateway_exchange *x, tr_openai_request *q, tr_openai_refusal *refusal) {
    bool one = json_is_string(q->prompt) || json_is_integer(json_array_get(q->prompt, 0));
    for (uint32_t k = 0; k < x->n_choices / x->samples; k++) {
        tr_client_params p = q->params;
        p.parse_special = true;
        if (!add_prompt(g, x, k, &p, one ? q->prompt : json_array_get(q->prompt, k), refusal)) return false;
    }
    if (q->echo && x->stream) /* the prompt first, as text of the answer */
        for (uint32_t k = 0; k < x->n_choices; k++) {
            x->choice[k].begun = true;
            tr_gateway_send_piece(g, x,
                                  &(tr_openai_piece){.index = k,
                                                     .text = x->choice[k].text ? x->choice[k].text : "",
                                                     .len = x->choice[k].len,
                                                     .first = true});
            if (!x->http) return true; /* it left meanwhile */
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
    bool ok = add_prompt(g, x, 0, &p, NULL, refusal);
    free(text);
    return ok;
}

static uint32_t prompts_of(const tr_openai_request *q) {
    if (q->kind == TR_OPENAI_CHAT || json_is_string(q->prompt) || json_is_integer(json_array_get(q->prompt, 0)))
        return 1;
    return (uint32_t)json_array_size(q->prompt);
}

/* What the model bounds. */
static bool in_vocabulary(const tr_gateway *g, const tr_openai_request *q, tr_openai_refusal *refusal) {
    const uint32_t vocab = g->rt->company->vocab, hidden = g->rt->company->hidden;
    for (size_t i = 0; i < q->params.n_bias; i++)
        if (q->bias_tokens[i] >= vocab)
            return tr_openai_refuse(refusal, 400, "logit_bias", "invalid_value",
                                    "logit_bias: token %u is not in the vocabulary of %u", q->bias_tokens[i], vocab);
    for (size_t i = 0; i < q->params.n_stop_tokens; i++)
        if (q->stop_tokens[i] >= vocab)
            return tr_openai_refuse(refusal, 400, "stop_token_ids", "invalid_value",
                                    "stop_token_ids: token %u is not in the vocabulary of %u", q->stop_tokens[i],
                                    vocab);
    if (q->dimensions && q->dimensions != hidden)
        return tr_openai_refuse(refusal, 400, "dimensions", "unsupported_value",
                                "dimensions: vectors of this model have %u, and are not cut", hidden);
    return true;
}

void tr_gateway_ask(tr_gateway *g, const tr_http_request *r, tr_openai_kind kind) {
    tr_openai_request q;
    tr_openai_refusal refusal;
    tr_gateway_exchange *x = NULL;
    bool ok = tr_openai_parse(kind, r->body, r->body_len, &q, &refusal);
    if (ok && !json_is_integer(json_object_get(q.root, "seed"))) /* without one, every answer is another */
        q.params.seed = tr_rng_mix(g->rt->company->id ^ tr_rng_mix(++g->next_seed) ^ g->now_ns);
    if (ok && q.model[0] && strcmp(q.model, g->rt->company->model_name) != 0)
        ok = tr_openai_refuse(&refusal, 404, "model", "model_not_found", "the model '%.200s' is not here; '%.200s' is",
                              q.model, g->rt->company->model_name);
    if (ok) ok = in_vocabulary(g, &q, &refusal);
    if (ok && !g->client) ok = tr_openai_refuse(&refusal, 503, "", "", "the company is not ready yet");
    if (ok && !(x = new_exchange(g, r, &q, prompts_of(&q))))
        ok = tr_openai_refuse(&refusal, 429, "", "", "%d requests are open already; try again later",
                              TR_GATEWAY_EXCHANGES);
    if (ok && kind == TR_OPENAI_EMBEDDING) q.params.hidden = true, q.params.max_tokens = 0;
    if (ok && q.best_of > q.params.n) q.params.n = q.best_of, q.params.logprobs = true;
    if (ok) ok = kind == TR_OPENAI_CHAT ? chat(g, x, &q, &refusal) : completion(g, x, &q, &refusal);
    if (!ok && x) tr_gateway_fail(g, x, &refusal);
    if (!ok && !x) tr_gateway_refuse(g, r->id, r->request_id, &refusal);
    if (ok) g->count.requests++;
    tr_openai_free(&q);
}
