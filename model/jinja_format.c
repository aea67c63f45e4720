/* model/jinja_format.c - values as text: str, repr and json.dumps of Python 3. */
#include "model/jinja_value.h"

#include "model/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 128 };

static void put(tr_jinja_arena *a, tr_jinja_text *t, const char *s) { tr_jinja_value_append(a, t, s, strlen(s)); }

/* The shortest digits that read back as the same number, in Python's form. */
static void put_float(tr_jinja_arena *a, tr_jinja_text *t, double f, bool json) {
    char digits[40], out[64];
    if (isnan(f) || isinf(f)) {
        put(a, t,
            isnan(f) ? (json ? "NaN" : "nan")
            : f > 0  ? (json ? "Infinity" : "inf")
                     : (json ? "-Infinity" : "-inf"));
        return;
    }
    int precision = 0;
    do snprintf(digits, sizeof digits, "%.*e", precision, f);
    while (strtod(digits, NULL) != f && precision++ < 17);
    char *e = strchr(digits, 'e');
    int exponent = atoi(e + 1);
    if (exponent < -4 || exponent >= 16) {
        *e = 0;
        snprintf(out, sizeof out, "%se%c%02d", digits, exponent < 0 ? '-' : '+', abs(exponent));
    } else {
        int decimals = precision - exponent;
        snprintf(out, sizeof out, "%.*f", decimals > 1 ? decimals : 1, f);
    }
    put(a, t, out);
}

static bool printable(uint32_t c) {
    return c >= 0x20 && c != 0x7f && !(c >= 0x80 && c <= 0xa0) && c != 0xad &&
           !(c > 0x7f && tr_unicode_class_of(c) == TR_UNICODE_SPACE) && !(c >= 0x200b && c <= 0x200f) &&
           !(c >= 0xd800 && c <= 0xf8ff);
}

