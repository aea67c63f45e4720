/* The safetensors reader: open, find every tensor by name, read every byte of it. */
#include "base/status.h"
#include "fuzz_target.h"
#include "model/safetensors.h"

#include <string.h>

static volatile uint64_t sink; /* keeps reads that the optimizer would drop */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tr_safetensors *st;
    tr_error err = {0};
    tr_status s = tr_safetensors_open_buffer(data, size, "input", &st, &err);
    if (s != TR_OK) {
        tr_check(s == TR_DATA || s == TR_SYSTEM);
        tr_check(err.status == s && err.text[0] != 0 && strchr(err.text, '\n') == NULL);
        return 0;
    }
    uint64_t covered = 0, sum = 0;
    for (uint32_t i = 0; i < tr_safetensors_count(st); i++) {
        const tr_safetensors_tensor *t = tr_safetensors_at(st, i);
        tr_check(tr_safetensors_find(st, t->name) == t);
        for (uint64_t b = 0; b < t->bytes; b++) sum += t->data[b];
        covered += t->bytes;
    }
    tr_check(covered < size);
    sink += sum;
    tr_safetensors_close(&st);
    return 0;
}
