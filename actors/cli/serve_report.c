#include "actors/cli/serve_report.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[TR_SERVE_TIMES] = {"ttft", "itl", "tpot", "e2el"};
static const char *const titles[TR_SERVE_TIMES] = {"time to first token", "between tokens", "time of an output token",
                                                   "whole request"};

tr_status tr_serve_report_limits_parse(const char *text, tr_serve_report_limits *out, tr_error *err) {
    *out = (tr_serve_report_limits){0};
    for (const char *at = text; *at;) {
        size_t n = strcspn(at, ":"), k = 0;
        char *end;
        while (k < TR_SERVE_TIMES && (strlen(names[k]) != n || strncmp(at, names[k], n) != 0)) k++;
        double ms = at[n] ? strtod(at + n + 1, &end) : 0;
        if (k == TR_SERVE_TIMES || !(ms > 0) || (*end && *end != ','))
            return tr_error_set(err, TR_USAGE,
                                "--goodput %.80s: use ttft:MS, itl:MS, tpot:MS, e2el:MS with commas between", text);
        out->ms[k] = ms;
        at = *end ? end + 1 : end;
    }
    return TR_OK;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of sorted values: the smallest one that at least the share p of them do not exceed. */
static double percentile(const double *v, size_t n, double p) {
    size_t at = (size_t)(p * (double)n);
    return n == 0 ? 0 : v[at < n ? at : n - 1];
}

static tr_serve_report_spread spread(double *v, size_t n) {
    double sum = 0;
    qsort(v, n, sizeof *v, by_value);
    for (size_t i = 0; i < n; i++) sum += v[i];
    return (tr_serve_report_spread){.mean = n ? sum / (double)n : 0,
                                    .p50 = percentile(v, n, 0.5),
                                    .p90 = percentile(v, n, 0.9),
                                    .p99 = percentile(v, n, 0.99),
                                    .max = n ? v[n - 1] : 0,
                                    .n = n};
}

static double ms_between(uint64_t from, uint64_t to) { return to > from ? (double)(to - from) / 1e6 : 0; }

static double tpot(const tr_serve_report_seen *s) {
    return s->output_tokens > 1 ? ms_between(s->first_ns, s->last_ns) / (s->output_tokens - 1) : 0;
}

static bool good(const tr_serve_report_seen *s, const tr_serve_report_limits *limits, double *scratch) {
    for (uint32_t i = 0; i < s->n_gaps; i++) scratch[i] = s->gap_ms[i];
    double itl = spread(scratch, s->n_gaps).p99;
    const double value[TR_SERVE_TIMES] = {ms_between(s->start_ns, s->first_ns), itl, tpot(s),
                                          ms_between(s->start_ns, s->end_ns)};
    for (int k = 0; k < TR_SERVE_TIMES; k++)
        if (limits->ms[k] > 0 && value[k] > limits->ms[k]) return false;
    return s->ok;
}

tr_status tr_serve_report_make(const tr_serve_report_seen *seen, size_t n, const tr_serve_report_limits *limits,
                               tr_serve_report *out, tr_error *err) {
    size_t gaps = 0, k[TR_SERVE_TIMES] = {0};
    for (size_t i = 0; i < n; i++) gaps += seen[i].n_gaps;
    size_t room = gaps > n ? gaps : n;
    double *v = malloc((TR_SERVE_TIMES + 1) * (room + 1) * sizeof *v), *list[TR_SERVE_TIMES];
    if (!v) return tr_error_set(err, TR_SYSTEM, "no memory for the figures of %zu requests", n);
    for (int t = 0; t < TR_SERVE_TIMES; t++) list[t] = v + (size_t)(t + 1) * (room + 1);
    uint64_t first = UINT64_MAX, last = 0;
    *out = (tr_serve_report){.requests = n};
    for (size_t i = 0; i < n; i++) {
        const tr_serve_report_seen *s = &seen[i];
        if (s->start_ns && s->start_ns < first) first = s->start_ns;
        if (s->end_ns > last) last = s->end_ns;
        if (!s->ok) continue;
        out->ok++;
        out->good += good(s, limits, v);
        out->prompt_tokens += s->prompt_tokens;
        out->output_tokens += s->output_tokens;
        out->cached_tokens += s->cached_tokens;
        list[TR_SERVE_TTFT][k[TR_SERVE_TTFT]++] = ms_between(s->start_ns, s->first_ns);
        list[TR_SERVE_E2EL][k[TR_SERVE_E2EL]++] = ms_between(s->start_ns, s->end_ns);
        if (s->output_tokens > 1) list[TR_SERVE_TPOT][k[TR_SERVE_TPOT]++] = tpot(s);
        for (uint32_t g = 0; g < s->n_gaps; g++) list[TR_SERVE_ITL][k[TR_SERVE_ITL]++] = s->gap_ms[g];
    }
    for (int t = 0; t < TR_SERVE_TIMES; t++) out->time[t] = spread(list[t], k[t]);
    out->seconds = last > first ? (double)(last - first) / 1e9 : 0;
    free(v);
    return TR_OK;
}

static double rate(double what, double seconds) { return seconds > 0 ? what / seconds : 0; }

json_t *tr_serve_report_json(const tr_serve_report *r, const tr_serve_report_limits *limits) {
    json_t *root = json_pack("{s:I,s:I,s:I,s:f,s:f,s:f,s:f,s:f,s:f}", "requests", (json_int_t)r->requests, "completed",
                             (json_int_t)r->ok, "good", (json_int_t)r->good, "seconds", r->seconds, "requests_per_s",
                             rate((double)r->ok, r->seconds), "goodput_per_s", rate((double)r->good, r->seconds),
                             "prompt_tok_s", rate(r->prompt_tokens, r->seconds), "output_tok_s",
                             rate(r->output_tokens, r->seconds), "cached_tokens", r->cached_tokens);
    json_object_set_new(root, "output_tokens", json_real(r->output_tokens));
    for (int t = 0; t < TR_SERVE_TIMES; t++) {
        const tr_serve_report_spread *s = &r->time[t];
        json_t *row = json_pack("{s:f,s:f,s:f,s:f,s:f}", "mean", s->mean, "p50", s->p50, "p90", s->p90, "p99", s->p99,
                                "max", s->max);
        if (limits->ms[t] > 0) json_object_set_new(row, "limit", json_real(limits->ms[t]));
        char key[16];
        snprintf(key, sizeof key, "%s_ms", names[t]);
        json_object_set_new(root, key, row);
    }
    return root;
}

static void print_json(const tr_serve_report *r, const tr_serve_report_limits *limits) {
    json_t *root = tr_serve_report_json(r, limits);
    char *text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (text) puts(text);
    free(text);
    json_decref(root);
}

static void print_md(const tr_serve_report *r, const tr_serve_report_limits *limits) {
    bool limited = false;
    puts("| ms | mean | p50 | p90 | p99 | max |\n|---|---|---|---|---|---|");
    for (int t = 0; t < TR_SERVE_TIMES; t++) {
        const tr_serve_report_spread *s = &r->time[t];
        limited |= limits->ms[t] > 0;
        printf("| %s (%s) | %.2f | %.2f | %.2f | %.2f | %.2f |\n", titles[t], names[t], s->mean, s->p50, s->p90, s->p99,
               s->max);
    }
    printf("\n%zu of %zu requests in %.2f s: %.2f requests/s, %.1f output tok/s, %.1f prompt tok/s", r->ok, r->requests,
           r->seconds, rate((double)r->ok, r->seconds), rate(r->output_tokens, r->seconds),
           rate(r->prompt_tokens, r->seconds));
    if (r->cached_tokens > 0) printf(", %.0f prompt tokens from the prefix cache", r->cached_tokens);
    if (limited)
        printf("\ngoodput: %.2f requests/s (%.1f %% of the requests within the limits)",
               rate((double)r->good, r->seconds), r->requests ? 100.0 * (double)r->good / (double)r->requests : 0.0);
    puts("");
}

static void print_csv(const tr_serve_report *r) {
    puts(
        "requests,completed,good,seconds,output_tok_s,prompt_tok_s,ttft_p50,ttft_p99,itl_p50,itl_p99,tpot_p50,tpot_p99,"
        "e2el_p50,e2el_p99");
    printf("%zu,%zu,%zu,%.3f,%.3f,%.3f", r->requests, r->ok, r->good, r->seconds, rate(r->output_tokens, r->seconds),
           rate(r->prompt_tokens, r->seconds));
    for (int t = 0; t < TR_SERVE_TIMES; t++) printf(",%.3f,%.3f", r->time[t].p50, r->time[t].p99);
    puts("");
}

void tr_serve_report_print(const tr_serve_report *r, const tr_serve_report_limits *limits, const char *form) {
    if (strcmp(form, "json") == 0)
        print_json(r, limits);
    else if (strcmp(form, "csv") == 0)
        print_csv(r);
    else
        print_md(r, limits);
}
