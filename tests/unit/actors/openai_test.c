/* Requests of the OpenAI API: every parameter's bounds, types and neutral values; prompts, stop texts and salts; JSON
 * that is broken, deep, huge, doubled or random. What is refused gives an error JSON, whatever bytes came in. */
#include "actors/gateway/openai.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { C = TR_OPENAI_COMPLETION, H = TR_OPENAI_CHAT, BIG = 1 << 20 };

static tr_openai_request q;
static tr_openai_refusal why;

static void check_error_json(int status) {
    assert_int_equal(why.status, status);
    assert_true(why.message[0] != 0 && strlen(why.message) < sizeof why.message);
    char *text = tr_openai_error_json(&why);
    assert_non_null(text);
    json_t *root = json_loads(text, 0, NULL), *error = json_object_get(root, "error");
    assert_int_equal(json_object_size(error), 4);
    assert_string_equal(json_string_value(json_object_get(error, "message")), why.message);
    json_decref(root);
    free(text);
}

static bool parse_bytes(int kind, const char *body, size_t len) {
    memset(&why, 0, sizeof why);
    bool ok = tr_openai_parse((tr_openai_kind)kind, body, len, &q, &why);
    if (!ok) check_error_json(400);
    return ok;
}

static void ends(int kind, const char *body, bool want) {
    bool ok = parse_bytes(kind, body, strlen(body));
    tr_openai_free(&q);
    if (ok != want) fail_msg("%s: %s", body, ok ? "taken" : why.message);
}

/* A request with one more key. */
static const char *with(int kind, const char *name, const char *value) {
    static char body[8192];
    snprintf(body, sizeof body, "{%s,\"%s\":%s}",
             kind == C ? "\"prompt\":\"a\"" : "\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]", name, value);
    return body;
}

static void test_numbers(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int kinds;
        const char *good[4], *bad[6];
    } all[] = {
        {"max_tokens", C | H, {"0", "131072", "null"}, {"-1", "131073", "1.5", "\"1\"", "true", "[1]"}},
        {"max_completion_tokens", H, {"1", "131072", "null"}, {"0", "131073", "1.0", "{}"}},
        {"temperature", C | H, {"0", "100", "0.7", "null"}, {"-0.1", "100.1", "\"1\"", "true", "[]"}},
        {"top_p", C | H, {"0", "1", "0.5", "null"}, {"-1", "1.01", "false", "\"\""}},
        {"top_k", C | H, {"0", "2097152", "null"}, {"-1", "2097153", "1.0"}},
        {"seed", C | H, {"0", "9007199254740992", "null"}, {"-1", "9007199254740994", "0.5", "\"7\""}},
        {"n", C | H, {"1", "16", "null"}, {"0", "17", "-1", "1.0", "true", "4294967297"}},
        {"ignore_eos", C | H, {"true", "false", "null"}, {"0", "1", "\"true\""}},
        {"stream", C | H, {"true", "false", "null"}, {"0", "1", "\"true\"", "[]"}},
        {"echo", C, {"true", "false"}, {"1"}},
        {"add_generation_prompt", H, {"true", "false"}, {"1"}},
        {"best_of", C, {"1", "2", "16", "null"}, {"0", "17", "1.0", "true"}},
        {"min_p", C | H, {"0", "1", "0.1", "null"}, {"-0.1", "1.1", "\"0\"", "[]"}},
        {"presence_penalty", C | H, {"0", "-2", "2", "null"}, {"2.1", "-2.1", "\"0\""}},
        {"frequency_penalty", C | H, {"0", "-2.0", "2", "null"}, {"2.5", "-3", "{}"}},
        {"repetition_penalty", C | H, {"1", "0.01", "100", "null"}, {"0", "-1", "101"}},
        {"logprobs", C, {"0", "1", "20", "null"}, {"21", "-1", "true", "1.0"}},
        {"logprobs", H, {"true", "false", "null"}, {"1", "0", "\"true\""}},
        {"top_logprobs", H, {"0", "null"}, {"21", "-1", "true", "3"}}, /* 3: not without logprobs */
        {"min_tokens", C | H, {"0", "5", "131072", "null"}, {"-1", "131073", "1.5"}},
        {"skip_special_tokens", C | H, {"true", "false", "null"}, {"0", "1"}},
        {"include_stop_str_in_output", C | H, {"true", "false"}, {"1", "[]"}},
        {"stop_token_ids",
         C | H,
         {"[]", "[0]", "[1,2,3]", "null"},
         {"1", "[-1]", "[1.0]", "[\"1\"]", "{}", "[4294967295]"}},
        {"logit_bias",
         C | H,
         {"{}", "{\"7\":-100}", "{\"7\":1,\"8\":1.5}", "null"},
         {"[]", "{\"a\":1}", "{\"7\":101}", "{\"-7\":1}", "{\"7\":\"1\"}", "{\"99999999999\":1}"}},
        {"stream_options", C | H, {"null"}, {"{}", "7", "[]"}}, /* only of a stream */
        {"response_format", C | H, {"{\"type\":\"text\"}", "null"}, {"{\"type\":\"json_object\"}", "7"}},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        for (int kind = C; kind <= H; kind++) {
            bool known = false; /* else ignored */
            for (size_t k = 0; k < sizeof all / sizeof all[0]; k++)
                known |= (all[k].kinds & kind) && strcmp(all[k].name, all[i].name) == 0;
            if (known && !(all[i].kinds & kind)) continue; /* another row of that name says it */
            for (int k = 0; k < 4 && all[i].good[k]; k++) ends(kind, with(kind, all[i].name, all[i].good[k]), true);
            for (int k = 0; k < 6 && all[i].bad[k]; k++) {
                ends(kind, with(kind, all[i].name, all[i].bad[k]), !known);
                if (known) assert_string_equal(why.param, all[i].name);
            }
        }
}

