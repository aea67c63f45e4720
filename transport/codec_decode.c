/* Decoder. Invariants: (I1) the cursor never passes end; every read states how many bytes it needs first. (I2) a count
 * is accepted only if that many smallest elements fit in the bytes left, so work and memory are linear in the message.
 * (I3) nothing recurses on input: spans are one fixed level, unknown values are skipped with a counter stack. */
#include "base/checked.h"
#include "transport/codec.h"
#include "transport/schema_table.h"

#include <float.h>
#include <math.h>
#include <stdalign.h>
#include <string.h>

enum { DEPTH_MAX = 8, ARENA_ALIGN = 8 };

size_t tr_codec_arena_bytes(uint32_t max_tokens, uint32_t max_spans) {
    size_t tokens = max_tokens > TR_MAX_STEP_ROWS ? max_tokens : TR_MAX_STEP_ROWS;
    size_t lists = 4 * tokens + sizeof(tr_msg_span) * max_spans + sizeof(tr_str) * TR_MAX_STOPS;
    const size_t values = (size_t)TR_MAX_SPANS + TR_MAX_COPIES + 2 * TR_MAX_LOGPROB_ENTRIES + 2 * TR_MAX_BIAS;
    return lists + 4 * (values + TR_MAX_STOP_TOKENS) + 8 * ARENA_ALIGN;
}

void tr_codec_arena_init(tr_codec_arena *a, void *mem, size_t bytes) {
    *a = (tr_codec_arena){.mem = mem, .cap = bytes};
}

static void *arena_take(tr_codec_arena *a, size_t bytes) {
    if (!a || !a->mem) return NULL;
    size_t skew = (size_t)(-(uintptr_t)(a->mem + a->used) & (ARENA_ALIGN - 1));
    if (skew > a->cap - a->used || bytes > a->cap - a->used - skew) return NULL;
    void *p = a->mem + a->used + skew;
    a->used += skew + bytes;
    return p;
}

/* ---- cursor over msgpack ------------------------------------------------------------------------------------------
 */
typedef struct cursor {
    const uint8_t *p, *end;
    tr_codec_arena *arena;
    tr_error *err;
    const tr_schema_record *record; /* for error texts; NULL before the type is known */
} cursor;

/* What stands at the cursor, head consumed. Lengths are in bytes (str, bin, ext) or entries (array, map). */
typedef enum token_kind {
    TOKEN_END, /* truncated or the reserved byte */
    TOKEN_UINT,
    TOKEN_NEGATIVE,
    TOKEN_FLOAT,
    TOKEN_BOOL,
    TOKEN_NIL,
    TOKEN_STR,
    TOKEN_BIN,
    TOKEN_EXT,
    TOKEN_ARRAY,
    TOKEN_MAP
} token_kind;

typedef struct token {
    token_kind kind;
    uint64_t u;
    double f;
    const uint8_t *data;
} token;

static tr_status malformed(cursor *c, const char *field, const char *what) {
    const char *where = c->record ? c->record->name : "message";
    return tr_error_set(c->err, TR_PROTO, "%s%s%s: %s", where, field ? "." : "", field ? field : "", what);
}

static uint64_t big_endian(const uint8_t *p, unsigned n) {
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++) v = v << 8 | p[i];
    return v;
}

/* The value of a negative one lies in f. */
static token token_signed(uint64_t raw, unsigned bytes) {
    const bool negative = raw >> (8 * bytes - 1) & 1;
    const uint64_t wide = raw | (bytes < 8 ? ~0ull << (8 * bytes) : 0);
    return negative ? (token){.kind = TOKEN_NEGATIVE, .f = -(double)(~wide + 1)}
                    : (token){.kind = TOKEN_UINT, .u = raw};
}

static token token_float(uint64_t raw, unsigned bytes) {
    token t = {.kind = TOKEN_FLOAT};
    if (bytes == 4) {
        uint32_t bits = (uint32_t)raw;
        float f;
        memcpy(&f, &bits, 4);
        t.f = (double)f;
    } else {
        memcpy(&t.f, &raw, 8);
    }
    return t;
}

/* Body of a str, bin or ext; false when it is longer than what is left. */
static bool take_body(cursor *c, token *t, uint64_t bytes) {
    if (bytes > (uint64_t)(c->end - c->p)) return false;
    t->data = c->p;
    c->p += bytes;
    return true;
}

