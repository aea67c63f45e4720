#include "model/image.h"

#include "base/checked.h"
#include "model/image_format.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct tr_image {
    tr_file_map map;
    const tr_image_format_header *header;
    tr_image_tensor
        tensor[]; /* [n_layers * ROLE_COUNT], layer 0 also holds the tensors outside the layers; data NULL: none */
};

static bool outside_layers(uint32_t role) {
    return role == TR_IMAGE_EMBED || role == TR_IMAGE_HEAD || role == TR_IMAGE_OUTPUT_NORM ||
           role == TR_IMAGE_ROPE_FREQS;
}

/* Outputs and inputs that the config wants of a role; false: this model has no such tensor. */
static bool expected_shape(const tr_model_config *c, uint32_t role, uint32_t *n, uint32_t *k) {
    uint32_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    *n = 1;
    *k = c->hidden;
    switch ((tr_image_role)role) {
    case TR_IMAGE_EMBED:
    case TR_IMAGE_HEAD: *n = c->vocab; return true;
    case TR_IMAGE_OUTPUT_NORM:
    case TR_IMAGE_ATTN_NORM:
    case TR_IMAGE_FFN_NORM: return true;
    case TR_IMAGE_ATTN_POST_NORM:
    case TR_IMAGE_FFN_POST_NORM: return c->has_post_norms;
    case TR_IMAGE_Q_NORM:
    case TR_IMAGE_K_NORM: *k = c->head_dim; return c->has_qk_norm;
    case TR_IMAGE_QKV: *n = q + 2 * kv; return true;
    case TR_IMAGE_O:
        *n = c->hidden;
        *k = q;
        return true;
    case TR_IMAGE_GATE_UP: *n = 2 * c->ffn; return true;
    case TR_IMAGE_DOWN:
        *n = c->hidden;
        *k = c->ffn;
        return true;
    case TR_IMAGE_ROPE_FREQS: *k = c->head_dim / 2; return c->has_rope_freq_factors;
    case TR_IMAGE_ROLE_COUNT: break;
    }
    return false;
}

static tr_status bad(tr_error *err, const char *path, const char *what) {
    return tr_error_set(err, TR_DATA,
                        "%s: not a packed image of this version (%s); `troupe doctor --clear-cache` removes it", path,
                        what);
}

/* What reading the struct as its type takes for granted. */
static bool sound_config(const tr_model_config *c) {
    const bool *const flags[] = {&c->has_rope_freq_factors, &c->has_qk_norm, &c->has_post_norms, &c->tied_embeddings,
                                 &c->norm_plus_one,         &c->add_bos,     &c->is_instruct};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        uint8_t byte;
        memcpy(&byte, flags[i], 1);
        if (byte > 1) return false;
    }
    return memchr(c->name, 0, sizeof c->name) != NULL &&
           (c->act == TR_MODEL_ACT_SILU || c->act == TR_MODEL_ACT_GELU_TANH);
}

static tr_status check_header(const tr_file_map *map, const char *path, tr_error *err) {
    const tr_image_format_header *h = (const void *)map->data;
    uint64_t index_bytes;
    if (map->size < sizeof *h || h->magic != TR_IMAGE_FORMAT_MAGIC) return bad(err, path, "magic");
    if (h->version != TR_IMAGE_VERSION || h->config_bytes != sizeof(tr_model_config)) return bad(err, path, "version");
    if (h->complete != TR_IMAGE_FORMAT_MAGIC || h->file_bytes != map->size) return bad(err, path, "incomplete");
    if (h->precision == 0 || h->precision >= TR_PRECISION_END ||
        tr_precision_image((tr_precision)h->precision) != (tr_precision)h->precision)
        return bad(err, path, "precision");
    if (!sound_config(&h->config) || tr_model_config_check(&h->config, path, err) != TR_OK)
        return bad(err, path, "configuration");
    if (h->n_tensors > TR_IMAGE_FORMAT_TENSORS_MAX ||
        !tr_checked_mul(h->n_tensors, sizeof(tr_image_format_entry), &index_bytes) || h->index_offset % 64 ||
        !tr_checked_range(h->index_offset, index_bytes, map->size))
        return bad(err, path, "index");
    return TR_OK;
}

