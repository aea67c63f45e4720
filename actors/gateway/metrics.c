#include "actors/gateway/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Those of vLLM (vllm/v1/metrics/loggers.py: names and bounds are its interface). */
static const double bounds_TTFT[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                     1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
static const double bounds_ITL[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                                    0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80};
static const double bounds_LATENCY[] = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                        30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
static const double bounds_TOKENS[] = {1,   2,    5,    10,   20,    50,    100,   200,
                                       500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

#define BOUNDS_NONE    NULL, 0
#define BOUNDS(list)   list, sizeof list / sizeof *list
#define BOUNDS_TTFT    BOUNDS(bounds_TTFT)
#define BOUNDS_ITL     BOUNDS(bounds_ITL)
#define BOUNDS_LATENCY BOUNDS(bounds_LATENCY)
#define BOUNDS_TOKENS  BOUNDS(bounds_TOKENS)
static const tr_metrics_row rows[] = {
#define M(id, name, type, labels, buckets, help) {name, labels, help, TR_METRICS_##type, BOUNDS_##buckets},
    TR_METRICS(M)
#undef M
};
static const char *const type_names[] = {"gauge", "counter", "histogram"};

const tr_metrics_row *tr_metrics_about(tr_metrics_id id) { return &rows[id]; }

void tr_metrics_observe(tr_metrics_histogram *h, tr_metrics_id id, double value, uint64_t times) {
    uint32_t i = 0;
    while (i < rows[id].n_bounds && value > rows[id].bounds[i]) i++;
    h->count[i] += times;
    h->sum += value * (double)times;
}

void tr_metrics_family(FILE *f, tr_metrics_id id) {
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", rows[id].name, rows[id].help, rows[id].name, type_names[rows[id].type]);
}

void tr_metrics_label(char *out, size_t room, const char *name, const char *value) {
    size_t n = (size_t)snprintf(out, room, "%s=\"", name);
    for (; *value && n + 4 < room; value++) {
        const char escaped = *value == '\n' ? 'n' : *value;
        if (*value == '"' || *value == '\\' || *value == '\n') out[n++] = '\\';
        out[n++] = escaped;
    }
    snprintf(out + n, room - n, "\"");
}

/* Whole numbers as such, whatever their size. */
static void put_value(FILE *f, double value) {
    if (value == floor(value) && fabs(value) < 9e15)
        fprintf(f, " %.0f\n", value);
    else
        fprintf(f, " %.9f\n", value);
}

void tr_metrics_sample(FILE *f, tr_metrics_id id, const char *label, double value) {
    fputs(rows[id].name, f);
    if (label[0]) fprintf(f, "{%s}", label);
    put_value(f, value);
}

void tr_metrics_histogram_samples(FILE *f, tr_metrics_id id, const char *label, const tr_metrics_histogram *h) {
    const tr_metrics_row *r = &rows[id];
    const char *comma = label[0] ? "," : "";
    uint64_t n = 0;
    for (uint32_t i = 0; i < r->n_bounds; i++) {
        n += h->count[i];
        fprintf(f, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", r->name, label, comma, r->bounds[i], n);
    }
    n += h->count[r->n_bounds];
    fprintf(f, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", r->name, label, comma, n);
    fprintf(f, "%s_sum%s%s%s %.9f\n", r->name, label[0] ? "{" : "", label, label[0] ? "}" : "", h->sum);
    fprintf(f, "%s_count%s%s%s %" PRIu64 "\n", r->name, label[0] ? "{" : "", label, label[0] ? "}" : "", n);
}

void tr_metrics_document(FILE *f) {
    fputs("# Metrics\n\nMade from actors/gateway/metrics.h by `ninja docs_metrics`. `GET /metrics` of the gateway "
          "answers in Prometheus text;\nwith API keys on it wants one. Names that begin with `vllm:` have vLLM's "
          "meaning, labels (`model_name`) and buckets, so\nthat its dashboards work; a dashboard with ours is "
          "[grafana.json](grafana.json). Latencies and token counts are those of\nrequests that came by HTTP; the "
          "other metrics are the company's.\n\n| name | type | labels | meaning |\n|---|---|---|---|\n",
          f);
    for (uint32_t i = 0; i < TR_METRICS_END; i++) {
        const char *model = strncmp(rows[i].name, "vllm:", 5) == 0 ? "model_name" : "";
        fprintf(f, "| `%s` | %s | %s%s%s | %s |\n", rows[i].name, type_names[rows[i].type], model,
                model[0] && rows[i].labels[0] ? ", " : "", rows[i].labels, rows[i].help);
    }
    fputs("\n## Buckets\n| histogram | upper bounds |\n|---|---|\n", f);
    for (uint32_t i = 0; i < TR_METRICS_END; i++) {
        if (rows[i].type != TR_METRICS_HISTOGRAM) continue;
        fprintf(f, "| `%s` |", rows[i].name);
        for (uint32_t b = 0; b < rows[i].n_bounds; b++) fprintf(f, " %g", rows[i].bounds[b]);
        fputs(" |\n", f);
    }
}
