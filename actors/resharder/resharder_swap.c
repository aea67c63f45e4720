#include "actors/resharder/resharder_swap.h"

#include "base/crc32c.h"
#include "kv/kv_swap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { BUFFER = 1 << 20 };

/* An image on its way: read or written in order. */
typedef struct image {
    tr_resharder_swap *space;
    uint64_t at, end;  /* next byte in the space; one behind the last */
    size_t used, have; /* of the buffer */
    uint32_t *crc;     /* of each tile */
} image;

void tr_resharder_swap_init(tr_resharder_swap *s, const tr_company *c, uint8_t *memory) {
    *s = (tr_resharder_swap){.memory = memory, .path = c->swap_file, .fd = -1, .bytes = c->swap_bytes};
}

static tr_status open_file(tr_resharder_swap *s, tr_error *err) {
    if (s->memory || s->fd >= 0) return TR_OK;
    if (!s->buffer) s->buffer = malloc(BUFFER);
    if (!s->buffer) return tr_error_set(err, TR_UNAVAILABLE, "no memory");
    const int fd = open(s->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return tr_error_set(err, TR_CANNOT_CREATE, "%.300s: %s", s->path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return tr_error_set(err, TR_UNAVAILABLE, "%.300s: another company swaps there", s->path);
    }
    s->fd = fd;
    return TR_OK;
}

void tr_resharder_swap_end(tr_resharder_swap *s) {
    tr_error none;
    if (s->bytes > 0 && open_file(s, &none) == TR_OK && s->fd >= 0 && ftruncate(s->fd, 0) == 0) close(s->fd);
    free(s->buffer);
}

static tr_status write_at(int fd, const uint8_t *from, size_t bytes, uint64_t at, tr_error *err) {
    for (size_t done = 0; done < bytes;) {
        const ssize_t n = pwrite(fd, from + done, bytes - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return tr_error_set(err, TR_CANNOT_CREATE, "cannot write: %s", n < 0 ? strerror(errno) : "full");
        done += (size_t)n;
    }
    return TR_OK;
}

static tr_status read_at(int fd, uint8_t *to, size_t bytes, uint64_t at, tr_error *err) {
    for (size_t done = 0; done < bytes;) {
        const ssize_t n = pread(fd, to + done, bytes - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return tr_error_set(err, TR_DATA, "cannot read: %s", n < 0 ? strerror(errno) : "it ends too early");
        done += (size_t)n;
    }
    return TR_OK;
}

static tr_status flush(image *m, tr_error *err) {
    TR_TRY(write_at(m->space->fd, m->space->buffer, m->used, m->at, err));
    m->at += m->used;
    m->used = 0;
    return TR_OK;
}

static tr_status put(image *m, const uint8_t *tile, size_t bytes, tr_error *err) {
    if (m->space->memory) {
        memcpy(m->space->memory + m->at, tile, bytes);
        m->at += bytes;
        return TR_OK;
    }
    if (m->used + bytes > BUFFER) TR_TRY(flush(m, err));
    memcpy(m->space->buffer + m->used, tile, bytes);
    m->used += bytes;
    return TR_OK;
}

static tr_status get(image *m, uint8_t *tile, size_t bytes, tr_error *err) {
    if (m->space->memory) {
        memcpy(tile, m->space->memory + m->at, bytes);
        m->at += bytes;
        return TR_OK;
    }
    if (m->used == m->have) { /* whole tiles at once */
        const uint64_t left = m->end - m->at, most = BUFFER / bytes * bytes;
        m->have = left < most ? (size_t)left : (size_t)most;
        m->used = 0;
        TR_TRY(read_at(m->space->fd, m->space->buffer, m->have, m->at, err));
        m->at += m->have;
    }
    memcpy(tile, m->space->buffer + m->used, bytes);
    m->used += bytes;
    return TR_OK;
}

/* The CRCs lie before the tiles, and are written after them. */
static tr_status crcs(const image *m, uint64_t at, uint64_t n, bool out, tr_error *err) {
    uint8_t *words = (uint8_t *)m->crc;
    if (!m->space->memory)
        return out ? write_at(m->space->fd, words, n * sizeof *m->crc, at, err)
                   : read_at(m->space->fd, words, n * sizeof *m->crc, at, err);
    if (out)
        memcpy(m->space->memory + at, words, n * sizeof *m->crc);
    else
        memcpy(words, m->space->memory + at, n * sizeof *m->crc);
    return TR_OK;
}

static tr_status tiles(image *m, const tr_resharder_file *f, const tr_kv_file *shape, bool out, tr_error *err) {
    const size_t bytes = tr_kv_tile_bytes(f->layout->format, f->layout->head_dim);
    const uint32_t seed = tr_kv_swap_seed(f->entry->rid, f->entry->swap_n);
    tr_kv_file_walk w;
    tr_kv_file_tile t;
    tr_kv_file_walk_init(&w, shape);
    for (uint64_t i = 0; tr_kv_file_walk_next(&w, &t); i++) {
        uint8_t *tile = tr_resharder_file_tile(f, &t);
        if (!tile) return tr_error_set(err, TR_INVALID, "no page holds position %u", t.pos);
        TR_TRY(out ? put(m, tile, bytes, err) : get(m, tile, bytes, err));
        const uint32_t crc = tr_crc32c(seed, tile, bytes);
        if (out)
            m->crc[i] = crc;
        else if (m->crc[i] != crc)
            return tr_error_set(err, TR_DATA, "position %u of layer %u is not what was written", t.pos, t.layer);
    }
    return out && !m->space->memory ? flush(m, err) : TR_OK;
}

tr_status tr_resharder_swap_run(tr_resharder_swap *s, const tr_resharder_file *f, uint64_t *bytes_out, tr_error *err) {
    const tr_journal_entry *e = f->entry;
    const tr_kv_layout *l = f->layout;
    const bool out = f->job->file == 3;
    uint64_t n, head = tr_kv_swap_head_bytes(l, e->swap_min, e->swap_end, &n);
    tr_kv_file shape;
    *bytes_out = tr_kv_swap_bytes(l, e->swap_min, e->swap_end);
    if (*bytes_out == 0 || *bytes_out != e->swap_bytes || *bytes_out > s->bytes || e->swap_at > s->bytes - *bytes_out)
        return tr_error_set(err, TR_INVALID, "the job names no place in the swap space");
    TR_TRY(open_file(s, err));
    image m = {.space = s,
               .at = e->swap_at + head,
               .end = e->swap_at + head + n * tr_kv_tile_bytes(l->format, l->head_dim),
               .crc = malloc(n * sizeof *m.crc)};
    if (!m.crc) return tr_error_set(err, TR_UNAVAILABLE, "no memory");
    tr_kv_swap_describe(l, e->swap_min, e->swap_end, &shape);
    tr_status status = out ? TR_OK : crcs(&m, e->swap_at, n, false, err);
    if (status == TR_OK) status = tiles(&m, f, &shape, out, err);
    if (status == TR_OK && out) status = crcs(&m, e->swap_at, n, true, err);
    free(m.crc);
    return status;
}
