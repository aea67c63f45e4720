/* troupe_sim [--ranks] [--nodes] [--tight] [--store] [--faults] --seed N [--trace] | --seeds A..B | --regressions FILE
 * --ranks: stages have tensor parallel ranks (another family of seeds; a line of FILE that begins with r is one).
 * --tight: small pools and admissions that promise no more than the prompt, so that requests give way (t in FILE).
 * --faults: faults are aimed at states of requests, and clients die (f in FILE); prints a table of what they met, and
 * fails when 3000 seeds or more leave a cell of it empty.
 * --store: there is a store of prefixes outside of the company (s in FILE).
 * Exit 0: all seeds passed. A failing seed prints its number, the reason and the command that repeats it. Every 32nd
 * seed of a range runs twice and must leave the same digest. */
#include "tests/sim/sim.h"

#include "base/clock.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static world *current;
static bool trace_on, ranks_on, nodes_on, tight_on, store_on, faults_on;

static void tell(uint64_t seed) {
    fprintf(stderr, "\nrepeat with: troupe_sim %s%s%s%s%s--seed %lu --trace\n", ranks_on ? "--ranks " : "",
            nodes_on ? "--nodes " : "", tight_on ? "--tight " : "", store_on ? "--store " : "",
            faults_on ? "--faults " : "", (unsigned long)seed);
}

_Noreturn void sim_fail(world *w, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "seed %lu fails at %.6f s (event %lu): ", (unsigned long)w->seed, (double)w->now / 1e9,
            (unsigned long)w->n_events);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    tell(w->seed);
    exit(1);
}

void sim_trace(world *w, const char *fmt, ...) {
    if (!w->trace) return;
    va_list ap;
    va_start(ap, fmt);
    printf("%12.6f ms  ", (double)w->now / 1e6);
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
}

static void on_abort(int signal) {
    (void)signal;
    char text[96];
    int n = snprintf(text, sizeof text, "seed %lu aborts; repeat with: troupe_sim --seed %lu --trace\n",
                     (unsigned long)current->seed, (unsigned long)current->seed);
    if (n > 0 && write(2, text, (size_t)n) < 0) _exit(2);
}

static void print_topology(world *w) {
    const tr_scheduler_config *c = &w->scheduler;
    sim_trace(w, "layers %u heads %u window %u pipelines %u stages %u+%u in flight %u+%u exclusive %u one_pool %u",
              w->model.n_layers, w->model.n_kv_heads, w->model.window, w->n_pipelines, w->n_stages[0], w->n_stages[1],
              c->pipeline[0].max_in_flight, c->pipeline[1].max_in_flight, c->exclusive, c->one_pool);
    sim_trace(w, "policy %s objective %lu us%s", tr_policy_table[c->policy].name, (unsigned long)(c->slo_ns / US),
              c->fair ? " fair" : "");
    sim_trace(w, "context %u chunk %u rows %u batch %u slots %u page %u/%u pages %u,%u/%u,%u %s faults %x", c->context,
              c->chunk, c->max_rows, c->max_batch, c->journal->n_slots, c->layout[0].page_tok, c->layout[1].page_tok,
              c->layout[0].group[0].n_pages, c->layout[0].group[1].n_pages, c->layout[1].group[0].n_pages,
              c->layout[1].group[1].n_pages, w->zmq ? "zmq" : "ring", w->faults);
    for (uint32_t i = 0; i < w->n_requests; i++)
        sim_trace(w, "request %u: prompt %u forced %u max %u stop_at %u oracle %u finish %u%s%s", i,
                  w->request[i].n_prompt, w->request[i].forced, w->request[i].max_tokens, w->request[i].stop_at,
                  w->request[i].n_oracle, w->request[i].oracle_finish, w->request[i].poison ? " poison" : "",
                  w->request[i].bad ? " bad" : "");
}

static void free_world(world *w) {
    for (uint32_t a = 0; a < MAX_ACTORS; a++) {
        for (uint32_t b = 0; b < MAX_ACTORS; b++) {
            link_t *k = w->link[a][b];
            for (uint32_t i = 0; k != NULL && i < k->n; i++) free(k->queue[(k->head + i) % MAX_LINK].data);
            free(k);
        }
        free(w->channel[a]);
        free(w->process[a].core);
    }
    free(w->journal_mem);
    sim_store_free(w);
    sim_swap_free(w);
    for (uint32_t i = 0; i < MAX_REQUESTS; i++) free(w->file[i]);
    for (uint32_t p = 0; p < (w->scheduler.one_pool ? 1u : 2u); p++) {
        free(w->table[p]);
        free((void *)w->bitmap[p]);
        free(w->cells[p]);
    }
    free(w->heap);
    free(w->fx);
    free(w);
}

typedef struct totals {
    uint64_t events, steps, deaths, requests, hits, hit_tokens, copies, fetched, stored, preemptions, preempted_tokens,
        swapped_out, swapped_in;
    sim_table table;
} totals;

