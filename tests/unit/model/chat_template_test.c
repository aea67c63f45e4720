/* Named templates, what a request may set, and what is refused. */
#include "model/chat_template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static tr_error err;

static char *chat(const char *name, const char *messages, const char *arguments, tr_status want) {
    tr_chat_template *t = NULL;
    assert_int_equal(tr_chat_template_open(name, strlen(name), "<bos>", "<eos>", &t, &err), TR_OK);
    json_t *m = json_loads(messages, 0, NULL), *a = arguments ? json_loads(arguments, 0, NULL) : NULL;
    assert_non_null(m);
    char *text = NULL;
    size_t len;
    tr_chat_template_input in = {.messages = m, .arguments = a, .add_generation_prompt = true};
    assert_int_equal(tr_chat_template_render(t, &in, &text, &len, &err), want);
    json_decref(m);
    json_decref(a);
    tr_chat_template_close(&t);
    return text;
}

static void expect(const char *name, const char *messages, const char *want) {
    char *text = chat(name, messages, NULL, TR_OK);
    assert_string_equal(text, want);
    free(text);
}

#define TALK                                                                                                           \
    "[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"    \
    "\"Hi\"}]},{\"role\":\"assistant\",\"content\":\"Yo\"},{\"role\":\"user\",\"content\":\"Bye\"}]"

static void named(void **state) {
    (void)state;
    expect("gemma", TALK,
           "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nYo<end_of_turn>\n"
           "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n");
    expect(
        "chatml", TALK,
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n");
    expect("llama3", TALK,
           "<bos><|start_header_id|>system<|end_header_id|>\n\nBe "
           "brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
           "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nYo<|eot_id|><|start_header_id|>user"
           "<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    expect("qwen", "[{\"role\":\"user\",\"content\":\"Hi\"}]",
           "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
           "<|im_start|>assistant\n");
}

static void arguments(void **state) {
    (void)state;
    char *text =
        chat("{{ bos_token }}{{ enable_thinking }}{{ eos_token }}", TALK, "{\"enable_thinking\":false}", TR_OK);
    assert_string_equal(text, "<bos>False<eos>");
    free(text);
    assert_null(chat("{{ messages }}", TALK, "{\"messages\":[]}", TR_USAGE));
    assert_non_null(strstr(err.text, "'messages'"));
    assert_null(chat("{{ tools }}", TALK, "{\"bos_token\":\"\"}", TR_USAGE));
    assert_null(chat("{{ tools }}", TALK, "[]", TR_USAGE));
}

static void refused(void **state) {
    (void)state;
    static const char *const broken[] = {"{}", "[]", "[1]", "[{\"content\":\"x\"}]", "[{\"role\":1}]", "[null]"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        assert_null(chat("chatml", broken[i], NULL, TR_USAGE));
        assert_non_null(strstr(err.text, "messages"));
    }
    assert_null(chat("{{ raise_exception('roles must alternate') }}", TALK, NULL, TR_DATA));
    assert_non_null(strstr(err.text, "roles must alternate"));
    tr_chat_template *t = NULL;
    assert_int_equal(tr_chat_template_open("{% if %}", 8, "", "", &t, &err), TR_DATA);
    assert_null(t);
    assert_int_equal(tr_chat_template_open("\xff\xfe", 2, "", "", &t, &err), TR_DATA);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(named), cmocka_unit_test(arguments), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
