#include "base/options_impl.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const tr_option_row tr_option_rows[TR_OPTION_COUNT] = {
#define X(ID, key, flag, letter, type, min, max, now, dflt, values, arg, commands, help)                               \
    [TR_OPTION_##ID] = {key, flag, letter, TR_OPTION_TYPE_##type, min, max, now, dflt, values, arg, commands, help},
    TR_OPTIONS(X)
#undef X
};

const tr_command_row tr_command_rows[TR_COMMAND_COUNT] = {
#define X(NAME, name, now, args, help) [TR_COMMAND_##NAME] = {#name, args, help, now},
    TR_COMMANDS(X)
#undef X
};

/* ---- near names ----------------------------------------------------------------------------------------------------
 */

static unsigned distance(const char *a, const char *b) {
    enum { LONG = 63 };
    size_t n = strlen(a), m = strlen(b);
    unsigned row[LONG + 1];
    if (n > LONG || m > LONG) return 99;
    for (size_t j = 0; j <= m; j++) row[j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned above = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
            if (above + 1 < best) best = above + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
            diagonal = above;
        }
    }
    return row[m];
}

void tr_options_nearer(const char *word, const char *candidate, const char **best, unsigned *best_distance) {
    unsigned d = distance(word, candidate);
    if (*best && d >= *best_distance) return;
    *best = candidate;
    *best_distance = d;
}

bool tr_options_near(const char *word, unsigned d) {
    size_t third = (strlen(word) + 1) / 3;
    return d <= (third ? third : 1);
}

/* ---- values --------------------------------------------------------------------------------------------------------
 */

/* Where a message points to: "FILE:LINE: name" or "name". */
typedef struct at {
    const char *where, *colon, *name;
    tr_status fault;
} at;
#define AT(a) (a)->where, (a)->colon, (a)->name

static bool digits(const char *text, uint64_t *out, const char **end_out) {
    if (!isdigit((unsigned char)text[0])) return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno != 0) v = UINT64_MAX;
    *out = v;
    *end_out = end;
    return true;
}

static tr_status check_range(const tr_option_row *row, uint64_t v, const at *a, const char *text, tr_error *err) {
    if (row->max && (v < row->min || v > row->max))
        return tr_error_set(err, a->fault, "%s%s%s: %.60s is out of range, allowed is %llu to %llu", AT(a), text,
                            (unsigned long long)row->min, (unsigned long long)row->max);
    if (row->now && v > row->now)
        return tr_error_set(err, TR_UNAVAILABLE, "%s%s%s: %.60s is not available yet in this version, %llu is", AT(a),
                            text, (unsigned long long)row->now);
    return TR_OK;
}

static tr_status read_whole(const tr_option_row *row, const char *text, const at *a, tr_option_value *v,
                            tr_error *err) {
    const char *end;
    if (!digits(text, &v->number, &end) || *end)
        return tr_error_set(err, a->fault, "%s%s%s: '%.60s' is not a whole number", AT(a), text);
    return check_range(row, v->number, a, text, err);
}

static tr_status read_size(const tr_option_row *row, const char *text, const at *a, tr_option_value *v, tr_error *err) {
    static const char units[] = "KMGT";
    const char *end;
    bool ok = digits(text, &v->number, &end);
    if (ok && *end) {
        const char *unit = strchr(units, toupper((unsigned char)*end));
        unsigned shift = unit ? 10u * (unsigned)(unit - units + 1) : 0;
        end++;
        if (*end == 'i') end++;
        if (*end == 'B' || *end == 'b') end++;
        ok = unit && !*end;
        v->number = v->number > UINT64_MAX >> shift ? UINT64_MAX : v->number << shift;
    }
    if (!ok) return tr_error_set(err, a->fault, "%s%s%s: '%.60s' is not a size such as 512M or 2G", AT(a), text);
    return check_range(row, v->number, a, text, err);
}

