/* Placement is a pure function: hwloc's synthetic machines in, cores out. */
#include "affinity/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static tr_machine machine;
static tr_placement placement;

static void describe(const char *text) {
    tr_error err = {0};
    if (tr_machine_synthetic(text, &machine, &err) != TR_OK) fail_msg("%s: %s", text, err.text);
}

static tr_status place(uint32_t prefill, uint32_t decode, uint32_t max_cores, tr_placement_cores cores) {
    tr_placement_want want = {
        .n_pipelines = decode ? 2 : 1, .n_stages = {prefill, decode}, .max_cores = max_cores, .cores = cores};
    tr_error err = {0};
    return tr_placement_compute(&machine, &want, &placement, &err);
}

static void assert_stage(uint32_t pipe, uint32_t i, int32_t node, uint32_t n, const uint32_t *cpus) {
    const tr_placement_rank *s = &placement.rank[pipe][i];
    assert_int_equal(s->numa_node, node);
    assert_int_equal(s->n_cpus, n);
    for (uint32_t k = 0; k < n; k++) assert_int_equal(s->cpus[k], cpus[k]);
}
#define STAGE(pipe, i, node, ...)                                                                                      \
    do {                                                                                                               \
        const uint32_t cpus_[] = {__VA_ARGS__};                                                                        \
        assert_stage(pipe, i, node, sizeof cpus_ / sizeof cpus_[0], cpus_);                                            \
    } while (0)

/* Whatever the shape: in own mode no core has two stages, no stage is empty, and nothing outside the machine is used.
 */
static void assert_disjoint(uint32_t prefill, uint32_t decode) {
    uint32_t n[2] = {prefill, decode}, seen[1024] = {0};
    for (uint32_t pipe = 0; pipe < 2; pipe++)
        for (uint32_t i = 0; i < n[pipe]; i++) {
            const tr_placement_rank *s = &placement.rank[pipe][i];
            assert_true(s->n_cpus > 0);
            for (uint32_t k = 0; k < s->n_cpus; k++) {
                assert_true(s->cpus[k] < 1024);
                assert_int_equal(seen[s->cpus[k]]++, 0);
            }
        }
}

static void test_machine_of_two_nodes(void **state) {
    (void)state;
    describe("node:2 core:4 pu:1");
    assert_false(machine.is_this_system);
    assert_int_equal(machine.n_cores, 8);
    assert_int_equal(machine.n_nodes, 2);
    assert_int_equal(machine.node[0].n_cores, 4);
    assert_int_equal(machine.core[5].cpu, 5);
    assert_int_equal(machine.core[5].node, 1);
}

static void test_hardware_threads_count_once(void **state) {
    (void)state;
    describe("node:1 core:4 pu:2");
    assert_int_equal(machine.n_cores, 4);
    assert_int_equal(machine.n_cpus, 8);
    assert_int_equal(machine.core[1].cpu, 2); /* the second core's first thread */
}

static void test_bad_description(void **state) {
    (void)state;
    tr_error err = {0};
    assert_int_equal(tr_machine_synthetic("node:2 banana:4", &machine, &err), TR_CONFIG);
    assert_non_null(strstr(err.text, "banana"));
}

static void test_both_pipelines_spread_over_both_nodes(void **state) {
    (void)state;
    describe("node:2 core:4 pu:1");
    assert_int_equal(place(2, 3, 0, TR_PLACEMENT_AUTO), TR_OK);
    assert_false(placement.exclusive);
    assert_int_equal(placement.max_in_flight[0], 2);
    assert_int_equal(placement.max_in_flight[1], 3);
    STAGE(0, 0, 0, 0, 1);
    STAGE(0, 1, 1, 4);
    STAGE(1, 0, 0, 2, 3);
    STAGE(1, 1, 1, 5);
    STAGE(1, 2, 1, 6, 7);
    assert_disjoint(2, 3);
}

