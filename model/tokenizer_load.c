/* model/tokenizer_load.c - see the header. */
#include "model/tokenizer_load.h"
#include "model/tokenizer_bpe.h"
#include "model/tokenizer_names.h"
#include "model/tokenizer_special.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KEY(name) "tokenizer.ggml." name

static uint64_t key_offset(const tr_gguf *g, const char *key) {
    const tr_gguf_kv *kv = tr_gguf_find(g, key);
    return kv != NULL ? kv->offset : 0;
}

static tr_status no_memory(tr_error *err) {
    return tr_error_set(err, TR_SYSTEM, "no memory for the tables of the tokenizer");
}

/* Start over an array that must be there. */
static tr_status begin(const tr_gguf *g, const char *key, tr_gguf_type type, tr_gguf_arr *out, tr_error *err) {
    bool found = false;
    TR_TRY(tr_gguf_arr_begin(g, key, type, out, &found, err));
    return found ? TR_OK : tr_gguf_fail(g, err, 0, "the tokenizer needs the key %s, which is missing", key);
}

static tr_status read_kind(tr_tokenizer *t, const tr_gguf *g, tr_error *err) {
    tr_gguf_text model = {0}, pre = {0};
    bool found = false;
    TR_TRY(tr_gguf_str(g, KEY("model"), &model, &found, err));
    if (!found) return tr_gguf_fail(g, err, 0, "no tokenizer in this file (key " KEY("model") " is missing)");
    uint64_t offset = key_offset(g, KEY("model"));
    if (tr_gguf_text_is(model, "llama")) {
        t->kind = TR_TOKENIZER_SPM;
        t->add_bos = t->add_space_prefix = true;
        return TR_OK;
    }
    if (!tr_gguf_text_is(model, "gpt2")) {
        return tr_gguf_fail(g, err, offset, "tokenizer \"%.*s\" is not supported (llama and gpt2 are)",
                            (int)(model.len < 64 ? model.len : 64), model.data);
    }
    t->kind = TR_TOKENIZER_BPE;
    TR_TRY(tr_gguf_str(g, KEY("pre"), &pre, &found, err));
    if (!found || !tr_pretokenize_find(pre.data, pre.len, &t->pre)) {
        return tr_gguf_fail(g, err, key_offset(g, KEY("pre")),
                            "pre-tokenizer \"%.*s\" is not supported (gpt-2, smollm, llama-bpe and qwen2 are)",
                            (int)(pre.len < 64 ? pre.len : 64), found ? pre.data : "");
    }
    t->ignore_merges = t->add_bos = t->pre == TR_PRETOKENIZE_LLAMA3;
    return TR_OK;
}

/* Copy the texts into one arena. */
static tr_status read_texts(tr_tokenizer *t, const tr_gguf *g, tr_error *err) {
    tr_gguf_arr list;
    tr_gguf_text text;
    uint64_t total = 0;
    TR_TRY(begin(g, KEY("tokens"), TR_GGUF_STR, &list, err));
    uint64_t offset = key_offset(g, KEY("tokens"));
    if (list.count == 0 || list.count > TR_TOKENIZER_MAX_TOKENS) {
        return tr_gguf_fail(g, err, offset, "%llu tokens (1 to %d are possible)", (unsigned long long)list.count,
                            TR_TOKENIZER_MAX_TOKENS);
    }
    tr_gguf_arr sizes = list;
    while (tr_gguf_arr_str(&sizes, &text)) total += text.len;
    if (total >= UINT32_MAX) return tr_gguf_fail(g, err, offset, "the texts of the tokens exceed 4 GiB");
    t->n_tokens = (uint32_t)list.count;
    t->spans = malloc(t->n_tokens * sizeof *t->spans);
    t->bytes = malloc(total + 1);
    if (t->spans == NULL || t->bytes == NULL) return no_memory(err);
    uint32_t used = 0;
    for (uint32_t id = 0; tr_gguf_arr_str(&list, &text); id++) {
        t->spans[id] = (tr_tokenizer_span){used, (uint32_t)text.len};
        memcpy(t->bytes + used, text.data, text.len);
        used += (uint32_t)text.len;
        if (text.len > t->max_len) t->max_len = text.len;
    }
    return TR_OK;
}

static tr_status index_texts(tr_tokenizer *t, const tr_gguf *g, tr_error *err) {
    if (tr_tokenizer_map_init(&t->map, t->bytes, t->spans, t->n_tokens) != TR_OK) return no_memory(err);
    for (uint32_t id = 0; id < t->n_tokens; id++) {
        uint32_t other = 0;
        if (t->spans[id].len == 0) continue;
        switch (tr_tokenizer_map_add(&t->map, id, &other)) {
        case TR_TOKENIZER_MAP_ADDED: break;
        case TR_TOKENIZER_MAP_DUPLICATE:
            return tr_gguf_fail(g, err, key_offset(g, KEY("tokens")), "tokens %u and %u have the same text", other, id);
        case TR_TOKENIZER_MAP_CROWDED:
            return tr_gguf_fail(g, err, key_offset(g, KEY("tokens")), "the tokens near %u collide by design", id);
        }
    }
    return TR_OK;
}