static void test_values(void **state) {
    (void)state;
    static const char full[] =
        "{\"prompt\":[[1,2],\"b\"],\"model\":\"m\",\"max_tokens\":7,\"temperature\":0.5,\"top_p\":0.25,\"top_k\":40,"
        "\"seed\":9007199254740991,\"n\":3,\"best_of\":3,\"stop\":[\"x\",\"yz\"],\"stream\":true,\"echo\":true,"
        "\"ignore_eos\":true,\"cache_salt\":\"s\",\"stream_options\":{\"include_usage\":true},\"something_new\":[1]}";
    assert_true(parse_bytes(C, full, strlen(full)));
    assert_string_equal(q.model, "m");
    assert_int_equal(q.params.max_tokens, 7);
    assert_true(q.params.temperature == 0.5f && q.params.top_p == 0.25f);
    assert_int_equal(q.params.top_k, 40);
    assert_true(q.params.seed == 9007199254740991u);
    assert_int_equal(q.params.n, 3);
    assert_int_equal(q.params.n_stop, 2);
    assert_string_equal(q.params.stop[1], "yz");
    assert_string_equal(q.params.cache_salt, "s");
    assert_true(q.stream && q.echo && q.include_usage && q.has_max_tokens && q.params.ignore_eos);
    tr_openai_free(&q);

    assert_true(parse_bytes(H, with(H, "x", "1"), strlen(with(H, "x", "1"))));
    assert_true(q.params.temperature == 1 && q.params.top_p == 0);
    assert_int_equal(q.params.n, 1);
    assert_int_equal(q.params.n_stop, 0);
    assert_null(q.params.cache_salt);
    assert_string_equal(q.model, "");
    assert_true(!q.stream && !q.echo && !q.include_usage && !q.has_max_tokens && q.add_generation_prompt);
    tr_openai_free(&q);
    tr_openai_free(&q); /* again: nothing */

    ends(C, with(C, "best_of", "2,\"n\":2"), true);
    ends(C, with(C, "best_of", "3,\"n\":2"), true);
    ends(C, with(C, "best_of", "3,\"n\":2,\"stream\":true"), false);
    ends(C, with(C, "best_of", "2,\"n\":2,\"stream\":true"), true);
    ends(C, with(C, "logprobs", "1,\"echo\":true"), true);
    ends(C, with(C, "logprobs", "1,\"echo\":true,\"n\":2"), false);
    ends(C, with(C, "stream", "true,\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}"),
         true);
    ends(C, with(C, "stream", "true,\"stream_options\":{\"include_usage\":1}"), false);
    ends(C, with(C, "best_of", "1,\"n\":2"), false);
    ends(C, with(C, "model", "7"), false);
    ends(C, with(C, "model", "null"), true);
}