static void test_two_cores_are_shared(void **state) {
    (void)state;
    describe("node:1 core:2 pu:1");
    assert_int_equal(place(2, 3, 0, TR_PLACEMENT_AUTO), TR_OK);
    assert_true(placement.exclusive);
    assert_int_equal(placement.max_in_flight[0], 1);
    assert_int_equal(placement.max_in_flight[1], 1);
    for (uint32_t i = 0; i < 2; i++) STAGE(0, i, 0, 0, 1);
    for (uint32_t i = 0; i < 3; i++) STAGE(1, i, 0, 0, 1);
}

static void test_one_node_shares_until_stages_are_wide(void **state) {
    (void)state;
    describe("node:1 core:8 pu:1");
    assert_int_equal(place(1, 1, 0, TR_PLACEMENT_AUTO), TR_OK);
    assert_false(placement.exclusive);
    assert_int_equal(place(1, 2, 0, TR_PLACEMENT_AUTO), TR_OK);
    assert_true(placement.exclusive);
    assert_int_equal(place(1, 2, 0, TR_PLACEMENT_OWN), TR_OK);
    assert_false(placement.exclusive);
}

static void test_one_stage_gets_all(void **state) {
    (void)state;
    describe("node:2 core:4 pu:1");
    assert_int_equal(place(1, 0, 0, TR_PLACEMENT_AUTO), TR_OK);
    assert_false(placement.exclusive);
    STAGE(0, 0, -1, 0, 1, 2, 3, 4, 5, 6, 7);
}

static void test_one_and_one_take_a_node_each(void **state) {
    (void)state;
    describe("node:2 core:4 pu:1");
    assert_int_equal(place(1, 1, 0, TR_PLACEMENT_AUTO), TR_OK);
    STAGE(0, 0, 0, 0, 1, 2, 3);
    STAGE(1, 0, 1, 4, 5, 6, 7);
}

static void test_thread_limit(void **state) {
    (void)state;
    describe("node:2 core:4 pu:1");
    assert_int_equal(place(1, 0, 2, TR_PLACEMENT_AUTO), TR_OK);
    STAGE(0, 0, 0, 0, 1);
    assert_int_equal(place(2, 3, 4, TR_PLACEMENT_AUTO), TR_OK);
    assert_true(placement.exclusive);
    STAGE(1, 2, 0, 0, 1, 2, 3);
    assert_int_equal(place(1, 0, 99, TR_PLACEMENT_AUTO), TR_OK);
    assert_int_equal(placement.n_cores, 8);
}

static void test_wishes(void **state) {
    (void)state;
    describe("node:1 core:8 pu:1");
    assert_int_equal(place(2, 2, 0, TR_PLACEMENT_SHARED), TR_OK);
    assert_true(placement.exclusive);
    assert_int_equal(placement.rank[1][1].n_cpus, 8);
    assert_int_equal(place(5, 4, 0, TR_PLACEMENT_OWN), TR_CONFIG);
    assert_int_equal(place(0, 0, 0, TR_PLACEMENT_AUTO), TR_CONFIG);
    assert_int_equal(place(65, 0, 0, TR_PLACEMENT_AUTO), TR_CONFIG);
}

static void test_every_shape_is_disjoint(void **state) {
    (void)state;
    static const char *const shapes[] = {"node:1 core:8 pu:1", "node:2 core:4 pu:1", "node:4 core:3 pu:2",
                                         "node:3 core:7 pu:1", "node:8 core:2 pu:1"};
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        describe(shapes[k]);
        for (uint32_t p = 1; p <= machine.n_cores; p++)
            for (uint32_t d = 0; p + d <= machine.n_cores; d++) {
                assert_int_equal(place(p, d, 0, TR_PLACEMENT_OWN), TR_OK);
                assert_false(placement.exclusive);
                assert_disjoint(p, d);
                if (p + d < machine.n_nodes) continue;
                for (uint32_t i = 0; i < p; i++) assert_true(placement.rank[0][i].numa_node >= 0);
            }
    }
}

static tr_status place_ranks(uint32_t prefill, uint32_t prefill_tp, uint32_t decode, uint32_t decode_tp,
                             tr_placement_cores cores) {
    tr_placement_want want = {
        .n_pipelines = 2, .n_stages = {prefill, decode}, .tp = {prefill_tp, decode_tp}, .cores = cores};
    tr_error err = {0};
    return tr_placement_compute(&machine, &want, &placement, &err);
}

