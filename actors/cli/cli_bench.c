/* troupe bench: model (this file), kernel (cli_bench_kernel.c) and serve (cli_bench_serve.c).
 * bench model: prompt (pp) and generation (tg) rates through the real actors, over all sequences of the batch.
 *   pp N: b requests of depth + N tokens at once; time from the first submission to the last first token, less the same
 *         for depth tokens alone where there is a depth.
 *   tg N: b requests of `depth` tokens (one without a depth); N tokens a sequence, timed from the moment when every
 *         sequence has its first decoded token, so that prefill and hand-off stay outside. Of a step's weights: read
 *         at what share of the bandwidth that reading alone reaches, measured in turn with the repetitions. */
#include "actors/cli/cli_bench.h"
#include "actors/cli/cli_ask.h"
#include "base/clock.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_MAX = 256, REPEAT_MAX = 1000, TESTS_MAX = 512 };

typedef struct test {
    bool generation;
    uint32_t n, batch;
    double rate[REPEAT_MAX]; /* tok/s of each repetition, sorted in the end */
    double idle, stage_idle; /* tg: share of the wall time outside kernels; of that inside stages */
    double read[REPEAT_MAX]; /* tg: weights read a second over what reading alone reached, sorted in the end; 0: none */
} test;

typedef struct bench {
    tr_cli_session *session;
    tr_options *options;
    uint32_t depth, repeat, n_tests;
    test *tests;
    uint32_t *tokens; /* of the longest prompt, one list a sequence would only cost time */
    char dtype[32];
    tr_cli_bench_read read;
} bench;

/* ---- one run of b requests
 * ----------------------------------------------------------------------------------------------- */

typedef struct progress {
    uint64_t id[BATCH_MAX];
    uint32_t got[BATCH_MAX];
    uint32_t n, ended;
    uint64_t began_ns, first_ns; /* first_ns: when every sequence had its first token */
    uint64_t start_ns, end_ns;   /* timed part of a generation */
    uint64_t counted;            /* tokens in it */
    uint64_t kernel_ns, step_ns; /* of the stages during it */
} progress;

/* Sums over the stages that decode. */
static void stage_times(const tr_cli_session *s, uint64_t *kernel, uint64_t *step) {
    *kernel = *step = 0;
    for (uint32_t a = 0; a < s->company.n_actors; a++) {
        if (!s->company.actor[a].phase[1].active) continue;
        *kernel += atomic_load(&s->launch.control->actor[a].kernel_ns);
        *step += atomic_load(&s->launch.control->actor[a].step_ns);
    }
}

static uint32_t fewest(const progress *p) {
    uint32_t n = UINT32_MAX;
    for (uint32_t i = 0; i < p->n; i++)
        if (p->got[i] < n) n = p->got[i];
    return n;
}

/* Tokens of one message; the timed part begins after each sequence's second token (the first decoded one). */
static void count(const bench *b, progress *p, const tr_client_event *e, uint64_t now) {
    for (uint32_t i = 0; i < p->n; i++)
        if (p->id[i] == e->id) p->got[i] += e->n_tokens;
    if (e->n_tokens == 0) return;
    uint32_t least = fewest(p);
    if (!p->first_ns && least >= 1) p->first_ns = now;
    if (p->start_ns) {
        p->counted += e->n_tokens;
        p->end_ns = now;
    } else if (least >= 2) {
        p->start_ns = p->end_ns = now;
        stage_times(b->session, &p->kernel_ns, &p->step_ns);
    }
}

static tr_status submit(const bench *b, progress *p, uint32_t batch, uint32_t n_prompt, uint32_t n_out, tr_error *err) {
    memset(p, 0, sizeof *p);
    p->began_ns = tr_clock_now_ns();
    for (p->n = 0; p->n < batch; p->n++) {
        tr_client_params params = {.tokens = b->tokens, .n_tokens = n_prompt, .max_tokens = n_out, .ignore_eos = true};
        TR_TRY(tr_client_add(b->session->client, &params, &p->id[p->n], err));
    }
    return TR_OK;
}

static tr_status run(const bench *b, progress *p, uint32_t batch, uint32_t n_prompt, uint32_t n_out, tr_error *err) {
    tr_cli_session *s = b->session;
    TR_TRY(submit(b, p, batch, n_prompt, n_out, err));
    while (p->ended < batch) {
        tr_client_event e;
        if (tr_cli_signalled()) return TR_CANCELLED;
        tr_status status = tr_client_poll(s->client, 200, &e, err);
        if (status == TR_AGAIN) {
            if (tr_launch_wait_end(&s->launch, 0))
                return tr_error_set(err, TR_INTERNAL, "the company ended during the test: run with TROUPE_LOG=warn");
            continue;
        }
        TR_TRY(status);
        if (e.kind == TR_CLIENT_ERROR)
            return tr_error_set(err, tr_cli_ask_code(e.code), "%s", e.error ? e.error : "a request failed");
        count(b, p, &e, tr_clock_now_ns());
        p->ended += e.kind == TR_CLIENT_END;
    }
    uint64_t kernel = p->kernel_ns, step = p->step_ns;
    stage_times(s, &p->kernel_ns, &p->step_ns);
    p->kernel_ns -= kernel;
    p->step_ns -= step;
    return TR_OK;
}

