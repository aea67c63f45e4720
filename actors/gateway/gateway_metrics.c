/* actors/gateway/gateway_metrics.c - the values of metrics.h: from the company's memory, and from what went through
 * here (prometheus.io/docs/instrumenting/exposition_formats). */
#include "actors/gateway/gateway.h"

#include "base/clock.h"
#include "kv/kv_pool.h"
#include "scheduler/journal.h"

#include <stdlib.h>
#include <string.h>

enum { LABEL_BYTES = 640 };

static double seconds(uint64_t ns) { return (double)ns / 1e9; }

/* A request's tokens as they come: latencies that only the door sees. */
void tr_gateway_measure(tr_gateway *g, const tr_gateway_exchange *x, tr_gateway_choice *c, const tr_client_event *e) {
    tr_metrics_histogram *h = g->histogram;
    const uint64_t now = tr_clock_now_ns();
    if (e->n_tokens > 0) {
        const uint64_t first = c->told_ns == 0, rest = e->n_tokens - first;
        if (first)
            tr_metrics_observe(&h[TR_METRICS_TTFT], TR_METRICS_TTFT, seconds(now - x->asked_ns), 1);
        else
            for (tr_metrics_id id = TR_METRICS_ITL; id <= TR_METRICS_TPOT; id++)
                tr_metrics_observe(&h[id], id, seconds(now - c->told_ns) / (double)rest, rest);
        c->told_ns = now;
    }
    if (e->kind != TR_CLIENT_END || e->finish == TR_FINISH_ABORT) return;
    const struct {
        tr_metrics_id id;
        double value;
    } ended[] = {{TR_METRICS_E2E, seconds(now - x->asked_ns)},
                 {TR_METRICS_QUEUE, seconds(e->queue_ns)},
                 {TR_METRICS_PREFILL, seconds(e->ttft_ns > e->queue_ns ? e->ttft_ns - e->queue_ns : 0)},
                 {TR_METRICS_DECODE, seconds(e->total_ns > e->ttft_ns ? e->total_ns - e->ttft_ns : 0)},
                 {TR_METRICS_INFERENCE, seconds(e->total_ns > e->queue_ns ? e->total_ns - e->queue_ns : 0)},
                 {TR_METRICS_REQUEST_PROMPT, e->prompt_tokens},
                 {TR_METRICS_REQUEST_GENERATED, e->generated_tokens},
                 {TR_METRICS_HANDOFF, seconds(e->visible_ns)}};
    const size_t n = sizeof ended / sizeof *ended - (e->handoff_bytes == 0);
    for (size_t i = 0; i < n; i++) tr_metrics_observe(&h[ended[i].id], ended[i].id, ended[i].value, 1);
    g->count.handoff_bytes += e->handoff_bytes;
}

/* ---- families with labels ---- */

static void put_requests(tr_gateway *g, FILE *f, const char *model) {
    tr_journal *journal = g->rt->segment[TR_SEGMENT_JOURNAL];
    uint32_t n[2] = {0};
    for (uint32_t s = 0; s < journal->n_slots; s++) {
        tr_journal_entry *e = tr_journal_at(journal, s);
        if (atomic_load(&e->state) == TR_JOURNAL_OPEN) n[e->first_step_ns == 0]++;
    }
    for (uint32_t i = 0; i < 2; i++) {
        tr_metrics_family(f, TR_METRICS_RUNNING + i);
        tr_metrics_sample(f, TR_METRICS_RUNNING + i, model, n[i]);
    }
}

static void put_success(tr_gateway *g, FILE *f, const char *model) {
    static const char *const reasons[] = {NULL, "stop", "length", "abort", "error"};
    char label[LABEL_BYTES + 64];
    tr_metrics_family(f, TR_METRICS_SUCCESS);
    for (uint32_t i = 1; i < 5; i++) {
        snprintf(label, sizeof label, "%s,finished_reason=\"%s\"", model, reasons[i]);
        tr_metrics_sample(f, TR_METRICS_SUCCESS, label, (double)g->count.finished[i]);
    }
}

