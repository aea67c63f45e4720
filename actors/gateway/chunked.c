#include "actors/gateway/chunked.h"

enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_TEXT, TRAILER_LF, LAST_LF, ENDED, BROKEN };
enum { DIGITS_MAX = 15 };

static int digit(char b) {
    if (b >= '0' && b <= '9') return b - '0';
    if (b >= 'a' && b <= 'f') return b - 'a' + 10;
    if (b >= 'A' && b <= 'F') return b - 'A' + 10;
    return -1;
}

static uint32_t after_size(tr_chunked *c, char b) {
    const int d = digit(b);
    if (d >= 0) {
        c->left = c->left * 16 + (uint64_t)d;
        return ++c->digits <= DIGITS_MAX ? SIZE : BROKEN;
    }
    if (c->digits == 0) return BROKEN;
    return b == '\r' ? SIZE_LF : b == ';' ? EXTENSION : BROKEN;
}

/* In a line that is passed over: no control characters but tabs. */
static uint32_t passed_over(char b, uint32_t here, uint32_t end) {
    return b == '\r' ? end : (unsigned char)b < ' ' && b != '\t' ? BROKEN : here;
}

static uint32_t next_line(tr_chunked *c) {
    const uint32_t state = c->left > 0 ? DATA : TRAILER;
    c->line = c->digits = 0;
    return state;
}

/* Any byte that is not of the body. */
static uint32_t after(tr_chunked *c, char b) {
    const uint32_t most = c->state >= TRAILER ? TR_CHUNKED_TRAILER_MAX : TR_CHUNKED_LINE_MAX;
    if (++c->line > most) return BROKEN;
    switch (c->state) {
    case SIZE: return after_size(c, b);
    case EXTENSION: return passed_over(b, EXTENSION, SIZE_LF);
    case SIZE_LF: return b == '\n' ? next_line(c) : BROKEN;
    case DATA_CR: return b == '\r' ? DATA_LF : BROKEN;
    case DATA_LF: c->line = 0; return b == '\n' ? SIZE : BROKEN;
    case TRAILER: return b == '\r' ? LAST_LF : passed_over(b, TRAILER_TEXT, BROKEN);
    case TRAILER_TEXT: return passed_over(b, TRAILER_TEXT, TRAILER_LF);
    case TRAILER_LF: return b == '\n' ? TRAILER : BROKEN;
    case LAST_LF: return b == '\n' ? ENDED : BROKEN;
    default: return BROKEN;
    }
}

tr_chunked_result tr_chunked_next(tr_chunked *c, const char **data, size_t *len, const char **piece,
                                  size_t *piece_len) {
    while (c->state != ENDED && c->state != BROKEN && *len > 0) {
        if (c->state == DATA) {
            const size_t n = c->left < *len ? (size_t)c->left : *len;
            *piece = *data, *piece_len = n;
            *data += n, *len -= n;
            c->left -= n;
            if (c->left == 0) c->state = DATA_CR;
            return TR_CHUNKED_PIECE;
        }
        c->state = after(c, **data);
        ++*data, --*len;
    }
    return c->state == ENDED ? TR_CHUNKED_END : c->state == BROKEN ? TR_CHUNKED_BAD : TR_CHUNKED_MORE;
}
