/* transport/codec.h - messages of transport/schema.h to and from msgpack maps.
 * Encode: msgpack-c's packer into the caller's buffer; zero values are left out. Decode: our own bounded cursor, made
 * for hostile input: a count is believed only as far as bytes are left, nesting ends at 8, every number and length
 * obeys the schema, text is valid UTF-8, a key comes once, unknown keys are skipped. Integers may have any msgpack
 * width; an f32 or real may be an integer, float or double, finite, an f32 not negative; a u32 of bound 1 may be a
 * boolean. Memory: no heap. Strings of a decoded message are views into its buffer, lists lie in the arena: both must
 * outlive it. Errors: TR_PROTO malformed or out of bounds; TR_EXHAUSTED lists larger than the arena; encode: TR_INVALID
 * the message breaks the schema, TR_EXHAUSTED the buffer is too small. Outputs are set only on TR_OK. Threads: any, no
 * state. */
#ifndef TR_CODEC_H
#define TR_CODEC_H
#include "base/status.h"
#include "transport/schema.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Fixed memory for the lists of one message at a time (reset before the next). Borrows mem. */
typedef struct tr_codec_arena {
    uint8_t *mem; /* NULL: no lists can be decoded */
    size_t cap, used;
} tr_codec_arena;

/* Bytes that suffice for any message whose token lists have at most max_tokens and whose span list max_spans entries.
 */
size_t tr_codec_arena_bytes(uint32_t max_tokens, uint32_t max_spans);
void tr_codec_arena_init(tr_codec_arena *a, void *mem, size_t bytes);
static inline void tr_codec_arena_reset(tr_codec_arena *a) { a->used = 0; }

/* Bytes that encoding m takes at most. */
size_t tr_codec_size_bound(const tr_msg *m);
/* Bytes that any message of the type takes at most when its token lists have at most max_tokens and its span list
 * max_spans entries: the record_max of a link. */
size_t tr_codec_type_bound(tr_msg_type type, uint32_t max_tokens, uint32_t max_spans);
tr_status tr_codec_encode(const tr_msg *m, void *buf, size_t cap, size_t *len_out);
tr_status tr_codec_decode(const void *buf, size_t len, tr_codec_arena *arena, tr_msg *out, tr_error *err);

/* What can be told of a message that did not decode: its type (TR_MSG_NONE: unknown) and the number under "id" (0:
 * none), so that the sender gets an error under its own id. */
void tr_codec_peek(const void *buf, size_t len, tr_msg_type *type_out, uint64_t *id_out);

/* "step epoch=1 step=7 spans=[3] tokens=[12]": numbers, lengths of prompts and lists, never their content. Cut to cap;
 * returns s. */
const char *tr_codec_log(const tr_msg *m, char *s, size_t cap);

/* Valid UTF-8 (no surrogates, no overlong forms, at most U+10FFFF; NUL is allowed). */
bool tr_codec_utf8_valid(const char *s, size_t len);

#endif
