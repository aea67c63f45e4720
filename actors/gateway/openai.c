#include "actors/gateway/openai.h"

#include "model/unicode.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { C = TR_OPENAI_COMPLETION, H = TR_OPENAI_CHAT, E = TR_OPENAI_EMBEDDING };

bool tr_openai_refuse(tr_openai_refusal *r, int status, const char *param, const char *code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->message, sizeof r->message, fmt, args);
    va_end(args);
    const size_t len = strlen(r->message);
    for (size_t at = 0, size; at < len; at += size) {
        tr_unicode_decode(r->message + at, len - at, &size);
        if (!tr_unicode_utf8_valid(r->message + at, size)) memset(r->message + at, '?', size);
    }
    r->status = status;
    r->type = status == 401   ? "authentication_error"
              : status == 404 ? "not_found_error"
              : status == 429 ? "rate_limit_error"
              : status >= 500 ? "server_error"
                              : "invalid_request_error";
    r->param = param;
    r->code = code;
    return false;
}

/* ---- parameters ---- */

typedef enum type { U32, U64, I32, F32, BOOL } type;

#define PARAM(field) offsetof(tr_openai_request, field)

static const struct parameter {
    const char *name;
    int kinds;
    type type;
    double low, high;
    size_t at;
} parameters[] = {
    {"max_tokens", C | H, U32, 0, TR_MAX_TOKENS, PARAM(params.max_tokens)},
    {"max_completion_tokens", H, U32, 1, TR_MAX_TOKENS, PARAM(params.max_tokens)},
    {"temperature", C | H, F32, 0, 100, PARAM(params.temperature)},
    {"top_p", C | H, F32, 0, 1, PARAM(params.top_p)},
    {"top_k", C | H, U32, 0, 1 << 21, PARAM(params.top_k)},
    {"min_p", C | H, F32, 0, 1, PARAM(params.min_p)},
    {"presence_penalty", C | H, F32, -2, 2, PARAM(params.presence_penalty)},
    {"frequency_penalty", C | H, F32, -2, 2, PARAM(params.frequency_penalty)},
    {"repetition_penalty", C | H, F32, 0.01, 100, PARAM(params.repetition_penalty)},
    {"n", C | H, U32, 1, TR_MAX_SAMPLES, PARAM(params.n)},
    {"best_of", C, U32, 1, TR_MAX_SAMPLES, PARAM(best_of)},
    {"seed", C | H, U64, 0, 9007199254740992.0, PARAM(params.seed)},
    {"min_tokens", C | H, U32, 0, TR_MAX_TOKENS, PARAM(params.min_tokens)},
    {"ignore_eos", C | H, BOOL, 0, 1, PARAM(params.ignore_eos)},
    {"skip_special_tokens", C | H, BOOL, 0, 1, PARAM(skip_special)},
    {"include_stop_str_in_output", C | H, BOOL, 0, 1, PARAM(params.include_stop)},
    {"priority", C | H, I32, -1e6, 1e6, PARAM(params.priority)},
    {"stream", C | H, BOOL, 0, 1, PARAM(stream)},
    {"echo", C, BOOL, 0, 1, PARAM(echo)},
    {"logprobs", H, BOOL, 0, 1, PARAM(params.logprobs)},
    {"logprobs", C, U32, 0, TR_MAX_LOGPROBS, PARAM(params.top_logprobs)},
    {"top_logprobs", H, U32, 0, TR_MAX_LOGPROBS, PARAM(params.top_logprobs)},
    {"add_generation_prompt", H, BOOL, 0, 1, PARAM(add_generation_prompt)},
    {"dimensions", E, U32, 1, 1 << 20, PARAM(dimensions)},
};

