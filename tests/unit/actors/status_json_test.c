/* What `troupe status --json` says, made from control blocks, bitmaps and a journal that the test writes itself. */
#include "actors/frontend/status_json.h"

#include "kv/kv_pool.h"
#include "scheduler/journal.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SLOTS = 4, CONTEXT = 64 };

static tr_company company;
static tr_control control;
static tr_runtime rt;

static void make_pool(uint32_t pool, tr_kv_format format, uint32_t pages) {
    tr_kv_model model = {.n_layers = 2, .n_kv_heads = 1, .head_dim = 32, .layer_is_global = {1, 1}};
    uint32_t want[TR_KV_GROUPS_MAX] = {pages, pages};
    tr_error err = {0};
    assert_int_equal(tr_kv_layout_init(&company.layout[pool], &model, format, 16, SLOTS, CONTEXT, want, &err), TR_OK);
}

static int setup(void **state) {
    (void)state;
    memset(&company, 0, sizeof company);
    memset(&control, 0, sizeof control);
    memset(&rt, 0, sizeof rt);
    strcpy(company.name, "unit");
    strcpy(company.model_name, "a \"quoted\" model");
    static const char *const names[] = {"supervisor", "scheduler", "prefill.0"};
    company.n_actors = 3;
    for (uint32_t a = 0; a < 3; a++) {
        strcpy(company.actor[a].name, names[a]);
        company.actor[a].numa_node = -1;
    }
    company.actor[2].n_cpus = 2;
    company.actor[2].cpus[0] = 1;
    company.actor[2].cpus[1] = 3;
    company.actor[2].numa_node = 0;
    make_pool(0, TR_KV_BF16, 10);
    make_pool(1, TR_KV_INT8, 20);
    size_t bytes[2] = {tr_kv_pool_bitmap_bytes(&company.layout[0]), tr_kv_pool_bitmap_bytes(&company.layout[1])};
    company.bitmap_offset[1] = bytes[0];
    rt.company = &company;
    rt.control = &control;
    rt.segment[TR_SEGMENT_TABLES] = aligned_alloc(64, bytes[0] + bytes[1]);
    memset(rt.segment[TR_SEGMENT_TABLES], 0, bytes[0] + bytes[1]);
    uint64_t journal_bytes = (tr_journal_bytes(SLOTS, CONTEXT) + 63) / 64 * 64;
    rt.segment[TR_SEGMENT_JOURNAL] = aligned_alloc(64, journal_bytes);
    memset(rt.segment[TR_SEGMENT_JOURNAL], 0, journal_bytes);
    tr_journal_init(rt.segment[TR_SEGMENT_JOURNAL], SLOTS, CONTEXT);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    free(rt.segment[TR_SEGMENT_TABLES]);
    free(rt.segment[TR_SEGMENT_JOURNAL]);
    return 0;
}

static json_t *status(void) {
    char *text = tr_status_json(&rt);
    assert_non_null(text);
    assert_null(strchr(text, '\n'));
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    assert_true(json_is_object(root));
    return root;
}

static json_int_t number(json_t *object, const char *key) {
    json_t *value = json_object_get(object, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static void actors_up_and_down(void **state) {
    (void)state;
    atomic_store(&control.ready, 1);
    atomic_store(&control.actor[0].pid, getpid());
    atomic_store(&control.actor[0].incarnation, 1);
    atomic_store(&control.actor[2].incarnation, 3);
    atomic_store(&control.actor[2].progress, 77);
    json_t *root = status(), *actors = json_object_get(root, "actors");
    assert_string_equal(json_string_value(json_object_get(root, "name")), "unit");
    assert_string_equal(json_string_value(json_object_get(root, "model")), "a \"quoted\" model");
    assert_true(json_is_true(json_object_get(root, "ready")));
    assert_int_equal(json_array_size(actors), 3);
    json_t *supervisor = json_array_get(actors, 0), *stage = json_array_get(actors, 2);
    assert_string_equal(json_string_value(json_object_get(supervisor, "name")), "supervisor");
    assert_int_equal(number(supervisor, "pid"), getpid());
    assert_true(number(supervisor, "rss") > 4096);
    assert_true(json_is_null(json_object_get(supervisor, "numa")));
    assert_int_equal(json_array_size(json_object_get(supervisor, "cores")), 0);
    assert_true(json_is_null(json_object_get(stage, "pid"))); /* down */
    assert_int_equal(number(stage, "rss"), 0);
    assert_int_equal(number(stage, "incarnation"), 3);
    assert_int_equal(number(stage, "steps"), 77);
    assert_int_equal(number(stage, "numa"), 0);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(stage, "cores"), 1)), 3);
    json_decref(root);
}

