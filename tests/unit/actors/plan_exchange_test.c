/* What another node says about the plan is checked value by value before anything is computed from it. */
#include "actors/runtime/plan_exchange.h"

#include "base/rng.h"
#include "transport/schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static tr_machine machine[2], got_machine[2];
static tr_company_build_want want, got;
static tr_company head, node;
static tr_error err;

static tr_model_config model(void) {
    return (tr_model_config){.arch = TR_ARCH_LLAMA,
                             .n_layers = 6,
                             .hidden = 128,
                             .ffn = 256,
                             .n_heads = 4,
                             .n_kv_heads = 2,
                             .head_dim = 32,
                             .vocab = 500,
                             .context_max = 512};
}

static int fresh(void **state) {
    (void)state;
    memset(&want, 0, sizeof want);
    want.chunk = 64;
    want.max_waiting = 8;
    want.n_nodes = 2;
    strcpy(want.node[0], "a");
    strcpy(want.node[1], "b");
    want.side_node[1] = 1;
    for (int i = 0; i < 2; i++) {
        want.side[i] =
            (tr_company_build_side){.pp = 2, .tp = 1, .page = 16, .dtype = TR_PRECISION_BF16, .kv = TR_KV_BF16};
        assert_int_equal(tr_machine_synthetic(i ? "node:2 core:4 pu:1" : "core:2 pu:1", &machine[i], &err), TR_OK);
    }
    want.side[1].dtype = TR_PRECISION_INT8;
    want.side[1].kv = TR_KV_INT8;
    return 0;
}

static void test_both_compute_one_plan(void **state) {
    (void)state;
    tr_model_config m = model();
    assert_int_equal(tr_company_build(&want, &m, machine, &head, &err), TR_OK);
    assert_int_equal(tr_plan_exchange_want(&want, sizeof want, &got, &err), TR_OK);
    assert_int_equal(tr_plan_exchange_machines(machine, sizeof machine, got_machine, 2, &err), TR_OK);
    assert_int_equal(tr_company_build(&got, &m, got_machine, &node, &err), TR_OK);
    assert_int_equal(head.plan_hash, node.plan_hash);
    m.vocab++;
    assert_int_equal(tr_company_build(&got, &m, got_machine, &node, &err), TR_OK);
    assert_int_not_equal(head.plan_hash, node.plan_hash);
}

static void test_a_plan_of_two_nodes(void **state) {
    (void)state;
    tr_model_config m = model();
    assert_int_equal(tr_company_build(&want, &m, machine, &head, &err), TR_OK);
    assert_int_equal(head.n_nodes, 2);
    assert_int_equal(head.one_pool, 0);
    assert_int_equal(head.exclusive, 0); /* they share no cores */
    assert_string_equal(head.actor[head.resharder].name, "resharder");
    assert_string_equal(head.actor[head.resharder_to].name, "resharder.b");
    assert_int_equal(tr_company_find_actor(&head, "decode.1")->node, 1);
    assert_int_equal(tr_company_find_actor(&head, "prefill.1")->node, 0);
    assert_non_null(tr_company_find_link(&head, TR_LINK_KV, head.resharder, head.resharder_to));
    assert_true(tr_company_segment_bytes(&head, TR_SEGMENT_POOL_PREFILL) > 0);
    assert_int_equal(tr_company_segment_bytes(&head, TR_SEGMENT_POOL_DECODE), 0);
    head.self = 1;
    assert_int_equal(tr_company_segment_bytes(&head, TR_SEGMENT_POOL_PREFILL), 0);
    assert_true(tr_company_segment_bytes(&head, TR_SEGMENT_POOL_DECODE) > 0);
    assert_int_equal(tr_company_segment_bytes(&head, TR_SEGMENT_JOURNAL), 0);
    assert_int_equal(tr_company_bell_of(&head, head.scheduler), head.node[1].agent);
    assert_int_equal(tr_company_bell_of(&head, head.resharder_to), head.resharder_to);
    for (uint32_t n = 0; n < 2; n++) assert_int_equal(head.actor[head.node[n].agent].node, n);
    /* Both pipelines on one of them: one resharder, there. */
    want.side_node[0] = 1;
    assert_int_equal(tr_company_build(&want, &m, machine, &head, &err), TR_OK);
    assert_int_equal(head.resharder, head.resharder_to);
    assert_int_equal(head.actor[head.resharder].node, 1);
}

