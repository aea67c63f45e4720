/* actors/gateway/metrics.h - every metric of /metrics, once: name, type, labels, buckets, help. The exposition, the
 * document docs/metrics.md and the tests of the dashboard come from this table. Names and buckets that begin with vllm:
 * are those of vLLM, so that its dashboards work; troupe: are ours. Pure. */
#ifndef TR_METRICS_H
#define TR_METRICS_H
#include <stdint.h>
#include <stdio.h>

/* M(ID, name, type, labels, buckets, help); all vllm: ones carry model_name beside their labels */
#define TR_METRICS(M)                                                                                                  \
    M(RUNNING, "vllm:num_requests_running", GAUGE, "", NONE, "requests of which a step was issued")                    \
    M(WAITING, "vllm:num_requests_waiting", GAUGE, "", NONE, "accepted requests that wait for their first step")       \
    M(KV_USAGE, "vllm:kv_cache_usage_perc", GAUGE, "", NONE,                                                           \
      "share of the decode pool's pages that are taken, 0 to 1")                                                       \
    M(PROMPT_TOKENS, "vllm:prompt_tokens_total", COUNTER, "", NONE, "prompt tokens of ended requests")                 \
    M(GENERATED_TOKENS, "vllm:generation_tokens_total", COUNTER, "", NONE, "generated tokens of ended requests")       \
    M(SUCCESS, "vllm:request_success_total", COUNTER, "finished_reason", NONE, "ended requests")                       \
    M(PREEMPTIONS, "vllm:num_preemptions_total", COUNTER, "", NONE, "sequences that gave their pages back")            \
    M(PREFIX_QUERIES, "vllm:prefix_cache_queries_total", COUNTER, "", NONE, "prompt tokens that were looked for")      \
    M(PREFIX_HITS, "vllm:prefix_cache_hits_total", COUNTER, "", NONE, "prompt tokens that were there")                 \
    M(TTFT, "vllm:time_to_first_token_seconds", HISTOGRAM, "", TTFT, "from the request's arrival to its first token")  \
    M(ITL, "vllm:inter_token_latency_seconds", HISTOGRAM, "", ITL, "between two tokens of a request")                  \
    M(TPOT, "vllm:time_per_output_token_seconds", HISTOGRAM, "", ITL, "the same, under its older name")                \
    M(E2E, "vllm:e2e_request_latency_seconds", HISTOGRAM, "", LATENCY, "from arrival to the last token")               \
    M(QUEUE, "vllm:request_queue_time_seconds", HISTOGRAM, "", LATENCY, "from acceptance to the first step")           \
    M(PREFILL, "vllm:request_prefill_time_seconds", HISTOGRAM, "", LATENCY, "from the first step to the first token")  \
    M(DECODE, "vllm:request_decode_time_seconds", HISTOGRAM, "", LATENCY, "from the first token to the last")          \
    M(INFERENCE, "vllm:request_inference_time_seconds", HISTOGRAM, "", LATENCY,                                        \
      "from the first step to the last token")                                                                         \
    M(REQUEST_PROMPT, "vllm:request_prompt_tokens", HISTOGRAM, "", TOKENS, "prompt tokens of a request")               \
    M(REQUEST_GENERATED, "vllm:request_generation_tokens", HISTOGRAM, "", TOKENS, "generated tokens of a request")     \
    M(STAGE_TIME, "troupe:stage_time_seconds_total", COUNTER, "stage,cause", NONE,                                     \
      "where the time of a stage went: its ledger (operations.md); the causes sum up to the time since its start")     \
    M(ACTOR_UP, "troupe:actor_up", GAUGE, "actor", NONE, "1: the actor is ready and alive")                            \
    M(RESTARTS, "troupe:actor_restarts_total", COUNTER, "actor", NONE, "lives after the first")                        \
    M(DEATHS, "troupe:actor_deaths_total", COUNTER, "actor", NONE,                                                     \
      "deaths that say something about the work: crashes, lapsed leases; not a kill from outside")                     \
    M(STEPS, "troupe:actor_steps_total", COUNTER, "actor", NONE, "steps, jobs or turns completed")                     \
    M(KV_PAGES, "troupe:kv_pages", GAUGE, "pool,state", NONE,                                                          \
      "pages by state: used, free, of the free ones cached, of the used ones quarantined")                             \
    M(QUARANTINED, "troupe:kv_pages_quarantined", GAUGE, "", NONE,                                                     \
      "pages that something unconfirmed could still touch, over both pools")                                           \
    M(SWAP_BYTES, "troupe:swap_bytes_used", GAUGE, "", NONE, "bytes of the swap space that hold KV of requests")       \
    M(SWAPPED_OUT, "troupe:swapped_out_total", COUNTER, "", NONE, "requests whose KV went to the swap space")          \
    M(HANDOFF, "troupe:kv_handoff_seconds", HISTOGRAM, "", TTFT,                                                       \
      "what a request waited for its hand-off after prefill")                                                          \
    M(HANDOFF_BYTES, "troupe:kv_handoff_bytes_total", COUNTER, "", NONE, "KV bytes that were handed over")             \
    M(STORE_UP, "troupe:store_up", GAUGE, "", NONE, "1: the store's server answers")                                   \
    M(STORE_TOKENS, "troupe:store_hit_tokens_total", COUNTER, "", NONE, "prompt tokens that came from the store")      \
    M(STORE_BLOCKS, "troupe:store_blocks_total", COUNTER, "event", NONE,                                               \
      "questions and blocks: asked, hit, stored, refused, failed, dropped")                                            \
    M(STORE_BYTES, "troupe:store_bytes_total", COUNTER, "", NONE, "bytes given to the store")                          \
    M(LINK_UP, "troupe:link_up", GAUGE, "link", NONE, "1: the link to that host works")                                \
    M(LINK_OUTAGES, "troupe:link_outages_total", COUNTER, "link", NONE, "times that its lease lapsed or it broke")     \
    M(HTTP_REFUSED, "troupe:http_requests_refused_total", COUNTER, "", NONE, "requests answered with an error")        \
    M(HTTP_LEFT, "troupe:http_clients_left_total", COUNTER, "", NONE,                                                  \
      "clients that left before their answer was complete")                                                            \
    M(HTTP_CONNECTIONS, "troupe:http_connections", GAUGE, "", NONE, "open connections")

