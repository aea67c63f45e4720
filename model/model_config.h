/* model/model_config.h - the one description of a model's architecture; everything above reads this and no file.
 * Plain data of fixed size: may be copied and put into shared memory. Every number has been bounds-checked.
 * Two sources: GGUF metadata and Hugging Face config.json. Both give the same struct for the same model; what the
 * conventions of the two differ in (norm weights, order of q and k rows) is settled in model/model_file.h.
 * Errors: TR_DATA with the key's name; an architecture or a variant that troupe cannot run is refused here, in words.
 * Source: Gemma 3 report and Llama 3 report; key names of the GGUF specification and of the published configs. */
#ifndef TR_MODEL_CONFIG_H
#define TR_MODEL_CONFIG_H
#include "base/status.h"
#include "model/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TR_MODEL_MAX_LAYERS = 256,
    TR_MODEL_MAX_HIDDEN = 65536,
    TR_MODEL_MAX_FFN = 262144,
    TR_MODEL_MAX_HEADS = 512,
    TR_MODEL_MAX_HEAD_DIM = 512,
    TR_MODEL_MAX_VOCAB = 2097152,
    TR_MODEL_MAX_CONTEXT = 16777216,
    TR_MODEL_MAX_EOS = 8,
    TR_MODEL_NO_TOKEN = -1,
};

/* Mistral is LLAMA, with a window in every layer where its config.json names one. */
typedef enum tr_model_arch { TR_ARCH_GEMMA3, TR_ARCH_LLAMA, TR_ARCH_QWEN3 } tr_model_arch;
/* Activation of the gated feed-forward: down(act(gate(x)) * up(x)). */
typedef enum tr_model_act { TR_MODEL_ACT_SILU, TR_MODEL_ACT_GELU_TANH } tr_model_act;

typedef struct tr_model_config {
    tr_model_arch arch;
    tr_model_act act;
    char name[64]; /* for people; printable ASCII, NUL-terminated, may be cut */

    uint32_t n_layers;
    uint32_t hidden;  /* width of the residual stream; multiple of 16 */
    uint32_t ffn;     /* multiple of 16 */
    uint32_t n_heads; /* query heads; a multiple of n_kv_heads. n_heads * head_dim need not equal hidden */
    uint32_t n_kv_heads;
    uint32_t head_dim;    /* of q, k and v; multiple of 16 */
    uint32_t vocab;       /* rows of the embedding */
    uint32_t context_max; /* positions the model was made for */

    float rms_eps;
    /* RoPE is rotate-half (NEOX) everywhere: element i pairs with i + head_dim/2, with the angle
     * position / rope_scale_linear * base^(-2i/head_dim) / rope_freq_factors[i].
     * Local (sliding) layers use rope_base_local and no scaling and no factors. */
    float rope_base_global;
    float rope_base_local;      /* equals rope_base_global where the model has no local layers */
    float rope_scale_linear;    /* 1: none */
    bool has_rope_freq_factors; /* false: all factors are 1 */
    float rope_freq_factors[TR_MODEL_MAX_HEAD_DIM / 2]; /* [head_dim / 2], llama3 scaling */

    uint32_t sliding_window; /* a local layer's query at p sees keys p-window+1 .. p; 0: every layer is global */
    uint8_t layer_is_global[TR_MODEL_MAX_LAYERS]; /* [n_layers], 0 or 1 */

    float attn_scale;     /* factor on q.k before softmax */
    float embed_scale;    /* factor on an embedding row (sqrt(hidden) in fp32 for gemma, else 1) */
    bool has_qk_norm;     /* RMS norm of each q and k head before RoPE */
    bool has_post_norms;  /* RMS norm of the attention and feed-forward outputs before the residual add */
    bool tied_embeddings; /* the output matrix is the embedding matrix */
    bool norm_plus_one;   /* the FILE stores w where (1 + w) is meant. Rows read through model_file are effective
                           * weights already, so consumers multiply and never look here. */

    int32_t bos_id; /* TR_MODEL_NO_TOKEN when the model has none */
    bool add_bos;   /* prompts start with bos_id */
    uint32_t n_eos; /* ids that end a generation: end of sequence, end of turn; may be 0 */
    int32_t eos_ids[TR_MODEL_MAX_EOS];
    bool is_instruct; /* hint: the file carries a chat template */
} tr_model_config;

/* Read and check the metadata. Llama3 factors are a tensor in GGUF files: model_file fills them in.
 * tied_embeddings: no output.weight in the file. */
tr_status tr_model_config_from_gguf(const tr_gguf *g, tr_model_config *config_out, tr_error *err);

/* Read and check the text of a config.json; name stands for the file in messages.
 * is_instruct is false until the files beside it are added; model_file does that. */
tr_status tr_model_config_from_json(const char *text, size_t len, const char *name, tr_model_config *config_out,
                                    tr_error *err);

/* What the optional files beside config.json add: eos ids of generation_config.json (an id that is no token of the
 * vocabulary is passed over); add_bos and is_instruct of tokenizer_config.json. */
tr_status tr_model_config_add_generation(tr_model_config *config, const char *text, size_t len, const char *name,
                                         tr_error *err);
tr_status tr_model_config_add_tokenizer(tr_model_config *config, const char *text, size_t len, const char *name,
                                        tr_error *err);

/* Add an id to eos_ids unless it is there or outside the vocabulary or the list is full. */
void tr_model_config_add_eos(tr_model_config *config, int64_t id);

/* Check every bound of a filled struct; both readers end with this. file names the source in messages. */
tr_status tr_model_config_check(const tr_model_config *config, const char *file, tr_error *err);

const char *tr_model_config_arch_name(tr_model_arch arch); /* "gemma3" */
#endif
