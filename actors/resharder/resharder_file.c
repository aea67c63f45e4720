#include "actors/resharder/resharder_file.h"

#include "base/checked.h"
#include "base/crc32c.h"
#include "kernels/kv_convert.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_ROOM = TR_COMPANY_PATH_MAX + 128, BUFFER = 1 << 20 };

/* A file read or written in order, with the CRC of all that went by. */
typedef struct stream {
    int fd;
    uint32_t crc;
    size_t used, have;
    uint8_t *buffer; /* [BUFFER] */
} stream;

static void identity(const tr_company *c, tr_kv_file_identity *id) {
    *id = (tr_kv_file_identity){.model_hash = c->model_hash,
                                .image_version = TR_IMAGE_VERSION,
                                .ops_version = TR_OPS_VERSION,
                                .format = {c->layout[0].format, c->layout[1].format}};
    for (uint32_t a = 0; a < c->n_actors; a++)
        for (int p = 0; p < 2; p++)
            if (c->actor[a].phase[p].active) id->precision[p] = c->actor[a].phase[p].precision;
}

uint8_t *tr_resharder_file_tile(const tr_resharder_file *f, const tr_kv_file_tile *t) {
    const tr_kv_layout *l = f->layout;
    uint32_t page = f->table[tr_kv_layout_entry(l, f->job->dst_slot, t->group, t->pos / l->page_tok)];
    if (page >= l->group[t->group].n_pages) return NULL;
    return f->pool + tr_kv_layout_head_offset(l, t->layer, t->kv_head) + (uint64_t)page * l->page_bytes +
           t->pos % l->page_tok / TR_KV_TILE_TOK * tr_kv_tile_bytes(l->format, l->head_dim);
}

/* Tiles of a calibrated format mean nothing without the calibration, which no file holds. */
static tr_status kept_format(const tr_resharder_file *f, tr_error *err) {
    if (!tr_kv_describe(f->layout->format)->calibrated) return TR_OK;
    return tr_error_set(err, TR_UNAVAILABLE, "sequences in KV format %s are neither saved nor restored",
                        tr_kv_format_name(f->layout->format));
}

static tr_status path_of(const tr_resharder_file *f, const char *name, const char *end, char out[PATH_ROOM],
                         tr_error *err) {
    int n = snprintf(out, PATH_ROOM, "%s/%s%s", f->company->save_dir, name, end);
    if (n < 0 || n >= PATH_ROOM || name[0] == '.' || strchr(name, '/'))
        return tr_error_set(err, TR_INVALID, "'%.64s' is no name of a saved sequence", name);
    return TR_OK;
}

/* ---- save ----------------------------------------------------------------------------------------------------------
 */

