/* Packed images against plain arithmetic on the rows of the model file, both formats and precisions, any number of
 * threads; damaged images; no room. */
#include "model/pack.h"

#include "base/numeric.h"
#include "kernels/ops.h"
#include "model/pack_groups.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const models[] = {"tests/golden/tiny/gemma3.gguf",      "tests/golden/tiny/llama.gguf",
                                     "tests/golden/tiny/llama-hf",         "tests/golden/model_file/gemma3",
                                     "tests/golden/model_file/llama.gguf", "tests/golden/tiny/blocks.gguf"};
enum { MODELS = sizeof models / sizeof *models };

static tr_model_file *open_model(const char *path) {
    tr_model_file *mf = NULL;
    tr_error err = {0};
    if (tr_model_file_open(path, &mf, &err) != TR_OK) fail_msg("%s", err.text);
    return mf;
}

static void report(void *arg, uint64_t done, uint64_t total) {
    uint64_t *last = arg;
    assert_true(done >= *last && done <= total);
    *last = done == total ? 0 : done;
}

/* A descriptor with the packed image; -1 when these shapes cannot be packed. */
static int pack(const tr_model_file *mf, tr_precision precision, uint32_t threads) {
    int fd = memfd_create("image", MFD_CLOEXEC);
    tr_error err = {0};
    uint64_t progress = 0;
    tr_status s = tr_pack_image(mf, precision, 0x1234567890abcdef, fd, threads, report, &progress, &err);
    if (s != TR_OK) fail_msg("%s", err.text);
    assert_int_equal(progress, 0); /* the last report was the whole */
    return fd;
}

static tr_status open_fd(int fd, tr_image **image, tr_error *err) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return tr_image_open(path, image, err);
}

/* Rows of the parts of an image tensor, one after another, as fp32. */
static float *rows_of(const tr_model_file *mf, const tr_tensor_role *part, uint32_t n_parts, uint32_t layer, uint32_t n,
                      uint32_t k) {
    float *out = malloc((size_t)n * k * sizeof *out);
    uint32_t at = 0;
    for (uint32_t i = 0; i < n_parts; i++) {
        tr_model_file_view v;
        assert_int_equal(tr_model_file_tensor(mf, part[i], layer, &v, NULL), TR_OK);
        assert_int_equal(v.cols, k);
        for (uint32_t r = 0; r < v.rows; r++) tr_model_file_row(mf, &v, r, out + (size_t)at++ * k);
    }
    assert_int_equal(at, n);
    return out;
}

static void check_bf16(const tr_image_tensor *t, const float *w) {
    const uint16_t *data = t->data;
    for (uint32_t r = 0; r < (t->n + 15) / 16 * 16; r++)
        for (uint32_t k = 0; k < t->k; k++) {
            uint16_t want = r < t->n ? tr_f32_to_bf16(w[(size_t)r * t->k + k]) : 0;
            size_t at = t->kind == TR_IMAGE_BF16_ROWS
                            ? (size_t)r * t->k + k
                            : (size_t)(r / 16) * 16 * t->k + ((size_t)(k / 2) * 16 + r % 16) * 2 + k % 2;
            if (t->kind == TR_IMAGE_BF16_ROWS && r >= t->n) continue;
            if (data[at] != want) fail_msg("row %u, input %u: %04x, not %04x", r, k, data[at], want);
        }
}

/* Rotated by the definition: row times the orthonormal Sylvester matrix, block by block. */
static double rotated(const float *row, uint32_t k, uint32_t block) {
    double sum = 0;
    for (uint32_t i = 0; i < block; i++)
        sum += (double)row[k / block * block + i] * (__builtin_popcount(i & (k % block)) % 2 ? -1 : 1);
    return sum / sqrt(block);
}

