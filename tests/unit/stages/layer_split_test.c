/* Layer splits: balance with a heavy output matrix, and every way to write a wrong one. */
#include "stages/layer_split.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* hidden 16, so that one layer has (3 heads of 16 in and out, and ffn 64) 16 * (48 + 16 + 192) = 4096 weights. */
static tr_model_config model(uint32_t n_layers, uint32_t vocab) {
    return (tr_model_config){
        .n_layers = n_layers, .hidden = 16, .ffn = 64, .n_heads = 1, .n_kv_heads = 1, .head_dim = 16, .vocab = vocab};
}
enum { VOCAB_OF_A_LAYER = 256 };

static void expect(uint32_t n_layers, uint32_t head, uint32_t stages, const uint32_t *counts) {
    tr_model_config m = model(n_layers, head * VOCAB_OF_A_LAYER);
    uint32_t begin[65];
    tr_error err = {0};
    assert_int_equal(tr_layer_split_auto(&m, stages, 1, begin, &err), TR_OK);
    assert_int_equal(begin[0], 0);
    for (uint32_t i = 0; i < stages; i++) assert_int_equal(begin[i + 1] - begin[i], counts[i]);
}

static void balance(void **state) {
    (void)state;
    expect(18, 0, 1, (uint32_t[]){18});
    expect(18, 0, 3, (uint32_t[]){6, 6, 6});
    expect(18, 30, 3, (uint32_t[]){9, 8, 1}); /* the shape of Gemma 3 270M */
    expect(30, 6, 3, (uint32_t[]){12, 12, 6});
    expect(5, 1, 5, (uint32_t[]){1, 1, 1, 1, 1});
    expect(1, 1000, 1, (uint32_t[]){1});
    /* Prefill computes the head once a prompt: it weighs next to nothing there. */
    tr_model_config m = model(18, 30 * VOCAB_OF_A_LAYER);
    uint32_t begin[3];
    assert_int_equal(tr_layer_split_auto(&m, 2, 256, begin, NULL), TR_OK);
    assert_int_equal(begin[1], 9);
}

/* A chunk of rows needs the head once: Gemma's 30 layers' worth of it are next to nothing in prefill. */
static void head_shared_by_a_chunk(void **state) {
    (void)state;
    tr_model_config m = model(18, 30 * VOCAB_OF_A_LAYER);
    uint32_t begin[4];
    assert_int_equal(tr_layer_split_auto(&m, 3, 512, begin, NULL), TR_OK);
    assert_memory_equal(begin, ((uint32_t[]){0, 6, 12, 18}), sizeof begin);
    assert_int_equal(tr_layer_split_auto(&m, 2, 10, begin, NULL), TR_OK); /* 3 layers' worth */
    assert_int_equal(begin[1], 10);
    assert_int_equal(tr_layer_split_auto(&m, 3, 0, begin, NULL), TR_OK); /* no row at all counts as one */
    assert_int_equal(begin[2], 17);
}

static double slowest(const uint32_t *begin, uint32_t stages, double head) {
    double worst = 0;
    for (uint32_t i = 0; i < stages; i++) {
        double cost = begin[i + 1] - begin[i] + (i + 1 == stages ? head : 0);
        worst = cost > worst ? cost : worst;
    }
    return worst;
}

/* No other split of any small model has a faster slowest stage. */
static void optimal(void **state) {
    (void)state;
    for (uint32_t n = 3; n <= 14; n++)
        for (uint32_t eighths = 0; eighths <= 80; eighths += 4) {
            double head = eighths / 8.0, best = 1e9;
            uint32_t begin[4], all[4] = {0, 0, 0, n};
            for (all[1] = 1; all[1] < n - 1; all[1]++)
                for (all[2] = all[1] + 1; all[2] < n; all[2]++) {
                    double s = slowest(all, 3, head);
                    best = s < best ? s : best;
                }
            tr_model_config m = model(n, eighths * VOCAB_OF_A_LAYER / 8);
            assert_int_equal(tr_layer_split_auto(&m, 3, 1, begin, NULL), TR_OK);
            for (uint32_t i = 0; i < 3; i++) assert_true(begin[i] < begin[i + 1]);
            if (slowest(begin, 3, head) != best)
                fail_msg("%u layers, head %g: %u %u %u", n, head, begin[1], begin[2] - begin[1], n - begin[2]);
        }
}

static void given(void **state) {
    (void)state;
    tr_model_config m = model(18, 1000);
    uint32_t begin[4] = {7, 7, 7, 7};
    assert_int_equal(tr_layer_split_given(&m, 3, (uint32_t[]){9, 8, 1}, begin, NULL), TR_OK);
    assert_memory_equal(begin, ((uint32_t[]){0, 9, 17, 18}), sizeof begin);
}

static void refused(void **state) {
    (void)state;
    static const struct {
        uint32_t count[3];
        const char *says;
    } wrong[] = {
        {{6, 12, 0}, "none"}, {{0, 9, 9}, "none"}, {{6, 6, 7}, "18"}, {{6, 6, 5}, "18"}, {{UINT32_MAX, 13, 6}, "18"}};
    tr_model_config m = model(18, 1000);
    uint32_t begin[80] = {5};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        tr_error err = {0};
        assert_int_equal(tr_layer_split_given(&m, 3, wrong[i].count, begin, &err), TR_CONFIG);
        if (!strstr(err.text, wrong[i].says)) fail_msg("%s", err.text);
        assert_int_equal(begin[0], 5);
    }
    tr_error err = {0};
    assert_int_equal(tr_layer_split_auto(&m, 19, 1, begin, &err), TR_CONFIG);
    assert_non_null(strstr(err.text, "only 18 layers"));
    assert_int_equal(tr_layer_split_auto(&m, 0, 1, begin, &err), TR_CONFIG);
    uint32_t many[19];
    for (int i = 0; i < 19; i++) many[i] = 1;
    assert_int_equal(tr_layer_split_given(&m, 19, many, begin, &err), TR_CONFIG);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(balance), cmocka_unit_test(head_shared_by_a_chunk),
                                       cmocka_unit_test(optimal), cmocka_unit_test(given), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