static bool number(const struct parameter *p, const json_t *v, tr_openai_request *out, tr_openai_refusal *refusal) {
    const double d = json_is_boolean(v) ? json_is_true(v) : json_number_value(v);
    void *at = (char *)out + p->at;
    if (p->type == BOOL) {
        if (!json_is_boolean(v))
            return tr_openai_refuse(refusal, 400, p->name, "invalid_type", "%s: true or false is wanted", p->name);
        *(bool *)at = json_is_true(v);
        return true;
    }
    if (p->type == F32 ? !json_is_number(v) : !json_is_integer(v))
        return tr_openai_refuse(refusal, 400, p->name, "invalid_type", "%s: %s is wanted", p->name,
                                p->type == F32 ? "a number" : "a whole number");
    if (!(d >= p->low && d <= p->high))
        return tr_openai_refuse(refusal, 400, p->name, "invalid_value", "%s: %g is not between %g and %g", p->name, d,
                                p->low, p->high);
    if (p->type == U32) *(uint32_t *)at = (uint32_t)d;
    if (p->type == I32) *(int32_t *)at = (int32_t)d;
    if (p->type == U64) *(uint64_t *)at = (uint64_t)json_integer_value(v);
    if (p->type == F32) *(float *)at = (float)d;
    return true;
}

static bool numbers(tr_openai_request *out, tr_openai_refusal *refusal) {
    for (size_t i = 0; i < sizeof parameters / sizeof parameters[0]; i++) {
        const json_t *v = json_object_get(out->root, parameters[i].name);
        if (!v || json_is_null(v) || !(parameters[i].kinds & (int)out->kind)) continue;
        if (!number(&parameters[i], v, out, refusal)) return false;
    }
    out->params.show_special = !out->skip_special;
    return true;
}

static bool given(const tr_openai_request *r, const char *name) {
    const json_t *v = json_object_get(r->root, name);
    return v && !json_is_null(v);
}

/* What must fit together. */
static bool combinations(tr_openai_request *out, tr_openai_refusal *refusal) {
    tr_client_params *p = &out->params;
    if (out->kind == TR_OPENAI_COMPLETION) p->logprobs = given(out, "logprobs");
    if (out->kind == TR_OPENAI_CHAT && p->top_logprobs > 0 && !p->logprobs)
        return tr_openai_refuse(refusal, 400, "top_logprobs", "invalid_value", "top_logprobs: logprobs must be true");
    if (out->best_of && out->best_of < p->n)
        return tr_openai_refuse(refusal, 400, "best_of", "invalid_value", "best_of: %u is less than n (%u)",
                                out->best_of, p->n);
    if (out->best_of > p->n && out->stream)
        return tr_openai_refuse(refusal, 400, "best_of", "invalid_value", "best_of: a stream has no best one");
    if (out->echo && p->logprobs && (p->n > 1 || out->best_of > 1))
        return tr_openai_refuse(refusal, 400, "echo", "unsupported_value",
                                "echo: with logprobs only one sample is possible");
    return true;
}

/* {"token id": bias} */
static bool bias(tr_openai_request *out, tr_openai_refusal *refusal) {
    static const char name[] = "logit_bias";
    json_t *v = json_object_get(out->root, name), *value;
    const char *key;
    if (!v || json_is_null(v)) return true;
    if (!json_is_object(v) || json_object_size(v) > TR_MAX_BIAS)
        return tr_openai_refuse(refusal, 400, name, "invalid_type", "%s: an object of at most %d token ids is wanted",
                                name, TR_MAX_BIAS);
    json_object_foreach(v, key, value) {
        char *end = NULL;
        const unsigned long id = key[0] >= '0' && key[0] <= '9' ? strtoul(key, &end, 10) : 0;
        const double by = json_number_value(value);
        if (!end || *end || id >= UINT32_MAX || !json_is_number(value) || !(by >= -100 && by <= 100))
            return tr_openai_refuse(refusal, 400, name, "invalid_value",
                                    "%s: token ids with values from -100 to 100 are wanted, not \"%.40s\"", name, key);
        out->bias_tokens[out->params.n_bias] = (uint32_t)id;
        out->bias[out->params.n_bias++] = (float)by;
    }
    out->params.bias_tokens = out->bias_tokens;
    out->params.bias = out->bias;
    return true;
}

