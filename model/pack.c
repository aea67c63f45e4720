#include "model/pack.h"

#include "base/checked.h"
#include "base/numeric.h"
#include "kernels/fixed_math.h"
#include "kernels/ops.h"
#include "model/image_format.h"
#include "model/pack_groups.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { PARTS_MAX = TR_IMAGE_PARTS_MAX, PROGRESS_BLOCKS = 64 };
enum { FAILED_NOT = 0, FAILED_VALUE, FAILED_MEMORY };

/* One tensor of the image and the tensors of the file whose rows follow each other in it. */
typedef struct plan_entry {
    tr_image_format_entry e;
    uint32_t n_parts;
    tr_tensor_role part[PARTS_MAX];
} plan_entry;

typedef struct plan {
    const tr_model_file *mf;
    tr_precision precision;
    uint32_t n;
    uint64_t bytes;
    plan_entry at[TR_IMAGE_FORMAT_TENSORS_MAX];
} plan;

typedef struct packer {
    const tr_model_file *mf;
    const tr_ops *ops;
    const plan *plan;
    uint8_t *image;
    _Atomic uint32_t next_block; /* work counter of the current tensor */
    const plan_entry *current;
    tr_model_file_view view[PARTS_MAX];
    _Atomic int failed; /* FAILED_* */
    tr_pack_progress progress;
    void *progress_arg;
} packer;

static uint32_t rotation_of(uint32_t k) {
    uint32_t b = k & (~k + 1u);
    return b > 128 ? 128 : b;
}

/* ---- layout of the file ---- */

/* Formats of a matrix in groups: those of the file (native) or one for all. The output matrix keeps 8 bits: with 4 it
 * costs more than all layers together. *groups_out false: the file has none, it is bf16. */
static tr_status choose_formats(const plan *p, plan_entry *e, bool *groups_out, tr_error *err) {
    *groups_out = true;
    for (uint32_t i = 0; i < e->n_parts; i++) {
        tr_model_file_view v;
        tr_groups_format format = e->e.role == TR_IMAGE_HEAD          ? TR_GROUPS_Q8_0
                                  : p->precision == TR_PRECISION_INT4 ? TR_GROUPS_Q4_0
                                                                      : TR_GROUPS_NF4;
        TR_TRY(tr_model_file_tensor(p->mf, e->part[i], e->e.layer, &v, err));
        if (p->precision == TR_PRECISION_NATIVE) *groups_out &= tr_pack_groups_format(v.type, &format);
        e->e.format[i] = format;
        e->e.part_n[i] = v.rows;
    }
    e->e.n_parts = e->n_parts;
    return TR_OK;
}

static void place_matrix(plan *p, plan_entry *e) {
    const bool four = e->e.kind == TR_IMAGE_GROUPS && p->precision == TR_PRECISION_INT4 && e->e.role != TR_IMAGE_HEAD;
    if (four || tr_image_format_int8(e->e.kind)) e->e.rotation = rotation_of(e->e.k);
    if (!tr_image_format_int8(e->e.kind)) return;
    const uint64_t rows = tr_image_format_padded(e->e.n);
    e->e.comp = p->bytes;
    e->e.scale = tr_align_up(e->e.comp + rows * 4, 64);
    p->bytes = tr_align_up(e->e.scale + rows * 4, TR_IMAGE_FORMAT_ALIGN);
    if (e->e.kind != TR_IMAGE_INT8_PLANES) return;
    e->e.coord = p->bytes;
    e->e.lower = tr_align_up(e->e.coord + tr_planes_coords(e->e.k) * sizeof(uint16_t), TR_IMAGE_FORMAT_ALIGN);
    p->bytes = tr_align_up(e->e.lower + rows * e->e.k / 2, TR_IMAGE_FORMAT_ALIGN);
}

