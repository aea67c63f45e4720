/* actors/frontend/stop_match.h - ends a text before the stop text that is complete first, without ever showing a part
 * of one. Pure. Text that could still become a stop text is held back (at most the longest stop text less one byte).
 * Owns: nothing; the stop texts are copied in. */
#ifndef TR_STOP_MATCH_H
#define TR_STOP_MATCH_H
#include "transport/schema.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct tr_stop_match {
    uint32_t n_stops, held;
    uint16_t stop_len[TR_MAX_STOPS];
    char stop[TR_MAX_STOPS][TR_MAX_STOP_BYTES];
    char text[TR_MAX_STOP_BYTES]; /* held back */
    bool found;
    bool included; /* the stop text that is found is shown too; set by the caller */
} tr_stop_match;

/* Empty stop texts are ignored. */
void tr_stop_match_init(tr_stop_match *m, const tr_str *stops, uint32_t n);
/* Take text[0..len), write what may be shown to out (cap >= len + TR_MAX_STOP_BYTES). Returns the bytes written. After
 * found nothing more comes out. */
size_t tr_stop_match_push(tr_stop_match *m, const char *text, size_t len, char *out);
/* End of the text: what was held back (TR_MAX_STOP_BYTES of room). */
size_t tr_stop_match_flush(tr_stop_match *m, char *out);
#endif
