#include "model/chat_source.h"

#include "base/file_map.h"
#include "model/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static tr_status from_folder(const char *path, tr_chat_template **out, tr_error *err) {
    const char *slash = strrchr(path, '/');
    const int folder = slash ? (int)(slash - path) + 1 : 0;
    char *config_path = NULL, *template_path = NULL;
    tr_file_map map = {NULL, 0};
    tr_status status = TR_OK;
    if (asprintf(&config_path, "%.*stokenizer_config.json", folder, path) < 0 ||
        asprintf(&template_path, "%.*schat_template.jinja", folder, path) < 0)
        return tr_error_set(err, TR_SYSTEM, "%s: out of memory", path);
    json_t *config = access(config_path, F_OK) == 0 ? json_load_file(config_path, 0, NULL) : NULL;
    const json_t *inside = json_object_get(config, "chat_template");
    const char *text = json_is_string(inside) ? json_string_value(inside) : NULL;
    size_t bytes = text ? json_string_length(inside) : 0;
    if (access(template_path, F_OK) == 0) {
        status = tr_file_map_open(template_path, &map, err);
        text = (const char *)map.data, bytes = map.size;
    }
    if (status == TR_OK && text)
        status = tr_chat_template_open(text, bytes, token_text(config, "bos_token"), token_text(config, "eos_token"),
                                       out, err);
    tr_file_map_close(&map);
    json_decref(config);
    free(config_path);
    free(template_path);
    return status;
}

tr_status tr_chat_source_open(const char *path, tr_chat_template **out, tr_error *err) {
    const size_t n = strlen(path);
    *out = NULL;
    if (n >= 12 && strcmp(path + n - 12, ".safetensors") == 0) return from_folder(path, out, err);
    return from_gguf(path, out, err);
}
