/* The simulation against sums that are done by hand. */
#include "scheduler/simulate/simulate.h"
#include "scheduler/simulate/simulate_queue.h"

#include "kv/kv_pool.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CONTEXT = 4096, SLOTS = 80, CHUNK = 32, LAYERS = 8, MS = 1000000, REQUESTS = 40 };

static tr_simulate_config config;
static tr_simulate_request request[REQUESTS];
static tr_simulate_result result;
static float gaps[REQUESTS][64];

/* n stages a pipeline, decode 0: one pipeline for both phases. Nothing costs anything yet. */
static void company(uint32_t prefill, uint32_t decode, tr_policy_id policy) {
    const tr_kv_model m = {
        .n_layers = LAYERS, .n_kv_heads = 1, .head_dim = 16, .layer_is_global = {1, 1, 1, 1, 1, 1, 1, 1}};
    const uint32_t pages[TR_KV_GROUPS_MAX] = {SLOTS * CONTEXT / 64};
    tr_error err;
    config = (tr_simulate_config){.n_replicas = 1};
    tr_scheduler_config *s = &config.scheduler;
    *s = (tr_scheduler_config){.n_pipelines = decode ? 2 : 1,
                               .frontend = 0,
                               .resharder = decode ? 1 : TR_NOBODY,
                               .policy = policy,
                               .chunk = CHUNK,
                               .max_rows = CHUNK + 16,
                               .max_batch = 16,
                               .max_waiting = 40,
                               .one_pool = decode == 0,
                               .one_path = decode == 0,
                               .promise_tok = TR_SCHEDULER_PROMISE_ALL,
                               .context = CONTEXT,
                               .vocab = 1000};
    for (uint32_t p = 0; p < 2; p++) {
        const uint32_t n = p == 0 ? prefill : decode;
        s->pipeline[p] = (tr_scheduler_pipeline){.n_stages = n, .max_in_flight = n, .feeds = p == 1 || decode == 0};
        for (uint32_t k = 0; k < n; k++) {
            s->pipeline[p].stage[k] = 10 + 8 * p + k;
            config.stage[p][k].lo = LAYERS * k / n;
            config.stage[p][k].hi = LAYERS * (k + 1) / n;
        }
        assert_int_equal(tr_kv_layout_init(&s->layout[p], &m, TR_KV_BF16, 16, SLOTS, CONTEXT, pages, &err), TR_OK);
    }
}

static void costs(tr_simulate_cost prefill, tr_simulate_cost decode) {
    for (uint32_t p = 0; p < 2; p++)
        for (uint32_t k = 0; k < TR_SCHEDULER_STAGES_MAX; k++) {
            config.stage[p][k].phase[0] = prefill;
            config.stage[p][k].phase[1] = decode;
        }
}

static void ask(uint32_t i, uint64_t at_ms, uint32_t prompt, uint32_t output) {
    assert_true(output <= 64);
    request[i] = (tr_simulate_request){.at_ns = at_ms * MS, .prompt = prompt, .output = output, .gap_ms = gaps[i]};
}

static void run(uint32_t n) {
    const size_t bytes = tr_simulate_bytes(&config, n);
    assert_true(bytes > 0);
    void *memory = aligned_alloc(64, bytes);
    memset(memory, 0, bytes);
    assert_int_equal(tr_simulate_run(memory, &config, request, n, &result), TR_OK);
    free(memory);
}

static void assert_ms(uint64_t ns, double ms) {
    if (fabs((double)ns / MS - ms) > 0.001) fail_msg("%.4f ms, %.4f expected", (double)ns / MS, ms);
}

static void events_come_in_order(void **state) {
    (void)state;
    tr_simulate_event room[64], e;
    tr_simulate_queue q = {.event = room, .room = 64};
    for (uint32_t i = 0; i < 64; i++)
        assert_true(tr_simulate_queue_push(&q, (tr_simulate_event){.at = i * 37 % 16, .index = i}));
    assert_false(tr_simulate_queue_push(&q, (tr_simulate_event){.at = 0}));
    uint64_t at = 0, seq = 0;
    for (uint32_t i = 0; i < 64; i++) {
        assert_true(tr_simulate_queue_pop(&q, &e));
        assert_true(i == 0 || e.at > at || (e.at == at && e.seq > seq));
        at = e.at;
        seq = e.seq;
    }
    assert_false(tr_simulate_queue_pop(&q, &e));
}

