/* The Hugging Face source of tr_model_config: config.json of a text model. A key that is absent or null takes the
 * default that the model's published code has for it. */
#include "model/model_config.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct source {
    const json_t *root;
    const char *name; /* of the file, for messages */
    tr_error *err;
} source;

/* Value of a key, NULL also for a JSON null. */
static const json_t *value(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

__attribute__((format(printf, 3, 4))) static tr_status fail(const source *s, const char *key, const char *fmt, ...) {
    char reason[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(reason, sizeof reason, fmt, ap);
    va_end(ap);
    return tr_error_set(s->err, TR_DATA, "%s: key %s %s", s->name, key, reason);
}

static tr_status get_u32(const source *s, const char *key, bool required, uint32_t lo, uint32_t hi, uint32_t *out) {
    const json_t *v = value(s->root, key);
    if (!v) return required ? fail(s, key, "is missing") : TR_OK;
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v)) return fail(s, key, "is not an integer");
    if (n < (json_int_t)lo || n > (json_int_t)hi)
        return fail(s, key, "is %" JSON_INTEGER_FORMAT ", supported are %" PRIu32 " to %" PRIu32, n, lo, hi);
    *out = (uint32_t)n;
    return TR_OK;
}

static tr_status get_number(const source *s, const json_t *object, const char *key, double lo, double hi, double *out) {
    const json_t *v = value(object, key);
    if (!v) return TR_OK;
    double d = json_number_value(v);
    if (!json_is_number(v)) return fail(s, key, "is not a number");
    if (!(d >= lo && d <= hi)) return fail(s, key, "is %g, supported are %g to %g", d, lo, hi);
    *out = d;
    return TR_OK;
}

static tr_status get_bool(const source *s, const char *key, bool *out) {
    const json_t *v = value(s->root, key);
    if (!v) return TR_OK;
    if (!json_is_boolean(v)) return fail(s, key, "is not true or false");
    *out = json_is_true(v);
    return TR_OK;
}

/* A feature that must be off: absent, null, false or 0. */
static tr_status refuse(const source *s, const char *key, const char *feature) {
    const json_t *v = value(s->root, key);
    if (!v || json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0)) return TR_OK;
    return fail(s, key, "asks for %s, which is not supported", feature);
}

/* The activation, when named, must be the one that the architecture is defined with. */
static tr_status check_act(const source *s, const char *key, const char *expected) {
    const json_t *v = value(s->root, key);
    const char *text = json_string_value(v);
    if (!v || (text && strcmp(text, expected) == 0)) return TR_OK;
    return fail(s, key, "is not %s, other activations are not supported", expected);
}

static bool names_class(const json_t *root, const char *class_name) {
    const char *text = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));
    return text && strcmp(text, class_name) == 0;
}

/* By class, or by type where no class is listed. */
static bool is_model(const json_t *root, const char *class_name, const char *type_name) {
    const char *type = json_string_value(json_object_get(root, "model_type"));
    bool listed = json_array_size(json_object_get(root, "architectures")) > 0;
    return names_class(root, class_name) || (!listed && type && strcmp(type, type_name) == 0);
}

static bool is_mistral(const source *s) { return is_model(s->root, "MistralForCausalLM", "mistral"); }

/* By the class's name where it can be shown. */
static tr_status no_model(const source *s) {
    const char *text = json_string_value(json_array_get(json_object_get(s->root, "architectures"), 0));
    if (!text) text = json_string_value(json_object_get(s->root, "model_type"));
    bool shows = text && *text && strlen(text) <= 48;
    for (const char *p = text; shows && *p; p++) shows = *p >= 0x20 && *p <= 0x7e;
    return fail(s, "architectures",
                "names none that is supported (Gemma3ForCausalLM, LlamaForCausalLM, MistralForCausalLM, "
                "Qwen3ForCausalLM)%s%s",
                shows ? ", but " : "", shows ? text : "");
}

