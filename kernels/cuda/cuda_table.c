#include "kernels/cuda/cuda_table.h"

#include "base/checked.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/kv_page.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ITEMS = 16 };

/* What a call has on the device. */
static struct {
    void *host, *device;
    size_t bytes;
    bool back;
} item[ITEMS];
static size_t items;

static void must(tr_status s, const tr_error *err) {
    if (s == TR_OK) return;
    fprintf(stderr, "cuda: %s\n", err->text);
    abort();
}

static void *staged(const void *host, size_t bytes, bool back) {
    tr_error err = {0};
    void *device = NULL;
    tr_check(items < ITEMS && bytes > 0);
    must(tr_cuda_memory_create(0, TR_CUDA_MEMORY_DEVICE, bytes, &device, &err), &err);
    if (host) must(tr_cuda_memory_copy(NULL, device, host, bytes, &err), &err);
    item[items].host = (void *)(uintptr_t)host;
    item[items].device = device;
    item[items].bytes = bytes;
    item[items++].back = back;
    return device;
}
static void *in(const void *host, size_t bytes) { return staged(host, bytes, false); }
static void *out(void *host, size_t bytes) { return staged(host, bytes, true); }
static void *scratch(size_t bytes) { return staged(NULL, bytes, false); }

/* Runs what was queued, brings the results back and frees. */
static void finish(void) {
    tr_error err = {0};
    must(tr_cuda_memory_wait(NULL, &err), &err);
    for (size_t i = 0; i < items; i++)
        if (item[i].back) must(tr_cuda_memory_copy(NULL, item[i].host, item[i].device, item[i].bytes, &err), &err);
    must(tr_cuda_memory_wait(NULL, &err), &err);
    for (size_t i = 0; i < items; i++) tr_cuda_memory_destroy(TR_CUDA_MEMORY_DEVICE, item[i].device);
    items = 0;
}

static tr_cuda_rows row(void *device, size_t ld) { return (tr_cuda_rows){.data = device, .ld = ld}; }
static tr_cuda_rows row_in(const float *x, size_t n) { return row(in(x, n * sizeof *x), n); }
static tr_cuda_rows row_out(float *x, size_t n) { return row(out(x, n * sizeof *x), n); }

/* ---- rows ---- */

