#include "actors/cli/cli_ask.h"

#include "base/clock.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POLL_MS = 100 };

void tr_cli_answer_fini(tr_cli_answer *a) {
    free(a->gap_ns);
    *a = (tr_cli_answer){0};
}

tr_status tr_cli_ask_code(uint32_t code) {
    switch (code) {
    case 64: return TR_USAGE;
    case 65: return TR_DATA;
    case 69: return TR_UNAVAILABLE;
    default: return TR_INTERNAL;
    }
}

tr_client_params tr_cli_ask_params(const tr_options *o, const char **stop) {
    for (uint32_t i = 0; i < o->n_stops; i++) stop[i] = o->stop[i];
    return (tr_client_params){.max_tokens = tr_options_u32(o, TR_OPTION_PREDICT),
                              .temperature = (float)tr_options_f64(o, TR_OPTION_TEMP),
                              .top_p = (float)tr_options_f64(o, TR_OPTION_TOP_P),
                              .top_k = tr_options_u32(o, TR_OPTION_TOP_K),
                              .min_p = (float)tr_options_f64(o, TR_OPTION_MIN_P),
                              .presence_penalty = (float)tr_options_f64(o, TR_OPTION_PRESENCE),
                              .frequency_penalty = (float)tr_options_f64(o, TR_OPTION_FREQUENCY),
                              .repetition_penalty = (float)tr_options_f64(o, TR_OPTION_REPETITION),
                              .min_tokens = tr_options_u32(o, TR_OPTION_MIN_TOKENS),
                              .seed = tr_options_u64(o, TR_OPTION_SEED),
                              .n = tr_options_u32(o, TR_OPTION_SAMPLES),
                              .stop = stop,
                              .n_stop = o->n_stops,
                              .ignore_eos = tr_options_flag(o, TR_OPTION_IGNORE_EOS),
                              .parse_special = tr_options_flag(o, TR_OPTION_SPECIAL),
                              .no_bos = tr_options_flag(o, TR_OPTION_NO_BOS)};
}

/* ---- streaming
 * ------------------------------------------------------------------------------------------------------- */

static void add_gap(tr_cli_answer *a, uint64_t ns) {
    if (a->n_gaps == a->cap_gaps) {
        uint32_t cap = a->cap_gaps ? 2 * a->cap_gaps : 256;
        uint64_t *more = realloc(a->gap_ns, cap * sizeof *more);
        if (!more) return; /* figures only */
        a->gap_ns = more;
        a->cap_gaps = cap;
    }
    a->gap_ns[a->n_gaps++] = ns;
}

/* Tokens that come together share the time since the last ones; before the first ones there is none to share. */
static void count_tokens(tr_cli_answer *a, uint32_t n) {
    uint64_t now = tr_clock_now_ns();
    if (n == 0) return;
    for (uint32_t i = 0; a->n_tokens && i < n; i++) add_gap(a, (now - a->last_ns) / n);
    if (a->n_tokens == 0) a->first_ns = now;
    a->last_ns = now;
    a->n_tokens += n;
}

/* Texts of several samples: one is shown as it comes, those behind it wait for its end. */
typedef struct samples {
    uint32_t n, shown;
    struct {
        char *text;
        size_t len, cap;
        bool ended;
    } of[TR_MAX_SAMPLES];
} samples;

static tr_status keep_text(samples *s, const tr_client_event *e, tr_error *err) {
    size_t need = s->of[e->sample].len + e->text_bytes;
    if (need > s->of[e->sample].cap) {
        size_t cap = 2 * need + 256;
        char *more = realloc(s->of[e->sample].text, cap);
        if (!more) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the text of sample %u", e->sample);
        s->of[e->sample].text = more;
        s->of[e->sample].cap = cap;
    }
    if (e->text_bytes) memcpy(s->of[e->sample].text + s->of[e->sample].len, e->text, e->text_bytes);
    s->of[e->sample].len = need;
    return TR_OK;
}

/* On to the next sample that has not ended, past those that have. */
static tr_status show_next(samples *s, tr_error *err) {
    while (s->of[s->shown].ended && s->shown + 1 < s->n) {
        char line[48];
        int n = snprintf(line, sizeof line, "\n--- sample %u ---\n", ++s->shown);
        TR_TRY(tr_cli_write(line, (size_t)n, err));
        if (s->of[s->shown].len) TR_TRY(tr_cli_write(s->of[s->shown].text, s->of[s->shown].len, err));
    }
    return TR_OK;
}

static tr_status show(samples *s, const tr_client_event *e, tr_error *err) {
    if (e->sample >= s->n) return TR_OK;
    if (e->sample != s->shown)
        TR_TRY(keep_text(s, e, err));
    else if (e->text_bytes)
        TR_TRY(tr_cli_write(e->text, e->text_bytes, err));
    s->of[e->sample].ended |= e->kind == TR_CLIENT_END;
    return show_next(s, err);
}

