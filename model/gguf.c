/* Two passes would be one too many: the file is read front to back once, each entry checked as it is met, and two
 * sorted index arrays give lookups and find duplicates.
 * I1: after open, every kv and tensor entry points at bytes inside the file that have been checked to the last one,
 *     strings inside string arrays included; iteration therefore cannot fail.
 * I2: an allocation follows a check that the file is long enough to hold that many entries. */
#include "model/gguf.h"

#include "base/checked.h"
#include "base/file_map.h"

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tr_gguf {
    tr_file_map map; /* data is NULL when the caller owns the bytes */
    const uint8_t *data;
    uint64_t size;
    char *name; /* path, for messages; owned */
    uint32_t version;
    uint32_t n_kvs, n_tensors;
    uint64_t alignment;                  /* of tensor data, bytes */
    tr_gguf_kv *kvs;                     /* [n_kvs] file order */
    tr_gguf_tensor *tensors;             /* [n_tensors] file order */
    const tr_gguf_kv **kv_index;         /* [n_kvs] by key */
    const tr_gguf_tensor **tensor_index; /* [n_tensors] by name */
};

/* Smallest entries that a file can hold; they turn claimed counts into a bound by file size. */
enum {
    MIN_KV_BYTES = 8 + 1 + 4 + 1,
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8,
    DEFAULT_ALIGNMENT = 32,
};

static const uint8_t scalar_bytes[] = {
    [TR_GGUF_U8] = 1,  [TR_GGUF_I8] = 1,  [TR_GGUF_U16] = 2,  [TR_GGUF_I16] = 2, [TR_GGUF_U32] = 4,
    [TR_GGUF_I32] = 4, [TR_GGUF_F32] = 4, [TR_GGUF_BOOL] = 1, [TR_GGUF_STR] = 0, [TR_GGUF_ARR] = 0,
    [TR_GGUF_U64] = 8, [TR_GGUF_I64] = 8, [TR_GGUF_F64] = 8,
};
enum { TYPE_COUNT = sizeof scalar_bytes };

tr_status tr_gguf_fail(const tr_gguf *g, tr_error *err, uint64_t offset, const char *fmt, ...) {
    char reason[384];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(reason, sizeof reason, fmt, ap);
    va_end(ap);
    /* A long path must not push the reason out of the line: its tail is what tells files apart. */
    size_t len = strlen(g->name);
    const char *tail = len > 100 ? g->name + len - 97 : g->name;
    return tr_error_set(err, TR_DATA, "%s%s: offset %" PRIu64 ": %s", tail == g->name ? "" : "...", tail, offset,
                        reason);
}

/* Part of a text that fits a message. */
#define TEXT_ARG(t) (int)((t).len < 80 ? (t).len : 80), (t).data

/* ---- bounded reading ---- */

typedef struct cursor {
    const tr_gguf *g;
    uint64_t pos;
    tr_error *err;
} cursor;

static tr_status need(const cursor *c, uint64_t bytes, const char *what) {
    if (tr_checked_range(c->pos, bytes, c->g->size)) return TR_OK;
    return tr_gguf_fail(c->g, c->err, c->pos,
                        "%s needs %" PRIu64 " bytes, the file has %" PRIu64 " left; it is cut off or damaged", what,
                        bytes, c->g->size - c->pos);
}

static tr_status read_u32(cursor *c, const char *what, uint32_t *out) {
    TR_TRY(need(c, 4, what));
    memcpy(out, c->g->data + c->pos, 4);
    c->pos += 4;
    return TR_OK;
}

static tr_status read_u64(cursor *c, const char *what, uint64_t *out) {
    TR_TRY(need(c, 8, what));
    memcpy(out, c->g->data + c->pos, 8);
    c->pos += 8;
    return TR_OK;
}

static tr_status read_text(cursor *c, const char *what, uint64_t max, tr_gguf_text *out) {
    uint64_t start = c->pos, len;
    TR_TRY(read_u64(c, what, &len));
    if (len > max)
        return tr_gguf_fail(c->g, c->err, start, "%s of %" PRIu64 " bytes is longer than %" PRIu64, what, len, max);
    TR_TRY(need(c, len, what));
    out->data = (const char *)c->g->data + c->pos;
    out->len = (size_t)len;
    c->pos += len;
    return TR_OK;
}

