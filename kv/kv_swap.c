#include "kv/kv_swap.h"

#include "base/checked.h"
#include "base/crc32c.h"

#include <string.h>

uint64_t tr_kv_swap_head_bytes(const tr_kv_layout *l, const uint32_t *tok_min, uint32_t end, uint64_t *n_tiles_out) {
    uint64_t tiles = 0; /* at most 128 layers of 1024 heads of 8192 tiles */
    for (uint32_t i = 0; i < l->n_layers; i++) {
        const uint32_t min = tok_min[l->layer_group[i]];
        if (min < end) tiles += (uint64_t)l->n_kv_heads * (tr_div_up(end, TR_KV_TILE_TOK) - min / TR_KV_TILE_TOK);
    }
    *n_tiles_out = tiles;
    return tr_align_up(tiles * sizeof(uint32_t), 64);
}

uint64_t tr_kv_swap_bytes(const tr_kv_layout *l, const uint32_t *tok_min, uint32_t end) {
    uint64_t tiles, head = tr_kv_swap_head_bytes(l, tok_min, end, &tiles);
    return tr_align_up(head + tiles * tr_kv_tile_bytes(l->format, l->head_dim), 4096);
}

void tr_kv_swap_describe(const tr_kv_layout *l, const uint32_t *tok_min, uint32_t end, tr_kv_file *out) {
    memset(out, 0, sizeof *out);
    tr_kv_file_shape(out, l);
    for (uint32_t g = 0; g < l->n_groups; g++) out->tok_min[g] = tok_min[g];
    out->n_kv = end;
}

uint32_t tr_kv_swap_seed(uint64_t rid, uint32_t n) {
    const uint64_t words[2] = {rid, n};
    return tr_crc32c(0, words, sizeof words);
}