static void ledger_sums_up(void **state) {
    (void)state;
    static const uint64_t ns[TR_LEDGER_KINDS] = {5, 0, 7, 1, 2, 9};
    tr_ledger_set(&control.actor[2].ledger, ns);
    json_t *root = status(), *actors = json_object_get(root, "actors");
    assert_null(json_object_get(json_array_get(actors, 0), "ledger_ns"));
    json_t *ledger = json_object_get(json_array_get(actors, 2), "ledger_ns");
    assert_int_equal(json_object_size(ledger), TR_LEDGER_KINDS);
    for (uint32_t k = 0; k < TR_LEDGER_KINDS; k++)
        assert_int_equal(number(ledger, tr_ledger_name((tr_ledger_kind)k)), ns[k]);
    assert_true(number(root, "clock_ns") > 0);
    json_decref(root);
}

static void pools_count_bits(void **state) {
    (void)state;
    uint8_t *tables = rt.segment[TR_SEGMENT_TABLES];
    tr_kv_pool pool;
    memset(&pool, 0, sizeof pool);
    tr_kv_pool_attach(&pool, &company.layout[1], (_Atomic uint64_t *)(void *)(tables + company.bitmap_offset[1]));
    uint32_t taken[3];
    assert_int_equal(tr_kv_pool_take(&pool, 0, 3, taken), TR_OK);
    json_t *root = status(), *pools = json_object_get(root, "pools");
    assert_int_equal(json_array_size(pools), 2);
    json_t *prefill = json_array_get(pools, 0), *decode = json_array_get(pools, 1);
    assert_string_equal(json_string_value(json_object_get(prefill, "name")), "prefill");
    assert_string_equal(json_string_value(json_object_get(decode, "name")), "decode");
    assert_string_equal(json_string_value(json_object_get(decode, "format")), "int8");
    assert_int_equal(number(prefill, "pages"), 10);
    assert_int_equal(number(prefill, "free"), 10);
    assert_int_equal(number(decode, "pages"), 20);
    assert_int_equal(number(decode, "free"), 17);
    json_decref(root);
    company.one_pool = 1;
    root = status();
    pools = json_object_get(root, "pools");
    assert_int_equal(json_array_size(pools), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(pools, 0), "name")), "shared");
    json_decref(root);
}

static void requests_by_state(void **state) {
    (void)state;
    tr_journal *j = rt.segment[TR_SEGMENT_JOURNAL];
    static const struct {
        uint32_t state;
        uint64_t first_step_ns;
    } rows[SLOTS] = {{TR_JOURNAL_OPEN, 5}, {TR_JOURNAL_OPEN, 0}, {TR_JOURNAL_DONE, 5}, {TR_JOURNAL_OPEN, 9}};
    for (uint32_t s = 0; s < SLOTS; s++) {
        tr_journal_at(j, s)->first_step_ns = rows[s].first_step_ns;
        atomic_store(&tr_journal_at(j, s)->state, rows[s].state);
    }
    json_t *root = status(), *requests = json_object_get(root, "requests");
    assert_int_equal(number(requests, "running"), 2);
    assert_int_equal(number(requests, "waiting"), 1);
    json_decref(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(actors_up_and_down, setup, teardown),
                                       cmocka_unit_test_setup_teardown(ledger_sums_up, setup, teardown),
                                       cmocka_unit_test_setup_teardown(pools_count_bits, setup, teardown),
                                       cmocka_unit_test_setup_teardown(requests_by_state, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