/* Keys and tensor names: printable ASCII, at least one character. They appear in messages, so nothing else gets in. */
static tr_status read_name(cursor *c, const char *what, uint64_t max, tr_gguf_text *out) {
    uint64_t start = c->pos;
    tr_gguf_text t;
    TR_TRY(read_text(c, what, max, &t));
    if (t.len == 0) return tr_gguf_fail(c->g, c->err, start, "empty %s", what);
    for (size_t i = 0; i < t.len; i++) {
        unsigned char b = (unsigned char)t.data[i];
        if (b < 0x20 || b > 0x7e)
            return tr_gguf_fail(c->g, c->err, start + 8 + i, "byte 0x%02x in a %s; only printable ASCII is allowed", b,
                                what);
    }
    *out = t;
    return TR_OK;
}

/* ---- metadata ---- */

static tr_status check_bools(const cursor *c, uint64_t start, uint64_t count) {
    for (uint64_t i = 0; i < count; i++)
        if (c->g->data[start + i] > 1)
            return tr_gguf_fail(c->g, c->err, start + i, "boolean is %u, not 0 or 1", c->g->data[start + i]);
    return TR_OK;
}

/* Walk over count values of a type that is not an array; c ends behind them. */
static tr_status skip_values(cursor *c, tr_gguf_type type, uint64_t count) {
    if (type == TR_GGUF_STR) {
        tr_gguf_text ignored;
        for (uint64_t i = 0; i < count; i++) TR_TRY(read_text(c, "string", TR_GGUF_MAX_STRING, &ignored));
        return TR_OK;
    }
    uint64_t bytes, start = c->pos;
    if (!tr_checked_mul(count, scalar_bytes[type], &bytes))
        return tr_gguf_fail(c->g, c->err, start, "array of %" PRIu64 " elements is larger than any file", count);
    TR_TRY(need(c, bytes, "value"));
    c->pos += bytes;
    return type == TR_GGUF_BOOL ? check_bools(c, start, count) : TR_OK;
}

static tr_status read_type(cursor *c, const char *what, tr_gguf_type *out) {
    uint64_t start = c->pos;
    uint32_t type;
    TR_TRY(read_u32(c, what, &type));
    if (type >= TYPE_COUNT) return tr_gguf_fail(c->g, c->err, start, "%s %" PRIu32 " is unknown", what, type);
    *out = (tr_gguf_type)type;
    return TR_OK;
}

static tr_status read_kv(cursor *c, tr_gguf_kv *kv) {
    kv->offset = c->pos;
    TR_TRY(read_name(c, "metadata key", TR_GGUF_MAX_KEY, &kv->key));
    TR_TRY(read_type(c, "value type", &kv->type));
    kv->elem_type = kv->type;
    kv->count = 1;
    if (kv->type == TR_GGUF_ARR) {
        uint64_t start = c->pos;
        TR_TRY(read_type(c, "array element type", &kv->elem_type));
        if (kv->elem_type == TR_GGUF_ARR)
            return tr_gguf_fail(c->g, c->err, start, "key %.*s: arrays of arrays are not supported", TEXT_ARG(kv->key));
        TR_TRY(read_u64(c, "array length", &kv->count));
    }
    kv->data = c->g->data + c->pos;
    return skip_values(c, kv->elem_type, kv->count);
}

static int compare_text(tr_gguf_text a, tr_gguf_text b) {
    size_t n = a.len < b.len ? a.len : b.len;
    int r = memcmp(a.data, b.data, n);
    return r != 0 ? r : (a.len > b.len) - (a.len < b.len);
}

static int compare_kv(const void *a, const void *b) {
    return compare_text((*(const tr_gguf_kv *const *)a)->key, (*(const tr_gguf_kv *const *)b)->key);
}

static int compare_tensor(const void *a, const void *b) {
    return compare_text((*(const tr_gguf_tensor *const *)a)->name, (*(const tr_gguf_tensor *const *)b)->name);
}

/* count * size bytes, zeroed; at least one byte so that NULL always means no memory. */
static tr_status allocate(const tr_gguf *g, uint64_t count, size_t size, void *out, tr_error *err) {
    void *p = calloc(count ? (size_t)count : 1, size);
    if (!p) return tr_error_set(err, TR_SYSTEM, "%s: out of memory for %" PRIu64 " entries", g->name, count);
    memcpy(out, &p, sizeof p);
    return TR_OK;
}

