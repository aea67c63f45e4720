/* troupe bench model --costs FILE: what steps of this company take, stage by stage, as a file for simulate and plan.
 * Prompts of several lengths, one at a time, and batches of streams at several depths; every stage counts its steps and
 * the time inside them. The costs of the whole model are fitted to the sums over the stages (nonnegative least squares
 * of the relative error); what a client waits beyond that is told apart by the number of steps: links and messages for
 * each, the rest once a request. */
#include "actors/cli/cli_ask.h"
#include "actors/cli/cli_bench.h"
#include "actors/cli/costs.h"
#include "base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TERMS = 4, SAMPLES_MAX = 128, REPEAT = 3, STEPS = 24, BATCH = 16, BATCH_MAX = 256, WARM = 48 };
enum {
    LONGEST = 1600,   /* tokens of a request */
    SHORT_CHUNK = 12, /* rows of a chunk beside streams, or more */
    CUT = 16,         /* rows of a step in the second part */
    PROMPT_MAX = 8192 /* more than LONGEST and the longest chunk */
};

typedef struct sample {
    double f[TERMS], ns; /* sum of f[i] * x[i] */
    uint32_t test;       /* repetitions of one have the same number */
} sample;

typedef struct bench {
    tr_cli_session *session;
    uint32_t *tokens;            /* [LONGEST] */
    sample step[2][SAMPLES_MAX]; /* steps of prompts: steps, rows, reads, draws; of streams: steps, rows, reads */
    sample wait[SAMPLES_MAX];    /* of prompts, beyond the steps: steps, requests */
    uint32_t n_step[2], n_wait;
    double gap_ns, gaps; /* of a single stream, beyond the steps; steps in it */
    double move_ns, cells;
} bench;

typedef struct counts { /* of the stages of a phase */
    uint64_t ns, steps; /* steps: of the last stage */
} counts;

/* ---- one measurement ------------------------------------------------------------------------------------------------
 */

static counts look(const tr_cli_session *s, uint32_t phase) {
    counts c = {0};
    for (uint32_t a = 0; a < s->company.n_actors; a++) {
        const tr_company_actor *actor = &s->company.actor[a];
        if (actor->role != TR_ROLE_STAGE || actor->rank > 0 || !actor->phase[phase].active) continue;
        c.ns += atomic_load(&s->launch.control->actor[a].step_ns);
        if (actor->stage + 1 == actor->n_stages) c.steps = atomic_load(&s->launch.control->actor[a].progress);
    }
    return c;
}

/* Positions that rows [pos0, pos0 + rows) look at, as the scheduler counts them. */
static double reads(const tr_company *c, uint32_t pos0, uint32_t rows) {
    const double seen = pos0 + rows / 2 + 1;
    double sum = 0;
    for (uint32_t g = 0; g < c->layout[0].n_groups; g++) {
        const uint32_t window = c->layout[0].group[g].window;
        sum += (double)rows * c->layout[0].group[g].n_layers * (window > 0 && window < seen ? window : seen);
    }
    return sum;
}

static tr_status next_event(const bench *b, tr_client_event *e, tr_error *err) {
    for (;;) {
        if (tr_cli_signalled()) return TR_CANCELLED;
        const tr_status status = tr_client_poll(b->session->client, 200, e, err);
        if (status == TR_AGAIN && !tr_launch_wait_end(&b->session->launch, 0)) continue;
        if (status == TR_AGAIN) return tr_error_set(err, TR_INTERNAL, "the company ended: run with TROUPE_LOG=warn");
        TR_TRY(status);
        if (e->kind != TR_CLIENT_ERROR) return TR_OK;
        return tr_error_set(err, tr_cli_ask_code(e->code), "%s", e->error ? e->error : "a request failed");
    }
}

static tr_status add(const bench *b, uint32_t prompt, uint32_t output, tr_error *err) {
    uint64_t id;
    const tr_client_params p = {.tokens = b->tokens, .n_tokens = prompt, .max_tokens = output, .ignore_eos = true};
    return tr_client_add(b->session->client, &p, &id, err);
}

