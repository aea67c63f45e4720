/* CRC-32C: published check values, and the ways to compute it against each other. */
#include "base/crc32c.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* RFC 3720, appendix B.4, and the check value of the catalogue of CRCs. */
static void known_values(void **state) {
    (void)state;
    uint8_t zeros[32] = {0}, ones[32], up[32], down[32];
    memset(ones, 0xff, sizeof ones);
    for (int i = 0; i < 32; i++) up[i] = (uint8_t)i, down[i] = (uint8_t)(31 - i);
    assert_int_equal(tr_crc32c(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(tr_crc32c(0, zeros, 32), 0x8a9136aau);
    assert_int_equal(tr_crc32c(0, ones, 32), 0x62a8ab43u);
    assert_int_equal(tr_crc32c(0, up, 32), 0x46dd794eu);
    assert_int_equal(tr_crc32c(0, down, 32), 0x113fdb5cu);
    assert_int_equal(tr_crc32c(0, NULL, 0), 0);
}

/* Every length around the lanes, every alignment, and any cut into two: by tables, by instruction, in parts. */
static void all_ways_agree(void **state) {
    (void)state;
    enum { MOST = 3 * 3 * 1024 + 40 };
    static uint8_t bytes[MOST + 8];
    tr_rng rng = {.state = 7};
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)tr_rng_next(&rng);
    for (uint32_t i = 0; i < 3000; i++) {
        size_t n = i < 64 ? i : tr_rng_below(&rng, MOST), cut = tr_rng_below(&rng, n + 1);
        const uint8_t *p = bytes + tr_rng_below(&rng, 8);
        uint32_t want = tr_crc32c_tables(0, p, n);
        assert_int_equal(tr_crc32c(0, p, n), want);
        assert_int_equal(tr_crc32c(tr_crc32c(0, p, cut), p + cut, n - cut), want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_values), cmocka_unit_test(all_ways_agree)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
