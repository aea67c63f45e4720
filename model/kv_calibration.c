#include "model/kv_calibration.h"

#include "base/checked.h"
#include "base/crc32c.h"
#include "base/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VERSION = 1 }; /* of the file and of what follows from it below: numbers are the same for one checksum */
/* Other texts grow beyond what was measured, and what is cut off costs more than coarser steps. */
#define MARGIN 1.25f
/* A vector is corrected when its squared error is beyond three times that of the mean step. Rounded to 127 steps of its
 * largest element, a vector errs by 0.29 steps in each element whatever they are: the step stands for the error. */
#define OUTLIER 1.7320508f
#define MAGIC   0x314c4143564b5254ull /* "TRKVCAL1" */

typedef struct header {
    uint64_t magic, model_hash;
    uint32_t version, n_layers, n_kv_heads, head_dim;
    uint32_t unused, crc; /* over the header up to here, then the magnitudes */
} header;

struct tr_kv_calibration {
    header head;
    float *largest;   /* [n_layers][n_kv_heads][2][head_dim + 1], the last one a mean */
    uint32_t *tokens; /* [n_layers][n_kv_heads] that the mean is of, while adding */
    float *step;      /* [n_layers][n_kv_heads][K step, V step, K mul, V mul][head_dim] */
    tr_kv_head *heads;
};

static size_t n_heads(const tr_kv_calibration *c) { return (size_t)c->head.n_layers * c->head.n_kv_heads; }
static size_t n_floats(const tr_kv_calibration *c) { return n_heads(c) * 2 * (c->head.head_dim + 1); }
static uint32_t crc_of(const tr_kv_calibration *c) {
    uint32_t crc = tr_crc32c(0, &c->head, offsetof(header, crc));
    return tr_crc32c(crc, c->largest, n_floats(c) * sizeof(float));
}

tr_status tr_kv_calibration_create(const tr_kv_calibration_model *model, tr_kv_calibration **out, tr_error *err) {
    tr_kv_calibration *c = calloc(1, sizeof *c);
    if (!c) return tr_error_set(err, TR_UNAVAILABLE, "no memory for a calibration");
    c->head = (header){.magic = MAGIC,
                       .model_hash = model->hash,
                       .version = VERSION,
                       .n_layers = model->n_layers,
                       .n_kv_heads = model->n_kv_heads,
                       .head_dim = model->head_dim};
    c->largest = calloc(n_floats(c), sizeof(float));
    c->step = aligned_alloc(64, tr_align_up(2 * n_floats(c) * sizeof(float), 64));
    c->heads = calloc(n_heads(c), sizeof *c->heads);
    c->tokens = calloc(n_heads(c), sizeof *c->tokens);
    if (!c->tokens || !c->largest || !c->step || !c->heads) {
        tr_kv_calibration_destroy(&c);
        return tr_error_set(err, TR_UNAVAILABLE, "no memory for a calibration");
    }
    *out = c;
    return TR_OK;
}

void tr_kv_calibration_destroy(tr_kv_calibration **c) {
    if (!*c) return;
    free((*c)->largest);
    free((*c)->step);
    free((*c)->heads);
    free((*c)->tokens);
    free(*c);
    *c = NULL;
}

static void grow(float *largest, const float *x, uint32_t d, uint32_t tokens) {
    float most = 0;
    for (uint32_t i = 0; i < d; i++) {
        if (!(fabsf(x[i]) <= most)) most = fabsf(x[i]);
        if (!(fabsf(x[i]) <= largest[i])) largest[i] = fabsf(x[i]);
    }
    largest[d] += (most - largest[d]) / (float)tokens;
}

void tr_kv_calibration_add(tr_kv_calibration *c, uint32_t layer, uint32_t head, const float *k, const float *v) {
    const uint32_t d = c->head.head_dim;
    const size_t at = (size_t)layer * c->head.n_kv_heads + head;
    float *largest = c->largest + at * 2 * (d + 1);
    c->tokens[at]++;
    grow(largest, k, d, c->tokens[at]);
    grow(largest + d + 1, v, d, c->tokens[at]);
}

