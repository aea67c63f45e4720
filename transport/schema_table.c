#include "transport/schema_table.h"

#include <string.h>

/* One function a record: its own scope gives the field macro a name for the struct that it describes. */
#define FIELD(kind, name, bound, doc)                                                                                  \
    {#name, sizeof #name - 1, TR_SCHEMA_##kind, (uint32_t)offsetof(self, name), (bound), doc},
#define RECORD(TABLE, lower, type, doc)                                                                                \
    static const tr_schema_record *record_##lower(void) {                                                              \
        typedef tr_msg_##lower self;                                                                                   \
        static const tr_schema_field field[] = {TR_FIELDS_##TABLE(FIELD)};                                             \
        _Static_assert(sizeof field / sizeof field[0] <= 64, "seen fields are a 64-bit set");                          \
        static const tr_schema_record record = {type, #lower, doc, sizeof #lower - 1, sizeof field / sizeof field[0],  \
                                                field};                                                                \
        return &record;                                                                                                \
    }

RECORD(SPAN, span, TR_MSG_NONE, "consecutive rows of one sequence, part of a step")
#define X(NAME, lower, id, doc) RECORD(NAME, lower, TR_MSG_##NAME, doc)
TR_MSGS(X)
#undef X

typedef const tr_schema_record *(*record_fn)(void);
static const record_fn records[TR_SCHEMA_TABLE_COUNT] = {
#define X(NAME, lower, id, doc) record_##lower,
    TR_MSGS(X)
#undef X
};

const tr_schema_record *tr_schema_table_at(uint32_t i) { return i < TR_SCHEMA_TABLE_COUNT ? records[i]() : NULL; }
const tr_schema_record *tr_schema_table_span(void) { return record_span(); }

const tr_schema_record *tr_schema_table_by_type(tr_msg_type type) {
    switch (type) {
#define X(NAME, lower, id, doc)                                                                                        \
    case TR_MSG_##NAME: return record_##lower();
        TR_MSGS(X)
#undef X
    case TR_MSG_NONE: break;
    }
    return NULL;
}

const tr_schema_record *tr_schema_table_by_name(const char *name, size_t len) {
    for (uint32_t i = 0; i < TR_SCHEMA_TABLE_COUNT; i++) {
        const tr_schema_record *r = records[i]();
        if (r->name_len == len && memcmp(r->name, name, len) == 0) return r;
    }
    return NULL;
}

const char *tr_schema_table_kind_name(tr_schema_kind kind) {
    static const char *const names[] = {"u32", "u64",      "f32",       "real",     "str",
                                        "bin", "u32 list", "real list", "str list", "span list"};
    return names[kind];
}
