#include "base/options_impl.h"

#include "base/options_foreign.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- command and environment ---------------------------------------------------------------------------------------
 */

tr_status tr_options_command(const char *name, tr_command *command_out, tr_error *err) {
    const char *best = NULL;
    unsigned d = 0;
    for (int c = 0; c < TR_COMMAND_COUNT; c++) {
        if (tr_command_rows[c].now) tr_options_nearer(name, tr_command_rows[c].name, &best, &d);
        if (strcmp(name, tr_command_rows[c].name) != 0) continue;
        if (!tr_command_rows[c].now)
            return tr_error_set(err, TR_UNAVAILABLE, "troupe %s is not available yet in this version", name);
        *command_out = (tr_command)c;
        return TR_OK;
    }
    if (tr_options_near(name, d))
        return tr_error_set(err, TR_USAGE, "unknown command '%.60s', did you mean '%s'?", name, best);
    return tr_error_set(err, TR_USAGE, "unknown command '%.60s': troupe --help lists the commands", name);
}

bool tr_options_variable(tr_option_id id, char name_out[64]) {
    const tr_option_row *row = &tr_option_rows[id];
    const char *from = *row->flag ? row->flag + 2 : row->key;
    bool kept = *row->key || (row->commands & TR_CMD_ASK) || id == TR_OPTION_NAME;
    if (!kept || row->type == TR_OPTION_TYPE_SIDE || id == TR_OPTION_FILE || id == TR_OPTION_SET ||
        id == TR_OPTION_HELP || id == TR_OPTION_VERSION)
        return false;
    size_t n = 0;
    for (const char *p = "TROUPE_"; *p; p++) name_out[n++] = *p;
    for (const char *p = from; *p && n < 63; p++)
        name_out[n++] = isalnum((unsigned char)*p) ? (char)toupper((unsigned char)*p) : '_';
    name_out[n] = 0;
    return true;
}

/* A key concerns every command that starts a company; a flag those that take it. */
static bool concerns(tr_option_id id, tr_command command) {
    uint32_t bit = 1u << command, mask = tr_option_rows[id].commands;
    return (mask & bit) || (*tr_option_rows[id].key && (bit & TR_CMD_COMPANY));
}

/* Variables that others read: log, kernels, test scripts. */
static bool foreign_variable(const char *name) {
    static const char *const known[] = {"TROUPE_LOG", "TROUPE_CPU", "TROUPE_BIN"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i]) == 0) return true;
    return strncmp(name, "TROUPE_TEST_", 12) == 0;
}

static tr_status add_stop(tr_options *o, tr_source source, const char *text, tr_error *err) {
    if (source < o->value[TR_OPTION_STOP_TEXT].source) return TR_OK;
    if (!*text || strlen(text) > 256)
        return tr_error_set(err, TR_USAGE, "--stop: a text of 1 to 256 bytes is possible");
    if (o->n_stops == TR_OPTIONS_STOPS_MAX)
        return tr_error_set(err, TR_USAGE, "--stop: at most %d texts", TR_OPTIONS_STOPS_MAX);
    char *copy = strdup(text);
    if (!copy) return tr_error_set(err, TR_UNAVAILABLE, "no memory");
    o->stop[o->n_stops++] = copy;
    o->value[TR_OPTION_STOP_TEXT].source = source;
    return TR_OK;
}

static tr_status one_variable(tr_options *o, const char *name, const char *value, bool *known_out, tr_error *err) {
    *known_out = foreign_variable(name);
    for (int id = 0; id < TR_OPTION_COUNT; id++) {
        char variable[64];
        if (!tr_options_variable((tr_option_id)id, variable) || strcmp(variable, name) != 0) continue;
        *known_out = true;
        if (!*value || !concerns((tr_option_id)id, o->command)) continue;
        if (id == TR_OPTION_STOP_TEXT)
            TR_TRY(add_stop(o, TR_SOURCE_ENVIRONMENT, value, err));
        else
            TR_TRY(tr_options_store(o, (tr_option_id)id, TR_SOURCE_ENVIRONMENT, name, value, "environment", TR_USAGE,
                                    err));
    }
    return TR_OK;
}

tr_status tr_options_environment(tr_options *o, char **environment, char unknown_out[256], tr_error *err) {
    unknown_out[0] = 0;
    for (char **e = environment; *e; e++) {
        char name[128];
        const char *equals = strchr(*e, '=');
        if (strncmp(*e, "TROUPE_", 7) != 0 || !equals || (size_t)(equals - *e) >= sizeof name) continue;
        memcpy(name, *e, (size_t)(equals - *e));
        name[equals - *e] = 0;
        bool known;
        TR_TRY(one_variable(o, name, equals + 1, &known, err));
        if (!known && !unknown_out[0]) snprintf(unknown_out, 256, "%s", name);
    }
    return TR_OK;
}

/* ---- flags ---------------------------------------------------------------------------------------------------------
 */

static tr_status unknown_flag(const tr_options *o, const char *flag, tr_error *err) {
#define X(name, hint)                                                                                                  \
    if (strcmp(flag, name) == 0)                                                                                       \
        return tr_error_set(err, strstr(hint, "not available yet") ? TR_UNAVAILABLE : TR_USAGE, "%s: %s", flag, hint);
    TR_FOREIGN_FLAGS(X)
#undef X
    const char *best = NULL;
    unsigned d = 0;
    for (int id = 0; id < TR_OPTION_COUNT; id++) {
        const tr_option_row *row = &tr_option_rows[id];
        if (!*row->flag) continue;
        if (strcmp(flag, row->flag) == 0)
            return tr_error_set(err, TR_USAGE, "%s is no option of troupe %s: troupe %s --help lists them", flag,
                                tr_command_rows[o->command].name, tr_command_rows[o->command].name);
        if (!(row->commands & (1u << o->command)) || tr_options_later(row)) continue;
        if (strlen(flag) == 3 && flag[1] == '-' && row->letter == flag[2])
            return tr_error_set(err, TR_USAGE, "unknown option %s, did you mean -%c?", flag, row->letter);
        tr_options_nearer(flag, row->flag, &best, &d);
    }
    if (best && tr_options_near(flag, d) && strlen(flag) > 2)
        return tr_error_set(err, TR_USAGE, "unknown option %.60s, did you mean %s?", flag, best);
    return tr_error_set(err, TR_USAGE, "unknown option %.60s: troupe %s --help lists them", flag,
                        tr_command_rows[o->command].name);
}

