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

/* Does some stop text begin at text? whole: it is all there. */
static bool begins(const tr_stop_match *m, const char *text, size_t len, bool *whole) {
    bool partial = false;
    for (uint32_t i = 0; i < m->n_stops; i++) {
        size_t n = m->stop_len[i] < len ? m->stop_len[i] : len;
        if (memcmp(m->stop[i], text, n) != 0) continue;
        if (n == m->stop_len[i]) {
            *whole = true;
            return true;
        }
        partial = true;
    }
    *whole = false;
    return partial;
}

/* A byte at a time: the held text is the longest tail that begins some stop text. */
size_t tr_stop_match_push(tr_stop_match *m, const char *text, size_t len, char *out) {
    size_t n_out = 0;
    for (size_t i = 0; i < len && !m->found; i++) {
        if (m->n_stops == 0) {
            out[n_out++] = text[i];
            continue;
        }
        m->text[m->held++] = text[i];
        bool whole = false;
        while (m->held > 0 && !begins(m, m->text, m->held, &whole)) {
            out[n_out++] = m->text[0];
            memmove(m->text, m->text + 1, --m->held);
        }
        if (whole) {
            m->found = true;
            m->held = 0;
        }
    }
    return n_out;
}

size_t tr_stop_match_flush(tr_stop_match *m, char *out) {
    size_t n = m->found ? 0 : m->held;
    memcpy(out, m->text, n);
    m->held = 0;
    return n;
}
