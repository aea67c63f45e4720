/* Checks shared by both sources, and the GGUF source. The Hugging Face source is model_config_json.c. */
#include "model/model_config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- shared ---- */

const char *tr_model_config_arch_name(tr_model_arch arch) {
    switch (arch) {
    case TR_ARCH_GEMMA3: return "gemma3";
    case TR_ARCH_LLAMA: return "llama";
    case TR_ARCH_QWEN3: return "qwen3";
    }
    return "unknown";
}

void tr_model_config_add_eos(tr_model_config *config, int64_t id) {
    if (id < 0 || id >= config->vocab || config->n_eos >= TR_MODEL_MAX_EOS) return;
    for (uint32_t i = 0; i < config->n_eos; i++)
        if (config->eos_ids[i] == id) return;
    config->eos_ids[config->n_eos++] = (int32_t)id;
}

static tr_status check_number(const char *file, const char *what, uint64_t v, uint64_t lo, uint64_t hi, uint64_t step,
                              tr_error *err) {
    if (v < lo || v > hi)
        return tr_error_set(err, TR_DATA, "%s: %s is %" PRIu64 ", supported are %" PRIu64 " to %" PRIu64, file, what, v,
                            lo, hi);
    if (v % step != 0)
        return tr_error_set(err, TR_DATA, "%s: %s is %" PRIu64 ", only multiples of %" PRIu64 " are supported", file,
                            what, v, step);
    return TR_OK;
}

/* Written so that NaN fails. */
static tr_status check_float(const char *file, const char *what, float v, float lo, float hi, tr_error *err) {
    if (v >= lo && v <= hi) return TR_OK;
    return tr_error_set(err, TR_DATA, "%s: %s is %g, supported are %g to %g", file, what, (double)v, (double)lo,
                        (double)hi);
}

static tr_status check_sizes(const tr_model_config *c, const char *file, tr_error *err) {
    TR_TRY(check_number(file, "number of layers", c->n_layers, 1, TR_MODEL_MAX_LAYERS, 1, err));
    TR_TRY(check_number(file, "hidden size", c->hidden, 16, TR_MODEL_MAX_HIDDEN, 16, err));
    TR_TRY(check_number(file, "feed-forward size", c->ffn, 16, TR_MODEL_MAX_FFN, 16, err));
    TR_TRY(check_number(file, "number of heads", c->n_heads, 1, TR_MODEL_MAX_HEADS, 1, err));
    TR_TRY(check_number(file, "number of kv heads", c->n_kv_heads, 1, c->n_heads, 1, err));
    TR_TRY(check_number(file, "head size", c->head_dim, 16, TR_MODEL_MAX_HEAD_DIM, 16, err));
    TR_TRY(check_number(file, "vocabulary size", c->vocab, 1, TR_MODEL_MAX_VOCAB, 1, err));
    TR_TRY(check_number(file, "context length", c->context_max, 1, TR_MODEL_MAX_CONTEXT, 1, err));
    TR_TRY(check_number(file, "sliding window", c->sliding_window, 0, TR_MODEL_MAX_CONTEXT, 1, err));
    if (c->n_heads % c->n_kv_heads != 0)
        return tr_error_set(err, TR_DATA, "%s: %" PRIu32 " heads cannot share %" PRIu32 " kv heads evenly", file,
                            c->n_heads, c->n_kv_heads);
    return TR_OK;
}