static bool valid_kind(uint32_t role, uint32_t kind, uint32_t precision) {
    bool matrix = role == TR_IMAGE_QKV || role == TR_IMAGE_O || role == TR_IMAGE_GATE_UP || role == TR_IMAGE_DOWN ||
                  role == TR_IMAGE_HEAD;
    bool native = precision == TR_PRECISION_NATIVE;
    if (matrix && native) return kind == TR_IMAGE_BF16_PACK || kind == TR_IMAGE_GROUPS;
    if (matrix && precision == TR_PRECISION_INT8 && role == TR_IMAGE_HEAD && kind == TR_IMAGE_INT8_PLANES) return true;
    if (matrix)
        return kind == (precision == TR_PRECISION_BF16   ? TR_IMAGE_BF16_PACK
                        : precision == TR_PRECISION_INT8 ? TR_IMAGE_INT8_PACK
                                                         : TR_IMAGE_GROUPS);
    if (role == TR_IMAGE_EMBED)
        return kind == TR_IMAGE_BF16_PACK || kind == TR_IMAGE_BF16_ROWS || (native && kind == TR_IMAGE_GROUPS);
    return kind == TR_IMAGE_F32;
}

/* Both planes inside the file, and what the kernels take for granted. */
static bool sound_planes(const tr_file_map *map, const tr_image_format_entry *e) {
    const uint32_t coords = tr_planes_coords(e->k);
    if (e->lower % 64 || e->coord % 64 || e->rotation < 32 || e->k > TR_PLANES_K_MAX ||
        !tr_checked_range(e->lower, tr_image_format_padded(e->n) * e->k / 2, map->size) ||
        !tr_checked_range(e->coord, coords * sizeof(uint16_t), map->size))
        return false;
    const uint16_t *coord = (const void *)(map->data + e->coord);
    for (uint32_t j = 0; j < coords; j++)
        if (coord[j] >= e->k) return false;
    return true;
}

/* The parts make up the rows, and each can be read by blocks. */
static bool valid_parts(const tr_image_format_entry *e) {
    uint64_t n = 0;
    if (e->kind != TR_IMAGE_GROUPS) return e->n_parts == 0;
    if (e->n_parts == 0 || e->n_parts > TR_IMAGE_PARTS_MAX) return false;
    for (uint32_t i = 0; i < e->n_parts; i++) {
        if (e->format[i] >= TR_GROUPS_FORMATS || e->part_n[i] == 0 || e->part_n[i] > e->n ||
            !tr_groups_takes((tr_groups_format)e->format[i], e->k) || (i + 1 < e->n_parts && e->part_n[i] % 16))
            return false;
        n += e->part_n[i];
    }
    return n == e->n;
}

static void read_parts(const tr_image_format_entry *e, tr_image_tensor *t) {
    const uint8_t *data = t->data;
    t->n_parts = e->n_parts;
    for (uint32_t i = 0; i < e->n_parts; i++) {
        t->part[i] = (tr_image_part){.format = (tr_groups_format)e->format[i], .n = e->part_n[i], .data = data};
        data += tr_image_format_part_bytes(e, i);
    }
}

static tr_status read_entry(tr_image *image, const tr_image_format_entry *e, const char *path, tr_error *err) {
    const tr_image_format_header *h = image->header;
    const uint64_t size = image->map.size;
    uint32_t n, k, layer = outside_layers(e->role) ? 0 : e->layer;
    if (e->role >= TR_IMAGE_ROLE_COUNT || layer >= h->config.n_layers || !expected_shape(&h->config, e->role, &n, &k) ||
        n != e->n || k != e->k || !valid_kind(e->role, e->kind, h->precision) || !valid_parts(e))
        return bad(err, path, "tensor shape");
    const bool int8 = tr_image_format_int8(e->kind), planes = e->kind == TR_IMAGE_INT8_PLANES;
    if (e->data % 64 || e->comp % 64 || e->scale % 64 || e->rotation == 0 || e->rotation > 128 ||
        (e->rotation & (e->rotation - 1)) || k % e->rotation || (e->kind != TR_IMAGE_F32 && (k % 32 || k > 65536)) ||
        !tr_checked_range(e->data, tr_image_format_data_bytes(e), size) ||
        (int8 && (!tr_checked_range(e->comp, tr_image_format_padded(n) * 4, size) ||
                  !tr_checked_range(e->scale, tr_image_format_padded(n) * 4, size))))
        return bad(err, path, "tensor offset");
    if (planes && !sound_planes(&image->map, e)) return bad(err, path, "planes");
    tr_image_tensor *t = &image->tensor[layer * TR_IMAGE_ROLE_COUNT + e->role];
    *t = (tr_image_tensor){.kind = e->kind, .n = n, .k = k, .rotation = e->rotation, .data = image->map.data + e->data};
    read_parts(e, t);
    if (int8) {
        t->comp = (const int32_t *)(const void *)(image->map.data + e->comp);
        t->scale = (const float *)(const void *)(image->map.data + e->scale);
    }
    if (planes)
        t->planes = (tr_planes){.upper = t->data,
                                .lower = image->map.data + e->lower,
                                .scale = t->scale,
                                .coord = (const uint16_t *)(const void *)(image->map.data + e->coord),
                                .k = k,
                                .block = e->rotation};
    return TR_OK;
}

