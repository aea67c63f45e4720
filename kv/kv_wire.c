#include "kv/kv_wire.h"

#include "base/checked.h"
#include "base/crc32c.h"

#include <string.h>

enum { LINE = 64 };

static size_t tile_bytes(const tr_kv_layout *l) { return tr_kv_tile_bytes(l->format, l->head_dim); }
static size_t list_bytes(uint32_t tiles) { return tr_align_up(tiles * sizeof(uint32_t), LINE); }

uint32_t tr_kv_wire_tiles(const tr_kv_layout *l) {
    size_t n = TR_KV_WIRE_BYTES / tile_bytes(l);
    return n < 1 ? 1 : n > TR_KV_WIRE_TILES_MAX ? TR_KV_WIRE_TILES_MAX : (uint32_t)n;
}

static size_t bytes_of(const tr_kv_layout *l, uint32_t tiles) {
    return sizeof(tr_kv_wire_head) + list_bytes(tiles) + tiles * tile_bytes(l);
}

size_t tr_kv_wire_record_max(const tr_kv_layout *l) { return bytes_of(l, tr_kv_wire_tiles(l)); }

uint32_t tr_kv_wire_count(uint32_t pos, uint32_t n_tok) {
    return (pos + n_tok - 1) / TR_KV_TILE_TOK - pos / TR_KV_TILE_TOK + 1;
}

size_t tr_kv_wire_record_bytes(const tr_kv_layout *l, uint32_t pos, uint32_t n_tok) {
    return bytes_of(l, tr_kv_wire_count(pos, n_tok));
}

static size_t tile_offset(const tr_kv_layout *l, const tr_kv_wire_head *h, uint32_t i) {
    return sizeof *h + list_bytes(tr_kv_wire_count(h->pos, h->n_tok)) + i * tile_bytes(l);
}

uint8_t *tr_kv_wire_tile(const tr_kv_layout *l, void *record, uint32_t i) {
    return (uint8_t *)record + tile_offset(l, record, i);
}

static uint32_t head_crc(const tr_kv_wire_head *head, const void *record) {
    tr_kv_wire_head h = *head;
    h.crc = 0;
    return tr_crc32c(tr_crc32c(0, &h, sizeof h), (const uint8_t *)record + sizeof h,
                     list_bytes(tr_kv_wire_count(h.pos, h.n_tok)));
}

void tr_kv_wire_seal(const tr_kv_layout *l, void *record, const tr_kv_wire_head *head) {
    tr_kv_wire_head h = *head;
    uint32_t tiles = tr_kv_wire_count(h.pos, h.n_tok), *crc = tr_kv_wire_crcs(record);
    h.kind = TR_KV_WIRE_KIND;
    h.format = l->format;
    h.tile_bytes = (uint32_t)tile_bytes(l);
    memcpy(record, &h, sizeof h);
    memset(crc, 0, list_bytes(tiles));
    for (uint32_t i = 0; i < tiles; i++) crc[i] = tr_crc32c(0, tr_kv_wire_tile(l, record, i), tile_bytes(l));
    h.crc = head_crc(&h, record);
    memcpy(record, &h, sizeof h);
}

tr_status tr_kv_wire_check(const tr_kv_layout *l, const void *record, size_t bytes, tr_kv_wire_head *head_out) {
    tr_kv_wire_head h;
    if (bytes < sizeof h) return TR_PROTO;
    memcpy(&h, record, sizeof h);
    const uint64_t context = (uint64_t)l->pages_per_seq * l->page_tok;
    bool sound = h.kind == TR_KV_WIRE_KIND && h.layer < l->n_layers && h.kv_head < l->n_kv_heads && h.n_tok > 0 &&
                 (uint64_t)h.pos + h.n_tok <= context && h.format == (uint32_t)l->format &&
                 h.tile_bytes == tile_bytes(l) && h.repair <= 1;
    if (!sound) return TR_PROTO;
    uint32_t tiles = tr_kv_wire_count(h.pos, h.n_tok);
    if (tiles > tr_kv_wire_tiles(l) || bytes != bytes_of(l, tiles) || h.crc != head_crc(&h, record)) return TR_PROTO;
    *head_out = h;
    return TR_OK;
}

bool tr_kv_wire_tile_sound(const tr_kv_layout *l, const void *record, uint32_t i) {
    uint32_t want;
    memcpy(&want, (const uint8_t *)record + sizeof(tr_kv_wire_head) + i * sizeof want, sizeof want);
    return want == tr_crc32c(0, (const uint8_t *)record + tile_offset(l, record, i), tile_bytes(l));
}