static tr_status read_kvs(cursor *c, tr_gguf *g) {
    TR_TRY(allocate(g, g->n_kvs, sizeof *g->kvs, &g->kvs, c->err));
    TR_TRY(allocate(g, g->n_kvs, sizeof *g->kv_index, &g->kv_index, c->err));
    for (uint32_t i = 0; i < g->n_kvs; i++) {
        TR_TRY(read_kv(c, &g->kvs[i]));
        g->kv_index[i] = &g->kvs[i];
    }
    qsort(g->kv_index, g->n_kvs, sizeof *g->kv_index, compare_kv);
    for (uint32_t i = 1; i < g->n_kvs; i++) {
        const tr_gguf_kv *a = g->kv_index[i - 1], *b = g->kv_index[i];
        if (compare_text(a->key, b->key) == 0)
            return tr_gguf_fail(g, c->err, a->offset > b->offset ? a->offset : b->offset, "key %.*s appears twice",
                                TEXT_ARG(a->key));
    }
    return TR_OK;
}

/* ---- tensors ---- */

static tr_status read_shape(cursor *c, tr_gguf_tensor *t) {
    uint64_t start = c->pos;
    TR_TRY(read_u32(c, "number of dimensions", &t->n_dims));
    if (t->n_dims < 1 || t->n_dims > TR_GGUF_MAX_DIMS)
        return tr_gguf_fail(c->g, c->err, start, "tensor %.*s has %" PRIu32 " dimensions, 1 to 4 are allowed",
                            TEXT_ARG(t->name), t->n_dims);
    for (uint32_t d = 0; d < TR_GGUF_MAX_DIMS; d++) {
        t->dims[d] = 1;
        if (d >= t->n_dims) continue;
        start = c->pos;
        TR_TRY(read_u64(c, "dimension", &t->dims[d]));
        if (t->dims[d] == 0 || t->dims[d] > INT64_MAX)
            return tr_gguf_fail(c->g, c->err, start, "tensor %.*s: dimension %" PRIu32 " is %" PRIu64,
                                TEXT_ARG(t->name), d, t->dims[d]);
    }
    return TR_OK;
}

static tr_status read_tensor_type(cursor *c, tr_gguf_tensor *t) {
    uint64_t start = c->pos;
    uint32_t id;
    TR_TRY(read_u32(c, "tensor type", &id));
    if (tr_dequant_from_gguf(id, &t->type)) return TR_OK;
    const char *name = tr_dequant_gguf_name(id);
    return tr_gguf_fail(c->g, c->err, start,
                        "tensor %.*s has type %" PRIu32 " (%s), which is not supported; convert the model to one of "
                        "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K",
                        TEXT_ARG(t->name), id, name ? name : "unknown");
}

/* The data pointer cannot be set yet: the data area starts behind the last info. Its relative offset goes to *rel. */
static tr_status read_tensor(cursor *c, tr_gguf_tensor *t, uint64_t *rel) {
    t->offset = c->pos;
    TR_TRY(read_name(c, "tensor name", TR_GGUF_MAX_NAME, &t->name));
    TR_TRY(read_shape(c, t));
    TR_TRY(read_tensor_type(c, t));
    if (!tr_dequant_row_bytes(t->type, t->dims[0], &t->row_bytes))
        return tr_gguf_fail(c->g, c->err, t->offset, "tensor %.*s: %" PRIu64 " columns are no whole blocks of %s",
                            TEXT_ARG(t->name), t->dims[0], tr_dequant_describe(t->type)->name);
    t->bytes = t->row_bytes;
    for (uint32_t d = 1; d < t->n_dims; d++)
        if (!tr_checked_mul(t->bytes, t->dims[d], &t->bytes))
            return tr_gguf_fail(c->g, c->err, t->offset, "tensor %.*s: the product of its dimensions overflows",
                                TEXT_ARG(t->name));
    uint64_t start = c->pos;
    TR_TRY(read_u64(c, "tensor offset", rel));
    if (*rel % c->g->alignment != 0)
        return tr_gguf_fail(c->g, c->err, start, "tensor %.*s: offset %" PRIu64 " is not a multiple of %" PRIu64,
                            TEXT_ARG(t->name), *rel, c->g->alignment);
    return TR_OK;
}

static tr_status place_tensor(const tr_gguf *g, tr_gguf_tensor *t, uint64_t data_start, uint64_t rel, tr_error *err) {
    uint64_t at;
    if (!tr_checked_add(data_start, rel, &at) || !tr_checked_range(at, t->bytes, g->size))
        return tr_gguf_fail(g, err, t->offset,
                            "tensor %.*s (%" PRIu64 " bytes at %" PRIu64 " of the data) ends behind the file, which "
                            "has %" PRIu64 " bytes; it is cut off or damaged",
                            TEXT_ARG(t->name), t->bytes, rel, g->size);
    t->data = g->data + at;
    return TR_OK;
}

static int compare_place(const void *a, const void *b) {
    const uint8_t *x = (*(const tr_gguf_tensor *const *)a)->data, *y = (*(const tr_gguf_tensor *const *)b)->data;
    return (x > y) - (x < y);
}

