/* ask_client ENDPOINT: requests from stdin to a running company, their ends to stdout, for the tests of samples and of
 * the prefix cache. A line is one request: `key=value ...` with tokens (1,2,3), max,
 * n, seed, temp, salt, timeout_ms, logits (1 all, 2 those computed), abort (after so many tokens), abort_ms (after that
 * time). An empty line waits for all that are open, so that what stands between two empty lines runs at once. Each
 * sample that ends prints
 *   {"request":R,"sample":K,"finish":F,"cached":C,"ttft_ns":T,"tokens":[..],"logits":{"POS":"HASH",..}}
 * or {"request":R,"sample":K,"error":"...","code":N}. */
#include "client/troupe_client.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REQUESTS_MAX = 256, TOKENS_MAX = 8192 };

typedef struct sample {
    uint32_t n, token[TOKENS_MAX];
} sample;
typedef struct request {
    uint64_t id;
    uint32_t n, abort_after;
    uint64_t abort_ns;    /* 0: no */
    sample *sample;       /* [n] */
    uint64_t *logit_hash; /* [TOKENS_MAX] by position, 0: none */
} request;

static tr_client *client;
static request requests[REQUESTS_MAX];
static uint32_t n_requests;

static void die(const char *what, const tr_error *err) {
    fprintf(stderr, "ask_client: %s: %s\n", what, err->text);
    exit(1);
}

static uint64_t hash(const void *data, size_t bytes) {
    const uint8_t *p = data;
    uint64_t h = 0xcbf29ce484222325;
    for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 0x100000001b3;
    return h | 1;
}

static void print_end(uint32_t r, const tr_client_event *e) {
    const sample *s = &requests[r].sample[e->sample];
    printf("{\"request\":%u,\"sample\":%u,\"finish\":%u,\"cached\":%u,\"ttft_ns\":%" PRIu64 ",\"tokens\":[", r,
           e->sample, e->finish, e->cached_tokens, e->ttft_ns);
    for (uint32_t i = 0; i < s->n; i++) printf("%s%u", i ? "," : "", s->token[i]);
    printf("],\"logits\":{");
    const char *comma = "";
    for (uint32_t i = 0; i < TOKENS_MAX; i++) {
        if (!requests[r].logit_hash[i]) continue;
        printf("%s\"%u\":\"%016" PRIx64 "\"", comma, i, requests[r].logit_hash[i]);
        comma = ",";
    }
    printf("}}\n");
}

static void on_event(const tr_client_event *e) {
    uint32_t r = 0;
    while (r < n_requests && requests[r].id != e->id) r++;
    if (r == n_requests) return;
    request *q = &requests[r];
    if (e->kind == TR_CLIENT_ERROR) {
        printf("{\"request\":%u,\"sample\":%u,\"error\":\"%s\",\"code\":%u}\n", r, e->sample, e->error, e->code);
        return;
    }
    sample *s = &q->sample[e->sample];
    for (uint32_t i = 0; i < e->n_tokens && s->n < TOKENS_MAX; i++) s->token[s->n++] = e->tokens[i];
    for (uint32_t i = 0; i < e->rows && e->pos0 + i < TOKENS_MAX; i++)
        q->logit_hash[e->pos0 + i] = hash(e->logits + (size_t)i * e->cols, e->cols * sizeof(float));
    if (e->kind == TR_CLIENT_END) print_end(r, e);
    if (q->abort_after && s->n >= q->abort_after) {
        q->abort_after = 0;
        tr_client_abort(client, q->id);
    }
}

static void abort_due(void) {
    for (uint32_t r = 0; r < n_requests; r++) {
        if (requests[r].abort_ns == 0 || tr_clock_now_ns() < requests[r].abort_ns) continue;
        requests[r].abort_ns = 0;
        tr_client_abort(client, requests[r].id); /* it may have ended before */
    }
}

static void wait_all(void) {
    int pause = 1000;
    for (uint32_t r = 0; r < n_requests; r++)
        if (requests[r].abort_ns) pause = 1;
    tr_error err = {0};
    tr_client_event e;
    while (tr_client_open_requests(client) > 0) {
        tr_status status = tr_client_poll(client, pause, &e, &err);
        abort_due();
        if (status == TR_OK)
            on_event(&e);
        else if (status != TR_AGAIN)
            die("poll", &err);
    }
    fflush(stdout);
}

static uint32_t read_tokens(char *list, uint32_t *tokens) {
    uint32_t n = 0;
    char *save = NULL;
    for (char *word = strtok_r(list, ",", &save); word && n < TOKENS_MAX; word = strtok_r(NULL, ",", &save))
        tokens[n++] = (uint32_t)strtoul(word, NULL, 10);
    return n;
}

static void ask(char *line) {
    static uint32_t tokens[TOKENS_MAX];
    tr_client_params p = {.max_tokens = 16, .ignore_eos = true};
    request *q = &requests[n_requests++];
    char *save = NULL;
    for (char *word = strtok_r(line, " \n", &save); word; word = strtok_r(NULL, " \n", &save)) {
        char *value = strchr(word, '=');
        if (!value || n_requests == REQUESTS_MAX) exit(2);
        *value++ = 0;
        uint32_t number = (uint32_t)strtoul(value, NULL, 10);
        if (strcmp(word, "tokens") == 0) p.tokens = tokens, p.n_tokens = read_tokens(value, tokens);
        if (strcmp(word, "max") == 0) p.max_tokens = number;
        if (strcmp(word, "n") == 0) p.n = number;
        if (strcmp(word, "seed") == 0) p.seed = number;
        if (strcmp(word, "temp") == 0) p.temperature = strtof(value, NULL);
        if (strcmp(word, "salt") == 0) p.cache_salt = value;
        if (strcmp(word, "logits") == 0) p.logits = number > 0, p.keep_cache = number == 2;
        if (strcmp(word, "timeout_ms") == 0) p.timeout_ms = number;
        if (strcmp(word, "abort") == 0) q->abort_after = number;
        if (strcmp(word, "abort_ms") == 0) q->abort_ns = tr_clock_now_ns() + number * TR_NS_PER_MS;
    }
    q->n = p.n > 1 ? p.n : 1;
    q->sample = calloc(q->n, sizeof *q->sample);
    q->logit_hash = calloc(TOKENS_MAX, sizeof *q->logit_hash);
    tr_error err = {0};
    if (!q->sample || !q->logit_hash) exit(2);
    if (tr_client_add(client, &p, &q->id, &err) != TR_OK) die("add", &err);
}

int main(int argc, char **argv) {
    static char line[1 << 17];
    tr_error err = {0};
    if (argc != 2) return 64;
    if (tr_client_connect(argv[1], NULL, &client, &err) != TR_OK) die(argv[1], &err);
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == '\n')
            wait_all();
        else
            ask(line);
    }
    wait_all();
    tr_client_close(&client);
    for (uint32_t i = 0; i < n_requests; i++) {
        free(requests[i].sample);
        free(requests[i].logit_hash);
    }
    return 0;
}