tr_status tr_model_config_check(const tr_model_config *c, const char *file, tr_error *err) {
    if ((unsigned)c->arch > TR_ARCH_QWEN3) return tr_error_set(err, TR_DATA, "%s: unknown architecture", file);
    TR_TRY(check_sizes(c, file, err));
    TR_TRY(check_float(file, "RMS norm epsilon", c->rms_eps, 1e-12f, 0.1f, err));
    TR_TRY(check_float(file, "RoPE base", c->rope_base_global, 1.0f, 1e12f, err));
    TR_TRY(check_float(file, "local RoPE base", c->rope_base_local, 1.0f, 1e12f, err));
    TR_TRY(check_float(file, "RoPE scaling factor", c->rope_scale_linear, 1e-3f, 1e6f, err));
    TR_TRY(check_float(file, "attention scale", c->attn_scale, 1e-6f, 1e3f, err));
    TR_TRY(check_float(file, "embedding scale", c->embed_scale, 1e-6f, 1e6f, err));
    for (uint32_t i = 0; c->has_rope_freq_factors && i < c->head_dim / 2; i++)
        TR_TRY(check_float(file, "RoPE frequency factor", c->rope_freq_factors[i], 1e-6f, 1e6f, err));
    for (uint32_t i = 0; i < c->n_layers; i++)
        TR_TRY(check_number(file, "kind of a layer", c->layer_is_global[i], c->sliding_window ? 0 : 1, 1, 1, err));
    if (c->bos_id != TR_MODEL_NO_TOKEN)
        TR_TRY(check_number(file, "bos token", (uint32_t)c->bos_id, 0, c->vocab - 1, 1, err));
    TR_TRY(check_number(file, "number of eos tokens", c->n_eos, 0, TR_MODEL_MAX_EOS, 1, err));
    for (uint32_t i = 0; i < c->n_eos; i++)
        TR_TRY(check_number(file, "eos token", (uint32_t)c->eos_ids[i], 0, c->vocab - 1, 1, err));
    return TR_OK;
}

/* ---- GGUF ---- */

/* One reading session: the file, the prefix of its keys, where to complain. */
typedef struct source {
    const tr_gguf *g;
    const char *arch;
    tr_error *err;
    char key[96]; /* scratch: full name of the last key asked for */
} source;

static const char *full_key(source *s, const char *tail) {
    snprintf(s->key, sizeof s->key, "%s.%s", s->arch, tail);
    return s->key;
}

static tr_status missing(const source *s, const char *key) {
    return tr_error_set(s->err, TR_DATA, "%s: key %s is missing", tr_gguf_name(s->g), key);
}

/* All elements of an integer array as one number; models with a different number a layer are refused. */
static tr_status uniform_array(source *s, const tr_gguf_kv *kv, uint32_t *out) {
    tr_gguf_arr a;
    int64_t first = 0, v;
    if (tr_gguf_type_bytes(kv->elem_type) == 0 || kv->elem_type == TR_GGUF_F32 || kv->elem_type == TR_GGUF_F64)
        return tr_gguf_fail(s->g, s->err, kv->offset, "key %s is not made of integers", s->key);
    TR_TRY(tr_gguf_arr_begin(s->g, s->key, kv->elem_type, &a, NULL, s->err));
    while (tr_gguf_arr_i64(&a, &v)) {
        if (a.index == 1) first = v;
        if (v != first || v < 0 || v > UINT32_MAX)
            return tr_gguf_fail(s->g, s->err, kv->offset, "key %s differs by layer, which is not supported", s->key);
    }
    if (a.count == 0) return tr_gguf_fail(s->g, s->err, kv->offset, "key %s is an empty array", s->key);
    *out = (uint32_t)first;
    return TR_OK;
}

/* Integer key, or array of equal integers. Absent: *out stays, an error when required. */
static tr_status get_u32(source *s, const char *tail, bool required, uint32_t lo, uint32_t hi, uint32_t *out) {
    const tr_gguf_kv *kv = tr_gguf_find(s->g, full_key(s, tail));
    if (!kv) return required ? missing(s, s->key) : TR_OK;
    uint32_t v;
    if (kv->type == TR_GGUF_ARR)
        TR_TRY(uniform_array(s, kv, &v));
    else
        TR_TRY(tr_gguf_u32(s->g, s->key, &v, NULL, s->err));
    if (v < lo || v > hi)
        return tr_gguf_fail(s->g, s->err, kv->offset, "key %s is %" PRIu32 ", supported are %" PRIu32 " to %" PRIu32,
                            s->key, v, lo, hi);
    *out = v;
    return TR_OK;
}