static void test_texts(void **state) {
    (void)state;
    char text[1024], long_text[512], stops[256] = "[\"x\"";
    memset(long_text, 'a', sizeof long_text);
    for (int i = 0; i < 2; i++) { /* of TR_MAX_STOP_BYTES and TR_MAX_SALT_BYTES, and one more */
        snprintf(text, sizeof text, "\"%.*s\"", TR_MAX_STOP_BYTES + i, long_text);
        ends(C, with(C, "stop", text), i == 0);
        snprintf(text, sizeof text, "\"%.*s\"", TR_MAX_SALT_BYTES + i, long_text);
        ends(H, with(H, "cache_salt", text), i == 0);
    }
    for (int i = 1; i < TR_MAX_STOPS; i++) strcat(stops, ",\"x\"");
    strcat(stops, "]");
    ends(C, with(C, "stop", stops), true);
    strcpy(stops + strlen(stops) - 1, ",\"x\"]");
    ends(C, with(C, "stop", stops), false);
    static const char *const good_stops[] = {"null", "[]", "\"x\"", "[\"x\",\"\\u00fc\"]"},
                             *const bad_stops[] = {"\"\"",   "[\"\"]",    "7",    "{}",         "[7]",
                                                   "[null]", "[[\"x\"]]", "true", "\"\\u0000\""},
                             *const bad_salts[] = {"\"\"", "7", "[]", "{}", "\"\\u0000\""};
    for (size_t i = 0; i < sizeof good_stops / sizeof good_stops[0]; i++) ends(C, with(C, "stop", good_stops[i]), true);
    for (size_t i = 0; i < sizeof bad_stops / sizeof bad_stops[0]; i++) ends(C, with(C, "stop", bad_stops[i]), false);
    for (size_t i = 0; i < sizeof bad_salts / sizeof bad_salts[0]; i++)
        ends(C, with(C, "cache_salt", bad_salts[i]), false);
}

static void test_prompts(void **state) {
    (void)state;
    static const char *const good[] = {"\"\"",         "\"a\"",       "[1]",        "[1,2,-3]",
                                       "[\"a\",\"\"]", "[[1],[2,3]]", "[[1],\"a\"]"},
                             *const bad[] = {"null",  "7",         "true",      "{}",        "[]",
                                             "[[]]",  "[1,\"a\"]", "[\"a\",1]", "[[\"a\"]]", "[[1],[]]",
                                             "[1.5]", "[null]",    "[[[1]]]"};
    char body[1024];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(body, sizeof body, "{\"prompt\":%s}", good[i]);
        ends(C, body, true);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(body, sizeof body, "{\"prompt\":%s}", bad[i]);
        ends(C, body, false);
        assert_string_equal(why.param, "prompt");
    }
    static const char *const bad_messages[] = {"null", "7", "true", "{}", "[]", "\"a\""};
    for (size_t i = 0; i < sizeof bad_messages / sizeof bad_messages[0]; i++) {
        snprintf(body, sizeof body, "{\"messages\":%s}", bad_messages[i]);
        ends(H, body, false);
        assert_string_equal(why.param, "messages");
    }
    for (int n = TR_OPENAI_PROMPTS_MAX; n <= TR_OPENAI_PROMPTS_MAX + 1; n++) {
        size_t at = (size_t)snprintf(body, sizeof body, "{\"prompt\":[\"a\"");
        for (int i = 1; i < n; i++) at += (size_t)snprintf(body + at, sizeof body - at, ",\"a\"");
        snprintf(body + at, sizeof body - at, "]}");
        ends(C, body, n == TR_OPENAI_PROMPTS_MAX);
    }
}

static const char *embed(const char *input, const char *more) {
    static char body[512];
    snprintf(body, sizeof body, "{\"input\":%s%s}", input, more);
    return body;
}