static tr_status on_event(const tr_client_event *e, tr_cli_answer *a, samples *s, bool *done, tr_error *err) {
    if (e->kind == TR_CLIENT_ERROR) {
        *done = true;
        return tr_error_set(err, tr_cli_ask_code(e->code), "%s", e->error ? e->error : "the request failed");
    }
    if (e->kind == TR_CLIENT_STATUS) return TR_OK;
    a->all_tokens += e->n_tokens;
    if (e->sample == 0) count_tokens(a, e->n_tokens);
    if (e->kind == TR_CLIENT_END && e->sample == 0) {
        a->finish = e->finish;
        a->prompt_tokens = e->prompt_tokens;
        a->cached_tokens = e->cached_tokens;
        a->ttft_ns = e->ttft_ns;
        a->total_ns = e->total_ns;
        a->handoff_ns = e->handoff_ns;
        a->handoff_bytes = e->handoff_bytes;
        a->visible_ns = e->visible_ns;
        a->saved_bytes = e->saved_bytes;
        snprintf(a->note, sizeof a->note, "%.*s", (int)e->note_bytes, e->note_bytes ? e->note : "");
    }
    *done = e->kind == TR_CLIENT_END && e->last;
    return show(s, e, err);
}

/* After a signal: the request's last words, at most a moment. */
static void abort_request(tr_client *client, uint64_t id, tr_cli_answer *a, samples *s) {
    uint64_t end = tr_clock_now_ns() + 200 * TR_NS_PER_MS;
    tr_client_abort(client, id);
    for (bool done = false; !done && tr_clock_now_ns() < end;) {
        tr_client_event e;
        tr_error err = {0};
        if (tr_client_poll(client, 20, &e, &err) == TR_OK && on_event(&e, a, s, &done, &err) != TR_OK) break;
    }
}

static tr_status stream(tr_client *client, uint64_t id, tr_cli_alive alive, void *arg, tr_cli_answer *a, samples *s,
                        tr_error *err) {
    for (bool done = false; !done;) {
        tr_client_event e;
        if (tr_cli_signalled()) {
            abort_request(client, id, a, s);
            return TR_CANCELLED;
        }
        tr_status status = tr_client_poll(client, POLL_MS, &e, err);
        if (status == TR_OK) status = on_event(&e, a, s, &done, err);
        if (status == TR_AGAIN) status = alive ? alive(arg, err) : TR_OK;
        TR_TRY(status);
    }
    return TR_OK;
}

tr_status tr_cli_ask(tr_client *client, const tr_client_params *params, tr_cli_alive alive, void *arg, tr_cli_answer *a,
                     tr_error *err) {
    uint64_t id = 0;
    samples s = {.n = params->n > 1 ? params->n : 1};
    *a = (tr_cli_answer){.prompt_tokens = (uint32_t)params->n_tokens, .n_samples = s.n};
    TR_TRY(tr_client_add(client, params, &id, err));
    tr_status status = stream(client, id, alive, arg, a, &s, err);
    for (uint32_t i = 0; i < s.n; i++) free(s.of[i].text);
    if (a->note[0] && status == TR_OK) tr_cli_say("%s", a->note);
    return status;
}

/* ---- table
 * ------------------------------------------------------------------------------------------------------------ */

char *tr_cli_ask_status(tr_client *client, int wait_ms, tr_error *err) {
    uint64_t id = 0, end = tr_clock_now_ns() + (uint64_t)wait_ms * TR_NS_PER_MS;
    bool asked = false;
    while (tr_clock_now_ns() < end) {
        tr_client_event e;
        if (!asked) asked = tr_client_status(client, &id) == TR_OK;
        tr_status status = tr_client_poll(client, 20, &e, err);
        if (status == TR_OK && e.kind == TR_CLIENT_STATUS && e.id == id) return strdup(e.json);
        if (status == TR_OK && e.kind == TR_CLIENT_ERROR && e.id == id) {
            tr_error_set(err, tr_cli_ask_code(e.code), "%s", e.error ? e.error : "status was refused");
            return NULL;
        }
        if (status < 0) return NULL;
    }
    tr_error_set(err, TR_UNAVAILABLE, "the company did not answer within %d ms", wait_ms);
    return NULL;
}

/* "0-3,8" from a JSON list. */
static void core_text(const json_t *cores, char *out, size_t cap) {
    size_t used = 0, n = json_array_size(cores);
    snprintf(out, cap, "-");
    for (size_t i = 0; i < n && used + 24 < cap; i++) {
        json_int_t from = json_integer_value(json_array_get(cores, i)), to = from;
        while (i + 1 < n && json_integer_value(json_array_get(cores, i + 1)) == to + 1) to++, i++;
        used += (size_t)snprintf(out + used, cap - used, to > from ? "%s%d-%d" : "%s%d", used ? "," : "", (int)from,
                                 (int)to);
    }
}

