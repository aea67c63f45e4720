/* Names and values of what a store keeps: everything that the bits depend on changes the name, no value but the right
 * one is accepted, and a prefix is usable exactly where a walk over its definition says so. */
#include "kv/kv_block.h"

#include "base/crc32c.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t secret[32] = "a secret that nobody else knows";
static const tr_kv_block_maker maker = {
    .model_hash = 0x1234567890abcdef, .image_version = 2, .ops_version = 1, .precision = 1};

static tr_kv_layout layout_of(tr_kv_format format, uint32_t page_tok, uint32_t window, uint32_t n_layers) {
    tr_kv_model m = {.n_layers = n_layers, .n_kv_heads = 2, .head_dim = 16, .window = window};
    const uint32_t pages[TR_KV_GROUPS_MAX] = {8, 8};
    tr_kv_layout l;
    for (uint32_t i = 0; i < m.n_layers; i++) m.layer_is_global[i] = window == 0 || i % 3 == 0;
    assert_int_equal(tr_kv_layout_init(&l, &m, format, page_tok, 2, 512, pages, NULL), TR_OK);
    return l;
}

static void name_of(const tr_kv_layout *l, const tr_kv_block_maker *m, const char *tenant, const uint8_t *key,
                    const uint32_t *tokens, uint32_t blocks, char out[TR_KV_BLOCK_NAME]) {
    tr_kv_block_kind k;
    tr_kv_block_hash chain;
    uint8_t who[TR_KV_BLOCK_HASH];
    assert_int_equal(tr_kv_block_init(&k, l, m, key, key ? sizeof secret : 0, NULL), TR_OK);
    tr_kv_block_tenant(tenant, strlen(tenant), who);
    tr_kv_block_root(&k, who, &chain);
    for (uint32_t i = 0; i < blocks; i++) tr_kv_block_next(&k, &chain, tokens + i * TR_KV_TILE_TOK, &chain);
    const uint32_t n = tr_kv_block_name(&k, &chain, 0, out);
    assert_int_equal(n, strlen(out));
}

static void names(void **state) {
    (void)state;
    const tr_kv_layout l = layout_of(TR_KV_BF16, 16, 0, 4), pages = layout_of(TR_KV_BF16, 64, 0, 4);
    const tr_kv_layout other[] = {layout_of(TR_KV_INT8, 16, 0, 4), layout_of(TR_KV_BF16, 16, 40, 4),
                                  layout_of(TR_KV_BF16, 16, 0, 5)};
    uint32_t tokens[48];
    char name[24][TR_KV_BLOCK_NAME];
    uint32_t n = 0;
    for (uint32_t i = 0; i < 48; i++) tokens[i] = i * 7;
    name_of(&l, &maker, "", NULL, tokens, 2, name[n++]);
    name_of(&pages, &maker, "", NULL, tokens, 2, name[n]); /* a topology is no identity */
    assert_string_equal(name[0], name[n]);
    name_of(&l, &maker, "", NULL, tokens, 1, name[n++]);
    name_of(&l, &maker, "", NULL, tokens, 3, name[n++]);
    name_of(&l, &maker, "", NULL, tokens, 0, name[n++]);
    name_of(&l, &maker, "", secret, tokens, 2, name[n++]);
    name_of(&l, &maker, "me", NULL, tokens, 2, name[n++]);
    name_of(&l, &maker, "you", NULL, tokens, 2, name[n++]);
    for (uint32_t i = 0; i < 3; i++) name_of(&other[i], &maker, "", NULL, tokens, 2, name[n++]);
    tr_kv_block_maker m[5];
    for (uint32_t i = 0; i < 5; i++) m[i] = maker;
    m[0].model_hash ^= 1ull << 40;
    m[1].image_version++;
    m[2].ops_version++;
    m[3].precision++;
    m[4].calibration_crc++;
    for (uint32_t i = 0; i < 5; i++) name_of(&l, &m[i], "", NULL, tokens, 2, name[n++]);
    for (uint32_t at = 0; at < 32; at += 31) { /* the first and the last token */
        tokens[at]++;
        name_of(&l, &maker, "", NULL, tokens, 2, name[n++]);
        tokens[at]--;
    }
    for (uint32_t a = 0; a < n; a++)
        for (uint32_t b = 0; b < a; b++) assert_string_not_equal(name[a], name[b]);
    for (uint32_t a = 0; a < n; a++) assert_int_equal(strspn(name[a] + 9, "0123456789abcdef:"), strlen(name[a]) - 9);
}