/* Head byte 0xc0..0xdf: `width` bytes of number or length follow. */
static const struct {
    uint8_t kind, width;
} heads[32] = {
    {TOKEN_NIL, 0},   {TOKEN_END, 0},   {TOKEN_BOOL, 0},  {TOKEN_BOOL, 0},  /* c0 */
    {TOKEN_BIN, 1},   {TOKEN_BIN, 2},   {TOKEN_BIN, 4},   {TOKEN_EXT, 1},   /* c4 */
    {TOKEN_EXT, 2},   {TOKEN_EXT, 4},   {TOKEN_FLOAT, 4}, {TOKEN_FLOAT, 8}, /* c8 */
    {TOKEN_UINT, 1},  {TOKEN_UINT, 2},  {TOKEN_UINT, 4},  {TOKEN_UINT, 8},  /* cc */
    {TOKEN_UINT, 1},  {TOKEN_UINT, 2},  {TOKEN_UINT, 4},  {TOKEN_UINT, 8},  /* d0: signed */
    {TOKEN_EXT, 0},   {TOKEN_EXT, 0},   {TOKEN_EXT, 0},   {TOKEN_EXT, 0},   /* d4: fixext 1 2 4 8 */
    {TOKEN_EXT, 0},   {TOKEN_STR, 1},   {TOKEN_STR, 2},   {TOKEN_STR, 4},   /* d8: fixext 16 */
    {TOKEN_ARRAY, 2}, {TOKEN_ARRAY, 4}, {TOKEN_MAP, 2},   {TOKEN_MAP, 4},   /* dc */
};

static token next_wide(cursor *c, uint8_t head) {
    token t = {.kind = heads[head - 0xc0].kind};
    unsigned width = heads[head - 0xc0].width;
    if (width > (size_t)(c->end - c->p)) return (token){.kind = TOKEN_END};
    t.u = big_endian(c->p, width);
    c->p += width;
    if (head == 0xc2 || head == 0xc3) t.u = head & 1;
    if (head >= 0xd0 && head <= 0xd3) return token_signed(t.u, width);
    if (t.kind == TOKEN_FLOAT) return token_float(t.u, width);
    if (t.kind == TOKEN_EXT) {
        if (width == 0) t.u = 1ull << (head - 0xd4);
        if (!take_body(c, &t, t.u + 1)) t.kind = TOKEN_END; /* type byte and body */
    } else if (t.kind == TOKEN_STR || t.kind == TOKEN_BIN) {
        if (!take_body(c, &t, t.u)) t.kind = TOKEN_END;
    }
    return t;
}

static token next(cursor *c) {
    if (c->p == c->end) return (token){.kind = TOKEN_END};
    uint8_t head = *c->p++;
    token t;
    if (head < 0x80) return (token){.kind = TOKEN_UINT, .u = head};
    if (head >= 0xe0) return (token){.kind = TOKEN_NEGATIVE, .f = (double)head - 256};
    if (head < 0x90)
        t = (token){.kind = TOKEN_MAP, .u = head & 15u};
    else if (head < 0xa0)
        t = (token){.kind = TOKEN_ARRAY, .u = head & 15u};
    else if (head < 0xc0) {
        t = (token){.kind = TOKEN_STR, .u = head & 31u};
        if (!take_body(c, &t, t.u)) t.kind = TOKEN_END;
    } else
        t = next_wide(c, head);
    size_t left = (size_t)(c->end - c->p);
    if ((t.kind == TOKEN_ARRAY && t.u > left) || (t.kind == TOKEN_MAP && t.u > left / 2)) t.kind = TOKEN_END;
    return t;
}

/* Pass one value of any shape. */
static bool skip(cursor *c) {
    uint64_t open[DEPTH_MAX]; /* values still to come, a level */
    unsigned depth = 0;
    open[0] = 1;
    for (;;) {
        while (open[depth] == 0) {
            if (depth == 0) return true;
            depth--;
        }
        open[depth]--;
        token t = next(c);
        if (t.kind == TOKEN_END) return false;
        if (t.kind != TOKEN_ARRAY && t.kind != TOKEN_MAP) continue;
        if (depth + 1 == DEPTH_MAX) return false;
        open[++depth] = t.kind == TOKEN_MAP ? 2 * t.u : t.u;
    }
}