static void print_actor(FILE *out, const json_t *a) {
    char cores[256], pid[16] = "-", numa[16] = "-";
    core_text(json_object_get(a, "cores"), cores, sizeof cores);
    const json_t *p = json_object_get(a, "pid"), *n = json_object_get(a, "numa");
    if (json_is_integer(p)) snprintf(pid, sizeof pid, "%d", (int)json_integer_value(p));
    if (json_is_integer(n)) snprintf(numa, sizeof numa, "%d", (int)json_integer_value(n));
    const char *name = json_string_value(json_object_get(a, "name"));
    fprintf(out, "%-12s %8s  %-10s %4s %8.1f MiB\n", name ? name : "?", pid, cores, numa,
            (double)json_integer_value(json_object_get(a, "rss")) / (1 << 20));
}

void tr_cli_ask_print_actors(void *file, const char *json) {
    FILE *out = file;
    json_t *root = json_loads(json, 0, NULL), *a;
    size_t i;
    fprintf(out, "%-12s %8s  %-10s %4s %12s\n", "actor", "pid", "cores", "numa", "memory");
    json_array_foreach(json_object_get(root, "actors"), i, a) print_actor(out, a);
    json_decref(root);
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double ms(uint64_t ns) { return (double)ns / 1e6; }

/* Nearest rank: the smallest value that at least percent of n are not above. */
static uint64_t rank(const uint64_t *sorted, uint32_t n, uint32_t percent) {
    return sorted[((uint64_t)n * percent + 99) / 100 - 1];
}

bool tr_cli_ask_figures(const tr_cli_answer *a, tr_cli_figures *out) {
    uint32_t n = a->n_gaps;
    uint64_t sum = 0, *sorted = n ? malloc(n * sizeof *sorted) : NULL;
    if (!sorted) return false;
    memcpy(sorted, a->gap_ns, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_size);
    for (uint32_t i = 0; i < n; i++) sum += sorted[i];
    *out = (tr_cli_figures){.mean_ms = (double)sum / n / 1e6,
                            .p50_ms = ms(rank(sorted, n, 50)),
                            .p99_ms = ms(rank(sorted, n, 99)),
                            .tok_s = (double)n * 1e9 / (double)sum};
    free(sorted);
    return sum > 0;
}

static void print_figures(const tr_cli_answer *a) {
    tr_cli_figures f;
    static const char *const ends[] = {"interrupted", "stop", "length", "interrupted", "error"};
    fprintf(stderr, "%u prompt tokens", a->prompt_tokens);
    if (a->cached_tokens) fprintf(stderr, " (%u from the prefix cache)", a->cached_tokens);
    if (a->n_samples > 1) fprintf(stderr, ", %u generated in %u samples; the first:", a->all_tokens, a->n_samples);
    fprintf(stderr, "%s %u generated, ended by %s\n", a->n_samples > 1 ? "" : ",", a->n_tokens,
            ends[a->finish < 5 ? a->finish : 0]);
    if (a->ttft_ns) fprintf(stderr, "TTFT %.1f ms", ms(a->ttft_ns));
    bool gaps = tr_cli_ask_figures(a, &f);
    if (gaps)
        fprintf(stderr, "%sinter-token mean %.2f ms, p50 %.2f, p99 %.2f; %.1f tok/s", a->ttft_ns ? "; " : "", f.mean_ms,
                f.p50_ms, f.p99_ms, f.tok_s);
    if (a->ttft_ns || gaps) fputc('\n', stderr);
    if (a->saved_bytes) fprintf(stderr, "saved %" PRIu64 " bytes\n", a->saved_bytes);
    if (!a->handoff_bytes) return;
    double hidden = a->visible_ns < a->handoff_ns ? 100 - 100 * (double)a->visible_ns / (double)a->handoff_ns : 0;
    fprintf(stderr, "hand-off %.2f ms, %" PRIu64 " bytes; visible %.2f ms (%.0f %% hidden behind the prefill)\n",
            ms(a->handoff_ns), a->handoff_bytes, ms(a->visible_ns), hidden);
}

void tr_cli_ask_table(tr_client *client, const tr_cli_answer *a, int wait_ms) {
    tr_error err = {0};
    if (isatty(STDOUT_FILENO) && isatty(STDERR_FILENO)) fputc('\n', stderr);
    print_figures(a);
    char *json = tr_cli_ask_status(client, wait_ms, &err);
    if (json) tr_cli_ask_print_actors(stderr, json);
    free(json);
}
