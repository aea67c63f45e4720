/* Encoder, size bounds and log line. Fields are reached through their offset in the struct (schema_table.h). */
#include "transport/codec.h"
#include "transport/schema_table.h"

#include <inttypes.h>
#include <math.h>
#include <msgpack/pack.h>
#include <stdio.h>
#include <string.h>

/* Largest msgpack heads: map, list, string; number. */
enum { HEAD_BYTES = 5, NUMBER_BYTES = 9 };

typedef union value {
    uint32_t u32;
    uint64_t u64;
    float f32;
    tr_str str;
    tr_bin bin;
    tr_u32v u32v;
    tr_realv realv;
    tr_strv strv;
    tr_spanv spanv;
} value;

static value load(const tr_schema_field *f, const void *record) {
    static const size_t sizes[] = {sizeof(uint32_t), sizeof(uint64_t), sizeof(float),   sizeof(float),
                                   sizeof(tr_str),   sizeof(tr_bin),   sizeof(tr_u32v), sizeof(tr_realv),
                                   sizeof(tr_strv),  sizeof(tr_spanv)};
    value v = {0};
    memcpy(&v, (const uint8_t *)record + f->offset, sizes[f->kind]);
    return v;
}

/* A zero value is not sent. */
static bool present(const tr_schema_field *f, value v) {
    switch (f->kind) {
    case TR_SCHEMA_u32: return v.u32 != 0;
    case TR_SCHEMA_u64: return v.u64 != 0;
    case TR_SCHEMA_f32:
    case TR_SCHEMA_real: return v.f32 != 0;
    default: return v.str.len != 0; /* all views begin alike */
    }
}
_Static_assert(offsetof(tr_str, len) == offsetof(tr_bin, len) && offsetof(tr_str, len) == offsetof(tr_u32v, len) &&
                   offsetof(tr_str, len) == offsetof(tr_realv, len) &&
                   offsetof(tr_str, len) == offsetof(tr_strv, len) && offsetof(tr_str, len) == offsetof(tr_spanv, len),
               "views begin alike");

static bool in_bounds(const tr_schema_field *f, value v) {
    switch (f->kind) {
    case TR_SCHEMA_u32: return f->bound == 0 || v.u32 <= f->bound;
    case TR_SCHEMA_u64: return f->bound == 0 || v.u64 <= f->bound;
    case TR_SCHEMA_f32: return isfinite(v.f32) && v.f32 >= 0 && (f->bound == 0 || v.f32 <= (float)f->bound);
    case TR_SCHEMA_real: return isfinite(v.f32) && (f->bound == 0 || fabsf(v.f32) <= (float)f->bound);
    case TR_SCHEMA_realv:
        if (v.realv.len > f->bound) return false;
        for (uint32_t i = 0; i < v.realv.len; i++)
            if (!isfinite(v.realv.data[i])) return false;
        return true;
    case TR_SCHEMA_str: return v.str.len <= f->bound && tr_codec_utf8_valid(v.str.data, v.str.len);
    case TR_SCHEMA_strv:
        if (v.strv.len > f->bound) return false;
        for (uint32_t i = 0; i < v.strv.len; i++) {
            const tr_str *s = &v.strv.data[i];
            if (s->len > TR_MAX_STOP_BYTES || !tr_codec_utf8_valid(s->data, s->len)) return false;
        }
        return true;
    default: return v.bin.len <= f->bound;
    }
}

static size_t record_bound(const tr_schema_record *r, const void *record);

static size_t value_bound(const tr_schema_field *f, value v) {
    size_t n = HEAD_BYTES;
    switch (f->kind) {
    case TR_SCHEMA_u32:
    case TR_SCHEMA_u64:
    case TR_SCHEMA_f32:
    case TR_SCHEMA_real: return NUMBER_BYTES;
    case TR_SCHEMA_str:
    case TR_SCHEMA_bin: return n + v.str.len;
    case TR_SCHEMA_u32v:
    case TR_SCHEMA_realv: return n + (size_t)v.u32v.len * 5;
    case TR_SCHEMA_strv:
        for (uint32_t i = 0; i < v.strv.len; i++) n += HEAD_BYTES + v.strv.data[i].len;
        return n;
    case TR_SCHEMA_spanv:
        for (uint32_t i = 0; i < v.spanv.len; i++) n += record_bound(tr_schema_table_span(), &v.spanv.data[i]);
        return n;
    }
    return n;
}

