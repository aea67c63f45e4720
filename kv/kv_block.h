/* kv/kv_block.h - KV outside of a company, prefix by prefix: what a store on a server keeps, and under which name.
 * A block is TR_KV_TILE_TOK positions of all layers and kv heads of one group, complete, as tiles of kernels/kv_page.h:
 * no page size, stage or rank is in it, so any topology writes and reads it. Its name holds the identity (everything
 * that the bits depend on: the arithmetic of the path that wrote them, weights, KV format, shape) and the hash of the
 * chain: root(tenant), then the 16 tokens of every block up to this one. The hash is BLAKE2b-256, because companies and
 * tenants that do not know each other share the names; keyed where there is a secret, so that the server can neither
 * guess prompts from names nor make a block that is believed.
 * value: header, u32 CRC-32C of each tile, up to a multiple of 64 bytes, tiles [layer of the group][kv head], with a
 * secret a MAC of all that, 32 bytes. Numbers are little-endian.
 * Nothing of a value is believed: the header must be, byte for byte, the one that was expected (length, version,
 * identity, chain, group, position, tokens), then the CRCs, then the MAC. Without a secret a server that wants to can
 * replace the cells of a block by others; with one it cannot.
 * Pure: memory of the caller, no heap. Threads: any. */
#ifndef TR_KV_BLOCK_H
#define TR_KV_BLOCK_H
#include "base/status.h"
#include "kv/kv_layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TR_KV_BLOCK_VERSION = 1,
    TR_KV_BLOCK_HASH = 32,
    TR_KV_BLOCK_HEADER = 192,
    TR_KV_BLOCK_NAME = 128,       /* longest name and its 0 */
    TR_KV_BLOCK_MAX = 64 << 20,   /* bytes of a value at most */
    TR_KV_BLOCK_SECRET_LEAST = 16 /* bytes of a secret, 64 at most */
};

typedef struct tr_kv_block_hash {
    uint8_t b[TR_KV_BLOCK_HASH];
} tr_kv_block_hash;

/* What gives the same bits in two companies, beside the shape of the layout. */
typedef struct tr_kv_block_maker {
    uint64_t model_hash;                 /* content of the model: weights and tokenizer */
    uint32_t image_version, ops_version; /* of the packed weights; of the definitions of kernels/ops.h */
    uint32_t precision;                  /* of the path that writes */
    uint32_t calibration_crc;            /* of a calibrated KV format; else 0 */
} tr_kv_block_maker;

/* Blocks of one pool. Fields are private. */
typedef struct tr_kv_block_kind {
    const tr_kv_layout *layout; /* borrowed */
    tr_kv_block_hash identity;
    uint32_t secret_bytes;
    uint8_t secret[64];
} tr_kv_block_kind;

/* secret: NULL and 0 for none. TR_CONFIG: a block would be larger than TR_KV_BLOCK_MAX, or the secret is too short or
 * too long. */
tr_status tr_kv_block_init(tr_kv_block_kind *k, const tr_kv_layout *layout, const tr_kv_block_maker *maker,
                           const uint8_t *secret, uint32_t secret_bytes, tr_error *err);
/* Hash of what a client calls its tenant; all zero for none. */
void tr_kv_block_tenant(const void *name, size_t bytes, uint8_t out[TR_KV_BLOCK_HASH]);
/* The chain of a prompt: its beginning, and one block further. */
void tr_kv_block_root(const tr_kv_block_kind *k, const uint8_t tenant[TR_KV_BLOCK_HASH], tr_kv_block_hash *out);
void tr_kv_block_next(const tr_kv_block_kind *k, const tr_kv_block_hash *parent, const uint32_t tokens[TR_KV_TILE_TOK],
                      tr_kv_block_hash *out);
/* Name of the block that the chain ends with. Returns its length. */
uint32_t tr_kv_block_name(const tr_kv_block_kind *k, const tr_kv_block_hash *chain, uint32_t group,
                          char out[TR_KV_BLOCK_NAME]);

/* Where a value belongs. */
typedef struct tr_kv_block_place {
    uint32_t group, pos; /* position of its first token */
    const tr_kv_block_hash *chain;
    const uint32_t *tokens; /* [TR_KV_TILE_TOK] */
} tr_kv_block_place;

size_t tr_kv_block_bytes(const tr_kv_block_kind *k, uint32_t group);
/* Tile of a layer of the group (model layer) and kv head inside a value. */
uint8_t *tr_kv_block_tile(const tr_kv_block_kind *k, uint8_t *value, uint32_t layer, uint32_t kv_head);
/* All tiles are in place: fill in the rest of value[tr_kv_block_bytes]. */
void tr_kv_block_seal(const tr_kv_block_kind *k, const tr_kv_block_place *at, uint8_t *value);
/* TR_DATA: it is not that block, or not whole; the text says what is wrong. value is aligned to 8 bytes. */
tr_status tr_kv_block_check(const tr_kv_block_kind *k, const tr_kv_block_place *at, const uint8_t *value, size_t bytes,
                            tr_error *err);

/* First position of a group that must be there where a prefix [0, end) is to be gone on from: what a query at end sees,
 * from the beginning of its page. */
uint32_t tr_kv_block_first(const tr_kv_layout *l, uint32_t group, uint32_t end);
/* The longest prefix, in whole pages of the layout and at most `most` positions, of which there is all that must be.
 * there[g][i]: block i of group g is. */
uint32_t tr_kv_block_usable(const tr_kv_layout *l, const bool *const there[TR_KV_GROUPS_MAX], uint32_t most);
#endif
