/* model/detokenizer.c - a UTF-8 assembler behind tr_tokenizer_piece.
 * The piece is read into the end of the caller's buffer and assembled to its front: a byte becomes at most three bytes
 * of output, and the reader stays ahead of the writer because the piece starts 2/3 into the needed room. */
#include "model/detokenizer.h"
#include "model/unicode.h"

#include <string.h>

static const char replacement[] = "\xef\xbf\xbd";

void tr_detokenizer_init(tr_detokenizer *d, const tr_tokenizer *t, unsigned flags) {
    *d = (tr_detokenizer){.special = (flags & TR_DETOKENIZE_SPECIAL) != 0,
                          .strip = (flags & TR_DETOKENIZE_CONTINUE) == 0 && tr_tokenizer_strips_space(t)};
}

/* Held bytes (3 at most, one replacement in all) plus the piece, each byte of which may be replaced. */
static size_t room_for(size_t piece) { return 3 * piece + 3 + 3; }

size_t tr_detokenizer_bound(const tr_tokenizer *t) { return room_for(tr_tokenizer_max_piece(t)); }

/* May byte follow the held ones (Unicode table 3-7)? */
static bool continues(const tr_detokenizer *d, uint8_t byte) {
    uint8_t low = 0x80, high = 0xbf;
    if (d->n_held == 1) {
        if (d->held[0] == 0xe0) low = 0xa0;
        if (d->held[0] == 0xed) high = 0x9f;
        if (d->held[0] == 0xf0) low = 0x90;
        if (d->held[0] == 0xf4) high = 0x8f;
    }
    return byte >= low && byte <= high;
}

/* Take one byte; returns the bytes written to out: 0 to 4, or up to 6 when a broken beginning precedes a character. */
static size_t take(tr_detokenizer *d, uint8_t byte, char *out) {
    size_t n = 0;
    if (d->n_held > 0) {
        if (continues(d, byte)) {
            d->held[d->n_held++] = byte;
            if (d->n_held < tr_unicode_lead_size(d->held[0])) return 0;
            memcpy(out, d->held, d->n_held);
            n = d->n_held;
            d->n_held = 0;
            return n;
        }
        n = tr_detokenizer_flush(d, out);
    }
    if (byte < 0x80) {
        out[n++] = (char)byte;
    } else if (byte >= 0xc2 && byte <= 0xf4) {
        d->held[d->n_held++] = byte;
    } else {
        memcpy(out + n, replacement, 3);
        n += 3;
    }
    return n;
}

tr_status tr_detokenizer_push(tr_detokenizer *d, const tr_tokenizer *t, uint32_t id, char *out, size_t cap,
                              size_t *n_out) {
    size_t len = 0;
    tr_status status = tr_tokenizer_piece(t, id, d->special, NULL, 0, &len);
    if (status == TR_INVALID) return status;
    size_t room = room_for(len);
    if (cap < room) return TR_EXHAUSTED;
    char *piece = out + (room - len);
    status = tr_tokenizer_piece(t, id, d->special, piece, len, &len);
    if (status != TR_OK) return status;
    if (d->strip && len > 0 && piece[0] == ' ') {
        piece++;
        len--;
    }
    d->strip = false;
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char made[8];
        size_t size = take(d, (uint8_t)piece[i], made);
        memcpy(out + n, made, size);
        n += size;
    }
    *n_out = n;
    return TR_OK;
}

size_t tr_detokenizer_flush(tr_detokenizer *d, char *out) {
    if (d->n_held == 0) return 0;
    d->n_held = 0;
    memcpy(out, replacement, 3);
    return 3;
}