static bool stop_tokens(tr_openai_request *out, tr_openai_refusal *refusal) {
    static const char name[] = "stop_token_ids";
    const json_t *v = json_object_get(out->root, name);
    const size_t n = json_array_size(v);
    if (!v || json_is_null(v)) return true;
    if (!json_is_array(v) || n > TR_MAX_STOP_TOKENS)
        return tr_openai_refuse(refusal, 400, name, "invalid_type", "%s: a list of at most %d token ids is wanted",
                                name, TR_MAX_STOP_TOKENS);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(v, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= UINT32_MAX)
            return tr_openai_refuse(refusal, 400, name, "invalid_value", "%s: entry %zu is no token id", name, i);
        out->stop_tokens[i] = (uint32_t)json_integer_value(id);
    }
    out->params.stop_tokens = out->stop_tokens;
    out->params.n_stop_tokens = n;
    return true;
}

static bool stream_options(tr_openai_request *out, tr_openai_refusal *refusal) {
    static const char name[] = "stream_options";
    const json_t *v = json_object_get(out->root, name), *usage = json_object_get(v, "include_usage"),
                 *often = json_object_get(v, "continuous_usage_stats");
    if (!v || json_is_null(v)) return true;
    if (!json_is_object(v) || (usage && !json_is_boolean(usage)) || (often && !json_is_boolean(often)))
        return tr_openai_refuse(refusal, 400, name, "invalid_type", "%s: an object of true and false is wanted", name);
    if (!out->stream) return tr_openai_refuse(refusal, 400, name, "invalid_value", "%s: only with stream", name);
    out->include_usage = json_is_true(usage);
    out->continuous_usage = json_is_true(usage) && json_is_true(often);
    return true;
}

static bool salt(tr_openai_request *out, tr_openai_refusal *refusal) {
    const json_t *v = json_object_get(out->root, "cache_salt");
    if (!v || json_is_null(v)) return true;
    if (!json_is_string(v) || json_string_length(v) == 0 || json_string_length(v) > TR_MAX_SALT_BYTES)
        return tr_openai_refuse(refusal, 400, "cache_salt", "invalid_value",
                                "cache_salt: a text of 1 to %d bytes is wanted", TR_MAX_SALT_BYTES);
    out->params.cache_salt = json_string_value(v);
    return true;
}

/* Known, and not available: refused, but for values that ask for nothing. */
static bool absent(const tr_openai_request *out, tr_openai_refusal *refusal) {
    static const char *const names[] = {"response_format", "tool_choice",    "prompt_logprobs",
                                        "suffix",          "guided_json",    "guided_regex",
                                        "guided_choice",   "guided_grammar", "structured_outputs"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const json_t *v = json_object_get(out->root, names[i]);
        const char *form = json_string_value(json_object_get(v, "type")), *text = json_string_value(v);
        if (!v || json_is_null(v) || (json_is_object(v) && json_object_size(v) == 0)) continue;
        if (form && strcmp(names[i], "response_format") == 0 && strcmp(form, "text") == 0) continue;
        if (text &&
            (!*text || (strcmp(names[i], "tool_choice") == 0 && (!strcmp(text, "none") || !strcmp(text, "auto")))))
            continue;
        return tr_openai_refuse(refusal, 400, names[i], "unsupported_value", "%s: not available in this version",
                                names[i]);
    }
    return true;
}

static bool stop(tr_openai_request *out, tr_openai_refusal *refusal) {
    const json_t *v = json_object_get(out->root, "stop");
    if (!v || json_is_null(v)) return true;
    size_t n = json_is_string(v) ? 1 : json_array_size(v);
    if (!json_is_string(v) && !json_is_array(v))
        return tr_openai_refuse(refusal, 400, "stop", "invalid_type", "stop: a text or a list of texts is wanted");
    if (n > TR_MAX_STOPS)
        return tr_openai_refuse(refusal, 400, "stop", "invalid_value", "stop: at most %d texts are possible",
                                TR_MAX_STOPS);
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_is_string(v) ? v : json_array_get(v, i);
        size_t len = json_string_length(s);
        if (!json_is_string(s) || len == 0 || len > TR_MAX_STOP_BYTES || strlen(json_string_value(s)) != len)
            return tr_openai_refuse(refusal, 400, "stop", "invalid_value", "stop: each text has 1 to %d bytes",
                                    TR_MAX_STOP_BYTES);
        out->stops[i] = json_string_value(s);
    }
    out->params.stop = out->stops;
    out->params.n_stop = n;
    return true;
}