static void repr_string(tr_jinja_arena *a, tr_jinja_text *t, tr_jinja_value v) {
    bool single = memchr(v.as.s, '\'', v.len) != NULL, twice = memchr(v.as.s, '"', v.len) != NULL;
    char quote = single && !twice ? '"' : '\'', text[16];
    tr_jinja_value_append(a, t, &quote, 1);
    for (size_t i = 0, size; i < v.len; i += size) {
        uint32_t c = tr_unicode_decode(v.as.s + i, v.len - i, &size);
        if (c == (uint32_t)quote || c == '\\')
            snprintf(text, sizeof text, "\\%c", (int)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (!printable(c))
            snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
        else {
            tr_jinja_value_append(a, t, v.as.s + i, size);
            continue;
        }
        put(a, t, text);
    }
    tr_jinja_value_append(a, t, &quote, 1);
}

static void repr_items(tr_jinja_arena *a, tr_jinja_text *t, tr_jinja_value v, uint32_t depth) {
    put(a, t, v.kind == TR_JINJA_LIST ? "[" : "(");
    for (uint32_t i = 0; i < v.len; i++) {
        if (i) put(a, t, ", ");
        tr_jinja_value_repr(a, t, v.as.items[i], depth + 1);
    }
    put(a, t, v.kind == TR_JINJA_LIST ? "]" : v.len == 1 ? ",)" : ")");
}

static void repr_dict(tr_jinja_arena *a, tr_jinja_text *t, tr_jinja_value v, uint32_t depth) {
    put(a, t, "{");
    for (uint32_t i = 0; i < v.as.dict->n; i++) {
        if (i) put(a, t, ", ");
        tr_jinja_value_repr(a, t, v.as.dict->pair[i].key, depth + 1);
        put(a, t, ": ");
        tr_jinja_value_repr(a, t, v.as.dict->pair[i].value, depth + 1);
    }
    put(a, t, "}");
}

void tr_jinja_value_repr(tr_jinja_arena *a, tr_jinja_text *t, tr_jinja_value v, uint32_t depth) {
    char number[32];
    if (depth > DEPTH_MAX) tr_jinja_value_fail(a, "values are nested too deeply");
    tr_jinja_value_spend(a, 1);
    switch (v.kind) {
    case TR_JINJA_UNDEFINED: put(a, t, depth ? "Undefined" : ""); break;
    case TR_JINJA_NONE: put(a, t, "None"); break;
    case TR_JINJA_BOOL: put(a, t, v.as.i ? "True" : "False"); break;
    case TR_JINJA_INT:
        snprintf(number, sizeof number, "%lld", (long long)v.as.i);
        put(a, t, number);
        break;
    case TR_JINJA_FLOAT: put_float(a, t, v.as.f, false); break;
    case TR_JINJA_STRING: repr_string(a, t, v); break;
    case TR_JINJA_LIST:
    case TR_JINJA_TUPLE: repr_items(a, t, v, depth); break;
    case TR_JINJA_DICT: repr_dict(a, t, v, depth); break;
    default: tr_jinja_value_fail(a, "%s has no text", tr_jinja_value_kind_name(v));
    }
}

tr_jinja_value tr_jinja_value_str(tr_jinja_arena *a, tr_jinja_value v) {
    if (v.kind == TR_JINJA_STRING) return v;
    tr_jinja_text t = {.most = UINT32_MAX};
    tr_jinja_value_repr(a, &t, v, 0);
    return tr_jinja_value_take(&t);
}

static void json_text(tr_jinja_arena *a, tr_jinja_text *t, tr_jinja_value v, bool ascii) {
    static const char named[] = "\b\f\n\r\t\"\\", letters[] = "bfnrt\"\\";
    char text[16];
    put(a, t, "\"");
    for (size_t i = 0, size; i < v.len; i += size) {
        uint32_t c = tr_unicode_decode(v.as.s + i, v.len - i, &size);
        const char *at = c && c < 128 ? strchr(named, (int)c) : NULL;
        if (at)
            snprintf(text, sizeof text, "\\%c", letters[at - named]);
        else if (c >= 0x10000 && ascii)
            snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
        else if (c < 0x20 || (c > 0x7e && ascii))
            snprintf(text, sizeof text, "\\u%04x", c);
        else {
            tr_jinja_value_append(a, t, v.as.s + i, size);
            continue;
        }
        put(a, t, text);
    }
    put(a, t, "\"");
}

static void json_line(tr_jinja_arena *a, tr_jinja_text *t, const tr_jinja_json *form, uint32_t depth) {
    if (form->indent < 0) return;
    put(a, t, "\n");
    for (uint64_t i = 0; i < (uint64_t)form->indent * depth; i++) put(a, t, " ");
}

static void json_separator(tr_jinja_arena *a, tr_jinja_text *t, const tr_jinja_json *form, bool first, uint32_t depth) {
    if (!first) tr_jinja_value_append(a, t, form->item_separator.as.s, form->item_separator.len);
    json_line(a, t, form, depth + 1);
}

static int by_key(const void *x, const void *y) {
    const tr_jinja_value *p = &((const tr_jinja_pair *)x)->key, *q = &((const tr_jinja_pair *)y)->key;
    int c = memcmp(p->as.s, q->as.s, p->len < q->len ? p->len : q->len);
    return c ? c : p->len < q->len ? -1 : p->len > q->len;
}

static void json_dict(tr_jinja_arena *a, tr_jinja_text *t, const tr_jinja_dict *d, const tr_jinja_json *form,
                      uint32_t depth) {
    tr_jinja_pair *pair = tr_jinja_value_alloc(a, (d->n ? d->n : 1) * sizeof *pair);
    for (uint32_t i = 0; i < d->n; i++)
        pair[i] = (tr_jinja_pair){tr_jinja_value_str(a, d->pair[i].key), d->pair[i].value};
    if (form->sorted) qsort(pair, d->n, sizeof *pair, by_key);
    put(a, t, "{");
    for (uint32_t i = 0; i < d->n; i++) {
        json_separator(a, t, form, i == 0, depth);
        json_text(a, t, pair[i].key, form->ascii);
        tr_jinja_value_append(a, t, form->key_separator.as.s, form->key_separator.len);
        tr_jinja_value_json(a, t, pair[i].value, form, depth + 1);
    }
    if (d->n) json_line(a, t, form, depth);
    put(a, t, "}");
}

void tr_jinja_value_json(tr_jinja_arena *a, tr_jinja_text *t, tr_jinja_value v, const tr_jinja_json *form,
                         uint32_t depth) {
    if (depth > DEPTH_MAX) tr_jinja_value_fail(a, "values are nested too deeply");
    tr_jinja_value_spend(a, 1);
    switch (v.kind) {
    case TR_JINJA_NONE: put(a, t, "null"); break;
    case TR_JINJA_BOOL: put(a, t, v.as.i ? "true" : "false"); break;
    case TR_JINJA_INT: tr_jinja_value_repr(a, t, v, 1); break;
    case TR_JINJA_FLOAT: put_float(a, t, v.as.f, true); break;
    case TR_JINJA_STRING: json_text(a, t, v, form->ascii); break;
    case TR_JINJA_LIST:
    case TR_JINJA_TUPLE:
        put(a, t, "[");
        for (uint32_t i = 0; i < v.len; i++) {
            json_separator(a, t, form, i == 0, depth);
            tr_jinja_value_json(a, t, v.as.items[i], form, depth + 1);
        }
        if (v.len) json_line(a, t, form, depth);
        put(a, t, "]");
        break;
    case TR_JINJA_DICT: json_dict(a, t, v.as.dict, form, depth); break;
    default: tr_jinja_value_fail(a, "%s cannot be written as JSON", tr_jinja_value_kind_name(v));
    }
}
