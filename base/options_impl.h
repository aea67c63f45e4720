/* base/options_impl.h - what the files of base/options share. */
#ifndef TR_OPTIONS_IMPL_H
#define TR_OPTIONS_IMPL_H
#include "base/options.h"

typedef enum tr_option_type {
    TR_OPTION_TYPE_FLAG,
    TR_OPTION_TYPE_U32,
    TR_OPTION_TYPE_U64,
    TR_OPTION_TYPE_SIZE,
    TR_OPTION_TYPE_F64,
    TR_OPTION_TYPE_TEXT,
    TR_OPTION_TYPE_CHOICE,
    TR_OPTION_TYPE_LIST,
    TR_OPTION_TYPE_SIDE
} tr_option_type;

typedef struct tr_option_row {
    const char *key, *flag;
    char letter;
    tr_option_type type;
    uint64_t min, max, now;
    const char *dflt, *values, *argument;
    uint32_t commands;
    const char *help;
} tr_option_row;
extern const tr_option_row tr_option_rows[TR_OPTION_COUNT];

typedef struct tr_command_row {
    const char *name, *arguments, *help;
    int now;
} tr_command_row;
extern const tr_command_row tr_command_rows[TR_COMMAND_COUNT];

/* Check and store one value. name: as the user wrote it ("--threads", "decode.tp"); fault: status of a bad value;
 * where: "" or "FILE:LINE". */
tr_status tr_options_store(tr_options *o, tr_option_id id, tr_source source, const char *name, const char *text,
                           const char *where, tr_status fault, tr_error *err);
/* Text of at most n bytes, "did you mean": the nearer of best and candidate by edit distance to word. */
void tr_options_nearer(const char *word, const char *candidate, const char **best, unsigned *best_distance);
/* True when a distance is small enough to be worth a hint: one, or a third of the word. */
bool tr_options_near(const char *word, unsigned distance);
/* In the table only so that asking for it gets an answer. */
bool tr_options_later(const tr_option_row *row);
/* "TROUPE_KV_MEMORY" of an option; false when it has none. */
bool tr_options_variable(tr_option_id id, char name_out[64]);
#endif
