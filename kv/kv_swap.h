/* kv/kv_swap.h - KV of a sequence in a swap space of its company: pure arithmetic, the same in every process.
 * An image holds the pages of one sequence as they lie, positions [tok_min of the group, end): u32 CRC-32C of each
 * tile, padded to 64 bytes, then the tiles of kernels/kv_page.h in the order [group][layer][kv head][tile]. It is only
 * read back into pools of the same layout, so tokens of a tile that the sequence does not have go with it. The CRC
 * begins with a number that is new for each image, so that what an earlier one left is not taken for this one. */
#ifndef TR_KV_SWAP_H
#define TR_KV_SWAP_H
#include "kv/kv_file.h"
#include "kv/kv_layout.h"

#include <stdint.h>

/* Bytes of an image, a multiple of 4096; 0: nothing is in it. tok_min: [n_groups], multiples of TR_KV_TILE_TOK. */
uint64_t tr_kv_swap_bytes(const tr_kv_layout *l, const uint32_t *tok_min, uint32_t end);
/* Offset of the first tile; n_tiles_out: how many there are. */
uint64_t tr_kv_swap_head_bytes(const tr_kv_layout *l, const uint32_t *tok_min, uint32_t end, uint64_t *n_tiles_out);
/* What tr_kv_file_walk needs to go over the tiles. */
void tr_kv_swap_describe(const tr_kv_layout *l, const uint32_t *tok_min, uint32_t end, tr_kv_file *out);
/* Begin of the CRCs of the image that a request wrote when it gave way for the n-th time. */
uint32_t tr_kv_swap_seed(uint64_t rid, uint32_t n);
#endif
