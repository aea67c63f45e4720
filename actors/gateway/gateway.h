/* actors/gateway/gateway.h - the HTTP door of a company: the OpenAI API on the public client API of the frontend, so
 * that it can do nothing that a ZeroMQ client could not. Private to actors/gateway.
 * An exchange is one HTTP request that waits for the company; each of its prompts is one request there, each sample of
 * a prompt one choice. Exchanges end with their answer, with the client's leaving (its requests are aborted at once),
 * or with the company. */
#ifndef TR_GATEWAY_H
#define TR_GATEWAY_H
#include "actors/gateway/http.h"
#include "actors/gateway/metrics.h"
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
    uint64_t told_ns; /* its last tokens; 0: none */
    uint32_t finish, prompt_tokens, cached_tokens, generated;
} tr_gateway_choice;

typedef struct tr_gateway_exchange {
    tr_http_id http; /* 0: free */
    tr_openai_kind kind;
    bool stream, include_usage, begun;
    char id[48], request_id[64];
    int64_t created;
    uint64_t asked_ns, told_ns;          /* arrival; last time that the client heard something */
    uint32_t samples, n_choices, n_open; /* samples: of each prompt */
    tr_gateway_choice *choice;           /* [n_choices], prompt * samples + sample */
} tr_gateway_exchange;

typedef struct tr_gateway_counters {
    uint64_t requests, refused, left, prompt_tokens, generated_tokens, finished[5], handoff_bytes;
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
    tr_metrics_histogram histogram[TR_METRICS_END]; /* only those that are */
} tr_gateway;

/* gateway_route.c: finds who answers, and answers what needs no model. */
void tr_gateway_on_request(void *gateway, const tr_http_request *r);
void tr_gateway_refuse(tr_gateway *g, tr_http_id id, const char *request_id, const tr_openai_refusal *why);
void tr_gateway_reply_json(tr_gateway *g, tr_http_id id, const char *request_id, json_t *root); /* takes root */
/* gateway_generate.c: completions and chats. */
void tr_gateway_generate(tr_gateway *g, const tr_http_request *r, tr_openai_kind kind);
void tr_gateway_apply_template(tr_gateway *g, const tr_http_request *r); /* a chat's text, nothing generated */
void tr_gateway_on_event(tr_gateway *g, const tr_client_event *e);
void tr_gateway_on_gone(void *gateway, tr_http_id id);
void tr_gateway_tick(tr_gateway *g);                          /* pings to those who wait long */
void tr_gateway_fail_all(tr_gateway *g, const char *message); /* the company is gone */
/* gateway_metrics.c */
char *tr_gateway_metrics(tr_gateway *g, size_t *len_out);
void tr_gateway_measure(tr_gateway *g, const tr_gateway_exchange *x, tr_gateway_choice *c, const tr_client_event *e);
#endif
