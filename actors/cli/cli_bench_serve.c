/* troupe bench serve: load from outside, through HTTP, on a running troupe or any OpenAI-compatible server. One thread,
 * one connection a request; a request begins at its time and never waits for another one, unless --max-concurrency says
 * so. */
#include "actors/cli/cli_bench.h"
#include "actors/cli/http_stream.h"
#include "actors/cli/load_options.h"
#include "actors/cli/serve_report.h"
#include "base/clock.h"

#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ACTIVE_MAX = 1024, ASK_SECONDS = 10 };

typedef struct active {
    tr_http_stream stream;
    tr_serve_report_seen *seen; /* NULL: free */
} active;

typedef struct bench {
    tr_http_stream_server server;
    tr_load load;
    tr_serve_report_seen *seen; /* [load.n] */
    tr_serve_report_limits limits;
    uint64_t began_ns, seed;
    uint32_t concurrency, n_active;
    size_t next, ended, failed;
    char model[256], first_error[300];
    active *slot; /* [concurrency] */
} bench;

/* ---- what a server says ---------------------------------------------------------------------------------------------
 */

static void take_error(bench *b, const char *text) {
    if (!b->first_error[0]) snprintf(b->first_error, sizeof b->first_error, "%s", text);
}

static bool has_text(const json_t *event) {
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    const char *text = json_string_value(json_object_get(choice, "text"));
    return text && text[0];
}

