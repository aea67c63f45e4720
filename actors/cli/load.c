#include "actors/cli/load.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/rng.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t clamp_length(double tokens, uint32_t most) {
    if (tokens < 1) return 1;
    return tokens > most ? most : (uint32_t)lround(tokens);
}

void tr_load_free(tr_load *load) {
    for (size_t i = 0; i < load->n; i++) free(load->request[i].block);
    free(load->request);
    *load = (tr_load){0};
}

/* ---- random ---------------------------------------------------------------------------------------------------------
 */

static double draw_normal(tr_rng *rng) {
    const double u = 1 - tr_rng_unit(rng), v = tr_rng_unit(rng);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static uint32_t draw_length(tr_rng *rng, uint32_t mean, const tr_load_want *want, uint32_t most) {
    double factor = 1;
    if (want->lengths == TR_LOAD_NORMAL) {
        factor = 1 + want->spread * draw_normal(rng);
    } else if (want->lengths == TR_LOAD_LOGNORMAL) {
        const double variance = log(1 + want->spread * want->spread);
        factor = exp(sqrt(variance) * draw_normal(rng) - variance / 2);
    } else {
        factor = 1 + want->spread * (2 * tr_rng_unit(rng) - 1);
    }
    return clamp_length(mean * factor, most);
}

/* Of the gamma distribution of that shape and mean 1 (Marsaglia and Tsang 2000). */
static double draw_gap(tr_rng *rng, double shape) {
    if (shape == 1) return -log(1 - tr_rng_unit(rng));
    const double k = shape < 1 ? shape + 1 : shape, d = k - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        const double x = draw_normal(rng), v = pow(1 + c * x, 3), u = 1 - tr_rng_unit(rng);
        if (v <= 0 || log(u) >= x * x / 2 + d - d * v + d * log(v)) continue;
        const double down = shape < 1 ? pow(1 - tr_rng_unit(rng), 1 / shape) : 1;
        return d * v * down / shape;
    }
}

static void draw_arrivals(tr_load *load, const tr_load_want *want) {
    tr_rng rng = {tr_rng_hash(want->seed, 1)};
    double at = 0;
    for (size_t i = 0; i < load->n; i++) {
        load->request[i].at_ns = (uint64_t)(at * (double)TR_NS_PER_S);
        at += draw_gap(&rng, want->burstiness > 0 ? want->burstiness : 1) / want->rate;
    }
}

tr_status tr_load_random(const tr_load_want *want, tr_load *out, tr_error *err) {
    tr_rng rng = {tr_rng_hash(want->seed, 2)};
    tr_load load = {calloc(want->n, sizeof(tr_load_request)), want->n};
    if (!load.request) return tr_error_set(err, TR_SYSTEM, "no memory for %zu requests", want->n);
    for (size_t i = 0; i < load.n; i++) {
        load.request[i].prompt = draw_length(&rng, want->prompt, want, want->prompt_max);
        load.request[i].output = draw_length(&rng, want->output, want, want->output_max);
    }
    if (want->rate > 0) draw_arrivals(&load, want);
    *out = load;
    return TR_OK;
}

/* ---- traces ---------------------------------------------------------------------------------------------------------
 */

typedef struct trace_row {
    double seconds, prompt, output;
    uint32_t n_blocks;
    uint64_t block[TR_LOAD_BLOCKS_MAX];
} trace_row;

/* "2023-11-16 18:15:46.6805900" counts within its month, which is as long as these traces may be; or plain seconds. */
static bool parse_time(const char *text, double *seconds) {
    int year, month, day, hour, minute;
    double s;
    if (sscanf(text, "%d-%d-%d%*1[ T]%d:%d:%lf", &year, &month, &day, &hour, &minute, &s) == 6)
        *seconds = ((day * 24.0 + hour) * 60 + minute) * 60 + s;
    else if (sscanf(text, "%lf", seconds) != 1)
        return false;
    return isfinite(*seconds) && *seconds >= 0;
}

/* TIMESTAMP,ContextTokens,GeneratedTokens: the three columns in this order. */
static bool parse_csv(char *line, trace_row *row) {
    char *save = NULL, *time = strtok_r(line, ",", &save), *prompt = strtok_r(NULL, ",", &save),
         *output = strtok_r(NULL, ",\r\n", &save);
    row->n_blocks = 0;
    return time && prompt && output && parse_time(time, &row->seconds) && sscanf(prompt, "%lf", &row->prompt) == 1 &&
           sscanf(output, "%lf", &row->output) == 1;
}

static bool parse_jsonl(char *line, trace_row *row) {
    double ms;
    json_t *root = json_loads(line, 0, NULL), *ids = NULL;
    bool ok = json_unpack(root, "{s:F, s:F, s:F, s?o}", "timestamp", &ms, "input_length", &row->prompt, "output_length",
                          &row->output, "hash_ids", &ids) == 0;
    row->seconds = ms / 1000;
    row->n_blocks = 0;
    for (size_t i = 0; ok && i < json_array_size(ids) && i < TR_LOAD_BLOCKS_MAX; i++)
        row->block[row->n_blocks++] = (uint64_t)json_integer_value(json_array_get(ids, i));
    json_decref(root);
    return ok && isfinite(row->seconds) && row->seconds >= 0;
}

