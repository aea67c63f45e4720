/* model/tokenizer_json.c - model and added tokens of a tokenizer.json; see the header. */
#include "model/tokenizer_json.h"

#include "model/json_form.h"
#include "model/tokenizer_bpe.h"
#include "model/tokenizer_json_impl.h"
#include "model/tokenizer_names.h"
#include "model/tokenizer_special.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Half a million merges are pairs in Gemma's file; the tokens without text that a file may ask for are bounded by the
 * tokens that it has. */
enum { MAX_DEPTH = 16, MAX_CONTAINERS = 2 << 20, MAX_VALUES = 6 << 20, MAX_HOLES = 1024 };

/* Text of a token while the tables are made; data NULL: none. */
typedef struct token {
    const char *data;
    size_t len;
} token;

tr_tokenizer_json_shown tr_tokenizer_json_show(const char *text) {
    tr_tokenizer_json_shown s;
    size_t n = 0;
    for (; text[n] && n < sizeof s.text - 1; n++) s.text[n] = text[n] >= 0x20 && text[n] <= 0x7e ? text[n] : '?';
    s.text[n] = 0;
    return s;
}

tr_status tr_tokenizer_json_fail(const tr_tokenizer_json *j, const char *fmt, ...) {
    char reason[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(reason, sizeof reason, fmt, ap);
    va_end(ap);
    return tr_error_set(j->err, TR_DATA, "%.200s: %s", j->name, reason);
}

static tr_status no_memory(const tr_tokenizer_json *j) {
    return tr_error_set(j->err, TR_SYSTEM, "%.200s: no memory for the tables of the tokenizer", j->name);
}

const json_t *tr_tokenizer_json_value(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

bool tr_tokenizer_json_flag(const json_t *object, const char *key, bool missing) {
    const json_t *v = json_object_get(object, key);
    return json_is_boolean(v) ? json_is_true(v) : missing;
}

/* ---- tokens ---- */

/* An integer below TR_TOKENIZER_MAX_TOKENS; false for anything else. */
static bool read_id(const json_t *v, uint32_t *id_out) {
    const json_int_t id = json_integer_value(v);
    *id_out = (uint32_t)id;
    return json_is_integer(v) && id >= 0 && id < TR_TOKENIZER_MAX_TOKENS;
}

/* Tokens of the vocabulary and the added ones: the highest id + 1. */
static tr_status count_tokens(tr_tokenizer_json *j, json_t *vocab, const json_t *added, uint32_t n_rows) {
    const char *text;
    json_t *v;
    uint32_t id, n = 0;
    json_object_foreach(vocab, text, v) {
        if (!read_id(v, &id))
            return tr_tokenizer_json_fail(j, "the id of token %s is no number, or too large",
                                          tr_tokenizer_json_show(text).text);
        if (n_rows > 0 && id >= n_rows)
            return tr_tokenizer_json_fail(j, "token %s has id %u, the model's embedding has %u rows",
                                          tr_tokenizer_json_show(text).text, id, n_rows);
        if (id >= n) n = id + 1;
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        if (!read_id(json_object_get(json_array_get(added, i), "id"), &id))
            return tr_tokenizer_json_fail(j, "the id of added token %zu is no number, or too large", i);
        if (id >= n && (n_rows == 0 || id < n_rows)) n = id + 1;
    }
    const size_t have = json_object_size(vocab) + json_array_size(added);
    if (n == 0 || n > 2 * have + MAX_HOLES) return tr_tokenizer_json_fail(j, "%zu tokens with ids up to %u", have, n);
    j->t->n_tokens = n_rows > n ? n_rows : n;
    return TR_OK;
}

static tr_status list_vocab(tr_tokenizer_json *j, json_t *vocab, token *list) {
    const char *text;
    json_t *v;
    json_object_foreach(vocab, text, v) {
        token *at = &list[json_integer_value(v)];
        if (at->data)
            return tr_tokenizer_json_fail(j, "tokens %s and %s have the same id", tr_tokenizer_json_show(at->data).text,
                                          tr_tokenizer_json_show(text).text);
        *at = (token){text, strlen(text)};
        j->t->attrs[json_integer_value(v)] = TR_TOKENIZER_NORMAL;
    }
    return TR_OK;
}

/* What the library would do before or with this token, and is not built. NULL: nothing. */
static const char *unsupported(const tr_tokenizer_json *j, const json_t *added) {
    if (tr_tokenizer_json_flag(added, "single_word", false)) return "single_word";
    if (tr_tokenizer_json_flag(added, "lstrip", false)) return "lstrip";
    /* Such a token is looked for behind the normalizer, which may change it or what is around it. Special ones of
     * this kind are taken where they are written. */
    const char *text = json_string_value(json_object_get(added, "content"));
    const bool changed = j->t->kind == TR_TOKENIZER_SPM && (j->t->add_space_prefix || strchr(text, ' '));
    return tr_tokenizer_json_flag(added, "normalized", false) && changed &&
                   !tr_tokenizer_json_flag(added, "special", false)
               ? "normalized"
               : NULL;
}

static tr_status list_added(tr_tokenizer_json *j, const json_t *added, token *list) {
    tr_tokenizer *t = j->t;
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *a = json_array_get(added, i), *content = json_object_get(a, "content");
        const char *text = json_string_value(content);
        uint32_t id;
        if (!text || json_string_length(content) == 0 || strlen(text) != json_string_length(content))
            return tr_tokenizer_json_fail(j, "the content of added token %zu is no text, or holds a NUL", i);
        if (!read_id(json_object_get(a, "id"), &id) || id >= t->n_tokens) continue; /* it has no row */
        const char *refused = unsupported(j, a);
        if (refused)
            return tr_tokenizer_json_fail(j, "added token %s asks for %s, which is not supported",
                                          tr_tokenizer_json_show(text).text, refused);
        if (list[id].data && strcmp(list[id].data, text) != 0)
            return tr_tokenizer_json_fail(j, "added token %s has the id of token %s", tr_tokenizer_json_show(text).text,
                                          tr_tokenizer_json_show(list[id].data).text);
        list[id] = (token){text, strlen(text)};
        t->attrs[id] = TR_TOKENIZER_CONTROL;
        /* Blanks in the text of the others are written as in a token of the vocabulary. */
        if (!tr_tokenizer_json_flag(a, "special", false))
            t->attrs[id] = t->kind == TR_TOKENIZER_SPM ? TR_TOKENIZER_USER | TR_TOKENIZER_NORMAL : TR_TOKENIZER_USER;
        if (tr_tokenizer_json_flag(a, "rstrip", false)) t->attrs[id] |= TR_TOKENIZER_RSTRIP;
    }
    return TR_OK;
}

/* Copy the texts into one arena. */
static tr_status store_texts(tr_tokenizer_json *j, const token *list) {
    tr_tokenizer *t = j->t;
    uint64_t total = 0;
    for (uint32_t id = 0; id < t->n_tokens; id++) total += list[id].len;
    if (total >= UINT32_MAX) return tr_tokenizer_json_fail(j, "the texts of the tokens exceed 4 GiB");
    t->spans = malloc(t->n_tokens * sizeof *t->spans);
    t->bytes = malloc(total + 1);
    if (!t->spans || !t->bytes) return no_memory(j);
    uint32_t used = 0;
    for (uint32_t id = 0; id < t->n_tokens; id++) {
        t->spans[id] = (tr_tokenizer_span){used, (uint32_t)list[id].len};
        if (list[id].len > 0) memcpy(t->bytes + used, list[id].data, list[id].len);
        used += (uint32_t)list[id].len;
        if (list[id].len > t->max_len) t->max_len = list[id].len;
    }
    return TR_OK;
}

static tr_status index_texts(tr_tokenizer_json *j) {
    tr_tokenizer *t = j->t;
    if (tr_tokenizer_map_init(&t->map, t->bytes, t->spans, t->n_tokens) != TR_OK) return no_memory(j);
    for (uint32_t id = 0; id < t->n_tokens; id++) {
        uint32_t other = 0;
        if (t->spans[id].len == 0) continue;
        switch (tr_tokenizer_map_add(&t->map, id, &other)) {
        case TR_TOKENIZER_MAP_ADDED: break;
        case TR_TOKENIZER_MAP_DUPLICATE:
            return tr_tokenizer_json_fail(j, "tokens %u and %u have the same text", other, id);
        case TR_TOKENIZER_MAP_CROWDED: return tr_tokenizer_json_fail(j, "the tokens near %u collide by design", id);
        }
    }
    return TR_OK;
}

static tr_status read_tokens(tr_tokenizer_json *j, uint32_t n_rows) {
    json_t *vocab = json_object_get(j->model, "vocab");
    const json_t *added = tr_tokenizer_json_value(j->root, "added_tokens");
    if (!json_is_object(vocab)) return tr_tokenizer_json_fail(j, "model.vocab is missing or not an object");
    if (added && !json_is_array(added)) return tr_tokenizer_json_fail(j, "added_tokens is not a list");
    TR_TRY(count_tokens(j, vocab, added, n_rows));
    token *list = calloc(j->t->n_tokens, sizeof *list);
    j->t->attrs = malloc(j->t->n_tokens);
    if (!list || !j->t->attrs) {
        free(list);
        return no_memory(j);
    }
    memset(j->t->attrs, TR_TOKENIZER_UNUSED, j->t->n_tokens);
    tr_status status = list_vocab(j, vocab, list);
    if (status == TR_OK) status = list_added(j, added, list);
    if (status == TR_OK) status = store_texts(j, list);
    free(list);
    return status == TR_OK ? index_texts(j) : status;
}

/* ---- bytes and merges ---- */

static tr_status find_bytes(tr_tokenizer_json *j) {
    tr_tokenizer *t = j->t;
    for (unsigned b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        t->byte_ids[b] = tr_tokenizer_map_find(&t->map, text, 6);
        if (t->byte_ids[b] == TR_TOKENIZER_MAP_NONE)
            return tr_tokenizer_json_fail(j, "byte_fallback without a token %s is not supported", text);
        t->attrs[t->byte_ids[b]] = TR_TOKENIZER_BYTE;
    }
    return TR_OK;
}

/* Byte symbols that the vocabulary lacks leave nothing; the library would put the unknown token. */
static tr_status check_bytes(tr_tokenizer_json *j) {
    tr_tokenizer_bpe_alphabet(j->t);
    for (unsigned b = 0; b < 256; b++)
        if (j->t->byte_ids[b] == TR_TOKENIZER_NONE && tr_tokenizer_json_value(j->model, "unk_token"))
            return tr_tokenizer_json_fail(j,
                                          "a byte-level vocabulary with an unknown token instead of byte %u is not "
                                          "supported",
                                          b);
    return TR_OK;
}

/* "left right", or ["left", "right"]. */
static bool split_merge(const json_t *merge, token *left, token *right) {
    if (json_is_array(merge)) {
        const json_t *l = json_array_get(merge, 0), *r = json_array_get(merge, 1);
        *left = (token){json_string_value(l), json_string_length(l)};
        *right = (token){json_string_value(r), json_string_length(r)};
        return json_array_size(merge) == 2 && left->data && right->data;
    }
    const char *text = json_string_value(merge), *space = text ? strchr(text, ' ') : NULL;
    if (!space || strchr(space + 1, ' ')) return false;
    *left = (token){text, (size_t)(space - text)};
    *right = (token){space + 1, json_string_length(merge) - left->len - 1};
    return true;
}

/* joined has room for max_len bytes. */
static bool read_merge(const tr_tokenizer *t, const json_t *merge, char *joined, tr_tokenizer_rule *rule) {
    token left, right;
    if (!split_merge(merge, &left, &right) || left.len > t->max_len || right.len > t->max_len - left.len) return false;
    memcpy(joined, left.data, left.len);
    memcpy(joined + left.len, right.data, right.len);
    rule->left = tr_tokenizer_map_find(&t->map, left.data, left.len);
    rule->right = tr_tokenizer_map_find(&t->map, right.data, right.len);
    rule->result = tr_tokenizer_map_find(&t->map, joined, left.len + right.len);
    return rule->left != TR_TOKENIZER_MAP_NONE && rule->right != TR_TOKENIZER_MAP_NONE &&
           rule->result != TR_TOKENIZER_MAP_NONE;
}

/* From the last to the first: of two for one pair the library keeps the later, the table the one that came first. */
static tr_status read_merges(tr_tokenizer_json *j) {
    const json_t *list = json_object_get(j->model, "merges");
    const size_t n = json_array_size(list);
    if (!json_is_array(list)) return tr_tokenizer_json_fail(j, "model.merges is missing or not a list");
    char *joined = malloc(j->t->max_len + 1);
    if (!joined || tr_tokenizer_bpe_rules(j->t, n) != TR_OK) {
        free(joined);
        return no_memory(j);
    }
    tr_status status = TR_OK;
    for (size_t i = n; i-- > 0 && status == TR_OK;) {
        tr_tokenizer_rule rule = {.rank = (uint32_t)i};
        if (!read_merge(j->t, json_array_get(list, i), joined, &rule))
            status = tr_tokenizer_json_fail(j, "merge %zu is not a pair of tokens that make a third", i);
        else if (!tr_tokenizer_bpe_rule(j->t, rule))
            status = tr_tokenizer_json_fail(j, "the merges near %zu collide by design", i);
    }
    free(joined);
    return status;
}

/* A subword prefix or suffix, or random merges: none of the families has them. */
static tr_status check_model(tr_tokenizer_json *j) {
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *type = json_string_value(json_object_get(j->model, "type"));
    if (!json_is_object(j->model)) return tr_tokenizer_json_fail(j, "model is missing or not an object");
    if (type && strcmp(type, "BPE") != 0)
        return tr_tokenizer_json_fail(j, "model.type %s is not supported, only BPE is",
                                      tr_tokenizer_json_show(type).text);
    if (!type && !json_object_get(j->model, "merges"))
        return tr_tokenizer_json_fail(j, "model.type is missing and there are no merges: only BPE is supported");
    for (size_t i = 0; i < 2; i++) {
        const json_t *v = tr_tokenizer_json_value(j->model, affixes[i]);
        if (v && json_string_length(v) > 0) return tr_tokenizer_json_fail(j, "model.%s is not supported", affixes[i]);
    }
    if (json_number_value(json_object_get(j->model, "dropout")) != 0)
        return tr_tokenizer_json_fail(j, "model.dropout is not supported");
    j->t->ignore_merges = tr_tokenizer_json_flag(j->model, "ignore_merges", false);
    return TR_OK;
}

/* ---- roles ---- */

/* Token that the key of tokenizer_config.json names: "..." or {"content": "..."}. */
static uint32_t named(const tr_tokenizer *t, const json_t *config, const char *key) {
    const json_t *v = json_object_get(config, key);
    const char *text = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
    return text ? tr_tokenizer_find(t, text) : TR_TOKENIZER_NONE;
}

static tr_status read_roles(tr_tokenizer_json *j, const json_t *config) {
    tr_tokenizer *t = j->t;
    const char *unk = json_string_value(json_object_get(j->model, "unk_token"));
    uint32_t *const open[] = {&t->eot,        &t->eom,     &t->fim_prefix, &t->fim_suffix,
                              &t->fim_middle, &t->fim_pad, &t->fim_repo,   &t->fim_sep};
    for (size_t i = 0; i < sizeof open / sizeof *open; i++) *open[i] = TR_TOKENIZER_NONE;
    t->unk = unk ? tr_tokenizer_find(t, unk) : TR_TOKENIZER_NONE;
    t->bos = named(t, config, "bos_token");
    t->eos = named(t, config, "eos_token");
    if (j->template_bos >= t->n_tokens)
        return tr_tokenizer_json_fail(j, "post_processor puts a token that does not exist");
    if (j->template_bos >= 0) t->bos = (uint32_t)j->template_bos;
    t->add_bos = tr_tokenizer_json_flag(config, "add_bos_token", j->template_bos >= 0);
    if (tr_tokenizer_json_flag(config, "add_eos_token", false))
        return tr_tokenizer_json_fail(j, "add_eos_token of the configuration beside it is not supported");
    if (t->add_bos && t->bos == TR_TOKENIZER_NONE)
        return tr_tokenizer_json_fail(j, "add_bos_token is true, but bos_token names no token");
    tr_tokenizer_names_apply(t);
    return TR_OK;
}

static tr_status read_all(tr_tokenizer_json *j, const json_t *config, uint32_t n_rows) {
    TR_TRY(check_model(j));
    TR_TRY(tr_tokenizer_json_steps(j));
    TR_TRY(read_tokens(j, n_rows));
    TR_TRY(j->t->kind == TR_TOKENIZER_SPM ? find_bytes(j) : check_bytes(j));
    TR_TRY(read_merges(j));
    TR_TRY(read_roles(j, config));
    return tr_tokenizer_special_build(j->t) == TR_OK ? TR_OK : no_memory(j);
}

/* *root_out is NULL where there is no text. */
static tr_status parse(const tr_tokenizer_json_text *text, size_t flags, json_t **root_out, tr_error *err) {
    static const tr_json_form limits = {.depth = MAX_DEPTH, .containers = MAX_CONTAINERS, .values = MAX_VALUES};
    size_t offset = 0;
    json_error_t why;
    *root_out = NULL;
    if (!text->data) return TR_OK;
    if (!tr_json_form_within(text->data, text->len, &limits, &offset))
        return tr_error_set(err, TR_DATA, "%.200s: offset %zu: the JSON is too deep or has too many values", text->name,
                            offset);
    *root_out = json_loadb(text->data, text->len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | flags, &why);
    if (json_is_object(*root_out)) return TR_OK;
    offset = *root_out || why.position < 0 ? 0 : (size_t)why.position;
    json_decref(*root_out);
    *root_out = NULL;
    return tr_error_set(err, TR_DATA, "%.200s: offset %zu: not a JSON object, or a syntax error", text->name, offset);
}

tr_status tr_tokenizer_json_read(const tr_tokenizer_json_text *text, const tr_tokenizer_json_text *config,
                                 uint32_t n_rows, tr_tokenizer **tokenizer_out, tr_error *err) {
    json_t *root = NULL, *beside = NULL;
    tr_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return tr_error_set(err, TR_SYSTEM, "no memory for the tokenizer");
    t->declared = true;
    tr_status status = parse(text, 0, &root, err);
    /* Its model_max_length may be beyond any integer; no number of it is read. */
    if (status == TR_OK) status = parse(config, JSON_DECODE_INT_AS_REAL, &beside, err);
    tr_tokenizer_json j = {.name = text->name, .root = root, .t = t, .template_bos = -1, .err = err};
    j.model = json_object_get(root, "model");
    if (status == TR_OK) status = read_all(&j, beside, n_rows);
    json_decref(root);
    json_decref(beside);
    if (status == TR_OK)
        *tokenizer_out = t;
    else
        tr_tokenizer_destroy(&t);
    return status;
}
