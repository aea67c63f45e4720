/* Templates: compile any bytes; what compiles is rendered with a small conversation under tight bounds. */
#include "base/status.h"
#include "fuzz_target.h"
#include "model/jinja.h"
#include "model/unicode.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char chat[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\"a\"},{\"role\":\"user\",\"content\":"
        "[{\"type\":\"text\",\"text\":\"\\u00fc\"}]},{\"role\":\"assistant\",\"content\":null,"
        "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1.5}}}]}],"
        "\"tools\":[{\"type\":\"function\"}],\"bos_token\":\"<s>\",\"add_generation_prompt\":true}";
    static json_t *context;
    if (!context) context = json_loads(chat, 0, NULL);
    tr_jinja_limits limits = {.steps = 20000, .depth = 200, .output_bytes = 1 << 16, .memory_bytes = 4 << 20};
    tr_jinja *t = NULL;
    tr_error err = {0};
    char *text = NULL;
    size_t len = 0;
    tr_status s = tr_jinja_compile((const char *)data, size, &t, &err);
    if (s == TR_OK) {
        s = tr_jinja_render(t, context, &limits, 1750000000, &text, &len, &err);
        if (s == TR_OK) tr_check(len <= limits.output_bytes && tr_unicode_utf8_valid(text, len) && text[len] == 0);
    }
    if (s != TR_OK) {
        tr_check(err.status == s && err.text[0] != 0 && strchr(err.text, '\n') == NULL);
        tr_check(text == NULL);
    }
    free(text);
    tr_jinja_free(&t);
    return 0;
}