static void put_stages(tr_gateway *g, FILE *f) {
    char label[LABEL_BYTES];
    uint64_t ns[TR_LEDGER_KINDS];
    tr_metrics_family(f, TR_METRICS_STAGE_TIME);
    for (uint32_t a = 0; a < g->rt->company->n_actors; a++) {
        const tr_company_actor *actor = &g->rt->company->actor[a];
        if (actor->role != TR_ROLE_STAGE || actor->rank != 0) continue;
        tr_ledger_read(&g->rt->control->actor[a].ledger, ns);
        for (uint32_t k = 0; k < TR_LEDGER_KINDS; k++) {
            snprintf(label, sizeof label, "stage=\"%s\",cause=\"%s\"", actor->name, tr_ledger_name((tr_ledger_kind)k));
            tr_metrics_sample(f, TR_METRICS_STAGE_TIME, label, seconds(ns[k]));
        }
    }
}

static double of_actor(tr_control_block *b, tr_metrics_id id) {
    const uint32_t lives = atomic_load(&b->incarnation);
    switch (id) {
    case TR_METRICS_ACTOR_UP: return atomic_load(&b->up);
    case TR_METRICS_RESTARTS: return lives > 0 ? lives - 1 : 0;
    case TR_METRICS_DEATHS: return atomic_load(&b->counted_deaths);
    default: return (double)atomic_load(&b->progress);
    }
}

static void put_actors(tr_gateway *g, FILE *f) {
    char label[LABEL_BYTES];
    for (tr_metrics_id id = TR_METRICS_ACTOR_UP; id <= TR_METRICS_STEPS; id++) {
        tr_metrics_family(f, id);
        for (uint32_t a = 0; a < g->rt->company->n_actors; a++) {
            if (g->rt->company->actor[a].role == TR_ROLE_SUPERVISOR) continue;
            tr_metrics_label(label, sizeof label, "actor", g->rt->company->actor[a].name);
            tr_metrics_sample(f, id, label, of_actor(&g->rt->control->actor[a], id));
        }
    }
}

/* Pages of a pool, those that are free. */
static uint32_t count_pages(const tr_gateway *g, uint32_t pool, uint32_t *free_out) {
    const tr_company *c = g->rt->company;
    uint8_t *tables = g->rt->segment[TR_SEGMENT_TABLES];
    tr_kv_pool p;
    uint32_t pages = 0;
    *free_out = 0;
    memset(&p, 0, sizeof p);
    tr_kv_pool_attach(&p, &c->layout[pool], (_Atomic uint64_t *)(void *)(tables + c->bitmap_offset[pool]));
    for (uint32_t i = 0; i < c->layout[pool].n_groups; i++) {
        pages += c->layout[pool].group[i].n_pages;
        *free_out += tr_kv_pool_count_free(&p, i);
    }
    return pages;
}

static void put_pools(tr_gateway *g, FILE *f, const char *model) {
    tr_journal *journal = g->rt->segment[TR_SEGMENT_JOURNAL];
    const uint32_t n = g->rt->company->one_pool ? 1 : 2;
    char label[LABEL_BYTES];
    uint32_t free_pages, pages = count_pages(g, n - 1, &free_pages);
    tr_metrics_family(f, TR_METRICS_KV_USAGE);
    tr_metrics_sample(f, TR_METRICS_KV_USAGE, model, pages ? 1 - (double)free_pages / pages : 0);
    tr_metrics_family(f, TR_METRICS_KV_PAGES);
    for (uint32_t p = 0; p < n; p++) {
        pages = count_pages(g, p, &free_pages);
        const struct {
            const char *state;
            uint32_t pages;
        } state[] = {{"used", pages - free_pages},
                     {"free", free_pages},
                     {"cached", atomic_load(&journal->cached[p])},
                     {"quarantined", atomic_load(&journal->quarantined[p])}};
        for (size_t i = 0; i < sizeof state / sizeof *state; i++) {
            snprintf(label, sizeof label, "pool=\"%s\",state=\"%s\"",
                     n == 1   ? "shared"
                     : p == 0 ? "prefill"
                              : "decode",
                     state[i].state);
            tr_metrics_sample(f, TR_METRICS_KV_PAGES, label, state[i].pages);
        }
    }
}

