/* model/jinja_value.h - values of a template and the arena that they live in; private to model/jinja_*.c.
 * Values are immutable but for namespaces. An arena is freed whole; running out of it, or any other failure, jumps to
 * the fail point of the one call that owns it (tr_jinja_compile, tr_jinja_render): nothing in between owns memory. */
#ifndef TR_JINJA_VALUE_H
#define TR_JINJA_VALUE_H
#include "base/status.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tr_jinja_arena {
    struct tr_jinja_chunk *chunk;
    size_t left, budget; /* bytes of the current chunk; that may still be taken from the system */
    uint64_t steps;      /* that are left */
    jmp_buf fail;
    tr_error *err;
    uint32_t line; /* of the template, for errors */
} tr_jinja_arena;

void *tr_jinja_value_alloc(tr_jinja_arena *a, size_t bytes); /* zeroed, aligned to 16 */
void tr_jinja_value_free_all(tr_jinja_arena *a);
_Noreturn void tr_jinja_value_fail(tr_jinja_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tr_jinja_value_spend(tr_jinja_arena *a, uint64_t steps);

typedef enum tr_jinja_kind {
    TR_JINJA_UNDEFINED, /* s: what was looked for */
    TR_JINJA_NONE,
    TR_JINJA_BOOL,
    TR_JINJA_INT,
    TR_JINJA_FLOAT,
    TR_JINJA_STRING, /* valid UTF-8 */
    TR_JINJA_LIST,
    TR_JINJA_TUPLE,
    TR_JINJA_DICT,
    TR_JINJA_NAMESPACE,
    TR_JINJA_LOOP,
    TR_JINJA_MACRO,
    TR_JINJA_FUNCTION, /* i: index into the table of functions */
    TR_JINJA_METHOD    /* of a value */
} tr_jinja_kind;

typedef struct tr_jinja_value {
    uint8_t kind; /* tr_jinja_kind */
    uint8_t safe; /* string: marked so by a filter; what is joined to it gets escaped */
    uint32_t len; /* bytes of a string, items of a list or tuple */
    union {
        int64_t i; /* bool: 0 or 1 */
        double f;
        const char *s;
        const struct tr_jinja_value *items;
        struct tr_jinja_dict *dict; /* dict and namespace */
        const void *other;          /* loop, macro, method: of jinja_eval.c */
    } as;
} tr_jinja_value;

typedef struct tr_jinja_pair {
    tr_jinja_value key, value;
} tr_jinja_pair;

typedef struct tr_jinja_dict { /* in order of insertion */
    uint32_t n, room;
    tr_jinja_pair *pair;
} tr_jinja_dict;

typedef struct tr_jinja_text { /* grows in the arena */
    char *data;
    size_t len, room, most;
} tr_jinja_text;

static inline tr_jinja_value tr_jinja_value_bool(bool b) { return (tr_jinja_value){.kind = TR_JINJA_BOOL, .as.i = b}; }
static inline tr_jinja_value tr_jinja_value_int(int64_t i) { return (tr_jinja_value){.kind = TR_JINJA_INT, .as.i = i}; }
static inline tr_jinja_value tr_jinja_value_float(double f) {
    return (tr_jinja_value){.kind = TR_JINJA_FLOAT, .as.f = f};
}
static inline tr_jinja_value tr_jinja_value_none(void) { return (tr_jinja_value){.kind = TR_JINJA_NONE}; }
static inline tr_jinja_value tr_jinja_value_undefined(const char *name, uint32_t len) {
    return (tr_jinja_value){.kind = TR_JINJA_UNDEFINED, .len = len, .as.s = name};
}
/* Borrows the bytes. */
static inline tr_jinja_value tr_jinja_value_string(const char *s, size_t len) {
    return (tr_jinja_value){.kind = TR_JINJA_STRING, .len = (uint32_t)len, .as.s = s};
}
static inline bool tr_jinja_value_is_list(tr_jinja_value v) {
    return v.kind == TR_JINJA_LIST || v.kind == TR_JINJA_TUPLE;
}
static inline bool tr_jinja_value_is_number(tr_jinja_value v) {
    return v.kind == TR_JINJA_BOOL || v.kind == TR_JINJA_INT || v.kind == TR_JINJA_FLOAT;
}
static inline double tr_jinja_value_double(tr_jinja_value v) {
    return v.kind == TR_JINJA_FLOAT ? v.as.f : (double)v.as.i;
}
bool tr_jinja_value_is(tr_jinja_value v, const char *text); /* this string */

bool tr_jinja_value_truth(tr_jinja_value v);
bool tr_jinja_value_equal(tr_jinja_arena *a, tr_jinja_value x, tr_jinja_value y);
/* -1, 0, 1; fails for kinds that have no order. */
int tr_jinja_value_compare(tr_jinja_arena *a, tr_jinja_value x, tr_jinja_value y);
bool tr_jinja_value_contains(tr_jinja_arena *a, tr_jinja_value in, tr_jinja_value x);
const char *tr_jinja_value_kind_name(tr_jinja_value v);

/* What a loop over the value sees, as a list: characters, keys, items. Undefined: nothing. Fails for the rest. */
tr_jinja_value tr_jinja_value_iterate(tr_jinja_arena *a, tr_jinja_value v);
tr_jinja_value tr_jinja_value_list(tr_jinja_arena *a, tr_jinja_kind kind, uint32_t n, tr_jinja_value **items_out);
tr_jinja_value tr_jinja_value_dict(tr_jinja_arena *a, uint32_t room);
void tr_jinja_value_set(tr_jinja_arena *a, tr_jinja_dict *d, tr_jinja_value key, tr_jinja_value value);
/* NULL: not there. */
const tr_jinja_value *tr_jinja_value_get(tr_jinja_arena *a, const tr_jinja_dict *d, tr_jinja_value key);
tr_jinja_value tr_jinja_value_from_json(tr_jinja_arena *a, const json_t *json, uint32_t depth);

void tr_jinja_value_append(tr_jinja_arena *a, tr_jinja_text *t, const char *s, size_t len);
tr_jinja_value tr_jinja_value_take(const tr_jinja_text *t); /* the text as a string */
/* str(v), and repr(v) of Python. */
tr_jinja_value tr_jinja_value_str(tr_jinja_arena *a, tr_jinja_value v);
void tr_jinja_value_repr(tr_jinja_arena *a, tr_jinja_text *t, tr_jinja_value v, uint32_t depth);
/* json.dumps of Python. indent < 0: one line. */
typedef struct tr_jinja_json {
    int indent;
    bool ascii, sorted;
    tr_jinja_value item_separator, key_separator;
} tr_jinja_json;
void tr_jinja_value_json(tr_jinja_arena *a, tr_jinja_text *t, tr_jinja_value v, const tr_jinja_json *form,
                         uint32_t depth);
/* Number of code points, and the byte offset of code point n. */
uint32_t tr_jinja_value_points(tr_jinja_value s);
uint32_t tr_jinja_value_offset(tr_jinja_value s, uint32_t n);
#endif