static uint64_t run_seed(uint64_t seed, totals *t) {
    world *w = calloc(1, sizeof *w);
    if (w == NULL) abort();
    current = w;
    w->seed = seed;
    w->trace = trace_on;
    w->ranks = ranks_on;
    w->nodes = nodes_on;
    w->store = store_on;
    w->aimed = faults_on;
    w->tight = tight_on;
    w->rng.state = tr_rng_mix(seed);
    w->crash_countdown = -1;
    w->heap = calloc(MAX_EVENTS, sizeof *w->heap);
    w->fx = calloc(1, sizeof *w->fx);
    if (w->heap == NULL || w->fx == NULL) abort();
    sim_config(w);
    w->limit = w->faults_until + 60 * S;
    print_topology(w);
    sim_run(w);
    uint64_t digest = w->digest;
    t->events += w->n_events;
    t->steps += w->total_steps;
    t->deaths += w->total_deaths;
    t->requests += w->n_requests;
    t->hits += w->total_hits;
    t->hit_tokens += w->total_hit_tokens;
    t->copies += w->total_copies;
    t->fetched += w->total_fetched;
    t->stored += w->total_stored;
    t->preemptions += w->total_preemptions;
    t->preempted_tokens += w->total_preempted_tokens;
    t->swapped_out += w->total_swapped_out;
    t->swapped_in += w->total_swapped_in;
    sim_faults_add(&t->table, &w->hits);
    free_world(w);
    return digest;
}

static void run_and_compare(uint64_t seed, bool twice, totals *t) {
    uint64_t digest = run_seed(seed, t);
    totals ignored = {0};
    if (twice && run_seed(seed, &ignored) != digest) {
        fprintf(stderr, "seed %lu: two runs differ", (unsigned long)seed);
        tell(seed);
        exit(1);
    }
}

static void run_file(const char *path, totals *t) {
    FILE *f = fopen(path, "r");
    const bool ranks = ranks_on, nodes = nodes_on, tight = tight_on, store = store_on, faults = faults_on;
    char line[256];
    if (f == NULL) {
        fprintf(stderr, "troupe_sim: cannot open %s\n", path);
        exit(66);
    }
    while (fgets(line, sizeof line, f)) {
        const char *number = line;
        ranks_on = *number == 'r';
        number += ranks_on;
        nodes_on = *number == 'n';
        number += nodes_on;
        tight_on = *number == 't';
        number += tight_on;
        store_on = *number == 's';
        number += store_on;
        faults_on = *number == 'f';
        number += faults_on;
        if (*number >= '0' && *number <= '9') run_and_compare(strtoull(number, NULL, 10), true, t);
    }
    ranks_on = ranks;
    nodes_on = nodes;
    tight_on = tight;
    store_on = store;
    faults_on = faults;
    fclose(f);
}

int main(int argc, char **argv) {
    uint64_t from = 1, to = 1000, begin = tr_clock_now_ns();
    const char *file = NULL;
    totals t = {0};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--trace") == 0) {
            trace_on = true;
        } else if (strcmp(argv[i], "--ranks") == 0) {
            ranks_on = true;
        } else if (strcmp(argv[i], "--nodes") == 0) {
            nodes_on = true;
        } else if (strcmp(argv[i], "--tight") == 0) {
            tight_on = true;
        } else if (strcmp(argv[i], "--store") == 0) {
            store_on = true;
        } else if (strcmp(argv[i], "--faults") == 0) {
            faults_on = true;
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            from = to = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc) {
            char *dots;
            from = strtoull(argv[++i], &dots, 10);
            to = strtoull(dots + strspn(dots, "."), NULL, 10);
        } else if (strcmp(argv[i], "--regressions") == 0 && i + 1 < argc) {
            file = argv[++i];
        } else {
            fprintf(stderr, "usage: troupe_sim [--ranks] [--nodes] [--tight] [--store] [--faults] [--seed N [--trace] "
                            "| --seeds A..B] "
                            "[--regressions FILE]\n");
            return 64;
        }
    }
    signal(SIGABRT, on_abort);
    if (file != NULL) run_file(file, &t);
    for (uint64_t seed = from; seed <= to; seed++) run_and_compare(seed, seed % 32 == 0, &t);
    double s = (double)(tr_clock_now_ns() - begin) / 1e9;
    printf("seeds %lu..%lu%s passed: %lu requests, %lu events, %lu stage steps, %lu deaths, %lu prefix hits of %lu "
           "tokens, %lu page copies, %lu fetches from the store, %lu blocks into it, %lu preemptions, %lu tokens to "
           "compute again, "
           "%lu swapped out, %lu back, "
           "%.1f s, %.0f events/s\n",
           (unsigned long)from, (unsigned long)to,
           ranks_on   ? " with ranks"
           : nodes_on ? " with nodes"
           : store_on ? " with a store"
                      : "",
           (unsigned long)t.requests, (unsigned long)t.events, (unsigned long)t.steps, (unsigned long)t.deaths,
           (unsigned long)t.hits, (unsigned long)t.hit_tokens, (unsigned long)t.copies, (unsigned long)t.fetched,
           (unsigned long)t.stored, (unsigned long)t.preemptions, (unsigned long)t.preempted_tokens,
           (unsigned long)t.swapped_out, (unsigned long)t.swapped_in, s, (double)t.events / s);
    if (faults_on && sim_faults_print(&t.table, ranks_on, nodes_on, store_on, tight_on) > 0 && to >= from + 2999) {
        fprintf(stderr, "troupe_sim: a cell of the table is empty\n");
        return 1;
    }
    return 0;
}