/* 127 steps to the largest value and the margin; a channel that was always zero stays so. */
static void make_steps(tr_kv_calibration *c) {
    const uint32_t d = c->head.head_dim;
    for (size_t h = 0; h < n_heads(c); h++) {
        const float *k = c->largest + h * 2 * (d + 1), *v = k + d + 1;
        float *step = c->step + h * 4 * d, *mul = step + 2 * d;
        for (uint32_t i = 0; i < 2 * d; i++) {
            const float largest = MARGIN * (i < d ? k[i] : v[i - d]);
            const bool none = !(largest > 0x1p-100f);
            step[i] = none ? 0 : largest / 127;
            mul[i] = none ? 0 : 127 / largest;
        }
        c->heads[h] = (tr_kv_head){.k_step = step,
                                   .v_step = step + d,
                                   .k_mul = mul,
                                   .v_mul = mul + d,
                                   .k_bound = OUTLIER * k[d] / 127,
                                   .v_bound = OUTLIER * v[d] / 127};
    }
}

static bool write_all(int fd, const void *data, size_t bytes) {
    for (const char *p = data; bytes > 0;) {
        ssize_t n = write(fd, p, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

tr_status tr_kv_calibration_write(tr_kv_calibration *c, const char *path, tr_error *err) {
    char temporary[4096];
    for (size_t i = 0; i < n_floats(c); i++)
        if (!isfinite(c->largest[i])) return tr_error_set(err, TR_DATA, "K or V of the text are not finite numbers");
    int n = snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof temporary) return tr_error_set(err, TR_CANNOT_CREATE, "%.200s: too long", path);
    c->head.crc = crc_of(c);
    make_steps(c);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return tr_error_set(err, TR_CANNOT_CREATE, "cannot create %.300s: %s", temporary, strerror(errno));
    bool written = write_all(fd, &c->head, sizeof c->head) && write_all(fd, c->largest, n_floats(c) * sizeof(float)) &&
                   fsync(fd) == 0;
    int why = errno;
    if (close(fd) != 0 && written) written = false, why = errno;
    if (written && rename(temporary, path) == 0) return TR_OK;
    if (written) why = errno;
    unlink(temporary);
    return tr_error_set(err, TR_CANNOT_CREATE, "cannot write %.300s: %s", path, strerror(why));
}

/* Everything that the bytes say is checked against the model before it is believed. */
static tr_status read_file(tr_kv_calibration *c, const tr_file_map *map, const char *path, tr_error *err) {
    header h;
    if (map->size < sizeof h) return tr_error_set(err, TR_DATA, "%.300s: too short for a KV calibration", path);
    memcpy(&h, map->data, sizeof h);
    if (h.magic != MAGIC || h.version != VERSION)
        return tr_error_set(err, TR_DATA, "%.300s is no KV calibration of this version", path);
    if (h.model_hash != c->head.model_hash || h.n_layers != c->head.n_layers || h.n_kv_heads != c->head.n_kv_heads ||
        h.head_dim != c->head.head_dim)
        return tr_error_set(err, TR_DATA, "%.300s is the calibration of another model: make one with troupe calibrate",
                            path);
    if (map->size != sizeof h + n_floats(c) * sizeof(float))
        return tr_error_set(err, TR_DATA, "%.300s: not of its length", path);
    memcpy(c->largest, map->data + sizeof h, n_floats(c) * sizeof(float));
    c->head = h;
    if (crc_of(c) != h.crc) return tr_error_set(err, TR_DATA, "%.300s: damaged (its checksum does not fit)", path);
    for (size_t i = 0; i < n_floats(c); i++)
        if (!(c->largest[i] >= 0) || !isfinite(c->largest[i]))
            return tr_error_set(err, TR_DATA, "%.300s: holds a size that is no size", path);
    make_steps(c);
    return TR_OK;
}

tr_status tr_kv_calibration_open(const char *path, const tr_kv_calibration_model *model, tr_kv_calibration **out,
                                 tr_error *err) {
    tr_kv_calibration *c = NULL;
    tr_file_map map = {0};
    TR_TRY(tr_file_map_open(path, &map, err));
    tr_status status = tr_kv_calibration_create(model, &c, err);
    if (status == TR_OK) status = read_file(c, &map, path, err);
    tr_file_map_close(&map);
    if (status != TR_OK)
        tr_kv_calibration_destroy(&c);
    else
        *out = c;
    return status;
}

const tr_kv_head *tr_kv_calibration_heads(const tr_kv_calibration *c) { return c->heads; }
uint32_t tr_kv_calibration_crc(const tr_kv_calibration *c) { return c->head.crc; }
