/* I1: an image file appears under its name by rename only, complete and on disk.
 * I2: <image>.tmp is written by the holder of the lock on <image>.lock alone; so a temporary whose lock is free is
 *     stale.
 * A lock file may be removed by clear() while it is held: after taking a lock, the name must still be that file. */
#include "model/model_cache.h"

#include "model/model_file.h"
#include "model/tokenizer_file.h"
#include "model/tokenizer_source.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { PATH_ROOM = TR_MODEL_CACHE_PATH_MAX + 512 };

/* ---- folders ---- */

tr_status tr_model_cache_folder(char *path_out, size_t cap, tr_error *err) {
    const char *base = getenv("XDG_CACHE_HOME"), *tail = "/troupe";
    if (!base || base[0] != '/') { /* a relative one is to be ignored (XDG base directory specification) */
        base = getenv("HOME");
        tail = "/.cache/troupe";
    }
    if (!base || base[0] != '/')
        return tr_error_set(err, TR_UNAVAILABLE, "no cache folder: neither XDG_CACHE_HOME nor HOME names one");
    int n = snprintf(path_out, cap, "%s%s", base, tail);
    if (n < 0 || (size_t)n >= cap) return tr_error_set(err, TR_UNAVAILABLE, "the path of the cache folder is too long");
    return TR_OK;
}

/* The folder and its parents, all private; false with the errno of what could not be made. */
static bool make_folder(const char *path) {
    char part[PATH_ROOM];
    int n = snprintf(part, sizeof part, "%s/", path);
    if (n < 0 || (size_t)n >= sizeof part) return false;
    for (char *at = part + 1; (at = strchr(at, '/')) != NULL; *at++ = '/') {
        *at = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST) {
            struct stat st;
            int why = errno;
            if (stat(part, &st) != 0 || !S_ISDIR(st.st_mode)) { /* a parent may be read-only and there */
                errno = why;
                return false;
            }
        }
    }
    return true;
}

/* Path of a folder of the cache; false and errno when it cannot be had. */
static bool sub_folder(const char *name, char *out, size_t cap) {
    char base[TR_MODEL_CACHE_PATH_MAX];
    errno = ENOENT;
    if (tr_model_cache_folder(base, sizeof base, NULL) != TR_OK) return false;
    int n = snprintf(out, cap, "%s/%s", base, name);
    return n > 0 && (size_t)n < cap;
}

/* ---- content hash ---- */

/* One line: what the file was when it was hashed, and the hash. */
typedef struct memo {
    char path[PATH_ROOM]; /* empty: nowhere to remember */
    char stamp[160];
} memo;

