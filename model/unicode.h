/* model/unicode.h - UTF-8 and the three character classes that pre-tokenizers ask for.
 * Source: RFC 3629; Unicode 15.1 general categories L*, N* and the property White_Space (model/unicode_tables.c, made
 *         by tests/tools/make_unicode_tables.py).
 * Threads: any; no state. */
#ifndef TR_UNICODE_H
#define TR_UNICODE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum tr_unicode_class {
    TR_UNICODE_OTHER = 0, /* everything else, unassigned code points included */
    TR_UNICODE_LETTER = 1,
    TR_UNICODE_NUMBER = 2,
    TR_UNICODE_SPACE = 3,
} tr_unicode_class;

enum {
    TR_UNICODE_MAX_BYTES = 4, /* of one code point in UTF-8 */
    TR_UNICODE_REPLACEMENT = 0xfffd,
    TR_UNICODE_LIMIT = 0x110000,
};

/* True for RFC 3629 UTF-8: no overlong form, no surrogate, nothing above U+10FFFF. NUL is valid. O(len). */
bool tr_unicode_utf8_valid(const char *text, size_t len);

/* Code point at text[0..len), len > 0; *size_out gets the bytes it takes. Lenient as llama.cpp is: overlong forms and
 * surrogates decode to their value; anything else that is broken is U+FFFD of one byte. */
uint32_t tr_unicode_decode(const char *text, size_t len, size_t *size_out);
/* UTF-8 of a code point below TR_UNICODE_LIMIT; returns the bytes written. */
size_t tr_unicode_encode(uint32_t point, char out[TR_UNICODE_MAX_BYTES]);
/* Decode and encode again: what a byte-level tokenizer makes of invalid text. out holds 3 * len bytes. Returns bytes
 * written; equals the input where that is valid. */
size_t tr_unicode_repair(const char *text, size_t len, char *out);

/* Bytes of a character as its first byte claims (1 to 4); a stray continuation byte counts as 1. */
static inline size_t tr_unicode_lead_size(uint8_t lead) {
    return lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

extern const uint8_t tr_unicode_block_index[TR_UNICODE_LIMIT / 256];
extern const uint64_t tr_unicode_blocks[][8];

static inline tr_unicode_class tr_unicode_class_of(uint32_t point) {
    if (point >= TR_UNICODE_LIMIT) return TR_UNICODE_OTHER;
    uint64_t word = tr_unicode_blocks[tr_unicode_block_index[point >> 8]][(point >> 5) & 7];
    return (tr_unicode_class)((word >> (2 * (point & 31))) & 3);
}
#endif
