#include "actors/frontend/status_json.h"

#include "base/clock.h"
#include "kv/kv_pool.h"
#include "scheduler/journal.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Resident bytes of a process, 0 when it is gone. */
static long long rss_bytes(int pid) {
    char path[64];
    long long size = 0, resident = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    if (fscanf(f, "%lld %lld", &size, &resident) != 2) resident = 0;
    fclose(f);
    return resident * sysconf(_SC_PAGESIZE);
}

/* In nanoseconds, so that they sum up; NULL: it keeps none. */
static json_t *ledger_json(const tr_ledger *l) {
    uint64_t ns[TR_LEDGER_KINDS], all = 0;
    tr_ledger_read(l, ns);
    json_t *j = json_object();
    for (uint32_t k = 0; k < TR_LEDGER_KINDS; k++) {
        json_object_set_new(j, tr_ledger_name((tr_ledger_kind)k), json_integer((json_int_t)ns[k]));
        all += ns[k];
    }
    if (all > 0) return j;
    json_decref(j);
    return NULL;
}

static json_t *actor_json(tr_runtime *rt, uint32_t a) {
    const tr_company_actor *actor = &rt->company->actor[a];
    tr_control_block *b = &rt->control->actor[a];
    int pid = atomic_load(&b->pid);
    json_t *cores = json_array();
    for (uint32_t i = 0; i < actor->n_cpus; i++) json_array_append_new(cores, json_integer(actor->cpus[i]));
    json_t *j = json_object();
    json_object_set_new(j, "name", json_string(actor->name));
    if (rt->company->n_nodes > 1) json_object_set_new(j, "node", json_string(rt->company->node[actor->node].name));
    json_object_set_new(j, "pid", pid > 0 ? json_integer(pid) : json_null());
    json_object_set_new(j, "incarnation", json_integer(atomic_load(&b->incarnation)));
    json_object_set_new(j, "cores", cores);
    json_object_set_new(j, "numa", actor->numa_node >= 0 ? json_integer(actor->numa_node) : json_null());
    json_object_set_new(j, "rss",
                        json_integer(!tr_company_is_local(rt->company, a) ? (json_int_t)atomic_load(&b->rss)
                                     : pid > 0                            ? rss_bytes(pid)
                                                                          : 0));
    json_object_set_new(j, "steps", json_integer((json_int_t)atomic_load(&b->progress)));
    json_t *ledger = ledger_json(&b->ledger);
    if (ledger) json_object_set_new(j, "ledger_ns", ledger);
    return j;
}

static json_t *pool_json(tr_runtime *rt, uint32_t pool) {
    const tr_company *c = rt->company;
    tr_kv_pool view;
    uint8_t *tables = rt->segment[TR_SEGMENT_TABLES];
    const tr_journal *journal = rt->segment[TR_SEGMENT_JOURNAL];
    memset(&view, 0, sizeof view);
    tr_kv_pool_attach(&view, &c->layout[pool], (_Atomic uint64_t *)(void *)(tables + c->bitmap_offset[pool]));
    uint32_t pages = 0, free_pages = 0;
    for (uint32_t g = 0; g < c->layout[pool].n_groups; g++) {
        pages += c->layout[pool].group[g].n_pages;
        free_pages += tr_kv_pool_count_free(&view, g);
    }
    json_t *j = json_object();
    json_object_set_new(j, "name", json_string(c->one_pool ? "shared" : pool == 0 ? "prefill" : "decode"));
    json_object_set_new(j, "format", json_string(tr_kv_format_name(c->layout[pool].format)));
    json_object_set_new(j, "pages", json_integer(pages));
    json_object_set_new(j, "free", json_integer(free_pages)); /* the cached ones with them */
    json_object_set_new(j, "cached", json_integer(atomic_load(&journal->cached[pool])));
    json_object_set_new(j, "quarantined", json_integer(atomic_load(&journal->quarantined[pool])));
    return j;
}

/* The head's links to the other nodes. */
static json_t *links_json(tr_runtime *rt) {
    const tr_company *c = rt->company;
    json_t *links = json_array();
    for (uint32_t n = 1; n < c->n_nodes; n++) {
        tr_control_link *l = &rt->control->link[n];
        char name[2 * TR_COMPANY_NODE_NAME_BYTES + 2];
        snprintf(name, sizeof name, "%s-%s", c->node[0].name, c->node[n].name);
        json_t *j = json_object();
        json_object_set_new(j, "name", json_string(name));
        json_object_set_new(j, "up", json_boolean(atomic_load(&l->up)));
        json_object_set_new(j, "outages", json_integer((json_int_t)atomic_load(&l->outages)));
        json_object_set_new(j, "noticed_ms", json_real((double)atomic_load(&l->silent_ns) / 1e6));
        json_array_append_new(links, j);
    }
    return links;
}