static void put_store(tr_gateway *g, FILE *f) {
    tr_journal_store *s = &((tr_journal *)g->rt->segment[TR_SEGMENT_JOURNAL])->store;
    const struct {
        const char *event;
        _Atomic uint64_t *n;
    } event[] = {{"asked", &s->asked},     {"hit", &s->hits},      {"stored", &s->stored},
                 {"refused", &s->refused}, {"failed", &s->failed}, {"dropped", &s->dropped}};
    char label[LABEL_BYTES];
    if (g->rt->company->store_actor == TR_NOBODY) return;
    tr_metrics_family(f, TR_METRICS_STORE_UP);
    tr_metrics_sample(f, TR_METRICS_STORE_UP, "", atomic_load(&s->up));
    tr_metrics_family(f, TR_METRICS_STORE_TOKENS);
    tr_metrics_sample(f, TR_METRICS_STORE_TOKENS, "", (double)atomic_load(&s->hit_tokens));
    tr_metrics_family(f, TR_METRICS_STORE_BLOCKS);
    for (size_t i = 0; i < sizeof event / sizeof *event; i++) {
        tr_metrics_label(label, sizeof label, "event", event[i].event);
        tr_metrics_sample(f, TR_METRICS_STORE_BLOCKS, label, (double)atomic_load(event[i].n));
    }
    tr_metrics_family(f, TR_METRICS_STORE_BYTES);
    tr_metrics_sample(f, TR_METRICS_STORE_BYTES, "", (double)atomic_load(&s->stored_bytes));
}

static void put_links(tr_gateway *g, FILE *f) {
    const tr_company *c = g->rt->company;
    char label[LABEL_BYTES];
    for (tr_metrics_id id = TR_METRICS_LINK_UP; id <= TR_METRICS_LINK_OUTAGES && c->n_nodes > 1; id++) {
        tr_metrics_family(f, id);
        for (uint32_t n = 1; n < c->n_nodes; n++) {
            tr_control_link *l = &g->rt->control->link[n];
            snprintf(label, sizeof label, "link=\"%s-%s\"", c->node[0].name, c->node[n].name);
            tr_metrics_sample(f, id, label,
                              id == TR_METRICS_LINK_UP ? atomic_load(&l->up) : (double)atomic_load(&l->outages));
        }
    }
}

char *tr_gateway_metrics(tr_gateway *g, size_t *len_out) {
    tr_journal *j = g->rt->segment[TR_SEGMENT_JOURNAL];
    const struct {
        tr_metrics_id id;
        double value;
    } plain[] = {{TR_METRICS_PROMPT_TOKENS, (double)g->count.prompt_tokens},
                 {TR_METRICS_GENERATED_TOKENS, (double)g->count.generated_tokens},
                 {TR_METRICS_PREEMPTIONS, (double)atomic_load(&j->preemptions)},
                 {TR_METRICS_PREFIX_QUERIES, (double)atomic_load(&j->prefix_query_tokens)},
                 {TR_METRICS_PREFIX_HITS, (double)atomic_load(&j->prefix_hit_tokens)},
                 {TR_METRICS_QUARANTINED, atomic_load(&j->quarantined[0]) + atomic_load(&j->quarantined[1])},
                 {TR_METRICS_SWAP_BYTES, (double)atomic_load(&j->swap_used)},
                 {TR_METRICS_SWAPPED_OUT, (double)atomic_load(&j->swapped_out)},
                 {TR_METRICS_HANDOFF_BYTES, (double)g->count.handoff_bytes},
                 {TR_METRICS_HTTP_REFUSED, (double)g->count.refused},
                 {TR_METRICS_HTTP_LEFT, (double)g->count.left},
                 {TR_METRICS_HTTP_CONNECTIONS, tr_http_connections(g->http)}};
    char model[LABEL_BYTES], *text = NULL;
    FILE *f = open_memstream(&text, len_out);
    if (!f) return NULL;
    tr_metrics_label(model, sizeof model, "model_name", g->rt->company->model_name);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        const bool ours = tr_metrics_about(plain[i].id)->name[0] == 't';
        tr_metrics_family(f, plain[i].id);
        tr_metrics_sample(f, plain[i].id, ours ? "" : model, plain[i].value);
    }
    put_requests(g, f, model);
    put_success(g, f, model);
    put_pools(g, f, model);
    put_stages(g, f);
    put_actors(g, f);
    put_store(g, f);
    put_links(g, f);
    for (tr_metrics_id id = 0; id < TR_METRICS_END; id++) {
        if (tr_metrics_about(id)->type != TR_METRICS_HISTOGRAM) continue;
        tr_metrics_family(f, id);
        tr_metrics_histogram_samples(f, id, tr_metrics_about(id)->name[0] == 't' ? "" : model, &g->histogram[id]);
    }
    if (fclose(f) == 0) return text;
    free(text);
    return NULL;
}
