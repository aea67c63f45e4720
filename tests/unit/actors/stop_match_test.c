/* Stop texts: the shown text ends before the first stop text, whatever the pieces it comes in, and nothing of a stop
 * text is ever shown. Checked against a search in the whole text. */
#include "actors/frontend/stop_match.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static tr_str str(const char *s) { return (tr_str){s, (uint32_t)strlen(s)}; }

/* Push text in the given pieces (size_of(i) bytes each); returns what was shown, flushed at the end. */
static size_t show(tr_stop_match *m, const char *text, size_t len, const size_t *piece, size_t n_pieces, char *out) {
    size_t shown = 0, at = 0;
    for (size_t i = 0; at < len; i++) {
        size_t n = piece[i % n_pieces];
        if (n > len - at) n = len - at;
        size_t got = tr_stop_match_push(m, text + at, n, out + shown);
        assert_true(got <= n + TR_MAX_STOP_BYTES);
        shown += got;
        at += n;
    }
    return shown + tr_stop_match_flush(m, out + shown);
}

/* First position where any stop text begins, the truth by search; len when none. The match that is complete first
 * decides: a stop text that ends earlier stops the text before one that began earlier but ends later. */
static size_t expected_end(const char *text, size_t len, const tr_str *stops, uint32_t n, bool *found) {
    *found = false;
    for (size_t end = 1; end <= len; end++) {
        size_t begin = SIZE_MAX;
        for (uint32_t i = 0; i < n; i++)
            if (stops[i].len > 0 && stops[i].len <= end &&
                memcmp(text + end - stops[i].len, stops[i].data, stops[i].len) == 0 && end - stops[i].len < begin)
                begin = end - stops[i].len;
        if (begin != SIZE_MAX) {
            *found = true;
            return begin;
        }
    }
    return len;
}

static void check(const char *text, const tr_str *stops, uint32_t n, const size_t *piece, size_t n_pieces) {
    char out[4096 + TR_MAX_STOP_BYTES];
    size_t len = strlen(text);
    assert_true(len < 4096);
    tr_stop_match m;
    tr_stop_match_init(&m, stops, n);
    bool found;
    size_t want = expected_end(text, len, stops, n, &found);
    size_t got = show(&m, text, len, piece, n_pieces, out);
    if (got != want || m.found != found || memcmp(out, text, want) != 0)
        fail_msg("'%s' stopped by '%.*s' (+%u): showed '%.*s', expected '%.*s', found %d/%d", text, (int)stops[0].len,
                 stops[0].data, n - 1, (int)got, out, (int)want, text, m.found, found);
}

static void hand_written(void **state) {
    (void)state;
    static const size_t one[] = {1}, three[] = {3}, all[] = {4096};
    static const struct {
        const char *text, *stop[3];
        uint32_t n;
    } rows[] = {
        {"hello world", {"world"}, 1},
        {"hello world", {"o w", "world"}, 2},
        {"hello world", {"nothing"}, 1},
        {"aaaaab", {"aab"}, 1},
        {"abababac", {"ababac"}, 1},
        {"abcabcabd", {"abcabd", "bcabcab"}, 2},
        {"xxxyyy", {"x"}, 1},
        {"ends with the begin of a sto", {"stop"}, 1},
        {"", {"stop"}, 1},
        {"first wins: ab abc", {"abc", "ab"}, 2},
        {"\xc3\xa9t\xc3\xa9 \xc3\xa0", {"\xc3\xa0"}, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        tr_str stops[3];
        for (uint32_t k = 0; k < rows[i].n; k++) stops[k] = str(rows[i].stop[k]);
        check(rows[i].text, stops, rows[i].n, one, 1);
        check(rows[i].text, stops, rows[i].n, three, 1);
        check(rows[i].text, stops, rows[i].n, all, 1);
    }
}

/* Two letters and short stop texts make every kind of overlap. */
static void random_texts(void **state) {
    (void)state;
    tr_rng rng = {.state = 20};
    for (int round = 0; round < 20000; round++) {
        char text[64], stop_text[4][8];
        tr_str stops[4];
        uint32_t n = 1 + tr_rng_next(&rng) % 4, len = tr_rng_next(&rng) % 63;
        for (uint32_t i = 0; i < len; i++) text[i] = "ab"[tr_rng_next(&rng) % 2];
        text[len] = 0;
        for (uint32_t k = 0; k < n; k++) {
            uint32_t m = 1 + tr_rng_next(&rng) % 6;
            for (uint32_t i = 0; i < m; i++) stop_text[k][i] = "ab"[tr_rng_next(&rng) % 2];
            stops[k] = (tr_str){stop_text[k], m};
        }
        size_t piece[5];
        for (int i = 0; i < 5; i++) piece[i] = 1 + tr_rng_next(&rng) % 7;
        check(text, stops, n, piece, 5);
    }
}

/* What is held back is never more than the longest stop text less a byte, and comes out at the end. */
static void holds_little(void **state) {
    (void)state;
    tr_str stop = str("stop here");
    tr_stop_match m;
    tr_stop_match_init(&m, &stop, 1);
    char out[TR_MAX_STOP_BYTES + 16];
    assert_int_equal(tr_stop_match_push(&m, "a stop her", 10, out), 2);
    assert_int_equal(m.held, 8);
    assert_int_equal(tr_stop_match_push(&m, "d", 1, out), 9);
    assert_memory_equal(out, "stop herd", 9);
    assert_int_equal(m.held, 0);
    assert_int_equal(tr_stop_match_push(&m, "stop", 4, out), 0);
    assert_int_equal(tr_stop_match_flush(&m, out), 4);
    assert_memory_equal(out, "stop", 4);
}

static void longest_and_odd_stops(void **state) {
    (void)state;
    char text[TR_MAX_STOP_BYTES + 1], out[2 * TR_MAX_STOP_BYTES + 2];
    memset(text, 'x', sizeof text);
    tr_str stops[3] = {{text, TR_MAX_STOP_BYTES}, {text, 0}, {text, TR_MAX_STOP_BYTES + 1}};
    tr_stop_match m;
    tr_stop_match_init(&m, stops, 3); /* the empty and the oversized one are left out */
    assert_int_equal(m.n_stops, 1);
    assert_int_equal(tr_stop_match_push(&m, text, TR_MAX_STOP_BYTES - 1, out), 0);
    assert_false(m.found);
    assert_int_equal(tr_stop_match_push(&m, "x", 1, out), 0);
    assert_true(m.found);
    assert_int_equal(tr_stop_match_push(&m, "more", 4, out), 0);
    assert_int_equal(tr_stop_match_flush(&m, out), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(hand_written), cmocka_unit_test(random_texts),
                                       cmocka_unit_test(holds_little), cmocka_unit_test(longest_and_odd_stops)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