static tr_status check_complete(const tr_image *image, const char *path, tr_error *err) {
    uint32_t n, k;
    for (uint32_t layer = 0; layer < image->header->config.n_layers; layer++)
        for (uint32_t role = 0; role < TR_IMAGE_ROLE_COUNT; role++)
            if ((layer == 0 || !outside_layers(role)) && expected_shape(&image->header->config, role, &n, &k) &&
                !image->tensor[layer * TR_IMAGE_ROLE_COUNT + role].data)
                return bad(err, path, "a tensor is missing");
    return TR_OK;
}

/* Matrices are read whole in every step; of an embedding by rows a few rows are wanted, and no more of it shall count
 * as memory in use. */
static void advise(const tr_image *image) {
    const tr_image_tensor *embed = tr_image_get(image, TR_IMAGE_EMBED, 0);
    tr_file_map_large_pages(&image->map, image->map.data, image->map.size, true);
    if (embed->kind == TR_IMAGE_BF16_ROWS)
        tr_file_map_large_pages(&image->map, embed->data, (size_t)embed->n * embed->k * sizeof(uint16_t), false);
}

tr_status tr_image_open(const char *path, tr_image **image_out, tr_error *err) {
    tr_file_map map = {0};
    TR_TRY(tr_file_map_open(path, &map, err));
    tr_status status = check_header(&map, path, err);
    tr_image *image = NULL;
    if (status == TR_OK) {
        const tr_image_format_header *h = (const void *)map.data;
        image = calloc(1, sizeof *image + (size_t)h->config.n_layers * TR_IMAGE_ROLE_COUNT * sizeof(tr_image_tensor));
        if (!image) status = tr_error_set(err, TR_UNAVAILABLE, "no memory to open %s", path);
    }
    if (status != TR_OK) {
        tr_file_map_close(&map);
        return status;
    }
    image->map = map;
    image->header = (const void *)map.data;
    const tr_image_format_entry *entry = (const void *)(map.data + image->header->index_offset);
    for (uint64_t i = 0; i < image->header->n_tensors && status == TR_OK; i++)
        status = read_entry(image, &entry[i], path, err);
    if (status == TR_OK) status = check_complete(image, path, err);
    if (status != TR_OK) {
        tr_image_close(&image);
        return status;
    }
    advise(image);
    *image_out = image;
    return TR_OK;
}

void tr_image_close(tr_image **image) {
    if (!*image) return;
    tr_file_map_close(&(*image)->map);
    free(*image);
    *image = NULL;
}

const tr_model_config *tr_image_config(const tr_image *image) { return &image->header->config; }
tr_precision tr_image_precision(const tr_image *image) { return (tr_precision)image->header->precision; }
uint64_t tr_image_model_hash(const tr_image *image) { return image->header->model_hash; }

uint64_t tr_image_step_bytes(const tr_image *image) {
    const tr_image_format_entry *entry = (const void *)(image->map.data + image->header->index_offset);
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < image->header->n_tensors; i++) {
        const tr_image_format_entry *e = &entry[i];
        if (e->role == TR_IMAGE_EMBED) continue;
        bytes += tr_image_format_data_bytes(e);
        if (tr_image_format_int8(e->kind)) bytes += tr_image_format_padded(e->n) * (sizeof(int32_t) + sizeof(float));
    }
    return bytes;
}

const tr_image_tensor *tr_image_get(const tr_image *image, tr_image_role role, uint32_t layer) {
    if (outside_layers(role)) layer = 0;
    if (layer >= image->header->config.n_layers) return NULL;
    const tr_image_tensor *t = &image->tensor[layer * TR_IMAGE_ROLE_COUNT + role];
    return t->data ? t : NULL;
}