static void check_int8(const tr_image_tensor *t, const float *w) {
    const int8_t *data = t->data;
    int8_t *packed = malloc(((size_t)t->n + 15) / 16 * 16 * t->k);
    if (t->kind == TR_IMAGE_INT8_PLANES) {
        for (uint32_t b = 0; b < (t->n + 15) / 16; b++)
            tr_ops_find("ref")->planes_unpack(packed + (size_t)b * 16 * t->k, &t->planes, b);
        data = packed;
        assert_int_equal(t->planes.block, t->rotation);
        for (uint32_t j = 0; j < tr_planes_coords(t->k); j++) /* different ones, or the bound does not hold */
            for (uint32_t i = 0; i < j; i++) assert_true(t->planes.coord[i] != t->planes.coord[j]);
    }
    assert_true(t->rotation >= 32 && t->k % t->rotation == 0 && (t->rotation == 128 || t->k % (2 * t->rotation) != 0));
    for (uint32_t r = 0; r < (t->n + 15) / 16 * 16; r++) {
        int32_t sum = 0;
        int largest = 0;
        for (uint32_t k = 0; k < t->k; k++) {
            int q = data[(size_t)(r / 16) * 16 * t->k + ((size_t)(k / 4) * 16 + r % 16) * 4 + k % 4];
            sum += q;
            largest = abs(q) > largest ? abs(q) : largest;
            if (r >= t->n) continue;
            double error = q * (double)t->scale[r] - rotated(w + (size_t)r * t->k, k, t->rotation);
            if (fabs(error) > 0.5001 * (double)t->scale[r]) fail_msg("row %u, input %u: off by %g", r, k, error);
        }
        assert_int_equal(t->comp[r], -128 * sum);
        assert_int_equal(largest, r < t->n ? 127 : 0);
        if (r >= t->n) assert_true(t->scale[r] == 0);
    }
    free(packed);
}

/* Values of the container; where codes were made from rotated rows, each within a step of the scale. */
static void check_groups(const tr_image_tensor *t, const float *w, tr_precision precision, bool head) {
    float *row = malloc(t->k * sizeof *row);
    uint32_t at = 0;
    for (uint32_t p = 0; p < t->n_parts; p++) {
        const tr_groups_format format = t->part[p].format;
        assert_int_equal((uintptr_t)t->part[p].data % 64, 0);
        for (uint32_t r = 0; r < t->part[p].n; r++, at++) {
            const float *want = w + (size_t)at * t->k;
            tr_groups_row(format, t->part[p].data, t->k, r, 1.0f, row);
            if (precision == TR_PRECISION_NATIVE) {
                assert_memory_equal(row, want, t->k * sizeof *row);
                continue;
            }
            assert_int_equal(format, head                             ? TR_GROUPS_Q8_0
                                     : precision == TR_PRECISION_INT4 ? TR_GROUPS_Q4_0
                                                                      : TR_GROUPS_NF4);
            for (uint32_t k = 0; k < t->k; k++) {
                const uint8_t *block = t->part[p].data + r / 16 * tr_groups_block_bytes(format, t->k);
                double step = fabs((double)tr_groups_scale(format, block, r % 16, k / 32));
                double most = format == TR_GROUPS_Q8_0   ? 0.6 * step
                              : format == TR_GROUPS_Q4_0 ? 6 * step /* a cut of 4/10 at the ends */
                                                         : 80 * step;
                double error = (double)row[k] - rotated(want, k, t->rotation);
                if (fabs(error) > most) fail_msg("row %u, input %u: off by %g, step %g", at, k, error, step);
            }
        }
    }
    assert_int_equal(at, t->n);
    free(row);
}

static void check_tensor(const tr_model_file *mf, const tr_image *image, tr_image_role role, uint32_t layer,
                         const tr_tensor_role *part, uint32_t n_parts, bool matrix) {
    const tr_image_tensor *t = tr_image_get(image, role, layer);
    const tr_precision precision = tr_image_precision(image);
    const bool once = precision == TR_PRECISION_BF16 || precision == TR_PRECISION_NATIVE;
    tr_model_file_view v;
    bool there = tr_model_file_tensor(mf, part[0], layer, &v, NULL) == TR_OK;
    assert_int_equal(t != NULL, there);
    if (!t) return;
    assert_int_equal((uintptr_t)t->data % 64, 0);
    float *w = rows_of(mf, part, n_parts, layer, t->n, t->k);
    if (!matrix) {
        assert_int_equal(t->kind, TR_IMAGE_F32);
        assert_memory_equal(t->data, w, t->k * sizeof *w);
    } else if (t->kind == TR_IMAGE_GROUPS) {
        assert_true(precision >= TR_PRECISION_NATIVE && (role != TR_IMAGE_EMBED || precision == TR_PRECISION_NATIVE));
        check_groups(t, w, precision, role == TR_IMAGE_HEAD);
    } else if (precision == TR_PRECISION_INT8 && role != TR_IMAGE_EMBED) {
        assert_int_equal(t->kind, role == TR_IMAGE_HEAD ? TR_IMAGE_INT8_PLANES : TR_IMAGE_INT8_PACK);
        check_int8(t, w);
    } else {
        assert_int_equal(t->kind == TR_IMAGE_BF16_PACK,
                         once && (role != TR_IMAGE_EMBED || tr_image_config(image)->tied_embeddings));
        check_bf16(t, w);
    }
    free(w);
}