/* ---- tests
 * ------------------------------------------------------------------------------------------------------------ */

static tr_status measure_prompt(const bench *b, test *t, uint32_t r, tr_error *err) {
    progress p;
    double depth_s = 0;
    if (b->depth) {
        TR_TRY(run(b, &p, t->batch, b->depth, 1, err));
        depth_s = (double)(p.first_ns - p.began_ns) / 1e9;
    }
    TR_TRY(run(b, &p, t->batch, b->depth + t->n, 1, err));
    double seconds = (double)(p.first_ns - p.began_ns) / 1e9 - depth_s;
    t->rate[r] = seconds > 0 ? (double)t->n * t->batch / seconds : 0;
    return TR_OK;
}

static tr_status measure_generation(const bench *b, test *t, uint32_t r, tr_error *err) {
    progress p;
    const tr_company *c = &b->session->company;
    /* Before and after: a slow moment of either is not the ceiling. */
    double ceiling = tr_cli_bench_read_rate(&b->read);
    TR_TRY(run(b, &p, t->batch, b->depth ? b->depth : 1, t->n + 2, err));
    if (p.end_ns <= p.start_ns) return tr_error_set(err, TR_INTERNAL, "the test was too short to be timed: raise -n");
    double wall = (double)(p.end_ns - p.start_ns);
    t->rate[r] = (double)p.counted * 1e9 / wall;
    /* Stages that run at once each have the whole wall time to fill. */
    double room = wall * (c->unified || c->exclusive ? c->max_in_flight[c->unified ? 0 : 1] : c->max_in_flight[1]);
    t->idle += (1 - (double)p.kernel_ns / room) / b->repeat;
    t->stage_idle += ((double)p.step_ns - (double)p.kernel_ns) / room / b->repeat;
    double after = tr_cli_bench_read_rate(&b->read);
    if (after > ceiling) ceiling = after;
    t->read[r] = ceiling > 0 ? t->rate[r] / t->batch * (double)b->read.step_bytes / ceiling : 0;
    return TR_OK;
}