typedef enum tr_metrics_id {
#define M(id, ...) TR_METRICS_##id,
    TR_METRICS(M)
#undef M
        TR_METRICS_END
} tr_metrics_id;

enum { TR_METRICS_BUCKETS_MAX = 24 };
typedef enum tr_metrics_type { TR_METRICS_GAUGE, TR_METRICS_COUNTER, TR_METRICS_HISTOGRAM } tr_metrics_type;

typedef struct tr_metrics_row {
    const char *name, *labels, *help;
    tr_metrics_type type;
    const double *bounds; /* upper ones, rising; without the infinite one */
    uint32_t n_bounds;
} tr_metrics_row;

typedef struct tr_metrics_histogram {
    uint64_t count[TR_METRICS_BUCKETS_MAX + 1]; /* by bucket; the last one has no bound */
    double sum;
} tr_metrics_histogram;

const tr_metrics_row *tr_metrics_about(tr_metrics_id id);
/* A value was seen so many times. */
void tr_metrics_observe(tr_metrics_histogram *h, tr_metrics_id id, double value, uint64_t times);
/* The two lines that begin a family; then a sample a line. label: "a=\"b\",c=\"d\"", "" or of tr_metrics_label. */
void tr_metrics_family(FILE *f, tr_metrics_id id);
void tr_metrics_sample(FILE *f, tr_metrics_id id, const char *label, double value);
void tr_metrics_histogram_samples(FILE *f, tr_metrics_id id, const char *label, const tr_metrics_histogram *h);
/* name="value" with what a value may not hold escaped; cut to room. */
void tr_metrics_label(char *out, size_t room, const char *name, const char *value);
void tr_metrics_document(FILE *f); /* docs/metrics.md */
#endif