static void memo_init(memo *m, const struct stat *st) {
    char folder[TR_MODEL_CACHE_PATH_MAX + 64];
    m->path[0] = '\0';
    snprintf(m->stamp, sizeof m->stamp, "1 %jd %jd.%09ld %jd.%09ld", (intmax_t)st->st_size,
             (intmax_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, (intmax_t)st->st_ctim.tv_sec, st->st_ctim.tv_nsec);
    if (sub_folder("hashes", folder, sizeof folder))
        snprintf(m->path, sizeof m->path, "%s/%jx-%jx", folder, (uintmax_t)st->st_dev, (uintmax_t)st->st_ino);
}

static bool memo_read(const memo *m, uint64_t *hash_out) {
    char text[256], *end;
    int fd = m->path[0] ? open(m->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0) return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    size_t stamp = strlen(m->stamp);
    if (n <= (ssize_t)stamp + 1 || memcmp(text, m->stamp, stamp) != 0 || text[stamp] != ' ') return false;
    text[n] = '\0';
    uint64_t hash = strtoull(text + stamp + 1, &end, 16);
    if (end != text + stamp + 17 || strcmp(end, "\n") != 0) return false;
    *hash_out = hash;
    return true;
}

/* Best effort: without it the next start hashes again. */
static void memo_write(const memo *m, uint64_t hash) {
    char folder[PATH_ROOM], temporary[PATH_ROOM + 32], text[256];
    if (!m->path[0]) return;
    snprintf(folder, sizeof folder, "%s", m->path);
    *strrchr(folder, '/') = '\0';
    if (!make_folder(folder)) return;
    snprintf(temporary, sizeof temporary, "%s.%ld.tmp", m->path, (long)getpid());
    int n = snprintf(text, sizeof text, "%s %016" PRIx64 "\n", m->stamp, hash);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return;
    bool written = write(fd, text, (size_t)n) == n;
    close(fd);
    if (!written || rename(temporary, m->path) != 0) unlink(temporary);
}

static tr_status hash_weights(const char *path, uint64_t *hash_out, tr_error *err) {
    struct stat st;
    memo m;
    if (stat(path, &st) != 0) return tr_error_set(err, TR_NO_INPUT, "cannot read %s: %s", path, strerror(errno));
    memo_init(&m, &st);
    if (memo_read(&m, hash_out)) return TR_OK;
    tr_file_map map = {0};
    TR_TRY(tr_file_map_open(path, &map, err));
    *hash_out = XXH3_64bits(map.data, map.size);
    tr_file_map_close(&map);
    struct stat after;
    if (stat(path, &after) == 0 && memcmp(&st.st_mtim, &after.st_mtim, sizeof st.st_mtim) == 0)
        memo_write(&m, *hash_out);
    return TR_OK;
}

/* Of several parts the hash of their hashes, so that each is remembered by itself. */
static tr_status hash_parts(const tr_model_file *mf, uint64_t *hash_out, tr_error *err) {
    const uint32_t n = tr_model_file_parts(mf);
    if (n == 1) return hash_weights(tr_model_file_part(mf, 0), hash_out, err);
    uint64_t hash = n;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t part;
        TR_TRY(hash_weights(tr_model_file_part(mf, i), &part, err));
        hash = XXH3_64bits_withSeed(&part, sizeof part, hash);
    }
    *hash_out = hash;
    return TR_OK;
}

/* Is there something to remember of every part? */
static bool parts_known(const tr_model_file *mf) {
    for (uint32_t i = 0; i < tr_model_file_parts(mf); i++) {
        struct stat st;
        uint64_t hash;
        memo m;
        if (stat(tr_model_file_part(mf, i), &st) != 0) return false;
        memo_init(&m, &st);
        if (!memo_read(&m, &hash)) return false;
    }
    return true;
}

/* safetensors: image and vocabulary also hold what the files beside the weights say. */
static uint64_t hash_beside(const char *weights, uint64_t hash) {
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer_config.json",
                                        "tokenizer.json"};
    const char *slash = strrchr(weights, '/');
    int folder = slash ? (int)(slash - weights + 1) : 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[PATH_ROOM];
        tr_file_map map = {0};
        int n = snprintf(path, sizeof path, "%.*s%s", folder, weights, names[i]);
        if (n < 0 || (size_t)n >= sizeof path || tr_file_map_open(path, &map, NULL) != TR_OK) continue;
        hash = XXH3_64bits_withSeed(map.data, map.size, hash + i);
        tr_file_map_close(&map);
    }
    return hash;
}

tr_status tr_model_cache_hash(const tr_model_file *mf, uint64_t *hash_out, tr_error *err) {
    uint64_t hash = 0;
    TR_TRY(hash_parts(mf, &hash, err));
    *hash_out = tr_model_file_gguf(mf) ? hash : hash_beside(tr_model_file_path(mf), hash);
    return TR_OK;
}

/* ---- one file ---- */

static bool image_ready(const char *path, tr_precision precision, uint64_t hash) {
    tr_image *image = NULL;
    if (tr_image_open(path, &image, NULL) != TR_OK) return false;
    bool ready = tr_image_precision(image) == precision && tr_image_model_hash(image) == hash;
    tr_image_close(&image);
    return ready;
}

