/* The header is JSON: jansson parses it (duplicate keys rejected), this file checks every value that came out.
 * I1: after open, the tensors cover the data area exactly, each inside it and none overlapping. */
#include "model/safetensors.h"

#include "base/checked.h"
#include "base/file_map.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tr_safetensors {
    tr_file_map map; /* data is NULL when the caller owns the bytes */
    const uint8_t *data;
    uint64_t size;
    uint64_t area;  /* where tensor data start */
    char *name;     /* path, for messages; owned */
    json_t *header; /* owns the tensors' names */
    uint32_t n;
    tr_safetensors_tensor *tensors; /* [n] by name */
};

enum { LENGTH_BYTES = 8 };

__attribute__((format(printf, 4, 5))) static tr_status fail(const tr_safetensors *st, tr_error *err, uint64_t offset,
                                                            const char *fmt, ...) {
    char reason[384];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(reason, sizeof reason, fmt, ap);
    va_end(ap);
    size_t len = strlen(st->name);
    const char *tail = len > 100 ? st->name + len - 97 : st->name;
    return tr_error_set(err, TR_DATA, "%s%s: offset %" PRIu64 ": %s", tail == st->name ? "" : "...", tail, offset,
                        reason);
}

tr_safetensors_shown tr_safetensors_show(const char *name) {
    tr_safetensors_shown s;
    size_t n = 0;
    for (; name[n] && n < 80; n++) s.text[n] = name[n] >= 0x20 && name[n] <= 0x7e ? name[n] : '?';
    s.text[n] = 0;
    return s;
}

/* Complaint about one tensor's entry in the header. */
#define FAIL_ENTRY(st, err, name, fmt, ...)                                                                            \
    fail(st, err, LENGTH_BYTES, "tensor %s: " fmt, tr_safetensors_show(name).text, __VA_ARGS__)

static tr_status read_type(const tr_safetensors *st, const char *name, const json_t *entry, tr_dequant_type *out,
                           tr_error *err) {
    const char *s = json_string_value(json_object_get(entry, "dtype"));
    if (!s) return FAIL_ENTRY(st, err, name, "%s", "dtype is missing or not a string");
    if (strcmp(s, "F32") == 0)
        *out = TR_DEQUANT_F32;
    else if (strcmp(s, "F16") == 0)
        *out = TR_DEQUANT_F16;
    else if (strcmp(s, "BF16") == 0)
        *out = TR_DEQUANT_BF16;
    else
        return FAIL_ENTRY(st, err, name, "dtype %s is not supported, only F32, F16 and BF16 are",
                          tr_safetensors_show(s).text);
    return TR_OK;
}

static tr_status read_shape(const tr_safetensors *st, const json_t *entry, tr_safetensors_tensor *t, tr_error *err) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape)) return FAIL_ENTRY(st, err, t->name, "%s", "shape is missing or not an array");
    size_t n = json_array_size(shape);
    if (n > TR_SAFETENSORS_MAX_DIMS)
        return FAIL_ENTRY(st, err, t->name, "%zu dimensions, at most %d are allowed", n, TR_SAFETENSORS_MAX_DIMS);
    t->n_dims = (uint32_t)n;
    t->bytes = tr_dequant_describe(t->type)->block_bytes;
    for (size_t d = 0; d < TR_SAFETENSORS_MAX_DIMS; d++) {
        t->dims[d] = 1;
        if (d >= n) continue;
        const json_t *dim = json_array_get(shape, d);
        json_int_t v = json_integer_value(dim);
        if (!json_is_integer(dim) || v < 1)
            return FAIL_ENTRY(st, err, t->name, "dimension %zu is not a positive integer", d);
        t->dims[d] = (uint64_t)v;
        if (!tr_checked_mul(t->bytes, t->dims[d], &t->bytes))
            return FAIL_ENTRY(st, err, t->name, "%s", "the product of its dimensions overflows");
    }
    return TR_OK;
}

