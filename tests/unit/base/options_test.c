/* One table, four sources: precedence, bounds, near names, foreign spellings, and the document that is made from it. */
#include "base/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static tr_options o;
static tr_error err;

static int fresh(void **state) {
    (void)state;
    tr_options_init(&o, TR_COMMAND_RUN);
    memset(&err, 0, sizeof err);
    return 0;
}
static int clean(void **state) {
    (void)state;
    tr_options_fini(&o);
    return 0;
}

static tr_status parse(const char *line) {
    static char copy[512];
    static char *argv[64];
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) argv[argc++] = word;
    return tr_options_parse(&o, argc, argv, 2, &err);
}

static void assert_fails(const char *line, tr_status status, const char *hint) {
    tr_options_fini(&o);
    tr_options_init(&o, TR_COMMAND_RUN);
    assert_int_equal(parse(line), status);
    if (!strstr(err.text, hint)) fail_msg("'%s' lacks '%s'", err.text, hint);
}

static void test_defaults(void **state) {
    (void)state;
    assert_int_equal(tr_options_u32(&o, TR_OPTION_PREDICT), 256);
    assert_int_equal(tr_options_u32(&o, TR_OPTION_PREFILL_PP), 1);
    assert_string_equal(tr_options_text(&o, TR_OPTION_DECODE_DTYPE), "int8");
    assert_int_equal(o.value[TR_OPTION_DECODE_LAYERS].n_list, 0);
    assert_false(tr_options_given(&o, TR_OPTION_PREDICT));
    assert_false(o.value[TR_OPTION_CONTEXT].present);
}

static void test_forms_of_a_flag(void **state) {
    (void)state;
    assert_int_equal(parse("m.gguf -n 5 -t2 --chunk=64 --temp 0.5 -q -- -x"), TR_OK);
    assert_int_equal(tr_options_u32(&o, TR_OPTION_PREDICT), 5);
    assert_int_equal(tr_options_u32(&o, TR_OPTION_THREADS), 2);
    assert_int_equal(tr_options_u32(&o, TR_OPTION_CHUNK), 64);
    assert_float_equal(tr_options_f64(&o, TR_OPTION_TEMP), 0.5, 0);
    assert_true(tr_options_flag(&o, TR_OPTION_QUIET));
    assert_int_equal(o.n_positional, 2);
    assert_string_equal(o.positional[1], "-x");
}

static void test_sides(void **state) {
    (void)state;
    assert_int_equal(parse("m --decode pp=3,layers=6:6:6,kv=bf16 --set prefill.page=32"), TR_OK);
    assert_int_equal(tr_options_u32(&o, TR_OPTION_DECODE_PP), 3);
    assert_int_equal(o.value[TR_OPTION_DECODE_LAYERS].n_list, 3);
    assert_int_equal(o.value[TR_OPTION_DECODE_LAYERS].list[2], 6);
    assert_string_equal(tr_options_text(&o, TR_OPTION_DECODE_KV), "bf16");
    assert_int_equal(tr_options_u32(&o, TR_OPTION_PREFILL_PAGE), 32);
    assert_int_equal(tr_options_section_source(&o, "decode"), TR_SOURCE_FLAG);
    assert_int_equal(tr_options_section_source(&o, "unified"), TR_SOURCE_DEFAULT);
}

static void test_order_of_sources(void **state) {
    (void)state;
    char unknown[256], a[] = "TROUPE_CHUNK=32", b[] = "TROUPE_DECODE_PP=4", c[] = "TROUPE_CHNK=1", d[] = "HOME=/";
    char *environment[] = {a, b, c, d, NULL};
    assert_int_equal(parse("m --chunk 16"), TR_OK);
    assert_int_equal(tr_options_environment(&o, environment, unknown, &err), TR_OK);
    assert_string_equal(unknown, "TROUPE_CHNK");
    assert_int_equal(tr_options_set_key(&o, TR_SOURCE_FILE, "decode.pp", "2", "t:1", &err), TR_OK);
    assert_int_equal(tr_options_set_key(&o, TR_SOURCE_FILE, "prefill.pp", "2", "t:1", &err), TR_OK);
    assert_int_equal(tr_options_u32(&o, TR_OPTION_CHUNK), 16);
    assert_int_equal(tr_options_u32(&o, TR_OPTION_DECODE_PP), 4);
    assert_int_equal(tr_options_u32(&o, TR_OPTION_PREFILL_PP), 2);
    /* A weaker value is checked all the same. */
    assert_int_equal(tr_options_set_key(&o, TR_SOURCE_FILE, "scheduler.chunk", "x", "t:9", &err), TR_CONFIG);
    assert_non_null(strstr(err.text, "t:9: scheduler.chunk"));
}