static void cuda_rmsnorm(float *y, const float *x, const float *w, size_t n, float eps) {
    tr_cuda_rows from = row_in(x, n);
    tr_cuda_ops_rmsnorm(NULL, row_out(y, n), from, in(w, n * sizeof *w), 1, n, eps);
    finish();
}
static void cuda_bf16_row(void *to, const float *x, size_t k) {
    tr_cuda_ops_bf16_row(NULL, out(to, 4 * k), 4 * k, row_in(x, k), 1, k);
    finish();
}
static void cuda_hadamard(float *x, size_t n, size_t block) {
    tr_cuda_ops_hadamard(NULL, row_out(x, n), 1, n, block);
    finish();
}
static void cuda_quant_u8(uint8_t *q, float *scale, const float *x, float *tmp, size_t n, size_t block) {
    tr_cuda_rows work = row_out(tmp, n), from = x == tmp ? work : row_in(x, n);
    tr_cuda_ops_quant_u8(NULL, out(q, n), n, out(scale, sizeof *scale), from, work, 1, n, block);
    finish();
}
static void cuda_quant_u16(uint8_t *q, size_t ld, float *scale, const float *x, float *tmp, size_t n, size_t block) {
    tr_cuda_rows work = row_out(tmp, n), from = x == tmp ? work : row_in(x, n);
    tr_cuda_ops_quant_u16(NULL, out(q, ld + n), ld, out(scale, sizeof *scale), from, work, 1, n, block);
    finish();
}
static void cuda_quant_groups(uint8_t *q, const float *x, float *tmp, size_t n, size_t block) {
    tr_cuda_rows work = row_out(tmp, n), from = x == tmp ? work : row_in(x, n);
    const size_t bytes = n + n / 8 * 5; /* what tr_groups_x_bytes rounds up */
    tr_cuda_ops_quant_groups(NULL, out(q, bytes), bytes, from, work, 1, n, block);
    finish();
}
/* The block of 16 rows that holds the row. */
static void cuda_embed_packed(float *y, const uint16_t *w, size_t k, size_t r, float scale) {
    const uint32_t token = (uint32_t)(r % 16);
    tr_cuda_ops_embed_packed(NULL, row_out(y, k), in(w + r / 16 * 16 * k, 32 * k), k, in(&token, sizeof token), 1,
                             scale);
    finish();
}
static void cuda_embed_rows(float *y, const uint16_t *w, size_t k, size_t r, float scale) {
    const uint32_t token = 0;
    tr_cuda_ops_embed_rows(NULL, row_out(y, k), in(w + r * k, 2 * k), k, in(&token, sizeof token), 1, scale);
    finish();
}
static size_t cuda_argmax(const float *x, size_t n, float *max_out) {
    size_t index = 0;
    if (n == 0) {
        *max_out = -INFINITY;
        return 0;
    }
    tr_cuda_ops_argmax(NULL, out(&index, sizeof index), out(max_out, sizeof *max_out), row_in(x, n), 1, n);
    finish();
    return index;
}
static size_t cuda_at_least(const float *x, size_t n, float least, uint32_t *index) {
    size_t count = 0;
    if (n == 0) return 0;
    tr_cuda_ops_at_least(NULL, out(&count, sizeof count), out(index, n * sizeof *index), n, row_in(x, n), 1, n, least);
    finish();
    return count;
}

/* ---- matmuls ---- */

/* From the first to the last number of rows that are `ld` apart and `n` long. */
static size_t extent(size_t rows, size_t ld, size_t n) { return (rows - 1) * ld + n; }
static float *y_out(float *y, size_t rows, size_t ldy, size_t block0, size_t blocks) {
    const size_t from = 16 * block0; /* channels before may not exist */
    return (float *)out(y + from, extent(rows, ldy, 16 * blocks) * sizeof *y) - from;
}

static void cuda_gemm_bf16(const tr_gemm_bf16_args *a) {
    if (a->rows == 0 || a->blocks == 0) return;
    const size_t n = 16 * (a->block0 + a->blocks);
    tr_gemm_bf16_args d = *a;
    d.x = in(a->x, extent(a->rows, a->ldx, 4 * a->k));
    d.w = in(a->w, n * a->k * sizeof *a->w);
    d.y = y_out(a->y, a->rows, a->ldy, a->block0, a->blocks);
    tr_cuda_ops_gemm_bf16(NULL, d);
    finish();
}
static tr_gemm_i8_args i8_in(const tr_gemm_i8_args *a, size_t planes) {
    const size_t n = 16 * (a->block0 + a->blocks);
    tr_gemm_i8_args d = *a;
    d.x = in(a->x, extent(planes * a->rows, a->ldx, a->k));
    d.x_scale = in(a->x_scale, a->rows * sizeof *a->x_scale);
    d.w = in(a->w, n * a->k);
    d.comp = in(a->comp, n * sizeof *a->comp);
    d.w_scale = in(a->w_scale, n * sizeof *a->w_scale);
    d.y = y_out(a->y, a->rows, a->ldy, a->block0, a->blocks);
    return d;
}
static void cuda_gemm_i8(const tr_gemm_i8_args *a) {
    if (a->rows == 0 || a->blocks == 0) return;
    tr_cuda_ops_gemm_i8(NULL, i8_in(a, 1));
    finish();
}
static void cuda_gemm_i8a16(const tr_gemm_i8a16_args *a) {
    if (a->rows == 0 || a->blocks == 0) return;
    tr_cuda_ops_gemm_i8a16(NULL, i8_in(a, 2));
    finish();
}
static void cuda_gemm_groups(const tr_gemm_groups_args *a) {
    if (a->rows == 0 || a->blocks == 0) return;
    tr_gemm_groups_args d = *a;
    d.x = in(a->x, extent(a->rows, a->ldx, a->k + a->k / 8 * 5));
    d.w = in(a->w, (a->block0 + a->blocks) * tr_groups_block_bytes(a->format, a->k));
    d.y = y_out(a->y, a->rows, a->ldy, a->block0, a->blocks);
    tr_cuda_ops_gemm_groups(NULL, d);
    finish();
}

