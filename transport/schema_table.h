/* transport/schema_table.h - the tables of transport/schema.h as data: what codec, log lines and docs/messages.md read.
 * One description a field (name, kind, place in the struct, bound); the codec interprets it, so that a new field or
 * message is one line in schema.h and nothing else. Constant data; threads: any. */
#ifndef TR_SCHEMA_TABLE_H
#define TR_SCHEMA_TABLE_H
#include "transport/schema.h"

#include <stddef.h>
#include <stdint.h>

typedef enum tr_schema_kind {
    TR_SCHEMA_u32,
    TR_SCHEMA_u64,
    TR_SCHEMA_f32,
    TR_SCHEMA_real,
    TR_SCHEMA_str,
    TR_SCHEMA_bin,
    TR_SCHEMA_u32v,
    TR_SCHEMA_realv,
    TR_SCHEMA_strv,
    TR_SCHEMA_spanv
} tr_schema_kind;

typedef struct tr_schema_field {
    const char *name;
    uint32_t name_len;
    tr_schema_kind kind;
    uint32_t offset; /* in the struct of the message or span */
    uint64_t bound;  /* as in schema.h; a number of bound 0 may have any value of its type */
    const char *doc;
} tr_schema_field;

typedef struct tr_schema_record {
    tr_msg_type type; /* TR_MSG_NONE: the span */
    const char *name, *doc;
    uint32_t name_len;
    uint32_t n_fields; /* at most 64 */
    const tr_schema_field *field;
} tr_schema_record;

/* Message i of TR_SCHEMA_TABLE_COUNT, in the order of schema.h. */
enum {
#define X(NAME, lower, id, doc) TR_SCHEMA_INDEX_##NAME,
    TR_MSGS(X)
#undef X
        TR_SCHEMA_TABLE_COUNT
};
const tr_schema_record *tr_schema_table_at(uint32_t i);
const tr_schema_record *tr_schema_table_span(void);

/* NULL: no such message. */
const tr_schema_record *tr_schema_table_by_type(tr_msg_type type);
const tr_schema_record *tr_schema_table_by_name(const char *name, size_t len);
const char *tr_schema_table_kind_name(tr_schema_kind kind);

#endif
