/* actors/cli/serve_report.h - figures of a serving benchmark from what was seen of each request. Pure but for printing.
 *   TTFT  request sent to first text        ITL   between two texts of a request (each usually one token)
 *   TPOT  (last - first text) / (output tokens - 1)      E2EL  request sent to end
 * as vLLM's benchmark defines them. Goodput: requests that meet every limit given (ITL: the request's 99th percentile).
 */
#ifndef TR_SERVE_REPORT_H
#define TR_SERVE_REPORT_H
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tr_serve_report_seen {
    bool ok;
    uint64_t due_ns, start_ns, first_ns, last_ns, end_ns; /* due: when the load wanted it */
    uint32_t prompt_tokens, output_tokens, cached_tokens;
    uint32_t n_gaps, gaps_room;
    float *gap_ms; /* [n_gaps], owned */
} tr_serve_report_seen;

enum { TR_SERVE_TTFT, TR_SERVE_ITL, TR_SERVE_TPOT, TR_SERVE_E2EL, TR_SERVE_TIMES };

typedef struct tr_serve_report_limits {
    double ms[TR_SERVE_TIMES]; /* 0: none */
} tr_serve_report_limits;
/* "ttft:200,itl:50,tpot:50,e2el:5000" in ms. TR_USAGE. */
tr_status tr_serve_report_limits_parse(const char *text, tr_serve_report_limits *out, tr_error *err);

typedef struct tr_serve_report_spread {
    double mean, p50, p90, p99, max;
    size_t n;
} tr_serve_report_spread;

typedef struct tr_serve_report {
    size_t requests, ok, good;
    double seconds, prompt_tokens, output_tokens, cached_tokens; /* seconds: first request to last end */
    tr_serve_report_spread time[TR_SERVE_TIMES];                 /* ms */
} tr_serve_report;

/* TR_SYSTEM: no memory. */
tr_status tr_serve_report_make(const tr_serve_report_seen *seen, size_t n, const tr_serve_report_limits *limits,
                               tr_serve_report *out, tr_error *err);
/* As print with json has it; the caller's. */
struct json_t *tr_serve_report_json(const tr_serve_report *r, const tr_serve_report_limits *limits);
/* form: md, json or csv. */
void tr_serve_report_print(const tr_serve_report *r, const tr_serve_report_limits *limits, const char *form);
#endif