#define PARTS(...)                                                                                                     \
    (const tr_tensor_role[]){__VA_ARGS__}, sizeof((tr_tensor_role[]){__VA_ARGS__}) / sizeof(tr_tensor_role)

static void check_image(const tr_model_file *mf, const tr_image *image) {
    const tr_model_config *c = tr_model_file_config(mf), *in = tr_image_config(image);
    assert_int_equal(in->n_layers, c->n_layers);
    assert_int_equal(in->vocab, c->vocab);
    assert_true(in->rope_base_global == c->rope_base_global && in->embed_scale == c->embed_scale);
    assert_memory_equal(in->layer_is_global, c->layer_is_global, sizeof c->layer_is_global);
    assert_int_equal(tr_image_model_hash(image), 0x1234567890abcdef);
    check_tensor(mf, image, TR_IMAGE_EMBED, 0, PARTS(TR_TENSOR_EMBED), true);
    check_tensor(mf, image, TR_IMAGE_HEAD, 0, PARTS(c->tied_embeddings ? TR_TENSOR_EMBED : TR_TENSOR_OUTPUT), true);
    check_tensor(mf, image, TR_IMAGE_OUTPUT_NORM, 0, PARTS(TR_TENSOR_OUTPUT_NORM), false);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        check_tensor(mf, image, TR_IMAGE_ATTN_NORM, i, PARTS(TR_TENSOR_ATTN_NORM), false);
        check_tensor(mf, image, TR_IMAGE_QKV, i, PARTS(TR_TENSOR_Q, TR_TENSOR_K, TR_TENSOR_V), true);
        check_tensor(mf, image, TR_IMAGE_Q_NORM, i, PARTS(TR_TENSOR_Q_NORM), false);
        check_tensor(mf, image, TR_IMAGE_K_NORM, i, PARTS(TR_TENSOR_K_NORM), false);
        check_tensor(mf, image, TR_IMAGE_O, i, PARTS(TR_TENSOR_O), true);
        check_tensor(mf, image, TR_IMAGE_ATTN_POST_NORM, i, PARTS(TR_TENSOR_ATTN_POST_NORM), false);
        check_tensor(mf, image, TR_IMAGE_FFN_NORM, i, PARTS(TR_TENSOR_FFN_NORM), false);
        check_tensor(mf, image, TR_IMAGE_GATE_UP, i, PARTS(TR_TENSOR_GATE, TR_TENSOR_UP), true);
        check_tensor(mf, image, TR_IMAGE_DOWN, i, PARTS(TR_TENSOR_DOWN), true);
        check_tensor(mf, image, TR_IMAGE_FFN_POST_NORM, i, PARTS(TR_TENSOR_FFN_POST_NORM), false);
    }
    assert_null(tr_image_get(image, TR_IMAGE_QKV, c->n_layers));
}

/* Counted from the configuration: matrices of all layers, the head, norms; the table of embeddings is not read. */
static void check_step_bytes(const tr_image *image) {
    const tr_model_config *c = tr_image_config(image);
    uint64_t q = (uint64_t)c->n_heads * c->head_dim, kv = (uint64_t)c->n_kv_heads * c->head_dim;
    const uint64_t shape[][2] = {{q + 2 * kv, c->hidden}, {c->hidden, q}, {2 * c->ffn, c->hidden}, {c->hidden, c->ffn}};
    bool int8 = tr_image_precision(image) == TR_PRECISION_INT8;
    uint64_t bytes = 0;
    for (size_t i = 0; i < 4 * c->n_layers + 1; i++) {
        uint64_t n = i == 4 * c->n_layers ? c->vocab : shape[i % 4][0];
        uint64_t k = i == 4 * c->n_layers ? c->hidden : shape[i % 4][1];
        n = (n + 15) / 16 * 16;
        bool planes = int8 && i == 4 * c->n_layers; /* of the head only the upper plane is read */
        bytes += planes ? n / 16 * tr_planes_lines((uint32_t)k) * TR_PLANES_LINE + n * 8
                 : int8 ? n * (k + 8)
                        : n * k * 2;
    }
    uint64_t floats = c->hidden * (1 + c->n_layers * (c->has_post_norms ? 4ull : 2ull));
    if (c->has_qk_norm) floats += c->n_layers * 2ull * c->head_dim;
    if (c->has_rope_freq_factors) floats += c->head_dim / 2;
    assert_int_equal(tr_image_step_bytes(image), bytes + 4 * floats);
}

