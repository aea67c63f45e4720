/* model/tokenizer_map.c - see the header. */
#include "model/tokenizer_map.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PROBES = 1024 }; /* at load factor <= 1/2 an honest vocabulary needs a few dozen */

static uint64_t fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Multiply-and-fold over 8-byte words (the scheme of wyhash). */
static uint64_t hash_bytes(const char *s, size_t n) {
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;
    for (; n > 8; s += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, s, 8);
        h = fold(h ^ word, 0xa0761d6478bd642fu);
    }
    uint64_t tail = 0;
    if (n >= 4) {
        uint32_t low, high;
        memcpy(&low, s, 4);
        memcpy(&high, s + n - 4, 4);
        tail = low | (uint64_t)high << 32;
    } else if (n > 0) {
        tail = (uint8_t)s[0] | (uint64_t)(uint8_t)s[n / 2] << 8 | (uint64_t)(uint8_t)s[n - 1] << 16;
    }
    return fold(h ^ tail, 0xe7037ed1a0b428dbu);
}

static bool slot_is(const tr_tokenizer_map *m, uint64_t slot, uint64_t hash, const char *text, size_t len) {
    if (slot >> 32 != hash >> 32) return false;
    tr_tokenizer_span span = m->spans[(uint32_t)slot - 1];
    return span.len == len && memcmp(m->bytes + span.offset, text, len) == 0;
}

tr_status tr_tokenizer_map_init(tr_tokenizer_map *m, const char *bytes, const tr_tokenizer_span *spans, uint32_t n) {
    uint64_t size = 16;
    while (size < 2 * (uint64_t)n) size *= 2;
    *m = (tr_tokenizer_map){.bytes = bytes, .spans = spans, .mask = size - 1};
    m->slots = calloc(size, sizeof *m->slots);
    return m->slots != NULL ? TR_OK : TR_SYSTEM;
}

void tr_tokenizer_map_fini(tr_tokenizer_map *m) {
    free(m->slots);
    *m = (tr_tokenizer_map){0};
}

tr_tokenizer_map_result tr_tokenizer_map_add(tr_tokenizer_map *m, uint32_t id, uint32_t *other_out) {
    const char *text = m->bytes + m->spans[id].offset;
    size_t len = m->spans[id].len;
    uint64_t hash = hash_bytes(text, len);
    for (uint64_t probe = 0; probe < MAX_PROBES; probe++) {
        uint64_t *slot = &m->slots[(hash + probe) & m->mask];
        if (*slot == 0) {
            *slot = (hash >> 32 << 32) | ((uint64_t)id + 1);
            return TR_TOKENIZER_MAP_ADDED;
        }
        if (slot_is(m, *slot, hash, text, len)) {
            *other_out = (uint32_t)*slot - 1;
            return TR_TOKENIZER_MAP_DUPLICATE;
        }
    }
    return TR_TOKENIZER_MAP_CROWDED;
}

uint32_t tr_tokenizer_map_find(const tr_tokenizer_map *m, const char *text, size_t len) {
    uint64_t hash = hash_bytes(text, len);
    for (uint64_t probe = 0; probe < MAX_PROBES; probe++) {
        uint64_t slot = m->slots[(hash + probe) & m->mask];
        if (slot == 0) return TR_TOKENIZER_MAP_NONE;
        if (slot_is(m, slot, hash, text, len)) return (uint32_t)slot - 1;
    }
    return TR_TOKENIZER_MAP_NONE;
}
