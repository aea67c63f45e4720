/* Values of a store. The first bytes choose the shape and the place; what is accepted is what a writer would write. */
#include "fuzz_target.h"
#include "kv/kv_block.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t secret[16] = "0123456789abcde";
    static const tr_kv_block_maker maker = {.model_hash = 7, .image_version = 1, .ops_version = 1, .precision = 1};
    const uint32_t pages[TR_KV_GROUPS_MAX] = {2, 2};
    tr_kv_model m = {.n_layers = 2, .n_kv_heads = 1, .head_dim = 16, .window = 20, .layer_is_global = {1, 0}};
    if (size < 2) return 0;
    tr_kv_layout l;
    tr_kv_block_kind k;
    tr_kv_block_hash chain;
    uint32_t tokens[TR_KV_TILE_TOK];
    tr_error err = {0};
    tr_check(tr_kv_layout_init(&l, &m, (tr_kv_format)(TR_KV_BF16 + data[0] % (TR_KV_FORMAT_END - 1)), 16, 1, 64, pages,
                               NULL) == TR_OK);
    tr_check(tr_kv_block_init(&k, &l, &maker, secret, data[0] & 64 ? sizeof secret : 0, NULL) == TR_OK);
    for (uint32_t i = 0; i < TR_KV_TILE_TOK; i++) tokens[i] = i;
    tr_kv_block_root(&k, (const uint8_t[TR_KV_BLOCK_HASH]){0}, &chain);
    const tr_kv_block_place at = {.group = data[1] % 2, .pos = 16, .chain = &chain, .tokens = tokens};
    data += 2;
    size -= 2;
    uint8_t *value = malloc(size + 1), *again = malloc(tr_kv_block_bytes(&k, at.group));
    memcpy(value, data, size);
    tr_status s = tr_kv_block_check(&k, &at, value, size, &err);
    if (s == TR_OK) {
        memcpy(again, value, size);
        tr_kv_block_seal(&k, &at, again);
        tr_check(memcmp(again, value, size) == 0);
    } else {
        tr_check(s == TR_DATA && err.status == s && err.text[0] != 0);
    }
    free(value);
    free(again);
    return 0;
}
