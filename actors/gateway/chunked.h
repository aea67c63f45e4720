/* actors/gateway/chunked.h - bodies of HTTP/1.1 that come in chunks (RFC 9112, 7.1): bytes in, pieces of the body out.
 * Strict, since what another reader of the same bytes would take differently hides requests: line ends are CR LF, sizes
 * are 1 to 15 hexadecimal digits and nothing around them but an extension. Extensions and trailers are passed over
 * within bounds. Pure; no memory beyond the struct. */
#ifndef TR_CHUNKED_H
#define TR_CHUNKED_H
#include <stddef.h>
#include <stdint.h>

enum { TR_CHUNKED_LINE_MAX = 256, TR_CHUNKED_TRAILER_MAX = 4096 }; /* bytes of a size line, of all trailers */

typedef enum tr_chunked_result {
    TR_CHUNKED_MORE,  /* all bytes are used up */
    TR_CHUNKED_PIECE, /* piece and piece_len are set; call again */
    TR_CHUNKED_END,   /* the body is whole; what is left of the bytes does not belong to it */
    TR_CHUNKED_BAD    /* and for good */
} tr_chunked_result;

typedef struct tr_chunked { /* zero: at the beginning */
    uint32_t state;
    uint32_t line; /* bytes of the line, or of all trailers, so far */
    uint32_t digits;
    uint64_t left; /* of the chunk */
} tr_chunked;

/* Uses bytes from *data on, and moves it and *len. */
tr_chunked_result tr_chunked_next(tr_chunked *c, const char **data, size_t *len, const char **piece, size_t *piece_len);
#endif