static tr_status place(plan *p, tr_image_role role, uint32_t layer, tr_image_kind kind, uint32_t n, uint32_t k,
                       uint32_t n_parts, const tr_tensor_role *part, tr_error *err) {
    if (kind != TR_IMAGE_F32 && (k % 32 || k > 65536))
        return tr_error_set(err, TR_DATA,
                            "%s of layer %u has %u inputs: the kernels take multiples of 32 up to 65536; this model "
                            "cannot be run",
                            tr_model_file_role_name(part[0]), layer, k);
    plan_entry *e = &p->at[p->n++];
    *e = (plan_entry){.e = {.role = role, .layer = layer, .kind = kind, .n = n, .k = k, .rotation = 1},
                      .n_parts = n_parts};
    memcpy(e->part, part, n_parts * sizeof *part);
    if (kind == TR_IMAGE_GROUPS) {
        bool groups;
        TR_TRY(choose_formats(p, e, &groups, err));
        if (!groups) e->e.kind = TR_IMAGE_BF16_PACK, e->e.n_parts = 0;
    }
    e->e.data = p->bytes;
    p->bytes = tr_align_up(p->bytes + tr_image_format_data_bytes(&e->e), TR_IMAGE_FORMAT_ALIGN);
    place_matrix(p, e);
    return TR_OK;
}

