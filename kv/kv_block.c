#include "kv/kv_block.h"

#include "base/blake2b.h"
#include "base/checked.h"
#include "base/crc32c.h"

#include <string.h>

static const uint8_t magic[8] = {'T', 'R', 'K', 'B', 0x0d, 0x0a, 0x1a, 0x0a};
enum {
    AT_VERSION = 8,
    AT_HEADER = 12,
    AT_BYTES = 16,
    AT_GROUP = 24,
    AT_POS = 28,
    AT_TILES = 32,
    AT_TILE_BYTES = 36,
    AT_IDENTITY = 40,
    AT_CHAIN = AT_IDENTITY + TR_KV_BLOCK_HASH,
    AT_TOKENS = AT_CHAIN + TR_KV_BLOCK_HASH,
    AT_KEYED = AT_TOKENS + 4 * TR_KV_TILE_TOK,
    AT_CRC = TR_KV_BLOCK_HEADER - 4 /* of what is before it and of the list of CRCs */
};
enum { NAME_IDENTITY = 16 /* bytes of it in a name; the header has all */ };

static void put(uint8_t *at, uint64_t v, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++) at[i] = (uint8_t)(v >> 8 * i);
}
static uint32_t get(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint32_t tiles_of(const tr_kv_block_kind *k, uint32_t group) {
    return k->layout->group[group].n_layers * k->layout->n_kv_heads;
}
static size_t tile_bytes(const tr_kv_block_kind *k) { return tr_kv_tile_bytes(k->layout->format, k->layout->head_dim); }
static size_t head_bytes(const tr_kv_block_kind *k, uint32_t group) {
    return tr_align_up(TR_KV_BLOCK_HEADER + (size_t)tiles_of(k, group) * 4, 64);
}
static size_t mac_bytes(const tr_kv_block_kind *k) { return k->secret_bytes ? TR_KV_BLOCK_HASH : 0; }

size_t tr_kv_block_bytes(const tr_kv_block_kind *k, uint32_t group) {
    return head_bytes(k, group) + tiles_of(k, group) * tile_bytes(k) + mac_bytes(k);
}

uint8_t *tr_kv_block_tile(const tr_kv_block_kind *k, uint8_t *value, uint32_t layer, uint32_t kv_head) {
    const tr_kv_layout *l = k->layout;
    return value + head_bytes(k, l->layer_group[layer]) +
           ((size_t)l->layer_index[layer] * l->n_kv_heads + kv_head) * tile_bytes(k);
}

/* ---- names ---------------------------------------------------------------------------------------------------------
 */

static void add_u32(tr_blake2b *b, uint32_t v) {
    uint8_t bytes[4];
    put(bytes, v, 4);
    tr_blake2b_add(b, bytes, sizeof bytes);
}

static void identify(tr_kv_block_kind *k, const tr_kv_block_maker *m) {
    static const char what[] = "troupe kv block";
    const tr_kv_layout *l = k->layout;
    tr_blake2b b;
    tr_blake2b_init(&b, TR_KV_BLOCK_HASH, NULL, 0);
    tr_blake2b_add(&b, what, sizeof what);
    add_u32(&b, TR_KV_BLOCK_VERSION);
    add_u32(&b, (uint32_t)m->model_hash);
    add_u32(&b, (uint32_t)(m->model_hash >> 32));
    add_u32(&b, m->image_version);
    add_u32(&b, m->ops_version);
    add_u32(&b, m->precision);
    add_u32(&b, m->calibration_crc);
    add_u32(&b, (uint32_t)l->format);
    add_u32(&b, l->n_layers);
    add_u32(&b, l->n_kv_heads);
    add_u32(&b, l->head_dim);
    add_u32(&b, l->n_groups);
    for (uint32_t g = 0; g < l->n_groups; g++) add_u32(&b, l->group[g].window);
    tr_blake2b_add(&b, l->layer_group, l->n_layers);
    tr_blake2b_end(&b, k->identity.b);
}

tr_status tr_kv_block_init(tr_kv_block_kind *k, const tr_kv_layout *layout, const tr_kv_block_maker *maker,
                           const uint8_t *secret, uint32_t secret_bytes, tr_error *err) {
    memset(k, 0, sizeof *k);
    k->layout = layout;
    if (secret_bytes > 0 && (secret_bytes < TR_KV_BLOCK_SECRET_LEAST || secret_bytes > sizeof k->secret))
        return tr_error_set(err, TR_CONFIG, "a secret of %u bytes: give %d to %zu", secret_bytes,
                            TR_KV_BLOCK_SECRET_LEAST, sizeof k->secret);
    if (secret_bytes > 0) memcpy(k->secret, secret, secret_bytes);
    k->secret_bytes = secret_bytes;
    for (uint32_t g = 0; g < layout->n_groups; g++)
        if (tr_kv_block_bytes(k, g) > TR_KV_BLOCK_MAX)
            return tr_error_set(err, TR_CONFIG, "%d positions of this model are %zu bytes of KV, %d are possible",
                                TR_KV_TILE_TOK, tr_kv_block_bytes(k, g), TR_KV_BLOCK_MAX);
    identify(k, maker);
    return TR_OK;
}

void tr_kv_block_tenant(const void *name, size_t bytes, uint8_t out[TR_KV_BLOCK_HASH]) {
    tr_blake2b b;
    memset(out, 0, TR_KV_BLOCK_HASH);
    if (bytes == 0) return;
    tr_blake2b_init(&b, TR_KV_BLOCK_HASH, NULL, 0);
    tr_blake2b_add(&b, name, bytes);
    tr_blake2b_end(&b, out);
}

static void hash(const tr_kv_block_kind *k, const void *head, const void *rest, size_t bytes, tr_kv_block_hash *out) {
    tr_blake2b b;
    tr_blake2b_init(&b, TR_KV_BLOCK_HASH, k->secret, k->secret_bytes);
    tr_blake2b_add(&b, head, TR_KV_BLOCK_HASH);
    tr_blake2b_add(&b, rest, bytes);
    tr_blake2b_end(&b, out->b);
}

void tr_kv_block_root(const tr_kv_block_kind *k, const uint8_t tenant[TR_KV_BLOCK_HASH], tr_kv_block_hash *out) {
    hash(k, k->identity.b, tenant, TR_KV_BLOCK_HASH, out);
}

void tr_kv_block_next(const tr_kv_block_kind *k, const tr_kv_block_hash *parent, const uint32_t tokens[TR_KV_TILE_TOK],
                      tr_kv_block_hash *out) {
    uint8_t bytes[4 * TR_KV_TILE_TOK];
    const tr_kv_block_hash from = *parent; /* out may be the same */
    for (uint32_t i = 0; i < TR_KV_TILE_TOK; i++) put(bytes + 4 * i, tokens[i], 4);
    hash(k, from.b, bytes, sizeof bytes, out);
}

static char *hex(char *at, const uint8_t *bytes, uint32_t n) {
    static const char digit[] = "0123456789abcdef";
    for (uint32_t i = 0; i < n; i++) {
        *at++ = digit[bytes[i] >> 4];
        *at++ = digit[bytes[i] & 15];
    }
    return at;
}

uint32_t tr_kv_block_name(const tr_kv_block_kind *k, const tr_kv_block_hash *chain, uint32_t group,
                          char out[TR_KV_BLOCK_NAME]) {
    static const char prefix[] = "troupe:1:";
    _Static_assert(TR_KV_BLOCK_VERSION == 1, "the version stands in the name");
    char *at = out + sizeof prefix - 1;
    memcpy(out, prefix, sizeof prefix);
    at = hex(at, k->identity.b, NAME_IDENTITY);
    *at++ = ':';
    at = hex(at, chain->b, TR_KV_BLOCK_HASH);
    *at++ = ':';
    *at++ = (char)('0' + group);
    *at = 0;
    return (uint32_t)(at - out);
}

/* ---- values --------------------------------------------------------------------------------------------------------
 */

/* All of a header but its CRC. */
static void header(const tr_kv_block_kind *k, const tr_kv_block_place *at, uint8_t out[TR_KV_BLOCK_HEADER]) {
    memset(out, 0, TR_KV_BLOCK_HEADER);
    memcpy(out, magic, sizeof magic);
    put(out + AT_VERSION, TR_KV_BLOCK_VERSION, 4);
    put(out + AT_HEADER, TR_KV_BLOCK_HEADER, 4);
    put(out + AT_BYTES, tr_kv_block_bytes(k, at->group), 8);
    put(out + AT_GROUP, at->group, 4);
    put(out + AT_POS, at->pos, 4);
    put(out + AT_TILES, tiles_of(k, at->group), 4);
    put(out + AT_TILE_BYTES, tile_bytes(k), 4);
    memcpy(out + AT_IDENTITY, k->identity.b, TR_KV_BLOCK_HASH);
    memcpy(out + AT_CHAIN, at->chain->b, TR_KV_BLOCK_HASH);
    for (uint32_t i = 0; i < TR_KV_TILE_TOK; i++) put(out + AT_TOKENS + 4 * i, at->tokens[i], 4);
    put(out + AT_KEYED, k->secret_bytes > 0, 4);
}

static uint32_t head_crc(const tr_kv_block_kind *k, uint32_t group, const uint8_t *value) {
    return tr_crc32c(tr_crc32c(0, value, AT_CRC), value + TR_KV_BLOCK_HEADER,
                     head_bytes(k, group) - TR_KV_BLOCK_HEADER);
}

static void mac(const tr_kv_block_kind *k, uint32_t group, const uint8_t *value, uint8_t out[TR_KV_BLOCK_HASH]) {
    tr_blake2b b;
    tr_blake2b_init(&b, TR_KV_BLOCK_HASH, k->secret, k->secret_bytes);
    tr_blake2b_add(&b, value, tr_kv_block_bytes(k, group) - TR_KV_BLOCK_HASH);
    tr_blake2b_end(&b, out);
}

void tr_kv_block_seal(const tr_kv_block_kind *k, const tr_kv_block_place *at, uint8_t *value) {
    const size_t head = head_bytes(k, at->group), bytes = tile_bytes(k);
    header(k, at, value);
    memset(value + TR_KV_BLOCK_HEADER, 0, head - TR_KV_BLOCK_HEADER);
    for (uint32_t i = 0; i < tiles_of(k, at->group); i++)
        put(value + TR_KV_BLOCK_HEADER + 4 * (size_t)i, tr_crc32c(0, value + head + i * bytes, bytes), 4);
    put(value + AT_CRC, head_crc(k, at->group, value), 4);
    if (k->secret_bytes) mac(k, at->group, value, value + tr_kv_block_bytes(k, at->group) - TR_KV_BLOCK_HASH);
}

/* NULL, or in what a header is not the expected one. */
static const char *differs(const uint8_t *value, const uint8_t *want) {
    static const struct {
        uint32_t begin, end;
        const char *what;
    } part[] = {{0, AT_BYTES, "version"},
                {AT_BYTES, AT_IDENTITY, "group, position or size"},
                {AT_IDENTITY, AT_CHAIN, "identity"},
                {AT_CHAIN, AT_TOKENS, "chain"},
                {AT_TOKENS, AT_KEYED, "tokens"},
                {AT_KEYED, AT_CRC, "header"}};
    for (uint32_t i = 0; i < sizeof part / sizeof *part; i++)
        if (memcmp(value + part[i].begin, want + part[i].begin, part[i].end - part[i].begin) != 0) return part[i].what;
    return NULL;
}

/* In a time that says nothing of where they differ. */
static bool same_mac(const uint8_t *a, const uint8_t *b) {
    uint8_t all = 0;
    for (uint32_t i = 0; i < TR_KV_BLOCK_HASH; i++) all |= a[i] ^ b[i];
    return all == 0;
}

tr_status tr_kv_block_check(const tr_kv_block_kind *k, const tr_kv_block_place *at, const uint8_t *value, size_t bytes,
                            tr_error *err) {
    uint8_t want[TR_KV_BLOCK_HEADER], code[TR_KV_BLOCK_HASH];
    const size_t head = head_bytes(k, at->group), one = tile_bytes(k);
    if (bytes != tr_kv_block_bytes(k, at->group))
        return tr_error_set(err, TR_DATA, "%zu bytes instead of %zu", bytes, tr_kv_block_bytes(k, at->group));
    header(k, at, want);
    const char *what = differs(value, want);
    if (what) return tr_error_set(err, TR_DATA, "another %s", what);
    if (get(value + AT_CRC) != head_crc(k, at->group, value)) return tr_error_set(err, TR_DATA, "a damaged header");
    for (uint32_t i = 0; i < tiles_of(k, at->group); i++)
        if (get(value + TR_KV_BLOCK_HEADER + 4 * (size_t)i) != tr_crc32c(0, value + head + i * one, one))
            return tr_error_set(err, TR_DATA, "damaged cells (tile %u)", i);
    if (k->secret_bytes == 0) return TR_OK;
    mac(k, at->group, value, code);
    return same_mac(code, value + bytes - TR_KV_BLOCK_HASH)
               ? TR_OK
               : tr_error_set(err, TR_DATA, "a wrong code: it was not made with the secret of this company");
}

/* ---- prefixes ------------------------------------------------------------------------------------------------------
 */

uint32_t tr_kv_block_first(const tr_kv_layout *l, uint32_t group, uint32_t end) {
    const uint32_t window = l->group[group].window;
    const uint32_t begin = window == 0 || end + 1 <= window ? 0 : end + 1 - window;
    return begin - begin % l->page_tok;
}

uint32_t tr_kv_block_usable(const tr_kv_layout *l, const bool *const there[TR_KV_GROUPS_MAX], uint32_t most) {
    uint32_t best = 0, since[TR_KV_GROUPS_MAX] = {0}; /* since[g]: begin of the unbroken run up to here */
    for (uint32_t i = 0; (i + 1) * TR_KV_TILE_TOK <= most; i++) {
        const uint32_t end = (i + 1) * TR_KV_TILE_TOK;
        bool whole = end % l->page_tok == 0;
        for (uint32_t g = 0; g < l->n_groups; g++) {
            if (!there[g][i]) since[g] = end;
            const uint32_t first = tr_kv_block_first(l, g, end);
            whole &= since[g] <= first || first >= end;
        }
        if (whole) best = end;
    }
    return best;
}