static tr_status read_real(const tr_option_row *row, const char *text, const at *a, tr_option_value *v, tr_error *err) {
    char *end;
    errno = 0;
    v->real = strtod(text, &end);
    if (!*text || isspace((unsigned char)*text) || *end || errno != 0 || !isfinite(v->real))
        return tr_error_set(err, a->fault, "%s%s%s: '%.60s' is not a number", AT(a), text);
    if (v->real < (double)row->min || v->real > (double)row->max)
        return tr_error_set(err, a->fault, "%s%s%s: %.60s is out of range, allowed is %llu to %llu", AT(a), text,
                            (unsigned long long)row->min, (unsigned long long)row->max);
    return TR_OK;
}

static tr_status read_list(const tr_option_row *row, const char *text, const at *a, tr_option_value *v, tr_error *err) {
    v->n_list = 0;
    if (strcmp(text, "auto") == 0 && strcmp(row->dflt, "auto") == 0) return TR_OK;
    for (const char *p = text;; p++) {
        uint64_t n;
        if (!digits(p, &n, &p) || (*p && *p != ':' && *p != ','))
            return tr_error_set(err, a->fault, "%s%s%s: '%.60s' is not a list of numbers such as %s", AT(a), text,
                                *row->key ? "6:6:6" : "128,512");
        if (n > 131072 || v->n_list == row->max)
            return tr_error_set(err, a->fault, "%s%s%s: at most %llu numbers up to 131072", AT(a),
                                (unsigned long long)row->max);
        v->list[v->n_list++] = (uint32_t)n;
        if (!*p) return TR_OK;
    }
}

/* Is word one of "a|b|c" in [from, to)? */
static bool among(const char *from, const char *to, const char *word) {
    size_t n = strlen(word);
    for (const char *p = from; p < to;) {
        const char *bar = memchr(p, '|', (size_t)(to - p)), *end = bar ? bar : to;
        if ((size_t)(end - p) == n && n > 0 && memcmp(p, word, n) == 0) return true;
        p = end + 1;
    }
    return false;
}

static tr_status read_choice(const tr_option_row *row, const char *text, const at *a, tr_error *err) {
    const char *all = row->values, *end = all + strlen(all), *later = strchr(all, ';');
    const char *now_end = later ? later : end;
    if (among(all, now_end, text)) return TR_OK;
    if (later && among(later + 1, end, text))
        return now_end > all
                   ? tr_error_set(err, TR_UNAVAILABLE, "%s%s%s: %s is not available yet in this version, choose %.*s",
                                  AT(a), text, (int)(now_end - all), all)
                   : tr_error_set(err, TR_UNAVAILABLE, "%s%s%s is not available yet in this version: leave it out",
                                  AT(a));
    if (now_end == all) now_end = end;
    return tr_error_set(err, a->fault, "%s%s%s: '%.60s' is not one of %.*s", AT(a), text, (int)(now_end - all), all);
}

static tr_status read_flag(const char *text, const at *a, tr_option_value *v, tr_error *err) {
    static const char *const yes[] = {"1", "true", "on", "yes"}, *const no[] = {"0", "false", "off", "no"};
    for (size_t i = 0; i < 4; i++) {
        if (strcmp(text, yes[i]) == 0) return v->number = 1, TR_OK;
        if (strcmp(text, no[i]) == 0) return v->number = 0, TR_OK;
    }
    return tr_error_set(err, a->fault, "%s%s%s: '%.60s' is not on or off", AT(a), text);
}

static tr_status read_value(const tr_option_row *row, const char *text, const at *a, tr_option_value *v,
                            tr_error *err) {
    switch (row->type) {
    case TR_OPTION_TYPE_FLAG: return read_flag(text, a, v, err);
    case TR_OPTION_TYPE_U32:
    case TR_OPTION_TYPE_U64: return read_whole(row, text, a, v, err);
    case TR_OPTION_TYPE_SIZE: return read_size(row, text, a, v, err);
    case TR_OPTION_TYPE_F64: return read_real(row, text, a, v, err);
    case TR_OPTION_TYPE_CHOICE: return read_choice(row, text, a, err);
    case TR_OPTION_TYPE_LIST: return read_list(row, text, a, v, err);
    case TR_OPTION_TYPE_TEXT:
    case TR_OPTION_TYPE_SIDE: return TR_OK;
    }
    return TR_OK;
}

