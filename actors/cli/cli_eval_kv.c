#include "actors/cli/cli_eval_kv.h"

#include "actors/cli/cli_ask.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { DECODED = 32 }; /* tokens that are timed */

/* Larger than what a process should hold: pages of a file, written once and read once a format. */
static tr_status make_base(tr_cli_eval_kv *k, tr_error *err) {
    const char *folder = getenv("TMPDIR");
    char path[1024];
    snprintf(path, sizeof path, "%.1000s/troupe-XXXXXX", folder && *folder ? folder : "/tmp");
    const size_t bytes = (size_t)k->n * k->vocab * sizeof(float);
    int fd = mkstemp(path);
    if (fd < 0) return tr_error_set(err, TR_CANNOT_CREATE, "cannot create %.300s: %s", path, strerror(errno));
    unlink(path);
    int why = posix_fallocate(fd, 0, (off_t)bytes);
    void *map = why ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (!why && map == MAP_FAILED) why = errno;
    close(fd);
    if (why)
        return tr_error_set(err, TR_CANNOT_CREATE, "no room for %zu MiB of logits in %.300s: %s", bytes >> 20, path,
                            strerror(why));
    k->base = map;
    return TR_OK;
}

tr_status tr_cli_eval_kv_init(tr_cli_eval_kv *k, uint32_t n, uint32_t vocab, tr_error *err) {
    *k = (tr_cli_eval_kv){.n = n, .vocab = vocab};
    k->base_norm = calloc(n, sizeof *k->base_norm);
    k->kl = calloc(n, sizeof *k->kl);
    if (!k->base_norm || !k->kl) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the result");
    return make_base(k, err);
}

void tr_cli_eval_kv_fini(tr_cli_eval_kv *k) {
    if (k->base) munmap(k->base, (size_t)k->n * k->vocab * sizeof(float));
    free(k->base_norm);
    free(k->kl);
    k->base = NULL;
    k->base_norm = k->kl = NULL;
}

void tr_cli_eval_kv_take(tr_cli_eval_kv *k, uint32_t position, const float *logits, double norm) {
    float *base = k->base + (size_t)position * k->vocab;
    if (k->format == TR_KV_BF16) {
        memcpy(base, logits, k->vocab * sizeof *base);
        k->base_norm[position] = norm;
    }
    uint32_t top = 0, base_top = 0;
    double kl = 0, base_norm = k->base_norm[position];
    for (uint32_t i = 0; i < k->vocab; i++) {
        const double p = (double)base[i] - base_norm, q = (double)logits[i] - norm;
        kl += exp(p) * (p - q);
        if (logits[i] > logits[top]) top = i;
        if (base[i] > base[base_top]) base_top = i;
    }
    k->kl[position] = kl;
    k->same += top == base_top;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

uint32_t tr_cli_eval_kv_extra(const tr_model_config *m, uint32_t n) {
    return m->context_max - n > DECODED + 1 ? DECODED + 1 : 0;
}

/* Median time between tokens that follow the text; the first gap holds prefill and hand-off. */
static tr_status time_decode(tr_cli_session *s, const uint32_t *ids, uint32_t n, double *ms_out, tr_error *err) {
    const uint32_t extra = tr_cli_eval_kv_extra(tr_model_file_config(s->model), n);
    const tr_client_params params = {.tokens = ids, .n_tokens = n, .max_tokens = extra, .ignore_eos = true};
    double gap[DECODED + 1];
    uint32_t n_gaps = 0;
    uint64_t id, last = 0;
    *ms_out = 0;
    if (extra == 0) return TR_OK;
    TR_TRY(tr_client_add(s->client, &params, &id, err));
    for (;;) {
        tr_client_event e;
        if (tr_cli_signalled()) return TR_CANCELLED;
        tr_status status = tr_client_poll(s->client, 200, &e, err);
        if (status == TR_AGAIN && tr_launch_wait_end(&s->launch, 0))
            return tr_error_set(err, TR_INTERNAL, "the company ended under the text: run with TROUPE_LOG=warn");
        if (status == TR_AGAIN) continue;
        TR_TRY(status);
        if (e.kind == TR_CLIENT_ERROR)
            return tr_error_set(err, tr_cli_ask_code(e.code), "%s", e.error ? e.error : "the request failed");
        const uint64_t now = tr_clock_now_ns();
        if (e.n_tokens == 1 && last && n_gaps < DECODED) gap[n_gaps++] = (double)(now - last) / 1e6;
        if (e.n_tokens) last = now;
        if (e.kind == TR_CLIENT_END) break;
    }
    qsort(gap, n_gaps, sizeof *gap, by_size);
    *ms_out = n_gaps ? gap[n_gaps / 2] : 0;
    return TR_OK;
}

tr_status tr_cli_eval_kv_end(tr_cli_eval_kv *k, tr_cli_session *s, const uint32_t *ids, double nll, tr_error *err) {
    const tr_kv_layout *l = &s->company.layout[0];
    tr_cli_eval_kv_row *r = &k->row[k->format];
    double sum = 0;
    for (uint32_t i = 0; i < k->n; i++) sum += k->kl[i];
    qsort(k->kl, k->n, sizeof *k->kl, by_size);
    *r = (tr_cli_eval_kv_row){.done = true,
                              .kl_mean = sum / k->n,
                              .kl_p99 = k->kl[(k->n - 1) * 99ull / 100],
                              .kl_max = k->kl[k->n - 1],
                              .top1 = (double)k->same / k->n,
                              .nll = nll,
                              .bytes_per_token = (double)l->n_layers * l->n_kv_heads *
                                                 (double)tr_kv_tile_bytes(k->format, l->head_dim) / TR_KV_TILE_TOK};
    k->same = 0;
    return time_decode(s, ids, k->n, &r->decode_ms, err);
}

void tr_cli_eval_kv_print(const tr_cli_eval_kv *k, bool json) {
    if (json) printf("{\"positions\":%u,\"kv\":[", k->n);
    if (!json)
        puts("| kv | KL mean | p99 | max | same top-1 | perplexity | bytes a token | ms a token |\n"
             "|---|---|---|---|---|---|---|---|");
    const char *comma = "";
    for (int f = TR_KV_NONE + 1; f < TR_KV_FORMAT_END; f++) {
        const tr_cli_eval_kv_row *r = &k->row[f];
        const char *name = tr_kv_format_name((tr_kv_format)f);
        if (!r->done) continue;
        if (json)
            printf("%s{\"format\":\"%s\",\"kl_mean\":%.9g,\"kl_p99\":%.9g,\"kl_max\":%.9g,\"top1\":%.9g,\"nll\":%.17g,"
                   "\"ppl\":%.17g,\"bytes_per_token\":%.9g,\"decode_ms\":%.9g}",
                   comma, name, r->kl_mean, r->kl_p99, r->kl_max, r->top1, r->nll, exp(r->nll), r->bytes_per_token,
                   r->decode_ms);
        else
            printf("| %s | %.6f | %.5f | %.5f | %.2f %% | %.4f | %.0f | %.2f |\n", name, r->kl_mean, r->kl_p99,
                   r->kl_max, 100 * r->top1, exp(r->nll), r->bytes_per_token, r->decode_ms);
        comma = ",";
    }
    if (json) puts("]}");
}