static tr_status get_f32(source *s, const char *tail, bool required, float lo, float hi, float *out) {
    const tr_gguf_kv *kv = tr_gguf_find(s->g, full_key(s, tail));
    if (!kv) return required ? missing(s, s->key) : TR_OK;
    float v;
    TR_TRY(tr_gguf_f32(s->g, s->key, &v, NULL, s->err));
    if (!(v >= lo && v <= hi))
        return tr_gguf_fail(s->g, s->err, kv->offset, "key %s is %g, supported are %g to %g", s->key, (double)v,
                            (double)lo, (double)hi);
    *out = v;
    return TR_OK;
}

/* A feature that must be off: the key is absent or 0. */
static tr_status refuse(source *s, const char *tail, const char *feature) {
    const tr_gguf_kv *kv = tr_gguf_find(s->g, full_key(s, tail));
    if (!kv) return TR_OK;
    uint32_t u = 0;
    float f = 0;
    if (kv->type == TR_GGUF_F32 || kv->type == TR_GGUF_F64)
        TR_TRY(tr_gguf_f32(s->g, s->key, &f, NULL, s->err));
    else
        TR_TRY(tr_gguf_u32(s->g, s->key, &u, NULL, s->err));
    if (u == 0 && f == 0) return TR_OK;
    return tr_gguf_fail(s->g, s->err, kv->offset, "key %s asks for %s, which is not supported", s->key, feature);
}

static tr_status read_arch(source *s, tr_model_config *c) {
    tr_gguf_text arch;
    bool found;
    TR_TRY(tr_gguf_str(s->g, "general.architecture", &arch, &found, s->err));
    if (!found) return missing(s, "general.architecture");
    for (unsigned a = 0; a <= TR_ARCH_QWEN3; a++) {
        c->arch = (tr_model_arch)a;
        s->arch = tr_model_config_arch_name(c->arch);
        if (tr_gguf_text_is(arch, s->arch)) return TR_OK;
    }
    return tr_gguf_fail(s->g, s->err, tr_gguf_find(s->g, "general.architecture")->offset,
                        "this architecture is not supported (general.architecture is not gemma3, llama or qwen3)");
}

static tr_status read_name(source *s, tr_model_config *c) {
    tr_gguf_text name = {"", 0};
    TR_TRY(tr_gguf_str(s->g, "general.name", &name, NULL, s->err));
    size_t n = name.len < sizeof c->name - 1 ? name.len : sizeof c->name - 1;
    for (size_t i = 0; i < n; i++) c->name[i] = name.data[i] >= 0x20 && name.data[i] <= 0x7e ? name.data[i] : '?';
    c->name[n] = 0;
    return TR_OK;
}

/* Rows of the embedding; a vocabulary-only file has no tensor, then its token list counts. */
static tr_status read_vocab(source *s, tr_model_config *c) {
    const tr_gguf_tensor *embed = tr_gguf_tensor_find(s->g, "token_embd.weight");
    const tr_gguf_kv *tokens = tr_gguf_find(s->g, "tokenizer.ggml.tokens");
    uint64_t n = 0;
    if (embed)
        n = embed->dims[1];
    else if (tokens && tokens->type == TR_GGUF_ARR)
        n = tokens->count;
    else
        TR_TRY(get_u32(s, "vocab_size", true, 1, TR_MODEL_MAX_VOCAB, &c->vocab));
    if (n > TR_MODEL_MAX_VOCAB)
        return tr_gguf_fail(s->g, s->err, embed ? embed->offset : tokens->offset,
                            "the vocabulary has %" PRIu64 " tokens, at most %d are supported", n, TR_MODEL_MAX_VOCAB);
    if (n) c->vocab = (uint32_t)n;
    if (tokens && tokens->count != c->vocab)
        return tr_gguf_fail(s->g, s->err, tokens->offset,
                            "tokenizer.ggml.tokens has %" PRIu64 " entries, the embedding has %" PRIu32 " rows",
                            tokens->count, c->vocab);
    return TR_OK;
}