static void test_ranks_divide_the_cores_of_their_stage(void **state) {
    (void)state;
    describe("node:2 core:4 pu:1");
    assert_int_equal(place_ranks(1, 2, 1, 4, TR_PLACEMENT_AUTO), TR_OK);
    assert_false(placement.exclusive);
    STAGE(0, 0, 0, 0, 1);
    STAGE(0, 1, 0, 2, 3);
    for (uint32_t r = 0; r < 4; r++) STAGE(1, r, 1, 4 + r);
    assert_int_equal(place(1, 0, 0, TR_PLACEMENT_AUTO), TR_OK);
    STAGE(0, 0, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    tr_placement_want one = {.n_pipelines = 1, .n_stages = {1}, .tp = {2}}; /* a stage over both nodes: a rank each */
    assert_int_equal(tr_placement_compute(&machine, &one, &placement, NULL), TR_OK);
    STAGE(0, 0, 0, 0, 1, 2, 3);
    STAGE(0, 1, 1, 4, 5, 6, 7);
}

static void test_ranks_share_cores_where_there_are_too_few(void **state) {
    (void)state;
    describe("node:1 core:2 pu:1");
    assert_int_equal(place_ranks(2, 2, 1, 3, TR_PLACEMENT_AUTO), TR_OK);
    assert_true(placement.exclusive);
    for (uint32_t s = 0; s < 2; s++) {
        STAGE(0, 2 * s, 0, 0);
        STAGE(0, 2 * s + 1, 0, 1);
    }
    STAGE(1, 0, 0, 0);
    STAGE(1, 1, 0, 0);
    STAGE(1, 2, 0, 1);
    describe("node:1 core:6 pu:1");
    assert_int_equal(place_ranks(1, 3, 1, 3, TR_PLACEMENT_OWN), TR_OK);
    assert_disjoint(3, 3);
    assert_int_equal(place_ranks(1, 3, 1, 4, TR_PLACEMENT_OWN), TR_CONFIG);
    assert_int_equal(place_ranks(2, 33, 1, 1, TR_PLACEMENT_AUTO), TR_CONFIG);
    assert_int_equal(place_ranks(1, UINT32_MAX, 1, 1, TR_PLACEMENT_AUTO), TR_CONFIG);
}

static void test_uneven_nodes(void **state) {
    (void)state;
    memset(&machine, 0, sizeof machine);
    machine.n_cores = 6;
    machine.n_nodes = 2;
    machine.node[0] = (tr_machine_node){.os_index = 3, .n_cores = 1};
    machine.node[1] = (tr_machine_node){.os_index = 7, .n_cores = 5};
    for (uint32_t i = 0; i < 6; i++) machine.core[i] = (tr_machine_core){.cpu = 10 + i, .node = i > 0};
    assert_int_equal(place(3, 3, 0, TR_PLACEMENT_AUTO), TR_OK);
    assert_disjoint(3, 3);
    machine.quota = 2; /* the cgroup grants the time of two cores only */
    assert_int_equal(place(1, 0, 0, TR_PLACEMENT_AUTO), TR_OK);
    assert_int_equal(placement.rank[0][0].n_cpus, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machine_of_two_nodes),
        cmocka_unit_test(test_hardware_threads_count_once),
        cmocka_unit_test(test_bad_description),
        cmocka_unit_test(test_both_pipelines_spread_over_both_nodes),
        cmocka_unit_test(test_two_cores_are_shared),
        cmocka_unit_test(test_one_node_shares_until_stages_are_wide),
        cmocka_unit_test(test_one_stage_gets_all),
        cmocka_unit_test(test_one_and_one_take_a_node_each),
        cmocka_unit_test(test_thread_limit),
        cmocka_unit_test(test_wishes),
        cmocka_unit_test(test_every_shape_is_disjoint),
        cmocka_unit_test(test_ranks_divide_the_cores_of_their_stage),
        cmocka_unit_test(test_ranks_share_cores_where_there_are_too_few),
        cmocka_unit_test(test_uneven_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
