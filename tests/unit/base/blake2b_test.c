/* BLAKE2b against RFC 7693 and an independent implementation (hashlib of Python): plain and with keys, around the
 * borders of a block, and in pieces of any size. */
#include "base/blake2b.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Message byte i is 7 * i + bytes; key byte i is i. */
typedef struct vector {
    uint32_t key_bytes, bytes, out;
    const char *hex;
} vector;
static const vector vectors[] = {
    {0, 0, 64,
     "786a02f742015903c6c6fd852552d272912f4740e15847618a86e217f71f5419d25e1031afee585313896444934eb04b903a685b1448b755d"
     "5"
     "6f701afe9be2ce"},
    {0, 3, 32, "9facd640130c81e7f318a8d5c660bc1b0f5d03861ffbd4cc1358e0e904593c28"},
    {0, 128, 32, "0702c64922fb7635a1b799668a7e89ba9c5fe55ed7bd2fdecb001544073afad9"},
    {0, 129, 32, "490091b32bad7b3380c9e593d341bce9b73ff9d4ebcf0091ff932bdff7279897"},
    {64, 0, 32, "2fa9fbd9be36437de204e139e97d402bce68c828f43391608c891b5faed8a98a"},
    {32, 255, 32, "687ca7613d2027f7e04c46e2754d36e545859e1c5ca7dd49950fcf8f5f1e8c86"},
    {32, 256, 32, "d5cac66043954f7785946e87338cbc7b43d2aa0c2070deb906df66cf99d5a3fa"},
};

static void hash(const vector *v, uint32_t piece, uint8_t *out) {
    uint8_t key[64], message[256];
    tr_blake2b b;
    for (uint32_t i = 0; i < sizeof key; i++) key[i] = (uint8_t)i;
    for (uint32_t i = 0; i < v->bytes; i++) message[i] = (uint8_t)(7 * i + v->bytes);
    tr_blake2b_init(&b, v->out, key, v->key_bytes);
    for (uint32_t at = 0; at < v->bytes; at += piece)
        tr_blake2b_add(&b, message + at, v->bytes - at < piece ? v->bytes - at : piece);
    tr_blake2b_end(&b, out);
}

static void known_answers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        for (uint32_t piece = 1; piece <= 256; piece = piece * 2 + piece % 3) {
            uint8_t out[64];
            hash(&vectors[i], piece, out);
            for (uint32_t k = 0; k < vectors[i].out; k++) {
                const char digits[3] = {vectors[i].hex[2 * k], vectors[i].hex[2 * k + 1], 0};
                assert_int_equal(out[k], strtoul(digits, NULL, 16));
            }
        }
}

static void abc(void **state) {
    (void)state;
    static const uint8_t want[8] = {0xba, 0x80, 0xa5, 0x3f, 0x98, 0x1c, 0x4d, 0x0d}; /* RFC 7693, appendix A */
    uint8_t out[64];
    tr_blake2b b;
    tr_blake2b_init(&b, 64, NULL, 0);
    tr_blake2b_add(&b, "abc", 3);
    tr_blake2b_end(&b, out);
    assert_memory_equal(out, want, sizeof want);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_answers), cmocka_unit_test(abc)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