static tr_status measure_prompt(bench *b, uint32_t n, tr_error *err) {
    const tr_company *c = &b->session->company;
    const counts before = look(b->session, 0);
    const uint64_t began = tr_clock_now_ns();
    tr_client_event e = {0};
    double all = 0;
    TR_TRY(add(b, n, 1, err));
    while (e.kind != TR_CLIENT_END) TR_TRY(next_event(b, &e, err));
    const double wall = (double)(tr_clock_now_ns() - began);
    const counts after = look(b->session, 0);
    const double steps = (double)(after.steps - before.steps), ns = (double)(after.ns - before.ns);
    for (uint32_t pos = 0; pos < n; pos += c->chunk) all += reads(c, pos, n - pos < c->chunk ? n - pos : c->chunk);
    b->step[0][b->n_step[0]++] = (sample){{steps, n, all, 1}, ns, n * PROMPT_MAX + c->chunk};
    b->wait[b->n_wait++] = (sample){{steps, 1}, wall > ns ? wall - ns : 1, n * PROMPT_MAX + c->chunk};
    return TR_OK;
}

/* From the moment when every stream decodes to the first end: all steps have the same rows. */
static tr_status try_streams(bench *b, uint32_t streams, uint32_t depth, uint32_t more, tr_error *err) {
    const tr_company *c = &b->session->company;
    const uint32_t parts = c->exclusive ? 1 : c->max_in_flight[c->unified ? 0 : 1];
    /* Who begins first decodes while the others' prompts are computed, by steps of short chunks. */
    const uint32_t room = c->context - depth, wanted = (STEPS + (streams - 1) * depth / SHORT_CHUNK) * more;
    const uint32_t output = wanted < room ? wanted : room;
    uint32_t decoding = 0, ended = 0, got = 0;
    counts first = {0}, last = {0};
    uint64_t began = 0, over = 0;
    for (uint32_t i = 0; i < streams; i++) TR_TRY(add(b, depth, output, err));
    while (ended < streams) {
        tr_client_event e;
        TR_TRY(next_event(b, &e, err));
        if (began == 0) got += e.n_tokens;
        if (e.n_tokens > 0 && e.index <= 1 && e.index + e.n_tokens > 1 && ++decoding == streams) {
            first = look(b->session, 1);
            began = tr_clock_now_ns();
        }
        if (e.kind != TR_CLIENT_END) continue;
        b->move_ns += (double)e.handoff_ns;
        if (e.handoff_ns) b->cells += (double)depth * c->layout[0].n_layers;
        if (ended++ > 0) continue;
        last = look(b->session, 1);
        over = tr_clock_now_ns();
    }
    if (began == 0 || began >= over || last.steps <= first.steps) return TR_OK; /* they did not meet */
    const double steps = (double)(last.steps - first.steps), ns = (double)(last.ns - first.ns);
    const uint32_t rows = (streams + parts - 1) / parts, middle = depth + got / streams + (uint32_t)steps / 2;
    b->step[1][b->n_step[1]++] =
        (sample){{steps, steps * rows, steps * rows * reads(c, middle, 1)}, ns, depth * BATCH_MAX + streams};
    if (streams > 1) return TR_OK;
    b->gap_ns += (double)(over - began) > ns ? (double)(over - began) - ns : 0;
    b->gaps += steps;
    return TR_OK;
}

/* Steps of a small model may all be over before the first token is seen here. */
static tr_status measure_streams(bench *b, uint32_t streams, uint32_t depth, tr_error *err) {
    const uint32_t before = b->n_step[1];
    for (uint32_t more = 1; more <= 64 && b->n_step[1] == before; more *= 4)
        TR_TRY(try_streams(b, streams, depth, more, err));
    return TR_OK;
}

/* ---- medians --------------------------------------------------------------------------------------------------------
 */