static bool packable(const tr_model_file *mf, tr_precision precision) {
    tr_error err = {0};
    uint64_t bytes;
    tr_status s = tr_pack_bytes(mf, precision, &bytes, &err);
    if (s == TR_OK) return true;
    assert_int_equal(s, TR_DATA);
    assert_non_null(strstr(err.text, "multiples of 32"));
    return false;
}

static void holds_the_weights(void **state) {
    (void)state;
    int packed = 0;
    for (int i = 0; i < MODELS; i++)
        for (tr_precision p = TR_PRECISION_BF16; p < TR_PRECISION_END; p++) {
            if (tr_precision_image(p) != p) continue;
            tr_model_file *mf = open_model(models[i]);
            tr_image *image = NULL;
            tr_error err = {0};
            uint64_t bytes = 0;
            if (packable(mf, p)) {
                packed++;
                int fd = pack(mf, p, 1);
                assert_int_equal(tr_pack_bytes(mf, p, &bytes, NULL), TR_OK);
                assert_int_equal(lseek(fd, 0, SEEK_END), bytes);
                if (open_fd(fd, &image, &err) != TR_OK) fail_msg("%s", err.text);
                assert_int_equal(tr_image_precision(image), p);
                check_image(mf, image);
                if (p == TR_PRECISION_BF16 || p == TR_PRECISION_INT8) check_step_bytes(image);
                tr_image_close(&image);
                assert_null(image);
                close(fd);
            }
            tr_model_file_close(&mf);
        }
    assert_true(packed >= 20);
}

/* Rows of random blocks, every type: the container gives the loader's values, bit by bit. */
static void keeps_every_type(void **state) {
    (void)state;
    enum { K = 512 };
    unsigned seed = 1;
    uint64_t row_bytes;
    for (int type = 0; type < TR_DEQUANT_TYPE_COUNT; type++) {
        tr_groups_format format;
        const tr_dequant_info *info = tr_dequant_describe((tr_dequant_type)type);
        if (!tr_pack_groups_format((tr_dequant_type)type, &format)) {
            assert_int_equal(info->block_elems, 1);
            continue;
        }
        assert_string_equal(tr_groups_describe(format)->name, info->name);
        assert_true(tr_dequant_row_bytes((tr_dequant_type)type, K, &row_bytes));
        assert_true(tr_groups_block_bytes(format, K) <= 16 * row_bytes * 105 / 100);
        uint8_t *rows = malloc(16 * row_bytes), *block = calloc(1, tr_groups_block_bytes(format, K));
        float want[K], got[K];
        for (size_t i = 0; i < 16 * row_bytes; i++)
            seed = seed * 1664525u + 1013904223u, rows[i] = (uint8_t)(seed >> 24);
        for (size_t b = 0; b < 16 * row_bytes; b += info->block_bytes) { /* f16 numbers that are finite */
            uint8_t *d = rows + b + (format == TR_GROUPS_Q6_K ? 208 : 0);
            d[1] &= 0xbb;
            if (tr_groups_describe(format)->min) d[3] &= 0xbb;
        }
        for (size_t r = 0; r < 16; r++) tr_pack_groups_copy((tr_dequant_type)type, rows + r * row_bytes, K, block, r);
        for (size_t r = 0; r < 16; r++) {
            tr_dequant_row((tr_dequant_type)type, rows + r * row_bytes, K, want);
            tr_groups_row(format, block, K, r, 1.0f, got);
            for (size_t k = 0; k < K; k++)
                if (want[k] != got[k])
                    fail_msg("%s row %zu, input %zu: %a, not %a", info->name, r, k, (double)got[k], (double)want[k]);
        }
        free(rows), free(block);
    }
}

