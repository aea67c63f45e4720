/* troupe tokenize: ids of a text, byte for byte; a vocabulary-only GGUF will do, or a folder with a tokenizer.json. */
#include "actors/cli/cli_session.h"
#include "model/tokenizer_source.h"

#include <stdio.h>
#include <stdlib.h>

static void print_ids(const uint32_t *ids, size_t n, bool json) {
    if (json) putchar('[');
    for (size_t i = 0; i < n; i++) printf("%s%u", i == 0 ? "" : json ? "," : " ", ids[i]);
    puts(json ? "]" : "");
}

static tr_status tokenize(const tr_options *o, const char *model, tr_error *err) {
    tr_cli_text text = {0};
    tr_tokenizer *tokenizer = NULL;
    uint32_t *ids = NULL;
    size_t n = 0;
    unsigned flags = tr_options_flag(o, TR_OPTION_NO_BOS) ? 0 : TR_TOKENIZE_BOS;
    if (tr_options_flag(o, TR_OPTION_SPECIAL)) flags |= TR_TOKENIZE_PARSE_SPECIAL;
    tr_status status = tr_tokenizer_source_open(model, &tokenizer, err);
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