static tr_status read_sizes(source *s, tr_model_config *c) {
    TR_TRY(get_u32(s, "block_count", true, 1, TR_MODEL_MAX_LAYERS, &c->n_layers));
    TR_TRY(get_u32(s, "embedding_length", true, 16, TR_MODEL_MAX_HIDDEN, &c->hidden));
    TR_TRY(get_u32(s, "feed_forward_length", true, 16, TR_MODEL_MAX_FFN, &c->ffn));
    TR_TRY(get_u32(s, "context_length", true, 1, TR_MODEL_MAX_CONTEXT, &c->context_max));
    TR_TRY(get_u32(s, "attention.head_count", true, 1, TR_MODEL_MAX_HEADS, &c->n_heads));
    c->n_kv_heads = c->n_heads;
    TR_TRY(get_u32(s, "attention.head_count_kv", false, 1, TR_MODEL_MAX_HEADS, &c->n_kv_heads));
    c->head_dim = c->hidden / c->n_heads;
    TR_TRY(get_u32(s, "attention.key_length", false, 16, TR_MODEL_MAX_HEAD_DIM, &c->head_dim));
    uint32_t same = c->head_dim;
    TR_TRY(get_u32(s, "attention.value_length", false, c->head_dim, c->head_dim, &same));
    TR_TRY(get_u32(s, "rope.dimension_count", false, c->head_dim, c->head_dim, &same));
    TR_TRY(get_f32(s, "attention.layer_norm_rms_epsilon", true, 1e-12f, 0.1f, &c->rms_eps));
    return read_vocab(s, c);
}

static tr_status read_rope(source *s, tr_model_config *c) {
    c->rope_base_global = 10000.0f;
    c->rope_scale_linear = 1.0f;
    TR_TRY(get_f32(s, "rope.freq_base", c->arch == TR_ARCH_GEMMA3, 1.0f, 1e12f, &c->rope_base_global));
    c->rope_base_local = c->arch == TR_ARCH_GEMMA3 ? 10000.0f : c->rope_base_global;
    TR_TRY(get_f32(s, "rope.freq_base_swa", false, 1.0f, 1e12f, &c->rope_base_local));
    float factor = 1.0f;
    TR_TRY(get_f32(s, "rope.scale_linear", false, 0.0f, 1e6f, &factor)); /* the old spelling */
    TR_TRY(get_f32(s, "rope.scaling.factor", false, 0.0f, 1e6f, &factor));
    tr_gguf_text kind = {"linear", 6};
    TR_TRY(tr_gguf_str(s->g, full_key(s, "rope.scaling.type"), &kind, NULL, s->err));
    if (tr_gguf_text_is(kind, "linear"))
        c->rope_scale_linear = factor > 0.0f ? factor : 1.0f; /* 0 stands for none */
    else if (!tr_gguf_text_is(kind, "none"))
        return tr_gguf_fail(s->g, s->err, tr_gguf_find(s->g, s->key)->offset,
                            "key %s: this kind of RoPE scaling is not supported, only none and linear are", s->key);
    return TR_OK;
}

/* Gemma 3: every n-th layer is global, n = 6 unless the file says so; newer files list the sliding layers. */
static tr_status read_layer_kinds(source *s, tr_model_config *c) {
    TR_TRY(get_u32(s, "attention.sliding_window", false, 0, TR_MODEL_MAX_CONTEXT, &c->sliding_window));
    memset(c->layer_is_global, 1, c->n_layers);
    if (c->arch != TR_ARCH_GEMMA3) c->sliding_window = 0;
    if (c->sliding_window == 0) return TR_OK;
    uint32_t period = 6;
    const tr_gguf_kv *kv = tr_gguf_find(s->g, full_key(s, "attention.sliding_window_pattern"));
    if (!kv || kv->type != TR_GGUF_ARR) {
        TR_TRY(get_u32(s, "attention.sliding_window_pattern", false, 1, TR_MODEL_MAX_LAYERS, &period));
        for (uint32_t i = 0; i < c->n_layers; i++) c->layer_is_global[i] = (i + 1) % period == 0;
        return TR_OK;
    }
    tr_gguf_arr a;
    int64_t sliding;
    TR_TRY(tr_gguf_arr_begin(s->g, s->key, TR_GGUF_BOOL, &a, NULL, s->err));
    if (a.count != c->n_layers)
        return tr_gguf_fail(s->g, s->err, kv->offset, "key %s has %" PRIu64 " entries for %" PRIu32 " layers", s->key,
                            a.count, c->n_layers);
    while (tr_gguf_arr_i64(&a, &sliding)) c->layer_is_global[a.index - 1] = !sliding;
    return TR_OK;
}