bool tr_options_later(const tr_option_row *row) { return strstr(row->help, "not available yet") != NULL; }

tr_status tr_options_store(tr_options *o, tr_option_id id, tr_source source, const char *name, const char *text,
                           const char *where, tr_status fault, tr_error *err) {
    const tr_option_row *row = &tr_option_rows[id];
    at a = {.where = where, .colon = *where ? ": " : "", .name = name, .fault = fault};
    if (strlen(text) >= TR_OPTIONS_TEXT_MAX)
        return tr_error_set(err, fault, "%s%s%s: longer than %d bytes", AT(&a), TR_OPTIONS_TEXT_MAX - 1);
    if (tr_options_later(row))
        return tr_error_set(err, TR_UNAVAILABLE, "%s%s%s is not available yet in this version: leave it out", AT(&a));
    if (strcmp(row->dflt, "local") == 0 && strcmp(text, "local") != 0)
        return tr_error_set(err, TR_UNAVAILABLE, "%s%s%s: hosts other than local are not available yet in this version",
                            AT(&a));
    tr_option_value v = {.source = source, .present = true};
    TR_TRY(read_value(row, text, &a, &v, err));
    tr_option_value *slot = &o->value[id];
    if (source < slot->source) return TR_OK; /* checked, but something stronger has spoken */
    v.text = strdup(text);
    if (!v.text) return tr_error_set(err, TR_UNAVAILABLE, "no memory");
    free(slot->text);
    *slot = v;
    return TR_OK;
}

void tr_options_init(tr_options *o, tr_command command) {
    memset(o, 0, sizeof *o);
    o->command = command;
    for (int id = 0; id < TR_OPTION_COUNT; id++) {
        const tr_option_row *row = &tr_option_rows[id];
        const at a = {.where = "", .colon = "", .name = "default", .fault = TR_INTERNAL};
        tr_error err = {0};
        if (!row->dflt[0] || row->type == TR_OPTION_TYPE_TEXT) continue;
        o->value[id].present = true;
        tr_check(read_value(row, row->dflt, &a, &o->value[id], &err) == TR_OK);
    }
}

void tr_options_fini(tr_options *o) {
    for (int id = 0; id < TR_OPTION_COUNT; id++) free(o->value[id].text);
    for (uint32_t i = 0; i < o->n_stops; i++) free(o->stop[i]);
    memset(o, 0, sizeof *o);
}

const char *tr_options_text(const tr_options *o, tr_option_id id) {
    return o->value[id].text ? o->value[id].text : tr_option_rows[id].dflt;
}

/* ---- keys ----------------------------------------------------------------------------------------------------------
 */

/* Equal, with '-' like '_'. */
static bool same_key(const char *a, const char *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((a[i] == '-' ? '_' : a[i]) != b[i] || !a[i]) return false;
    return true;
}

tr_option_id tr_options_find_key(const char *key) {
    size_t n = strlen(key);
    for (int id = 0; n > 0 && id < TR_OPTION_COUNT; id++)
        if (strlen(tr_option_rows[id].key) == n && same_key(key, tr_option_rows[id].key, n)) return (tr_option_id)id;
    return TR_OPTION_COUNT;
}

bool tr_options_is_number(tr_option_id id) {
    tr_option_type type = tr_option_rows[id].type;
    return type == TR_OPTION_TYPE_U32 || type == TR_OPTION_TYPE_U64 || type == TR_OPTION_TYPE_F64;
}

bool tr_options_takes_list(tr_option_id id) { return tr_option_rows[id].type == TR_OPTION_TYPE_LIST; }

bool tr_options_is_section(const char *key) {
    size_t n = strlen(key);
    for (int id = 0; n > 0 && id < TR_OPTION_COUNT; id++)
        if (strlen(tr_option_rows[id].key) > n && tr_option_rows[id].key[n] == '.' &&
            same_key(key, tr_option_rows[id].key, n))
            return true;
    return false;
}

