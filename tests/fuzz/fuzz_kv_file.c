/* Saved sequences. What is accepted is a fixed point of the header, and its tiles fill the file exactly. */
#include "fuzz_target.h"
#include "kv/kv_file.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tr_kv_file f;
    tr_error err = {0};
    tr_status s = tr_kv_file_check(data, size, &f, &err);
    if (s != TR_OK) {
        tr_check(s == TR_DATA && err.status == s && err.text[0] != 0);
        return 0;
    }
    uint8_t header[TR_KV_FILE_HEADER];
    tr_kv_file_encode(&f, header);
    tr_check(tr_kv_file_bytes(&f) == size && memcmp(header + 8, data + 8, 40) == 0);
    tr_kv_file_walk w;
    tr_kv_file_tile tile;
    uint64_t n = 0;
    tr_kv_file_walk_init(&w, &f);
    for (; tr_kv_file_walk_next(&w, &tile); n++) tr_check(tile.n >= 1 && tile.t0 + tile.n <= TR_KV_TILE_TOK);
    tr_check(tr_kv_file_head_bytes(&f) + n * (tr_kv_tile_bytes((tr_kv_format)f.format, f.head_dim) + 8) + 8 == size);
    return 0;
}
