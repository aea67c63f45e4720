/* Packed vocabularies. The input is a file whose check sum is set right first, since a sum that is wrong refuses
 * everything: what the tables say must then be refused with a one-line reason, or be harmless to use. Seeds: packed
 * vocabularies of both families with model hash 77. */
#include "base/status.h"
#include "fuzz_encode.h"
#include "fuzz_target.h"
#include "model/tokenizer_file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "ab  aaa\n\n12 don't \xc3\xa9\xe4\xb8\xad\xff<s></s> \xe2\x96\x81<|im_end|>";
    uint8_t *file = aligned_alloc(64, (size + 64) / 64 * 64);
    tr_tokenizer *t = NULL;
    tr_error err = {0};
    tr_check(file != NULL);
    memcpy(file, data, size);
    tr_tokenizer_file_seal(file, size);
    tr_status s = tr_tokenizer_file_view(file, size, "input", 77, &t, &err);
    if (s == TR_OK)
        fuzz_encode(t, text, sizeof text - 1);
    else
        tr_check(s == TR_DATA && err.text[0] != 0 && strchr(err.text, '\n') == NULL);
    tr_tokenizer_destroy(&t);
    free(file);
    return 0;
}
