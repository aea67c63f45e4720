/* actors/gateway/openai.h - requests of the OpenAI API (platform.openai.com/docs/api-reference: completions, chat
 * completions) with the parameters that vLLM adds, read from their JSON; and the JSON of the answers. Pure.
 * One table has every parameter with its bounds. What is not known is ignored, as OpenAI's server does; what is known
 * and cannot be done here is refused unless it has its neutral value. */
#ifndef TR_OPENAI_H
#define TR_OPENAI_H
#include "base/status.h"
#include "client/troupe_client.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum tr_openai_kind { TR_OPENAI_COMPLETION = 1, TR_OPENAI_CHAT = 2 } tr_openai_kind;

enum { TR_OPENAI_PROMPTS_MAX = 64, TR_OPENAI_CHOICES_MAX = TR_OPENAI_PROMPTS_MAX * TR_MAX_SAMPLES };

typedef struct tr_openai_request {
    tr_openai_kind kind;
    json_t *root;            /* owns every string below */
    tr_client_params params; /* all but prompt and tokens; n is 1 or more */
    uint32_t best_of;        /* 0: not given */
    const char *stops[TR_MAX_STOPS];
    bool stream, include_usage, echo;
    bool has_max_tokens;
    const char *model;      /* "" */
    const json_t *prompt;   /* completions: a text, token ids, or a list of either */
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

const char *tr_openai_finish(uint32_t finish); /* "stop", "length", "abort"; NULL: not yet */
/* One piece of a stream: choice `index` goes on by the text; first: it opens the choice. finish 0: more follows. */
char *tr_openai_chunk_json(const tr_openai_answer *a, uint32_t index, const char *text, size_t len, bool first,
                           uint32_t finish);
char *tr_openai_usage_json(const tr_openai_answer *a, const tr_openai_usage *u); /* the last piece, without choices */
typedef struct tr_openai_choice {
    const char *text;
    size_t len;
    uint32_t finish;
} tr_openai_choice;
char *tr_openai_whole_json(const tr_openai_answer *a, const tr_openai_choice *choices, uint32_t n,
                           const tr_openai_usage *u);
#endif