/* Of the blocks [0, blocks). lower: wanted too. */
static tr_planes planes_in(const tr_planes *w, size_t blocks, bool lower) {
    tr_planes d = *w;
    d.upper = in(w->upper, blocks * tr_planes_lines(w->k) * TR_PLANES_LINE);
    d.lower = lower ? in(w->lower, blocks * 16 * (w->k / 2)) : NULL;
    d.scale = in(w->scale, blocks * 16 * sizeof *w->scale);
    d.coord = NULL; /* kernels do not look at it */
    return d;
}
static tr_planes_query query_in(const tr_planes *w, const tr_planes_query *q) {
    tr_planes_query d = *q;
    d.x = in(q->x, tr_planes_query_bytes(w->k));
    return d;
}
static void cuda_planes_bound(const tr_planes_args *a) {
    for (size_t r = 0; r < a->rows; r++) { /* rows one by one: each has memory of its own */
        const tr_planes w = planes_in(a->w, a->block0 + a->blocks, false);
        const tr_planes_query q = query_in(a->w, &a->query[r]);
        tr_planes_args d = *a;
        d.rows = 1;
        d.query = in(&q, sizeof q);
        d.bound = out(a->bound + r * a->ld, 16 * a->blocks * sizeof *a->bound);
        d.coarse = out(a->coarse + r * a->ld, 16 * a->blocks * sizeof *a->coarse);
        tr_cuda_ops_planes_bound(NULL, d, w);
        finish();
    }
}
static float cuda_planes_output(const tr_planes *w, const tr_planes_query *q, size_t n, int32_t coarse) {
    const uint32_t channel = (uint32_t)n;
    float y = 0.0f;
    const tr_planes d = planes_in(w, n / 16 + 1, true);
    tr_cuda_ops_planes_output(NULL, out(&y, sizeof y), d, query_in(w, q), in(&channel, sizeof channel),
                              in(&coarse, sizeof coarse), 1);
    finish();
    return y;
}
static void cuda_planes_unpack(int8_t *to, const tr_planes *w, size_t block) {
    const tr_planes d = planes_in(w, block + 1, true);
    tr_cuda_ops_planes_unpack(NULL, out(to, (size_t)16 * w->k), d, block, 1);
    finish();
}

/* ---- heads and elements ---- */

static void cuda_rope(float *x, const float *cs, size_t d) {
    tr_cuda_rows angles = row_in(cs, d);
    tr_cuda_ops_rope(NULL, row_out(x, d), angles, 1, 1, d);
    finish();
}
static void cuda_add(float *y, const float *x, size_t n) {
    if (n == 0) return;
    tr_cuda_ops_add(NULL, out(y, n * sizeof *y), in(x, n * sizeof *x), n);
    finish();
}
static void cuda_gelu_mul(float *y, const float *gate, const float *up, size_t n) {
    if (n == 0) return;
    const float *g = in(gate, n * sizeof *gate), *u = in(up, n * sizeof *up);
    tr_cuda_ops_gelu_mul(NULL, out(y, n * sizeof *y), g, u, n);
    finish();
}
static void cuda_silu_mul(float *y, const float *gate, const float *up, size_t n) {
    if (n == 0) return;
    const float *g = in(gate, n * sizeof *gate), *u = in(up, n * sizeof *up);
    tr_cuda_ops_silu_mul(NULL, out(y, n * sizeof *y), g, u, n);
    finish();
}

