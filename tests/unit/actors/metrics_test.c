/* Buckets, labels and text of metrics, and that the table is sound. */
#include "actors/gateway/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void the_table_is_sound(void **state) {
    (void)state;
    for (tr_metrics_id id = 0; id < TR_METRICS_END; id++) {
        const tr_metrics_row *r = tr_metrics_about(id);
        const size_t n = strlen(r->name);
        assert_true(strncmp(r->name, "vllm:", 5) == 0 || strncmp(r->name, "troupe:", 7) == 0);
        assert_int_equal(r->type == TR_METRICS_HISTOGRAM, r->n_bounds > 0);
        assert_true(r->n_bounds <= TR_METRICS_BUCKETS_MAX);
        for (uint32_t i = 1; i < r->n_bounds; i++) assert_true(r->bounds[i] > r->bounds[i - 1]);
        assert_int_equal(r->type == TR_METRICS_COUNTER, strcmp(r->name + n - 6, "_total") == 0);
        assert_null(strchr(r->help, '\n'));
        for (tr_metrics_id other = 0; other < id; other++)
            assert_string_not_equal(r->name, tr_metrics_about(other)->name);
    }
}

static char *text_of(tr_metrics_id id, const char *label, const tr_metrics_histogram *h) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    tr_metrics_histogram_samples(f, id, label, h);
    fclose(f);
    return text;
}

static void values_fall_into_buckets(void **state) {
    (void)state;
    tr_metrics_histogram h = {0};
    tr_metrics_observe(&h, TR_METRICS_ITL, 0.01, 2); /* a bound belongs to its bucket */
    tr_metrics_observe(&h, TR_METRICS_ITL, 0.011, 1);
    tr_metrics_observe(&h, TR_METRICS_ITL, 1000, 1);
    char *text = text_of(TR_METRICS_ITL, "a=\"b\"", &h);
    assert_non_null(strstr(text, "vllm:inter_token_latency_seconds_bucket{a=\"b\",le=\"0.01\"} 2\n"));
    assert_non_null(strstr(text, "_bucket{a=\"b\",le=\"0.025\"} 3\n"));
    assert_non_null(strstr(text, "_bucket{a=\"b\",le=\"80\"} 3\n"));
    assert_non_null(strstr(text, "_bucket{a=\"b\",le=\"+Inf\"} 4\n"));
    assert_non_null(strstr(text, "_sum{a=\"b\"} 1000.031000000\n"));
    assert_non_null(strstr(text, "_count{a=\"b\"} 4\n"));
    free(text);
    text = text_of(TR_METRICS_HANDOFF, "", &h);
    assert_non_null(strstr(text, "troupe:kv_handoff_seconds_bucket{le=\"+Inf\"}"));
    assert_non_null(strstr(text, "troupe:kv_handoff_seconds_count 4\n"));
    free(text);
}

static void labels_are_escaped(void **state) {
    (void)state;
    char label[64];
    tr_metrics_label(label, sizeof label, "m", "a \"b\" \\ c\n");
    assert_string_equal(label, "m=\"a \\\"b\\\" \\\\ c\\n\"");
    tr_metrics_label(label, 12, "m", "0123456789abcdef"); /* cut, and still closed */
    assert_true(strlen(label) < 12);
    assert_int_equal(label[strlen(label) - 1], '"');
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_table_is_sound), cmocka_unit_test(values_fall_into_buckets),
                                       cmocka_unit_test(labels_are_escaped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
