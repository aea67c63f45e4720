/* troupe eval: teacher-forced quality through the real actors. The whole text is one request whose logits come back,
 * one frame a position; probabilities are computed here in double over the full vocabulary. */
#include "actors/cli/cli_ask.h"
#include "actors/cli/cli_eval_kv.h"
#include "actors/cli/cli_session.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct candidate {
    uint32_t id;
    double logprob;
} candidate;

typedef struct eval {
    tr_cli_session *session;
    uint32_t *ids, n; /* of the text */
    uint32_t vocab, topk;
    uint8_t *done; /* [n] position has come */
    uint32_t n_done;
    double *nll;        /* [n] of ids[i], given what is before; [0] unused */
    candidate *top;     /* [n][topk] */
    int logits_fd;      /* -1: not asked */
    uint64_t logits_at; /* bytes of the header */
    tr_cli_eval_kv *kv; /* NULL: formats are not compared */
} eval;

/* ---- .npy
 * ------------------------------------------------------------------------------------------------------------- */

static tr_status write_at(int fd, const void *data, size_t bytes, uint64_t at, const char *path, tr_error *err) {
    const char *p = data;
    while (bytes > 0) {
        ssize_t n = pwrite(fd, p, bytes, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return tr_error_set(err, TR_CANNOT_CREATE, "cannot write %.300s: %s", path, strerror(errno));
        p += n;
        at += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return TR_OK;
}

/* Format version 1.0: magic, length, Python literal, padded so that the data begins at a multiple of 64. */
static tr_status open_npy(eval *e, const char *path, tr_error *err) {
    char head[256];
    memset(head, ' ', sizeof head);
    memcpy(head, "\x93NUMPY\x01\x00", 8);
    int n = snprintf(head + 10, sizeof head - 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (%u, %u), }", e->n,
                     e->vocab);
    head[10 + n] = ' ';
    size_t total = ((size_t)n + 11 + 63) / 64 * 64;
    head[total - 1] = '\n';
    head[8] = (char)(total - 10);
    head[9] = 0;
    e->logits_at = total;
    e->logits_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (e->logits_fd < 0) return tr_error_set(err, TR_CANNOT_CREATE, "cannot create %.300s: %s", path, strerror(errno));
    return write_at(e->logits_fd, head, total, 0, path, err);
}

/* ---- one position
 * ------------------------------------------------------------------------------------------------------ */

/* log of the sum of exp over the vocabulary. */
static double log_sum(const float *logits, uint32_t n) {
    double max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        if (logits[i] > max) max = logits[i];
    for (uint32_t i = 0; i < n; i++) sum += exp((double)logits[i] - max);
    return max + log(sum);
}

/* The k largest, largest first; the lower id wins ties. Insertion: k is small and most elements fail the first test. */
static void largest(const float *logits, uint32_t n, double norm, candidate *top, uint32_t k) {
    uint32_t have = 0;
    for (uint32_t i = 0; i < n; i++) {
        double lp = (double)logits[i] - norm;
        if (have == k && lp <= top[k - 1].logprob) continue;
        uint32_t at = have < k ? have++ : k - 1;
        for (; at > 0 && top[at - 1].logprob < lp; at--) top[at] = top[at - 1];
        top[at] = (candidate){.id = i, .logprob = lp};
    }
}

static tr_status take_row(eval *e, uint32_t position, const float *logits, tr_error *err) {
    if (e->done[position]) return TR_OK; /* again after a restart: the same numbers */
    double norm = log_sum(logits, e->vocab);
    if (!isfinite(norm))
        return tr_error_set(err, TR_INTERNAL, "the logits of position %u are not finite numbers", position);
    if (position + 1 < e->n) e->nll[position + 1] = norm - (double)logits[e->ids[position + 1]];
    if (e->kv) tr_cli_eval_kv_take(e->kv, position, logits, norm);
    if (e->topk) largest(logits, e->vocab, norm, e->top + (size_t)position * e->topk, e->topk);
    if (e->logits_fd >= 0) {
        const char *path = tr_options_text(e->session->options, TR_OPTION_LOGITS);
        uint64_t bytes = (uint64_t)e->vocab * sizeof(float);
        TR_TRY(write_at(e->logits_fd, logits, bytes, e->logits_at + position * bytes, path, err));
    }
    e->done[position] = 1;
    e->n_done++;
    return TR_OK;
}

static tr_status take_event(eval *e, const tr_client_event *event, tr_error *err) {
    if (event->rows == 0) return TR_OK;
    if (event->cols != e->vocab || event->pos0 >= e->n || event->rows > e->n - event->pos0)
        return tr_error_set(err, TR_INTERNAL, "logits of positions %u.. do not fit the text", event->pos0);
    for (uint32_t r = 0; r < event->rows; r++)
        TR_TRY(take_row(e, event->pos0 + r, event->logits + (size_t)r * event->cols, err));
    return TR_OK;
}

/* ---- the request
 * ------------------------------------------------------------------------------------------------------- */

/* Tokens at the end that the decode path computes. */
static uint32_t forced_of(const char *path, uint32_t n) {
    if (strcmp(path, "prefill") == 0 || n == 1) return 0;
    return strcmp(path, "decode") == 0 ? n - 1 : n - n / 2;
}

static void show_progress(const eval *e) {
    if (!isatty(STDERR_FILENO)) return;
    fprintf(stderr, "\r\033[K%u of %u positions", e->n_done, e->n);
    if (e->n_done == e->n) fputs("\r\033[K", stderr);
}

static tr_status wait_all(eval *e, tr_error *err) {
    tr_cli_session *s = e->session;
    for (;;) {
        tr_client_event event;
        if (tr_cli_signalled()) return TR_CANCELLED;
        tr_status status = tr_client_poll(s->client, 200, &event, err);
        if (status == TR_AGAIN) {
            if (tr_launch_wait_end(&s->launch, 0))
                return tr_error_set(err, TR_INTERNAL,
                                    "the company ended during the evaluation: run with TROUPE_LOG=warn");
            continue;
        }
        TR_TRY(status);
        if (event.kind == TR_CLIENT_ERROR)
            return tr_error_set(err, tr_cli_ask_code(event.code), "%s",
                                event.error ? event.error : "the request failed");
        TR_TRY(take_event(e, &event, err));
        show_progress(e);
        if (event.kind == TR_CLIENT_END) break;
    }
    if (e->n_done == e->n) return TR_OK;
    return tr_error_set(err, TR_INTERNAL, "logits of %u of %u positions are missing", e->n - e->n_done, e->n);
}

static tr_status ask(eval *e, tr_error *err) {
    uint64_t id;
    const char *path = tr_options_text(e->session->options, TR_OPTION_PATH);
    tr_client_params params = {
        .tokens = e->ids, .n_tokens = e->n, .logits = true, .forced = forced_of(path, e->n), .max_tokens = 0};
    TR_TRY(tr_client_add(e->session->client, &params, &id, err));
    return wait_all(e, err);
}

/* ---- result
 * ------------------------------------------------------------------------------------------------------------ */

static double mean_nll(const eval *e) {
    double sum = 0;
    for (uint32_t i = 1; i < e->n; i++) sum += e->nll[i];
    return e->n > 1 ? sum / (e->n - 1) : 0;
}

static void print_json(const eval *e) {
    double nll = mean_nll(e);
    fputs("{\"ids\":[", stdout);
    for (uint32_t i = 0; i < e->n; i++) printf("%s%u", i ? "," : "", e->ids[i]);
    printf("],\"nll\":%.17g,\"ppl\":%.17g,\"top\":[", nll, exp(nll));
    for (uint32_t i = 0; i < e->n && e->topk; i++) {
        fputs(i ? ",[" : "[", stdout);
        for (uint32_t k = 0; k < e->topk; k++) {
            const candidate *c = &e->top[(size_t)i * e->topk + k];
            printf("%s[%u,%.9g]", k ? "," : "", c->id, c->logprob);
        }
        putchar(']');
    }
    puts("]}");
}

static void print_text(const eval *e) {
    double nll = mean_nll(e);
    for (uint32_t i = 0; i < e->n && e->topk; i++) {
        printf("%u %u", i, e->ids[i]);
        for (uint32_t k = 0; k < e->topk; k++) {
            const candidate *c = &e->top[(size_t)i * e->topk + k];
            printf("  %u %.4f", c->id, c->logprob);
        }
        putchar('\n');
    }
    printf("positions %u  nll %.6f  ppl %.4f\n", e->n, nll, exp(nll));
}

static tr_status prepare(eval *e, tr_options *o, tr_error *err) {
    tr_cli_session *s = e->session;
    tr_cli_text text = {0};
    unsigned flags = tr_options_flag(o, TR_OPTION_NO_BOS) ? 0 : TR_TOKENIZE_BOS;
    if (tr_options_flag(o, TR_OPTION_SPECIAL)) flags |= TR_TOKENIZE_PARSE_SPECIAL;
    TR_TRY(tr_cli_read_file(tr_options_text(o, TR_OPTION_TEXT_FILE), TR_TOKENIZER_MAX_TEXT, &text, err));
    tr_status status = tr_cli_session_tokenize(s, text.data, text.len, flags, &e->ids, &e->n, err);
    tr_cli_text_free(&text);
    TR_TRY(status);
    const tr_model_config *m = tr_model_file_config(s->model);
    e->vocab = m->vocab;
    e->topk = tr_options_u32(o, TR_OPTION_TOPK) < m->vocab ? tr_options_u32(o, TR_OPTION_TOPK) : m->vocab;
    if (e->n == 0) return tr_error_set(err, TR_DATA, "the text is empty: there is nothing to evaluate");
    uint32_t context = s->topology.want.context ? s->topology.want.context : m->context_max;
    if (e->n > context)
        return tr_error_set(err, TR_DATA, "the text has %u tokens, the context %u: shorten it%s", e->n, context,
                            context < m->context_max ? " or raise -c" : "");
    e->done = calloc(e->n, 1);
    e->nll = calloc(e->n, sizeof *e->nll);
    e->top = e->topk ? calloc((size_t)e->n * e->topk, sizeof *e->top) : NULL;
    if (!e->done || !e->nll || (e->topk && !e->top))
        return tr_error_set(err, TR_UNAVAILABLE, "no memory for the result");
    s->topology.want.n_requests = 1;
    s->topology.want.request_tokens = e->n + (e->kv ? tr_cli_eval_kv_extra(m, e->n) : 0);
    s->topology.want.logits = true;
    return TR_OK;
}

/* One company after the other; what needs a calibration that is not there is left out. */
static tr_status compare(eval *e, tr_options *o, tr_error *err) {
    tr_cli_session *s = e->session;
    char name[64];
    tr_cli_session_name(o, name);
    TR_TRY(tr_cli_eval_kv_init(e->kv, e->n, e->vocab, err));
    for (int f = TR_KV_NONE + 1; f < TR_KV_FORMAT_END; f++) {
        e->kv->format = (tr_kv_format)f;
        for (int side = 0; side < 2; side++) s->topology.want.side[side].kv = (tr_kv_format)f;
        TR_TRY(tr_cli_session_plan(s, err));
        tr_status status = tr_cli_session_start(s, name, err);
        if (status == TR_NO_INPUT && tr_kv_describe((tr_kv_format)f)->calibrated) {
            tr_cli_say("left out: %s", err->text);
            tr_cli_session_stop(s);
            continue;
        }
        TR_TRY(status);
        memset(e->done, 0, e->n);
        e->n_done = 0;
        TR_TRY(ask(e, err));
        TR_TRY(tr_cli_eval_kv_end(e->kv, s, e->ids, mean_nll(e), err));
        tr_cli_session_stop(s);
    }
    return TR_OK;
}

static tr_status evaluate(eval *e, tr_options *o, tr_error *err) {
    char name[64];
    if (!tr_options_given(o, TR_OPTION_TEXT_FILE))
        return tr_error_set(err, TR_USAGE, "no text: give --text FILE, or --text - for stdin");
    TR_TRY(tr_cli_session_load(e->session, o, err));
    TR_TRY(prepare(e, o, err));
    if (e->kv) return compare(e, o, err);
    TR_TRY(tr_cli_session_plan(e->session, err));
    if (tr_options_given(o, TR_OPTION_LOGITS)) TR_TRY(open_npy(e, tr_options_text(o, TR_OPTION_LOGITS), err));
    tr_cli_session_name(o, name);
    TR_TRY(tr_cli_session_start(e->session, name, err));
    return ask(e, err);
}

int tr_cli_eval(tr_options *o) {
    static tr_cli_session session;
    static tr_cli_eval_kv kv;
    eval e = {.session = &session, .logits_fd = -1};
    tr_error err = {0};
    if (tr_options_flag(o, TR_OPTION_COMPARE_KV)) e.kv = &kv;
    tr_status status = evaluate(&e, o, &err);
    tr_cli_session_fini(&session);
    if (e.logits_fd >= 0 && close(e.logits_fd) != 0 && status == TR_OK)
        status = tr_error_set(&err, TR_CANNOT_CREATE, "cannot write the logits: %s", strerror(errno));
    if (status == TR_OK) {
        if (e.kv)
            tr_cli_eval_kv_print(e.kv, tr_options_flag(o, TR_OPTION_JSON));
        else if (tr_options_flag(o, TR_OPTION_JSON))
            print_json(&e);
        else
            print_text(&e);
    }
    if (e.kv) tr_cli_eval_kv_fini(e.kv);
    free(e.ids);
    free(e.done);
    free(e.nll);
    free(e.top);
    return tr_cli_session_exit(&session, status, &err);
}