/* A key below a known section: the near one, or all that there are. */
static tr_status unknown_of_section(const char *key, const char *section, const char *where, tr_error *err) {
    const char *best = NULL, *tail = key + strlen(section) + 1;
    unsigned d = 0;
    char all[256] = "";
    size_t n = strlen(section), used = 0;
    for (int id = 0; id < TR_OPTION_COUNT; id++) {
        const char *known = tr_option_rows[id].key;
        if (strncmp(known, section, n) != 0 || known[n] != '.' || tr_options_later(&tr_option_rows[id])) continue;
        tr_options_nearer(tail, known + n + 1, &best, &d);
        int more = snprintf(all + used, sizeof all - used, "%s%s", used ? ", " : "", known + n + 1);
        if (more > 0 && (size_t)more < sizeof all - used) used += (size_t)more;
    }
    if (best && tr_options_near(tail, d))
        return tr_error_set(err, TR_CONFIG, "%s: unknown key '%.60s', did you mean '%s.%s'?", where, key, section,
                            best);
    if (!best)
        return tr_error_set(err, TR_CONFIG, "%s: unknown key '%.60s': docs/options.md lists the keys", where, key);
    return tr_error_set(err, TR_CONFIG, "%s: unknown key '%.60s', the keys of %s are %s", where, key, section, all);
}

tr_status tr_options_unknown_key(const char *key, const char *where, tr_error *err) {
    const char *best = NULL, *end = strrchr(key, '.');
    char of[64] = "";
    if (end && (size_t)(end - key) < sizeof of) snprintf(of, sizeof of, "%.*s", (int)(end - key), key);
    if (tr_options_is_section(of)) return unknown_of_section(key, of, where, err);
    unsigned d = 0;
    char section[TR_OPTION_COUNT][32];
    for (int id = 0; id < TR_OPTION_COUNT; id++) {
        const char *known = tr_option_rows[id].key, *dot = strrchr(known, '.');
        if (!*known) continue;
        tr_options_nearer(key, known, &best, &d);
        if (!dot || strchr(key, '.')) continue;
        if (strcmp(key, dot + 1) == 0 && d > 0) best = known, d = 0; /* written without its section */
        snprintf(section[id], sizeof section[id], "%.*s", (int)(dot - known), known);
        tr_options_nearer(key, section[id], &best, &d);
    }
    if (best && tr_options_near(key, d))
        return tr_error_set(err, TR_CONFIG, "%s: unknown key '%.60s', did you mean '%s'?", where, key, best);
    return tr_error_set(err, TR_CONFIG, "%s: unknown key '%.60s': docs/options.md lists the keys", where, key);
}

tr_status tr_options_set_key(tr_options *o, tr_source source, const char *key, const char *value, const char *where,
                             tr_error *err) {
    tr_option_id id = tr_options_find_key(key);
    if (id == TR_OPTION_COUNT) {
        if (tr_options_is_section(key))
            return tr_error_set(err, TR_CONFIG, "%s: '%.60s' is a section: name a key of it, such as %.60s.KEY", where,
                                key, key);
        return tr_options_unknown_key(key, where, err);
    }
    return tr_options_store(o, id, source, tr_option_rows[id].key, value, where, TR_CONFIG, err);
}

tr_source tr_options_section_source(const tr_options *o, const char *section) {
    size_t n = strlen(section);
    tr_source best = TR_SOURCE_DEFAULT;
    for (int id = 0; id < TR_OPTION_COUNT; id++) {
        const char *key = tr_option_rows[id].key;
        if (strncmp(key, section, n) == 0 && key[n] == '.' && o->value[id].source > best) best = o->value[id].source;
    }
    return best;
}

void tr_options_touch_section(tr_options *o, tr_source source, const char *section) {
    size_t n = strlen(section);
    for (int id = 0; id < TR_OPTION_COUNT; id++) {
        const char *key = tr_option_rows[id].key;
        if (strncmp(key, section, n) != 0 || key[n] != '.' || o->value[id].source >= source) continue;
        o->value[id].source = source; /* the value itself stays: pp is 1 anyway */
        return;
    }
}