/* ---- values of the schema -----------------------------------------------------------------------------------------
 */
static tr_status read_number(cursor *c, const tr_schema_field *f, const token *t, void *at) {
    bool flag = t->kind == TOKEN_BOOL && f->kind == TR_SCHEMA_u32 && f->bound == 1;
    if (t->kind == TOKEN_NEGATIVE) return malformed(c, f->name, "must not be negative");
    if (t->kind != TOKEN_UINT && !flag) return malformed(c, f->name, "must be a whole number");
    uint64_t max = f->bound ? f->bound : f->kind == TR_SCHEMA_u32 ? UINT32_MAX : UINT64_MAX;
    if (t->u > max)
        return tr_error_set(c->err, TR_PROTO, "%s.%s: %llu is more than the largest allowed, %llu", c->record->name,
                            f->name, (unsigned long long)t->u, (unsigned long long)max);
    uint32_t narrow = (uint32_t)t->u;
    memcpy(at, f->kind == TR_SCHEMA_u32 ? (const void *)&narrow : (const void *)&t->u,
           f->kind == TR_SCHEMA_u32 ? sizeof narrow : sizeof t->u);
    return TR_OK;
}

static tr_status float_of(cursor *c, const tr_schema_field *f, const token *t, double max, float *out) {
    if (t->kind != TOKEN_FLOAT && t->kind != TOKEN_UINT && t->kind != TOKEN_NEGATIVE)
        return malformed(c, f->name, "must be a number");
    const double d = t->kind == TOKEN_UINT ? (double)t->u : t->f;
    if (!isfinite(d)) return malformed(c, f->name, "must be finite");
    if (f->kind == TR_SCHEMA_f32 && d < 0) return malformed(c, f->name, "must not be negative");
    if (fabs(d) > max)
        return tr_error_set(c->err, TR_PROTO, "%s.%s: %g is more than the largest allowed, %g", c->record->name,
                            f->name, d, max);
    *out = (float)d;
    return TR_OK;
}

static tr_status read_float(cursor *c, const tr_schema_field *f, const token *t, void *at) {
    float value = 0;
    TR_TRY(float_of(c, f, t, f->bound ? (double)f->bound : (double)FLT_MAX, &value));
    memcpy(at, &value, sizeof value);
    return TR_OK;
}

static tr_status check_text(cursor *c, const char *field, const token *t, uint64_t bound) {
    if (t->kind != TOKEN_STR) return malformed(c, field, "must be text");
    if (t->u > bound)
        return tr_error_set(c->err, TR_PROTO, "%s.%s: %llu bytes, at most %llu are allowed", c->record->name, field,
                            (unsigned long long)t->u, (unsigned long long)bound);
    if (!tr_codec_utf8_valid((const char *)t->data, (size_t)t->u)) return malformed(c, field, "is not valid UTF-8");
    return TR_OK;
}

static tr_status read_bytes(cursor *c, const tr_schema_field *f, const token *t, void *at) {
    if (f->kind == TR_SCHEMA_str) {
        TR_TRY(check_text(c, f->name, t, f->bound));
        memcpy(at, &(tr_str){(const char *)t->data, (uint32_t)t->u}, sizeof(tr_str));
        return TR_OK;
    }
    if (t->kind != TOKEN_BIN) return malformed(c, f->name, "must be binary");
    if (t->u > f->bound) return malformed(c, f->name, "is too long");
    memcpy(at, &(tr_bin){t->data, (uint32_t)t->u}, sizeof(tr_bin));
    return TR_OK;
}

/* Head of a list checked, its memory taken. An empty list is {NULL, 0}. */
static tr_status open_list(cursor *c, const tr_schema_field *f, const token *t, size_t entry, void **list_out) {
    if (t->kind != TOKEN_ARRAY) return malformed(c, f->name, "must be a list");
    if (t->u > f->bound)
        return tr_error_set(c->err, TR_PROTO, "%s.%s: %llu entries, at most %llu are allowed", c->record->name, f->name,
                            (unsigned long long)t->u, (unsigned long long)f->bound);
    *list_out = NULL;
    if (t->u == 0) return TR_OK;
    *list_out = arena_take(c->arena, (size_t)t->u * entry);
    if (!*list_out)
        return tr_error_set(c->err, TR_EXHAUSTED, "%s.%s: %llu entries are more than there is room for here",
                            c->record->name, f->name, (unsigned long long)t->u);
    return TR_OK;
}