static void test_embeddings(void **state) {
    (void)state;
    static const char *const good[] = {"\"a\"", "[\"a\",\"b\"]", "[1,2]", "[[1],[2,3]]"}, *const bad[] = {
                                                                                              "null", "7",
                                                                                              "[]",   "[[]]",
                                                                                              "{}",   "[1,\"a\"]"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) ends(TR_OPENAI_EMBEDDING, embed(good[i], ""), true);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ends(TR_OPENAI_EMBEDDING, embed(bad[i], ""), false);
        assert_string_equal(why.param, "input");
    }
    ends(TR_OPENAI_EMBEDDING, embed("\"a\"", ",\"encoding_format\":\"base64\",\"dimensions\":4"), true);
    ends(TR_OPENAI_EMBEDDING, embed("\"a\"", ",\"encoding_format\":\"hex\""), false);
    ends(TR_OPENAI_EMBEDDING, embed("\"a\"", ",\"dimensions\":0"), false);
    const float v[2][3] = {{0.5f, -1, 0.25f}, {1, 0, 0}};
    const tr_openai_answer a = {.kind = TR_OPENAI_EMBEDDING, .id = "e", .model = "m"};
    for (int base64 = 0; base64 < 2; base64++) {
        char *text = tr_openai_embeddings_json(&a, v[0], 2, 3, base64, &(tr_openai_usage){.prompt = 4});
        assert_non_null(strstr(text, base64 ? "\"AAAAPwAAgL8AAIA+\"" : "[0.5,-1.0,0.25]"));
        assert_non_null(strstr(text, "\"total_tokens\":4"));
        free(text);
    }
}

/* Without a tokenizer tokens are named by their ids. */
static void test_logprobs(void **state) {
    (void)state;
    tr_openai_scores s = {.per = 2};
    const uint32_t ids[] = {5, 6}, first = 9;
    const float values[] = {-0.5f, -0.25f};
    uint32_t offset = 3;
    for (int i = 0; i < 100; i++) {
        assert_true(tr_openai_scores_add(&s, &first, NULL));
        assert_true(tr_openai_scores_add(&s, ids, values));
    }
    assert_true(s.n == 200 && s.n_known == 100 && s.sum == -50);
    s.n = 2;
    json_t *j = tr_openai_logprobs_json(TR_OPENAI_COMPLETION, &s, 0, NULL, &offset);
    char *text = json_dumps(j, JSON_COMPACT);
    assert_string_equal(text, "{\"tokens\":[\"token_id:9\",\"token_id:5\"],\"token_logprobs\":[null,-0.5],"
                              "\"top_logprobs\":[null,{\"token_id:6\":-0.25,\"token_id:5\":-0.5}],"
                              "\"text_offset\":[3,13]}");
    free(text);
    json_decref(j);
    j = tr_openai_logprobs_json(TR_OPENAI_CHAT, &s, 1, NULL, &offset);
    assert_int_equal(json_array_size(json_object_get(j, "content")), 1);
    const json_t *token = json_array_get(json_object_get(j, "content"), 0),
                 *top = json_object_get(token, "top_logprobs");
    assert_true(json_number_value(json_object_get(token, "logprob")) == -0.5);
    assert_string_equal(json_string_value(json_object_get(json_array_get(top, 0), "token")), "token_id:6");
    assert_int_equal(json_array_size(json_object_get(token, "bytes")), 10);
    json_decref(j);
    tr_openai_scores_free(&s);
}

static void test_broken_json(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "}",
                                      "[]",
                                      "null",
                                      "7",
                                      "\"a\"",
                                      "{\"prompt\":\"a\"",
                                      "{\"prompt\":\"a\"}}",
                                      "{'prompt':'a'}",
                                      "{\"prompt\":\"a\",}",
                                      "{\"prompt\":\"a\",\"prompt\":\"a\"}",
                                      "{\"prompt\":\"a\",\"n\":1,\"n\":1}",
                                      "{\"prompt\":\"a\",\"x\":{\"y\":1,\"y\":1}}",
                                      "{\"prompt\":\"\xff\"}",
                                      "{\"prompt\":\"\xed\xa0\x80\"}",
                                      "{\"prompt\":\"\\ud800\"}",
                                      "{\"prompt\":\"a\",\"seed\":99999999999999999999}",
                                      "{\"prompt\":\"a\",\"temperature\":1e999}",
                                      "{\"prompt\":\"a\",\"temperature\":NaN}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) ends(C, bad[i], false);
    static const char nul[] = "{\"prompt\":\"a\"}\0x";
    assert_false(parse_bytes(C, nul, sizeof nul - 1));
    tr_openai_free(&q);
}