#define ONE(role)                                                                                                      \
    1, (const tr_tensor_role[]) { TR_TENSOR_##role }

static tr_status place_layer(plan *p, const tr_model_config *c, tr_image_kind matrix, uint32_t i, tr_error *err) {
    uint32_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    TR_TRY(place(p, TR_IMAGE_ATTN_NORM, i, TR_IMAGE_F32, 1, c->hidden, ONE(ATTN_NORM), err));
    TR_TRY(place(p, TR_IMAGE_QKV, i, matrix, q + 2 * kv, c->hidden, 3,
                 (const tr_tensor_role[]){TR_TENSOR_Q, TR_TENSOR_K, TR_TENSOR_V}, err));
    if (c->has_qk_norm) {
        TR_TRY(place(p, TR_IMAGE_Q_NORM, i, TR_IMAGE_F32, 1, c->head_dim, ONE(Q_NORM), err));
        TR_TRY(place(p, TR_IMAGE_K_NORM, i, TR_IMAGE_F32, 1, c->head_dim, ONE(K_NORM), err));
    }
    TR_TRY(place(p, TR_IMAGE_O, i, matrix, c->hidden, q, ONE(O), err));
    if (c->has_post_norms)
        TR_TRY(place(p, TR_IMAGE_ATTN_POST_NORM, i, TR_IMAGE_F32, 1, c->hidden, ONE(ATTN_POST_NORM), err));
    TR_TRY(place(p, TR_IMAGE_FFN_NORM, i, TR_IMAGE_F32, 1, c->hidden, ONE(FFN_NORM), err));
    TR_TRY(place(p, TR_IMAGE_GATE_UP, i, matrix, 2 * c->ffn, c->hidden, 2,
                 (const tr_tensor_role[]){TR_TENSOR_GATE, TR_TENSOR_UP}, err));
    TR_TRY(place(p, TR_IMAGE_DOWN, i, matrix, c->hidden, c->ffn, ONE(DOWN), err));
    if (c->has_post_norms)
        TR_TRY(place(p, TR_IMAGE_FFN_POST_NORM, i, TR_IMAGE_F32, 1, c->hidden, ONE(FFN_POST_NORM), err));
    return TR_OK;
}

/* bf16 and native: one matrix, two uses, where the embedding is tied. */
static tr_status place_vocabulary(plan *p, const tr_model_config *c, tr_image_kind matrix, tr_error *err) {
    bool once = c->tied_embeddings && (p->precision == TR_PRECISION_BF16 || p->precision == TR_PRECISION_NATIVE);
    if (!once) {
        TR_TRY(place(p, TR_IMAGE_EMBED, 0, TR_IMAGE_BF16_ROWS, c->vocab, c->hidden, ONE(EMBED), err));
        const bool planes = p->precision == TR_PRECISION_INT8 && c->hidden <= TR_PLANES_K_MAX;
        return place(p, TR_IMAGE_HEAD, 0, planes ? TR_IMAGE_INT8_PLANES : matrix, c->vocab, c->hidden, ONE(OUTPUT),
                     err);
    }
    TR_TRY(place(p, TR_IMAGE_EMBED, 0, matrix, c->vocab, c->hidden, ONE(EMBED), err));
    p->at[p->n] = p->at[p->n - 1];
    p->at[p->n].n_parts = 0;
    p->at[p->n++].e.role = TR_IMAGE_HEAD;
    return TR_OK;
}

static tr_status make_plan(const tr_model_file *mf, tr_precision precision, plan *p, tr_error *err) {
    const tr_model_config *c = tr_model_file_config(mf);
    tr_image_kind matrix = precision == TR_PRECISION_BF16   ? TR_IMAGE_BF16_PACK
                           : precision == TR_PRECISION_INT8 ? TR_IMAGE_INT8_PACK
                                                            : TR_IMAGE_GROUPS;
    p->mf = mf;
    p->precision = precision;
    p->n = 0;
    p->bytes = tr_align_up(sizeof(tr_image_format_header), TR_IMAGE_FORMAT_ALIGN) +
               tr_align_up(TR_IMAGE_FORMAT_TENSORS_MAX * sizeof(tr_image_format_entry), TR_IMAGE_FORMAT_ALIGN);
    TR_TRY(place_vocabulary(p, c, matrix, err));
    TR_TRY(place(p, TR_IMAGE_OUTPUT_NORM, 0, TR_IMAGE_F32, 1, c->hidden, ONE(OUTPUT_NORM), err));
    if (c->has_rope_freq_factors) {
        TR_TRY(place(p, TR_IMAGE_ROPE_FREQS, 0, TR_IMAGE_F32, 1, c->head_dim / 2, ONE(ROPE_FREQS), err));
        p->at[p->n - 1].n_parts = 0; /* from the config */
    }
    for (uint32_t i = 0; i < c->n_layers; i++) TR_TRY(place_layer(p, c, matrix, i, err));
    return TR_OK;
}

tr_status tr_pack_bytes(const tr_model_file *mf, tr_precision precision, uint64_t *bytes_out, tr_error *err) {
    plan *p = malloc(sizeof *p);
    if (!p) return tr_error_set(err, TR_UNAVAILABLE, "no memory to plan a packed image");
    tr_status status = make_plan(mf, precision, p, err);
    if (status == TR_OK) *bytes_out = p->bytes;
    free(p);
    return status;
}

/* ---- one block of 16 rows ---- */

/* Part that holds a row of the tensor; *row becomes that of the part. */
static uint32_t part_of(const packer *pk, uint32_t *row) {
    uint32_t part = 0;
    while (*row >= pk->view[part].rows) *row -= pk->view[part++].rows;
    return part;
}

static void source_row(const packer *pk, uint32_t row, float *out) {
    uint32_t part = part_of(pk, &row);
    tr_model_file_row(pk->mf, &pk->view[part], row, out);
}

static void pack_bf16(const plan_entry *p, uint32_t block, const float *rows, uint16_t *out) {
    for (uint32_t k = 0; k < p->e.k; k++)
        for (uint32_t r = 0; r < 16; r++)
            out[(uint64_t)block * 16 * p->e.k + ((uint64_t)(k / 2) * 16 + r) * 2 + k % 2] =
                tr_f32_to_bf16(rows[(size_t)r * p->e.k + k]);
}

/* Rotate, then the same rounding as activations get (kernels/fixed_math.h). */
static void pack_int8(packer *pk, const plan_entry *p, uint32_t block, float *rows, int8_t *out) {
    int32_t *comp = (int32_t *)(void *)(pk->image + p->e.comp);
    float *scale = (float *)(void *)(pk->image + p->e.scale);
    for (uint32_t r = 0; r < 16; r++) {
        float *row = rows + (size_t)r * p->e.k;
        uint32_t absmax = 0; /* as bits: a NaN or an infinity wins */
        int32_t sum = 0;
        pk->ops->hadamard(row, p->e.k, p->e.rotation);
        for (uint32_t k = 0; k < p->e.k; k++) {
            uint32_t bits = tr_fixed_math_bits(row[k]) & 0x7fffffffu;
            absmax = bits > absmax ? bits : absmax;
        }
        float by = tr_fixed_math_quant_scale(absmax, &scale[block * 16 + r]);
        if (!isfinite(scale[block * 16 + r])) atomic_store(&pk->failed, FAILED_VALUE);
        for (uint32_t k = 0; k < p->e.k; k++) {
            int32_t v = tr_fixed_math_quant(row[k], by);
            out[((uint64_t)(k / 4) * 16 + r) * 4 + k % 4] = (int8_t)v;
            sum += v;
        }
        comp[block * 16 + r] = -128 * sum;
    }
}

static tr_planes planes_of(const packer *pk, const plan_entry *p) {
    return (tr_planes){.upper = pk->image + p->e.data,
                       .lower = pk->image + p->e.lower,
                       .coord = (const uint16_t *)(const void *)(pk->image + p->e.coord),
                       .k = p->e.k,
                       .block = p->e.rotation};
}

/* A block lies in one part. The file is all zeros until now. */
static void pack_groups(packer *pk, const plan_entry *p, uint32_t block, float *rows) {
    uint32_t first = block * 16, part = part_of(pk, &first);
    const tr_groups_format format = (tr_groups_format)p->e.format[part];
    const tr_model_file_view *v = &pk->view[part];
    uint8_t *out = pk->image + p->e.data + (uint64_t)first / 16 * tr_groups_block_bytes(format, p->e.k);
    for (uint32_t i = 0; i < part; i++) out += tr_image_format_part_bytes(&p->e, i);
    for (uint32_t r = 0; r < 16 && first + r < v->rows; r++) {
        if (pk->plan->precision == TR_PRECISION_NATIVE) {
            const uint8_t *src = v->data + tr_model_file_source_row(v, first + r) * v->row_bytes;
            tr_pack_groups_copy(v->type, src, p->e.k, out, r);
        } else {
            float *row = rows + (size_t)r * p->e.k;
            pk->ops->hadamard(row, p->e.k, p->e.rotation);
            tr_pack_groups_round(format, row, p->e.k, out, r);
        }
    }
}

static void pack_block(packer *pk, const plan_entry *p, uint32_t block, float *rows) {
    for (uint32_t r = 0; r < 16; r++) {
        float *row = rows + (size_t)r * p->e.k;
        if (block * 16 + r >= p->e.n) {
            memset(row, 0, p->e.k * sizeof *row);
            continue;
        }
        source_row(pk, block * 16 + r, row);
        for (uint32_t k = 0; k < p->e.k; k++)
            if (!isfinite(row[k])) atomic_store(&pk->failed, FAILED_VALUE);
    }
    if (atomic_load(&pk->failed)) return;
    if (p->e.kind == TR_IMAGE_BF16_PACK)
        pack_bf16(p, block, rows, (uint16_t *)(void *)(pk->image + p->e.data));
    else if (p->e.kind == TR_IMAGE_INT8_PACK)
        pack_int8(pk, p, block, rows, (int8_t *)pk->image + p->e.data + (uint64_t)block * 16 * p->e.k);
    else if (p->e.kind == TR_IMAGE_INT8_PLANES) {
        int8_t *packed = (int8_t *)(rows + (size_t)16 * p->e.k); /* room behind the rows: work() */
        pack_int8(pk, p, block, rows, packed);
        const tr_planes w = planes_of(pk, p);
        tr_planes_pack_block(&w, block, packed);
    } else if (p->e.kind == TR_IMAGE_GROUPS)
        pack_groups(pk, p, block, rows);
    else if (p->e.kind == TR_IMAGE_F32)
        memcpy(pk->image + p->e.data, rows, p->e.k * sizeof *rows);
    else
        for (uint32_t r = 0; r < 16 && block * 16 + r < p->e.n; r++) {
            uint16_t *out = (uint16_t *)(void *)(pk->image + p->e.data) + ((uint64_t)block * 16 + r) * p->e.k;
            for (uint32_t k = 0; k < p->e.k; k++) out[k] = tr_f32_to_bf16(rows[(size_t)r * p->e.k + k]);
        }
}

static void work(packer *pk, bool report) {
    const plan_entry *p = pk->current;
    const uint32_t blocks = (uint32_t)tr_div_up(p->e.n, 16);
    float *rows = aligned_alloc(64, tr_align_up((size_t)16 * p->e.k * (sizeof(float) + 1), 64)); /* and as int8 */
    if (!rows) {
        atomic_store(&pk->failed, FAILED_MEMORY);
        return;
    }
    uint32_t done = 0;
    for (uint32_t b; (b = atomic_fetch_add(&pk->next_block, 1)) < blocks && !atomic_load(&pk->failed); done++) {
        pack_block(pk, p, b, rows);
        if (report && done % PROGRESS_BLOCKS == 0)
            pk->progress(pk->progress_arg, p->e.data + tr_image_format_data_bytes(&p->e) / blocks * b, pk->plan->bytes);
    }
    free(rows);
}

static void *pack_thread(void *arg) {
    work(arg, false);
    return NULL;
}

/* ---- coordinates of the head ---- */

typedef struct candidate {
    double score;
    uint32_t at;
} candidate;

static int by_score(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : (x->at > y->at) - (x->at < y->at);
}

/* The coordinates that the planes of the head take out of the bound (kernels/planes.h): any are right, good are those
 * in which the last hidden state is long. Without running the model: a state is long where a coordinate moves all
 * logits alike, since softmax does not see that; so where the weights' mean is large beside their deviation, times the
 * norm's weight. Measured in docs/SPEED.md. */
static tr_status choose_coordinates(packer *pk, const plan_entry *p, tr_error *err) {
    enum { EVERY = 16 };
    const uint32_t k = p->e.k;
    tr_model_file_view norm;
    TR_TRY(tr_model_file_tensor(pk->mf, TR_TENSOR_OUTPUT_NORM, 0, &norm, err));
    float *row = malloc(2 * (size_t)k * sizeof *row), *weight = row + k;
    double *sum = calloc(2 * (size_t)k, sizeof *sum), *square = sum + k;
    candidate *c = malloc(k * sizeof *c);
    const bool there = row && sum && c;
    if (there) {
        tr_model_file_row(pk->mf, &norm, 0, weight);
        double n = 0;
        for (uint32_t r = 0; r < p->e.n; r += EVERY, n++) {
            source_row(pk, r, row);
            for (uint32_t i = 0; i < k; i++) sum[i] += (double)row[i], square[i] += (double)row[i] * (double)row[i];
        }
        for (uint32_t i = 0; i < k; i++) {
            double mean = sum[i] / n, variance = square[i] / n - mean * mean;
            double score = fabs((double)weight[i] * mean) / sqrt(fmax(variance, 1e-30));
            c[i] = (candidate){isfinite(score) ? score : 0, i};
        }
        qsort(c, k, sizeof *c, by_score);
        uint16_t *coord = (uint16_t *)(void *)(pk->image + p->e.coord);
        for (uint32_t j = 0; j < tr_planes_coords(k); j++) coord[j] = (uint16_t)c[j].at;
    }
    free(row);
    free(sum);
    free(c);
    return there ? TR_OK : tr_error_set(err, TR_UNAVAILABLE, "no memory to pack the weights");
}

static tr_status pack_tensor(packer *pk, const plan_entry *p, uint32_t n_threads, tr_error *err) {
    for (uint32_t i = 0; i < p->n_parts; i++)
        TR_TRY(tr_model_file_tensor(pk->mf, p->part[i], p->e.layer, &pk->view[i], err));
    if (p->e.kind == TR_IMAGE_INT8_PLANES) TR_TRY(choose_coordinates(pk, p, err));
    pk->current = p;
    atomic_store(&pk->next_block, 0);
    pthread_t thread[64];
    uint32_t started = 0;
    if (n_threads > 64) n_threads = 64;
    if (p->e.n >= 256)
        while (started + 1 < n_threads && pthread_create(&thread[started], NULL, pack_thread, pk) == 0) started++;
    work(pk, pk->progress != NULL);
    for (uint32_t i = 0; i < started; i++) pthread_join(thread[i], NULL);
    if (atomic_load(&pk->failed) == FAILED_MEMORY)
        return tr_error_set(err, TR_UNAVAILABLE, "no memory to pack the weights");
    if (atomic_load(&pk->failed))
        return tr_error_set(err, TR_DATA, "%s: %s of layer %u holds a weight that is not a finite number",
                            tr_model_file_path(pk->mf), tr_model_file_role_name(p->part[0]), p->e.layer);
    return TR_OK;
}

/* ---- the file ---- */

/* Zeros by large writes: file systems with large folios then hold the file in pages of up to 2 MiB, which a later start
 * maps with a fraction of the page faults. Pages that come into being by a store through a mapping are small. Returns 0
 * or an errno. */
static int fill_file(int fd, uint64_t bytes) {
    const size_t piece = (size_t)4 << 20;
    void *zeros = calloc(1, piece);
    if (!zeros) return ENOMEM;
    int e = 0;
    for (uint64_t at = 0; at < bytes && e == 0;) {
        ssize_t n = pwrite(fd, zeros, bytes - at < piece ? bytes - at : piece, (off_t)at);
        if (n > 0)
            at += (uint64_t)n;
        else if (n == 0 || errno != EINTR)
            e = n == 0 ? ENOSPC : errno;
    }
    free(zeros);
    return e;
}

static tr_status reserve_file(int fd, uint64_t bytes, tr_error *err) {
    int e = ftruncate(fd, (off_t)bytes) == 0 ? posix_fallocate(fd, 0, (off_t)bytes) : errno;
    if (e == 0) e = fill_file(fd, bytes);
    if (e == 0) return TR_OK;
    struct statvfs fs;
    uint64_t have = fstatvfs(fd, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
    return tr_error_set(err, TR_CANNOT_CREATE,
                        "no room for the packed weights: %" PRIu64 " MiB needed, %" PRIu64 " MiB free (%s)",
                        bytes >> 20, have >> 20, strerror(e));
}

static void write_head(packer *pk, const tr_model_config *config, tr_precision precision, uint64_t model_hash) {
    tr_image_format_header *h = (void *)pk->image;
    *h = (tr_image_format_header){.magic = TR_IMAGE_FORMAT_MAGIC,
                                  .version = TR_IMAGE_VERSION,
                                  .precision = precision,
                                  .model_hash = model_hash,
                                  .file_bytes = pk->plan->bytes,
                                  .config_bytes = sizeof *config,
                                  .n_tensors = pk->plan->n,
                                  .index_offset = tr_align_up(sizeof *h, TR_IMAGE_FORMAT_ALIGN),
                                  .config = *config};
    tr_image_format_entry *index = (void *)(pk->image + h->index_offset);
    for (uint32_t i = 0; i < pk->plan->n; i++) index[i] = pk->plan->at[i].e;
}

static tr_status pack_all(packer *pk, const tr_model_config *config, uint32_t n_threads, tr_error *err) {
    for (uint32_t i = 0; i < pk->plan->n; i++) {
        const plan_entry *p = &pk->plan->at[i];
        if (p->e.role == TR_IMAGE_ROPE_FREQS)
            memcpy(pk->image + p->e.data, config->rope_freq_factors, p->e.k * sizeof(float));
        else if (p->n_parts)
            TR_TRY(pack_tensor(pk, p, n_threads, err));
    }
    if (pk->progress) pk->progress(pk->progress_arg, pk->plan->bytes, pk->plan->bytes);
    return TR_OK;
}

tr_status tr_pack_image(const tr_model_file *mf, tr_precision precision, uint64_t model_hash, int fd,
                        uint32_t n_threads, tr_pack_progress progress, void *progress_arg, tr_error *err) {
    const tr_model_config *config = tr_model_file_config(mf);
    packer pk = {.mf = mf, .progress = progress, .progress_arg = progress_arg};
    plan *p = malloc(sizeof *p);
    if (!p) return tr_error_set(err, TR_UNAVAILABLE, "no memory to plan a packed image");
    pk.plan = p;
    tr_status status = tr_ops_select(&pk.ops, err);
    if (status == TR_OK) status = make_plan(mf, precision, p, err);
    if (status == TR_OK) status = reserve_file(fd, p->bytes, err);
    void *map = MAP_FAILED;
    if (status == TR_OK && (map = mmap(NULL, p->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
        status = tr_error_set(err, TR_SYSTEM, "cannot map the packed image: %s", strerror(errno));
    if (status == TR_OK) {
        pk.image = map;
        write_head(&pk, config, precision, model_hash);
        status = pack_all(&pk, config, n_threads, err);
        if (status == TR_OK) ((tr_image_format_header *)map)->complete = TR_IMAGE_FORMAT_MAGIC;
    }
    if (map != MAP_FAILED) munmap(map, p->bytes);
    free(p);
    return status;
}