static tr_status read_u32v(cursor *c, const tr_schema_field *f, const token *t, void *at) {
    void *memory;
    TR_TRY(open_list(c, f, t, sizeof(uint32_t), &memory));
    uint32_t *list = memory;
    for (uint64_t i = 0; i < t->u; i++) {
        token e = next(c);
        if (e.kind == TOKEN_END) return malformed(c, f->name, "is cut off");
        if (e.kind != TOKEN_UINT || e.u > UINT32_MAX) return malformed(c, f->name, "entries must be 32-bit numbers");
        list[i] = (uint32_t)e.u;
    }
    memcpy(at, &(tr_u32v){list, (uint32_t)t->u}, sizeof(tr_u32v));
    return TR_OK;
}

static tr_status read_realv(cursor *c, const tr_schema_field *f, const token *t, void *at) {
    void *memory;
    TR_TRY(open_list(c, f, t, sizeof(float), &memory));
    float *list = memory;
    for (uint64_t i = 0; i < t->u; i++) {
        const token e = next(c);
        TR_TRY(float_of(c, f, &e, (double)FLT_MAX, &list[i]));
    }
    memcpy(at, &(tr_realv){list, (uint32_t)t->u}, sizeof(tr_realv));
    return TR_OK;
}

static tr_status read_strv(cursor *c, const tr_schema_field *f, const token *t, void *at) {
    void *memory;
    TR_TRY(open_list(c, f, t, sizeof(tr_str), &memory));
    tr_str *list = memory;
    for (uint64_t i = 0; i < t->u; i++) {
        token e = next(c);
        if (e.kind == TOKEN_END) return malformed(c, f->name, "is cut off");
        TR_TRY(check_text(c, f->name, &e, TR_MAX_STOP_BYTES));
        list[i] = (tr_str){(const char *)e.data, (uint32_t)e.u};
    }
    memcpy(at, &(tr_strv){list, (uint32_t)t->u}, sizeof(tr_strv));
    return TR_OK;
}

static tr_status read_fields(cursor *c, const tr_schema_record *r, uint64_t n, void *record);

static tr_status read_spanv(cursor *c, const tr_schema_field *f, const token *t, void *at) {
    void *memory;
    TR_TRY(open_list(c, f, t, sizeof(tr_msg_span), &memory));
    tr_msg_span *list = memory;
    const tr_schema_record *outer = c->record;
    for (uint64_t i = 0; i < t->u; i++) {
        token e = next(c);
        if (e.kind != TOKEN_MAP) return malformed(c, f->name, "entries must be maps");
        memset(&list[i], 0, sizeof list[i]);
        c->record = tr_schema_table_span();
        TR_TRY(read_fields(c, c->record, e.u, &list[i]));
        c->record = outer;
    }
    memcpy(at, &(tr_spanv){list, (uint32_t)t->u}, sizeof(tr_spanv));
    return TR_OK;
}

static tr_status read_value(cursor *c, const tr_schema_field *f, void *at) {
    token t = next(c);
    if (t.kind == TOKEN_END) return malformed(c, f->name, "is cut off");
    switch (f->kind) {
    case TR_SCHEMA_u32:
    case TR_SCHEMA_u64: return read_number(c, f, &t, at);
    case TR_SCHEMA_f32:
    case TR_SCHEMA_real: return read_float(c, f, &t, at);
    case TR_SCHEMA_str:
    case TR_SCHEMA_bin: return read_bytes(c, f, &t, at);
    case TR_SCHEMA_realv: return read_realv(c, f, &t, at);
    case TR_SCHEMA_u32v: return read_u32v(c, f, &t, at);
    case TR_SCHEMA_strv: return read_strv(c, f, &t, at);
    case TR_SCHEMA_spanv: return read_spanv(c, f, &t, at);
    }
    return TR_PROTO;
}

static bool is_key(const token *t, const char *name, size_t len) {
    return t->u == len && memcmp(t->data, name, len) == 0;
}

