#include "actors/frontend/stop_match.h"

#include <string.h>

void tr_stop_match_init(tr_stop_match *m, const tr_str *stops, uint32_t n) {
    memset(m, 0, sizeof *m);
    for (uint32_t i = 0; i < n && m->n_stops < TR_MAX_STOPS; i++) {
        if (stops[i].len == 0 || stops[i].len > TR_MAX_STOP_BYTES) continue;
        memcpy(m->stop[m->n_stops], stops[i].data, stops[i].len);
        m->stop_len[m->n_stops++] = (uint16_t)stops[i].len;
    }
}

/* Could the held text still become a stop text? */
static bool begins_one(const tr_stop_match *m) {
    for (uint32_t i = 0; i < m->n_stops; i++)
        if (m->held <= m->stop_len[i] && memcmp(m->stop[i], m->text, m->held) == 0) return true;
    return false;
}

/* Length of the longest stop text that the held text ends with; 0: none. */
static uint32_t complete(const tr_stop_match *m) {
    uint32_t longest = 0;
    for (uint32_t i = 0; i < m->n_stops; i++) {
        uint32_t n = m->stop_len[i];
        if (n > longest && n <= m->held && memcmp(m->stop[i], m->text + m->held - n, n) == 0) longest = n;
    }
    return longest;
}

/* A byte at a time. The held text is the longest tail of all text that begins some stop text, so a stop text that is
 * complete lies in it as a whole, perhaps behind the begin of another one. */
size_t tr_stop_match_push(tr_stop_match *m, const char *text, size_t len, char *out) {
    size_t n_out = 0;
    for (size_t i = 0; i < len && !m->found; i++) {
        if (m->n_stops == 0) {
            out[n_out++] = text[i];
            continue;
        }
        m->text[m->held++] = text[i];
        while (m->held > 0 && !begins_one(m)) {
            out[n_out++] = m->text[0];
            memmove(m->text, m->text + 1, --m->held);
        }
        uint32_t n = complete(m);
        if (n == 0) continue;
        if (m->included) n = 0;
        memcpy(out + n_out, m->text, m->held - n);
        n_out += m->held - n;
        m->found = true;
        m->held = 0;
    }
    return n_out;
}

size_t tr_stop_match_flush(tr_stop_match *m, char *out) {
    size_t n = m->found ? 0 : m->held;
    memcpy(out, m->text, n);
    m->held = 0;
    return n;
}
