#include "kernels/kernel_job.h"

#include "base/rng.h"
#include "kernels/kv_codec.h"
#include "kernels/kv_convert.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *take(tr_kernel_job *j, size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    tr_check(p != NULL && j->n_owned < 12);
    j->owned[j->n_owned++] = p;
    return p;
}
static float *take_floats(tr_kernel_job *j, size_t n) {
    float *x = take(j, n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(i * 37 % 101) / 50.0f - 1.0f;
    return x;
}
static void *take_bytes(tr_kernel_job *j, size_t n) {
    uint8_t *x = take(j, n);
    uint64_t s = 88172645463325252ull;
    for (size_t i = 0; i < n; i++) {
        if (i % 8 == 0) s = tr_rng_mix(s);
        x[i] = (uint8_t)(s >> i % 8 * 8);
    }
    return x;
}
static uint16_t *take_bf16(tr_kernel_job *j, size_t n) {
    uint16_t *x = take(j, n * 2);
    for (size_t i = 0; i < n; i++) x[i] = (uint16_t)(0x3f00 + (i * 29 % 97) + (i % 2 << 15));
    return x;
}

/* Attention over int8 pages is told in shares of the FMA peak: what it multiplies by has no port of its own. */
static tr_port attn_port(const tr_ops *ops, tr_kv_format f) {
    return f == TR_KV_INT8 && ops->bf16_port == TR_PORT_BF16_512 ? TR_PORT_FMA512 : ops->bf16_port;
}

static void run_bf16(const tr_kernel_job *j) { j->ops->gemm_bf16(&j->bf16); }
static void run_i8(const tr_kernel_job *j) { j->ops->gemm_i8(&j->i8); }
enum { PLANES_SLICE = 32 }; /* blocks whose bounds are looked at before those of the next */
static void run_planes(const tr_kernel_job *j) {
    tr_planes_args a = j->planes;
    a.w = &j->planes_w, a.query = j->query;
    for (size_t left = a.blocks; left > 0; left -= a.blocks, a.block0 += a.blocks) {
        a.blocks = left < PLANES_SLICE ? left : PLANES_SLICE;
        j->ops->planes_bound(&a);
    }
}
static void run_i8a16(const tr_kernel_job *j) { j->ops->gemm_i8a16(&j->i8); }
static void run_groups(const tr_kernel_job *j) { j->ops->gemm_groups(&j->groups); }
static void run_attn(const tr_kernel_job *j) { tr_kv_codec_attend(j->ops, j->kv, &j->attn); }

static void setup_bf16(tr_kernel_job *j, size_t rows, size_t k, size_t n) {
    snprintf(j->name, sizeof j->name, "gemm_bf16 %zux%zu->%zu", rows, k, n);
    uint16_t *w = take_bf16(j, n * k);
    j->x = take_floats(j, rows * k);
    j->a = take(j, rows * k * sizeof(float));
    j->bf16 = (tr_gemm_bf16_args){.x = j->a,
                                  .w = w,
                                  .y = take_floats(j, rows * n),
                                  .rows = rows,
                                  .panel = take_floats(j, tr_ops_panel_floats(k)),
                                  .k = k,
                                  .ldx = k * sizeof(float),
                                  .ldy = n,
                                  .blocks = n / 16};
    j->macs = (double)rows * (double)k * (double)n;
    j->bytes = (double)n * (double)k * 2;
    j->limit = rows > 6 ? TR_KERNEL_JOB_PORT : TR_KERNEL_JOB_SUM;
    j->port = j->ops->bf16_port;
    j->mem = (const uint8_t *)w, j->mem_bytes = n * k * 2;
    j->run = run_bf16;
}

static void setup_i8(tr_kernel_job *j, size_t rows, size_t k, size_t n) {
    snprintf(j->name, sizeof j->name, "gemm_i8 %zux%zu->%zu", rows, k, n);
    int8_t *w = take_bytes(j, n * k);
    int32_t *comp = take(j, n * 4);
    memset(comp, 0, n * 4);
    j->i8 = (tr_gemm_i8_args){.x = take_bytes(j, rows * k),
                              .x_scale = take_floats(j, rows),
                              .w = w,
                              .comp = comp,
                              .w_scale = take_floats(j, n),
                              .y = take_floats(j, rows * n),
                              .rows = rows,
                              .k = k,
                              .ldx = k,
                              .ldy = n,
                              .blocks = n / 16};
    j->macs = (double)rows * (double)k * (double)n;
    j->bytes = (double)n * (double)k;
    j->limit = rows > 16 || n * k < 8u << 20 ? TR_KERNEL_JOB_PORT : TR_KERNEL_JOB_SUM;
    j->port = j->ops->int8_port;
    j->mem = (const uint8_t *)w, j->mem_bytes = n * k;
    j->run = run_i8;
}

static void setup_planes(tr_kernel_job *j, size_t rows, uint32_t k, size_t n) {
    snprintf(j->name, sizeof j->name, "planes_bound %zux%u->%zu", rows, k, n);
    const size_t bytes = n / 16 * tr_planes_lines(k) * TR_PLANES_LINE;
    uint16_t *coord = take(j, tr_planes_coords(k) * sizeof *coord);
    for (uint32_t i = 0; i < tr_planes_coords(k); i++) coord[i] = (uint16_t)(i * 7 % k);
    j->planes_w = (tr_planes){
        .upper = take_bytes(j, bytes), .scale = take_floats(j, n), .coord = coord, .k = k, .block = k & (~k + 1u)};
    int8_t *memory = take(j, rows * tr_planes_query_bytes(k)), *quads = take(j, 8 * rows * tr_planes_lines(k));
    const uint8_t *x = take_bytes(j, rows * k);
    for (size_t r = 0; r < rows; r++)
        tr_planes_query_init(&j->query[r], &j->planes_w, x + r * k, 1, memory + r * tr_planes_query_bytes(k),
                             quads + 8 * r, 8 * rows);
    j->planes = (tr_planes_args){.quads = quads,
                                 .bound = take_floats(j, rows * 16 * PLANES_SLICE),
                                 .coarse = take(j, rows * 16 * PLANES_SLICE * 4),
                                 .rows = rows,
                                 .ld = 16 * PLANES_SLICE,
                                 .blocks = n / 16};
    j->macs = (double)rows * k * (double)n;
    j->bytes = (double)bytes;
    j->limit = TR_KERNEL_JOB_SUM;
    j->mem = j->planes_w.upper, j->mem_bytes = bytes;
    j->run = run_planes;
}

static void setup_i8a16(tr_kernel_job *j, size_t rows, size_t k, size_t n) {
    setup_i8(j, rows, k, n);
    snprintf(j->name, sizeof j->name, "gemm_i8a16 %zux%zu->%zu", rows, k, n);
    j->i8.x = take_bytes(j, 2 * rows * k);
    j->macs *= 2; /* dot products that it takes */
    j->limit = rows > 1 ? TR_KERNEL_JOB_PORT : TR_KERNEL_JOB_SUM;
    j->run = run_i8a16;
}

static void setup_groups(tr_kernel_job *j, tr_groups_format format, size_t rows, size_t k, size_t n) {
    const tr_groups_info *f = tr_groups_describe(format);
    const size_t block_bytes = tr_groups_block_bytes(format, k);
    snprintf(j->name, sizeof j->name, "gemm_groups %s %zux%zu->%zu", f->name, rows, k, n);
    uint8_t *w = take_bytes(j, n / 16 * block_bytes), *x = take(j, rows * tr_groups_x_bytes(k));
    for (size_t b = 0; b < n / 16; b++) /* numbers near 1 for the f16 scales, the codes are random */
        for (size_t i = 0; i < tr_groups_scale_bytes(format, k); i += 2)
            w[b * block_bytes + i] = 0x31, w[b * block_bytes + i + 1] = 0x2c;
    float *in = take_floats(j, k), *tmp = take_floats(j, k);
    for (size_t r = 0; r < rows; r++) j->ops->quant_groups(x + r * tr_groups_x_bytes(k), in, tmp, k, 1);
    j->groups = (tr_gemm_groups_args){.x = x,
                                      .w = w,
                                      .y = take_floats(j, rows * n),
                                      .panel = take_floats(j, tr_ops_panel_floats(k)),
                                      .format = format,
                                      .rows = rows,
                                      .k = k,
                                      .ldx = tr_groups_x_bytes(k),
                                      .ldy = n,
                                      .blocks = n / 16};
    j->macs = (double)rows * (double)k * (double)n;
    j->bytes = (double)(n / 16 * block_bytes);
    j->limit = rows > 16 || n * k < 8u << 20 ? TR_KERNEL_JOB_PORT : TR_KERNEL_JOB_SUM;
    j->port = j->ops->int8_port;
    j->mem = w, j->mem_bytes = n / 16 * block_bytes;
    j->run = run_groups;
}

static void setup_attn(tr_kernel_job *j, tr_kv_format f, uint32_t rows, uint32_t pos0, uint32_t heads, uint32_t d,
                       uint32_t window) {
    enum { PAGE_TOK = 16 };
    snprintf(j->name, sizeof j->name, "attn_%s rows %u at %u d=%u heads=%u w=%u", tr_kv_format_name(f), rows, pos0, d,
             heads, window);
    uint32_t pages = (pos0 + rows + PAGE_TOK - 1) / PAGE_TOK;
    size_t page_bytes = tr_kv_page_bytes(f, d, PAGE_TOK);
    uint8_t *base = take(j, pages * page_bytes);
    uint32_t *table = take(j, pages * 4);
    float *k = take_floats(j, d), *v = take_floats(j, d), *tmp = take_floats(j, d), *step = take_floats(j, d);
    j->kv = f;
    j->head =
        (tr_kv_head){.k_step = step, .v_step = step, .k_mul = step, .v_mul = step}; /* bounds 0: every slot is used */
    for (uint32_t p = 0; p < pages; p++) {
        table[p] = p * 7 % pages;
        if (pages % 7 == 0) table[p] = p;
        for (uint32_t t = 0; t < PAGE_TOK; t++) {
            tr_kv_codec_store(j->ops, f, base + p * page_bytes, t, k, v, d, &j->head, tmp);
            tr_kv_codec_correct(j->ops, f, base + p * page_bytes, t, k, v, d, &j->head, tmp);
        }
    }
    j->attn = (tr_attn_args){.q = take_floats(j, (size_t)rows * heads * d),
                             .out = take_floats(j, (size_t)rows * heads * d),
                             .pages = base,
                             .table = table,
                             .page_bytes = page_bytes,
                             .ldq = (size_t)heads * d,
                             .ldo = (size_t)heads * d,
                             .page_tok = PAGE_TOK,
                             .rows = rows,
                             .heads = heads,
                             .d = d,
                             .pos0 = pos0,
                             .window = window,
                             .kv = &j->head,
                             .scale = 1.0f / sqrtf((float)d),
                             .scratch = take_floats(j, tr_ops_attn_scratch_floats(heads, d))};
    double seen = 0;
    for (uint32_t r = 0; r < rows; r++) seen += window && pos0 + r + 1 > window ? window : pos0 + r + 1;
    j->macs = seen * heads * d * 2;
    j->bytes = (double)(pages * page_bytes);
    j->limit = TR_KERNEL_JOB_PORT;
    j->port = attn_port(j->ops, f);
    j->run = run_attn;
}

static void run_rmsnorm(const tr_kernel_job *j) {
    for (size_t r = 0; r < j->rows; r++) j->ops->rmsnorm(j->y + r * j->n, j->x + r * j->n, j->z, j->n, 1e-6f);
}
static void run_quant(const tr_kernel_job *j) {
    float scale;
    for (size_t r = 0; r < j->rows; r++)
        j->ops->quant_u8(j->a + r * j->n, &scale, j->x + r * j->n, j->z, j->n, j->block);
}
static void run_bf16_row(const tr_kernel_job *j) {
    for (size_t r = 0; r < j->rows; r++) j->ops->bf16_row(j->y + r * j->n, j->x + r * j->n, j->n);
}
static void run_hadamard(const tr_kernel_job *j) {
    for (size_t r = 0; r < j->rows; r++) {
        memcpy(j->z, j->x + r * j->n, j->n * 4);
        j->ops->hadamard(j->z, j->n, j->block);
    }
}
static void run_gelu(const tr_kernel_job *j) { j->ops->gelu_mul(j->y, j->x, j->x, j->n * j->rows); }
static void run_silu(const tr_kernel_job *j) { j->ops->silu_mul(j->y, j->x, j->x, j->n * j->rows); }
static void run_add(const tr_kernel_job *j) { j->ops->add(j->y, j->x, j->n * j->rows); }
static void run_rope(const tr_kernel_job *j) {
    for (size_t r = 0; r < j->rows; r++) j->ops->rope(j->y + r * j->n, j->z, j->n);
}
static void run_argmax(const tr_kernel_job *j) {
    float m;
    j->a[0] = (uint8_t)j->ops->argmax(j->x, j->n * j->rows, &m);
}
static void run_store_bf16(const tr_kernel_job *j) {
    size_t bytes = tr_kv_tile_bytes(TR_KV_BF16, (uint32_t)j->n);
    for (size_t r = 0; r < j->rows; r++)
        j->ops->kv_store_bf16(j->a + r / 16 * bytes, r % 16, j->x + r * j->n, j->y + r * j->n, (uint32_t)j->n);
}
static void run_store_int8(const tr_kernel_job *j) {
    size_t bytes = tr_kv_tile_bytes(TR_KV_INT8, (uint32_t)j->n);
    for (size_t r = 0; r < j->rows; r++)
        j->ops->kv_store_int8(j->a + r / 16 * bytes, r % 16, j->x + r * j->n, j->y + r * j->n, (uint32_t)j->n, j->z);
}
static void run_convert(const tr_kernel_job *j) {
    uint32_t d = (uint32_t)j->n;
    for (size_t r = 0; r < j->rows; r += 16)
        j->ops->kv_convert_bf16_int8(j->b + r / 16 * tr_kv_tile_bytes(TR_KV_INT8, d), 0,
                                     j->a + r / 16 * tr_kv_tile_bytes(TR_KV_BF16, d), 0, 16, d, NULL, j->z);
}

static void setup_rows(tr_kernel_job *j, const char *name, void (*run)(const tr_kernel_job *), size_t rows, size_t n,
                       size_t block, double bytes_per_element) {
    snprintf(j->name, sizeof j->name, "%s %zux%zu", name, rows, n);
    j->run = run, j->rows = rows, j->n = n, j->block = block;
    j->x = take_floats(j, rows * n), j->y = take_floats(j, rows * n), j->z = take_floats(j, n > 64 ? n : 64);
    j->a = (uint8_t *)take_bf16(j, rows * n * 2), j->b = take_bytes(j, rows * n * 2 + rows * 8);
    j->bytes = (double)rows * (double)n * bytes_per_element;
    j->limit = TR_KERNEL_JOB_SUM;
    j->mem = (const uint8_t *)j->x, j->mem_bytes = rows * n * 4;
}

static void run_quant_groups(const tr_kernel_job *j) {
    for (size_t r = 0; r < j->rows; r++) j->ops->quant_groups(j->a, j->x + r * j->n, j->z, j->n, j->block);
}

static void run_reshard(const tr_kernel_job *j) {
    const uint32_t d = (uint32_t)j->n, run = (uint32_t)j->block;
    for (size_t r = 0, runs = j->rows / run; r < runs; r++) {
        const uint8_t *src = j->a + j->from_tile[r] * tr_kv_tile_bytes(j->from, d);
        const uint8_t *next = r + 1 < runs ? j->a + j->from_tile[r + 1] * tr_kv_tile_bytes(j->from, d) : NULL;
        tr_kv_convert_run(j->ops, j->to, j->b + j->to_tile[r] * tr_kv_tile_bytes(j->to, d), j->from, src, 0, run, d,
                          NULL, next, j->z);
    }
    tr_kv_convert_fence();
}

/* As a pool in use gives them: pages of one layer and head lie together, 8192 tokens of them here, in random order. */
static const uint32_t *take_tiles(tr_kernel_job *j, size_t runs, uint32_t run_tiles, uint64_t seed) {
    const size_t together = 512 / run_tiles;
    uint32_t *tile = take(j, runs * sizeof *tile);
    for (size_t i = 0; i < runs; i++) { /* each goes to a random place of its part so far */
        size_t k = i - (size_t)(tr_rng_hash(seed, i) % (i % together + 1));
        tile[i] = tile[k];
        tile[k] = (uint32_t)i * run_tiles;
    }
    return tile;
}

/* A hand-off from pages to pages, far larger than any cache. */
static void setup_reshard(tr_kernel_job *j, tr_kv_format from, tr_kv_format to, uint32_t from_page, uint32_t to_page,
                          uint32_t d) {
    const size_t tiles = (size_t)(128 << 20) / tr_kv_tile_bytes(from, d) / 4 * 4;
    const uint32_t run = (from_page < to_page ? from_page : to_page) / TR_KV_TILE_TOK;
    snprintf(j->name, sizeof j->name, "reshard %s->%s page %u->%u d %u", tr_kv_format_name(from), tr_kv_format_name(to),
             from_page, to_page, d);
    j->run = run_reshard, j->rows = tiles * TR_KV_TILE_TOK, j->n = d, j->block = run * TR_KV_TILE_TOK;
    j->from = from, j->to = to;
    j->a = (uint8_t *)take_bf16(j, tiles * tr_kv_tile_bytes(from, d) / 2);
    j->b = take_bytes(j, tiles * tr_kv_tile_bytes(from > to ? from : to, d) * 2);
    j->z = take_floats(j, d);
    j->from_tile = take_tiles(j, tiles / run, run, 1);
    j->to_tile = take_tiles(j, tiles / run, run, 2);
    j->bytes = (double)tiles * (double)(tr_kv_tile_bytes(from, d) + tr_kv_tile_bytes(to, d));
    j->limit = TR_KERNEL_JOB_COPY;
    j->mem = j->a, j->mem_bytes = (size_t)(j->bytes / 2) & ~(size_t)63;
}

static bool setup_reshards(tr_kernel_job *j, unsigned i) {
    static const struct {
        uint8_t from, to, from_page, to_page;
        uint16_t d;
    } row[] = {{TR_KV_BF16, TR_KV_INT8, 16, 16, 256}, {TR_KV_BF16, TR_KV_INT8, 16, 16, 64},
               {TR_KV_BF16, TR_KV_BF16, 16, 64, 256}, {TR_KV_BF16, TR_KV_BF16, 16, 64, 64},
               {TR_KV_INT8, TR_KV_INT8, 16, 16, 256}, {TR_KV_INT8, TR_KV_INT8, 16, 16, 64}};
    if (i >= sizeof row / sizeof *row) return false;
    setup_reshard(j, (tr_kv_format)row[i].from, (tr_kv_format)row[i].to, row[i].from_page, row[i].to_page, row[i].d);
    return true;
}

/* Weights in groups, and int8 weights with activations of 16 bits; hand-offs behind them. */
static bool setup_others(tr_kernel_job *j, unsigned i) {
    static const struct {
        uint8_t format;
        uint16_t rows, k;
        uint32_t n;
    } groups[] = {
        {TR_GROUPS_Q4_0, 1, 640, 262144},  {TR_GROUPS_Q4_1, 1, 576, 262144}, {TR_GROUPS_Q5_0, 1, 640, 262144},
        {TR_GROUPS_Q8_0, 1, 640, 131072},  {TR_GROUPS_NF4, 1, 640, 262144},  {TR_GROUPS_Q4_K, 1, 1024, 131072},
        {TR_GROUPS_Q6_K, 1, 2048, 65536},  {TR_GROUPS_Q4_0, 4, 640, 262144}, {TR_GROUPS_Q4_0, 8, 640, 262144},
        {TR_GROUPS_Q4_0, 16, 640, 262144}, {TR_GROUPS_Q8_0, 4, 640, 131072}, {TR_GROUPS_Q8_0, 16, 640, 131072},
        {TR_GROUPS_Q4_0, 1, 640, 1024},    {TR_GROUPS_Q4_0, 4, 640, 1024},   {TR_GROUPS_Q4_0, 6, 640, 1024},
        {TR_GROUPS_Q8_0, 1, 640, 1024},    {TR_GROUPS_Q5_0, 1, 640, 1024},   {TR_GROUPS_Q5_0, 512, 640, 4096},
        {TR_GROUPS_Q4_0, 512, 640, 4096},  {TR_GROUPS_Q8_0, 512, 640, 1536}, {TR_GROUPS_Q4_1, 512, 1536, 576},
        {TR_GROUPS_Q4_K, 512, 1024, 640},  {TR_GROUPS_Q6_K, 512, 2048, 640}};
    enum { GROUPS = sizeof groups / sizeof *groups };
    if (i < GROUPS)
        setup_groups(j, (tr_groups_format)groups[i].format, groups[i].rows, groups[i].k, groups[i].n);
    else if (i == GROUPS)
        setup_rows(j, "quant_groups", run_quant_groups, 512, 640, 1, 5);
    else if (i == GROUPS + 1)
        setup_rows(j, "quant_groups (128)", run_quant_groups, 512, 2048, 128, 5);
    else if (i == GROUPS + 2)
        setup_i8a16(j, 1, 640, 131072);
    else if (i == GROUPS + 3)
        setup_i8a16(j, 512, 640, 2048);
    else if (i == GROUPS + 4)
        setup_attn(j, TR_KV_INT8_STATIC, 512, 0, 4, 256, 0);
    else if (i == GROUPS + 5)
        setup_attn(j, TR_KV_INT8_STATIC, 1, 1000, 4, 256, 0);
    else if (i == GROUPS + 6)
        setup_attn(j, TR_KV_INT8_STATIC, 1, 1000, 3, 64, 0);
    else if (i == GROUPS + 7)
        setup_attn(j, TR_KV_INT8_RESIDUAL, 1, 1000, 4, 256, 0);
    else if (i == GROUPS + 8)
        setup_attn(j, TR_KV_INT8_RESIDUAL, 1, 1000, 3, 64, 0);
    else
        return setup_reshards(j, i - GROUPS - 9);
    return true;
}

bool tr_kernel_job_setup(tr_kernel_job *j, unsigned i) {
    switch (i) {
    case 0: setup_bf16(j, 512, 640, 4096); return true;
    case 1: setup_bf16(j, 512, 2048, 640); return true;
    case 2: setup_bf16(j, 512, 640, 1536); return true;
    case 3: setup_bf16(j, 512, 1024, 640); return true;
    case 4: setup_bf16(j, 16, 640, 4096); return true;
    case 5: setup_bf16(j, 1, 640, 65536); return true;
    case 6: setup_bf16(j, 4, 640, 65536); return true;
    case 7: setup_i8(j, 512, 640, 2048); return true;
    case 8: setup_i8(j, 512, 2048, 640); return true;
    case 9: setup_i8(j, 512, 640, 1536); return true;
    case 10: setup_i8(j, 512, 1024, 640); return true;
    case 11: setup_i8(j, 1, 640, 131072); return true;
    case 12: setup_i8(j, 4, 640, 131072); return true;
    case 13: setup_i8(j, 8, 640, 131072); return true;
    case 14: setup_i8(j, 12, 640, 131072); return true;
    case 15: setup_i8(j, 16, 640, 131072); return true;
    case 16: setup_i8(j, 1, 2048, 40960); return true;
    case 17: setup_i8(j, 16, 2048, 40960); return true;
    case 18: setup_attn(j, TR_KV_BF16, 512, 0, 4, 256, 0); return true;
    case 19: setup_attn(j, TR_KV_BF16, 512, 0, 3, 64, 0); return true;
    case 20: setup_attn(j, TR_KV_INT8, 512, 0, 4, 256, 0); return true;
    case 21: setup_attn(j, TR_KV_BF16, 512, 2048, 4, 256, 512); return true;
    case 22: setup_attn(j, TR_KV_BF16, 1, 1000, 4, 256, 0); return true;
    case 23: setup_attn(j, TR_KV_BF16, 1, 1000, 3, 64, 0); return true;
    case 24: setup_attn(j, TR_KV_INT8, 1, 1000, 4, 256, 0); return true;
    case 25: setup_attn(j, TR_KV_INT8, 1, 1000, 3, 64, 0); return true;
    case 39: setup_attn(j, TR_KV_INT8, 1, 262144, 3, 64, 0); return true; /* from memory */
    case 40: setup_attn(j, TR_KV_INT8, 1, 65536, 4, 256, 0); return true;
    case 41: setup_attn(j, TR_KV_BF16, 1, 131072, 3, 64, 0); return true;
    case 42: setup_attn(j, TR_KV_INT8, 512, 2048, 3, 64, 0); return true;
    case 43: setup_attn(j, TR_KV_BF16, 512, 2048, 3, 64, 0); return true;
    case 44: setup_attn(j, TR_KV_BF16, 512, 2048, 4, 256, 0); return true;
    case 26: setup_rows(j, "rmsnorm", run_rmsnorm, 512, 640, 0, 8); return true;
    case 27: setup_rows(j, "quant_u8 (128)", run_quant, 512, 640, 128, 5); return true;
    case 28: setup_rows(j, "quant_u8 (128)", run_quant, 512, 2048, 128, 5); return true;
    case 29: setup_rows(j, "hadamard 64", run_hadamard, 512, 256, 64, 8); return true;
    case 30: setup_rows(j, "gelu_mul", run_gelu, 512, 2048, 0, 12); return true;
    case 31: setup_rows(j, "silu_mul", run_silu, 512, 1536, 0, 12); return true;
    case 32: setup_rows(j, "add", run_add, 512, 640, 0, 12); return true;
    case 33: setup_rows(j, "rope", run_rope, 2048, 256, 0, 8); return true;
    case 34: setup_rows(j, "argmax", run_argmax, 1, 262144, 0, 4); return true;
    case 35: setup_rows(j, "kv_store_bf16", run_store_bf16, 512, 256, 0, 12); return true;
    case 36: setup_rows(j, "kv_store_int8", run_store_int8, 512, 256, 0, 10); return true;
    case 37: setup_rows(j, "kv_convert", run_convert, 16384, 256, 0, 6); return true;
    case 38: setup_rows(j, "bf16_row", run_bf16_row, 512, 2048, 0, 6); return true;
    default: break;
    }
    /* Matmuls of one layer, by rows. */
    static const uint16_t rows[] = {16, 32, 64, 128}, planes[] = {1, 2, 4, 8, 16},
                          sides[][2] = {{640, 2048}, {2048, 640}, {640, 1536}, {1024, 640}};
    if (i >= 66) return setup_others(j, i - 66);
    if (i >= 61)
        setup_planes(j, planes[i - 61], 640, 131072);
    else
        setup_i8(j, rows[(i - 45) / 4], sides[(i - 45) % 4][0], sides[(i - 45) % 4][1]);
    return true;
}

void tr_kernel_job_use(tr_kernel_job *j, const tr_ops *ops) {
    j->ops = ops;
    if (j->run != run_bf16) return;
    for (size_t m = 0; m < j->bf16.rows; m++) ops->bf16_row(j->a + m * j->bf16.ldx, j->x + m * j->bf16.k, j->bf16.k);
}

void tr_kernel_job_release(tr_kernel_job *j) {
    for (size_t i = 0; i < j->n_owned; i++) free(j->owned[i]);
    j->n_owned = 0;
}