static void refused(const char *what) {
    if (tr_plan_exchange_want(&want, sizeof want, &got, &err) != TR_PROTO) fail_msg("%s", what);
    fresh(NULL);
}

static void test_refused(void **state) {
    (void)state;
    assert_int_equal(tr_plan_exchange_want(&want, sizeof want - 1, &got, &err), TR_PROTO);
#define BAD(change)                                                                                                    \
    (void)(change);                                                                                                    \
    refused(#change)
    BAD(want.n_nodes = 1);
    BAD(want.n_nodes = TR_COMPANY_NODES_MAX + 1);
    BAD(want.side_node[0] = 2);
    BAD(memset(want.node[1], 'x', sizeof want.node[1]));
    BAD(strcpy(want.node[1], "a"));
    BAD(strcpy(want.node[1], "../x"));
    BAD(want.side[0].pp = 0);
    BAD(want.side[0].pp = 65);
    BAD(want.side[1].tp = 0);
    BAD(want.side[1].n_layers = 65);
    BAD(want.side[1].dtype = TR_PRECISION_END);
    BAD(want.side[1].kv = (tr_kv_format)9);
    BAD(want.chunk = TR_MAX_STEP_ROWS + 1);
    BAD(want.context = TR_MAX_TOKENS + 1);
    BAD(want.max_batch = TR_MAX_SPANS + 1);
    BAD(want.threads = 5000);
    BAD(want.kv_memory = UINT64_MAX);
    BAD(memset(&want.unified, 2, 1));
#define BAD_MACHINE(change)                                                                                            \
    (void)(change);                                                                                                    \
    assert_int_equal(tr_plan_exchange_machines(machine, sizeof machine, got_machine, 2, &err), TR_PROTO);              \
    fresh(NULL)
    BAD_MACHINE(machine[0].n_cores = 0);
    BAD_MACHINE(machine[0].n_cores = TR_MACHINE_CORES_MAX + 1);
    BAD_MACHINE(machine[1].n_nodes = 65);
    BAD_MACHINE(machine[1].core[3].node = 2);
    BAD_MACHINE(machine[1].core[0].node = 1);
    BAD_MACHINE(machine[1].core[0].cpu = 1u << 31);
    BAD_MACHINE(machine[1].memory_bytes = UINT64_MAX);
    assert_int_equal(tr_plan_exchange_machines(machine, sizeof machine, got_machine, 1, &err), TR_PROTO);
}

/* Random damage: refused, or a plan of whatever it says; never a crash. */
static void test_random(void **state) {
    (void)state;
    tr_model_config m = model();
    tr_rng rng = {11};
    for (int i = 0; i < 3000; i++) {
        uint8_t bytes[sizeof want], *machines = malloc(sizeof machine);
        memcpy(bytes, &want, sizeof want);
        memcpy(machines, machine, sizeof machine);
        for (uint64_t k = tr_rng_below(&rng, 4); k > 0; k--) {
            bytes[tr_rng_below(&rng, sizeof want)] = (uint8_t)tr_rng_next(&rng);
            machines[tr_rng_below(&rng, 200)] = (uint8_t)tr_rng_next(&rng);
        }
        if (tr_plan_exchange_want(bytes, sizeof bytes, &got, &err) == TR_OK &&
            tr_plan_exchange_machines(machines, got.n_nodes * sizeof machine[0], got_machine, got.n_nodes, &err) ==
                TR_OK)
            tr_company_build(&got, &m, got_machine, &node, &err);
        free(machines);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(test_both_compute_one_plan, fresh),
                                       cmocka_unit_test_setup(test_a_plan_of_two_nodes, fresh),
                                       cmocka_unit_test_setup(test_refused, fresh),
                                       cmocka_unit_test_setup(test_random, fresh)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