static size_t key_bytes(const tr_schema_field *f) { return f->name_len + (f->name_len < 32 ? 1 : 2); }

static size_t record_bound(const tr_schema_record *r, const void *record) {
    size_t n = HEAD_BYTES;
    for (uint32_t i = 0; i < r->n_fields; i++) {
        value v = load(&r->field[i], record);
        if (present(&r->field[i], v)) n += key_bytes(&r->field[i]) + value_bound(&r->field[i], v);
    }
    return n;
}

static size_t type_key_bytes(const tr_schema_record *r) { return 1 + 4 + 1 + r->name_len; }

size_t tr_codec_size_bound(const tr_msg *m) {
    const tr_schema_record *r = tr_schema_table_by_type(m->type);
    return r ? type_key_bytes(r) + record_bound(r, &m->as) : 0;
}

static size_t fields_bound(const tr_schema_record *r, uint32_t max_tokens, uint32_t max_spans) {
    size_t n = HEAD_BYTES;
    for (uint32_t i = 0; i < r->n_fields; i++) {
        const tr_schema_field *f = &r->field[i];
        size_t count = (size_t)f->bound;
        n += key_bytes(f);
        if (f->kind == TR_SCHEMA_u32v && f->bound >= TR_MAX_TOKENS && count > max_tokens) count = max_tokens;
        if (f->kind == TR_SCHEMA_spanv && count > max_spans) count = max_spans;
        switch (f->kind) {
        case TR_SCHEMA_str:
        case TR_SCHEMA_bin: n += HEAD_BYTES + count; break;
        case TR_SCHEMA_u32v:
        case TR_SCHEMA_realv: n += HEAD_BYTES + count * 5; break;
        case TR_SCHEMA_strv: n += HEAD_BYTES + count * (HEAD_BYTES + TR_MAX_STOP_BYTES); break;
        case TR_SCHEMA_spanv: n += HEAD_BYTES + count * fields_bound(tr_schema_table_span(), 0, 0); break;
        default: n += NUMBER_BYTES;
        }
    }
    return n;
}

size_t tr_codec_type_bound(tr_msg_type type, uint32_t max_tokens, uint32_t max_spans) {
    const tr_schema_record *r = tr_schema_table_by_type(type);
    return r ? type_key_bytes(r) + fields_bound(r, max_tokens, max_spans) : 0;
}

/* ---- encoder ---------------------------------------------------------------------------------------------------- */

typedef struct out_buffer {
    uint8_t *data;
    size_t cap, len;
} out_buffer;

static int put(void *ctx, const char *bytes, size_t n) {
    out_buffer *b = ctx;
    if (n > b->cap - b->len) return -1;
    memcpy(b->data + b->len, bytes, n);
    b->len += n;
    return 0;
}

static int pack_str(msgpack_packer *pk, const char *s, size_t len) {
    return msgpack_pack_str(pk, len) || (len != 0 && msgpack_pack_str_body(pk, s, len)) ? -1 : 0;
}

static tr_status pack_record(msgpack_packer *pk, const tr_schema_record *r, const void *record);

