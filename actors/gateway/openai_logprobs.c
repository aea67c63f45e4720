/* actors/gateway/openai_logprobs.c - log-probabilities and embeddings as the OpenAI API tells them. */
#include "actors/gateway/openai.h"

#include "model/tokenizer.h"
#include "model/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool tr_openai_scores_add(tr_openai_scores *s, const uint32_t *ids, const float *values) {
    if (s->n == s->room) {
        const uint32_t room = 2 * s->room + 32;
        uint32_t *more_ids = realloc(s->ids, (size_t)room * s->per * sizeof *more_ids);
        if (more_ids) s->ids = more_ids;
        float *more = more_ids ? realloc(s->values, (size_t)room * s->per * sizeof *more) : NULL;
        if (!more) return false;
        s->values = more;
        s->room = room;
    }
    const size_t at = (size_t)s->n * s->per;
    for (uint32_t i = 0; i < s->per; i++) {
        s->ids[at + i] = values ? ids[i] : ids[0];
        s->values[at + i] = values ? values[i] : NAN;
    }
    if (values) s->sum += (double)values[0], s->n_known++;
    s->n++;
    return true;
}

void tr_openai_scores_free(tr_openai_scores *s) {
    free(s->ids);
    free(s->values);
    *s = (tr_openai_scores){0};
}

typedef struct piece {
    size_t n;
    char bytes[1024];
    bool valid; /* UTF-8 */
} piece;

/* What does not fit is a token that no vocabulary has; it is told by its id. */
static piece piece_of(const tr_tokenizer *t, uint32_t id) {
    piece p = {0};
    if (!t || tr_tokenizer_piece(t, id, true, p.bytes, sizeof p.bytes, &p.n) != TR_OK)
        p.n = (size_t)snprintf(p.bytes, sizeof p.bytes, "token_id:%u", id);
    p.valid = tr_unicode_utf8_valid(p.bytes, p.n);
    return p;
}

/* A part of a character is told by its bytes, as OpenAI's server does. */
static json_t *name_of(const piece *p) {
    if (p->valid) return json_stringn(p->bytes, p->n);
    char text[16 + 4 * sizeof p->bytes];
    size_t at = (size_t)snprintf(text, sizeof text, "bytes:");
    for (size_t i = 0; i < p->n; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "\\x%02x", (unsigned)(uint8_t)p->bytes[i]);
    return json_stringn(text, at);
}

static json_t *value_of(float v) { return isfinite(v) ? json_real((double)v) : json_null(); }

static json_t *chat_token(const tr_tokenizer *t, uint32_t id, float value) {
    const piece p = piece_of(t, id);
    json_t *bytes = json_array();
    for (size_t i = 0; i < p.n; i++) json_array_append_new(bytes, json_integer((uint8_t)p.bytes[i]));
    return json_pack("{s:o,s:o,s:o}", "token", name_of(&p), "logprob", value_of(value), "bytes", bytes);
}

static json_t *chat_logprobs(const tr_openai_scores *s, uint32_t from, const tr_tokenizer *t) {
    json_t *content = json_array();
    for (uint32_t i = from; i < s->n; i++) {
        const uint32_t *ids = s->ids + (size_t)i * s->per;
        const float *values = s->values + (size_t)i * s->per;
        json_t *token = chat_token(t, ids[0], values[0]), *top = json_array();
        for (uint32_t k = 1; k < s->per && isfinite(values[0]); k++)
            json_array_append_new(top, chat_token(t, ids[k], values[k]));
        json_object_set_new(token, "top_logprobs", top);
        json_array_append_new(content, token);
    }
    return json_pack("{s:o,s:n}", "content", content, "refusal");
}

/* The likeliest tokens by name, and the token itself. */
static json_t *alternatives(const uint32_t *ids, const float *values, uint32_t per, const tr_tokenizer *t) {
    if (!isfinite(values[0])) return json_null();
    json_t *top = json_object();
    for (uint32_t k = per; k-- > 0;) {
        const piece p = piece_of(t, ids[k]);
        json_t *name = name_of(&p);
        json_object_setn_new(top, json_string_value(name), json_string_length(name), value_of(values[k]));
        json_decref(name);
    }
    return top;
}

static uint32_t characters(const piece *p) {
    uint32_t n = 0;
    for (size_t i = 0; i < p->n; i++) n += ((uint8_t)p->bytes[i] & 0xc0) != 0x80;
    return n;
}

json_t *tr_openai_logprobs_json(tr_openai_kind kind, const tr_openai_scores *s, uint32_t from, const tr_tokenizer *t,
                                uint32_t *offset) {
    if (kind == TR_OPENAI_CHAT) return chat_logprobs(s, from, t);
    json_t *tokens = json_array(), *values = json_array(), *top = json_array(), *offsets = json_array();
    for (uint32_t i = from; i < s->n; i++) {
        const size_t at = (size_t)i * s->per;
        const piece p = piece_of(t, s->ids[at]);
        json_array_append_new(tokens, name_of(&p));
        json_array_append_new(values, value_of(s->values[at]));
        json_array_append_new(top, alternatives(s->ids + at, s->values + at, s->per, t));
        json_array_append_new(offsets, json_integer(*offset));
        if (!t || !tr_tokenizer_is_control(t, s->ids[at])) *offset += characters(&p);
    }
    return json_pack("{s:o,s:o,s:o,s:o}", "tokens", tokens, "token_logprobs", values, "top_logprobs", top,
                     "text_offset", offsets);
}

/* ---- embeddings ---- */

static json_t *base64_of(const float *v, uint32_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *in = (const uint8_t *)v; /* little endian, as the machine has it */
    const size_t bytes = (size_t)n * sizeof *v;
    char *out = malloc(4 * (bytes / 3 + 1));
    size_t at = 0;
    for (size_t i = 0; out && i < bytes; i += 3) {
        const size_t left = bytes - i;
        const uint32_t three =
            (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) | (left > 2 ? in[i + 2] : 0);
        for (int k = 0; k < 4; k++) out[at++] = (size_t)k <= left ? digits[three >> (18 - 6 * k) & 63] : '=';
    }
    json_t *s = json_stringn(out, at);
    free(out);
    return s;
}

static json_t *numbers_of(const float *v, uint32_t n) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < n; i++) json_array_append_new(list, json_real((double)v[i]));
    return list;
}

char *tr_openai_embeddings_json(const tr_openai_answer *a, const float *vectors, uint32_t n, uint32_t dimensions,
                                bool base64, const tr_openai_usage *u) {
    json_t *data = json_array();
    for (uint32_t i = 0; i < n; i++) {
        const float *v = vectors + (size_t)i * dimensions;
        json_array_append_new(data,
                              json_pack("{s:s,s:I,s:o}", "object", "embedding", "index", (json_int_t)i, "embedding",
                                        base64 ? base64_of(v, dimensions) : numbers_of(v, dimensions)));
    }
    json_t *root = json_pack("{s:s,s:s,s:o,s:{s:I,s:I}}", "object", "list", "model", a->model, "data", data, "usage",
                             "prompt_tokens", (json_int_t)u->prompt, "total_tokens", (json_int_t)u->prompt);
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}
