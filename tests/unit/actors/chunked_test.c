/* Bodies in chunks: every way of cutting the bytes gives the same body, what breaks a rule is bad wherever it is cut,
 * and random bytes end somewhere. */
#include "actors/gateway/chunked.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef struct outcome {
    tr_chunked_result result;
    size_t used, len;
    char body[8192];
} outcome;

/* In pieces of `cut` bytes. */
static outcome decode(const char *data, size_t len, size_t cut) {
    tr_chunked c = {0};
    outcome o = {.result = TR_CHUNKED_MORE};
    for (size_t at = 0; at < len && o.result == TR_CHUNKED_MORE; at += cut) {
        const char *p = data + at, *piece;
        size_t left = len - at < cut ? len - at : cut, n;
        const size_t given = left;
        while ((o.result = tr_chunked_next(&c, &p, &left, &piece, &n)) == TR_CHUNKED_PIECE) {
            assert_true(n > 0 && o.len + n <= sizeof o.body);
            memcpy(o.body + o.len, piece, n);
            o.len += n;
        }
        o.used += given - left;
        assert_true(o.result != TR_CHUNKED_MORE || left == 0);
    }
    return o;
}

static void good(void **state) {
    (void)state;
    static const struct {
        const char *data, *body;
    } all[] = {
        {"0\r\n\r\n", ""},
        {"5\r\nhello\r\n0\r\n\r\n", "hello"},
        {"5\r\nhello\r\n00006\r\n world\r\n0\r\n\r\n", "hello world"},
        {"A;name=value;x=\"y z\"\r\n0123456789\r\n0;end\r\n\r\n", "0123456789"},
        {"1\r\n\r\r\n1\r\n\n\r\n0\r\nTrailer: a\r\nother:\tb\r\n\r\n", "\r\n"},
        {"000000000000002\r\nab\r\n0\r\n\r\n", "ab"},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        for (size_t cut = 1; cut <= strlen(all[i].data); cut++) {
            char data[256];
            const size_t len = strlen(all[i].data);
            memcpy(data, all[i].data, len);
            memcpy(data + len, "GET", 3); /* of something else */
            const outcome o = decode(data, len + 3, cut);
            assert_int_equal(o.result, TR_CHUNKED_END);
            assert_int_equal(o.used, len);
            assert_int_equal(o.len, strlen(all[i].body));
            assert_memory_equal(o.body, all[i].body, o.len);
            for (size_t short_of = 0; short_of < len; short_of++)
                assert_int_equal(decode(data, short_of, cut).result, TR_CHUNKED_MORE);
        }
}

static void bad(void **state) {
    (void)state;
    static const char *const all[] = {
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "+1\r\n",
        " 1\r\n",
        "1 \r\n",
        "0x1\r\n",
        "1\n",
        "1\r1",
        ";a\r\n",
        "1\r\nab\r\n",
        "1\r\na\n",
        "1\r\na\rb",
        "0\r\n\n",
        "0\r\na: b\n",
        "0\r\na\x01\r\n",
        "1;\x01\r\n",
        "1;a\n",
        "0\r\n\r\r",
        "1000000000000000\r\n",
        "ffffffffffffffffffff\r\n",
        "0000000000000001\r\n",
        "\xef\xbb\xbf"
        "1\r\n",
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        for (size_t cut = 1; cut <= strlen(all[i]); cut++)
            if (decode(all[i], strlen(all[i]), cut).result != TR_CHUNKED_BAD) fail_msg("case %zu, cut %zu", i, cut);
}

static void bounds(void **state) {
    (void)state;
    char data[8192];
    for (int more = 0; more < 2; more++) {
        memset(data, 'a', sizeof data);
        memcpy(data, "0;", 2);
        memcpy(data + TR_CHUNKED_LINE_MAX - 2 + more, "\r\n\r\n", 4);
        assert_int_equal(decode(data, TR_CHUNKED_LINE_MAX + 2 + more, 7).result,
                         more ? TR_CHUNKED_BAD : TR_CHUNKED_END);
        memset(data, 'a', sizeof data);
        memcpy(data, "0\r\n", 3);
        memcpy(data + 3 + TR_CHUNKED_TRAILER_MAX - 4 + more, "\r\n\r\n", 4);
        assert_int_equal(decode(data, TR_CHUNKED_TRAILER_MAX + 3 + more, 7).result,
                         more ? TR_CHUNKED_BAD : TR_CHUNKED_END);
    }
    tr_chunked c = {0}; /* the largest size is no overflow, and no end */
    const char *p = "fffffffffffffff\r\nabc", *piece;
    size_t left = strlen(p), n;
    assert_int_equal(tr_chunked_next(&c, &p, &left, &piece, &n), TR_CHUNKED_PIECE);
    assert_int_equal(n, 3);
    assert_true(c.left == 0xffffffffffffffcull);
}

static void random_bytes(void **state) {
    (void)state;
    static const char letters[] = "0012afF\r\n\r\n;: \tx";
    tr_rng rng = {5};
    for (int round = 0; round < 20000; round++) {
        char data[64];
        const size_t len = tr_rng_below(&rng, sizeof data);
        for (size_t i = 0; i < len; i++) data[i] = letters[tr_rng_below(&rng, sizeof letters - 1)];
        const outcome whole = decode(data, len, 64), cut = decode(data, len, 1 + tr_rng_below(&rng, 5));
        assert_int_equal(whole.result, cut.result);
        assert_int_equal(whole.len, cut.len);
        assert_memory_equal(whole.body, cut.body, whole.len);
        if (whole.result != TR_CHUNKED_BAD) assert_int_equal(whole.used, cut.used);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(good), cmocka_unit_test(bad), cmocka_unit_test(bounds),
                                       cmocka_unit_test(random_bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
