/* base/siphash.h - SipHash-2-4 (Aumasson, Bernstein 2012): a keyed hash of short inputs. Who does not know the key can
 * neither foresee nor steer where an input lands. Pure; bytes are read as little-endian words. */
#ifndef TR_SIPHASH_H
#define TR_SIPHASH_H
#include <stddef.h>
#include <stdint.h>

typedef struct tr_siphash_key {
    uint64_t k[2];
} tr_siphash_key;

uint64_t tr_siphash(tr_siphash_key key, const void *data, size_t bytes);
#endif