static tr_status append(tr_load *load, size_t *room, const trace_row *row, const tr_load_want *want, tr_error *err) {
    if (load->n == *room) {
        size_t more = *room ? 2 * *room : 1024;
        tr_load_request *grown = realloc(load->request, more * sizeof *grown);
        if (!grown) return tr_error_set(err, TR_SYSTEM, "no memory for %zu requests", more);
        load->request = grown;
        *room = more;
    }
    tr_load_request *r = &load->request[load->n];
    *r = (tr_load_request){.at_ns = (uint64_t)(row->seconds * (double)TR_NS_PER_S),
                           .prompt = clamp_length(row->prompt * want->length_scale, want->prompt_max),
                           .output = clamp_length(row->output * want->length_scale, want->output_max),
                           .n_blocks = row->n_blocks};
    if (row->n_blocks) {
        r->block = malloc(row->n_blocks * sizeof *r->block);
        if (!r->block) return tr_error_set(err, TR_SYSTEM, "no memory for the trace");
        memcpy(r->block, row->block, row->n_blocks * sizeof *r->block);
    }
    load->n++;
    return TR_OK;
}

/* Times count from the first arrival; with a rate they are stretched so that it is the average. */
static void scale_times(tr_load *load, double rate) {
    uint64_t first = load->request[0].at_ns, last = load->request[load->n - 1].at_ns;
    double factor = 1;
    if (rate > 0 && last > first)
        factor = (double)(load->n - 1) / rate / ((double)(last - first) / (double)TR_NS_PER_S);
    for (size_t i = 0; i < load->n; i++)
        load->request[i].at_ns = (uint64_t)((double)(load->request[i].at_ns - first) * factor);
}

static tr_status read_rows(FILE *f, const char *path, const tr_load_want *want, tr_load *load, tr_error *err) {
    static trace_row row; /* large */
    const char *dot = strrchr(path, '.');
    bool csv = dot && strcmp(dot, ".csv") == 0;
    char *line = NULL;
    size_t line_room = 0, room = 0, number = 0, most = want->n && want->n < TR_LOAD_MAX ? want->n : TR_LOAD_MAX;
    tr_status status = TR_OK;
    while (status == TR_OK && load->n < most && getline(&line, &line_room, f) > 0) {
        bool header = ++number == 1 && csv, empty = line[strspn(line, " \t\r\n")] == 0;
        if (header || empty) continue;
        if (!(csv ? parse_csv(line, &row) : parse_jsonl(line, &row)))
            status = tr_error_set(err, TR_DATA, "%s:%zu: not a request of a trace (%s)", path, number,
                                  csv ? "TIMESTAMP,ContextTokens,GeneratedTokens"
                                      : "timestamp, input_length, output_length");
        else if (load->n && row.seconds * (double)TR_NS_PER_S < (double)load->request[load->n - 1].at_ns)
            status = tr_error_set(err, TR_DATA, "%s:%zu: earlier than the line before", path, number);
        else
            status = append(load, &room, &row, want, err);
    }
    free(line);
    if (status == TR_OK && load->n == 0) status = tr_error_set(err, TR_DATA, "%s: no requests in it", path);
    return status;
}

tr_status tr_load_trace(const char *path, const tr_load_want *want, tr_load *out, tr_error *err) {
    tr_load load = {0};
    FILE *f = fopen(path, "r");
    if (!f) return tr_error_set(err, TR_NO_INPUT, "cannot open the trace %s", path);
    tr_status status = read_rows(f, path, want, &load, err);
    fclose(f);
    if (status != TR_OK) {
        tr_load_free(&load);
        return status;
    }
    scale_times(&load, want->rate);
    *out = load;
    return TR_OK;
}

/* ---- prompts --------------------------------------------------------------------------------------------------------
 */

/* Words that common vocabularies hold as one token each, with the space before them. */
static const char *const words[] = {
    "time",  "year",   "people", "way",     "day",     "man",     "thing",    "woman",   "life",       "child",
    "world", "school", "state",  "family",  "student", "group",   "country",  "problem", "hand",       "part",
    "place", "case",   "week",   "company", "system",  "program", "question", "work",    "government", "number",
    "night", "point",  "home",   "water",   "room",    "mother",  "area",     "money",   "story",      "fact",
    "month", "lot",    "right",  "study",   "book",    "eye",     "job",      "word",    "business",   "issue",
    "side",  "kind",   "head",   "house",   "service", "friend",  "father",   "power",   "hour",       "game",
    "line",  "end",    "member", "law"};

char *tr_load_prompt(const tr_load *load, size_t i, uint64_t seed) {
    const tr_load_request *r = &load->request[i];
    enum { N_WORDS = sizeof words / sizeof *words, WORD_BYTES = 16 };
    char *text = malloc((size_t)r->prompt * WORD_BYTES + 1), *at = text;
    if (!text) return NULL;
    for (uint32_t w = 0; w < r->prompt; w++) {
        uint32_t b = w / TR_LOAD_BLOCK;
        uint64_t name = b < r->n_blocks ? tr_rng_hash(3, r->block[b]) : tr_rng_hash(4, tr_rng_hash(seed, i));
        const char *word = words[tr_rng_hash(name, w) % N_WORDS];
        size_t n = strlen(word);
        if (w) *at++ = ' ';
        memcpy(at, word, n);
        at += n;
    }
    *at = 0;
    return text;
}
