/* model/model_file.h - one door to a model on disk: a GGUF file, or a Hugging Face folder (config.json, and weights in
 *      one .safetensors file or in shards with an index).
 * Why: the two formats name, order and offset the same weights differently; consumers see one convention:
 *      - rows are output features, columns input features; row r of a matrix gives output element r;
 *      - q and k rows are in rotate-half (NEOX) order, also where the file has interleaved pairs (llama in GGUF);
 *      - norm weights are effective: the consumer multiplies by them as they are.
 * Owns: the mapping. Views are valid until close.
 * Threads: immutable after open; any thread may read.
 * Errors: open checks that each tensor of the architecture is there, with the right shape: TR_DATA (file, tensor,
 *         found and expected shape), TR_NO_INPUT, TR_SYSTEM. After open, tensor and row cannot fail on file contents.
 */
#ifndef TR_MODEL_FILE_H
#define TR_MODEL_FILE_H
#include "base/status.h"
#include "model/dequant.h"
#include "model/model_config.h"

#include <stdbool.h>
#include <stdint.h>

/* X(role, belongs to a layer) */
#define TR_TENSOR_MAP(X)                                                                                               \
    X(EMBED, 0)          /* [vocab, hidden] */                                                                         \
    X(OUTPUT_NORM, 0)    /* [1, hidden] */                                                                             \
    X(OUTPUT, 0)         /* [vocab, hidden]; the embedding when tied */                                                \
    X(ROPE_FREQS, 0)     /* [1, head_dim/2]; optional, GGUF only; config.rope_freq_factors has them for both */        \
    X(ATTN_NORM, 1)      /* [1, hidden] */                                                                             \
    X(Q, 1)              /* [n_heads * head_dim, hidden] */                                                            \
    X(K, 1)              /* [n_kv_heads * head_dim, hidden] */                                                         \
    X(V, 1)              /* [n_kv_heads * head_dim, hidden] */                                                         \
    X(O, 1)              /* [hidden, n_heads * head_dim] */                                                            \
    X(Q_NORM, 1)         /* [1, head_dim]; has_qk_norm */                                                              \
    X(K_NORM, 1)         /* [1, head_dim]; has_qk_norm */                                                              \
    X(ATTN_POST_NORM, 1) /* [1, hidden]; has_post_norms */                                                             \
    X(FFN_NORM, 1)       /* [1, hidden]; before the feed-forward */                                                    \
    X(GATE, 1)           /* [ffn, hidden] */                                                                           \
    X(UP, 1)             /* [ffn, hidden] */                                                                           \
    X(DOWN, 1)           /* [hidden, ffn] */                                                                           \
    X(FFN_POST_NORM, 1)  /* [1, hidden]; has_post_norms */

typedef enum tr_tensor_role {
#define X(role, per_layer) TR_TENSOR_##role,
    TR_TENSOR_MAP(X)
#undef X
        TR_TENSOR_ROLE_COUNT
} tr_tensor_role;

typedef struct tr_model_file_view {
    tr_dequant_type type;
    uint32_t rows, cols;
    uint64_t row_bytes;
    const uint8_t *data;   /* [rows * row_bytes], file order, no alignment promised */
    uint32_t permuted_dim; /* 0: file order is our order; else head_dim of interleaved heads, see _source_row */
    bool plus_one;         /* the file's values lack the 1 that _row adds */
} tr_model_file_view;

typedef struct tr_model_file tr_model_file;

/* path: a GGUF file (told by its first bytes), a .safetensors file, an index of shards (*.safetensors.index.json), or a
 * folder that holds model.safetensors or model.safetensors.index.json. */
tr_status tr_model_file_open(const char *path, tr_model_file **mf_out, tr_error *err);
void tr_model_file_close(tr_model_file **mf); /* idempotent, sets NULL */

const tr_model_config *tr_model_file_config(const tr_model_file *mf);
const char *tr_model_file_path(const tr_model_file *mf); /* of the file with the weights, or of the index of shards */
/* The GGUF reader (tokenizer, chat template), or NULL for safetensors, whose tokenizer lies in the same folder. */
const tr_gguf *tr_model_file_gguf(const tr_model_file *mf);
/* Files that hold the weights: 1, or the shards. */
uint32_t tr_model_file_parts(const tr_model_file *mf);
const char *tr_model_file_part(const tr_model_file *mf, uint32_t i); /* path */

/* View of one tensor; layer is ignored for roles outside the layers. TR_UNAVAILABLE when this model has no such
 * tensor (Q_NORM of llama); TR_INVALID for a layer out of range. */
tr_status tr_model_file_tensor(const tr_model_file *mf, tr_tensor_role role, uint32_t layer,
                               tr_model_file_view *view_out, tr_error *err);

/* Row of the file that holds our row; the way to copy blocks as they are ("native" precision). */
uint32_t tr_model_file_source_row(const tr_model_file_view *view, uint32_t row);

/* One row as fp32 in the convention above; out has view->cols floats, row < view->rows (checked). */
void tr_model_file_row(const tr_model_file *mf, const tr_model_file_view *view, uint32_t row, float *out);

const char *tr_model_file_role_name(tr_tensor_role role); /* "ATTN_NORM" */
#endif