static int by_test_and_time(const void *a, const void *b) {
    const sample *x = a, *y = b;
    if (x->test != y->test) return x->test < y->test ? -1 : 1;
    const double tx = x->ns / x->f[0], ty = y->ns / y->f[0];
    return (tx > ty) - (tx < ty);
}

/* Of the repetitions of each test the one in the middle, by time of a step. */
static uint32_t keep_medians(sample *s, uint32_t n) {
    uint32_t kept = 0;
    qsort(s, n, sizeof *s, by_test_and_time);
    for (uint32_t first = 0, end; first < n; first = end) {
        for (end = first; end < n && s[end].test == s[first].test;) end++;
        s[kept++] = s[first + (end - first) / 2];
    }
    return kept;
}

/* ---- fit ------------------------------------------------------------------------------------------------------------
 */

static void eliminate(double m[TERMS][TERMS + 1], double x[TERMS]) {
    for (int i = 0; i < TERMS; i++) {
        int best = i;
        for (int k = i + 1; k < TERMS; k++)
            if (m[k][i] * m[k][i] > m[best][i] * m[best][i]) best = k;
        for (int j = 0; j <= TERMS; j++) {
            const double t = m[i][j];
            m[i][j] = m[best][j];
            m[best][j] = t;
        }
        for (int k = i + 1; k < TERMS; k++)
            for (int j = TERMS; j >= i; j--) m[k][j] -= m[k][i] / m[i][i] * m[i][j];
    }
    for (int i = TERMS - 1; i >= 0; i--) {
        x[i] = m[i][TERMS];
        for (int k = i + 1; k < TERMS; k++) x[i] -= m[i][k] * x[k];
        x[i] /= m[i][i];
    }
}

/* Least squares of the relative error, x >= 0: what comes out below 0 is left out, the worst first. Terms that no
 * sample has are 0. */
static void fit(const sample *s, uint32_t n, double x[TERMS]) {
    int out[TERMS] = {0};
    double unit[TERMS] = {0};
    for (int i = 0; i < TERMS; i++) {
        for (uint32_t k = 0; k < n; k++) unit[i] += s[k].f[i] / s[k].ns;
        out[i] = unit[i] == 0;
    }
    for (;;) {
        double m[TERMS][TERMS + 1] = {{0}};
        for (uint32_t k = 0; k < n; k++)
            for (int i = 0; i < TERMS; i++)
                for (int j = 0; j <= TERMS && !out[i]; j++)
                    if (j == TERMS || !out[j])
                        m[i][j] += s[k].f[i] / s[k].ns / unit[i] * (j == TERMS ? 1 : s[k].f[j] / s[k].ns / unit[j]);
        for (int i = 0; i < TERMS; i++) m[i][i] += out[i] ? 1 : 1e-9;
        eliminate(m, x);
        int worst = -1;
        for (int i = 0; i < TERMS; i++)
            if (!out[i] && x[i] < 0 && (worst < 0 || x[i] < x[worst])) worst = i;
        if (worst < 0) break;
        out[worst] = 1;
    }
    for (int i = 0; i < TERMS; i++) x[i] = out[i] ? 0 : x[i] / unit[i];
}

static double rows_of(const sample *s) { return s->f[1] / s->f[0]; }

/* Root of the mean square of the relative error. */
static double error_of(const sample *s, uint32_t n, const tr_simulate_cost *c) {
    double sum = 0;
    for (uint32_t k = 0; k < n; k++) {
        const double bytes = c->least * s[k].f[0] + c->least_row * s[k].f[1],
                     most = c->step * s[k].f[0] + c->row * s[k].f[1];
        const double ns = (bytes > most ? bytes : most) + c->read * s[k].f[2] + c->draw * s[k].f[3];
        sum += (ns / s[k].ns - 1) * (ns / s[k].ns - 1);
    }
    return n ? sqrt(sum / n) : 0;
}

