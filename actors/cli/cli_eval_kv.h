/* actors/cli/cli_eval_kv.h - eval --compare-kv: the text through a company with each KV format on both sides, in turn,
 * against the logits of the first one, which has bf16 KV. Private to the eval command. */
#ifndef TR_CLI_EVAL_KV_H
#define TR_CLI_EVAL_KV_H
#include "actors/cli/cli_session.h"

typedef struct tr_cli_eval_kv_row {
    bool done;
    double kl_mean, kl_p99, kl_max, top1; /* against bf16; top1: share of positions with the same likeliest token */
    double nll;                           /* mean over positions 1.. */
    double bytes_per_token;               /* of all layers and kv heads */
    double decode_ms;                     /* median time a token after the whole text; 0: no room in the context */
} tr_cli_eval_kv_row;

typedef struct tr_cli_eval_kv {
    uint32_t n, vocab;
    tr_kv_format format; /* of the company that runs */
    float *base;         /* [n][vocab] logits with bf16 KV, in a file without a name */
    double *base_norm;   /* [n] log of the sum of their exp */
    double *kl;          /* [n] of the company that runs */
    uint32_t same;
    tr_cli_eval_kv_row row[TR_KV_FORMAT_END];
} tr_cli_eval_kv;

/* TR_CANNOT_CREATE: no room for the logits below TMPDIR. */
tr_status tr_cli_eval_kv_init(tr_cli_eval_kv *k, uint32_t n, uint32_t vocab, tr_error *err);
void tr_cli_eval_kv_fini(tr_cli_eval_kv *k); /* idempotent */
/* Logits of one position; norm: log of the sum of their exp. */
void tr_cli_eval_kv_take(tr_cli_eval_kv *k, uint32_t position, const float *logits, double norm);
/* The company has answered for the whole text: the format's row. */
tr_status tr_cli_eval_kv_end(tr_cli_eval_kv *k, tr_cli_session *s, const uint32_t *ids, double nll, tr_error *err);
/* Tokens beyond the text that a company must have room for. */
uint32_t tr_cli_eval_kv_extra(const tr_model_config *m, uint32_t n);
void tr_cli_eval_kv_print(const tr_cli_eval_kv *k, bool json);
#endif