static tr_status read_arch_facts(source *s, tr_model_config *c) {
    bool gemma = c->arch == TR_ARCH_GEMMA3;
    c->act = gemma ? TR_MODEL_ACT_GELU_TANH : TR_MODEL_ACT_SILU;
    c->has_post_norms = gemma;
    c->has_qk_norm = gemma || c->arch == TR_ARCH_QWEN3;
    c->norm_plus_one = false; /* the 1 is already in the file */
    c->embed_scale = gemma ? (float)sqrt((double)c->hidden) : 1.0f;
    /* The 27B model (62 layers) scales by the width a head would have; the files carry no key for that. */
    uint32_t width = gemma && c->n_layers == 62 ? c->hidden / c->n_heads : c->head_dim;
    c->attn_scale = (float)(1.0 / sqrt((double)(width ? width : 1)));
    TR_TRY(get_f32(s, "attention.scale", false, 1e-6f, 1e3f, &c->attn_scale));
    c->tied_embeddings = tr_gguf_tensor_find(s->g, "output.weight") == NULL;
    TR_TRY(refuse(s, "expert_count", "a mixture of experts"));
    TR_TRY(refuse(s, "attn_logit_softcapping", "capped attention scores"));
    return refuse(s, "final_logit_softcapping", "capped logits");
}

/* A token id key; ids outside the vocabulary are errors, 4294967295 stands for none. */
static tr_status read_token(source *s, const tr_model_config *c, const char *key, int32_t *out) {
    uint32_t v = UINT32_MAX;
    TR_TRY(tr_gguf_u32(s->g, key, &v, NULL, s->err));
    *out = TR_MODEL_NO_TOKEN;
    if (v == UINT32_MAX) return TR_OK;
    if (v >= c->vocab)
        return tr_gguf_fail(s->g, s->err, tr_gguf_find(s->g, key)->offset,
                            "key %s is %" PRIu32 ", the vocabulary has %" PRIu32 " tokens", key, v, c->vocab);
    *out = (int32_t)v;
    return TR_OK;
}

static tr_status read_tokens(source *s, tr_model_config *c) {
    int32_t id;
    TR_TRY(read_token(s, c, "tokenizer.ggml.bos_token_id", &c->bos_id));
    TR_TRY(read_token(s, c, "tokenizer.ggml.eos_token_id", &id));
    tr_model_config_add_eos(c, id);
    TR_TRY(read_token(s, c, "tokenizer.ggml.eot_token_id", &id));
    tr_model_config_add_eos(c, id);
    tr_gguf_text kind = {"", 0}, chat = {"", 0};
    TR_TRY(tr_gguf_str(s->g, "tokenizer.ggml.model", &kind, NULL, s->err));
    c->add_bos = tr_gguf_text_is(kind, "llama"); /* SentencePiece models start with BOS unless told otherwise */
    TR_TRY(tr_gguf_bool(s->g, "tokenizer.ggml.add_bos_token", &c->add_bos, NULL, s->err));
    if (c->bos_id == TR_MODEL_NO_TOKEN) c->add_bos = false;
    TR_TRY(tr_gguf_str(s->g, "tokenizer.chat_template", &chat, NULL, s->err));
    c->is_instruct = chat.len > 0;
    return TR_OK;
}

tr_status tr_model_config_from_gguf(const tr_gguf *g, tr_model_config *config_out, tr_error *err) {
    source s = {.g = g, .arch = "", .err = err};
    tr_model_config c = {.bos_id = TR_MODEL_NO_TOKEN};
    TR_TRY(read_arch(&s, &c));
    TR_TRY(read_name(&s, &c));
    TR_TRY(read_sizes(&s, &c));
    TR_TRY(read_rope(&s, &c));
    TR_TRY(read_layer_kinds(&s, &c));
    TR_TRY(read_arch_facts(&s, &c));
    TR_TRY(read_tokens(&s, &c));
    TR_TRY(tr_model_config_check(&c, tr_gguf_name(g), err));
    *config_out = c;
    return TR_OK;
}
