#include "model/jinja_value.h"

#include "model/unicode.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 64 << 10, DEPTH_MAX = 128, LIST_MAX = 1 << 24 };

struct tr_jinja_chunk {
    struct tr_jinja_chunk *next;
    size_t pad;
};

void *tr_jinja_value_alloc(tr_jinja_arena *a, size_t bytes) {
    if (bytes > a->budget) tr_jinja_value_fail(a, "it needs more memory than a chat may use");
    bytes = (bytes + 15) & ~(size_t)15;
    if (bytes > a->left) {
        size_t want = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
        struct tr_jinja_chunk *c = want <= a->budget ? calloc(1, sizeof *c + want) : NULL;
        if (!c) tr_jinja_value_fail(a, "it needs more memory than a chat may use");
        a->budget -= want;
        if (bytes > CHUNK_BYTES && a->chunk) { /* the rest of the current one stays in use */
            c->next = a->chunk->next;
            a->chunk->next = c;
            return c + 1;
        }
        c->next = a->chunk;
        a->chunk = c;
        a->left = want;
        c->pad = want;
    }
    void *p = (char *)(a->chunk + 1) + (a->chunk->pad - a->left);
    a->left -= bytes;
    return p;
}

void tr_jinja_value_free_all(tr_jinja_arena *a) {
    for (struct tr_jinja_chunk *c = a->chunk, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    a->chunk = NULL;
    a->left = 0;
}

void tr_jinja_value_fail(tr_jinja_arena *a, const char *fmt, ...) {
    char text[TR_ERROR_TEXT_BYTES - 64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ') *c = ' ';
    tr_error_set(a->err, TR_DATA, "chat template, line %u: %s", a->line, text);
    longjmp(a->fail, 1);
}

void tr_jinja_value_spend(tr_jinja_arena *a, uint64_t steps) {
    if (steps > a->steps) tr_jinja_value_fail(a, "it takes more steps than a chat may take");
    a->steps -= steps;
}

bool tr_jinja_value_is(tr_jinja_value v, const char *text) {
    return v.kind == TR_JINJA_STRING && v.len == strlen(text) && memcmp(v.as.s, text, v.len) == 0;
}

bool tr_jinja_value_truth(tr_jinja_value v) {
    switch (v.kind) {
    case TR_JINJA_UNDEFINED:
    case TR_JINJA_NONE: return false;
    case TR_JINJA_BOOL:
    case TR_JINJA_INT: return v.as.i != 0;
    case TR_JINJA_FLOAT: return v.as.f != 0;
    case TR_JINJA_STRING:
    case TR_JINJA_LIST:
    case TR_JINJA_TUPLE: return v.len > 0;
    case TR_JINJA_DICT: return v.as.dict->n > 0;
    default: return true;
    }
}

static int compare_bytes(tr_jinja_value x, tr_jinja_value y) {
    int c = memcmp(x.as.s, y.as.s, x.len < y.len ? x.len : y.len);
    return c ? c : x.len < y.len ? -1 : x.len > y.len;
}

static bool equal(tr_jinja_arena *a, tr_jinja_value x, tr_jinja_value y, uint32_t depth) {
    tr_jinja_value_spend(a, 1);
    if (depth > DEPTH_MAX) tr_jinja_value_fail(a, "values are nested too deeply");
    if (tr_jinja_value_is_number(x) && tr_jinja_value_is_number(y)) {
        if (x.kind != TR_JINJA_FLOAT && y.kind != TR_JINJA_FLOAT) return x.as.i == y.as.i;
        return tr_jinja_value_double(x) == tr_jinja_value_double(y);
    }
    if (x.kind != y.kind) return false;
    switch (x.kind) {
    case TR_JINJA_UNDEFINED:
    case TR_JINJA_NONE: return true;
    case TR_JINJA_STRING: return x.len == y.len && memcmp(x.as.s, y.as.s, x.len) == 0;
    case TR_JINJA_LIST:
    case TR_JINJA_TUPLE:
        if (x.len != y.len) return false;
        for (uint32_t i = 0; i < x.len; i++)
            if (!equal(a, x.as.items[i], y.as.items[i], depth + 1)) return false;
        return true;
    case TR_JINJA_DICT:
        if (x.as.dict->n != y.as.dict->n) return false;
        for (uint32_t i = 0; i < x.as.dict->n; i++) {
            const tr_jinja_value *other = tr_jinja_value_get(a, y.as.dict, x.as.dict->pair[i].key);
            if (!other || !equal(a, x.as.dict->pair[i].value, *other, depth + 1)) return false;
        }
        return true;
    default: return x.as.other == y.as.other;
    }
}

bool tr_jinja_value_equal(tr_jinja_arena *a, tr_jinja_value x, tr_jinja_value y) { return equal(a, x, y, 0); }

int tr_jinja_value_compare(tr_jinja_arena *a, tr_jinja_value x, tr_jinja_value y) {
    tr_jinja_value_spend(a, 1);
    if (tr_jinja_value_is_number(x) && tr_jinja_value_is_number(y)) {
        if (x.kind != TR_JINJA_FLOAT && y.kind != TR_JINJA_FLOAT) return x.as.i < y.as.i ? -1 : x.as.i > y.as.i;
        double p = tr_jinja_value_double(x), q = tr_jinja_value_double(y);
        return p < q ? -1 : p > q;
    }
    if (x.kind == TR_JINJA_STRING && y.kind == TR_JINJA_STRING) return compare_bytes(x, y);
    if (x.kind == y.kind && tr_jinja_value_is_list(x)) {
        for (uint32_t i = 0; i < x.len && i < y.len; i++)
            if (!tr_jinja_value_equal(a, x.as.items[i], y.as.items[i]))
                return tr_jinja_value_compare(a, x.as.items[i], y.as.items[i]);
        return x.len < y.len ? -1 : x.len > y.len;
    }
    tr_jinja_value_fail(a, "%s and %s have no order", tr_jinja_value_kind_name(x), tr_jinja_value_kind_name(y));
}

bool tr_jinja_value_contains(tr_jinja_arena *a, tr_jinja_value in, tr_jinja_value x) {
    if (in.kind == TR_JINJA_STRING) {
        if (x.kind != TR_JINJA_STRING) tr_jinja_value_fail(a, "'in' asks a text for %s", tr_jinja_value_kind_name(x));
        tr_jinja_value_spend(a, 1 + in.len / 64);
        return x.len == 0 || memmem(in.as.s, in.len, x.as.s, x.len) != NULL;
    }
    if (in.kind == TR_JINJA_DICT || in.kind == TR_JINJA_NAMESPACE) return tr_jinja_value_get(a, in.as.dict, x) != NULL;
    if (in.kind == TR_JINJA_UNDEFINED) return false;
    if (!tr_jinja_value_is_list(in)) tr_jinja_value_fail(a, "'in' asks %s", tr_jinja_value_kind_name(in));
    for (uint32_t i = 0; i < in.len; i++)
        if (tr_jinja_value_equal(a, in.as.items[i], x)) return true;
    return false;
}

const char *tr_jinja_value_kind_name(tr_jinja_value v) {
    static const char *const names[] = {
        "an undefined value", "none",   "a bool",  "a number",   "a number", "a text", "a list", "a tuple", "a dict",
        "a namespace",        "a loop", "a macro", "a function", "a method"};
    return names[v.kind];
}

tr_jinja_value tr_jinja_value_list(tr_jinja_arena *a, tr_jinja_kind kind, uint32_t n, tr_jinja_value **items_out) {
    if (n > LIST_MAX) tr_jinja_value_fail(a, "a list of %u items is too long", n);
    tr_jinja_value_spend(a, n / 16);
    *items_out = tr_jinja_value_alloc(a, (n ? n : 1) * sizeof **items_out);
    return (tr_jinja_value){.kind = kind, .len = n, .as.items = *items_out};
}

tr_jinja_value tr_jinja_value_iterate(tr_jinja_arena *a, tr_jinja_value v) {
    tr_jinja_value *items, list;
    if (tr_jinja_value_is_list(v)) return v;
    if (v.kind == TR_JINJA_UNDEFINED) return tr_jinja_value_list(a, TR_JINJA_LIST, 0, &items);
    if (v.kind == TR_JINJA_DICT) {
        list = tr_jinja_value_list(a, TR_JINJA_LIST, v.as.dict->n, &items);
        for (uint32_t i = 0; i < list.len; i++) items[i] = v.as.dict->pair[i].key;
        return list;
    }
    if (v.kind != TR_JINJA_STRING) tr_jinja_value_fail(a, "%s cannot be looped over", tr_jinja_value_kind_name(v));
    list = tr_jinja_value_list(a, TR_JINJA_LIST, tr_jinja_value_points(v), &items);
    for (uint32_t i = 0, at = 0; i < list.len; i++) {
        uint32_t size = tr_jinja_value_offset(tr_jinja_value_string(v.as.s + at, v.len - at), 1);
        items[i] = tr_jinja_value_string(v.as.s + at, size);
        at += size;
    }
    return list;
}

tr_jinja_value tr_jinja_value_dict(tr_jinja_arena *a, uint32_t room) {
    tr_jinja_dict *d = tr_jinja_value_alloc(a, sizeof *d);
    if (room > LIST_MAX) tr_jinja_value_fail(a, "a dict of %u members is too long", room);
    d->room = room ? room : 4;
    d->pair = tr_jinja_value_alloc(a, d->room * sizeof *d->pair);
    return (tr_jinja_value){.kind = TR_JINJA_DICT, .as.dict = d};
}

const tr_jinja_value *tr_jinja_value_get(tr_jinja_arena *a, const tr_jinja_dict *d, tr_jinja_value key) {
    tr_jinja_value_spend(a, 1 + d->n / 16);
    for (uint32_t i = 0; i < d->n; i++) {
        const tr_jinja_value *k = &d->pair[i].key;
        if (k->kind == TR_JINJA_STRING && key.kind == TR_JINJA_STRING) {
            if (k->len == key.len && memcmp(k->as.s, key.as.s, key.len) == 0) return &d->pair[i].value;
        } else if (equal(a, *k, key, 0))
            return &d->pair[i].value;
    }
    return NULL;
}

void tr_jinja_value_set(tr_jinja_arena *a, tr_jinja_dict *d, tr_jinja_value key, tr_jinja_value value) {
    tr_jinja_value *old = (tr_jinja_value *)(uintptr_t)tr_jinja_value_get(a, d, key);
    if (old) {
        *old = value;
        return;
    }
    if (d->n == d->room) {
        if (d->room > LIST_MAX) tr_jinja_value_fail(a, "a dict has too many members");
        tr_jinja_pair *more = tr_jinja_value_alloc(a, 2 * (size_t)d->room * sizeof *more);
        memcpy(more, d->pair, d->n * sizeof *more);
        d->pair = more;
        d->room *= 2;
    }
    d->pair[d->n++] = (tr_jinja_pair){key, value};
}

tr_jinja_value tr_jinja_value_from_json(tr_jinja_arena *a, const json_t *json, uint32_t depth) {
    if (depth > DEPTH_MAX) tr_jinja_value_fail(a, "values are nested too deeply");
    switch (json_typeof(json)) {
    case JSON_TRUE:
    case JSON_FALSE: return tr_jinja_value_bool(json_is_true(json));
    case JSON_INTEGER: return tr_jinja_value_int(json_integer_value(json));
    case JSON_REAL: return tr_jinja_value_float(json_real_value(json));
    case JSON_STRING: {
        size_t len = json_string_length(json);
        if (len > UINT32_MAX) tr_jinja_value_fail(a, "a text is too long");
        return tr_jinja_value_string(json_string_value(json), len);
    }
    case JSON_ARRAY: {
        tr_jinja_value *items;
        size_t n = json_array_size(json);
        tr_jinja_value list = tr_jinja_value_list(a, TR_JINJA_LIST, n < UINT32_MAX ? (uint32_t)n : UINT32_MAX, &items);
        for (size_t i = 0; i < n; i++) items[i] = tr_jinja_value_from_json(a, json_array_get(json, i), depth + 1);
        return list;
    }
    case JSON_OBJECT: {
        size_t n = json_object_size(json);
        tr_jinja_value d = tr_jinja_value_dict(a, n < UINT32_MAX ? (uint32_t)n : UINT32_MAX);
        for (void *it = json_object_iter((json_t *)(uintptr_t)json); it;
             it = json_object_iter_next((json_t *)(uintptr_t)json, it)) {
            const char *key = json_object_iter_key(it);
            d.as.dict->pair[d.as.dict->n++] =
                (tr_jinja_pair){tr_jinja_value_string(key, strlen(key)),
                                tr_jinja_value_from_json(a, json_object_iter_value(it), depth + 1)};
        }
        return d;
    }
    default: return tr_jinja_value_none();
    }
}

void tr_jinja_value_append(tr_jinja_arena *a, tr_jinja_text *t, const char *s, size_t len) {
    if (len > t->most - t->len) tr_jinja_value_fail(a, "the text that it makes is too long");
    tr_jinja_value_spend(a, len / 256);
    if (len > t->room - t->len) {
        size_t room = 2 * t->room + len + 64;
        char *more = tr_jinja_value_alloc(a, room);
        if (t->len) memcpy(more, t->data, t->len);
        t->data = more;
        t->room = room;
    }
    if (len) memcpy(t->data + t->len, s, len);
    t->len += len;
}

tr_jinja_value tr_jinja_value_take(const tr_jinja_text *t) {
    return tr_jinja_value_string(t->data ? t->data : "", t->len);
}

uint32_t tr_jinja_value_points(tr_jinja_value s) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s.len; i++) n += ((uint8_t)s.as.s[i] & 0xc0) != 0x80;
    return n;
}

uint32_t tr_jinja_value_offset(tr_jinja_value s, uint32_t n) {
    uint32_t at = 0;
    while (n-- > 0 && at < s.len) at += (uint32_t)tr_unicode_lead_size((uint8_t)s.as.s[at]);
    return at < s.len ? at : s.len;
}