static void limits(void **state) {
    (void)state;
    const tr_kv_layout l = layout_of(TR_KV_BF16, 16, 0, 4);
    tr_kv_block_kind k;
    tr_error err;
    assert_int_equal(tr_kv_block_init(&k, &l, &maker, secret, 15, &err), TR_CONFIG);
    assert_int_equal(tr_kv_block_init(&k, &l, &maker, secret, 65, &err), TR_CONFIG);
    tr_kv_layout huge = l;
    huge.n_kv_heads = 1 << 16;
    assert_int_equal(tr_kv_block_init(&k, &huge, &maker, NULL, 0, &err), TR_CONFIG);
}

static void one_value(const tr_kv_layout *l, uint32_t group, const uint8_t *key) {
    tr_kv_block_kind k;
    tr_kv_block_hash chain;
    uint32_t tokens[TR_KV_TILE_TOK];
    uint8_t who[TR_KV_BLOCK_HASH] = {0};
    tr_rng rng = {5};
    tr_error err;
    assert_int_equal(tr_kv_block_init(&k, l, &maker, key, key ? sizeof secret : 0, NULL), TR_OK);
    for (uint32_t i = 0; i < TR_KV_TILE_TOK; i++) tokens[i] = i;
    tr_kv_block_root(&k, who, &chain);
    tr_kv_block_next(&k, &chain, tokens, &chain);
    const tr_kv_block_place at = {.group = group, .pos = 32, .chain = &chain, .tokens = tokens};
    const size_t n = tr_kv_block_bytes(&k, group);
    uint8_t *value = malloc(n + 1), *again = malloc(n);
    for (size_t i = 0; i < n; i++) value[i] = (uint8_t)tr_rng_next(&rng);
    uint8_t *first = NULL, *end = NULL;
    for (uint32_t layer = 0; layer < l->n_layers; layer++)
        for (uint32_t h = 0; h < l->n_kv_heads && l->layer_group[layer] == group; h++) {
            uint8_t *tile = tr_kv_block_tile(&k, value, layer, h);
            assert_true(end == NULL || tile == end); /* in order, one after another */
            if (!first) first = tile;
            end = tile + tr_kv_tile_bytes(l->format, l->head_dim);
        }
    assert_int_equal((size_t)(first - value) % 64, 0);
    assert_int_equal((size_t)(value + n - end), key ? TR_KV_BLOCK_HASH : 0);
    memcpy(again, value, n);
    tr_kv_block_seal(&k, &at, value);
    assert_memory_equal(again + (first - value), first, (size_t)(end - first));
    assert_int_equal(tr_kv_block_check(&k, &at, value, n, &err), TR_OK);
    for (size_t i = 0; i < n; i++) { /* every bit counts */
        value[i] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(tr_kv_block_check(&k, &at, value, n, &err), TR_DATA);
        value[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t short_by = 1; short_by <= n; short_by += 1 + n / 40)
        assert_int_equal(tr_kv_block_check(&k, &at, value, n - short_by, &err), TR_DATA);
    assert_int_equal(tr_kv_block_check(&k, &at, value, n + 1, &err), TR_DATA);

    tr_kv_block_place wrong = at;
    tr_kv_block_hash chain2 = chain;
    uint32_t tokens2[TR_KV_TILE_TOK];
    chain2.b[31] ^= 1;
    memcpy(tokens2, tokens, sizeof tokens);
    tokens2[15]++;
    wrong.chain = &chain2;
    assert_int_equal(tr_kv_block_check(&k, &wrong, value, n, &err), TR_DATA);
    wrong = at;
    wrong.tokens = tokens2; /* as after a collision of the hash */
    assert_int_equal(tr_kv_block_check(&k, &wrong, value, n, &err), TR_DATA);
    assert_non_null(strstr(err.text, "tokens"));
    wrong = at;
    wrong.pos += 16;
    assert_int_equal(tr_kv_block_check(&k, &wrong, value, n, &err), TR_DATA);
    free(value);
    free(again);
}

static void values(void **state) {
    (void)state;
    for (tr_kv_format f = TR_KV_BF16; f < TR_KV_FORMAT_END; f++) {
        const tr_kv_layout l = layout_of(f, 32, 40, 4);
        for (uint32_t g = 0; g < l.n_groups; g++) {
            one_value(&l, g, NULL);
            one_value(&l, g, secret);
        }
    }
}

/* Whoever can write to the server but lacks the secret: right CRCs, other cells. */
static void forged(void **state) {
    (void)state;
    const tr_kv_layout l = layout_of(TR_KV_BF16, 16, 0, 2);
    tr_kv_block_kind own, open, other;
    uint8_t key[32];
    tr_kv_block_hash chain;
    const uint32_t tokens[TR_KV_TILE_TOK] = {1, 2, 3};
    tr_error err;
    memcpy(key, secret, sizeof key);
    key[3] ^= 1;
    assert_int_equal(tr_kv_block_init(&own, &l, &maker, secret, sizeof secret, NULL), TR_OK);
    assert_int_equal(tr_kv_block_init(&other, &l, &maker, key, sizeof key, NULL), TR_OK);
    assert_int_equal(tr_kv_block_init(&open, &l, &maker, NULL, 0, NULL), TR_OK);
    tr_kv_block_root(&own, (const uint8_t[TR_KV_BLOCK_HASH]){0}, &chain);
    const tr_kv_block_place at = {.group = 0, .pos = 0, .chain = &chain, .tokens = tokens};
    const size_t n = tr_kv_block_bytes(&own, 0);
    uint8_t *value = calloc(1, n);
    tr_kv_block_seal(&other, &at, value);
    assert_int_equal(tr_kv_block_check(&own, &at, value, n, &err), TR_DATA);
    assert_non_null(strstr(err.text, "secret"));
    tr_kv_block_seal(&open, &at, value);
    assert_int_equal(tr_kv_block_check(&own, &at, value, tr_kv_block_bytes(&open, 0), &err), TR_DATA);
    tr_kv_block_seal(&own, &at, value);
    assert_int_equal(tr_kv_block_check(&own, &at, value, n, &err), TR_OK);
    assert_int_equal(tr_kv_block_check(&open, &at, value, n, &err), TR_DATA);
    free(value);
}

/* A query at end sees positions (end - window, end]. */
static bool all_there(const tr_kv_layout *l, const bool *const there[], uint32_t end) {
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t pos = 0; pos < end; pos++) {
            const bool seen = l->group[g].window == 0 || pos + l->group[g].window > end;
            const uint32_t page = pos / l->page_tok;
            bool of_a_seen_page = seen;
            for (uint32_t q = page * l->page_tok; q < (page + 1) * l->page_tok; q++)
                of_a_seen_page |= q + l->group[g].window > end;
            if (of_a_seen_page && !there[g][pos / TR_KV_TILE_TOK]) return false;
        }
    return true;
}

