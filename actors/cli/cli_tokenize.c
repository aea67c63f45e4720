/* troupe tokenize: ids of a text, byte for byte; a vocabulary-only GGUF will do. */
#include "actors/cli/cli_session.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void print_ids(const uint32_t *ids, size_t n, bool json) {
    if (json) putchar('[');
    for (size_t i = 0; i < n; i++) printf("%s%u", i == 0 ? "" : json ? "," : " ", ids[i]);
    puts(json ? "]" : "");
}

/* A folder or a .safetensors file: the words of run. A GGUF is not opened as a model: a vocabulary alone will do. */
static tr_status refuse_safetensors(const char *path, tr_error *err) {
    struct stat st;
    tr_model_file *mf = NULL;
    size_t n = strlen(path);
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    if (!folder && (n < 12 || strcmp(path + n - 12, ".safetensors") != 0)) return TR_OK;
    TR_TRY(tr_model_file_open(path, &mf, err));
    tr_model_file_close(&mf);
    return tr_cli_session_no_tokenizer(path, err);
}

static tr_status tokenize(const tr_options *o, const char *model, tr_error *err) {
    tr_cli_text text = {0};
    tr_gguf *gguf = NULL;
    tr_tokenizer *tokenizer = NULL;
    uint32_t *ids = NULL;
    size_t n = 0;
    unsigned flags = tr_options_flag(o, TR_OPTION_NO_BOS) ? 0 : TR_TOKENIZE_BOS;
    if (tr_options_flag(o, TR_OPTION_SPECIAL)) flags |= TR_TOKENIZE_PARSE_SPECIAL;
    TR_TRY(refuse_safetensors(model, err));
    tr_status status = tr_gguf_open(model, &gguf, err);
    if (status == TR_OK) status = tr_tokenizer_create(gguf, &tokenizer, err);
    if (status == TR_OK)
        status = tr_cli_read_file(tr_options_text(o, TR_OPTION_TEXT_FILE), TR_TOKENIZER_MAX_TEXT, &text, err);
    if (status == TR_OK) {
        size_t cap = tr_tokenizer_bound(text.len);
        ids = malloc(cap * sizeof *ids);
        status = ids ? tr_tokenizer_encode(tokenizer, text.data, text.len, flags, ids, cap, &n, err)
                     : tr_error_set(err, TR_UNAVAILABLE, "no memory for %zu tokens", cap);
    }
    if (status == TR_OK) print_ids(ids, n, tr_options_flag(o, TR_OPTION_JSON));
    free(ids);
    tr_cli_text_free(&text);
    tr_tokenizer_destroy(&tokenizer);
    tr_gguf_close(&gguf);
    return status;
}

int tr_cli_tokenize(tr_options *o) {
    tr_error err = {0};
    char model[TR_COMPANY_PATH_MAX];
    const char *name = o->n_positional ? o->positional[0] : tr_options_text(o, TR_OPTION_MODEL);
    tr_status status = tr_options_given(o, TR_OPTION_TEXT_FILE)
                           ? tr_topology_find_model(name, "", model, sizeof model, &err)
                           : tr_error_set(&err, TR_USAGE, "no text: give --text FILE, or --text - for stdin");
    if (status == TR_OK) status = tokenize(o, model, &err);
    return status == TR_OK ? 0 : tr_cli_fail(&err, status);
}