static tr_status flush(stream *s, tr_error *err) {
    for (size_t done = 0; done < s->used;) {
        ssize_t n = write(s->fd, s->buffer + done, s->used - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return tr_error_set(err, TR_CANNOT_CREATE, "not saved: %s", strerror(errno));
        done += (size_t)n;
    }
    s->used = 0;
    return TR_OK;
}

static tr_status put(stream *s, const void *data, size_t bytes, tr_error *err) {
    if (s->used + bytes > BUFFER) TR_TRY(flush(s, err));
    s->crc = tr_crc32c(s->crc, data, bytes);
    if (bytes > 0) memcpy(s->buffer + s->used, data, bytes);
    s->used += bytes;
    return TR_OK;
}

static tr_status put_tokens(stream *s, const tr_kv_file *f, const uint32_t *tokens, tr_error *err) {
    static const uint32_t zero = 0;
    for (uint32_t at = 0; at < f->n_tokens; at += 4096) {
        uint32_t n = f->n_tokens - at < 4096 ? f->n_tokens - at : 4096;
        TR_TRY(put(s, tokens + at, n * sizeof *tokens, err));
    }
    return f->n_tokens % 2 ? put(s, &zero, sizeof zero, err) : TR_OK;
}

/* Tokens that the sequence does not have stay zero: they may be another's. */
static tr_status put_tiles(const tr_resharder_file *r, stream *s, const tr_kv_file *f, tr_error *err) {
    const size_t bytes = tr_kv_tile_bytes(r->layout->format, r->layout->head_dim);
    uint8_t *tile = aligned_alloc(64, tr_align_up(bytes, 64));
    tr_status status = tile ? TR_OK : tr_error_set(err, TR_UNAVAILABLE, "not saved: no memory");
    tr_kv_file_walk w;
    tr_kv_file_tile t;
    tr_kv_file_walk_init(&w, f);
    while (status == TR_OK && tr_kv_file_walk_next(&w, &t)) {
        const uint8_t *from = tr_resharder_file_tile(r, &t);
        if (!from) {
            status = tr_error_set(err, TR_INVALID, "not saved: no page holds position %u", t.pos);
            break;
        }
        memset(tile, 0, bytes);
        tr_kv_convert(r->ops, r->layout->format, tile, t.t0, r->layout->format, from, t.t0, t.n, r->layout->head_dim,
                      NULL, NULL, r->tmp);
        const uint32_t end[2] = {tr_crc32c(0, tile, bytes), 0};
        status = put(s, tile, bytes, err);
        if (status == TR_OK) status = put(s, end, sizeof end, err);
    }
    free(tile);
    return status;
}

static void describe(const tr_resharder_file *r, tr_kv_file *f) {
    const tr_journal_entry *e = r->entry;
    memset(f, 0, sizeof *f);
    identity(r->company, &f->identity);
    tr_kv_file_shape(f, r->layout);
    for (uint32_t g = 0; g < f->n_groups && g < r->job->tok_min.len; g++) f->tok_min[g] = r->job->tok_min.data[g];
    f->n_tokens = e->prompt_len + e->kept;
    f->n_prefill = e->prompt_len - e->forced;
    f->n_kv = r->job->tok1;
    if (f->n_prefill > f->n_kv) f->n_prefill = f->n_kv;
    f->temperature = e->temperature;
    f->top_p = e->top_p;
    f->top_k = e->top_k;
    f->seed = e->seed;
}

static tr_status write_all(const tr_resharder_file *r, stream *s, uint64_t *bytes_out, tr_error *err) {
    tr_kv_file f;
    uint8_t header[TR_KV_FILE_HEADER];
    describe(r, &f);
    *bytes_out = tr_kv_file_bytes(&f);
    if (*bytes_out == 0) return tr_error_set(err, TR_INVALID, "not saved: the sequence has no computed positions");
    tr_kv_file_encode(&f, header);
    TR_TRY(put(s, header, sizeof header, err));
    TR_TRY(put_tokens(s, &f, r->entry->tokens, err));
    TR_TRY(put_tiles(r, s, &f, err));
    const uint32_t end[2] = {s->crc, TR_KV_FILE_END};
    TR_TRY(put(s, end, sizeof end, err));
    TR_TRY(flush(s, err));
    return fsync(s->fd) == 0 ? TR_OK : tr_error_set(err, TR_CANNOT_CREATE, "not saved: %s", strerror(errno));
}

tr_status tr_resharder_file_save(const tr_resharder_file *r, uint64_t *bytes_out, tr_error *err) {
    char path[PATH_ROOM], half[PATH_ROOM], end[32];
    TR_TRY(kept_format(r, err));
    snprintf(end, sizeof end, ".%" PRIx64 ".part", r->entry->rid);
    TR_TRY(path_of(r, r->entry->save, "", path, err));
    TR_TRY(path_of(r, r->entry->save, end, half, err));
    unlink(half); /* of a life that died while it wrote */
    stream s = {.fd = open(half, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600)};
    if (s.fd < 0) return tr_error_set(err, TR_CANNOT_CREATE, "not saved: %.300s: %s", half, strerror(errno));
    s.buffer = malloc(BUFFER);
    tr_status status =
        s.buffer ? write_all(r, &s, bytes_out, err) : tr_error_set(err, TR_UNAVAILABLE, "not saved: no memory");
    free(s.buffer);
    close(s.fd);
    if (status == TR_OK && rename(half, path) != 0)
        status = tr_error_set(err, TR_CANNOT_CREATE, "not saved: %.300s: %s", path, strerror(errno));
    if (status != TR_OK) unlink(half);
    return status;
}

/* ---- restore -------------------------------------------------------------------------------------------------------
 */

static tr_status get(stream *s, void *out, size_t bytes, tr_error *err) {
    for (uint8_t *to = out; bytes > 0;) {
        if (s->used == s->have) {
            ssize_t n = read(s->fd, s->buffer, BUFFER);
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) return tr_error_set(err, TR_DATA, "the file ends too early");
            s->have = (size_t)n;
            s->used = 0;
        }
        size_t take = s->have - s->used < bytes ? s->have - s->used : bytes;
        memcpy(to, s->buffer + s->used, take);
        s->crc = tr_crc32c(s->crc, to, take);
        s->used += take;
        to += take;
        bytes -= take;
    }
    return TR_OK;
}