/* One request, one pipeline of two stages: 2 chunks of 32 rows, then 2 steps of a row; 1 ms + 0.1 ms a row a stage. */
static void one_request_in_two_stages(void **state) {
    (void)state;
    company(2, 0, TR_POLICY_SARATHI);
    costs((tr_simulate_cost){.step = MS, .row = 0.1 * MS},
          (tr_simulate_cost){.step = MS, .row = 0.1 * MS, .least = 2 * MS});
    config.message_ns = 0.5 * MS;
    config.hop_ns = 0.25 * MS;
    config.hop_row_ns = 0.01 * MS;
    config.submit_ns = 3 * MS;
    config.output_ns = 2 * MS;
    ask(0, 5, 64, 3);
    run(1);
    /* the second chunk is one stage behind the first: 4.2 each, the second waits for the first on both stages */
    const double chunk = 1 + 32 * 0.1, hop = 0.25 + 32 * 0.01, first = 5 + 3 + 0.5 + 2 * chunk + hop + chunk + 0.5 + 2;
    assert_ms(request[0].first_ns, first);
    /* the first decoded token: ordered when the first token is known; the next one is ordered ahead and fed: no message
     */
    assert_int_equal(request[0].n_gaps, 2);
    const double step = 2 + 0.25 + 0.01 + 2;
    assert_true(fabs(gaps[0][0] - (0.5 + step + 0.5)) < 0.001);
    assert_true(fabs(gaps[0][1] - (step + 0.25)) < 0.001);
    assert_ms(result.stage[0][0].busy_ns, 2 * chunk + 2 * 2);
    assert_true(request[0].ok);
}

/* Fill and drain: m micro-batches of the same length in p stages leave (p - 1) / (m + p - 1) of the time empty. */
static void bubbles_of_fill_and_drain(void **state) {
    (void)state;
    static const uint32_t shape[][2] = {{2, 2}, {2, 8}, {4, 4}, {4, 8}, {8, 8}, {8, 32}};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        const uint32_t p = shape[i][0], m = shape[i][1], rounds = 3;
        company(p, 0, TR_POLICY_GPIPE);
        costs((tr_simulate_cost){.step = MS}, (tr_simulate_cost){.step = MS});
        config.scheduler.pipeline[0].max_in_flight = m;
        ask(0, 0, rounds * m * CHUNK, 1);
        run(1);
        assert_ms(request[0].end_ns, rounds * (m + p - 1));
        for (uint32_t k = 0; k < p; k++)
            assert_true(fabs(tr_simulate_bubble(&config, &result, 0, k) - (p - 1.0) / (m + p - 1)) < 1e-6);
    }
}

/* One forward, one back: the pipeline is filled once, whatever the number of micro-batches. */
static void bubbles_of_a_filled_pipeline(void **state) {
    (void)state;
    for (uint32_t p = 2; p <= 8; p *= 2) {
        const uint32_t chunks = 96;
        company(p, 0, TR_POLICY_PREFILL_FIRST);
        costs((tr_simulate_cost){.step = MS}, (tr_simulate_cost){.step = MS});
        ask(0, 0, chunks * CHUNK, 1);
        run(1);
        assert_ms(request[0].end_ns, chunks + p - 1);
        assert_true(fabs(tr_simulate_bubble(&config, &result, 0, 0) - (p - 1.0) / (chunks + p - 1)) < 1e-6);
    }
}

/* Two pipelines, a copy between them: 64 positions of 8 layers, of which the layers of the first chunk go early. */
static void a_hand_off(void **state) {
    (void)state;
    company(1, 1, TR_POLICY_SARATHI);
    costs((tr_simulate_cost){.step = MS}, (tr_simulate_cost){.step = 2 * MS});
    config.move_cell_ns = 0.01 * MS; /* 32 positions * 8 layers: 2.56 ms */
    ask(0, 0, 64, 4);
    run(1);
    assert_ms(request[0].first_ns, 2);
    /* layers of a chunk go by twos, 0.64 ms each, from 0.25 on: the resharder is never idle and ends at 0.25 + 5.12 */
    assert_int_equal(request[0].n_gaps, 3);
    assert_true(fabs(gaps[0][0] - (0.25 + 5.12 - 2 + 2)) < 0.001);
    assert_true(fabs(gaps[0][1] - 2) < 0.001);
}

/* Shared cores: one step at a time over both pipelines, whatever their stages. */
static void shared_cores(void **state) {
    (void)state;
    company(2, 3, TR_POLICY_SARATHI);
    costs((tr_simulate_cost){.step = MS}, (tr_simulate_cost){.step = MS});
    config.scheduler.exclusive = 1;
    config.scheduler.pipeline[0].max_in_flight = config.scheduler.pipeline[1].max_in_flight = 1;
    for (uint32_t i = 0; i < 8; i++) ask(i, i, 100, 20);
    run(8);
    uint64_t busy = 0;
    for (uint32_t p = 0; p < 2; p++)
        for (uint32_t k = 0; k < 3; k++) busy += result.stage[p][k].busy_ns;
    assert_true(busy <= result.any_ns);
    assert_true(tr_simulate_bubble(&config, &result, 0, 0) < 1e-6);
}

static void load(uint32_t n) {
    for (uint32_t i = 0; i < n; i++) ask(i, 7 * i, 20 + 97 * i % 400, 1 + 31 * i % 60);
}

