/* base/blake2b.h - BLAKE2b (RFC 7693): a hash that nobody can find collisions of, and, with a key, a message
 * authentication code. Why beside SipHash: names and contents that leave the company are seen and may be chosen by
 * others. Pure; bytes are read as little-endian words. No heap. Threads: any, one state each. */
#ifndef TR_BLAKE2B_H
#define TR_BLAKE2B_H
#include <stddef.h>
#include <stdint.h>

enum { TR_BLAKE2B_MAX = 64, TR_BLAKE2B_BLOCK = 128 };

typedef struct tr_blake2b {
    uint64_t h[8], bytes; /* bytes: taken so far, at most 2^64 - 1 */
    uint32_t out, have;   /* have: of block */
    uint8_t block[TR_BLAKE2B_BLOCK];
} tr_blake2b;

/* out: bytes of the result, 1 to 64. key: up to 64 bytes; key_bytes 0: a plain hash. */
void tr_blake2b_init(tr_blake2b *b, uint32_t out, const void *key, uint32_t key_bytes);
void tr_blake2b_add(tr_blake2b *b, const void *data, size_t bytes);
/* result[out]; the state is used up. */
void tr_blake2b_end(tr_blake2b *b, uint8_t *result);
#endif