static void test_kebab_case(void **state) {
    (void)state;
    assert_int_equal(tr_options_find_key("scheduler.max-batch"), TR_OPTION_MAX_BATCH);
    assert_int_equal(tr_options_find_key("scheduler.max_batc"), TR_OPTION_COUNT);
    assert_true(tr_options_is_section("handoff"));
    assert_false(tr_options_is_section("hand"));
    assert_false(tr_options_is_section(""));
}

static void test_sizes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"4096", 4096},    {"64K", 65536},     {"2M", 2 << 20},
                {"1GiB", 1 << 30}, {"3g", 3ull << 30}, {"1T", 1ull << 40}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(tr_options_set_key(&o, TR_SOURCE_FLAG, "scheduler.kv_memory", good[i].text, "--set", &err),
                         TR_OK);
        assert_int_equal(tr_options_u64(&o, TR_OPTION_KV_MEMORY), good[i].bytes);
    }
    static const char *const bad[] = {"", "-1", "1X", "1KK", "M", "99999999999T", "1.5G", "18446744073709551616"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(tr_options_set_key(&o, TR_SOURCE_FLAG, "scheduler.kv_memory", bad[i], "--set", &err),
                         TR_CONFIG);
}

static void test_faults(void **state) {
    (void)state;
    assert_fails("m --chnk 3", TR_USAGE, "did you mean --chunk?");
    assert_fails("m --zzzzzzzz", TR_USAGE, "--help lists them");
    assert_fails("m --json", TR_USAGE, "no option of troupe run");
    assert_fails("m -n", TR_USAGE, "needs a value");
    assert_fails("m -n -5", TR_USAGE, "not a whole number");
    assert_fails("m -n 99999999999999999999", TR_USAGE, "out of range");
    assert_fails("m --temp 1e999", TR_USAGE, "not a number");
    assert_fails("m --temp 101", TR_USAGE, "out of range");
    assert_fails("m -ngl 99", TR_UNAVAILABLE, "GPUs");
    assert_fails("m --tp-size=2", TR_USAGE, "use --decode tp=N");
    assert_fails("m --decode pp=2,xx=1", TR_CONFIG, "the keys of decode are pp, tp, dtype, kv, page, layers");
    assert_fails("m --decode foo=1", TR_CONFIG, "the keys of decode are");
    assert_fails("m --decode tq=1", TR_CONFIG, "did you mean 'decode.tp'?");
    assert_fails("m --set handoff.on_failur=x", TR_CONFIG, "did you mean 'handoff.on_failure'?");
    assert_fails("m --n 3", TR_USAGE, "did you mean -n?");
    assert_fails("m --n=3", TR_USAGE, "did you mean -n?");
    assert_fails("m --z 3", TR_USAGE, "--help lists them");
    assert_fails("m --decode dtype=fp16", TR_UNAVAILABLE, "not available yet");
    assert_fails("m --decode tp=65", TR_CONFIG, "out of range");
    assert_fails("m --decode dtype=fp99", TR_CONFIG, "not one of bf16|int8");
    assert_fails("m --decode layers=", TR_USAGE, "key=value");
    assert_fails("m --decode layers=1::2", TR_CONFIG, "list of numbers");
    assert_fails("m --set decode=3", TR_CONFIG, "is a section");
    assert_fails("m --set x", TR_USAGE, "key=value");
    assert_fails("a b c", TR_USAGE, "one argument too many");
}