static void equal_runs_are_equal(void **state) {
    (void)state;
    static tr_simulate_request before[REQUESTS];
    static tr_simulate_result first;
    static float old[REQUESTS][64];
    company(2, 3, TR_POLICY_SARATHI);
    costs((tr_simulate_cost){.step = MS, .row = 30000, .read = 3},
          (tr_simulate_cost){.step = MS, .row = 20000, .read = 3});
    config.message_ns = config.hop_ns = 20000;
    config.move_cell_ns = 100;
    load(REQUESTS);
    run(REQUESTS);
    memcpy(before, request, sizeof before);
    memcpy(old, gaps, sizeof old);
    first = result;
    load(REQUESTS);
    run(REQUESTS);
    assert_memory_equal(before, request, sizeof before);
    assert_memory_equal(old, gaps, sizeof old);
    assert_memory_equal(&first, &result, sizeof first);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        assert_true(request[i].ok);
        assert_int_equal(request[i].got, request[i].output);
    }
}

/* Twice the replicas and twice the requests: as fast as one with its half, where they are equal. */
static void replicas_share_the_load(void **state) {
    (void)state;
    company(2, 0, TR_POLICY_SARATHI);
    costs((tr_simulate_cost){.step = MS, .row = 30000}, (tr_simulate_cost){.step = MS, .row = 20000});
    for (uint32_t i = 0; i < 8; i++) ask(i, 10 * i, 64, 10);
    run(8);
    const uint64_t alone = result.end_ns;
    config.n_replicas = 2;
    for (uint32_t i = 0; i < 16; i++) ask(i, 10 * (i / 2), 64, 10);
    run(16);
    uint32_t first = 0;
    for (uint32_t i = 0; i < 16; i++) first += request[i].replica == 0;
    assert_int_equal(first, 8);
    assert_int_equal(result.end_ns, alone);
}

/* A closed loop: the next request is sent when one has ended. */
static void one_after_the_other(void **state) {
    (void)state;
    company(1, 0, TR_POLICY_SARATHI);
    costs((tr_simulate_cost){.step = 3 * MS}, (tr_simulate_cost){.step = MS});
    config.output_ns = MS;
    config.max_open = 1;
    for (uint32_t i = 0; i < 4; i++) ask(i, 0, 32, 5);
    run(4);
    for (uint32_t i = 0; i < 4; i++) assert_ms(request[i].start_ns, 7 * i);
    config.max_open = 2;
    for (uint32_t i = 0; i < 4; i++) ask(i, 0, 16, 5);
    run(4);
    assert_ms(request[1].start_ns, 0);
    assert_true(request[2].start_ns > 0);
}

/* Prompts without end, so that decode rows are always beside chunks: these are as long as the objective leaves room for
 * all the same. */
static void chunks_beside_streams(void **state) {
    (void)state;
    company(1, 0, TR_POLICY_SARATHI);
    costs((tr_simulate_cost){.step = MS, .row = MS / 16}, (tr_simulate_cost){.step = MS, .row = MS / 16});
    config.scheduler.chunk = 256;
    config.scheduler.max_rows = 256 + 16;
    config.scheduler.slo_ns = 15 * MS;
    config.max_open = 8;
    for (uint32_t i = 0; i < REQUESTS; i++) ask(i, 0, 2000, 60);
    run(REQUESTS);
    assert_true(result.rows[0] > 100 * result.stage[0][0].steps[0]);
}

/* More than may wait: refused at once, the others are served. */
static void overload_is_refused(void **state) {
    (void)state;
    company(1, 0, TR_POLICY_SARATHI);
    costs((tr_simulate_cost){.step = MS}, (tr_simulate_cost){.step = MS});
    config.scheduler.max_waiting = 4;
    config.scheduler.layout[0].group[0].n_pages = 40; /* of 16 tokens: for 8 requests */
    for (uint32_t i = 0; i < REQUESTS; i++) ask(i, 0, 64, 10);
    run(REQUESTS);
    uint32_t ok = 0;
    for (uint32_t i = 0; i < REQUESTS; i++) ok += request[i].ok;
    assert_int_equal(ok, 8 + 4);
    config.scheduler.chunk = 0;
    assert_int_equal(tr_simulate_bytes(&config, 1), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_in_order),
        cmocka_unit_test(one_request_in_two_stages),
        cmocka_unit_test(bubbles_of_fill_and_drain),
        cmocka_unit_test(bubbles_of_a_filled_pipeline),
        cmocka_unit_test(a_hand_off),
        cmocka_unit_test(shared_cores),
        cmocka_unit_test(equal_runs_are_equal),
        cmocka_unit_test(replicas_share_the_load),
        cmocka_unit_test(chunks_beside_streams),
        cmocka_unit_test(one_after_the_other),
        cmocka_unit_test(overload_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
