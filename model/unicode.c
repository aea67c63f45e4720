/* model/unicode.c - UTF-8 decoding (strict and lenient) and encoding. */
#include "model/unicode.h"

/* Bytes of the well-formed sequence at s (RFC 3629 table 3-7 of the Unicode standard), 0 when it is none. */
static size_t well_formed_size(const uint8_t *s, size_t len) {
    if (s[0] < 0x80) return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4) return 0;
    size_t size = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (len < size) return 0;
    uint8_t low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    uint8_t high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < size; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
    }
    return size;
}

bool tr_unicode_utf8_valid(const char *text, size_t len) {
    const uint8_t *s = (const uint8_t *)text;
    for (size_t i = 0; i < len;) {
        size_t size = well_formed_size(s + i, len - i);
        if (size == 0) return false;
        i += size;
    }
    return true;
}

uint32_t tr_unicode_decode(const char *text, size_t len, size_t *size_out) {
    static const uint8_t lead_bits[5] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    const uint8_t *s = (const uint8_t *)text;
    *size_out = 1;
    if (s[0] < 0x80) return s[0];
    size_t size = tr_unicode_lead_size(s[0]);
    if (s[0] < 0xc0 || s[0] > 0xf7 || len < size) return TR_UNICODE_REPLACEMENT;
    uint32_t point = s[0] & lead_bits[size];
    for (size_t i = 1; i < size; i++) {
        if ((s[i] & 0xc0) != 0x80) return TR_UNICODE_REPLACEMENT;
        point = (point << 6) | (s[i] & 0x3fu);
    }
    if (point >= TR_UNICODE_LIMIT) return TR_UNICODE_REPLACEMENT;
    *size_out = size;
    return point;
}

size_t tr_unicode_encode(uint32_t point, char out[TR_UNICODE_MAX_BYTES]) {
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    size_t size = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = size; i-- > 1; point >>= 6) out[i] = (char)(0x80 | (point & 0x3f));
    static const uint8_t lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(lead[size] | point);
    return size;
}

size_t tr_unicode_repair(const char *text, size_t len, char *out) {
    size_t written = 0;
    for (size_t i = 0; i < len;) {
        size_t size;
        uint32_t point = tr_unicode_decode(text + i, len - i, &size);
        written += tr_unicode_encode(point, out + written);
        i += size;
    }
    return written;
}
