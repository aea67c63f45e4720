#include "actors/gateway/gateway.h"

#include "actors/actors.h"
#include "base/clock.h"
#include "base/log.h"
#include "model/chat_source.h"
#include "model/tokenizer_file.h"
#include "model/tokenizer_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BODY_MAX = 8 << 20,
    UNSENT_MAX = 4 << 20,
    CONNECTIONS_MAX = 1024,
    IDLE_S = 60,
    BODY_S = 120,
    SERVICE_MS = 50, /* at most: requests, answers of the company and leavers end the wait */
    CONNECT_MS = 2000,
    LOST_MS = 30000
};
#define TRY_AGAIN_NS (250 * TR_NS_PER_MS)

/* One key a line; blank lines and lines that begin with # are none. */
static tr_status read_keys(tr_gateway *g, const char *path, tr_error *err) {
    char line[TR_GATEWAY_KEY_BYTES + 2];
    if (!path[0]) return TR_OK;
    FILE *f = fopen(path, "re");
    if (!f) return tr_error_set(err, TR_NO_INPUT, "%s: the file of API keys cannot be read", path);
    tr_status status = TR_OK;
    while (status == TR_OK && fgets(line, sizeof line, f)) {
        size_t n = strcspn(line, "\r\n");
        if (n >= TR_GATEWAY_KEY_BYTES)
            status = tr_error_set(err, TR_CONFIG, "%s: a key has at most %d bytes", path, TR_GATEWAY_KEY_BYTES - 1);
        line[n] = 0;
        if (status != TR_OK || n == 0 || line[0] == '#') continue;
        if (g->n_keys == TR_GATEWAY_KEYS)
            status = tr_error_set(err, TR_CONFIG, "%s: at most %d keys are possible", path, TR_GATEWAY_KEYS);
        else
            memcpy(g->key[g->n_keys++], line, n + 1);
    }
    fclose(f);
    if (status == TR_OK && g->n_keys == 0)
        return tr_error_set(err, TR_CONFIG, "%s: there is no key in it; write one a line", path);
    return status;
}

static tr_status open_tokenizer(tr_gateway *g, tr_error *err) {
    const tr_company *c = g->rt->company;
    if (c->vocabulary_path[0] &&
        tr_tokenizer_file_open(c->vocabulary_path, c->model_hash, &g->tokenizer, NULL) == TR_OK)
        return TR_OK;
    const tr_status status = tr_tokenizer_source_open(c->model_path, &g->tokenizer, err);
    return status == TR_UNAVAILABLE ? TR_OK : status; /* token ids only */
}

static tr_status open_gateway(tr_gateway *g, tr_error *err) {
    const tr_company *c = g->rt->company;
    tr_error why = {0};
    TR_TRY(read_keys(g, c->api_key_file, err));
    TR_TRY(open_tokenizer(g, err));
    if (tr_chat_source_open(c->model_path, &g->chat, &why) != TR_OK)
        tr_log(TR_LOG_WARN, "chat_template_unusable", "%s", why.text);
    const uint32_t before = atomic_load(&g->rt->block->port); /* of an earlier life: clients know it */
    const tr_http_config config = {.host = c->http_host,
                                   .port = (uint16_t)(c->http_port ? c->http_port : before),
                                   .body_max = BODY_MAX,
                                   .unsent_max = UNSENT_MAX,
                                   .connections_max = CONNECTIONS_MAX,
                                   .idle_s = IDLE_S,
                                   .body_s = BODY_S,
                                   .self = g,
                                   .request = tr_gateway_on_request,
                                   .gone = tr_gateway_on_gone};
    TR_TRY(tr_http_open(&config, &g->http, err));
    atomic_store(&g->rt->block->port, tr_http_port(g->http));
    return TR_OK;
}

static void close_gateway(tr_gateway *g) {
    tr_client_close(&g->client);
    tr_http_close(&g->http);
    tr_chat_template_close(&g->chat);
    tr_tokenizer_destroy(&g->tokenizer);
    free(g);
}

/* The frontend may not be there yet, or be between two lives: try now and then, and answer meanwhile. */
static void connect_frontend(tr_gateway *g) {
    tr_error err = {0};
    const tr_client_options options = {.name = "gateway",
                                       .connect_timeout_ms = CONNECT_MS,
                                       .lost_timeout_ms = LOST_MS,
                                       .zmq_context = tr_runtime_zmq(g->rt)};
    if (g->client || g->now_ns < g->next_try_ns) return;
    if (tr_client_connect(g->rt->company->endpoint, &options, &g->client, &err) != TR_OK) {
        tr_log(TR_LOG_INFO, "frontend_not_there", "%s", err.text);
        g->next_try_ns = tr_clock_now_ns() + TRY_AGAIN_NS;
    } else
        tr_http_watch(g->http, tr_client_fd(g->client));
}

static void pump_client(tr_gateway *g) {
    tr_client_event e;
    tr_error err = {0};
    tr_status status = TR_OK;
    while (g->client && (status = tr_client_poll(g->client, 0, &e, &err)) == TR_OK) tr_gateway_on_event(g, &e);
    if (g->client && status == TR_PROTO) {
        tr_http_watch(g->http, -1);
        tr_client_close(&g->client);
        tr_gateway_fail_all(g, err.text);
    }
}

tr_status tr_gateway_run(tr_runtime *rt, tr_error *err) {
    tr_gateway *g = calloc(1, sizeof *g);
    if (!g) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the gateway");
    g->rt = rt;
    tr_status status = open_gateway(g, err);
    if (status == TR_OK) {
        tr_runtime_ready(rt);
        while (!tr_runtime_stopping(rt)) {
            g->now_ns = tr_clock_now_ns();
            connect_frontend(g);
            pump_client(g);
            tr_gateway_tick(g);
            atomic_fetch_add_explicit(&rt->block->beat, 1, memory_order_relaxed);
            tr_http_service(g->http, SERVICE_MS);
        }
        tr_gateway_fail_all(g, "the company was stopped");
        for (int i = 0; i < 10; i++) tr_http_service(g->http, 5);
    }
    close_gateway(g);
    return status;
}