static void usable(void **state) {
    (void)state;
    tr_rng rng = {11};
    for (uint32_t round = 0; round < 3000; round++) {
        const uint32_t page = 16u << tr_rng_below(&rng, 3),
                       window = (uint32_t)tr_rng_below(&rng, 2) * 20 + (uint32_t)tr_rng_below(&rng, 80);
        const tr_kv_layout l = layout_of(TR_KV_INT8, page, window, 4);
        bool there[TR_KV_GROUPS_MAX][20];
        const bool *const rows[TR_KV_GROUPS_MAX] = {there[0], there[1]};
        const uint32_t odds = 1 + (uint32_t)tr_rng_below(&rng, 30), most = (uint32_t)tr_rng_below(&rng, 320);
        for (uint32_t g = 0; g < TR_KV_GROUPS_MAX; g++)
            for (uint32_t i = 0; i < 20; i++) there[g][i] = tr_rng_below(&rng, odds) != 0 || odds > 28;
        uint32_t want = 0;
        for (uint32_t end = page; end <= most; end += page)
            if (all_there(&l, rows, end)) want = end;
        assert_int_equal(tr_kv_block_usable(&l, rows, most), want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(names), cmocka_unit_test(limits), cmocka_unit_test(values),
                                       cmocka_unit_test(forged), cmocka_unit_test(usable)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