static tr_status read_place(const tr_safetensors *st, const json_t *entry, tr_safetensors_tensor *t, tr_error *err) {
    const json_t *pair = json_object_get(entry, "data_offsets");
    const json_t *b = json_array_get(pair, 0), *e = json_array_get(pair, 1);
    if (json_array_size(pair) != 2 || !json_is_integer(b) || !json_is_integer(e))
        return FAIL_ENTRY(st, err, t->name, "%s", "data_offsets is missing or not two integers");
    json_int_t begin = json_integer_value(b), end = json_integer_value(e);
    if (begin < 0 || end < begin)
        return FAIL_ENTRY(st, err, t->name, "data_offsets [%lld, %lld] are negative or reversed", (long long)begin,
                          (long long)end);
    if ((uint64_t)end > st->size - st->area)
        return FAIL_ENTRY(st, err, t->name,
                          "data_offsets end at %lld, the file has %" PRIu64 " bytes of data; it is cut off or damaged",
                          (long long)end, st->size - st->area);
    if ((uint64_t)(end - begin) != t->bytes)
        return FAIL_ENTRY(st, err, t->name, "data_offsets hold %lld bytes, the shape needs %" PRIu64,
                          (long long)(end - begin), t->bytes);
    t->data = st->data + st->area + begin;
    return TR_OK;
}

static tr_status read_entry(const tr_safetensors *st, const char *name, const json_t *entry, tr_safetensors_tensor *t,
                            tr_error *err) {
    t->name = name;
    if (name[0] == 0) return FAIL_ENTRY(st, err, "(unnamed)", "%s", "the name is empty");
    if (!json_is_object(entry)) return FAIL_ENTRY(st, err, name, "%s", "the entry is not an object");
    if (json_object_size(entry) != 3)
        return FAIL_ENTRY(st, err, name, "%s",
                          "the entry has keys besides dtype, shape and data_offsets, or lacks one");
    TR_TRY(read_type(st, name, entry, &t->type, err));
    TR_TRY(read_shape(st, entry, t, err));
    return read_place(st, entry, t, err);
}

static int compare_place(const void *a, const void *b) {
    const tr_safetensors_tensor *x = a, *y = b;
    return (x->data > y->data) - (x->data < y->data);
}

static int compare_name(const void *a, const void *b) {
    return strcmp(((const tr_safetensors_tensor *)a)->name, ((const tr_safetensors_tensor *)b)->name);
}

/* Each tensor has at least one element, so equal starts are an overlap too. */
static tr_status check_cover(tr_safetensors *st, tr_error *err) {
    qsort(st->tensors, st->n, sizeof *st->tensors, compare_place);
    const uint8_t *next = st->data + st->area;
    for (uint32_t i = 0; i < st->n; i++) {
        const tr_safetensors_tensor *t = &st->tensors[i];
        if (t->data != next)
            return fail(st, err, (uint64_t)(t->data - st->data), "tensor %s %s", tr_safetensors_show(t->name).text,
                        t->data < next ? "overlaps another one" : "has unused bytes in front of it");
        next = t->data + t->bytes;
    }
    if (next != st->data + st->size)
        return fail(st, err, (uint64_t)(next - st->data), "%" PRIu64 " bytes behind the last tensor",
                    (uint64_t)(st->data + st->size - next));
    return TR_OK;
}

static tr_status read_entries(tr_safetensors *st, tr_error *err) {
    size_t n = json_object_size(st->header);
    const json_t *metadata = json_object_get(st->header, "__metadata__");
    if (metadata && !json_is_object(metadata)) return fail(st, err, LENGTH_BYTES, "__metadata__ is not an object");
    if (metadata) n--;
    if (n > TR_SAFETENSORS_MAX_TENSORS)
        return fail(st, err, LENGTH_BYTES, "%zu tensors, at most %d are allowed", n, TR_SAFETENSORS_MAX_TENSORS);
    st->tensors = calloc(n ? n : 1, sizeof *st->tensors);
    if (!st->tensors) return tr_error_set(err, TR_SYSTEM, "%s: out of memory for %zu tensors", st->name, n);
    const char *name;
    json_t *entry;
    json_object_foreach(st->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        TR_TRY(read_entry(st, name, entry, &st->tensors[st->n], err));
        st->n++;
    }
    TR_TRY(check_cover(st, err));
    qsort(st->tensors, st->n, sizeof *st->tensors, compare_name);
    return TR_OK;
}

/* The JSON parser spends some twenty bytes of memory on one of input, and recurses. A real header nests three deep, its
 * arrays are shapes and pairs of offsets, and its keys are bounded by the number of tensors; anything else is refused
 * here, before the parser sees it. Broken JSON that passes is the parser's to find. */