static tr_status read_types(tr_tokenizer *t, const tr_gguf *g, tr_error *err) {
    /* By the file's number: undefined, normal, unknown, control, user-defined, unused, byte. */
    static const uint8_t bits[] = {0,
                                   TR_TOKENIZER_NORMAL,
                                   TR_TOKENIZER_UNKNOWN,
                                   TR_TOKENIZER_CONTROL,
                                   TR_TOKENIZER_USER,
                                   TR_TOKENIZER_UNUSED,
                                   TR_TOKENIZER_BYTE};
    t->attrs = malloc(t->n_tokens);
    if (t->attrs == NULL) return no_memory(err);
    memset(t->attrs, TR_TOKENIZER_NORMAL, t->n_tokens);
    tr_gguf_arr list;
    bool found = false;
    TR_TRY(tr_gguf_arr_begin(g, KEY("token_type"), TR_GGUF_I32, &list, &found, err));
    if (!found) return TR_OK;
    uint64_t offset = key_offset(g, KEY("token_type"));
    if (list.count != t->n_tokens) {
        return tr_gguf_fail(g, err, offset, "%llu token types for %u tokens", (unsigned long long)list.count,
                            t->n_tokens);
    }
    int64_t type;
    for (uint32_t id = 0; tr_gguf_arr_i64(&list, &type); id++) {
        t->attrs[id] = type >= 0 && type < (int64_t)sizeof bits ? bits[type] : 0;
        const char *text = t->bytes + t->spans[id].offset;
        if (t->attrs[id] != TR_TOKENIZER_BYTE) continue;
        if (t->spans[id].len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>' ||
            strspn((char[]){text[3], text[4], 0}, "0123456789abcdefABCDEF") != 2) {
            return tr_gguf_fail(g, err, offset, "byte token %u is not written <0xNN>", id);
        }
    }
    return TR_OK;
}

/* Order-preserving image of a score: the best is 0. */
static uint32_t priority_of(float score) {
    uint32_t bits;
    score += 0.0f; /* -0 is 0 */
    memcpy(&bits, &score, sizeof bits);
    uint32_t ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return ~ascending;
}

static tr_status read_scores(tr_tokenizer *t, const tr_gguf *g, tr_error *err) {
    tr_gguf_arr list;
    TR_TRY(begin(g, KEY("scores"), TR_GGUF_F32, &list, err));
    uint64_t offset = key_offset(g, KEY("scores"));
    if (list.count != t->n_tokens) {
        return tr_gguf_fail(g, err, offset, "%llu scores for %u tokens", (unsigned long long)list.count, t->n_tokens);
    }
    t->priorities = malloc(t->n_tokens * sizeof *t->priorities);
    if (t->priorities == NULL) return no_memory(err);
    float score;
    for (uint32_t id = 0; tr_gguf_arr_f32(&list, &score); id++) {
        if (isnan(score)) return tr_gguf_fail(g, err, offset, "the score of token %u is not a number", id);
        t->priorities[id] = priority_of(score);
    }
    return TR_OK;
}

static tr_status read_id(const tr_tokenizer *t, const tr_gguf *g, const char *key, uint32_t *id, tr_error *err) {
    uint32_t value = 0;
    bool found = false;
    TR_TRY(tr_gguf_u32(g, key, &value, &found, err));
    if (!found) return TR_OK;
    if (value >= t->n_tokens) {
        return tr_gguf_fail(g, err, key_offset(g, key), "%s is %u, but there are %u tokens", key, value, t->n_tokens);
    }
    *id = value;
    return TR_OK;
}

