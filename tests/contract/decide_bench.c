/* decide_bench [STEPS] - how long the scheduler's core decides: 256 sequences run, 1,024 wait, of 16 clients and three
 * priorities. Every step is confirmed as soon as it was issued; who ends is released, and another request comes for
 * it. Prints percentiles of tr_scheduler_step by event. */
#include "base/checked.h"
#include "base/clock.h"
#include "base/rng.h"
#include "kv/kv_pool.h"
#include "scheduler/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FRONT = 0,
    STAGE = 1,
    RUNNING = 256,
    WAITING = 1024,
    SLOTS = 2 * RUNNING + WAITING,
    CONTEXT = 1024,
    PAGE = 16,
    PROMPT = 64,
    OUTPUT = 192,
    INBOX = 4096,
    WARM = 8192 /* events before those that count */
};

typedef enum kind { DONE, SUBMITTED, RELEASED, KINDS } kind;

typedef struct bench {
    tr_scheduler *s;
    tr_effects *fx;
    tr_msg inbox[INBOX];
    tr_msg_step step; /* that is out; step.step == 0: none */
    uint32_t n_inbox, n_sampled, open, sampled[TR_MAX_SPANS], prompt[PROMPT];
    uint64_t rid, now, steps, *took[KINDS];
    uint32_t n_took[KINDS], most, seen;
} bench;

static void take_effects(bench *b) {
    for (uint32_t i = 0; i < b->fx->n; i++) {
        const tr_msg *m = &b->fx->item[i].msg;
        if (b->fx->item[i].kind != TR_EFFECT_SEND) continue;
        if (m->type == TR_MSG_STEP) {
            b->step = m->as.step;
            b->n_sampled = m->as.step.spans.len;
            b->steps++;
        }
        if (m->type != TR_MSG_OUTPUT || !m->as.output.finish) continue;
        tr_check(b->n_inbox < INBOX);
        b->inbox[b->n_inbox++] = (tr_msg){.type = TR_MSG_RELEASE, .as.release.rid = m->as.output.rid};
    }
}

static void give(bench *b, uint32_t from, const tr_msg *m, kind k) {
    tr_event e = {.kind = TR_EVENT_MSG, .from = from, .msg = m, .now_ns = b->now += 1000};
    const uint64_t begin = tr_clock_now_ns();
    tr_scheduler_step(b->s, &e, b->fx);
    const uint64_t ns = tr_clock_now_ns() - begin;
    if (++b->seen > WARM && b->n_took[k] < b->most) b->took[k][b->n_took[k]++] = ns;
    take_effects(b);
}

static void submit(bench *b) {
    char client = (char)('a' + b->rid % 16);
    tr_msg m = {.type = TR_MSG_SUBMIT};
    b->rid++;
    for (uint32_t i = 0; i < PROMPT; i++) b->prompt[i] = (uint32_t)tr_rng_mix(b->rid * PROMPT + i) % 1000;
    m.as.submit =
        (tr_msg_submit){.rid = b->rid * TR_MAX_SAMPLES,
                        .client = {(const uint8_t *)&client, 1},
                        .tokens = {b->prompt, PROMPT},
                        .priority = (uint32_t)(b->rid % 3),
                        .max_tokens = OUTPUT - 16 + (uint32_t)(tr_rng_mix(b->rid) % 16), /* of as many pages */
                        .ignore_eos = 1};
    b->open++;
    give(b, FRONT, &m, SUBMITTED);
}

static void *zeroed(size_t bytes) {
    void *p = aligned_alloc(64, tr_align_up(bytes, 64));
    tr_check(p != NULL);
    return memset(p, 0, tr_align_up(bytes, 64));
}