static tr_status pack_value(msgpack_packer *pk, const tr_schema_field *f, value v) {
    int bad = 0;
    switch (f->kind) {
    case TR_SCHEMA_u32: bad = msgpack_pack_uint32(pk, v.u32); break;
    case TR_SCHEMA_u64: bad = msgpack_pack_uint64(pk, v.u64); break;
    case TR_SCHEMA_f32:
    case TR_SCHEMA_real: bad = msgpack_pack_float(pk, v.f32); break;
    case TR_SCHEMA_str: bad = pack_str(pk, v.str.data, v.str.len); break;
    case TR_SCHEMA_bin:
        bad = msgpack_pack_bin(pk, v.bin.len) || msgpack_pack_bin_body(pk, v.bin.data, v.bin.len);
        break;
    case TR_SCHEMA_u32v:
        bad = msgpack_pack_array(pk, v.u32v.len);
        for (uint32_t i = 0; i < v.u32v.len && !bad; i++) bad = msgpack_pack_uint32(pk, v.u32v.data[i]);
        break;
    case TR_SCHEMA_realv:
        bad = msgpack_pack_array(pk, v.realv.len);
        for (uint32_t i = 0; i < v.realv.len && !bad; i++) bad = msgpack_pack_float(pk, v.realv.data[i]);
        break;
    case TR_SCHEMA_strv:
        bad = msgpack_pack_array(pk, v.strv.len);
        for (uint32_t i = 0; i < v.strv.len && !bad; i++) bad = pack_str(pk, v.strv.data[i].data, v.strv.data[i].len);
        break;
    case TR_SCHEMA_spanv:
        bad = msgpack_pack_array(pk, v.spanv.len);
        for (uint32_t i = 0; i < v.spanv.len && !bad; i++)
            TR_TRY(pack_record(pk, tr_schema_table_span(), &v.spanv.data[i]));
        break;
    }
    return bad ? TR_EXHAUSTED : TR_OK;
}

static tr_status pack_record(msgpack_packer *pk, const tr_schema_record *r, const void *record) {
    uint32_t n = r->type == TR_MSG_NONE ? 0 : 1;
    for (uint32_t i = 0; i < r->n_fields; i++) {
        value v = load(&r->field[i], record);
        if (!in_bounds(&r->field[i], v)) return TR_INVALID;
        if (present(&r->field[i], v)) n++;
    }
    if (msgpack_pack_map(pk, n)) return TR_EXHAUSTED;
    if (r->type != TR_MSG_NONE && (pack_str(pk, "type", 4) || pack_str(pk, r->name, r->name_len))) return TR_EXHAUSTED;
    for (uint32_t i = 0; i < r->n_fields; i++) {
        const tr_schema_field *f = &r->field[i];
        value v = load(f, record);
        if (!present(f, v)) continue;
        if (pack_str(pk, f->name, f->name_len)) return TR_EXHAUSTED;
        TR_TRY(pack_value(pk, f, v));
    }
    return TR_OK;
}

tr_status tr_codec_encode(const tr_msg *m, void *buf, size_t cap, size_t *len_out) {
    const tr_schema_record *r = tr_schema_table_by_type(m->type);
    if (!r) return TR_INVALID;
    out_buffer out = {.data = buf, .cap = cap};
    msgpack_packer pk;
    msgpack_packer_init(&pk, &out, put);
    TR_TRY(pack_record(&pk, r, &m->as));
    *len_out = out.len;
    return TR_OK;
}

/* ---- log line --------------------------------------------------------------------------------------------------- */

static size_t log_value(const tr_schema_field *f, value v, char *s, size_t cap) {
    int n = 0;
    switch (f->kind) {
    case TR_SCHEMA_u32: n = snprintf(s, cap, " %s=%" PRIu32, f->name, v.u32); break;
    case TR_SCHEMA_u64: n = snprintf(s, cap, " %s=%" PRIu64, f->name, v.u64); break;
    case TR_SCHEMA_f32:
    case TR_SCHEMA_real: n = snprintf(s, cap, " %s=%g", f->name, (double)v.f32); break;
    case TR_SCHEMA_str:
    case TR_SCHEMA_bin: n = snprintf(s, cap, " %s=<%" PRIu32 " bytes>", f->name, v.str.len); break;
    default: n = snprintf(s, cap, " %s=[%" PRIu32 "]", f->name, v.str.len); break;
    }
    return n < 0 ? 0 : (size_t)n;
}

const char *tr_codec_log(const tr_msg *m, char *s, size_t cap) {
    if (cap == 0) return s;
    const tr_schema_record *r = tr_schema_table_by_type(m->type);
    if (!r) {
        snprintf(s, cap, "unknown type=%d", (int)m->type);
        return s;
    }
    int head = snprintf(s, cap, "%s", r->name);
    size_t used = head < 0 ? 0 : (size_t)head;
    for (uint32_t i = 0; i < r->n_fields && used < cap; i++) {
        value v = load(&r->field[i], &m->as);
        if (present(&r->field[i], v)) used += log_value(&r->field[i], v, s + used, cap - used);
    }
    return s;
}