static tr_status fits(const tr_resharder_file *r, const tr_kv_file *f, tr_error *err) {
    const tr_journal_entry *e = r->entry;
    const char *what = tr_kv_file_differs(f, r->layout);
    if (f->identity.model_hash != r->company->model_hash) what = "weights";
    if (what) return tr_error_set(err, TR_DATA, "it is of another model (%s)", what);
    if (f->n_kv < r->job->tok1 || f->n_prefill != e->prompt_len - e->forced || r->job->tok1 >= e->prompt_len)
        return tr_error_set(err, TR_DATA, "it holds other positions than the request speaks of");
    for (uint32_t g = 0; g < f->n_groups; g++)
        if (g >= r->job->tok_min.len || f->tok_min[g] > r->job->tok_min.data[g])
            return tr_error_set(err, TR_DATA, "it lacks positions of a sliding window");
    return TR_OK;
}

static tr_status same_tokens(const tr_resharder_file *r, stream *s, const tr_kv_file *f, tr_error *err) {
    uint32_t token;
    for (uint32_t i = 0; i < f->n_tokens + f->n_tokens % 2; i++) {
        TR_TRY(get(s, &token, sizeof token, err));
        if (i < r->job->tok1 && token != r->entry->tokens[i])
            return tr_error_set(err, TR_DATA, "its token %u is not that of the request", i);
    }
    return TR_OK;
}

/* The part of a tile that the sequence needs, in the format of the pool. */
static tr_status lay_down(const tr_resharder_file *r, const tr_kv_file *f, const tr_kv_file_tile *t,
                          const uint8_t *tile, tr_error *err) {
    const uint32_t low = r->job->tok_min.data[t->group], skip = low > t->pos ? low - t->pos : 0;
    const uint32_t t0 = skip > t->t0 ? skip : t->t0, left = r->job->tok1 > t->pos ? r->job->tok1 - t->pos : 0;
    const uint32_t end = t->t0 + t->n < left ? t->t0 + t->n : left;
    if (t0 >= end) return TR_OK;
    uint8_t *to = tr_resharder_file_tile(r, t);
    if (!to) return tr_error_set(err, TR_INVALID, "no page for position %u", t->pos);
    tr_kv_convert(r->ops, r->layout->format, to, t0, (tr_kv_format)f->format, tile, t0, end - t0, f->head_dim, NULL,
                  NULL, r->tmp);
    return TR_OK;
}