static int by_rate(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static tr_status measure(bench *b, tr_error *err) {
    progress warm;
    TR_TRY(run(b, &warm, 1, b->depth + 16, 4, err)); /* pages of weights, frequency */
    for (uint32_t i = 0; i < b->n_tests; i++) {
        test *t = &b->tests[i];
        for (uint32_t r = 0; r < b->repeat; r++)
            TR_TRY(t->generation ? measure_generation(b, t, r, err) : measure_prompt(b, t, r, err));
        qsort(t->rate, b->repeat, sizeof t->rate[0], by_rate);
        qsort(t->read, b->repeat, sizeof t->read[0], by_rate);
    }
    return TR_OK;
}

/* ---- what was asked
 * --------------------------------------------------------------------------------------------------- */

static void add_tests(bench *b, bool generation) {
    const tr_option_value *sizes = &b->options->value[generation ? TR_OPTION_BENCH_N : TR_OPTION_BENCH_P];
    const tr_option_value *batches = &b->options->value[TR_OPTION_BENCH_B];
    for (uint32_t i = 0; i < batches->n_list; i++)
        for (uint32_t k = 0; k < sizes->n_list; k++)
            if (sizes->list[k] && b->n_tests < TESTS_MAX)
                b->tests[b->n_tests++] =
                    (test){.generation = generation, .n = sizes->list[k], .batch = batches->list[i]};
}

static tr_status choose(bench *b, tr_error *err) {
    tr_company_build_want *w = &b->session->topology.want;
    uint32_t longest = b->depth + 32, batch = 1;
    b->tests = calloc(TESTS_MAX, sizeof *b->tests);
    if (!b->tests) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the tests");
    add_tests(b, b->options->gen_first);
    add_tests(b, !b->options->gen_first);
    if (b->n_tests == 0) return tr_error_set(err, TR_USAGE, "nothing to measure: give -p or -n a number above 0");
    for (uint32_t i = 0; i < b->n_tests; i++) {
        const test *t = &b->tests[i];
        if (t->batch == 0 || t->batch > BATCH_MAX)
            return tr_error_set(err, TR_USAGE, "-b %u: 1 to %d sequences are possible", t->batch, BATCH_MAX);
        if (b->depth + t->n + 3 > longest) longest = b->depth + t->n + 3;
        if (t->batch > batch) batch = t->batch;
    }
    uint32_t most = w->context ? w->context : tr_model_file_config(b->session->model)->context_max;
    if (longest > most)
        return tr_error_set(err, TR_DATA, "the tests need %u tokens, the context has %u: lower -d, -p or -n", longest,
                            most);
    w->prefix_cache = false; /* every repetition computes its prompts */
    w->n_requests = batch;
    w->request_tokens = longest;
    b->tokens = malloc((size_t)longest * sizeof *b->tokens);
    if (!b->tokens) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the tests");
    uint32_t vocab = tr_model_file_config(b->session->model)->vocab, x = 12345;
    for (uint32_t i = 0; i < longest; i++) { /* any tokens do: speed does not depend on them */
        x = x * 1664525u + 1013904223u;
        b->tokens[i] = (uint32_t)((uint64_t)x * vocab >> 32);
    }
    return TR_OK;
}

/* --dtype sets the precision of both phases, one pipeline or two. */
static tr_status set_dtype(tr_options *o, tr_error *err) {
    const char *dtype = tr_options_text(o, TR_OPTION_BENCH_DTYPE);
    if (!tr_options_given(o, TR_OPTION_BENCH_DTYPE)) return TR_OK;
    bool split = tr_options_section_source(o, "prefill") || tr_options_section_source(o, "decode");
    if (!split) return tr_options_set_key(o, TR_SOURCE_FLAG, "unified.dtype", dtype, "--dtype", err);
    TR_TRY(tr_options_set_key(o, TR_SOURCE_FLAG, "prefill.dtype", dtype, "--dtype", err));
    return tr_options_set_key(o, TR_SOURCE_FLAG, "decode.dtype", dtype, "--dtype", err);
}

/* ---- result
 * ------------------------------------------------------------------------------------------------------------ */

static double median(const double *sorted, uint32_t n) {
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static void label(const test *t, char out[48]) { snprintf(out, 48, "%s%u", t->generation ? "tg" : "pp", t->n); }

static uint32_t threads(const tr_cli_session *s) {
    uint32_t most = 0, sum = 0;
    for (uint32_t a = 0; a < s->company.n_actors; a++) {
        sum += s->company.actor[a].workers;
        if (s->company.actor[a].team_workers > most) most = s->company.actor[a].team_workers;
    }
    return s->company.exclusive ? most : sum;
}

static void print_json(const bench *b) {
    json_t *root = json_array();
    char name[48];
    for (uint32_t i = 0; i < b->n_tests; i++) {
        const test *t = &b->tests[i];
        label(t, name);
        json_t *row =
            json_pack("{s:s,s:i,s:i,s:s,s:i,s:f,s:f,s:f}", "test", name, "batch", (int)t->batch, "depth", (int)b->depth,
                      "dtype", b->dtype, "threads", (int)threads(b->session), "tok_s", median(t->rate, b->repeat),
                      "tok_s_min", t->rate[0], "tok_s_max", t->rate[b->repeat - 1]);
        if (t->generation && t->read[0] > 0) {
            json_object_set_new(row, "step_bytes", json_integer((json_int_t)b->read.step_bytes));
            json_object_set_new(row, "read_share", json_real(median(t->read, b->repeat)));
        }
        json_array_append_new(root, row);
    }
    char *text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (text) puts(text);
    free(text);
    json_decref(root);
}

static void print_rows(const bench *b, bool csv) {
    char name[48];
    puts(csv ? "test,batch,depth,dtype,threads,tok_s,tok_s_min,tok_s_max,read_share"
             : "| test | batch | depth | dtype | threads | tok/s | min | max | of read bandwidth | not in kernels |\n"
               "|---|---|---|---|---|---|---|---|---|---|");
    for (uint32_t i = 0; i < b->n_tests; i++) {
        const test *t = &b->tests[i];
        label(t, name);
        printf(csv ? "%s,%u,%u,%s,%u,%.3f,%.3f,%.3f" : "| %s | %u | %u | %s | %u | %.2f | %.2f | %.2f |", name,
               t->batch, b->depth, b->dtype, threads(b->session), median(t->rate, b->repeat), t->rate[0],
               t->rate[b->repeat - 1]);
        char read[16] = "";
        if (t->read[0] > 0) snprintf(read, sizeof read, "%.2f", median(t->read, b->repeat));
        if (csv)
            printf(",%s\n", read);
        else if (t->generation)
            printf(" %s | %.1f %% (%.1f %% inside stages) |\n", read, 100 * t->idle, 100 * t->stage_idle);
        else
            puts(" | |");
    }
}

static tr_status bench_model(bench *b, tr_options *o, tr_error *err) {
    char name[64];
    TR_TRY(tr_cli_bench_options(o, TR_CLI_BENCH_MODEL, err));
    b->options = o;
    b->depth = tr_options_u32(o, TR_OPTION_BENCH_D);
    b->repeat = tr_options_u32(o, TR_OPTION_BENCH_R);
    TR_TRY(set_dtype(o, err));
    TR_TRY(tr_cli_session_load(b->session, o, err));
    const tr_company_build_want *w = &b->session->topology.want;
    const char *prefill = tr_precision_name(w->side[0].dtype), *decode = tr_precision_name(w->side[1].dtype);
    snprintf(b->dtype, sizeof b->dtype, strcmp(prefill, decode) == 0 ? "%s" : "%s+%s", prefill, decode);
    TR_TRY(choose(b, err));
    TR_TRY(tr_cli_session_plan(b->session, err));
    tr_cli_session_name(o, name);
    TR_TRY(tr_cli_session_start(b->session, name, err));
    tr_cli_bench_read_init(b->session, &b->read);
    return measure(b, err);
}

static int run_bench_model(tr_options *o) {
    static tr_cli_session session;
    bench b = {.session = &session};
    tr_error err = {0};
    tr_status status = bench_model(&b, o, &err);
    const char *form = tr_options_text(o, TR_OPTION_BENCH_OUT);
    tr_cli_session_stop(&session);
    if (status == TR_OK) {
        if (strcmp(form, "json") == 0)
            print_json(&b);
        else
            print_rows(&b, strcmp(form, "csv") == 0);
    }
    tr_cli_session_fini(&session);
    tr_cli_bench_read_fini(&b.read);
    free(b.tests);
    free(b.tokens);
    return tr_cli_session_exit(&session, status, &err);
}

/* Who takes an option; those that are not named are of bench model alone. */
static unsigned takers(int id) {
    switch (id) {
    case TR_OPTION_URL:
    case TR_OPTION_REQUESTS:
    case TR_OPTION_RATE:
    case TR_OPTION_CONCURRENCY:
    case TR_OPTION_SPREAD:
    case TR_OPTION_LENGTHS:
    case TR_OPTION_BURSTINESS:
    case TR_OPTION_TRACE:
    case TR_OPTION_LENGTH_SCALE:
    case TR_OPTION_PROMPT_MAX:
    case TR_OPTION_GOODPUT:
    case TR_OPTION_SEED: return TR_CLI_BENCH_SERVE;
    case TR_OPTION_BENCH_P:
    case TR_OPTION_BENCH_N: return TR_CLI_BENCH_MODEL | TR_CLI_BENCH_SERVE;
    case TR_OPTION_THREADS:
    case TR_OPTION_BENCH_R: return TR_CLI_BENCH_MODEL | TR_CLI_BENCH_KERNEL;
    case TR_OPTION_BENCH_OUT: return TR_CLI_BENCH_MODEL | TR_CLI_BENCH_KERNEL | TR_CLI_BENCH_SERVE;
    default: return TR_CLI_BENCH_MODEL;
    }
}

tr_status tr_cli_bench_options(const tr_options *o, tr_cli_bench_kind kind, tr_error *err) {
    static const struct {
        const char *flag, *key;
    } name[] = {
#define X(ID, key, flag, letter, type, min, max, now, dflt, values, arg, commands, help) {flag, key},
        TR_OPTIONS(X)
#undef X
    };
    for (int id = 0; id < TR_OPTION_COUNT; id++) {
        if (o->value[id].source != TR_SOURCE_FLAG || (takers(id) & kind)) continue;
        return tr_error_set(err, TR_USAGE, "%s is not for bench %s, but for bench %s; see troupe bench --help",
                            name[id].flag[0] ? name[id].flag : name[id].key,
                            kind == TR_CLI_BENCH_MODEL    ? "model"
                            : kind == TR_CLI_BENCH_KERNEL ? "kernel"
                                                          : "serve",
                            takers(id) & TR_CLI_BENCH_MODEL ? "model" : "serve");
    }
    return TR_OK;
}

int tr_cli_bench(tr_options *o) {
    tr_error err = {0};
    const char *what = o->n_positional ? o->positional[0] : "";
    bool model = strcmp(what, "model") == 0, kernel = strcmp(what, "kernel") == 0, serve = strcmp(what, "serve") == 0;
    if (model || kernel || (serve && o->n_positional == 1)) {
        memmove(o->positional, o->positional + 1, (--o->n_positional) * sizeof o->positional[0]);
        if (model && tr_options_given(o, TR_OPTION_COSTS)) return tr_cli_bench_costs_run(o);
        return model ? run_bench_model(o) : kernel ? tr_cli_bench_kernel(o) : tr_cli_bench_serve(o);
    }
    return tr_cli_fail(
        &err, tr_error_set(&err, TR_USAGE,
                           "bench what? use: troupe bench model MODEL, troupe bench kernel, troupe bench serve"));
}