static tr_status read_arch(const source *s, tr_model_config *c) {
    if (is_model(s->root, "Gemma3ForCausalLM", "gemma3_text"))
        c->arch = TR_ARCH_GEMMA3;
    else if (is_model(s->root, "LlamaForCausalLM", "llama") || is_mistral(s))
        c->arch = TR_ARCH_LLAMA;
    else if (is_model(s->root, "Qwen3ForCausalLM", "qwen3"))
        c->arch = TR_ARCH_QWEN3;
    else
        return no_model(s);
    return TR_OK;
}

static void read_name(const source *s, tr_model_config *c) {
    const char *text = json_string_value(json_object_get(s->root, "_name_or_path"));
    if (!text || !*text) text = tr_model_config_arch_name(c->arch);
    size_t n = strnlen(text, sizeof c->name - 1);
    for (size_t i = 0; i < n; i++) c->name[i] = text[i] >= 0x20 && text[i] <= 0x7e ? text[i] : '?';
    c->name[n] = 0;
}

static tr_status read_sizes(const source *s, tr_model_config *c) {
    bool gemma = c->arch == TR_ARCH_GEMMA3;
    TR_TRY(get_u32(s, "num_hidden_layers", true, 1, TR_MODEL_MAX_LAYERS, &c->n_layers));
    TR_TRY(get_u32(s, "hidden_size", true, 16, TR_MODEL_MAX_HIDDEN, &c->hidden));
    TR_TRY(get_u32(s, "intermediate_size", true, 16, TR_MODEL_MAX_FFN, &c->ffn));
    TR_TRY(get_u32(s, "vocab_size", true, 1, TR_MODEL_MAX_VOCAB, &c->vocab));
    TR_TRY(get_u32(s, "num_attention_heads", true, 1, TR_MODEL_MAX_HEADS, &c->n_heads));
    c->n_kv_heads = c->n_heads;
    TR_TRY(get_u32(s, "num_key_value_heads", gemma, 1, TR_MODEL_MAX_HEADS, &c->n_kv_heads));
    c->head_dim = gemma ? 256 : c->arch == TR_ARCH_QWEN3 ? 128 : c->hidden / c->n_heads;
    TR_TRY(get_u32(s, "head_dim", false, 16, TR_MODEL_MAX_HEAD_DIM, &c->head_dim));
    if (c->head_dim > TR_MODEL_MAX_HEAD_DIM) /* the default above; arrays below have that bound */
        return fail(s, "head_dim", "is absent, and hidden_size / num_attention_heads is %" PRIu32 ", above %d",
                    c->head_dim, TR_MODEL_MAX_HEAD_DIM);
    c->context_max = gemma || is_mistral(s) ? 131072 : c->arch == TR_ARCH_QWEN3 ? 32768 : 2048;
    TR_TRY(get_u32(s, "max_position_embeddings", false, 1, TR_MODEL_MAX_CONTEXT, &c->context_max));
    double eps = 1e-6;
    TR_TRY(get_number(s, s->root, "rms_norm_eps", 1e-12, 0.1, &eps));
    c->rms_eps = (float)eps;
    return TR_OK;
}

/* ---- RoPE ---- */

/* Llama 3 scaling: frequencies with a short wavelength stay, long ones are divided by factor, between them the two are
 * mixed. A factor divides the frequency. Source: Llama 3.1 model card and reference code. */
