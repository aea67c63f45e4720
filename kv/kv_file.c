#include "kv/kv_file.h"

#include "base/checked.h"
#include "base/crc32c.h"

#include <inttypes.h>
#include <string.h>

static const uint8_t magic[8] = {'T', 'R', 'K', 'V', 0x0d, 0x0a, 0x1a, 0x0a};

/* HEADER(field): u32 fields of the header in their order, from byte 48. */
#define HEADER(F)                                                                                                      \
    F(identity.image_version)                                                                                          \
    F(identity.ops_version)                                                                                            \
    F(identity.precision[0])                                                                                           \
    F(identity.precision[1])                                                                                           \
    F(identity.format[0])                                                                                              \
    F(identity.format[1])                                                                                              \
    F(format)                                                                                                          \
    F(n_layers)                                                                                                        \
    F(n_kv_heads)                                                                                                      \
    F(head_dim)                                                                                                        \
    F(n_groups)                                                                                                        \
    F(window[0])                                                                                                       \
    F(window[1])                                                                                                       \
    F(tok_min[0])                                                                                                      \
    F(tok_min[1])                                                                                                      \
    F(n_tokens)                                                                                                        \
    F(n_prefill)                                                                                                       \
    F(n_kv)                                                                                                            \
    F(top_k)
enum { AT_VERSION = 8, AT_HEADER = 12, AT_BYTES = 16, AT_HASH = 24, AT_SEED = 32, AT_FLOATS = 40, AT_FIELDS = 48 };
enum { AT_GROUPS = 128, AT_CRC = TR_KV_FILE_HEADER - 4 };
_Static_assert(AT_GROUPS + TR_KV_LAYERS_MAX <= AT_CRC, "the header holds a byte a layer");

