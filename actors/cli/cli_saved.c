#include "actors/cli/cli_saved.h"

#include "kv/kv_file.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* FOLDER/NAME -> absolute folder, which exists, and the name. */
static tr_status split(const char *path, char folder[TR_COMPANY_PATH_MAX], char name[TR_MAX_FILE_NAME_BYTES + 1],
                       tr_error *err) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    char given[PATH_MAX], full[PATH_MAX];
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (base[0] == 0 || base[0] == '.' || strlen(base) > TR_MAX_FILE_NAME_BYTES || n >= sizeof given)
        return tr_error_set(err, TR_USAGE, "'%.200s': the name of a saved sequence has 1 to %d bytes, no dot in front",
                            path, TR_MAX_FILE_NAME_BYTES);
    snprintf(given, sizeof given, "%.*s%s", (int)n, path, !slash ? "." : n == 0 ? "/" : "");
    if (!realpath(given, full)) return tr_error_set(err, TR_NO_INPUT, "%.300s: %s", given, strerror(errno));
    if (strlen(full) >= TR_COMPANY_PATH_MAX) return tr_error_set(err, TR_USAGE, "%.200s: too long a path", full);
    if (folder[0] && strcmp(folder, full) != 0)
        return tr_error_set(err, TR_USAGE, "--save and --restore: both files must lie in one folder");
    memcpy(folder, full, strlen(full) + 1);
    memcpy(name, base, strlen(base) + 1);
    return TR_OK;
}

static tr_status read_head(FILE *file, const char *path, tr_cli_saved *s, tr_error *err) {
    uint8_t header[TR_KV_FILE_HEADER];
    struct stat st;
    tr_kv_file f;
    tr_error inner = {0};
    if (fstat(fileno(file), &st) != 0 || !S_ISREG(st.st_mode) || fread(header, sizeof header, 1, file) != 1)
        return tr_error_set(err, TR_DATA, "%.300s: this is no saved sequence", path);
    if (tr_kv_file_decode(header, (uint64_t)st.st_size, &f, &inner) != TR_OK)
        return tr_error_set(err, TR_DATA, "%.300s: %.150s", path, inner.text);
    s->tokens = malloc(f.n_tokens * sizeof *s->tokens); /* bounded by the header's limits and the size of the file */
    if (!s->tokens) return tr_error_set(err, TR_UNAVAILABLE, "no memory for %u tokens", f.n_tokens);
    if (fread(s->tokens, sizeof *s->tokens, f.n_tokens, file) != f.n_tokens)
        return tr_error_set(err, TR_DATA, "%.300s: the file ends too early", path);
    s->n_tokens = f.n_tokens;
    s->n_prefill = f.n_prefill;
    s->n_kv = f.n_kv;
    return TR_OK;
}

tr_status tr_cli_saved_open(const tr_options *o, tr_cli_saved *s, tr_error *err) {
    memset(s, 0, sizeof *s);
    if (tr_options_given(o, TR_OPTION_SAVE)) TR_TRY(split(tr_options_text(o, TR_OPTION_SAVE), s->folder, s->save, err));
    if (!tr_options_given(o, TR_OPTION_RESTORE)) return TR_OK;
    const char *path = tr_options_text(o, TR_OPTION_RESTORE);
    TR_TRY(split(path, s->folder, s->restore, err));
    FILE *file = fopen(path, "rb");
    if (!file) return tr_error_set(err, TR_NO_INPUT, "%.300s: %s", path, strerror(errno));
    tr_status status = read_head(file, path, s, err);
    fclose(file);
    return status;
}

void tr_cli_saved_params(const tr_cli_saved *s, uint32_t n, tr_client_params *p) {
    if (s->save[0]) p->save = s->save;
    if (!s->restore[0]) return;
    p->forced = n - s->n_prefill;
    p->restore_end = s->n_kv < n ? s->n_kv : n - 1; /* one token is computed in any case: it samples the next */
    if (p->restore_end >= s->n_prefill) p->restore = s->restore;
}

void tr_cli_saved_fini(tr_cli_saved *s) {
    free(s->tokens);
    s->tokens = NULL;
}