/* "pp=2,layers=6:6:6" into the keys of a section. */
static tr_status set_side(tr_options *o, const tr_option_row *row, const char *text, tr_error *err) {
    char copy[TR_OPTIONS_TEXT_MAX], *save = NULL;
    if (strlen(text) >= sizeof copy) return tr_error_set(err, TR_USAGE, "%s: longer than a line", row->flag);
    tr_options_touch_section(o, TR_SOURCE_FLAG, row->values);
    strcpy(copy, text);
    for (char *item = strtok_r(copy, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        char key[128], *equals = strchr(item, '=');
        if (!equals || equals == item || !equals[1])
            return tr_error_set(err, TR_USAGE, "%s: '%.60s' is not of the form key=value, as in %s", row->flag, item,
                                row->argument);
        *equals = 0;
        if (snprintf(key, sizeof key, "%s.%s", row->values, item) >= (int)sizeof key)
            return tr_error_set(err, TR_CONFIG, "%s: unknown key '%.60s'", row->flag, item);
        TR_TRY(tr_options_set_key(o, TR_SOURCE_FLAG, key, equals + 1, row->flag, err));
    }
    return TR_OK;
}

static tr_status set_any(tr_options *o, const char *text, tr_error *err) {
    char key[128];
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || (size_t)(equals - text) >= sizeof key)
        return tr_error_set(err, TR_USAGE, "--set: '%.60s' is not of the form key=value, as in --set decode.pp=2",
                            text);
    memcpy(key, text, (size_t)(equals - text));
    key[equals - text] = 0;
    return tr_options_set_key(o, TR_SOURCE_FLAG, key, equals + 1, "--set", err);
}

static tr_status take(tr_options *o, tr_option_id id, const char *name, const char *value, tr_error *err) {
    const tr_option_row *row = &tr_option_rows[id];
    if (row->type == TR_OPTION_TYPE_SIDE) return set_side(o, row, value, err);
    if (id == TR_OPTION_SET) return set_any(o, value, err);
    if (id == TR_OPTION_STOP_TEXT) return add_stop(o, TR_SOURCE_FLAG, value, err);
    if (id == TR_OPTION_BENCH_N && !tr_options_given(o, TR_OPTION_BENCH_P)) o->gen_first = true;
    return tr_options_store(o, id, TR_SOURCE_FLAG, name, value, "", TR_USAGE, err);
}

/* Option of this command with that spelling; letter 0: the long one, of n bytes. */
static tr_option_id find_flag(const tr_options *o, const char *flag, size_t n, char letter) {
    for (int id = 0; id < TR_OPTION_COUNT; id++) {
        const tr_option_row *row = &tr_option_rows[id];
        if (!(row->commands & (1u << o->command))) continue;
        if (letter ? row->letter == letter : strlen(row->flag) == n && strncmp(row->flag, flag, n) == 0)
            return (tr_option_id)id;
    }
    return TR_OPTION_COUNT;
}

static bool is_foreign(const char *flag) {
#define X(name, hint)                                                                                                  \
    if (strcmp(flag, name) == 0) return true;
    TR_FOREIGN_FLAGS(X)
#undef X
    return false;
}

/* One flag at argv[*i], with its value behind '=', behind the letter, or in the next word. */
static tr_status one_flag(tr_options *o, int argc, char **argv, int *i, tr_error *err) {
    const char *word = argv[*i], *value = NULL;
    char name[96];
    bool is_long = word[1] == '-';
    size_t n = is_long ? strcspn(word, "=") : 2;
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), word);
    if (!is_long && is_foreign(word)) return unknown_flag(o, word, err);
    tr_option_id id = find_flag(o, word, n, is_long ? 0 : word[1]);
    if (id == TR_OPTION_COUNT) return unknown_flag(o, is_long ? name : word, err);
    if (word[n]) value = word + n + is_long;
    if (tr_option_rows[id].type == TR_OPTION_TYPE_FLAG) {
        if (value && !is_long) return unknown_flag(o, word, err);
        return take(o, id, name, value ? value : "on", err);
    }
    if (!value) {
        if (*i + 1 >= argc)
            return tr_error_set(err, TR_USAGE, "%s needs a value: %s %s", name, name, tr_option_rows[id].argument);
        value = argv[++*i];
    }
    return take(o, id, name, value, err);
}

tr_status tr_options_parse(tr_options *o, int argc, char **argv, uint32_t max_positional, tr_error *err) {
    bool only_words = false;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (!only_words && strcmp(word, "--") == 0) {
            only_words = true;
        } else if (!only_words && word[0] == '-' && word[1]) {
            TR_TRY(one_flag(o, argc, argv, &i, err));
        } else {
            if (o->n_positional == max_positional || o->n_positional == TR_OPTIONS_POSITIONAL_MAX)
                return tr_error_set(err, TR_USAGE,
                                    "'%.60s' is one argument too many for troupe %s: put a text of several words in "
                                    "quotes",
                                    word, tr_command_rows[o->command].name);
            o->positional[o->n_positional++] = word;
        }
    }
    return TR_OK;
}