/* ---- KV pages ---- */

static tr_cuda_tiles tile_out(tr_kv_format f, uint8_t *tile, uint32_t t, uint32_t d) {
    static const size_t begin = 0;
    return (tr_cuda_tiles){
        .tiles = out(tile, tr_kv_tile_bytes(f, d)), .offset = in(&begin, sizeof begin), .t = in(&t, sizeof t)};
}
static tr_kv_head head_in(const tr_kv_head *h, uint32_t d) {
    tr_kv_head on = {0};
    if (h == NULL) return on;
    on = *h;
    if (h->k_step) on.k_step = in(h->k_step, d * sizeof(float));
    if (h->v_step) on.v_step = in(h->v_step, d * sizeof(float));
    if (h->k_mul) on.k_mul = in(h->k_mul, d * sizeof(float));
    if (h->v_mul) on.v_mul = in(h->v_mul, d * sizeof(float));
    return on;
}
static void cuda_kv_store_bf16(uint8_t *tile, uint32_t t, const float *k, const float *v, uint32_t d) {
    tr_cuda_rows from = row_in(k, d);
    tr_cuda_ops_kv_store_bf16(NULL, tile_out(TR_KV_BF16, tile, t, d), from, row_in(v, d), 1, d);
    finish();
}
static void cuda_kv_store_int8(uint8_t *tile, uint32_t t, const float *k, const float *v, uint32_t d, float *tmp) {
    tr_cuda_rows work = row_out(tmp, d), from = tmp == k ? work : row_in(k, d);
    tr_cuda_ops_kv_store_int8(NULL, tile_out(TR_KV_INT8, tile, t, d), from, row_in(v, d), 1, d, work);
    finish();
}
static void cuda_kv_store_int8_static(uint8_t *tile, uint32_t t, const float *k, const float *v, uint32_t d, float *tmp,
                                      const tr_kv_head *head) {
    tr_cuda_rows work = row_out(tmp, d), from = tmp == k ? work : row_in(k, d);
    tr_cuda_ops_kv_store_int8_static(NULL, tile_out(TR_KV_INT8_STATIC, tile, t, d), from, row_in(v, d), 1, d, work,
                                     head_in(head, d));
    finish();
}
static void cuda_kv_convert_bf16_int8(uint8_t *dst, uint32_t dst_t0, const uint8_t *src, uint32_t src_t0, uint32_t n,
                                      uint32_t d, const uint8_t *next, float *tmp) {
    (void)next;
    (void)tmp;
    if (n == 0) return;
    uint8_t *to = out(dst, tr_kv_tile_bytes(TR_KV_INT8, d));
    const uint8_t *from = in(src, tr_kv_tile_bytes(TR_KV_BF16, d));
    tr_cuda_ops_kv_convert_bf16_int8(NULL, to, dst_t0, from, src_t0, n, d,
                                     row(scratch((size_t)n * d * sizeof *tmp), d));
    finish();
}

/* ---- attention ---- */

/* The pages that the rows see, one after another, with a table of their own: others may not exist. */
static void pages_in(const tr_attn_args *a, tr_attn_args *d, uint32_t first, uint32_t end) {
    const uint32_t from = first / a->page_tok, n = (end + a->page_tok - 1) / a->page_tok;
    uint8_t *pages = calloc(n - from, a->page_bytes);
    uint32_t *table = calloc(n, sizeof *table);
    tr_check(pages && table);
    for (uint32_t p = from; p < n; p++) {
        table[p] = p - from;
        memcpy(pages + (size_t)(p - from) * a->page_bytes, a->pages + (size_t)a->table[p] * a->page_bytes,
               a->page_bytes);
    }
    d->pages = in(pages, (n - from) * a->page_bytes);
    d->table = in(table, n * sizeof *table);
    tr_error err = {0};
    must(tr_cuda_memory_wait(NULL, &err), &err); /* the copies are made from memory that ends here */
    free(pages);
    free(table);
}