/* Uses the index array as scratch, before it is sorted by name. */
static tr_status check_overlap(tr_gguf *g, tr_error *err) {
    qsort(g->tensor_index, g->n_tensors, sizeof *g->tensor_index, compare_place);
    for (uint32_t i = 1; i < g->n_tensors; i++) {
        const tr_gguf_tensor *a = g->tensor_index[i - 1], *b = g->tensor_index[i];
        if ((uint64_t)(b->data - a->data) < a->bytes)
            return tr_gguf_fail(g, err, b->offset, "tensor %.*s overlaps tensor %.*s", TEXT_ARG(b->name),
                                TEXT_ARG(a->name));
    }
    return TR_OK;
}

static tr_status check_tensor_names(tr_gguf *g, tr_error *err) {
    qsort(g->tensor_index, g->n_tensors, sizeof *g->tensor_index, compare_tensor);
    for (uint32_t i = 1; i < g->n_tensors; i++) {
        const tr_gguf_tensor *a = g->tensor_index[i - 1], *b = g->tensor_index[i];
        if (compare_text(a->name, b->name) == 0)
            return tr_gguf_fail(g, err, a->offset > b->offset ? a->offset : b->offset, "tensor %.*s appears twice",
                                TEXT_ARG(a->name));
    }
    return TR_OK;
}

static tr_status place_tensors(tr_gguf *g, uint64_t infos_end, const uint64_t *rel, tr_error *err) {
    uint64_t data_start;
    if (!tr_checked_align(infos_end, g->alignment, &data_start))
        return tr_gguf_fail(g, err, infos_end, "the data area starts behind any file");
    for (uint32_t i = 0; i < g->n_tensors; i++) TR_TRY(place_tensor(g, &g->tensors[i], data_start, rel[i], err));
    TR_TRY(check_overlap(g, err));
    return check_tensor_names(g, err);
}

static tr_status read_tensors(cursor *c, tr_gguf *g) {
    TR_TRY(allocate(g, g->n_tensors, sizeof *g->tensors, &g->tensors, c->err));
    TR_TRY(allocate(g, g->n_tensors, sizeof *g->tensor_index, &g->tensor_index, c->err));
    uint64_t *rel = NULL; /* [n_tensors] offset in the data area */
    TR_TRY(allocate(g, g->n_tensors, sizeof *rel, &rel, c->err));
    tr_status s = TR_OK;
    for (uint32_t i = 0; i < g->n_tensors && s == TR_OK; i++) {
        s = read_tensor(c, &g->tensors[i], &rel[i]);
        g->tensor_index[i] = &g->tensors[i];
    }
    if (s == TR_OK) s = place_tensors(g, c->pos, rel, c->err);
    free(rel);
    return s;
}

/* ---- header ---- */

static tr_status check_count(const cursor *c, uint64_t at, const char *what, uint64_t count, uint64_t max,
                             uint64_t entry_bytes) {
    if (count > max)
        return tr_gguf_fail(c->g, c->err, at, "%" PRIu64 " %s, at most %" PRIu64 " are allowed", count, what, max);
    if (count > (c->g->size - c->pos) / entry_bytes)
        return tr_gguf_fail(c->g, c->err, at, "%" PRIu64 " %s do not fit in a file of %" PRIu64 " bytes", count, what,
                            c->g->size);
    return TR_OK;
}

static tr_status read_header(cursor *c, tr_gguf *g) {
    TR_TRY(need(c, 4, "magic"));
    if (memcmp(g->data, "GGUF", 4) != 0)
        return tr_gguf_fail(g, c->err, 0, "not a GGUF file (the first bytes are not \"GGUF\")");
    c->pos = 4;
    TR_TRY(read_u32(c, "version", &g->version));
    if (g->version != 2 && g->version != 3) {
        bool swapped = (g->version & 0xffffu) == 0 && g->version != 0;
        return tr_gguf_fail(g, c->err, 4, "%s %" PRIu32 " is not supported, only little-endian versions 2 and 3 are",
                            swapped ? "big-endian version" : "version",
                            swapped ? __builtin_bswap32(g->version) : g->version);
    }
    uint64_t n_tensors, n_kvs;
    TR_TRY(read_u64(c, "tensor count", &n_tensors));
    TR_TRY(read_u64(c, "metadata count", &n_kvs));
    TR_TRY(check_count(c, 8, "tensors", n_tensors, TR_GGUF_MAX_TENSORS, MIN_TENSOR_BYTES));
    TR_TRY(check_count(c, 16, "metadata keys", n_kvs, TR_GGUF_MAX_KVS, MIN_KV_BYTES));
    g->n_tensors = (uint32_t)n_tensors;
    g->n_kvs = (uint32_t)n_kvs;
    return TR_OK;
}

