/* Runs over several tiles are what token by token gives, for every pair of formats, and touch nothing else. */
#include "kernels/kv_convert.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { D_MAX = 320, TILES = 5, ROOM = TILES * 64 * D_MAX };

static uint8_t *buffer(void) {
    uint8_t *p = aligned_alloc(64, ROOM);
    assert_non_null(p);
    return p;
}

/* bf16 values of moderate size; as int8 tiles: any bytes, scales that are numbers. */
static void fill(tr_rng *r, uint8_t *tiles, tr_kv_format f, uint32_t d) {
    for (size_t i = 0; i < ROOM; i += 2) {
        uint16_t v = (uint16_t)(0x3c00 + tr_rng_below(r, 0x400) + (tr_rng_below(r, 2) << 15));
        memcpy(tiles + i, &v, 2);
    }
    for (uint32_t i = 0; f == TR_KV_INT8 && i < TILES; i++)
        for (uint32_t t = 0; t < 16; t++) {
            uint8_t *tile = tiles + i * tr_kv_tile_bytes(f, d);
            float k = (float)tr_rng_unit(r), v = (float)tr_rng_unit(r);
            memcpy(tile + tr_kv_int8_k_scale(d, t), &k, sizeof k);
            memcpy(tile + tr_kv_int8_v_scale(d, t), &v, sizeof v);
        }
}

static void one_run(const tr_ops *ops, tr_rng *r, uint8_t *src, uint8_t *got, uint8_t *want) {
    static const uint32_t dims[] = {16, 32, 48, 64, 128, 256, 320};
    const tr_kv_format from = tr_rng_below(r, 2) ? TR_KV_BF16 : TR_KV_INT8;
    const tr_kv_format to = tr_rng_below(r, 2) ? TR_KV_BF16 : TR_KV_INT8;
    const uint32_t d = dims[tr_rng_below(r, 7)], t0 = tr_rng_below(r, 2) ? 0 : (uint32_t)tr_rng_below(r, 16);
    const uint32_t n = 1 + (uint32_t)tr_rng_below(r, TILES * 16 - t0);
    float tmp[D_MAX] __attribute__((aligned(64)));
    fill(r, src, from, d);
    memset(got, 0x5a, ROOM);
    memset(want, 0x5a, ROOM);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t at = t0 + i;
        tr_kv_convert(ops, to, want + at / 16 * tr_kv_tile_bytes(to, d), at % 16, from,
                      src + at / 16 * tr_kv_tile_bytes(from, d), at % 16, 1, d, NULL, NULL, tmp);
    }
    tr_kv_convert_run(ops, to, got, from, src, t0, n, d, NULL, tr_rng_below(r, 2) ? src : NULL, tmp);
    tr_kv_convert_fence();
    assert_memory_equal(got, want, ROOM);
}

static void runs(void **state) {
    (void)state;
    tr_rng r = {7};
    uint8_t *src = buffer(), *got = buffer(), *want = buffer();
    tr_ops_thread_init();
    for (const tr_ops *const *set = tr_ops_available(); *set; set++)
        for (int i = 0; i < 300; i++) one_run(*set, &r, src, got, want);
    free(src);
    free(got);
    free(want);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(runs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
