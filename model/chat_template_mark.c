#include "model/chat_template_mark.h"

#include <stdlib.h>
#include <string.h>

/* The depth of a value is bounded by the parser that made it (JSON_PARSER_MAX_DEPTH). */
static json_t *marked(const tr_tokenizer *t, json_t *value);

static json_t *marked_text(const tr_tokenizer *t, json_t *value) {
    char *text = NULL;
    size_t len = 0;
    if (tr_tokenizer_mark(t, json_string_value(value), json_string_length(value), &text, &len) != TR_OK) return NULL;
    if (text == NULL) return json_incref(value);
    json_t *out = json_stringn(text, len);
    free(text);
    return out;
}

static json_t *marked_list(const tr_tokenizer *t, json_t *value) {
    json_t *out = json_array();
    for (size_t i = 0; out != NULL && i < json_array_size(value); i++)
        if (json_array_append_new(out, marked(t, json_array_get(value, i))) != 0) {
            json_decref(out);
            return NULL;
        }
    return out;
}

/* Names too: templates write those of tools. */
static json_t *marked_object(const tr_tokenizer *t, json_t *value) {
    json_t *out = json_object(), *item;
    const char *key;
    json_object_foreach(value, key, item) {
        char *name = NULL;
        size_t len = 0;
        int bad = out == NULL || tr_tokenizer_mark(t, key, strlen(key), &name, &len) != TR_OK;
        if (!bad && name != NULL) {
            char *text = realloc(name, len + 1);
            if (text != NULL) (name = text)[len] = 0;
            bad = text == NULL;
        }
        if (!bad) bad = json_object_set_new(out, name ? name : key, marked(t, item)) != 0;
        free(name);
        if (!bad) continue;
        json_decref(out);
        return NULL;
    }
    return out;
}

static json_t *marked(const tr_tokenizer *t, json_t *value) {
    switch (json_typeof(value)) {
    case JSON_STRING: return marked_text(t, value);
    case JSON_ARRAY: return marked_list(t, value);
    case JSON_OBJECT: return marked_object(t, value);
    default: return json_incref(value);
    }
}

tr_status tr_chat_template_mark(const tr_tokenizer *t, const json_t *value, json_t **out) {
    *out = NULL;
    if (value == NULL) return TR_OK;
    *out = marked(t, (json_t *)(uintptr_t)value); /* jansson counts references in what it calls constant */
    return *out ? TR_OK : TR_SYSTEM;
}
