/* actors/gateway/gateway_metrics.c - /metrics in Prometheus text (prometheus.io/docs/instrumenting/exposition_formats).
 * Names that dashboards for vLLM read, beside our own. */
#include "actors/gateway/gateway.h"

#include "kv/kv_pool.h"
#include "scheduler/journal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t in_use(const tr_gateway *g, uint32_t pool, uint32_t *pages_out) {
    const tr_company *c = g->rt->company;
    uint8_t *tables = g->rt->segment[TR_SEGMENT_TABLES];
    tr_kv_pool p;
    uint32_t pages = 0, free_pages = 0;
    tr_kv_pool_attach(&p, &c->layout[pool], (_Atomic uint64_t *)(void *)(tables + c->bitmap_offset[pool]));
    for (uint32_t i = 0; i < c->layout[pool].n_groups; i++) {
        pages += c->layout[pool].group[i].n_pages;
        free_pages += tr_kv_pool_count_free(&p, i);
    }
    *pages_out = pages;
    return pages - free_pages;
}

static void family(FILE *f, const char *name, const char *type, const char *help) {
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

char *tr_gateway_metrics(tr_gateway *g, size_t *len_out) {
    static const char *const reasons[] = {NULL, "stop", "length", "abort", "error"};
    const char *model = g->rt->company->model_name;
    char *text = NULL;
    FILE *f = open_memstream(&text, len_out);
    if (!f) return NULL;
    uint32_t open = 0, pages = 0;
    for (uint32_t i = 0; i < TR_GATEWAY_EXCHANGES; i++) open += g->exchange[i].http != 0;
    family(f, "vllm:num_requests_running", "gauge", "HTTP requests that are open.");
    fprintf(f, "vllm:num_requests_running{model_name=\"%s\"} %u\n", model, open);
    family(f, "vllm:prompt_tokens_total", "counter", "Prompt tokens of ended requests.");
    fprintf(f, "vllm:prompt_tokens_total{model_name=\"%s\"} %" PRIu64 "\n", model, g->count.prompt_tokens);
    family(f, "vllm:generation_tokens_total", "counter", "Generated tokens of ended requests.");
    fprintf(f, "vllm:generation_tokens_total{model_name=\"%s\"} %" PRIu64 "\n", model, g->count.generated_tokens);
    family(f, "vllm:request_success_total", "counter", "Ended requests by reason.");
    for (uint32_t i = 1; i < 5; i++)
        fprintf(f, "vllm:request_success_total{model_name=\"%s\",finished_reason=\"%s\"} %" PRIu64 "\n", model,
                reasons[i], g->count.finished[i]);
    family(f, "vllm:kv_cache_usage_perc", "gauge", "Share of the decode pool's pages that are taken.");
    uint32_t used = in_use(g, g->rt->company->one_pool ? 0 : 1, &pages);
    fprintf(f, "vllm:kv_cache_usage_perc{model_name=\"%s\"} %.6f\n", model, pages ? (double)used / pages : 0.0);
    family(f, "troupe:kv_pages_quarantined", "gauge",
           "Pages that something unconfirmed could still touch, over both pools.");
    tr_journal *journal = g->rt->segment[TR_SEGMENT_JOURNAL];
    fprintf(f, "troupe:kv_pages_quarantined %u\n",
            atomic_load(&journal->quarantined[0]) + atomic_load(&journal->quarantined[1]));
    family(f, "vllm:num_preemptions_total", "counter", "Requests that gave their KV pages to an earlier one.");
    fprintf(f, "vllm:num_preemptions_total{model_name=\"%s\"} %" PRIu64 "\n", model,
            atomic_load(&journal->preemptions));
    family(f, "troupe:swap_bytes_used", "gauge", "Bytes of the swap space that hold KV of requests that gave way.");
    fprintf(f, "troupe:swap_bytes_used %" PRIu64 "\n", atomic_load(&journal->swap_used));
    family(f, "troupe:swapped_out_total", "counter", "Requests whose KV went to the swap space.");
    fprintf(f, "troupe:swapped_out_total %" PRIu64 "\n", atomic_load(&journal->swapped_out));
    family(f, "troupe:http_requests_refused_total", "counter", "Requests answered with an error.");
    fprintf(f, "troupe:http_requests_refused_total %" PRIu64 "\n", g->count.refused);
    family(f, "troupe:http_clients_left_total", "counter", "Clients that left before their answer was complete.");
    fprintf(f, "troupe:http_clients_left_total %" PRIu64 "\n", g->count.left);
    family(f, "troupe:http_connections", "gauge", "Open connections.");
    fprintf(f, "troupe:http_connections %u\n", tr_http_connections(g->http));
    if (fclose(f) == 0) return text;
    free(text);
    return NULL;
}
