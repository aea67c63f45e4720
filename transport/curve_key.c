#include "transport/curve_key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

enum { TEXT = TR_CURVE_KEY_TEXT - 1, PATH_BYTES = 1200 };

static tr_status path_of(const char *dir, const char *name, const char *end, char out[PATH_BYTES], tr_error *err) {
    int n = snprintf(out, PATH_BYTES, "%s/%s.%s", dir, name, end);
    if (n > 0 && n < PATH_BYTES && !strchr(name, '/')) return TR_OK;
    return tr_error_set(err, TR_CONFIG, "keys of '%.60s' in %.200s: no usable path", name, dir);
}

static tr_status write_text(const char *path, mode_t mode, const char *text, tr_error *err) {
    char line[TEXT + 1];
    memcpy(line, text, TEXT);
    line[TEXT] = '\n';
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) return tr_error_set(err, TR_CANNOT_CREATE, "cannot create %.300s: %s", path, strerror(errno));
    bool ok = write(fd, line, sizeof line) == (ssize_t)sizeof line && fchmod(fd, mode) == 0;
    ok = close(fd) == 0 && ok;
    explicit_bzero(line, sizeof line);
    if (ok) return TR_OK;
    unlink(path);
    return tr_error_set(err, TR_CANNOT_CREATE, "cannot write %.300s", path);
}

static tr_status read_text(const char *path, bool secret, char out[TR_CURVE_KEY_TEXT], tr_error *err) {
    char text[TEXT + 2];
    struct stat st;
    uint8_t raw[32];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return tr_error_set(err, TR_CONFIG, "cannot read the key %.300s: %s; troupe keygen makes keys", path,
                            strerror(errno));
    bool closed = fstat(fd, &st) == 0 && (!secret || ((st.st_mode & 077) == 0 && st.st_uid == geteuid()));
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    if (!closed)
        return tr_error_set(err, TR_CONFIG, "the secret key %.300s is open to others: chmod 600, and yours", path);
    if (n == TEXT + 1 && text[TEXT] == '\n') n = TEXT;
    text[TEXT] = 0;
    tr_status status = TR_OK;
    if (n != TEXT || strlen(text) != TEXT || !zmq_z85_decode(raw, text))
        status = tr_error_set(err, TR_CONFIG, "%.300s holds no key: %d characters of Z85 are expected", path, TEXT);
    else
        memcpy(out, text, TR_CURVE_KEY_TEXT);
    explicit_bzero(text, sizeof text);
    explicit_bzero(raw, sizeof raw);
    return status;
}

tr_status tr_curve_key_create(const char *dir, const char *name, tr_curve_key *out, tr_error *err) {
    char secret[PATH_BYTES], public[PATH_BYTES];
    TR_TRY(path_of(dir, name, "key", secret, err));
    TR_TRY(path_of(dir, name, "pub", public, err));
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return tr_error_set(err, TR_CANNOT_CREATE, "cannot create the folder %.300s: %s", dir, strerror(errno));
    if (zmq_curve_keypair(out->public_text, out->secret_text) != 0)
        return tr_error_set(err, TR_UNAVAILABLE, "cannot make keys: %s", zmq_strerror(errno));
    TR_TRY(write_text(secret, 0600, out->secret_text, err));
    tr_status status = write_text(public, 0644, out->public_text, err);
    if (status != TR_OK) unlink(secret);
    return status;
}

tr_status tr_curve_key_read(const char *dir, const char *name, tr_curve_key *out, tr_error *err) {
    char path[PATH_BYTES];
    tr_curve_key key;
    TR_TRY(path_of(dir, name, "key", path, err));
    TR_TRY(read_text(path, true, key.secret_text, err));
    if (zmq_curve_public(key.public_text, key.secret_text) != 0)
        return tr_error_set(err, TR_CONFIG, "%.300s holds no secret key", path);
    *out = key;
    tr_curve_key_wipe(&key);
    return TR_OK;
}

tr_status tr_curve_key_read_public(const char *dir, const char *name, char out[TR_CURVE_KEY_TEXT], tr_error *err) {
    char path[PATH_BYTES];
    TR_TRY(path_of(dir, name, "pub", path, err));
    return read_text(path, false, out, err);
}

void tr_curve_key_wipe(tr_curve_key *key) { explicit_bzero(key, sizeof *key); }