static tr_status read_llama3(const source *s, const json_t *rope, tr_model_config *c) {
    double factor = 0, low = 0, high = 0, original = 0;
    TR_TRY(get_number(s, rope, "factor", 1.0, 1e6, &factor));
    TR_TRY(get_number(s, rope, "low_freq_factor", 1e-3, 1e6, &low));
    TR_TRY(get_number(s, rope, "high_freq_factor", 1e-3, 1e6, &high));
    TR_TRY(get_number(s, rope, "original_max_position_embeddings", 1, TR_MODEL_MAX_CONTEXT, &original));
    if (factor == 0 || original == 0 || low == 0 || !(high > low))
        return fail(s, "rope_scaling",
                    "of kind llama3 lacks a factor, or high_freq_factor is not above low_freq_factor");
    for (uint32_t i = 0; i < c->head_dim / 2; i++) {
        double wavelength = 2.0 * M_PI * pow((double)c->rope_base_global, 2.0 * i / c->head_dim);
        double smooth = (original / wavelength - low) / (high - low);
        double f = 1.0 / ((1.0 - smooth) / factor + smooth);
        if (wavelength < original / high) f = 1.0;
        if (wavelength > original / low) f = factor;
        c->rope_freq_factors[i] = (float)f;
    }
    c->has_rope_freq_factors = true;
    return TR_OK;
}

/* Scaling of the global layers out of a rope_scaling object or a rope_parameters object. */
static tr_status read_scaling(const source *s, const json_t *rope, tr_model_config *c) {
    if (!rope) return TR_OK;
    const json_t *kind_value = value(rope, "rope_type");
    if (!kind_value) kind_value = value(rope, "type");
    const char *kind = kind_value ? json_string_value(kind_value) : "default";
    if (!kind) return fail(s, "rope_type", "is not a string");
    double factor = 1.0;
    if (strcmp(kind, "default") == 0) return TR_OK;
    if (strcmp(kind, "llama3") == 0) return read_llama3(s, rope, c);
    if (strcmp(kind, "linear") != 0)
        return fail(s, "rope_type", "names a kind of RoPE scaling that is not supported (only linear and llama3 are)");
    TR_TRY(get_number(s, rope, "factor", 1e-3, 1e6, &factor));
    c->rope_scale_linear = (float)factor;
    return TR_OK;
}

/* Two generations of keys: rope_theta, rope_local_base_freq, rope_scaling; and rope_parameters, which holds all of
 * them, in gemma once for each kind of layer. */
static tr_status read_rope(const source *s, tr_model_config *c) {
    bool gemma = c->arch == TR_ARCH_GEMMA3;
    const json_t *params = value(s->root, "rope_parameters"), *old = value(s->root, "rope_scaling");
    const json_t *full = value(params, "full_attention"), *sliding = value(params, "sliding_attention");
    double global = gemma ? 1e6 : 1e4, local = 1e4;
    TR_TRY(get_number(s, s->root, "rope_theta", 1, 1e12, &global));
    TR_TRY(get_number(s, s->root, "rope_local_base_freq", 1, 1e12, &local));
    TR_TRY(get_number(s, full ? full : params, "rope_theta", 1, 1e12, &global));
    TR_TRY(get_number(s, sliding, "rope_theta", 1, 1e12, &local));
    double part = 1.0; /* of each head that is rotated */
    TR_TRY(get_number(s, s->root, "partial_rotary_factor", 1, 1, &part));
    TR_TRY(get_number(s, full ? full : params, "partial_rotary_factor", 1, 1, &part));
    const char *local_kind = json_string_value(value(sliding, "rope_type"));
    if (local_kind && strcmp(local_kind, "default") != 0)
        return fail(s, "rope_parameters", "scales the RoPE of sliding layers, which is not supported");
    c->rope_base_global = (float)global;
    c->rope_base_local = gemma ? (float)local : (float)global;
    c->rope_scale_linear = 1.0f;
    if ((old && !json_is_object(old)) || (params && !json_is_object(params)))
        return fail(s, old ? "rope_scaling" : "rope_parameters", "is not an object");
    return read_scaling(s, full ? full : params ? params : old, c);
}

/* ---- layers ---- */