/* Brackets and objects without an end, a long list, a long text: in time and without the stack's end. */
static void test_deep_and_huge(void **state) {
    (void)state;
    char *big = malloc(BIG + 64);
    assert_non_null(big);
    static const char *const units[] = {"[", "{\"a\":", "[{\"a\":"};
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        size_t at = (size_t)sprintf(big, "{\"prompt\":"), n = strlen(units[u]);
        for (; at + n < BIG; at += n) memcpy(big + at, units[u], n);
        assert_false(parse_bytes(C, big, at));
        tr_openai_free(&q);
    }
    size_t at = (size_t)sprintf(big, "{\"prompt\":[1");
    for (; at < BIG; at += 2) memcpy(big + at, ",1", 2);
    at += (size_t)sprintf(big + at, "]}");
    assert_true(parse_bytes(C, big, at));
    assert_true(json_array_size(q.prompt) > BIG / 3);
    tr_openai_free(&q);
    at = (size_t)sprintf(big, "{\"prompt\":\"");
    memset(big + at, 'x', BIG - at);
    sprintf(big + BIG, "\"}");
    assert_true(parse_bytes(C, big, BIG + 2));
    tr_openai_free(&q);
    free(big);
}

/* Random bytes, and a good request with some bytes changed. */
static void test_random(void **state) {
    (void)state;
    static const char good[] = "{\"prompt\":[\"a\",[1,2]],\"n\":2,\"best_of\":2,\"stop\":[\"x\"],\"temperature\":0.5,"
                               "\"stream\":true,\"cache_salt\":\"s\",\"messages\":[{\"role\":\"user\"}]}";
    tr_rng rng = {7};
    int taken = 0;
    for (int i = 0; i < 20000; i++) {
        char body[sizeof good];
        size_t len = sizeof good - 1;
        memcpy(body, good, len);
        if (i % 4 == 0) {
            len = tr_rng_next(&rng) % sizeof body;
            for (size_t k = 0; k < len; k++) body[k] = (char)tr_rng_next(&rng);
        } else
            for (uint64_t k = tr_rng_next(&rng) % 3; k < 3; k++)
                body[tr_rng_next(&rng) % len] = (i & 1) ? (char)tr_rng_next(&rng) : good[tr_rng_next(&rng) % len];
        bool ok = parse_bytes(i & 2 ? C : H, body, len);
        taken += ok;
        if (ok) {
            assert_true(q.params.n >= 1 && q.params.n <= TR_MAX_SAMPLES && q.params.n_stop <= TR_MAX_STOPS);
            assert_true(q.params.temperature >= 0 && q.params.temperature <= 100);
        }
        tr_openai_free(&q);
    }
    assert_true(taken > 100);
}

/* A message with a text from outside that is no UTF-8, or is cut inside a character, can still be told. */
static void test_refusals_are_text(void **state) {
    (void)state;
    static const char *const texts[] = {"\xff\xfe",         "\xed\xa0\x80", "\xc0\x80",
                                        "\xf4\x90\x80\x80", "a\xc3",        "\xe2\x82"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_false(tr_openai_refuse(&why, 404, "model", "", "the model '%s' is not here", texts[i]));
        check_error_json(404);
    }
    char wide[2 * TR_ERROR_TEXT_BYTES + 1];
    for (size_t i = 0; i < TR_ERROR_TEXT_BYTES; i++) memcpy(wide + 2 * i, "\xc3\xbc", 3);
    for (int shift = 0; shift < 2; shift++) {
        tr_openai_refuse(&why, 400, "", "", "%s%.*s", shift ? "a" : "", 2 * TR_ERROR_TEXT_BYTES, wide);
        check_error_json(400);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_numbers),     cmocka_unit_test(test_values),
                                       cmocka_unit_test(test_texts),       cmocka_unit_test(test_prompts),
                                       cmocka_unit_test(test_broken_json), cmocka_unit_test(test_deep_and_huge),
                                       cmocka_unit_test(test_random),      cmocka_unit_test(test_refusals_are_text),
                                       cmocka_unit_test(test_embeddings),  cmocka_unit_test(test_logprobs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