static tr_status read_roles(tr_tokenizer *t, const tr_gguf *g, tr_error *err) {
    const struct {
        const char *key;
        uint32_t *id;
        uint32_t fallback; /* of SentencePiece files */
    } rows[] = {
        {KEY("bos_token_id"), &t->bos, 1},
        {KEY("eos_token_id"), &t->eos, 2},
        {KEY("unknown_token_id"), &t->unk, 0},
        {KEY("eot_token_id"), &t->eot, TR_TOKENIZER_NONE},
        {KEY("eom_token_id"), &t->eom, TR_TOKENIZER_NONE},
        {KEY("fim_pre_token_id"), &t->fim_prefix, TR_TOKENIZER_NONE},
        {KEY("fim_suf_token_id"), &t->fim_suffix, TR_TOKENIZER_NONE},
        {KEY("fim_mid_token_id"), &t->fim_middle, TR_TOKENIZER_NONE},
        {KEY("fim_pad_token_id"), &t->fim_pad, TR_TOKENIZER_NONE},
        {KEY("fim_rep_token_id"), &t->fim_repo, TR_TOKENIZER_NONE},
        {KEY("fim_sep_token_id"), &t->fim_sep, TR_TOKENIZER_NONE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool usual = t->kind == TR_TOKENIZER_SPM && rows[i].fallback < t->n_tokens;
        *rows[i].id = usual ? rows[i].fallback : TR_TOKENIZER_NONE;
        TR_TRY(read_id(t, g, rows[i].key, rows[i].id, err));
    }
    TR_TRY(tr_gguf_bool(g, KEY("add_bos_token"), &t->add_bos, NULL, err));
    TR_TRY(tr_gguf_bool(g, KEY("add_space_prefix"), &t->add_space_prefix, NULL, err));
    if (t->add_bos && t->bos == TR_TOKENIZER_NONE) {
        return tr_gguf_fail(g, err, key_offset(g, KEY("add_bos_token")), "BOS is asked for, but no token is named");
    }
    tr_tokenizer_names_apply(t);
    tr_gguf_text name = {0};
    TR_TRY(tr_gguf_str(g, "general.name", &name, NULL, err));
    if (name.len > 0) tr_tokenizer_names_strip(t, name.data, name.len);
    return TR_OK;
}

/* Tokens for what no other token covers: <0xNN>, else the bare byte, else the unknown token. */
static tr_status find_bytes(tr_tokenizer *t, const tr_gguf *g, tr_error *err) {
    static const char hex[] = "0123456789ABCDEF";
    for (unsigned b = 0; b < 256; b++) {
        const char text[6] = {'<', '0', 'x', hex[b >> 4], hex[b & 15], '>'}, bare = (char)b;
        uint32_t id = tr_tokenizer_map_find(&t->map, text, sizeof text);
        if (id == TR_TOKENIZER_MAP_NONE) id = tr_tokenizer_map_find(&t->map, &bare, 1);
        if (id == TR_TOKENIZER_MAP_NONE) id = t->unk;
        if (id == TR_TOKENIZER_NONE) {
            return tr_gguf_fail(g, err, key_offset(g, KEY("tokens")), "no token for byte %u and no unknown token", b);
        }
        t->byte_ids[b] = id;
    }
    return TR_OK;
}

/* "left right" -> rule. joined has room for max_len bytes. */
static bool parse_merge(const tr_tokenizer *t, tr_gguf_text text, char *joined, tr_tokenizer_rule *rule) {
    if (text.len < 3 || text.len - 1 > t->max_len) return false;
    const char *space = memchr(text.data + 1, ' ', text.len - 1);
    if (space == NULL) return false;
    size_t left = (size_t)(space - text.data), right = text.len - left - 1;
    memcpy(joined, text.data, left);
    memcpy(joined + left, space + 1, right);
    rule->left = tr_tokenizer_map_find(&t->map, text.data, left);
    rule->right = tr_tokenizer_map_find(&t->map, space + 1, right);
    rule->result = tr_tokenizer_map_find(&t->map, joined, left + right);
    return rule->left != TR_TOKENIZER_MAP_NONE && rule->right != TR_TOKENIZER_MAP_NONE &&
           rule->result != TR_TOKENIZER_MAP_NONE;
}

static tr_status read_merges(tr_tokenizer *t, const tr_gguf *g, tr_error *err) {
    tr_gguf_arr list;
    tr_gguf_text text;
    TR_TRY(begin(g, KEY("merges"), TR_GGUF_STR, &list, err));
    uint64_t offset = key_offset(g, KEY("merges"));
    if (list.count >= UINT32_MAX) return tr_gguf_fail(g, err, offset, "too many merges");
    char *joined = malloc(t->max_len + 1);
    if (joined == NULL || tr_tokenizer_bpe_rules(t, list.count) != TR_OK) {
        free(joined);
        return no_memory(err);
    }
    tr_status status = TR_OK;
    for (uint32_t i = 0; status == TR_OK && tr_gguf_arr_str(&list, &text); i++) {
        tr_tokenizer_rule rule = {.rank = i};
        if (!parse_merge(t, text, joined, &rule)) {
            status = tr_gguf_fail(g, err, offset, "merge %u is not a pair of tokens that make a third", i);
        } else if (!tr_tokenizer_bpe_rule(t, rule)) {
            status = tr_gguf_fail(g, err, offset, "the merges near %u collide by design", i);
        }
    }
    free(joined);
    return status;
}

tr_status tr_tokenizer_load(tr_tokenizer *t, const tr_gguf *g, tr_error *err) {
    TR_TRY(read_kind(t, g, err));
    TR_TRY(read_texts(t, g, err));
    TR_TRY(index_texts(t, g, err));
    TR_TRY(read_types(t, g, err));
    TR_TRY(read_roles(t, g, err));
    if (t->kind == TR_TOKENIZER_SPM) {
        TR_TRY(read_scores(t, g, err));
        TR_TRY(find_bytes(t, g, err));
    } else {
        tr_tokenizer_bpe_alphabet(t);
        TR_TRY(read_merges(t, g, err));
    }
    return tr_tokenizer_special_build(t) == TR_OK ? TR_OK : no_memory(err);
}
