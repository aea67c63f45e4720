#include "base/blake2b.h"

#include "base/status.h"

#include <string.h>

static const uint64_t iv[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
                               0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};
static const uint8_t sigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

static uint64_t rotate(uint64_t x, int n) { return x >> n | x << (64 - n); }

#define MIX(a, b, c, d, x, y)                                                                                          \
    do {                                                                                                               \
        v[a] += v[b] + (x);                                                                                            \
        v[d] = rotate(v[d] ^ v[a], 32);                                                                                \
        v[c] += v[d];                                                                                                  \
        v[b] = rotate(v[b] ^ v[c], 24);                                                                                \
        v[a] += v[b] + (y);                                                                                            \
        v[d] = rotate(v[d] ^ v[a], 16);                                                                                \
        v[c] += v[d];                                                                                                  \
        v[b] = rotate(v[b] ^ v[c], 63);                                                                                \
    } while (0)

static void compress(tr_blake2b *b, const uint8_t *block, uint64_t last) {
    uint64_t v[16], m[16];
    memcpy(m, block, sizeof m); /* little-endian machines alone */
    for (int i = 0; i < 8; i++) {
        v[i] = b->h[i];
        v[i + 8] = iv[i];
    }
    v[12] ^= b->bytes;
    v[14] ^= last;
    for (int r = 0; r < 12; r++) {
        const uint8_t *s = sigma[r % 10];
        MIX(0, 4, 8, 12, m[s[0]], m[s[1]]);
        MIX(1, 5, 9, 13, m[s[2]], m[s[3]]);
        MIX(2, 6, 10, 14, m[s[4]], m[s[5]]);
        MIX(3, 7, 11, 15, m[s[6]], m[s[7]]);
        MIX(0, 5, 10, 15, m[s[8]], m[s[9]]);
        MIX(1, 6, 11, 12, m[s[10]], m[s[11]]);
        MIX(2, 7, 8, 13, m[s[12]], m[s[13]]);
        MIX(3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; i++) b->h[i] ^= v[i] ^ v[i + 8];
}

void tr_blake2b_init(tr_blake2b *b, uint32_t out, const void *key, uint32_t key_bytes) {
    tr_check(out >= 1 && out <= TR_BLAKE2B_MAX && key_bytes <= TR_BLAKE2B_MAX);
    memset(b, 0, sizeof *b);
    memcpy(b->h, iv, sizeof iv);
    b->h[0] ^= 0x01010000 ^ key_bytes << 8 ^ out;
    b->out = out;
    if (key_bytes == 0) return;
    memcpy(b->block, key, key_bytes);
    b->have = TR_BLAKE2B_BLOCK; /* of the key alone, filled up with zeros */
}

/* The last block is compressed by end, so a full one waits until more comes. */
void tr_blake2b_add(tr_blake2b *b, const void *data, size_t bytes) {
    const uint8_t *from = data;
    while (bytes > 0) {
        if (b->have == TR_BLAKE2B_BLOCK) {
            b->bytes += TR_BLAKE2B_BLOCK;
            compress(b, b->block, 0);
            b->have = 0;
        }
        if (b->have == 0 && bytes > TR_BLAKE2B_BLOCK) {
            b->bytes += TR_BLAKE2B_BLOCK;
            compress(b, from, 0);
            from += TR_BLAKE2B_BLOCK;
            bytes -= TR_BLAKE2B_BLOCK;
            continue;
        }
        size_t room = TR_BLAKE2B_BLOCK - b->have, n = bytes < room ? bytes : room;
        memcpy(b->block + b->have, from, n);
        b->have += (uint32_t)n;
        from += n;
        bytes -= n;
    }
}

void tr_blake2b_end(tr_blake2b *b, uint8_t *result) {
    b->bytes += b->have;
    memset(b->block + b->have, 0, TR_BLAKE2B_BLOCK - b->have);
    compress(b, b->block, ~UINT64_C(0));
    memcpy(result, b->h, b->out);
}