static bool encoding(tr_openai_request *out, tr_openai_refusal *refusal) {
    const json_t *v = json_object_get(out->root, "encoding_format");
    const char *form = v && !json_is_null(v) ? json_string_value(v) : "float";
    if (form && (strcmp(form, "float") == 0 || strcmp(form, "base64") == 0)) {
        out->base64 = form[0] == 'b';
        return true;
    }
    return tr_openai_refuse(refusal, 400, "encoding_format", "invalid_value", "encoding_format: float or base64");
}

/* A text, token ids, or a list of either. */
static bool prompt(tr_openai_request *out, tr_openai_refusal *refusal) {
    const char *name = out->kind == TR_OPENAI_EMBEDDING ? "input" : "prompt";
    const json_t *v = out->prompt = json_object_get(out->root, name);
    if (json_is_string(v)) return true;
    size_t n = json_array_size(v);
    if (n == 0)
        return tr_openai_refuse(refusal, 400, name, "missing_required_parameter",
                                "%s: a text, a list of token ids, or a list of these is wanted", name);
    bool ids = json_is_integer(json_array_get(v, 0));
    if (!ids && n > TR_OPENAI_PROMPTS_MAX)
        return tr_openai_refuse(refusal, 400, name, "invalid_value", "%s: at most %d are possible", name,
                                TR_OPENAI_PROMPTS_MAX);
    for (size_t i = 0; i < n; i++) {
        const json_t *p = json_array_get(v, i);
        bool list_of_ids = json_is_array(p) && json_array_size(p) > 0;
        for (size_t k = 0; list_of_ids && k < json_array_size(p); k++)
            list_of_ids = json_is_integer(json_array_get(p, k));
        if (ids ? !json_is_integer(p) : !json_is_string(p) && !list_of_ids)
            return tr_openai_refuse(refusal, 400, name, "invalid_type",
                                    "%s: entry %zu is of another kind than the first, or empty", name, i);
    }
    return true;
}

static bool chat(tr_openai_request *out, tr_openai_refusal *refusal) {
    out->messages = json_object_get(out->root, "messages");
    out->tools = json_object_get(out->root, "tools");
    out->template_arguments = json_object_get(out->root, "chat_template_kwargs");
    if (json_is_array(out->messages) && json_array_size(out->messages) > 0) return true;
    return tr_openai_refuse(refusal, 400, "messages", "missing_required_parameter",
                            "messages: a list of one or more messages is wanted");
}

bool tr_openai_parse(tr_openai_kind kind, const char *body, size_t len, tr_openai_request *out,
                     tr_openai_refusal *refusal) {
    json_error_t where;
    *out = (tr_openai_request){.kind = kind, .model = "", .add_generation_prompt = true, .skip_special = true};
    out->params.temperature = 1;
    out->params.max_tokens = 16;
    out->params.n = 1;
    out->root = json_loadb(body, len, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(out->root))
        return tr_openai_refuse(refusal, 400, "", "invalid_json", "the body is not a JSON object (%s)",
                                out->root ? "it is something else" : where.text);
    const json_t *model = json_object_get(out->root, "model");
    if (model && !json_is_string(model) && !json_is_null(model))
        return tr_openai_refuse(refusal, 400, "model", "invalid_type", "model: a text is wanted");
    if (json_is_string(model)) out->model = json_string_value(model);
    const json_t *most = json_object_get(out->root, "max_tokens"),
                 *most2 = json_object_get(out->root, "max_completion_tokens");
    out->has_max_tokens = (most && !json_is_null(most)) || (kind == TR_OPENAI_CHAT && most2 && !json_is_null(most2));
    if (kind == TR_OPENAI_EMBEDDING)
        return numbers(out, refusal) && encoding(out, refusal) && salt(out, refusal) && prompt(out, refusal);
    if (!absent(out, refusal) || !numbers(out, refusal) || !combinations(out, refusal) || !bias(out, refusal) ||
        !stop(out, refusal) || !stop_tokens(out, refusal) || !salt(out, refusal) || !stream_options(out, refusal))
        return false;
    return kind == TR_OPENAI_CHAT ? chat(out, refusal) : prompt(out, refusal);
}

void tr_openai_free(tr_openai_request *r) {
    json_decref(r->root);
    r->root = NULL;
}