/* Descriptor that holds the lock of an image; -1 with errno. */
static int lock_image(const char *image, int how) {
    char path[PATH_ROOM + 8];
    snprintf(path, sizeof path, "%s.lock", image);
    for (;;) {
        struct stat held, named;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0) return -1;
        while (flock(fd, how) != 0)
            if (errno != EINTR) {
                int e = errno;
                close(fd);
                errno = e;
                return -1;
            }
        if (fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_ino == named.st_ino &&
            held.st_dev == named.st_dev)
            return fd;
        close(fd); /* removed while we waited */
    }
}

/* Temporaries that a packer left when it died. */
static void sweep(const char *folder) {
    DIR *dir = opendir(folder);
    if (!dir) return;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        size_t n = strlen(e->d_name);
        if (n < 4 || strcmp(e->d_name + n - 4, ".tmp") != 0) continue;
        char image[PATH_ROOM], temporary[PATH_ROOM + 8];
        int len = snprintf(image, sizeof image, "%s/%.*s", folder, (int)(n - 4), e->d_name);
        if (len < 0 || (size_t)len >= sizeof image) continue;
        int lock = lock_image(image, LOCK_EX | LOCK_NB);
        if (lock < 0) continue;
        snprintf(temporary, sizeof temporary, "%s.tmp", image);
        unlink(temporary);
        close(lock);
    }
    closedir(dir);
}

typedef struct job {
    const tr_model_file *mf;
    const tr_tokenizer *tokenizer; /* its tables are to be packed; NULL: the weights */
    tr_precision precision;
    uint64_t hash;
    uint32_t n_threads;
    tr_pack_progress progress;
    void *progress_arg;
} job;

static bool ready(const job *j, const char *path) {
    if (!j->tokenizer) return image_ready(path, j->precision, j->hash);
    tr_tokenizer *t = NULL;
    bool is = tr_tokenizer_file_open(path, j->hash, &t, NULL) == TR_OK;
    tr_tokenizer_destroy(&t);
    return is;
}

static tr_status pack(const job *j, int fd, tr_error *err) {
    if (j->tokenizer) return tr_tokenizer_file_write(j->tokenizer, j->hash, fd, err);
    return tr_pack_image(j->mf, j->precision, j->hash, fd, j->n_threads, j->progress, j->progress_arg, err);
}

/* Pack under the lock. TR_CANNOT_CREATE: the folder does not take it (err says why). */
static tr_status pack_file(const job *j, const char *path, tr_error *err) {
    char temporary[PATH_ROOM + 8];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    unlink(temporary);
    int fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return tr_error_set(err, TR_CANNOT_CREATE, "cannot write %s: %s", temporary, strerror(errno));
    tr_status status = pack(j, fd, err);
    if (status == TR_OK && fsync(fd) != 0)
        status = tr_error_set(err, TR_CANNOT_CREATE, "cannot write %s: %s", temporary, strerror(errno));
    /* It came into the page cache in small pages; read again, a file system that can keeps it in large ones. */
    if (status == TR_OK) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (status == TR_OK && rename(temporary, path) != 0)
        status = tr_error_set(err, TR_CANNOT_CREATE, "cannot name %s: %s", path, strerror(errno));
    close(fd);
    if (status != TR_OK) unlink(temporary);
    return status;
}

/* Name of an image; false: too long, or no folder. */
static bool image_path(const char *folder, uint64_t hash, tr_precision precision, char *out, size_t cap) {
    int n = snprintf(out, cap, "%s/%016" PRIx64 "-%s-v%d.img", folder, hash, tr_precision_name(precision),
                     TR_IMAGE_VERSION);
    return n > 0 && (size_t)n < cap;
}

/* Make the file of that name ready in the folder. TR_CANNOT_CREATE: the cache cannot be used. */
static tr_status make_file(const job *j, const char *folder, const char *path, bool *packed_out, tr_error *err) {
    if (ready(j, path)) return TR_OK;
    if (!make_folder(folder))
        return tr_error_set(err, TR_CANNOT_CREATE, "cannot make %.400s: %s", folder, strerror(errno));
    int lock = lock_image(path, LOCK_EX);
    if (lock < 0) return tr_error_set(err, TR_CANNOT_CREATE, "cannot write in %.400s: %s", folder, strerror(errno));
    tr_status status = TR_OK;
    if (!ready(j, path)) { /* or another process made it while we waited */
        status = pack_file(j, path, err);
        *packed_out = status == TR_OK;
    }
    close(lock);
    if (*packed_out) sweep(folder);
    return status;
}