static void start(bench *b, tr_scheduler_config *c) {
    const tr_kv_model m = {.n_layers = 18,
                           .n_kv_heads = 1,
                           .head_dim = 256,
                           .window = 512,
                           .layer_is_global = {[5] = 1, [11] = 1, [17] = 1}};
    const uint32_t pages[TR_KV_GROUPS_MAX] = {(PROMPT + OUTPUT) / PAGE * RUNNING, (PROMPT + OUTPUT) / PAGE * RUNNING};
    tr_error err;
    tr_check(tr_kv_layout_init(&c->layout[0], &m, TR_KV_INT8, PAGE, SLOTS, CONTEXT, pages, &err) == TR_OK);
    c->layout[1] = c->layout[0];
    c->table[0] = c->table[1] = zeroed(c->layout[0].table_bytes);
    c->bitmap[0] = c->bitmap[1] = zeroed(tr_kv_pool_bitmap_bytes(&c->layout[0]));
    c->journal = zeroed(tr_journal_bytes(SLOTS, CONTEXT));
    tr_journal_init(c->journal, SLOTS, CONTEXT);
    const size_t bytes = tr_scheduler_bytes(c);
    tr_check(bytes > 0);
    b->s = zeroed(bytes);
    b->fx = zeroed(sizeof *b->fx);
    tr_check(tr_scheduler_init(b->s, c) == TR_OK);
    tr_event e = {.kind = TR_EVENT_START};
    tr_scheduler_step(b->s, &e, b->fx);
    for (uint32_t a = FRONT; a <= STAGE; a++) {
        e = (tr_event){.kind = TR_EVENT_PEER_UP, .from = a, .incarnation = 1};
        tr_scheduler_step(b->s, &e, b->fx);
    }
    const tr_msg done = {.type = TR_MSG_RESET_DONE, .as.reset_done.epoch = b->fx->item[0].msg.as.reset.epoch};
    e = (tr_event){.kind = TR_EVENT_MSG, .from = STAGE, .msg = &done};
    tr_scheduler_step(b->s, &e, b->fx);
}

static int by_value(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print(bench *b, kind k, const char *name) {
    uint64_t *v = b->took[k];
    const uint32_t n = b->n_took[k];
    if (n == 0) return;
    qsort(v, n, sizeof *v, by_value);
    printf("%-10s %8u events  p50 %6.1f  p90 %6.1f  p99 %6.1f  max %7.1f us\n", name, n, (double)v[n / 2] / 1e3,
           (double)v[n * 9 / 10] / 1e3, (double)v[n * 99 / 100] / 1e3, (double)v[n - 1] / 1e3);
}

int main(int argc, char **argv) {
    const uint32_t steps = argc > 1 ? (uint32_t)atoi(argv[1]) : 20000;
    bench *b = zeroed(sizeof *b);
    tr_scheduler_config c = {.n_pipelines = 1,
                             .pipeline = {{.n_stages = 1, .stage = {STAGE}, .max_in_flight = 1}},
                             .frontend = FRONT,
                             .resharder = TR_NOBODY,
                             .fair = 1,
                             .chunk = 256,
                             .max_rows = 512,
                             .max_batch = RUNNING,
                             .max_waiting = WAITING,
                             .promise_tok = TR_SCHEDULER_PROMISE_ALL,
                             .one_pool = 1,
                             .one_path = 1,
                             .prefix_cache = 1,
                             .context = CONTEXT,
                             .vocab = 1000};
    b->most = steps;
    for (int k = 0; k < KINDS; k++) b->took[k] = zeroed(steps * sizeof **b->took);
    start(b, &c);
    tr_scheduler_stats stats = {0};
    for (uint64_t end = 0; b->n_took[DONE] < steps; end++) {
        tr_scheduler_get_stats(b->s, &stats);
        while (stats.waiting < WAITING && b->open < SLOTS) {
            submit(b);
            tr_scheduler_get_stats(b->s, &stats);
        }
        tr_check(b->step.step != 0);
        tr_msg done = {.type = TR_MSG_STEP_DONE};
        for (uint32_t i = 0; i < b->n_sampled; i++) b->sampled[i] = (uint32_t)tr_rng_mix(b->steps + i) % 1000;
        done.as.step_done = (tr_msg_step_done){.epoch = b->step.epoch,
                                               .step = b->step.step,
                                               .phase = b->step.phase,
                                               .sampled = {b->sampled, b->n_sampled},
                                               .total_ns = 1000};
        b->step.step = 0;
        b->now += 1000000 + 20000 * b->n_sampled;
        give(b, STAGE, &done, DONE);
        for (uint32_t i = 0; i < b->n_inbox; i++) {
            give(b, FRONT, &b->inbox[i], RELEASED);
            b->open--;
        }
        b->n_inbox = 0;
    }
    printf("%u run, %u wait\n", stats.running, stats.waiting);
    print(b, DONE, "step done");
    print(b, SUBMITTED, "submit");
    print(b, RELEASED, "release");
    for (int k = 0; k < KINDS; k++) free(b->took[k]);
    free(c.table[0]);
    free(c.bitmap[0]);
    free(c.journal);
    free(b->s);
    free(b->fx);
    free(b);
    return 0;
}
