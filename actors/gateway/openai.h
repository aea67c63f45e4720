/* actors/gateway/openai.h - requests of the OpenAI API (platform.openai.com/docs/api-reference: completions, chat
 * completions, embeddings) with the parameters that vLLM adds, read from their JSON; and the JSON of the answers. Pure.
 * One table has every parameter with its bounds. What is not known is ignored, as OpenAI's server does; what is known
 * and cannot be done here is refused unless it has its neutral value. */
#ifndef TR_OPENAI_H
#define TR_OPENAI_H
#include "base/status.h"
#include "client/troupe_client.h"
#include "model/tokenizer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum tr_openai_kind { TR_OPENAI_COMPLETION = 1, TR_OPENAI_CHAT = 2, TR_OPENAI_EMBEDDING = 4 } tr_openai_kind;

enum { TR_OPENAI_PROMPTS_MAX = 64, TR_OPENAI_CHOICES_MAX = TR_OPENAI_PROMPTS_MAX * TR_MAX_SAMPLES };

typedef struct tr_openai_request {
    tr_openai_kind kind;
    json_t *root;            /* owns every string below */
    tr_client_params params; /* all but prompt and tokens; n is 1 or more */
    uint32_t best_of;        /* 0: not given; else n or more of which the n likeliest are the answer */
    const char *stops[TR_MAX_STOPS];
    uint32_t bias_tokens[TR_MAX_BIAS], stop_tokens[TR_MAX_STOP_TOKENS];
    float bias[TR_MAX_BIAS];
    bool stream, include_usage, continuous_usage, echo, skip_special;
    bool has_max_tokens;
    bool base64;            /* embeddings: in this form, not as numbers */
    uint32_t dimensions;    /* embeddings; 0: not given */
    const char *model;      /* "" */
    const json_t *prompt;   /* completions, embeddings: a text, token ids, or a list of either */
    const json_t *messages; /* chat */
    const json_t *tools, *template_arguments;
    bool add_generation_prompt;
} tr_openai_request;

/* What is wrong, for the error JSON. */
typedef struct tr_openai_refusal {
    int status;        /* HTTP */
    const char *type;  /* "invalid_request_error", ... */
    const char *param; /* "" */
    const char *code;  /* "" */
    char message[TR_ERROR_TEXT_BYTES];
} tr_openai_refusal;

bool tr_openai_parse(tr_openai_kind kind, const char *body, size_t len, tr_openai_request *out,
                     tr_openai_refusal *refusal);
void tr_openai_free(tr_openai_request *r);
/* Always false, so that a caller may return it. The message may come from outside: what is not UTF-8 in it, or was cut,
 * is replaced. */
bool tr_openai_refuse(tr_openai_refusal *r, int status, const char *param, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* {"error": ...}; the caller frees the text. */
char *tr_openai_error_json(const tr_openai_refusal *r);

typedef struct tr_openai_usage {
    uint32_t prompt, cached, generated;
} tr_openai_usage;

typedef struct tr_openai_answer { /* what the JSON of all parts of an answer has in common */
    tr_openai_kind kind;
    const char *id; /* "cmpl-..." */
    const char *model;
    int64_t created;
} tr_openai_answer;

/* Tokens with their log-probabilities: openai_logprobs.c. */
typedef struct tr_openai_scores {
    uint32_t n, room;
    uint32_t per;  /* entries of each: itself, then the likeliest */
    uint32_t *ids; /* [n, per] */
    float *values; /* [n, per]; the first is a NaN where it is not known */
    double sum;    /* of those that are known */
    uint32_t n_known;
} tr_openai_scores;
/* One more; ids, values: [per]; values NULL: only the first id is known. False: no memory. */
bool tr_openai_scores_add(tr_openai_scores *s, const uint32_t *ids, const float *values);
void tr_openai_scores_free(tr_openai_scores *s);
/* The "logprobs" of a choice for tokens [from, n). offset: characters of the text before them, goes on. tokenizer NULL:
 * tokens are named by their ids. */
json_t *tr_openai_logprobs_json(tr_openai_kind kind, const tr_openai_scores *s, uint32_t from,
                                const tr_tokenizer *tokenizer, uint32_t *offset);

const char *tr_openai_finish(uint32_t finish); /* "stop", "length", "abort"; NULL: not yet */
/* One piece of a stream: a choice goes on by the text; first: it opens the choice. finish 0: more follows. */
typedef struct tr_openai_piece {
    uint32_t index; /* of the choice */
    const char *text;
    size_t len;
    bool first;
    uint32_t finish;
    json_t *logprobs;              /* taken; NULL: none */
    const tr_openai_usage *so_far; /* NULL: not told */
} tr_openai_piece;
char *tr_openai_chunk_json(const tr_openai_answer *a, const tr_openai_piece *piece);
char *tr_openai_usage_json(const tr_openai_answer *a, const tr_openai_usage *u); /* the last piece, without choices */
typedef struct tr_openai_choice {
    const char *text;
    size_t len;
    uint32_t finish;
    json_t *logprobs; /* taken; NULL: none */
} tr_openai_choice;
char *tr_openai_whole_json(const tr_openai_answer *a, const tr_openai_choice *choices, uint32_t n,
                           const tr_openai_usage *u);
/* vectors: [n][dimensions] */
char *tr_openai_embeddings_json(const tr_openai_answer *a, const float *vectors, uint32_t n, uint32_t dimensions,
                                bool base64, const tr_openai_usage *u);
#endif
