/* model/unicode_nfc.c - see the header. A text is cut into pieces that begin at a code point below U+0300 (none of
 * those joins what is in front of it, or is a mark), and each piece is normalized by itself; pieces of one such
 * character, which plain texts are made of, are copied. */
#include "model/unicode_nfc.h"

#include "model/unicode.h"
#include "model/unicode_nfc_tables.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_MARK = 0x300, MAX_PARTS = 4 };
/* Hangul syllables are arithmetic. */
enum { S = 0xac00, L = 0x1100, V = 0x1161, T = 0x11a7, NL = 19, NV = 21, NT = 28 };

/* Code points of a piece, each with its combining class above: class << 32 | point. */
typedef struct piece {
    uint64_t *at;
    size_t n, cap;
} piece;

static uint32_t point_of(uint64_t item) { return (uint32_t)(item & 0x1fffff); }
static uint32_t class_of(uint64_t item) { return (uint32_t)(item >> 56); }

/* Row of a table of rows of `columns` that begins with the point, or NULL. */
static const uint32_t *row(const uint32_t *table, size_t n, size_t columns, uint32_t point) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (table[mid * columns] < point)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && table[lo * columns] == point ? table + lo * columns : NULL;
}

static uint32_t combining(uint32_t point) {
    size_t lo = 0, hi = tr_unicode_n_marks;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (tr_unicode_marks[mid][1] < point)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < tr_unicode_n_marks && tr_unicode_marks[lo][0] <= point ? tr_unicode_marks[lo][2] : 0;
}

/* Only the first part of a pair decomposes further. Returns the number of parts. */
static size_t decompose(uint32_t point, uint32_t parts[MAX_PARTS]) {
    if (point >= S && point < S + NL * NV * NT) {
        const uint32_t i = point - S;
        parts[0] = L + i / (NV * NT), parts[1] = V + i % (NV * NT) / NT, parts[2] = T + i % NT;
        return i % NT ? 3 : 2;
    }
    uint32_t tail[MAX_PARTS];
    size_t n = 0;
    for (;;) {
        const uint32_t *one = row(tr_unicode_one[0], tr_unicode_ones, 2, point);
        const uint32_t *two = row(tr_unicode_two[0], tr_unicode_twos, 3, point);
        if ((!one && !two) || (two && n == MAX_PARTS - 1)) break;
        if (two) tail[n++] = two[2];
        point = one ? one[1] : two[1];
    }
    parts[0] = point;
    for (size_t i = 0; i < n; i++) parts[1 + i] = tail[n - 1 - i];
    return n + 1;
}

/* The composition of two, 0 where there is none. */
static uint32_t compose(uint32_t a, uint32_t b) {
    if (a >= L && a < L + NL && b >= V && b < V + NV) return S + ((a - L) * NV + (b - V)) * NT;
    if (a >= S && a < S + NL * NV * NT && (a - S) % NT == 0 && b > T && b < T + NT) return a + (b - T);
    size_t lo = 0, hi = tr_unicode_n_composing;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        const uint32_t *r = tr_unicode_two[tr_unicode_composing[mid]];
        if (r[1] < a || (r[1] == a && r[2] < b))
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == tr_unicode_n_composing) return 0;
    const uint32_t *r = tr_unicode_two[tr_unicode_composing[lo]];
    return r[1] == a && r[2] == b ? r[0] : 0;
}

static int by_value(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Stable order of the marks behind each starter by class. The place within the run goes into the key for the sort; a
 * run is no longer than 2^34. */
static void order(piece *p) {
    for (size_t i = 0; i < p->n;) {
        size_t end = i;
        bool sorted = true;
        for (; end < p->n && class_of(p->at[end]) != 0; end++)
            sorted = sorted && (end == i || class_of(p->at[end - 1]) <= class_of(p->at[end]));
        for (size_t k = i; k < end && !sorted; k++) p->at[k] |= (uint64_t)(k - i) << 21;
        if (!sorted) qsort(p->at + i, end - i, sizeof *p->at, by_value);
        i = end + 1;
    }
}

static void join(piece *p) {
    size_t starter = SIZE_MAX, n = 0;
    uint32_t last = 0; /* class of what stands before, behind the starter */
    for (size_t i = 0; i < p->n; i++) {
        const uint32_t cls = class_of(p->at[i]), point = point_of(p->at[i]);
        const bool next = starter != SIZE_MAX && n == starter + 1; /* nothing stands between */
        const uint32_t whole =
            starter != SIZE_MAX && (next || last < cls) ? compose(point_of(p->at[starter]), point) : 0;
        if (whole) {
            p->at[starter] = whole;
            continue;
        }
        if (cls == 0) starter = n;
        last = cls;
        p->at[n++] = p->at[i];
    }
    p->n = n;
}

static bool push(piece *p, uint32_t point) {
    uint32_t parts[MAX_PARTS];
    const size_t n = decompose(point, parts);
    if (p->n + n > p->cap) {
        const size_t cap = p->cap ? 2 * p->cap : 64;
        uint64_t *at = realloc(p->at, cap * sizeof *at);
        if (!at) return false;
        p->at = at;
        p->cap = cap;
    }
    for (size_t i = 0; i < n; i++) p->at[p->n++] = (uint64_t)combining(parts[i]) << 56 | parts[i];
    return true;
}

static size_t finish(piece *p, char *out) {
    size_t n = 0;
    order(p);
    join(p);
    for (size_t i = 0; i < p->n; i++) n += tr_unicode_encode(point_of(p->at[i]), out + n);
    p->n = 0;
    return n;
}

tr_status tr_unicode_nfc(const char *text, size_t len, char *out, size_t *n_out) {
    piece p = {NULL, 0, 0};
    size_t n = 0, size, ahead;
    bool room = true;
    for (size_t i = 0; i < len && room; i += size) {
        const uint32_t point = tr_unicode_decode(text + i, len - i, &size);
        if (point < FIRST_MARK) {
            n += finish(&p, out + n);
            if (i + size == len || tr_unicode_decode(text + i + size, len - i - size, &ahead) < FIRST_MARK) {
                memcpy(out + n, text + i, size); /* all of these are composed */
                n += size;
                continue;
            }
        }
        room = push(&p, point);
    }
    if (room) n += finish(&p, out + n);
    free(p.at);
    *n_out = n;
    return room ? TR_OK : TR_SYSTEM;
}
