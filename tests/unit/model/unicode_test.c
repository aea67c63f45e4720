/* UTF-8 (every code point, every kind of broken sequence) and the class tables (counts of Unicode 15.1). */
#include "model/unicode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void test_every_point(void **state) {
    (void)state;
    for (uint32_t point = 0; point < TR_UNICODE_LIMIT; point++) {
        char text[TR_UNICODE_MAX_BYTES];
        size_t len = tr_unicode_encode(point, text), size = 0;
        assert_int_equal(len, point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4);
        assert_int_equal(tr_unicode_decode(text, len, &size), point);
        assert_int_equal(size, len);
        assert_int_equal(tr_unicode_lead_size((uint8_t)text[0]), len);
        assert_int_equal(tr_unicode_utf8_valid(text, len), point < 0xd800 || point > 0xdfff);
        if (len > 1) assert_false(tr_unicode_utf8_valid(text, len - 1));
    }
}

static void test_broken(void **state) {
    (void)state;
    /* text, what repair makes of it (? stands for U+FFFD) */
    static const char *const rows[][2] = {
        {"\x80", "?"},
        {"a\xff", "a?"},
        {"\xc3", "?"},
        {"\xe4\xb8", "??"},
        {"\xf0\x9f\x98", "???"},
        {"\xe4\xb8z", "??z"},
        {"\xc1\x81", "A"},                /* overlong: its value */
        {"\xe0\x80\xaf", "/"},            /* overlong */
        {"\xed\xa0\x80", "\xed\xa0\x80"}, /* surrogate: kept */
        {"\xf4\x90\x80\x80", "????"},     /* above U+10FFFF */
        {"\xf8\x88\x80\x80\x80", "?????"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char out[64], want[64];
        size_t n = 0, len = strlen(rows[i][0]);
        for (const char *p = rows[i][1]; *p != 0; p++) {
            if (*p != '?')
                want[n++] = *p;
            else
                n += tr_unicode_encode(TR_UNICODE_REPLACEMENT, want + n);
        }
        assert_false(tr_unicode_utf8_valid(rows[i][0], len));
        assert_int_equal(tr_unicode_repair(rows[i][0], len, out), n);
        assert_memory_equal(out, want, n);
    }
    assert_true(tr_unicode_utf8_valid("", 0));
    assert_true(tr_unicode_utf8_valid("a\0b", 3));
}

static void test_classes(void **state) {
    (void)state;
    int counts[4] = {0};
    for (uint32_t point = 0; point < TR_UNICODE_LIMIT; point++) counts[tr_unicode_class_of(point)]++;
    assert_int_equal(counts[TR_UNICODE_SPACE], 25);
    assert_int_equal(counts[TR_UNICODE_LETTER], 136726);
    assert_int_equal(counts[TR_UNICODE_NUMBER], 1831);
    static const struct {
        uint32_t point;
        tr_unicode_class cls;
    } rows[] = {
        {'a', TR_UNICODE_LETTER},     {'_', TR_UNICODE_OTHER},
        {'7', TR_UNICODE_NUMBER},     {0xb2, TR_UNICODE_NUMBER},
        {0x85, TR_UNICODE_SPACE},     {0x1c, TR_UNICODE_OTHER},
        {0x301, TR_UNICODE_OTHER},    {0x4e2d, TR_UNICODE_LETTER},
        {0x3000, TR_UNICODE_SPACE},   {0x2160, TR_UNICODE_NUMBER},
        {0x1f600, TR_UNICODE_OTHER},  {0x2ebf0, TR_UNICODE_LETTER}, /* new in 15.1 */
        {0x10d50, TR_UNICODE_OTHER},  /* a letter since 16.0 */ {0x10ffff, TR_UNICODE_OTHER},
        {0x110000, TR_UNICODE_OTHER},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (tr_unicode_class_of(rows[i].point) != rows[i].cls) fail_msg("U+%04X", rows[i].point);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_point), cmocka_unit_test(test_broken),
                                       cmocka_unit_test(test_classes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
