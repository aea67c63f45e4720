#include "transport/codec.h"

#include <stdbool.h>
#include <string.h>

/* Well-formed sequences: Unicode Standard, table 3-7. Returns the length of the one at p, 0 if malformed. */
static size_t sequence(const uint8_t *p, size_t left) {
    uint8_t a = p[0];
    if (a < 0x80) return 1;
    size_t n = a >= 0xc2 && a <= 0xdf ? 2 : a >= 0xe0 && a <= 0xef ? 3 : a >= 0xf0 && a <= 0xf4 ? 4 : 0;
    if (n == 0 || n > left) return 0;
    uint8_t lo = a == 0xe0 ? 0xa0 : a == 0xf0 ? 0x90 : 0x80;
    uint8_t hi = a == 0xed ? 0x9f : a == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < lo || p[1] > hi) return 0;
    for (size_t i = 2; i < n; i++)
        if (p[i] < 0x80 || p[i] > 0xbf) return 0;
    return n;
}

bool tr_codec_utf8_valid(const char *s, size_t len) {
    const uint8_t *p = (const uint8_t *)s;
    size_t i = 0;
    while (i < len) {
        uint64_t word;
        if (len - i >= 8 && (memcpy(&word, p + i, 8), (word & 0x8080808080808080ull) == 0)) {
            i += 8;
            continue;
        }
        size_t n = sequence(p + i, len - i);
        if (n == 0) return false;
        i += n;
    }
    return true;
}
