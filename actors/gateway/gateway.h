/* actors/gateway/gateway.h - the HTTP door of a company: the OpenAI API on the public client API of the frontend, so
 * that it can do nothing that a ZeroMQ client could not. Private to actors/gateway.
 * An exchange is one HTTP request that waits for the company; each of its prompts is one request there, each sample of
 * a prompt one choice. Exchanges end with their answer, with the client's leaving (its requests are aborted at once),
 * or with the company. */
#ifndef TR_GATEWAY_H
#define TR_GATEWAY_H
#include "actors/gateway/http.h"
#include "actors/gateway/openai.h"
#include "actors/runtime/runtime.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

enum { TR_GATEWAY_EXCHANGES = 512, TR_GATEWAY_KEYS = 64, TR_GATEWAY_KEY_BYTES = 256 };

typedef struct tr_gateway_choice {
    uint64_t id; /* of the client's request, the same for all samples of a prompt; 0: over */
    char *text;  /* whole answers: what came so far */
    size_t len, room;
    bool begun;
    uint32_t finish, prompt_tokens, cached_tokens, generated;
    tr_openai_scores scores; /* of the prompt too, where it is echoed */
    uint32_t told;           /* of them */
    uint32_t offset;         /* characters of the text before the next token that is told */
    uint32_t *prompt;        /* [n_prompt] ids, where its log-probabilities are asked for; owned */
    uint32_t n_prompt;
    uint32_t rows; /* positions whose logits or hidden state came, from 0 on without a gap */
    double *mean;  /* [dimensions] embeddings: sum of the hidden states; owned */
} tr_gateway_choice;

typedef struct tr_gateway_exchange {
    tr_http_id http; /* 0: free */
    tr_openai_kind kind;
    bool stream, include_usage, continuous_usage, begun, logprobs, echo, base64;
    uint32_t top_logprobs;
    uint32_t answers; /* of each prompt: the likeliest of its samples where these are more */
    char id[48], request_id[64];
    int64_t created;
    uint64_t asked_ns, told_ns;          /* arrival; last time that the client heard something */
    uint32_t samples, n_choices, n_open; /* samples: of each prompt */
    tr_gateway_choice *choice;           /* [n_choices], prompt * samples + sample */
} tr_gateway_exchange;

typedef struct tr_gateway_counters {
    uint64_t requests, refused, left, prompt_tokens, generated_tokens, finished[5];
} tr_gateway_counters;

typedef struct tr_gateway {
    tr_runtime *rt;
    tr_http *http;
    tr_client *client; /* NULL: the frontend is not there */
    tr_tokenizer *tokenizer;
    tr_chat_template *chat; /* NULL: the model has none */
    uint32_t n_keys;
    char key[TR_GATEWAY_KEYS][TR_GATEWAY_KEY_BYTES];
    uint64_t now_ns, next_try_ns, next_id, next_seed;
    tr_gateway_exchange exchange[TR_GATEWAY_EXCHANGES];
    tr_gateway_counters count;
} tr_gateway;

/* gateway_route.c: finds who answers, and answers what needs no model. */
void tr_gateway_on_request(void *gateway, const tr_http_request *r);
void tr_gateway_refuse(tr_gateway *g, tr_http_id id, const char *request_id, const tr_openai_refusal *why);
void tr_gateway_reply_json(tr_gateway *g, tr_http_id id, const char *request_id, json_t *root); /* takes root */
/* gateway_ask.c: from the request's JSON to requests of the company. */
void tr_gateway_ask(tr_gateway *g, const tr_http_request *r, tr_openai_kind kind);
void tr_gateway_apply_template(tr_gateway *g, const tr_http_request *r); /* a chat's text, nothing generated */
/* gateway_scores.c: log-probabilities and hidden states of the choices. */
bool tr_gateway_scores_prompt(tr_gateway_choice *c, const uint32_t *ids, uint32_t n, uint32_t per);
bool tr_gateway_scores_take(tr_gateway *g, tr_gateway_exchange *x, tr_gateway_choice *c, const tr_client_event *e);
/* The samples of a prompt that are its answers, by their index among all choices, best first: chosen_out
 * [x->answers]. */
void tr_gateway_scores_best(const tr_gateway_exchange *x, uint32_t prompt, uint32_t *chosen_out);
/* All parts that the choice needs have come. */
bool tr_gateway_scores_complete(const tr_gateway_exchange *x, const tr_gateway_choice *c);
/* Of length 1; the caller frees it. */
float *tr_gateway_scores_vectors(const tr_gateway *g, const tr_gateway_exchange *x);
void tr_gateway_scores_free(tr_gateway_choice *c);
/* gateway_generate.c: from the company's texts to one answer or a stream of server-sent events. */
bool tr_gateway_keep(tr_gateway_choice *c, const char *text, size_t len); /* more text of a whole answer */
void tr_gateway_send_piece(tr_gateway *g, tr_gateway_exchange *x, const tr_openai_piece *piece);
void tr_gateway_fail(tr_gateway *g, tr_gateway_exchange *x, const tr_openai_refusal *why); /* all of the exchange */
void tr_gateway_on_event(tr_gateway *g, const tr_client_event *e);
void tr_gateway_on_gone(void *gateway, tr_http_id id);
void tr_gateway_tick(tr_gateway *g);                          /* pings to those who wait long */
void tr_gateway_fail_all(tr_gateway *g, const char *message); /* the company is gone */
/* gateway_metrics.c */
char *tr_gateway_metrics(tr_gateway *g, size_t *len_out);
#endif
