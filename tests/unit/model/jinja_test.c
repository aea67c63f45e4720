/* The interpreter against jinja2 in transformers' environment (tests/golden/jinja), and its bounds. */
#include "model/jinja.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The text, or NULL with the error in err. */
static char *render(const char *text, const json_t *context, int64_t now, const tr_jinja_limits *limits,
                    tr_error *err) {
    tr_jinja *t = NULL;
    char *out = NULL;
    size_t len = 0;
    tr_status status = tr_jinja_compile(text, strlen(text), &t, err);
    if (status == TR_OK) status = tr_jinja_render(t, context, limits, now, &out, &len, err);
    tr_jinja_free(&t);
    if (status == TR_OK) {
        assert_int_equal(strlen(out), len);
        return out;
    }
    assert_int_equal(status, TR_DATA);
    assert_non_null(strstr(err->text, "chat template"));
    assert_null(strchr(err->text, '\n'));
    return NULL;
}

static void same_as_jinja2(void **state) {
    (void)state;
    json_t *golden = json_load_file("tests/golden/jinja/features.json", 0, NULL), *row;
    assert_non_null(golden);
    setenv("TZ", "UTC", 1);
    size_t i, nul = 0;
    json_array_foreach(json_object_get(golden, "rows"), i, row) {
        const char *text = json_string_value(json_object_get(row, "template"));
        const json_t *want = json_object_get(row, "text");
        tr_error err = {0};
        char *got = render(text, json_object_get(golden, "context"), json_integer_value(json_object_get(golden, "now")),
                           &tr_jinja_limits_default, &err);
        if (json_is_null(want)) {
            if (got) fail_msg("%s is refused by jinja2, not here: %s", text, got);
            nul++;
        } else {
            if (!got) fail_msg("%s is refused: %s", text, err.text);
            assert_string_equal(got, json_string_value(want));
        }
        free(got);
    }
    assert_true(i > 80 && nul > 15);
    json_decref(golden);
}

/* Each bomb meets a bound and says so. */
static void bombs(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor "
        "%}",
        "{{ 'aaaaaaaaaaaaaaaa' * 999999999 }}",
        "{{ [1] * 3 }}",
        "{{ range(99999999) }}",
        "{% for i in range(99999) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' * "
        "99 }}{% endfor %}",
        "{{ 9 ** 99 }}",
        "{{ 9223372036854775807 }}",
        "{{ 2 ** 62 * 4 }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns.a }}",
        "{{ [1, 2] | tojson(indent=99999) }}{{ 1 // 0 }}",
    };
    json_t *context = json_object();
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        tr_error err = {0};
        char *got = render(texts[i], context, 0, &tr_jinja_limits_default, &err);
        if (got) fail_msg("%s went through", texts[i]);
    }
    json_decref(context);
}

/* Nesting of every kind, far too deep: an error, and no crash. */
static void deep(void **state) {
    (void)state;
    static const char *const parts[][3] = {{"(", "1", ")"},         {"[", "", "]"},
                                           {"not ", "1", ""},       {"-", "1", ""},
                                           {"{1:", "1", "}"},       {"f(", "", ")"},
                                           {"1 if ", "1", ""},      {"x[", "1", "]"},
                                           {"1 ~ (", "1", ")"},     {"a.b(", "", ")"},
                                           {"x is eq (", "1", ")"}, {"x|join(", "1", ")"},
                                           {"{% if 1 %}", "", ""},  {"{% for a in b %}", "", ""}};
    json_t *context = json_object();
    char *text = malloc(1 << 20);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        for (int depth = 50; depth <= 20000; depth *= 20) {
            bool tag = parts[i][0][0] == '{' && parts[i][0][1] == '%';
            char *p = text;
            if (!tag) p = stpcpy(p, "{{ ");
            for (int k = 0; k < depth; k++) p = stpcpy(p, parts[i][0]);
            p = stpcpy(p, parts[i][1]);
            for (int k = 0; k < depth; k++) p = stpcpy(p, parts[i][2]);
            if (!tag) p = stpcpy(p, " }}");
            tr_error err = {0};
            free(render(text, context, 0, &tr_jinja_limits_default, &err));
            if (depth > 100) assert_non_null(strstr(err.text, "chat template"));
        }
    /* a chain of operators is no nesting for the parser, but for the evaluation */
    char *p = stpcpy(text, "{{ 1");
    for (int k = 0; k < 20000; k++) p = stpcpy(p, " + 1");
    strcpy(p, " }}");
    tr_error err = {0};
    assert_null(render(text, context, 0, &tr_jinja_limits_default, &err));
    free(text);
    json_decref(context);
}

/* Every prefix of a template and every tight bound ends in a text or an error. */
static void cut_short(void **state) {
    (void)state;
    static const char text[] =
        "{# c #}{% macro m(a, b='x') %}{{ a | trim ~ b }}{% endmacro %}{% for x in range(3) if x %}"
        "{{- m(x, b=[1, 2][0:1]) -}}{% else %}n{% endfor %}{% set t %}{{ '\\u00e9' }}{% endset %}{{ t }}";
    json_t *context = json_object();
    for (size_t n = 0; n < sizeof text; n++) {
        char part[sizeof text];
        memcpy(part, text, n);
        part[n] = 0;
        tr_error err = {0};
        free(render(part, context, 0, &tr_jinja_limits_default, &err));
    }
    for (uint64_t bound = 1; bound < 200; bound++) {
        tr_error err = {0};
        tr_jinja_limits limits = tr_jinja_limits_default;
        limits.steps = bound;
        free(render(text, context, 0, &limits, &err));
        limits = tr_jinja_limits_default;
        limits.depth = (uint32_t)bound;
        free(render(text, context, 0, &limits, &err));
        limits = tr_jinja_limits_default;
        limits.memory_bytes = bound * 1024;
        free(render(text, context, 0, &limits, &err));
        limits = tr_jinja_limits_default;
        limits.output_bytes = bound / 20;
        free(render(text, context, 0, &limits, &err));
    }
    json_decref(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_as_jinja2), cmocka_unit_test(bombs),
                                       cmocka_unit_test(deep), cmocka_unit_test(cut_short)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
