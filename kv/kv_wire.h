/* kv/kv_wire.h - records of KV between nodes: tiles of one layer and kv head in the format of the destination.
 * A record is a head of 64 bytes, one CRC32C a tile (filled up to a line), then whole tiles (kernels/kv_page.h) of
 * positions [pos, pos + n_tok) in rising order; bytes of a tile that belong to none of these positions are zero.
 * It names what it carries, never where it goes: the receiver finds pages in its own tables. A tile whose CRC does not
 * match is asked for again by itself; the head has a CRC of its own. Pure: checks and arithmetic, no heap. */
#ifndef TR_KV_WIRE_H
#define TR_KV_WIRE_H
#include "base/status.h"
#include "kv/kv_layout.h"

#include <stdbool.h>

enum { TR_KV_WIRE_KIND = 3, TR_KV_WIRE_TILES_MAX = 32, TR_KV_WIRE_BYTES = 128 << 10 };

typedef struct tr_kv_wire_head {
    uint32_t kind; /* TR_KV_WIRE_KIND */
    uint32_t epoch;
    uint64_t job;
    uint32_t layer, kv_head;
    uint32_t pos, n_tok;
    uint32_t format, tile_bytes;
    uint32_t repair; /* 1: one tile, sent again */
    uint32_t crc;    /* of the head with this 0, and of the list of CRCs */
    uint32_t reserved[4];
} tr_kv_wire_head;
_Static_assert(sizeof(tr_kv_wire_head) == 64, "head of a KV record");

/* Tiles of one record at most, and bytes of the largest record, for a destination of that layout. */
uint32_t tr_kv_wire_tiles(const tr_kv_layout *l);
size_t tr_kv_wire_record_max(const tr_kv_layout *l);
/* Tiles that positions [pos, pos + n_tok) touch; bytes of their record. */
uint32_t tr_kv_wire_count(uint32_t pos, uint32_t n_tok);
size_t tr_kv_wire_record_bytes(const tr_kv_layout *l, uint32_t pos, uint32_t n_tok);
static inline uint32_t *tr_kv_wire_crcs(void *record) { return (uint32_t *)record + 16; }
uint8_t *tr_kv_wire_tile(const tr_kv_layout *l, void *record, uint32_t i);
/* Sender: all tiles are in place; fill in CRCs and the head. */
void tr_kv_wire_seal(const tr_kv_layout *l, void *record, const tr_kv_wire_head *head);
/* Receiver: shape and head are sound for this layout. TR_PROTO: not to be believed. */
tr_status tr_kv_wire_check(const tr_kv_layout *l, const void *record, size_t bytes, tr_kv_wire_head *head_out);
bool tr_kv_wire_tile_sound(const tr_kv_layout *l, const void *record, uint32_t i);
#endif