/* Senders keep the order of the schema, so the search starts behind the field found last. */
static uint32_t find_field(const tr_schema_record *r, const token *key, uint32_t start) {
    for (uint32_t k = 0, i = start; k < r->n_fields; k++, i++) {
        if (i >= r->n_fields) i = 0;
        if (is_key(key, r->field[i].name, r->field[i].name_len)) return i;
    }
    return UINT32_MAX;
}

static tr_status read_fields(cursor *c, const tr_schema_record *r, uint64_t n, void *record) {
    uint64_t seen = 0;
    bool type_seen = false;
    uint32_t at = 0;
    for (uint64_t k = 0; k < n; k++) {
        token key = next(c);
        if (key.kind != TOKEN_STR) return malformed(c, NULL, "keys must be text");
        if (r->type != TR_MSG_NONE && is_key(&key, "type", 4)) {
            if (type_seen) return malformed(c, "type", "comes twice");
            type_seen = true;
            next(c); /* read before */
            continue;
        }
        uint32_t i = find_field(r, &key, at);
        if (i == UINT32_MAX) {
            if (!skip(c)) return malformed(c, NULL, "an unknown field is cut off or nested too deeply");
            continue;
        }
        if (seen >> i & 1) return malformed(c, r->field[i].name, "comes twice");
        seen |= 1ull << i;
        TR_TRY(read_value(c, &r->field[i], (uint8_t *)record + r->field[i].offset));
        at = i + 1;
    }
    return TR_OK;
}

/* The type may stand anywhere in the map; it is usually first. */
static tr_status find_type(cursor c, uint64_t n, const tr_schema_record **record_out) {
    for (uint64_t k = 0; k < n; k++) {
        token key = next(&c);
        if (key.kind != TOKEN_STR) return malformed(&c, NULL, "keys must be text");
        if (!is_key(&key, "type", 4)) {
            if (!skip(&c)) return malformed(&c, NULL, "is cut off or nested too deeply");
            continue;
        }
        token name = next(&c);
        if (name.kind != TOKEN_STR) return malformed(&c, "type", "must be text");
        *record_out = tr_schema_table_by_name((const char *)name.data, (size_t)name.u);
        return *record_out ? TR_OK : malformed(&c, "type", "no such message");
    }
    return malformed(&c, "type", "is missing");
}

tr_status tr_codec_decode(const void *buf, size_t len, tr_codec_arena *arena, tr_msg *out, tr_error *err) {
    if (len == 0) buf = "";
    cursor c = {.p = buf, .end = (const uint8_t *)buf + len, .arena = arena, .err = err};
    token map = next(&c);
    if (map.kind != TOKEN_MAP) return malformed(&c, NULL, "is not a msgpack map or is cut off");
    const tr_schema_record *r = NULL;
    TR_TRY(find_type(c, map.u, &r));
    c.record = r;
    tr_msg m = {.type = r->type};
    TR_TRY(read_fields(&c, r, map.u, &m.as));
    if (c.p != c.end) return malformed(&c, NULL, "bytes follow after the message");
    *out = m;
    return TR_OK;
}

void tr_codec_peek(const void *buf, size_t len, tr_msg_type *type_out, uint64_t *id_out) {
    *type_out = TR_MSG_NONE;
    *id_out = 0;
    if (len == 0) buf = "";
    cursor c = {.p = buf, .end = (const uint8_t *)buf + len};
    token map = next(&c);
    if (map.kind != TOKEN_MAP) return;
    for (uint64_t k = 0; k < map.u; k++) {
        token key = next(&c);
        if (key.kind != TOKEN_STR) return;
        bool type = is_key(&key, "type", 4), id = is_key(&key, "id", 2);
        if (!type && !id) {
            if (!skip(&c)) return;
            continue;
        }
        const uint8_t *at = c.p;
        token t = next(&c);
        if (t.kind == TOKEN_ARRAY || t.kind == TOKEN_MAP) {
            c.p = at;
            if (!skip(&c)) return;
        } else if (t.kind == TOKEN_END) {
            return;
        } else if (type && t.kind == TOKEN_STR) {
            const tr_schema_record *r = tr_schema_table_by_name((const char *)t.data, (size_t)t.u);
            if (r) *type_out = r->type;
        } else if (id && t.kind == TOKEN_UINT) {
            *id_out = t.u;
        }
    }
}