static tr_status read_layer_types(const source *s, const json_t *types, tr_model_config *c) {
    if (json_array_size(types) != c->n_layers)
        return fail(s, "layer_types", "does not have one entry a layer (%" PRIu32 ")", c->n_layers);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const char *kind = json_string_value(json_array_get(types, i));
        if (kind && strcmp(kind, "full_attention") == 0)
            c->layer_is_global[i] = 1;
        else if (kind && strcmp(kind, "sliding_attention") == 0 && c->sliding_window)
            c->layer_is_global[i] = 0;
        else
            return fail(s, "layer_types", "entry %" PRIu32 " is a kind of layer that is not supported here", i);
    }
    return TR_OK;
}

static tr_status read_layer_kinds(const source *s, tr_model_config *c) {
    bool gemma = c->arch == TR_ARCH_GEMMA3;
    if (gemma || is_mistral(s)) {
        c->sliding_window = json_object_get(s->root, "sliding_window") ? 0 : 4096; /* null means none */
        TR_TRY(get_u32(s, "sliding_window", false, 0, TR_MODEL_MAX_CONTEXT, &c->sliding_window));
    }
    uint32_t period = gemma ? 6 : TR_MODEL_MAX_LAYERS + 1; /* Mistral has no global layer then */
    TR_TRY(get_u32(s, "_sliding_window_pattern", false, 1, TR_MODEL_MAX_LAYERS, &period));
    TR_TRY(get_u32(s, "sliding_window_pattern", false, 1, TR_MODEL_MAX_LAYERS, &period));
    for (uint32_t i = 0; i < c->n_layers; i++) c->layer_is_global[i] = c->sliding_window == 0 || (i + 1) % period == 0;
    const json_t *types = value(s->root, "layer_types");
    if (types) TR_TRY(read_layer_types(s, types, c));
    if (!gemma && c->sliding_window && (c->has_rope_freq_factors || c->rope_scale_linear != 1.0f))
        return fail(s, "rope_scaling", "scales the RoPE of layers with a window, which is not supported");
    return TR_OK;
}

static tr_status read_gemma(const source *s, tr_model_config *c) {
    double scalar = 256;
    TR_TRY(get_number(s, s->root, "query_pre_attn_scalar", 1, 1e6, &scalar));
    c->attn_scale = (float)(1.0 / sqrt(scalar));
    c->embed_scale = (float)sqrt((double)c->hidden);
    c->act = TR_MODEL_ACT_GELU_TANH;
    c->has_qk_norm = c->has_post_norms = c->norm_plus_one = c->add_bos = true;
    TR_TRY(check_act(s, "hidden_activation", "gelu_pytorch_tanh"));
    TR_TRY(refuse(s, "attn_logit_softcapping", "capped attention scores"));
    TR_TRY(refuse(s, "final_logit_softcapping", "capped logits"));
    return refuse(s, "use_bidirectional_attention", "attention to later tokens");
}

static tr_status read_llama(const source *s, tr_model_config *c) {
    c->attn_scale = (float)(1.0 / sqrt((double)(c->head_dim ? c->head_dim : 1)));
    c->embed_scale = 1.0f;
    c->act = TR_MODEL_ACT_SILU;
    TR_TRY(check_act(s, "hidden_act", "silu"));
    c->has_qk_norm = c->arch == TR_ARCH_QWEN3;
    TR_TRY(refuse(s, "mlp_bias", "biases"));
    TR_TRY(refuse(s, "use_sliding_window", "layers with a window"));
    return refuse(s, "num_local_experts", "a mixture of experts");
}

/* ---- tokens ---- */

static tr_status token_id(const source *s, const tr_model_config *c, const char *key, const json_t *v) {
    if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < c->vocab) return TR_OK;
    return fail(s, key, "is not a token of the vocabulary (0 to %" PRIu32 ")", c->vocab - 1);
}