static uint8_t *map_fd(int fd, size_t *bytes) {
    *bytes = (size_t)lseek(fd, 0, SEEK_END);
    uint8_t *map = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    return map;
}

static void threads_make_no_difference(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        for (tr_precision p = TR_PRECISION_BF16; p < TR_PRECISION_END; p++) {
            if (tr_precision_image(p) != p) continue;
            tr_model_file *mf = open_model(models[i]);
            int one = pack(mf, p, 1), four = pack(mf, p, 4);
            size_t a, b;
            uint8_t *x = map_fd(one, &a), *y = map_fd(four, &b);
            assert_int_equal(a, b);
            assert_memory_equal(x, y, a);
            munmap(x, a), munmap(y, b);
            close(one), close(four);
            tr_model_file_close(&mf);
        }
}

/* Every byte of header and index changed in several ways, and every cut: refused or read, never a crash, and what is
 * read stays inside the file. */
static void damage(const char *path, tr_precision precision) {
    tr_model_file *mf = open_model(path);
    int fd = pack(mf, precision, 2);
    size_t bytes, refused = 0, accepted = 0;
    uint8_t *map = map_fd(fd, &bytes);
    const tr_model_config *c = tr_model_file_config(mf);
    for (size_t at = 0; at < 24 * 1024; at += at < 4096 ? 1 : 3)
        for (int way = 0; way < 3; way++) {
            uint8_t was = map[at];
            map[at] = way == 0 ? 0xff : way == 1 ? (uint8_t)(was ^ 1) : (uint8_t)(was + 64);
            tr_image *image = NULL;
            tr_error err = {0};
            tr_status s = open_fd(fd, &image, &err);
            if (s != TR_OK) {
                assert_int_equal(s, TR_DATA);
                assert_true(err.text[0] != '\0');
                refused++;
            } else {
                accepted++;
                for (uint32_t l = 0; l < tr_image_config(image)->n_layers; l++)
                    for (int r = 0; r < TR_IMAGE_ROLE_COUNT; r++) {
                        const tr_image_tensor *t = tr_image_get(image, (tr_image_role)r, l);
                        if (!t) continue;
                        volatile uint8_t last = ((const uint8_t *)t->data)[(size_t)t->k - 1];
                        for (uint32_t p = 0; p < t->n_parts; p++)
                            last =
                                t->part[p]
                                    .data[tr_groups_block_bytes(t->part[p].format, t->k) * ((t->part[p].n + 15) / 16) -
                                          1];
                        (void)last;
                        assert_true(t->n <= c->vocab + 2 * c->ffn && t->k <= 65536);
                    }
                tr_image_close(&image);
            }
            map[at] = was;
        }
    assert_true(refused > 1000 && accepted > 1000); /* spare bytes and weights may change unseen */
    tr_image *image = NULL;
    for (size_t cut = bytes; cut > 0; cut = cut * 7 / 8) {
        assert_int_equal(ftruncate(fd, (off_t)(cut - 1)), 0);
        assert_int_equal(open_fd(fd, &image, NULL), TR_DATA);
    }
    munmap(map, bytes);
    close(fd);
    tr_model_file_close(&mf);
}

static void damaged(void **state) {
    (void)state;
    damage(models[1], TR_PRECISION_INT8);
    damage(models[5], TR_PRECISION_NATIVE);
}

/* A file size limit stands for a full disk. */
static void no_room(void **state) {
    (void)state;
    tr_model_file *mf = open_model(models[0]);
    char path[] = "/tmp/troupe-pack-XXXXXX";
    int fd = mkstemp(path);
    struct rlimit old, small = {200 * 1024, RLIM_INFINITY};
    tr_error err = {0};
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    tr_status s = tr_pack_image(mf, TR_PRECISION_BF16, 1, fd, 2, NULL, NULL, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(s, TR_CANNOT_CREATE);
    assert_non_null(strstr(err.text, "needed"));
    close(fd);
    tr_model_file_close(&mf);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(holds_the_weights), cmocka_unit_test(keeps_every_type),
                                       cmocka_unit_test(threads_make_no_difference), cmocka_unit_test(damaged),
                                       cmocka_unit_test(no_room)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