static void test_stop_texts(void **state) {
    (void)state;
    assert_int_equal(parse("m --stop a --stop b"), TR_OK);
    assert_int_equal(o.n_stops, 2);
    assert_string_equal(o.stop[1], "b");
    assert_fails(
        "m --stop 1 --stop 2 --stop 3 --stop 4 --stop 5 --stop 6 --stop 7 --stop 8 --stop 9 --stop 10 --stop 11 "
        "--stop 12 --stop 13 --stop 14 --stop 15 --stop 16 --stop 17",
        TR_USAGE, "at most 16");
}

static void test_commands(void **state) {
    (void)state;
    tr_command c;
    assert_int_equal(tr_options_command("serve", &c, &err), TR_OK);
    assert_int_equal(c, TR_COMMAND_SERVE);
    assert_int_equal(tr_options_command("serv", &c, &err), TR_USAGE);
    assert_non_null(strstr(err.text, "'serve'"));
    assert_int_equal(tr_options_command("trace", &c, &err), TR_UNAVAILABLE);
    /* What is to come is no advice. */
    assert_int_equal(tr_options_command("trce", &c, &err), TR_USAGE);
    assert_null(strstr(err.text, "'trace'"));
}

static char *help_of(tr_command command) {
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    tr_options_print_help(out, command);
    fclose(out);
    return text;
}

/* Two columns of at most 100 characters; every option that works, and only those. */
static void test_help(void **state) {
    (void)state;
    for (int command = 0; command < TR_COMMAND_COUNT; command++) {
        char *text = help_of((tr_command)command), *save = NULL, name[64];
#define X(ID, key, flag, letter, type, min, max, now, dflt, values, arg, commands, help)                               \
    snprintf(name, sizeof name, " %s", flag);                                                                          \
    if ((commands) & (1u << command))                                                                                  \
        if (!strstr(text, name) != (strstr(help, "not available yet") != NULL)) fail_msg("%s in\n%s", flag, text);
        TR_OPTIONS(X)
#undef X
        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
            size_t n = strlen(line);
            if (n > 100 || line[n - 1] == ' ') fail_msg("'%s' is too long or ends in a blank", line);
            if (strncmp(line, "      ", 6) != 0) continue;
            size_t at = strspn(line, " ");
            if (line[at] != '-' && at != 39) fail_msg("'%s' does not stand in its column", line);
        }
        free(text);
    }
    char *run = help_of(TR_COMMAND_RUN), *serve = help_of(TR_COMMAND_SERVE);
    assert_non_null(strstr(run, "[run-PID]"));
    assert_null(strstr(serve, "run-PID"));
    assert_non_null(strstr(serve, "eight full contexts"));
    free(run);
    free(serve);
}

static void test_no_flag_twice(void **state) {
    (void)state;
    for (int command = 0; command < TR_COMMAND_COUNT; command++) {
        char letters[256] = {0};
        tr_options_fini(&o);
        tr_options_init(&o, (tr_command)command);
#define X(ID, key, flag, letter, type, min, max, now, dflt, values, arg, commands, help)                               \
    if (((commands) & (1u << command)) && (letter)) {                                                                  \
        if (letters[(unsigned char)(letter)]++) fail_msg("-%c twice", (letter));                                       \
    }
        TR_OPTIONS(X)
#undef X
    }
}

static void test_document(void **state) {
    (void)state;
    char *text = NULL, *kept = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    tr_options_print_docs(out);
    fclose(out);
    FILE *f = fopen("docs/options.md", "r");
    assert_non_null(f);
    kept = calloc(1, n + 2);
    assert_non_null(kept);
    size_t have = fread(kept, 1, n + 1, f);
    fclose(f);
    if (have != n || memcmp(kept, text, n) != 0)
        fail_msg("docs/options.md differs from the table: write it anew with troupe --print-options");
    free(text);
    free(kept);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, clean)
    const struct CMUnitTest tests[] = {
        TEST(test_defaults),      TEST(test_forms_of_a_flag),
        TEST(test_sides),         TEST(test_order_of_sources),
        TEST(test_kebab_case),    TEST(test_sizes),
        TEST(test_faults),        TEST(test_stop_texts),
        TEST(test_commands),      TEST(test_help),
        TEST(test_no_flag_twice), TEST(test_document),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