static tr_status read_tokens(const source *s, tr_model_config *c) {
    const json_t *bos = value(s->root, "bos_token_id"), *eos = value(s->root, "eos_token_id");
    c->bos_id = TR_MODEL_NO_TOKEN;
    if (bos) {
        TR_TRY(token_id(s, c, "bos_token_id", bos));
        c->bos_id = (int32_t)json_integer_value(bos);
    }
    if (!bos) c->add_bos = false;
    size_t n = json_is_array(eos) ? json_array_size(eos) : eos ? 1 : 0;
    if (n > TR_MODEL_MAX_EOS) return fail(s, "eos_token_id", "has more than %d entries", TR_MODEL_MAX_EOS);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_is_array(eos) ? json_array_get(eos, i) : eos;
        TR_TRY(token_id(s, c, "eos_token_id", v));
        tr_model_config_add_eos(c, json_integer_value(v));
    }
    return TR_OK;
}

static tr_status read_all(const source *s, tr_model_config *c) {
    TR_TRY(read_arch(s, c));
    bool gemma = c->arch == TR_ARCH_GEMMA3;
    read_name(s, c);
    TR_TRY(read_sizes(s, c));
    TR_TRY(read_rope(s, c));
    TR_TRY(read_layer_kinds(s, c));
    TR_TRY(gemma ? read_gemma(s, c) : read_llama(s, c));
    TR_TRY(refuse(s, "attention_bias", "biases"));
    TR_TRY(refuse(s, "quantization_config", "weights quantized by another tool"));
    c->tied_embeddings = gemma;
    TR_TRY(get_bool(s, "tie_word_embeddings", &c->tied_embeddings));
    TR_TRY(read_tokens(s, c));
    return tr_model_config_check(c, s->name, s->err);
}

static tr_status load_object(const char *text, size_t len, size_t flags, const char *name, json_t **root_out,
                             tr_error *err) {
    json_error_t why;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES | flags, &why);
    if (json_is_object(root)) {
        *root_out = root;
        return TR_OK;
    }
    int at = root ? 0 : why.position;
    json_decref(root);
    return tr_error_set(err, TR_DATA, "%s: offset %d: not a JSON object or a syntax error", name, at);
}

tr_status tr_model_config_from_json(const char *text, size_t len, const char *name, tr_model_config *config_out,
                                    tr_error *err) {
    json_t *root = NULL;
    TR_TRY(load_object(text, len, 0, name, &root, err));
    source s = {root, name, err};
    tr_model_config c = {.bos_id = TR_MODEL_NO_TOKEN};
    tr_status status = read_all(&s, &c);
    json_decref(root);
    if (status != TR_OK) return status;
    *config_out = c;
    return TR_OK;
}

/* ---- files beside config.json ---- */

tr_status tr_model_config_add_generation(tr_model_config *config, const char *text, size_t len, const char *name,
                                         tr_error *err) {
    json_t *root = NULL;
    TR_TRY(load_object(text, len, 0, name, &root, err));
    const json_t *eos = value(root, "eos_token_id");
    if (json_is_integer(eos)) tr_model_config_add_eos(config, json_integer_value(eos));
    for (size_t i = 0; i < json_array_size(eos); i++)
        tr_model_config_add_eos(config, json_integer_value(json_array_get(eos, i)));
    json_decref(root);
    return TR_OK;
}

tr_status tr_model_config_add_tokenizer(tr_model_config *config, const char *text, size_t len, const char *name,
                                        tr_error *err) {
    json_t *root = NULL;
    /* Numbers as reals: published files have a model_max_length of 10^30, beyond any integer. */
    TR_TRY(load_object(text, len, JSON_DECODE_INT_AS_REAL, name, &root, err));
    const json_t *add_bos = value(root, "add_bos_token");
    if (json_is_boolean(add_bos)) config->add_bos = json_is_true(add_bos) && config->bos_id != TR_MODEL_NO_TOKEN;
    if (value(root, "chat_template")) config->is_instruct = true;
    json_decref(root);
    return TR_OK;
}