static tr_status read_alignment(tr_gguf *g, tr_error *err) {
    uint32_t a = DEFAULT_ALIGNMENT;
    TR_TRY(tr_gguf_u32(g, "general.alignment", &a, NULL, err));
    if (a == 0 || (a & (a - 1)) != 0 || a > TR_GGUF_MAX_ALIGNMENT)
        return tr_gguf_fail(g, err, tr_gguf_find(g, "general.alignment")->offset,
                            "general.alignment is %" PRIu32 ", not a power of two up to %d", a, TR_GGUF_MAX_ALIGNMENT);
    g->alignment = a;
    return TR_OK;
}

static tr_status parse(tr_gguf *g, tr_error *err) {
    cursor c = {g, 0, err};
    TR_TRY(read_header(&c, g));
    TR_TRY(read_kvs(&c, g));
    TR_TRY(read_alignment(g, err));
    return read_tensors(&c, g);
}

/* ---- public ---- */

/* Parse map or buffer; takes the mapping over, also on failure. */
static tr_status open_bytes(const uint8_t *data, size_t size, tr_file_map map, const char *name, tr_gguf **out,
                            tr_error *err) {
    tr_gguf *g = calloc(1, sizeof *g);
    char *copy = g ? strdup(name) : NULL;
    if (!copy) {
        free(g);
        tr_file_map_close(&map);
        return tr_error_set(err, TR_SYSTEM, "%s: out of memory", name);
    }
    g->map = map;
    g->data = data;
    g->size = size;
    g->name = copy;
    tr_status s = parse(g, err);
    if (s != TR_OK) {
        tr_gguf_close(&g);
        return s;
    }
    *out = g;
    return TR_OK;
}

tr_status tr_gguf_open(const char *path, tr_gguf **gguf_out, tr_error *err) {
    tr_file_map map;
    TR_TRY(tr_file_map_open(path, &map, err));
    return open_bytes(map.data, map.size, map, path, gguf_out, err);
}

tr_status tr_gguf_open_buffer(const void *data, size_t size, const char *name, tr_gguf **gguf_out, tr_error *err) {
    return open_bytes(data, size, (tr_file_map){NULL, 0}, name, gguf_out, err);
}

void tr_gguf_close(tr_gguf **gguf) {
    tr_gguf *g = *gguf;
    *gguf = NULL;
    if (!g) return;
    tr_file_map_close(&g->map);
    free(g->name);
    free(g->kvs);
    free(g->tensors);
    free(g->kv_index);
    free(g->tensor_index);
    free(g);
}

const char *tr_gguf_name(const tr_gguf *g) { return g->name; }
size_t tr_gguf_type_bytes(tr_gguf_type type) { return (unsigned)type < TYPE_COUNT ? scalar_bytes[type] : 0; }
uint32_t tr_gguf_version(const tr_gguf *g) { return g->version; }
uint32_t tr_gguf_kv_count(const tr_gguf *g) { return g->n_kvs; }
uint32_t tr_gguf_tensor_count(const tr_gguf *g) { return g->n_tensors; }

const tr_gguf_kv *tr_gguf_kv_at(const tr_gguf *g, uint32_t i) {
    tr_check(i < g->n_kvs);
    return &g->kvs[i];
}

const tr_gguf_tensor *tr_gguf_tensor_at(const tr_gguf *g, uint32_t i) {
    tr_check(i < g->n_tensors);
    return &g->tensors[i];
}

const tr_gguf_kv *tr_gguf_find(const tr_gguf *g, const char *key) {
    tr_gguf_kv wanted = {.key = {key, strlen(key)}};
    const tr_gguf_kv *p = &wanted;
    const tr_gguf_kv **hit = bsearch(&p, g->kv_index, g->n_kvs, sizeof *g->kv_index, compare_kv);
    return hit ? *hit : NULL;
}

const tr_gguf_tensor *tr_gguf_tensor_find(const tr_gguf *g, const char *name) {
    tr_gguf_tensor wanted = {.name = {name, strlen(name)}};
    const tr_gguf_tensor *p = &wanted;
    const tr_gguf_tensor **hit = bsearch(&p, g->tensor_index, g->n_tensors, sizeof *g->tensor_index, compare_tensor);
    return hit ? *hit : NULL;
}

bool tr_gguf_text_is(tr_gguf_text text, const char *s) {
    return text.len == strlen(s) && memcmp(text.data, s, text.len) == 0;
}
