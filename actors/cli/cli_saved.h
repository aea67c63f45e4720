/* actors/cli/cli_saved.h - what --save and --restore of run and generate mean: names for the company, and the tokens of
 * a saved sequence, which the prompt begins with. The KV itself is read by the company's resharder alone. */
#ifndef TR_CLI_SAVED_H
#define TR_CLI_SAVED_H
#include "actors/cli/cli.h"
#include "actors/runtime/company.h"
#include "client/troupe_client.h"

typedef struct tr_cli_saved {
    char folder[TR_COMPANY_PATH_MAX]; /* absolute, of both files; empty: neither was asked for */
    char save[TR_MAX_FILE_NAME_BYTES + 1], restore[TR_MAX_FILE_NAME_BYTES + 1]; /* names in it; empty: not asked */
    uint32_t *tokens; /* [n_tokens] of the file to restore; owned */
    uint32_t n_tokens, n_prefill, n_kv;
} tr_cli_saved;

/* By the options. TR_NO_INPUT, TR_DATA (no saved sequence), TR_USAGE (two folders, a bad name). */
tr_status tr_cli_saved_open(const tr_options *options, tr_cli_saved *saved_out, tr_error *err);
/* Set save and restore of a request of n tokens that begin with the file's. */
void tr_cli_saved_params(const tr_cli_saved *saved, uint32_t n, tr_client_params *params);
void tr_cli_saved_fini(tr_cli_saved *saved);
#endif
