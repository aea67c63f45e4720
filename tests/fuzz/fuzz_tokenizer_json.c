/* tokenizer.json, and behind a NUL the tokenizer_config.json beside it: refused with a one-line reason, or a tokenizer
 * that is harmless to use. */
#include "base/status.h"
#include "fuzz_encode.h"
#include "fuzz_target.h"
#include "model/tokenizer.h"
#include "model/tokenizer_json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "ab  aaa\n\n12 don't e\xcc\x81\xc3\xa9\xe4\xb8\xad\xff<s></s> \xe2\x96\x81<|im_end|>";
    const uint8_t *nul = size > 0 ? memchr(data, 0, size) : NULL;
    const size_t len = nul ? (size_t)(nul - data) : size;
    const tr_tokenizer_json_text json = {len ? (const char *)data : "", len, "input"};
    const tr_tokenizer_json_text config = {nul ? (const char *)nul + 1 : NULL, nul ? size - len - 1 : 0, "config"};
    for (uint32_t rows = 0; rows <= 300; rows += 300) {
        tr_tokenizer *t = NULL;
        tr_error err = {0};
        tr_status s = tr_tokenizer_json_read(&json, &config, rows, &t, &err);
        if (s == TR_OK)
            fuzz_encode(t, text, sizeof text - 1);
        else
            tr_check(s == TR_DATA && err.text[0] != 0 && strchr(err.text, '\n') == NULL);
        tr_tokenizer_destroy(&t);
    }
    return 0;
}
