#include "actors/cli/cli.h"

#include "transport/codec.h"
#include "transport/schema.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void tr_cli_text_free(tr_cli_text *text) {
    free(text->data);
    *text = (tr_cli_text){0};
}

static tr_status grow(tr_cli_text *t, size_t *cap, tr_error *err) {
    if (t->len + 1 < *cap) return TR_OK;
    size_t want = *cap ? 2 * *cap : 65536;
    char *more = realloc(t->data, want);
    if (!more) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the text");
    t->data = more;
    *cap = want;
    return TR_OK;
}

static tr_status read_all(int fd, const char *name, size_t limit, tr_cli_text *t, tr_error *err) {
    size_t cap = 0;
    for (;;) {
        TR_TRY(grow(t, &cap, err));
        ssize_t n = read(fd, t->data + t->len, cap - t->len - 1);
        if (n < 0 && errno == EINTR && !tr_cli_signalled()) continue;
        if (n < 0 && errno == EINTR) return TR_CANCELLED;
        if (n < 0) return tr_error_set(err, TR_NO_INPUT, "%.300s: %s", name, strerror(errno));
        if (n == 0) break;
        t->len += (size_t)n;
        if (t->len > limit) return tr_error_set(err, TR_DATA, "%.300s: longer than %zu bytes: shorten it", name, limit);
    }
    t->data[t->len] = 0;
    return TR_OK;
}

tr_status tr_cli_read_file(const char *path, size_t limit, tr_cli_text *out, tr_error *err) {
    *out = (tr_cli_text){0};
    bool input = strcmp(path, "-") == 0;
    int fd = input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return tr_error_set(err, TR_NO_INPUT, "%.300s: %s", path, strerror(errno));
    tr_status status = read_all(fd, input ? "stdin" : path, limit, out, err);
    if (!input) close(fd);
    if (status != TR_OK) tr_cli_text_free(out);
    return status;
}

/* First byte that does not belong to valid UTF-8. */
static size_t first_bad(const char *s, size_t len) {
    size_t good = 0, step = 1;
    while (good < len) { /* characters are at most 4 bytes: try each length */
        for (step = 1; step <= 4 && good + step <= len; step++)
            if (tr_codec_utf8_valid(s + good, step)) break;
        if (step > 4 || good + step > len) return good;
        good += step;
    }
    return good;
}

tr_status tr_cli_read_prompt(const char *word, tr_cli_text *out, tr_error *err) {
    if (word && strcmp(word, "-") != 0) {
        *out = (tr_cli_text){.data = strdup(word), .len = strlen(word)};
        if (!out->data) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the prompt");
    } else {
        if (isatty(STDIN_FILENO)) tr_cli_say("reading the prompt from the terminal, Ctrl-D ends it");
        TR_TRY(tr_cli_read_file("-", TR_MAX_TEXT_BYTES, out, err));
    }
    if (out->len <= TR_MAX_TEXT_BYTES && tr_codec_utf8_valid(out->data, out->len)) return TR_OK;
    tr_status status =
        out->len > TR_MAX_TEXT_BYTES
            ? tr_error_set(err, TR_DATA, "the prompt is longer than %d bytes: shorten it", TR_MAX_TEXT_BYTES)
            : tr_error_set(err, TR_DATA, "the prompt is not UTF-8 at byte %zu: convert it first",
                           first_bad(out->data, out->len));
    tr_cli_text_free(out);
    return status;
}

/* A reader that does not read must not keep a signal waiting: poll first, then write no more than fits for sure. */
tr_status tr_cli_write(const void *data, size_t bytes, tr_error *err) {
    const char *p = data;
    while (bytes > 0) {
        struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
        if (tr_cli_signalled()) return TR_CANCELLED;
        if (poll(&out, 1, 100) <= 0) continue;
        ssize_t n = write(STDOUT_FILENO, p, bytes < PIPE_BUF ? bytes : PIPE_BUF);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n < 0) return tr_error_set(err, TR_CANNOT_CREATE, "cannot write to stdout: %s", strerror(errno));
        p += n;
        bytes -= (size_t)n;
    }
    return TR_OK;
}
