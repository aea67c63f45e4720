/* actors/gateway/openai_json.c - the JSON of answers. */
#include "actors/gateway/openai.h"

#include <stdlib.h>
#include <string.h>

static char *take(json_t *root) {
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

static json_t *text_or_null(const char *s) { return s && *s ? json_string(s) : json_null(); }

char *tr_openai_error_json(const tr_openai_refusal *r) {
    return take(json_pack("{s:{s:s,s:s,s:o,s:o}}", "error", "message", r->message, "type", r->type, "param",
                          text_or_null(r->param), "code", text_or_null(r->code)));
}

const char *tr_openai_finish(uint32_t finish) {
    switch (finish) {
    case TR_FINISH_NONE: return NULL;
    case TR_FINISH_LENGTH: return "length";
    case TR_FINISH_ABORT: return "abort";
    default: return "stop";
    }
}

static json_t *usage(const tr_openai_usage *u) {
    return json_pack("{s:I,s:I,s:I,s:{s:I}}", "prompt_tokens", (json_int_t)u->prompt, "completion_tokens",
                     (json_int_t)u->generated, "total_tokens", (json_int_t)u->prompt + u->generated,
                     "prompt_tokens_details", "cached_tokens", (json_int_t)u->cached);
}

static json_t *frame(const tr_openai_answer *a, bool chunk) {
    const char *object = a->kind == TR_OPENAI_COMPLETION ? "text_completion"
                         : chunk                         ? "chat.completion.chunk"
                                                         : "chat.completion";
    return json_pack("{s:s,s:s,s:I,s:s,s:[]}", "id", a->id, "object", object, "created", (json_int_t)a->created,
                     "model", a->model, "choices");
}

static void set_choice(json_t *choice, uint32_t index, json_t *logprobs, uint32_t finish) {
    json_object_set_new(choice, "index", json_integer(index));
    json_object_set_new(choice, "logprobs", logprobs ? logprobs : json_null());
    json_object_set_new(choice, "finish_reason", text_or_null(tr_openai_finish(finish)));
}

char *tr_openai_chunk_json(const tr_openai_answer *a, const tr_openai_piece *p) {
    json_t *root = frame(a, true), *choice = json_object(), *s = json_stringn(p->text, p->len);
    if (a->kind == TR_OPENAI_COMPLETION) {
        json_object_set_new(choice, "text", s);
    } else {
        json_t *delta = json_object();
        if (p->first) json_object_set_new(delta, "role", json_string("assistant"));
        if (p->len > 0 || p->first)
            json_object_set_new(delta, "content", s);
        else
            json_decref(s);
        json_object_set_new(choice, "delta", delta);
    }
    set_choice(choice, p->index, p->logprobs, p->finish);
    if (p->so_far) json_object_set_new(root, "usage", usage(p->so_far));
    json_array_append_new(json_object_get(root, "choices"), choice);
    return take(root);
}

char *tr_openai_usage_json(const tr_openai_answer *a, const tr_openai_usage *u) {
    json_t *root = frame(a, true);
    json_object_set_new(root, "usage", usage(u));
    return take(root);
}

char *tr_openai_whole_json(const tr_openai_answer *a, const tr_openai_choice *choices, uint32_t n,
                           const tr_openai_usage *u) {
    json_t *root = frame(a, false);
    for (uint32_t i = 0; i < n; i++) {
        json_t *choice = json_object(), *s = json_stringn(choices[i].text, choices[i].len);
        if (a->kind == TR_OPENAI_COMPLETION)
            json_object_set_new(choice, "text", s);
        else
            json_object_set_new(choice, "message", json_pack("{s:s,s:o}", "role", "assistant", "content", s));
        set_choice(choice, i, choices[i].logprobs, choices[i].finish);
        json_array_append_new(json_object_get(root, "choices"), choice);
    }
    json_object_set_new(root, "usage", usage(u));
    return take(root);
}
