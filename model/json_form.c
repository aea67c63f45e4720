#include "model/json_form.h"

bool tr_json_form_within(const char *text, size_t len, const tr_json_form *limits, size_t *offset_out) {
    tr_json_form seen = {0, 0, 0};
    bool quoted = false;
    for (size_t i = 0; i < len; i++) {
        if (quoted) {
            quoted = text[i] != '"';
            if (text[i] == '\\') i++; /* the escaped byte never ends the string */
            continue;
        }
        switch (text[i]) {
        case '"': quoted = true; break;
        case '[':
        case '{': seen.depth++, seen.containers++; break;
        case ']':
        case '}': seen.depth -= seen.depth > 0; break;
        case ',':
        case ':': seen.values++; break;
        default: continue;
        }
        if (seen.depth > limits->depth || seen.containers > limits->containers || seen.values > limits->values) {
            *offset_out = i;
            return false;
        }
    }
    return true;
}
