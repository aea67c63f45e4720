/* Typed access to metadata. The bytes were checked by open (gguf.c, I1); what is left to check is that the type and the
 * range are those that the caller can use. */
#include "model/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const type_names[] = {
    [TR_GGUF_U8] = "u8",      [TR_GGUF_I8] = "i8",     [TR_GGUF_U16] = "u16", [TR_GGUF_I16] = "i16",
    [TR_GGUF_U32] = "u32",    [TR_GGUF_I32] = "i32",   [TR_GGUF_F32] = "f32", [TR_GGUF_BOOL] = "bool",
    [TR_GGUF_STR] = "string", [TR_GGUF_ARR] = "array", [TR_GGUF_U64] = "u64", [TR_GGUF_I64] = "i64",
    [TR_GGUF_F64] = "f64",
};

/* Part of a key that fits a message. */
#define KEY_ARG(kv) (int)((kv)->key.len < 80 ? (kv)->key.len : 80), (kv)->key.data

/* Value of an integer or boolean element as sign and magnitude; false for other types. */
static bool load_integer(tr_gguf_type type, const uint8_t *p, bool *negative, uint64_t *magnitude) {
    uint64_t raw = 0; /* little-endian bytes: a short copy is zero extension */
    memcpy(&raw, p, tr_gguf_type_bytes(type));
    int64_t v;
    switch (type) {
    case TR_GGUF_U8:
    case TR_GGUF_U16:
    case TR_GGUF_U32:
    case TR_GGUF_U64:
    case TR_GGUF_BOOL:
        *negative = false;
        *magnitude = raw;
        return true;
    case TR_GGUF_I8: v = (int8_t)raw; break;
    case TR_GGUF_I16: v = (int16_t)raw; break;
    case TR_GGUF_I32: v = (int32_t)raw; break;
    case TR_GGUF_I64: v = (int64_t)raw; break;
    default: return false;
    }
    *negative = v < 0;
    *magnitude = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    return true;
}

static tr_status wrong_type(const tr_gguf *g, const tr_gguf_kv *kv, const char *expected, tr_error *err) {
    return tr_gguf_fail(g, err, kv->offset, "key %.*s is %s%s, expected %s", KEY_ARG(kv),
                        kv->type == TR_GGUF_ARR ? "an array of " : "", type_names[kv->elem_type], expected);
}

/* The entry of key, or NULL with *found_out set to false. */
static const tr_gguf_kv *look(const tr_gguf *g, const char *key, bool *found_out) {
    const tr_gguf_kv *kv = tr_gguf_find(g, key);
    if (found_out) *found_out = kv != NULL;
    return kv;
}

tr_status tr_gguf_u32(const tr_gguf *g, const char *key, uint32_t *out, bool *found_out, tr_error *err) {
    const tr_gguf_kv *kv = look(g, key, found_out);
    if (!kv) return TR_OK;
    bool negative;
    uint64_t v;
    if (kv->type == TR_GGUF_BOOL || kv->type == TR_GGUF_ARR || kv->type == TR_GGUF_STR ||
        !load_integer(kv->type, kv->data, &negative, &v))
        return wrong_type(g, kv, "an integer", err);
    if (negative || v > UINT32_MAX)
        return tr_gguf_fail(g, err, kv->offset, "key %s is %s%" PRIu64 ", outside 0..4294967295", key,
                            negative ? "-" : "", v);
    *out = (uint32_t)v;
    return TR_OK;
}

tr_status tr_gguf_f32(const tr_gguf *g, const char *key, float *out, bool *found_out, tr_error *err) {
    const tr_gguf_kv *kv = look(g, key, found_out);
    if (!kv) return TR_OK;
    if (kv->type == TR_GGUF_F32) {
        memcpy(out, kv->data, 4);
        return TR_OK;
    }
    if (kv->type != TR_GGUF_F64) return wrong_type(g, kv, "a float", err);
    double d;
    memcpy(&d, kv->data, 8);
    *out = (float)d;
    return TR_OK;
}

tr_status tr_gguf_bool(const tr_gguf *g, const char *key, bool *out, bool *found_out, tr_error *err) {
    const tr_gguf_kv *kv = look(g, key, found_out);
    if (!kv) return TR_OK;
    if (kv->type != TR_GGUF_BOOL) return wrong_type(g, kv, "a boolean", err);
    *out = kv->data[0] != 0;
    return TR_OK;
}

/* The length in front of the bytes has been checked by open. */
static const uint8_t *load_text(const uint8_t *p, tr_gguf_text *out) {
    uint64_t len;
    memcpy(&len, p, 8);
    out->data = (const char *)p + 8;
    out->len = (size_t)len;
    return p + 8 + len;
}

tr_status tr_gguf_str(const tr_gguf *g, const char *key, tr_gguf_text *out, bool *found_out, tr_error *err) {
    const tr_gguf_kv *kv = look(g, key, found_out);
    if (!kv) return TR_OK;
    if (kv->type != TR_GGUF_STR) return wrong_type(g, kv, "a string", err);
    load_text(kv->data, out);
    return TR_OK;
}

tr_status tr_gguf_arr_begin(const tr_gguf *g, const char *key, tr_gguf_type elem_type, tr_gguf_arr *out,
                            bool *found_out, tr_error *err) {
    const tr_gguf_kv *kv = look(g, key, found_out);
    if (!kv) return TR_OK;
    if (kv->type != TR_GGUF_ARR || kv->elem_type != elem_type) {
        char expected[32];
        snprintf(expected, sizeof expected, "an array of %s", type_names[elem_type]);
        return wrong_type(g, kv, expected, err);
    }
    *out = (tr_gguf_arr){elem_type, kv->count, 0, kv->data};
    return TR_OK;
}

bool tr_gguf_arr_str(tr_gguf_arr *a, tr_gguf_text *out) {
    tr_check(a->elem_type == TR_GGUF_STR);
    if (a->index >= a->count) return false;
    a->next = load_text(a->next, out);
    a->index++;
    return true;
}

bool tr_gguf_arr_f32(tr_gguf_arr *a, float *out) {
    tr_check(a->elem_type == TR_GGUF_F32);
    if (a->index >= a->count) return false;
    memcpy(out, a->next, 4);
    a->next += 4;
    a->index++;
    return true;
}

bool tr_gguf_arr_i64(tr_gguf_arr *a, int64_t *out) {
    bool negative;
    uint64_t v;
    tr_check(tr_gguf_type_bytes(a->elem_type) != 0);
    if (a->index >= a->count) return false;
    tr_check(load_integer(a->elem_type, a->next, &negative, &v));
    *out = negative ? (int64_t)(0 - v) : v > INT64_MAX ? INT64_MAX : (int64_t)v;
    a->next += tr_gguf_type_bytes(a->elem_type);
    a->index++;
    return true;
}