static tr_status check_header_form(const tr_safetensors *st, const uint8_t *p, uint64_t n, tr_error *err) {
    enum { MAX_DEPTH = 3, MAX_METADATA = 65536, MAX_KEYS = 4 * TR_SAFETENSORS_MAX_TENSORS + MAX_METADATA };
    int depth = 0, commas = 0, keys = 0;
    bool quoted = false, in_array = false;
    for (uint64_t i = 0; i < n; i++) {
        const char *excess = NULL;
        if (quoted) {
            quoted = p[i] != '"';
            if (p[i] == '\\') i++; /* the escaped byte never ends the string */
            continue;
        }
        switch (p[i]) {
        case '"': quoted = true; break;
        case '[':
        case '{':
            excess = in_array ? "nests in an array" : ++depth > MAX_DEPTH ? "nests more than three deep" : NULL;
            in_array = p[i] == '[';
            commas = 0;
            break;
        case ']': in_array = false; /* fall through */
        case '}': depth--; break;
        case ',':
            excess = in_array && ++commas >= TR_SAFETENSORS_MAX_DIMS ? "has an array of more than four" : NULL;
            break;
        case ':': excess = ++keys > MAX_KEYS ? "has too many keys" : NULL; break;
        default: break;
        }
        if (excess) return fail(st, err, LENGTH_BYTES + i, "the JSON header %s", excess);
    }
    return TR_OK;
}

static tr_status parse(tr_safetensors *st, tr_error *err) {
    uint64_t length;
    if (st->size < LENGTH_BYTES) return fail(st, err, 0, "%" PRIu64 " bytes are no safetensors file", st->size);
    memcpy(&length, st->data, LENGTH_BYTES);
    if (length > TR_SAFETENSORS_MAX_HEADER)
        return fail(st, err, 0, "header of %" PRIu64 " bytes, at most %d are allowed; is this a safetensors file?",
                    length, TR_SAFETENSORS_MAX_HEADER);
    if (!tr_checked_range(LENGTH_BYTES, length, st->size))
        return fail(st, err, 0, "header of %" PRIu64 " bytes ends behind the file, which has %" PRIu64, length,
                    st->size);
    const uint8_t *text = st->data + LENGTH_BYTES;
    if (length == 0 || text[0] != '{') return fail(st, err, LENGTH_BYTES, "the header does not start with '{'");
    TR_TRY(check_header_form(st, text, length, err));
    json_error_t why;
    st->header = json_loadb((const char *)text, (size_t)length, JSON_REJECT_DUPLICATES, &why);
    if (!st->header)
        return fail(st, err, LENGTH_BYTES + (why.position > 0 ? (uint64_t)why.position : 0), "bad JSON header: %s",
                    tr_safetensors_show(why.text).text);
    st->area = LENGTH_BYTES + length;
    return read_entries(st, err);
}

static tr_status open_bytes(const uint8_t *data, size_t size, tr_file_map map, const char *name, tr_safetensors **out,
                            tr_error *err) {
    tr_safetensors *st = calloc(1, sizeof *st);
    char *copy = st ? strdup(name) : NULL;
    if (!copy) {
        free(st);
        tr_file_map_close(&map);
        return tr_error_set(err, TR_SYSTEM, "%s: out of memory", name);
    }
    st->map = map;
    st->data = data;
    st->size = size;
    st->name = copy;
    tr_status s = parse(st, err);
    if (s != TR_OK) {
        tr_safetensors_close(&st);
        return s;
    }
    *out = st;
    return TR_OK;
}

tr_status tr_safetensors_open(const char *path, tr_safetensors **st_out, tr_error *err) {
    tr_file_map map;
    TR_TRY(tr_file_map_open(path, &map, err));
    return open_bytes(map.data, map.size, map, path, st_out, err);
}

tr_status tr_safetensors_open_buffer(const void *data, size_t size, const char *name, tr_safetensors **st_out,
                                     tr_error *err) {
    return open_bytes(data, size, (tr_file_map){NULL, 0}, name, st_out, err);
}

void tr_safetensors_close(tr_safetensors **st) {
    tr_safetensors *s = *st;
    *st = NULL;
    if (!s) return;
    tr_file_map_close(&s->map);
    json_decref(s->header);
    free(s->tensors);
    free(s->name);
    free(s);
}

const char *tr_safetensors_name(const tr_safetensors *st) { return st->name; }
uint32_t tr_safetensors_count(const tr_safetensors *st) { return st->n; }

const tr_safetensors_tensor *tr_safetensors_at(const tr_safetensors *st, uint32_t i) {
    tr_check(i < st->n);
    return &st->tensors[i];
}

const tr_safetensors_tensor *tr_safetensors_find(const tr_safetensors *st, const char *name) {
    tr_safetensors_tensor wanted = {.name = name};
    return bsearch(&wanted, st->tensors, st->n, sizeof wanted, compare_name);
}