static void attention(tr_kv_format format, const tr_attn_args *a) {
    const uint32_t first = a->window && a->pos0 + 1 > a->window ? a->pos0 + 1 - a->window : 0, end = a->pos0 + a->rows;
    const size_t wide = (size_t)a->heads * a->d, floats = tr_ops_attn_part_floats(a->d);
    const uint32_t splits = tr_cuda_ops_attn_splits(a->pos0, a->rows, a->window);
    const size_t part_floats = (size_t)a->rows * a->heads * splits * floats;
    tr_attn_args d = *a;
    d.q = in(a->q, extent(a->rows, a->ldq, wide) * sizeof *a->q);
    float *result =
        a->part ? scratch(wide * sizeof *result) : out(a->out, extent(a->rows, a->ldo, wide) * sizeof *a->out);
    d.out = result;
    if (a->part) d.ldo = wide;
    pages_in(a, &d, first, end);
    const tr_kv_head head = head_in(a->kv, a->d);
    float *parts = calloc(part_floats, sizeof *parts);
    tr_check(parts != NULL);
    tr_cuda_ops_attn(NULL, format, d, head, out(parts, part_floats * sizeof *parts));
    finish();
    if (a->part) /* of one row: the split that was asked for */
        for (uint32_t h = 0; h < a->heads; h++)
            memcpy(a->part + h * floats,
                   parts + ((size_t)h * splits + a->split - tr_cuda_ops_attn_first_split(a->pos0, a->window)) * floats,
                   (a->d + 2) * sizeof *parts);
    free(parts);
}
static void cuda_attn_bf16(const tr_attn_args *a) { attention(TR_KV_BF16, a); }
static void cuda_attn_int8(const tr_attn_args *a) { attention(TR_KV_INT8, a); }
static void cuda_attn_int8_static(const tr_attn_args *a) { attention(TR_KV_INT8_STATIC, a); }
static void cuda_attn_int8_residual(const tr_attn_args *a) { attention(TR_KV_INT8_RESIDUAL, a); }

/* ---- the table ---- */

const tr_ops *tr_cuda_table(void) {
    static tr_ops table;
    if (tr_cuda_memory_devices() == 0) return NULL;
    table = *tr_ops_find("ref"); /* attn_merge: a part of attn on the device */
    table.name = "cuda";
    table.rmsnorm = cuda_rmsnorm, table.bf16_row = cuda_bf16_row, table.hadamard = cuda_hadamard;
    table.quant_u8 = cuda_quant_u8, table.quant_u16 = cuda_quant_u16, table.quant_groups = cuda_quant_groups;
    table.embed_packed = cuda_embed_packed, table.embed_rows = cuda_embed_rows;
    table.argmax = cuda_argmax, table.at_least = cuda_at_least;
    table.gemm_bf16 = cuda_gemm_bf16, table.gemm_i8 = cuda_gemm_i8, table.gemm_i8a16 = cuda_gemm_i8a16;
    table.gemm_groups = cuda_gemm_groups;
    table.planes_bound = cuda_planes_bound, table.planes_output = cuda_planes_output;
    table.planes_unpack = cuda_planes_unpack;
    table.rope = cuda_rope, table.add = cuda_add, table.gelu_mul = cuda_gelu_mul, table.silu_mul = cuda_silu_mul;
    table.kv_store_bf16 = cuda_kv_store_bf16, table.kv_store_int8 = cuda_kv_store_int8;
    table.kv_store_int8_static = cuda_kv_store_int8_static;
    table.kv_convert_bf16_int8 = cuda_kv_convert_bf16_int8;
    table.attn_bf16 = cuda_attn_bf16, table.attn_int8 = cuda_attn_int8;
    table.attn_int8_static = cuda_attn_int8_static, table.attn_int8_residual = cuda_attn_int8_residual;
    return &table;
}