/* Of the samples with rows in [low, high]; read, where given, is taken as known. */
static void fit_part(const sample *s, uint32_t n, double low, double high, const double *read, double x[TERMS]) {
    sample part[SAMPLES_MAX];
    uint32_t m = 0;
    for (uint32_t k = 0; k < n; k++) {
        if (rows_of(&s[k]) < low || rows_of(&s[k]) > high) continue;
        part[m] = s[k];
        if (read) part[m].ns -= *read * s[k].f[2];
        if (read) part[m].f[2] = 0;
        m += part[m].ns > 0;
    }
    fit(part, m, x);
}

/* One line over the rows, or two that meet at some number of them: weights, then arithmetic. */
static tr_simulate_cost fit_cost(const sample *s, uint32_t n) {
    double x[TERMS];
    fit(s, n, x);
    tr_simulate_cost best = {.step = x[0], .row = x[1], .read = x[2], .draw = x[3]};
    for (double meet = 2; meet <= 128; meet *= 2) {
        double few[TERMS], many[TERMS];
        fit_part(s, n, 0, meet, NULL, few);
        fit_part(s, n, meet, 1e9, &few[2], many);
        const tr_simulate_cost c = {.step = many[0],
                                    .row = many[1],
                                    .least = few[0],
                                    .least_row = few[1],
                                    .read = few[2],
                                    .draw = many[3] > 0 ? many[3] : few[3]};
        if (many[1] > few[1] && error_of(s, n, &c) < error_of(s, n, &best)) best = c;
    }
    return best;
}

static void conclude(bench *b, tr_costs *costs) {
    const tr_company *c = &b->session->company;
    double wait[TERMS] = {0}, error[2];
    uint32_t stages[2] = {0};
    memset(costs, 0, sizeof *costs);
    for (int p = 0; p < 2; p++) b->n_step[p] = keep_medians(b->step[p], b->n_step[p]);
    b->n_wait = keep_medians(b->wait, b->n_wait);
    for (uint32_t a = 0; a < c->n_actors; a++) {
        const tr_company_actor *actor = &c->actor[a];
        if (actor->role != TR_ROLE_STAGE) continue;
        costs->workers = actor->team_workers;
        for (uint32_t p = 0; p < 2; p++)
            if (actor->phase[p].active) stages[p] = actor->n_stages;
    }
    for (int p = 0; p < 2; p++) {
        costs->whole[p] = fit_cost(b->step[p], b->n_step[p]);
        error[p] = error_of(b->step[p], b->n_step[p], &costs->whole[p]);
    }
    fit(b->wait, b->n_wait, wait);
    const double gap = b->gaps > 0 ? b->gap_ns / b->gaps : 0;
    if (stages[1] > 1) {
        costs->hop = gap / stages[1]; /* to the next stage, and from the last one back to the first */
    } else {
        costs->whole[1].step += gap;
        costs->whole[1].least += costs->whole[1].least > 0 ? gap : 0;
    }
    const double between = wait[0] - costs->hop * (stages[0] - 1);
    costs->message = between > 0 ? between / 2 : 0;
    if (stages[1] == 1) costs->hop = costs->message; /* no link was seen: it wakes somebody too */
    costs->submit = costs->output = wait[1] / 2;
    costs->move_cell = b->cells > 0 ? b->move_ns / b->cells : 0;
    tr_cli_say("costs fitted with errors of %.1f %% (prefill, %u tests) and %.1f %% (decode, %u tests)", 100 * error[0],
               b->n_step[0], 100 * error[1], b->n_step[1]);
}

/* ---- the whole ------------------------------------------------------------------------------------------------------
 */

static tr_status start(bench *b, uint32_t chunk, tr_error *err) {
    char name[64];
    tr_cli_session_stop(b->session);
    b->session->topology.want.chunk = chunk;
    TR_TRY(tr_cli_session_plan(b->session, err));
    tr_cli_session_name(b->session->options, name);
    TR_TRY(tr_cli_session_start(b->session, name, err));
    const uint32_t kept[2] = {b->n_step[0], b->n_wait}; /* it warms up */
    TR_TRY(measure_prompt(b, WARM, err));
    b->n_step[0] = kept[0];
    b->n_wait = kept[1];
    return TR_OK;
}

