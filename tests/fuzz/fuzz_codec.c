/* Message decoder. What it accepts is a fixed point: encoded and decoded again it gives the same bytes. */
#include "base/status.h"
#include "fuzz_target.h"
#include "transport/codec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint64_t memory[2][1 << 16];
    tr_error err = {0};
    tr_msg m, again;
    tr_msg_type type;
    uint64_t id;
    tr_codec_arena arena[2];
    for (int i = 0; i < 2; i++) tr_codec_arena_init(&arena[i], memory[i], sizeof memory[i]);
    tr_codec_peek(data, size, &type, &id);
    tr_status s = tr_codec_decode(data, size, &arena[0], &m, &err);
    if (s != TR_OK) {
        tr_check((s == TR_PROTO || s == TR_EXHAUSTED) && err.status == s && err.text[0] != 0);
        return 0;
    }
    tr_check(type == m.type);
    char line[256];
    tr_check(strlen(tr_codec_log(&m, line, sizeof line)) < sizeof line);
    size_t bound = tr_codec_size_bound(&m), first = 0, second = 0;
    uint8_t *a = malloc(bound), *b = malloc(bound);
    tr_check(a && b);
    tr_check(tr_codec_encode(&m, a, bound, &first) == TR_OK);
    tr_check(tr_codec_decode(a, first, &arena[1], &again, &err) == TR_OK);
    tr_check(tr_codec_encode(&again, b, bound, &second) == TR_OK);
    tr_check(first == second && memcmp(a, b, first) == 0);
    free(a);
    free(b);
    return 0;
}