/* A ready image of the cache. TR_CANNOT_CREATE: the cache cannot be used. */
static tr_status from_cache(const job *j, tr_model_cache_image *out, tr_error *err) {
    char folder[TR_MODEL_CACHE_PATH_MAX + 64];
    if (!sub_folder("images", folder, sizeof folder))
        return tr_error_set(err, TR_CANNOT_CREATE, "no cache folder: neither XDG_CACHE_HOME nor HOME names one");
    if (!image_path(folder, j->hash, j->precision, out->path, sizeof out->path))
        return tr_error_set(err, TR_CANNOT_CREATE, "the path of the cache folder is too long");
    return make_file(j, folder, out->path, &out->packed, err);
}

static tr_status into_memory(const job *j, tr_model_cache_image *out, tr_error *err) {
    int fd = memfd_create("troupe-image", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return tr_error_set(err, TR_SYSTEM, "no memory for packed weights: %s", strerror(errno));
    tr_status status = pack(j, fd, err);
    if (status == TR_OK && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0)
        status = tr_error_set(err, TR_SYSTEM, "cannot seal packed weights: %s", strerror(errno));
    if (status != TR_OK) {
        close(fd);
        return status;
    }
    out->path[0] = '\0';
    out->fd = fd;
    out->packed = true;
    return TR_OK;
}

tr_status tr_model_cache_get(const char *model_path, tr_precision precision, uint32_t n_threads,
                             tr_pack_progress progress, void *progress_arg, tr_model_cache_image *image_out,
                             tr_error *err) {
    tr_model_file *mf = NULL;
    TR_TRY(tr_model_file_open(model_path, &mf, err));
    job j = {
        .mf = mf, .precision = precision, .n_threads = n_threads, .progress = progress, .progress_arg = progress_arg};
    tr_model_cache_image out = {.fd = -1};
    tr_error why = {0};
    tr_status status = tr_model_cache_hash(mf, &j.hash, &why);
    out.model_hash = j.hash;
    if (status == TR_OK) status = from_cache(&j, &out, &why);
    if (status == TR_CANNOT_CREATE) {
        snprintf(out.warning, sizeof out.warning, "weights are packed in memory, not cached: %.200s", why.text);
        status = into_memory(&j, &out, &why);
    }
    tr_model_file_close(&mf);
    if (status != TR_OK) return tr_error_set(err, status, "%s", why.text);
    *image_out = out;
    return TR_OK;
}

/* Name of the packed vocabulary; false: it cannot be in the cache. */
static bool vocabulary_path(const tr_model_file *mf, uint64_t *hash_out, char *folder, size_t folder_cap, char *path,
                            size_t cap) {
    if (tr_model_cache_hash(mf, hash_out, NULL) != TR_OK || !sub_folder("images", folder, folder_cap)) return false;
    int n = snprintf(path, cap, "%s/%016" PRIx64 "-vocabulary-v%d.tok", folder, *hash_out, TR_TOKENIZER_FILE_VERSION);
    return n > 0 && (size_t)n < cap;
}

tr_status tr_model_cache_tokenizer(const tr_model_file *mf, tr_tokenizer **tokenizer_out,
                                   char path_out[TR_MODEL_CACHE_PATH_MAX], tr_error *err) {
    char folder[TR_MODEL_CACHE_PATH_MAX + 64];
    const tr_gguf *gguf = tr_model_file_gguf(mf);
    path_out[0] = '\0';
    job j = {.mf = mf};
    char path[TR_MODEL_CACHE_PATH_MAX];
    bool named = vocabulary_path(mf, &j.hash, folder, sizeof folder, path, sizeof path), packed = false;
    if (named && tr_tokenizer_file_open(path, j.hash, tokenizer_out, NULL) == TR_OK) {
        memcpy(path_out, path, sizeof path);
        return TR_OK;
    }
    TR_TRY(gguf ? tr_tokenizer_create(gguf, tokenizer_out, err)
                : tr_tokenizer_source_open(tr_model_file_path(mf), tokenizer_out, err));
    j.tokenizer = *tokenizer_out;
    if (named && make_file(&j, folder, path, &packed, NULL) == TR_OK) memcpy(path_out, path, sizeof path);
    return TR_OK;
}

tr_status tr_model_cache_calibration(uint64_t model_hash, char path_out[TR_MODEL_CACHE_PATH_MAX], tr_error *err) {
    char folder[TR_MODEL_CACHE_PATH_MAX + 64];
    TR_TRY(tr_model_cache_folder(folder, sizeof folder, err));
    sub_folder("images", folder, sizeof folder);
    if (!make_folder(folder))
        return tr_error_set(err, TR_CANNOT_CREATE, "cannot make %.400s: %s", folder, strerror(errno));
    int n = snprintf(path_out, TR_MODEL_CACHE_PATH_MAX, "%s/%016" PRIx64 "-kv-v1.cal", folder, model_hash);
    if (n < 0 || n >= TR_MODEL_CACHE_PATH_MAX)
        return tr_error_set(err, TR_UNAVAILABLE, "the path of the cache folder is too long");
    return TR_OK;
}

bool tr_model_cache_has(const tr_model_file *mf, tr_precision precision) {
    char folder[TR_MODEL_CACHE_PATH_MAX + 64], path[TR_MODEL_CACHE_PATH_MAX];
    uint64_t hash;
    if (!parts_known(mf) || !sub_folder("images", folder, sizeof folder)) return false;
    if (tr_model_cache_hash(mf, &hash, NULL) != TR_OK) return false;
    return image_path(folder, hash, precision, path, sizeof path) && image_ready(path, precision, hash);
}

/* ---- the whole cache ---- */

tr_status tr_model_cache_probe(tr_error *err) {
    char folder[TR_MODEL_CACHE_PATH_MAX + 64], path[PATH_ROOM];
    TR_TRY(tr_model_cache_folder(folder, sizeof folder, err));
    sub_folder("images", folder, sizeof folder);
    if (!make_folder(folder))
        return tr_error_set(err, TR_CANNOT_CREATE, "cannot make %.400s: %s", folder, strerror(errno));
    snprintf(path, sizeof path, "%s/probe.%ld", folder, (long)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return tr_error_set(err, TR_CANNOT_CREATE, "cannot write in %.400s: %s", folder, strerror(errno));
    bool written = write(fd, "troupe", 6) == 6;
    int why = errno;
    close(fd);
    unlink(path);
    if (!written) return tr_error_set(err, TR_CANNOT_CREATE, "cannot write in %.400s: %s", folder, strerror(why));
    return TR_OK;
}

/* Sum the bytes of the files of a folder, and remove them when asked. */
static uint64_t walk(const char *name, bool clear, int *error_out) {
    char folder[TR_MODEL_CACHE_PATH_MAX + 64];
    uint64_t bytes = 0;
    DIR *dir = sub_folder(name, folder, sizeof folder) ? opendir(folder) : NULL;
    if (!dir) return 0;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        struct stat st;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || S_ISDIR(st.st_mode)) continue;
        if (clear && unlinkat(dirfd(dir), e->d_name, 0) != 0 && errno != ENOENT)
            *error_out = errno;
        else
            bytes += (uint64_t)st.st_size;
    }
    closedir(dir);
    return bytes;
}

uint64_t tr_model_cache_bytes(void) {
    int error = 0;
    return walk("images", false, &error);
}

tr_status tr_model_cache_clear(uint64_t *freed_out, tr_error *err) {
    char folder[TR_MODEL_CACHE_PATH_MAX];
    int error = 0;
    TR_TRY(tr_model_cache_folder(folder, sizeof folder, err));
    *freed_out = walk("images", true, &error) + walk("hashes", true, &error);
    if (error) return tr_error_set(err, TR_CANNOT_CREATE, "cannot empty %.400s: %s", folder, strerror(error));
    return TR_OK;
}