static void put(uint8_t *at, uint64_t v, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++) at[i] = (uint8_t)(v >> 8 * i);
}
static uint64_t get(const uint8_t *at, uint32_t bytes) {
    uint64_t v = 0;
    for (uint32_t i = 0; i < bytes; i++) v |= (uint64_t)at[i] << 8 * i;
    return v;
}
static void put_float(uint8_t *at, float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    put(at, u, 4);
}
static float get_float(const uint8_t *at) {
    uint32_t u = (uint32_t)get(at, 4);
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

void tr_kv_file_shape(tr_kv_file *f, const tr_kv_layout *l) {
    f->format = l->format;
    f->n_layers = l->n_layers;
    f->n_kv_heads = l->n_kv_heads;
    f->head_dim = l->head_dim;
    f->n_groups = l->n_groups;
    for (uint32_t g = 0; g < l->n_groups; g++) f->window[g] = l->group[g].window;
    memcpy(f->layer_group, l->layer_group, sizeof f->layer_group);
}

const char *tr_kv_file_differs(const tr_kv_file *f, const tr_kv_layout *l) {
    if (f->n_layers != l->n_layers) return "number of layers";
    if (f->n_kv_heads != l->n_kv_heads) return "number of kv heads";
    if (f->head_dim != l->head_dim) return "size of a head";
    if (f->n_groups != l->n_groups) return "groups of layers";
    for (uint32_t g = 0; g < l->n_groups; g++)
        if (f->window[g] != l->group[g].window) return "window";
    return memcmp(f->layer_group, l->layer_group, l->n_layers) ? "layers of a group" : NULL;
}

/* NULL, or what is out of bounds. */
static const char *unsound(const tr_kv_file *f) {
    const tr_kv_info *format = tr_kv_describe((tr_kv_format)f->format);
    if (format == NULL || format->calibrated) return "KV format";
    if (f->n_layers == 0 || f->n_layers > TR_KV_LAYERS_MAX) return "number of layers";
    if (f->n_kv_heads == 0 || f->n_kv_heads > 1024) return "number of kv heads";
    if (f->head_dim == 0 || f->head_dim > 1024 || f->head_dim % 16) return "size of a head";
    if (f->n_groups == 0 || f->n_groups > TR_KV_GROUPS_MAX) return "groups of layers";
    for (uint32_t i = 0; i < f->n_layers; i++)
        if (f->layer_group[i] >= f->n_groups) return "group of a layer";
    if (f->n_tokens == 0 || f->n_tokens > TR_KV_FILE_TOKENS_MAX) return "number of tokens";
    if (f->n_kv == 0 || f->n_kv > f->n_tokens || f->n_prefill == 0 || f->n_prefill > f->n_kv) return "positions";
    for (uint32_t g = 0; g < f->n_groups; g++) {
        uint32_t seen = f->window[g] == 0 || f->n_kv + 1 <= f->window[g] ? 0 : f->n_kv + 1 - f->window[g];
        if (f->tok_min[g] > seen || f->tok_min[g] >= f->n_kv) return "first position of a group";
    }
    return NULL;
}

static uint64_t tile_stride(const tr_kv_file *f) { return tr_kv_tile_bytes((tr_kv_format)f->format, f->head_dim) + 8; }

uint64_t tr_kv_file_head_bytes(const tr_kv_file *f) {
    return TR_KV_FILE_HEADER + tr_align_up((size_t)f->n_tokens * 4, 8);
}

uint64_t tr_kv_file_bytes(const tr_kv_file *f) {
    if (unsound(f)) return 0;
    uint64_t tiles = 0; /* at most 128 layers of 1024 heads of 8192 tiles */
    for (uint32_t i = 0; i < f->n_layers; i++)
        tiles += (uint64_t)f->n_kv_heads *
                 (tr_div_up(f->n_kv, TR_KV_TILE_TOK) - f->tok_min[f->layer_group[i]] / TR_KV_TILE_TOK);
    return tr_kv_file_head_bytes(f) + tiles * tile_stride(f) + 8;
}

void tr_kv_file_encode(const tr_kv_file *f, uint8_t *out) {
    memset(out, 0, TR_KV_FILE_HEADER);
    memcpy(out, magic, sizeof magic);
    put(out + AT_VERSION, TR_KV_FILE_VERSION, 4);
    put(out + AT_HEADER, TR_KV_FILE_HEADER, 4);
    put(out + AT_BYTES, tr_kv_file_bytes(f), 8);
    put(out + AT_HASH, f->identity.model_hash, 8);
    put(out + AT_SEED, f->seed, 8);
    put_float(out + AT_FLOATS, f->temperature);
    put_float(out + AT_FLOATS + 4, f->top_p);
    uint8_t *at = out + AT_FIELDS;
#define F(field) put(at, f->field, 4), at += 4;
    HEADER(F)
#undef F
    memcpy(out + AT_GROUPS, f->layer_group, f->n_layers);
    put(out + AT_CRC, tr_crc32c(0, out, AT_CRC), 4);
}

tr_status tr_kv_file_decode(const uint8_t header[TR_KV_FILE_HEADER], uint64_t file_bytes, tr_kv_file *f_out,
                            tr_error *err) {
    tr_kv_file f;
    memset(&f, 0, sizeof f);
    if (memcmp(header, magic, sizeof magic) != 0) return tr_error_set(err, TR_DATA, "this is no saved sequence");
    if (get(header + AT_VERSION, 4) != TR_KV_FILE_VERSION || get(header + AT_HEADER, 4) != TR_KV_FILE_HEADER)
        return tr_error_set(err, TR_DATA, "saved sequence of version %" PRIu64 ", this program reads version %d",
                            get(header + AT_VERSION, 4), TR_KV_FILE_VERSION);
    if (get(header + AT_CRC, 4) != tr_crc32c(0, header, AT_CRC))
        return tr_error_set(err, TR_DATA, "the header of the saved sequence is damaged");
    f.identity.model_hash = get(header + AT_HASH, 8);
    f.seed = get(header + AT_SEED, 8);
    f.temperature = get_float(header + AT_FLOATS);
    f.top_p = get_float(header + AT_FLOATS + 4);
    const uint8_t *at = header + AT_FIELDS;
#define F(field) f.field = (uint32_t)get(at, 4), at += 4;
    HEADER(F)
#undef F
    memcpy(f.layer_group, header + AT_GROUPS, sizeof f.layer_group);
    const char *what = unsound(&f);
    if (what) return tr_error_set(err, TR_DATA, "saved sequence: %s out of bounds", what);
    if (tr_kv_file_bytes(&f) != file_bytes || get(header + AT_BYTES, 8) != file_bytes)
        return tr_error_set(err, TR_DATA, "saved sequence of %" PRIu64 " bytes, its header speaks of %" PRIu64,
                            file_bytes, tr_kv_file_bytes(&f));
    *f_out = f;
    return TR_OK;
}

void tr_kv_file_walk_init(tr_kv_file_walk *w, const tr_kv_file *f) {
    *w = (tr_kv_file_walk){.f = f, .pos = UINT32_MAX};
}

bool tr_kv_file_walk_next(tr_kv_file_walk *w, tr_kv_file_tile *tile_out) {
    const tr_kv_file *f = w->f;
    while (w->group < f->n_groups) {
        if (w->layer == f->n_layers) {
            w->group++;
            w->layer = 0;
        } else if (f->layer_group[w->layer] != w->group || w->kv_head == f->n_kv_heads) {
            w->layer++;
            w->kv_head = 0;
            w->pos = UINT32_MAX;
        } else {
            const uint32_t low = f->tok_min[w->group];
            if (w->pos == UINT32_MAX) w->pos = low / TR_KV_TILE_TOK * TR_KV_TILE_TOK;
            if (w->pos < f->n_kv) break;
            w->kv_head++;
            w->pos = UINT32_MAX;
        }
    }
    if (w->group == f->n_groups) return false;
    const uint32_t low = f->tok_min[w->group], t0 = low > w->pos ? low - w->pos : 0;
    const uint32_t end = f->n_kv - w->pos < TR_KV_TILE_TOK ? f->n_kv - w->pos : TR_KV_TILE_TOK;
    *tile_out = (tr_kv_file_tile){w->group, w->layer, w->kv_head, w->pos, t0, end - t0};
    w->pos += TR_KV_TILE_TOK;
    return true;
}

tr_status tr_kv_file_check(const uint8_t *data, size_t bytes, tr_kv_file *f_out, tr_error *err) {
    tr_kv_file f;
    if (bytes < TR_KV_FILE_HEADER) return tr_error_set(err, TR_DATA, "this is no saved sequence");
    TR_TRY(tr_kv_file_decode(data, bytes, &f, err));
    tr_kv_file_walk w;
    tr_kv_file_tile tile;
    const uint8_t *at = data + tr_kv_file_head_bytes(&f);
    const size_t tile_bytes = tr_kv_tile_bytes((tr_kv_format)f.format, f.head_dim);
    tr_kv_file_walk_init(&w, &f);
    for (; tr_kv_file_walk_next(&w, &tile); at += tile_bytes + 8)
        if (get(at + tile_bytes, 4) != tr_crc32c(0, at, tile_bytes))
            return tr_error_set(err, TR_DATA, "saved sequence: layer %u kv head %u positions from %u are damaged",
                                tile.layer, tile.kv_head, tile.pos);
    if (get(at + 4, 4) != TR_KV_FILE_END || get(at, 4) != tr_crc32c(0, data, (size_t)(at - data)))
        return tr_error_set(err, TR_DATA, "saved sequence: the file is damaged");
    *f_out = f;
    return TR_OK;
}