static void take_usage(tr_serve_report_seen *s, const json_t *usage) {
    const json_t *cached = json_object_get(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
    if (!json_is_object(usage)) return;
    s->prompt_tokens = (uint32_t)json_integer_value(json_object_get(usage, "prompt_tokens"));
    s->output_tokens = (uint32_t)json_integer_value(json_object_get(usage, "completion_tokens"));
    s->cached_tokens = (uint32_t)json_integer_value(cached);
}

static void take_text(tr_serve_report_seen *s, uint64_t now) {
    if (s->first_ns == 0) {
        s->first_ns = s->last_ns = now;
        return;
    }
    if (s->n_gaps == s->gaps_room) {
        uint32_t room = s->gaps_room ? 2 * s->gaps_room : 64;
        float *grown = realloc(s->gap_ms, room * sizeof *grown);
        if (!grown) return; /* the request ends as any; only its gaps are cut */
        s->gap_ms = grown;
        s->gaps_room = room;
    }
    s->gap_ms[s->n_gaps++] = (float)(now - s->last_ns) / 1e6f;
    s->last_ns = now;
}

typedef struct reader {
    bench *b;
    tr_serve_report_seen *seen;
    uint64_t now;
} reader;

static void on_line(void *context, tr_http_stream *stream, char *line, size_t bytes) {
    reader *r = context;
    bool event = strncmp(line, "data:", 5) == 0, refused = stream->status != 200;
    if (bytes == 0 || (!event && !refused)) return;
    if (refused) {
        take_error(r->b, line);
        return;
    }
    const char *text = line + 5 + strspn(line + 5, " ");
    if (strcmp(text, "[DONE]") == 0) return;
    json_t *root = json_loads(text, 0, NULL);
    if (json_object_get(root, "error")) {
        take_error(r->b, text);
        r->seen->ok = false;
    } else {
        if (has_text(root)) take_text(r->seen, r->now);
        take_usage(r->seen, json_object_get(root, "usage"));
    }
    json_decref(root);
}

/* ---- requests -------------------------------------------------------------------------------------------------------
 */

static char *request_body(const bench *b, size_t i) {
    char *prompt = tr_load_prompt(&b->load, i, b->seed);
    json_t *root = json_pack("{s:s, s:s?, s:I, s:i, s:b, s:b, s:{s:b}}", "model", b->model, "prompt", prompt,
                             "max_tokens", (json_int_t)b->load.request[i].output, "temperature", 0, "ignore_eos", 1,
                             "stream", 1, "stream_options", "include_usage", 1);
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    free(prompt);
    return text;
}

static void start(bench *b, uint64_t now) {
    active *a = b->slot;
    while (a->seen) a++;
    size_t i = b->next++;
    char *body = request_body(b, i);
    a->seen = &b->seen[i];
    *a->seen = (tr_serve_report_seen){.ok = true, .due_ns = b->began_ns + b->load.request[i].at_ns, .start_ns = now};
    tr_http_stream_open(&a->stream, &b->server, "POST", "/completions", body ? body : "");
    free(body);
    b->n_active++;
}

static void end(bench *b, active *a, uint64_t now) {
    tr_serve_report_seen *s = a->seen;
    s->end_ns = now;
    if (a->stream.state == TR_HTTP_STREAM_FAILED) take_error(b, a->stream.error);
    s->ok &= a->stream.state == TR_HTTP_STREAM_ENDED && a->stream.status == 200 && s->first_ns != 0;
    if (s->output_tokens == 0) s->output_tokens = s->n_gaps + 1; /* a server without usage in its streams */
    b->failed += !s->ok;
    b->ended++;
    b->n_active--;
    tr_http_stream_close(&a->stream);
    a->seen = NULL;
}

static void turn(bench *b, active *a) {
    reader r = {b, a->seen, tr_clock_now_ns()};
    tr_http_stream_turn(&a->stream, on_line, &r);
    if (a->stream.state >= TR_HTTP_STREAM_ENDED) end(b, a, tr_clock_now_ns());
}

/* Milliseconds until the next request is due; -1: no more to come, or no place for it. */
static int until_next(const bench *b, uint64_t now) {
    if (b->next == b->load.n || b->n_active == b->concurrency) return -1;
    uint64_t due = b->began_ns + b->load.request[b->next].at_ns;
    return due <= now ? 0 : (int)((due - now) / TR_NS_PER_MS > 1000 ? 1000 : (due - now) / TR_NS_PER_MS);
}

static void wait_and_turn(bench *b, struct pollfd *fds, active **of) {
    nfds_t n = 0;
    for (uint32_t i = 0; i < b->concurrency; i++) {
        active *a = &b->slot[i];
        if (!a->seen) continue;
        if (a->stream.state >= TR_HTTP_STREAM_ENDED) { /* it could not even begin */
            end(b, a, tr_clock_now_ns());
            return;
        }
        of[n] = a;
        fds[n++] = (struct pollfd){a->stream.fd, tr_http_stream_writes(&a->stream) ? POLLOUT : POLLIN, 0};
    }
    int wait = until_next(b, tr_clock_now_ns());
    if (poll(fds, n, wait < 0 ? 500 : wait) <= 0) return;
    for (nfds_t i = 0; i < n; i++)
        if (fds[i].revents) turn(b, of[i]);
}

static tr_status run(bench *b, tr_error *err) {
    struct pollfd *fds = calloc(b->concurrency, sizeof *fds);
    active **of = calloc(b->concurrency, sizeof *of);
    tr_status status = fds && of ? TR_OK : tr_error_set(err, TR_SYSTEM, "no memory for %u requests", b->concurrency);
    b->began_ns = tr_clock_now_ns();
    while (status == TR_OK && b->ended < b->load.n) {
        while (until_next(b, tr_clock_now_ns()) == 0) start(b, tr_clock_now_ns());
        wait_and_turn(b, fds, of);
        if (tr_cli_signalled()) status = TR_CANCELLED;
    }
    for (uint32_t i = 0; i < b->concurrency; i++)
        if (b->slot[i].seen) tr_http_stream_close(&b->slot[i].stream);
    free(fds);
    free(of);
    return status;
}

/* ---- before and after -----------------------------------------------------------------------------------------------
 */

static void on_model_line(void *context, tr_http_stream *stream, char *line, size_t bytes) {
    bench *b = context;
    json_t *root = json_loadb(line, bytes, 0, NULL);
    const json_t *first = json_array_get(json_object_get(root, "data"), 0);
    const char *id = json_string_value(json_object_get(first, "id"));
    if (stream->status == 200 && id) snprintf(b->model, sizeof b->model, "%s", id);
    if (stream->status != 200) take_error(b, line);
    json_decref(root);
}

/* The name of the first model that the server has; also proves that somebody answers. */
static tr_status ask_model(bench *b, const char *url, tr_error *err) {
    tr_http_stream s;
    uint64_t end_ns = tr_clock_now_ns() + ASK_SECONDS * TR_NS_PER_S;
    tr_http_stream_open(&s, &b->server, "GET", "/models", NULL);
    while (s.state < TR_HTTP_STREAM_ENDED && tr_clock_now_ns() < end_ns && !tr_cli_signalled()) {
        struct pollfd fd = {s.fd, tr_http_stream_writes(&s) ? POLLOUT : POLLIN, 0};
        if (poll(&fd, 1, 200) > 0) tr_http_stream_turn(&s, on_model_line, b);
    }
    bool ok = s.state == TR_HTTP_STREAM_ENDED && s.status == 200 && b->model[0];
    tr_status status = tr_cli_signalled() ? TR_CANCELLED : TR_OK;
    if (status == TR_OK && !ok)
        status = tr_error_set(err, TR_UNAVAILABLE, "%s: %s%s", url,
                              b->first_error[0]                  ? b->first_error
                              : s.state == TR_HTTP_STREAM_FAILED ? s.error
                                                                 : "no list of models at /models",
                              b->first_error[0] ? "" : "; start one with troupe serve MODEL --port 8000, or set --url");
    tr_http_stream_close(&s);
    return status;
}

static tr_status prepare(bench *b, const tr_options *o, tr_error *err) {
    const char *url = tr_options_text(o, TR_OPTION_URL), *key = getenv("OPENAI_API_KEY");
    TR_TRY(tr_cli_bench_options(o, TR_CLI_BENCH_SERVE, err));
    b->seed = tr_options_u64(o, TR_OPTION_SEED);
    b->concurrency = tr_options_u32(o, TR_OPTION_CONCURRENCY);
    TR_TRY(tr_serve_report_limits_parse(tr_options_text(o, TR_OPTION_GOODPUT), &b->limits, err));
    TR_TRY(tr_http_stream_server_parse(url, key ? key : "", &b->server, err));
    TR_TRY(tr_load_options(o, &b->load, err));
    if (b->concurrency == 0 || b->concurrency > ACTIVE_MAX) b->concurrency = ACTIVE_MAX;
    if (b->concurrency > b->load.n) b->concurrency = (uint32_t)b->load.n;
    b->seen = calloc(b->load.n, sizeof *b->seen);
    b->slot = calloc(b->concurrency, sizeof *b->slot);
    if (!b->seen || !b->slot) return tr_error_set(err, TR_SYSTEM, "no memory for %zu requests", b->load.n);
    return ask_model(b, url, err);
}

int tr_cli_bench_serve(tr_options *o) {
    bench b = {0};
    tr_error err = {0};
    tr_serve_report report;
    tr_cli_catch_signals();
    tr_status status = prepare(&b, o, &err);
    if (status == TR_OK) status = run(&b, &err);
    if (status == TR_OK) status = tr_serve_report_make(b.seen, b.load.n, &b.limits, &report, &err);
    if (status == TR_OK) tr_serve_report_print(&report, &b.limits, tr_options_text(o, TR_OPTION_BENCH_OUT));
    if (status == TR_OK && b.failed)
        status = tr_error_set(&err, TR_UNAVAILABLE, "%zu of %zu requests failed; the first: %.300s", b.failed, b.load.n,
                              b.first_error);
    for (size_t i = 0; b.seen && i < b.load.n; i++) free(b.seen[i].gap_ms);
    free(b.seen);
    free(b.slot);
    tr_load_free(&b.load);
    return status == TR_OK ? 0 : tr_cli_fail(&err, status);
}
