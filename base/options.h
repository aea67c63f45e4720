/* base/options.h - values of all options (base/options_table.h) from their four sources.
 * Order: flag over environment over file over default; within one source the last wins. A value is checked against its
 * type and bounds when it is set, and the message says where it came from (a flag, a variable, FILE:LINE).
 * Errors: TR_USAGE (flags, environment), TR_CONFIG (file and --set), TR_UNAVAILABLE (known, but not in this version);
 * unknown names come with the nearest known one. Owns copies of all texts. Threads: one. */
#ifndef TR_OPTIONS_H
#define TR_OPTIONS_H
#include "base/options_table.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { TR_OPTIONS_TEXT_MAX = 1024, TR_OPTIONS_LIST_MAX = 64, TR_OPTIONS_STOPS_MAX = 16, TR_OPTIONS_POSITIONAL_MAX = 4 };

typedef enum tr_command {
#define X(NAME, name, now, args, help) TR_COMMAND_##NAME,
    TR_COMMANDS(X)
#undef X
        TR_COMMAND_COUNT
} tr_command;
enum {
#define X(NAME, name, now, args, help) TR_CMD_##NAME = 1 << TR_COMMAND_##NAME,
    TR_COMMANDS(X)
#undef X
        TR_CMD_ALL = (1 << TR_COMMAND_COUNT) - 1
};

typedef enum tr_option_id {
#define X(ID, key, flag, letter, type, min, max, now, dflt, values, arg, commands, help) TR_OPTION_##ID,
    TR_OPTIONS(X)
#undef X
        TR_OPTION_COUNT
} tr_option_id;

typedef enum tr_source { TR_SOURCE_DEFAULT, TR_SOURCE_FILE, TR_SOURCE_ENVIRONMENT, TR_SOURCE_FLAG } tr_source;

typedef struct tr_option_value {
    tr_source source;
    bool present; /* has a value at all */
    char *text;   /* as given; owned; NULL: none or default */
    uint64_t number;
    double real;
    uint32_t n_list, list[TR_OPTIONS_LIST_MAX];
} tr_option_value;

typedef struct tr_options {
    tr_command command;
    tr_option_value value[TR_OPTION_COUNT];
    uint32_t n_stops;
    char *stop[TR_OPTIONS_STOPS_MAX]; /* --stop texts */
    uint32_t n_positional;
    const char *positional[TR_OPTIONS_POSITIONAL_MAX]; /* point into argv */
    bool gen_first;                                    /* bench: the generation lengths were asked before the prompts */
} tr_options;

/* Defaults of the table for this command. */
void tr_options_init(tr_options *o, tr_command command);
void tr_options_fini(tr_options *o); /* idempotent */

/* Command of that name; TR_USAGE with the nearest one, TR_UNAVAILABLE for one that is to come. */
tr_status tr_options_command(const char *name, tr_command *command_out, tr_error *err);
/* Everything after the command. At most max_positional words that are no flags. */
tr_status tr_options_parse(tr_options *o, int argc, char **argv, uint32_t max_positional, tr_error *err);
/* TROUPE_* variables; one that is not known is named in `unknown` (empty text when all are known). */
tr_status tr_options_environment(tr_options *o, char **environment, char unknown_out[256], tr_error *err);
/* One key of a file (dotted, '-' equals '_'). where: "FILE:LINE". Weaker than what flags and environment have set. */
tr_status tr_options_set_key(tr_options *o, tr_source source, const char *key, const char *value, const char *where,
                             tr_error *err);
/* True when key is the beginning of known keys ("decode"). */
bool tr_options_is_section(const char *key);
/* Id of a key, or TR_OPTION_COUNT. */
tr_option_id tr_options_find_key(const char *key);
bool tr_options_is_number(tr_option_id id);
bool tr_options_takes_list(tr_option_id id);
/* TR_CONFIG: "WHERE: unknown key 'x', did you mean 'y'?" */
tr_status tr_options_unknown_key(const char *key, const char *where, tr_error *err);

static inline bool tr_options_given(const tr_options *o, tr_option_id id) {
    return o->value[id].source != TR_SOURCE_DEFAULT;
}
static inline bool tr_options_flag(const tr_options *o, tr_option_id id) { return o->value[id].number != 0; }
static inline uint32_t tr_options_u32(const tr_options *o, tr_option_id id) { return (uint32_t)o->value[id].number; }
static inline uint64_t tr_options_u64(const tr_options *o, tr_option_id id) { return o->value[id].number; }
static inline double tr_options_f64(const tr_options *o, tr_option_id id) { return o->value[id].real; }
/* Text as given or the default; "" where there is none. */
const char *tr_options_text(const tr_options *o, tr_option_id id);
/* Strongest source among the keys of a section ("decode"): TR_SOURCE_DEFAULT when none was given. */
tr_source tr_options_section_source(const tr_options *o, const char *section);
/* Mark a section as given though it sets nothing ("decode: {}", "--decode ''"). */
void tr_options_touch_section(tr_options *o, tr_source source, const char *section);

/* Help of one command, of all; the page docs/options.md. */
void tr_options_print_help(FILE *out, tr_command command);
void tr_options_print_overview(FILE *out);
void tr_options_print_docs(FILE *out);
#endif
