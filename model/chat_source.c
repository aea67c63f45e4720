#include "model/chat_source.h"

#include "model/gguf.h"
#include "model/json_form.h"
#include "model/model_folder.h"

#include <string.h>

enum { SPECIAL_BYTES = 256 };

/* Text of the token whose id the key names; "" where there is none. */
static tr_status special(const tr_gguf *g, const char *key, char out[SPECIAL_BYTES], tr_error *err) {
    uint32_t id = 0;
    bool found = false;
    tr_gguf_arr list;
    tr_gguf_text text;
    out[0] = 0;
    TR_TRY(tr_gguf_u32(g, key, &id, &found, err));
    if (!found) return TR_OK;
    TR_TRY(tr_gguf_arr_begin(g, "tokenizer.ggml.tokens", TR_GGUF_STR, &list, &found, err));
    for (uint32_t i = 0; found && tr_gguf_arr_str(&list, &text); i++)
        if (i == id && text.len < SPECIAL_BYTES) {
            memcpy(out, text.data, text.len);
            out[text.len] = 0;
        }
    return TR_OK;
}

static tr_status from_gguf(const char *path, tr_chat_template **out, tr_error *err) {
    tr_gguf *g = NULL;
    tr_gguf_text text = {0};
    char bos[SPECIAL_BYTES] = "", eos[SPECIAL_BYTES] = "";
    bool found = false;
    TR_TRY(tr_gguf_open(path, &g, err));
    tr_status status = tr_gguf_str(g, "tokenizer.chat_template", &text, &found, err);
    if (status == TR_OK && found) {
        status = special(g, "tokenizer.ggml.bos_token_id", bos, err);
        if (status == TR_OK) status = special(g, "tokenizer.ggml.eos_token_id", eos, err);
        if (status == TR_OK) status = tr_chat_template_open(text.data, text.len, bos, eos, out, err);
    }
    tr_gguf_close(&g);
    return status;
}

/* "..." or {"content": "..."} */
static const char *token_text(const json_t *config, const char *key) {
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v)) v = json_object_get(v, "content");
    return json_is_string(v) ? json_string_value(v) : "";
}

/* The template in tokenizer_config.json: a string, or a list of named ones of which "default" is for chats. */
static const json_t *inside(const json_t *config) {
    const json_t *v = json_object_get(config, "chat_template");
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++) {
        const json_t *one = json_array_get(v, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name && strcmp(name, "default") == 0) return json_object_get(one, "template");
    }
    return v;
}

static tr_status load_config(const char *weights, json_t **out, tr_error *err) {
    static const tr_json_form limits = {.depth = 32, .containers = 1 << 18, .values = 1 << 20};
    static const char name[] = "tokenizer_config.json";
    tr_file_map map;
    size_t offset;
    TR_TRY(tr_model_folder_map(weights, name, TR_MODEL_FOLDER_SIDE_MAX, false, &map, err));
    if (!map.data) return TR_OK;
    if (tr_json_form_within((const char *)map.data, map.size, &limits, &offset))
        *out = json_loadb((const char *)map.data, map.size, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
    tr_file_map_close(&map);
    return *out ? TR_OK : tr_error_set(err, TR_DATA, "%s beside %s is no JSON, or too large", name, weights);
}

static tr_status from_folder(const char *weights, tr_chat_template **out, tr_error *err) {
    json_t *config = NULL;
    tr_file_map map;
    TR_TRY(tr_model_folder_map(weights, "chat_template.jinja", TR_MODEL_FOLDER_SIDE_MAX, false, &map, err));
    tr_status status = load_config(weights, &config, err);
    const json_t *text = inside(config);
    const char *data = map.data ? (const char *)map.data : json_string_value(text);
    const size_t bytes = map.data ? map.size : json_string_length(text);
    if (status == TR_OK && data)
        status = tr_chat_template_open(data, bytes, token_text(config, "bos_token"), token_text(config, "eos_token"),
                                       out, err);
    tr_file_map_close(&map);
    json_decref(config);
    return status;
}

tr_status tr_chat_source_open(const char *path, tr_chat_template **out, tr_error *err) {
    *out = NULL;
    return tr_model_folder_is(path) ? from_folder(path, out, err) : from_gguf(path, out, err);
}
