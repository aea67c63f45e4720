#include "base/siphash.h"

#include <string.h>

static uint64_t rotate(uint64_t x, unsigned by) { return x << by | x >> (64 - by); }

static void rounds(uint64_t v[4], int n) {
    for (int i = 0; i < n; i++) {
        v[0] += v[1], v[1] = rotate(v[1], 13) ^ v[0], v[0] = rotate(v[0], 32);
        v[2] += v[3], v[3] = rotate(v[3], 16) ^ v[2];
        v[0] += v[3], v[3] = rotate(v[3], 21) ^ v[0];
        v[2] += v[1], v[1] = rotate(v[1], 17) ^ v[2], v[2] = rotate(v[2], 32);
    }
}

static void take(uint64_t v[4], uint64_t word) {
    v[3] ^= word;
    rounds(v, 2);
    v[0] ^= word;
}

uint64_t tr_siphash(tr_siphash_key key, const void *data, size_t bytes) {
    uint64_t v[4] = {key.k[0] ^ 0x736f6d6570736575, key.k[1] ^ 0x646f72616e646f6d, key.k[0] ^ 0x6c7967656e657261,
                     key.k[1] ^ 0x7465646279746573};
    const uint8_t *p = data;
    uint64_t word, last = (uint64_t)bytes << 56;
    for (size_t left = bytes; left >= 8; left -= 8, p += 8) {
        memcpy(&word, p, 8);
        take(v, word);
    }
    for (size_t i = 0; i < bytes % 8; i++) last |= (uint64_t)p[i] << (8 * i);
    take(v, last);
    v[2] ^= 0xff;
    rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