static tr_status measure_prompts(bench *b, const uint32_t *prompts, size_t n, tr_error *err) {
    for (size_t i = 0; i < n; i++)
        if (prompts[i] + STEPS < b->session->company.context) TR_TRY(measure_prompt(b, prompts[i], err));
    return TR_OK;
}

static tr_status measure(bench *b, tr_error *err) {
    static const uint32_t prompts[] = {16, 32, 64, 128, 256, 384, 512, 1024, 1536}, cut[] = {32, 64, 128, 256};
    const uint32_t chunk = b->session->topology.want.chunk;
    TR_TRY(start(b, chunk, err));
    const tr_company *c = &b->session->company;
    const uint32_t most = c->context - STEPS - 1, deep = most < 1408 ? most * 8 / 11 : 1024;
    for (uint32_t r = 0; r < REPEAT; r++) {
        TR_TRY(measure_prompts(b, prompts, sizeof prompts / sizeof *prompts, err));
        for (uint32_t streams = 1; streams <= c->max_batch; streams *= 2) TR_TRY(measure_streams(b, streams, 16, err));
        for (uint32_t streams = 1; streams <= c->max_batch && streams <= 4; streams *= 4)
            TR_TRY(measure_streams(b, streams, deep, err));
    }
    if (chunk <= CUT) return TR_OK;
    TR_TRY(start(b, CUT, err)); /* many steps of few rows, of which one draws: tells them apart */
    for (uint32_t r = 0; r < REPEAT; r++) TR_TRY(measure_prompts(b, cut, sizeof cut / sizeof *cut, err));
    return TR_OK;
}

/* Any tokens do: speed does not depend on them. */
static uint32_t *make_tokens(const tr_cli_session *s, uint32_t n) {
    uint32_t *tokens = malloc(n * sizeof *tokens), x = 12345;
    for (uint32_t i = 0; tokens && i < n; i++) {
        x = x * 1664525u + 1013904223u;
        tokens[i] = (uint32_t)((uint64_t)x * tr_model_file_config(s->model)->vocab >> 32);
    }
    return tokens;
}

tr_status tr_cli_bench_costs(tr_cli_session *s, tr_costs *out, tr_error *err) {
    tr_company_build_want *w = &s->topology.want;
    const uint32_t most = tr_model_file_config(s->model)->context_max;
    bench b = {.session = s};
    w->prefix_cache = false; /* every prompt is computed */
    w->n_requests = w->max_batch ? w->max_batch : BATCH;
    w->request_tokens = most < LONGEST ? most : LONGEST;
    w->context = 0;
    b.tokens = make_tokens(s, LONGEST);
    if (!b.tokens) return tr_error_set(err, TR_SYSTEM, "no memory for the tests");
    tr_status status = measure(&b, err);
    if (status == TR_OK && b.n_step[1] == 0)
        status = tr_error_set(err, TR_UNAVAILABLE, "no decode step could be timed: the machine is too busy");
    if (status == TR_OK) conclude(&b, out);
    tr_cli_session_stop(s);
    free(b.tokens);
    return status;
}

int tr_cli_bench_costs_run(tr_options *o) {
    static tr_cli_session session;
    static tr_costs costs;
    tr_error err = {0};
    tr_status status = tr_cli_bench_options(o, TR_CLI_BENCH_MODEL, &err);
    if (status == TR_OK) status = tr_cli_session_load(&session, o, &err);
    if (status == TR_OK) status = tr_cli_bench_costs(&session, &costs, &err);
    if (status == TR_OK)
        status = tr_costs_write(tr_options_text(o, TR_OPTION_COSTS), &costs, session.topology.model_name, &err);
    tr_cli_session_fini(&session);
    return tr_cli_session_exit(&session, status, &err);
}