static json_t *requests_json(tr_runtime *rt) {
    tr_journal *journal = rt->segment[TR_SEGMENT_JOURNAL];
    uint32_t running = 0, waiting = 0;
    for (uint32_t s = 0; s < journal->n_slots; s++) {
        tr_journal_entry *e = tr_journal_at(journal, s);
        if (atomic_load(&e->state) != TR_JOURNAL_OPEN) continue;
        if (e->first_step_ns)
            running++;
        else
            waiting++;
    }
    json_t *j = json_object();
    json_object_set_new(j, "running", json_integer(running));
    json_object_set_new(j, "waiting", json_integer(waiting));
    return j;
}

static json_t *prefix_json(tr_runtime *rt) {
    const tr_journal *journal = rt->segment[TR_SEGMENT_JOURNAL];
    json_t *j = json_object();
    json_object_set_new(j, "hits", json_integer((json_int_t)atomic_load(&journal->prefix_hits)));
    json_object_set_new(j, "hit_tokens", json_integer((json_int_t)atomic_load(&journal->prefix_hit_tokens)));
    json_object_set_new(j, "query_tokens", json_integer((json_int_t)atomic_load(&journal->prefix_query_tokens)));
    return j;
}

static json_t *preemption_json(tr_runtime *rt) {
    const tr_journal *journal = rt->segment[TR_SEGMENT_JOURNAL];
    json_t *j = json_object();
    json_object_set_new(j, "count", json_integer((json_int_t)atomic_load(&journal->preemptions)));
    json_object_set_new(j, "tokens", json_integer((json_int_t)atomic_load(&journal->preempted_tokens)));
    if (rt->company->swap_bytes == 0) return j;
    json_object_set_new(j, "swap_bytes", json_integer((json_int_t)rt->company->swap_bytes));
    json_object_set_new(j, "swap_used", json_integer((json_int_t)atomic_load(&journal->swap_used)));
    json_object_set_new(j, "swapped_out", json_integer((json_int_t)atomic_load(&journal->swapped_out)));
    json_object_set_new(j, "swapped_in", json_integer((json_int_t)atomic_load(&journal->swapped_in)));
    json_object_set_new(j, "swaps_lost", json_integer((json_int_t)atomic_load(&journal->swaps_lost)));
    return j;
}

static json_t *steps_json(tr_runtime *rt) {
    const tr_journal *journal = rt->segment[TR_SEGMENT_JOURNAL];
    json_t *j = json_object();
    json_object_set_new(j, "mixed", json_integer((json_int_t)atomic_load(&journal->mixed_steps)));
    json_object_set_new(j, "slices", json_integer((json_int_t)atomic_load(&journal->slices)));
    return j;
}

static json_t *store_json(tr_runtime *rt) {
    tr_journal *journal = rt->segment[TR_SEGMENT_JOURNAL];
    tr_journal_store *s = &journal->store;
    const struct {
        const char *name;
        uint64_t value;
    } count[] = {{"asked", atomic_load(&s->asked)},
                 {"hits", atomic_load(&s->hits)},
                 {"hit_tokens", atomic_load(&s->hit_tokens)},
                 {"stored", atomic_load(&s->stored)},
                 {"stored_bytes", atomic_load(&s->stored_bytes)},
                 {"refused", atomic_load(&s->refused)},
                 {"failed", atomic_load(&s->failed)},
                 {"dropped", atomic_load(&s->dropped)}};
    json_t *j = json_object();
    json_object_set_new(j, "up", json_boolean(atomic_load(&s->up)));
    for (size_t i = 0; i < sizeof count / sizeof *count; i++)
        json_object_set_new(j, count[i].name, json_integer((json_int_t)count[i].value));
    return j;
}

char *tr_status_json(tr_runtime *rt) {
    json_t *root = json_object(), *actors = json_array(), *pools = json_array();
    for (uint32_t a = 0; a < rt->company->n_actors; a++) json_array_append_new(actors, actor_json(rt, a));
    for (uint32_t p = 0; p < (rt->company->one_pool ? 1u : 2u); p++) json_array_append_new(pools, pool_json(rt, p));
    json_object_set_new(root, "name", json_string(rt->company->name));
    json_object_set_new(root, "model", json_string(rt->company->model_name));
    json_object_set_new(root, "ready", json_boolean(atomic_load(&rt->control->ready)));
    json_object_set_new(root, "clock_ns", json_integer((json_int_t)tr_clock_now_ns()));
    json_object_set_new(root, "actors", actors);
    json_object_set_new(root, "pools", pools);
    json_object_set_new(root, "requests", requests_json(rt));
    json_object_set_new(root, "preemptions", preemption_json(rt));
    json_object_set_new(root, "steps", steps_json(rt));
    if (rt->company->n_nodes > 1) json_object_set_new(root, "links", links_json(rt));
    if (rt->company->prefix_cache) json_object_set_new(root, "prefix_cache", prefix_json(rt));
    if (rt->company->store_actor != TR_NOBODY) json_object_set_new(root, "store", store_json(rt));
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}