static tr_status read_tiles(const tr_resharder_file *r, stream *s, const tr_kv_file *f, tr_error *err) {
    const size_t bytes = tr_kv_tile_bytes((tr_kv_format)f->format, f->head_dim);
    uint8_t *tile = aligned_alloc(64, tr_align_up(bytes, 64));
    tr_status status = tile ? TR_OK : tr_error_set(err, TR_UNAVAILABLE, "no memory");
    tr_kv_file_walk w;
    tr_kv_file_tile t;
    uint32_t end[2];
    tr_kv_file_walk_init(&w, f);
    while (status == TR_OK && tr_kv_file_walk_next(&w, &t)) {
        status = get(s, tile, bytes, err);
        if (status == TR_OK) status = get(s, end, sizeof end, err);
        if (status == TR_OK && end[0] != tr_crc32c(0, tile, bytes))
            status = tr_error_set(err, TR_DATA, "layer %u kv head %u positions from %u are damaged", t.layer, t.kv_head,
                                  t.pos);
        if (status == TR_OK) status = lay_down(r, f, &t, tile, err);
    }
    free(tile);
    tr_kv_convert_fence();
    return status;
}

/* The cells are right; does the text go on as it would have? */
static void compare(const tr_resharder_file *r, const tr_kv_file *f, tr_error *err) {
    tr_kv_file_identity here;
    identity(r->company, &here);
    const char *what = NULL;
    if (f->identity.image_version != here.image_version || f->identity.ops_version != here.ops_version)
        what = "it was made by another version of the arithmetic";
    else if (memcmp(f->identity.precision, here.precision, sizeof here.precision) != 0)
        what = "it was made in other precisions";
    else if (f->format != r->layout->format)
        what = "its KV was converted to another format, which rounds it again";
    else if (memcmp(f->identity.format, here.format, sizeof here.format) != 0)
        what = "its prompt was computed over another KV format";
    if (what)
        snprintf(err->text, sizeof err->text, "restored, but %s: the text may differ from an uninterrupted one", what);
}

static tr_status read_all(const tr_resharder_file *r, stream *s, uint64_t *bytes_out, tr_error *err) {
    struct stat st;
    uint8_t header[TR_KV_FILE_HEADER];
    tr_kv_file f;
    uint32_t end[2];
    if (fstat(s->fd, &st) != 0 || !S_ISREG(st.st_mode)) return tr_error_set(err, TR_DATA, "this is no file");
    TR_TRY(get(s, header, sizeof header, err));
    TR_TRY(tr_kv_file_decode(header, (uint64_t)st.st_size, &f, err));
    TR_TRY(fits(r, &f, err));
    TR_TRY(same_tokens(r, s, &f, err));
    TR_TRY(read_tiles(r, s, &f, err));
    uint32_t crc = s->crc;
    TR_TRY(get(s, end, sizeof end, err));
    if (end[0] != crc || end[1] != TR_KV_FILE_END) return tr_error_set(err, TR_DATA, "the file is damaged");
    *bytes_out = (uint64_t)st.st_size;
    compare(r, &f, err);
    return TR_OK;
}

tr_status tr_resharder_file_restore(const tr_resharder_file *r, uint64_t *bytes_out, tr_error *err) {
    char path[PATH_ROOM];
    tr_error inner = {0};
    TR_TRY(path_of(r, r->entry->restore, "", path, err));
    stream s = {.fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), .buffer = malloc(BUFFER)};
    tr_status status = TR_NO_INPUT;
    if (kept_format(r, &inner) != TR_OK)
        status = TR_UNAVAILABLE;
    else if (s.fd < 0)
        tr_error_set(&inner, status, "%s", strerror(errno));
    else if (!s.buffer)
        status = tr_error_set(&inner, TR_UNAVAILABLE, "no memory");
    else
        status = read_all(r, &s, bytes_out, &inner);
    if (s.fd >= 0) close(s.fd);
    free(s.buffer);
    if (status != TR_OK)
        return tr_error_set(err, status, "not restored, the prompt was computed anew: %.64s: %.120s", r->entry->restore,
                            inner.text);
    memcpy(err->text, inner.text, sizeof err->text);
    return TR_OK;
}
