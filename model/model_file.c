/* I1: every view was resolved and its shape compared with the config in open; the accessors only copy views.
 * I2: a file with a tensor that the architecture does not have is refused: leaving out a bias would run, and be wrong.
 */
#include "model/model_file.h"

#include "base/file_map.h"
#include "model/gguf.h"
#include "model/model_folder.h"
#include "model/shards.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 128 };

struct tr_model_file {
    char *path;
    tr_gguf *gguf; /* one of the two */
    tr_shards *st; /* is set */
    tr_model_config config;
    tr_model_file_view top[TR_TENSOR_ROLE_COUNT]; /* roles outside the layers; data NULL: absent */
    tr_model_file_view *layers;                   /* [n_layers * TR_TENSOR_ROLE_COUNT] roles of layers */
    uint32_t n_used;                              /* tensors of the file that a view refers to */
};

static const char *const role_names[TR_TENSOR_ROLE_COUNT] = {
#define X(role, per_layer) #role,
    TR_TENSOR_MAP(X)
#undef X
};
static const bool role_per_layer[TR_TENSOR_ROLE_COUNT] = {
#define X(role, per_layer) per_layer,
    TR_TENSOR_MAP(X)
#undef X
};

/* Names in files. Those of layers follow "blk.N." or "model.layers.N.". */
static const char *const gguf_names[TR_TENSOR_ROLE_COUNT] = {
    [TR_TENSOR_EMBED] = "token_embd.weight",
    [TR_TENSOR_OUTPUT_NORM] = "output_norm.weight",
    [TR_TENSOR_OUTPUT] = "output.weight",
    [TR_TENSOR_ROPE_FREQS] = "rope_freqs.weight",
    [TR_TENSOR_ATTN_NORM] = "attn_norm.weight",
    [TR_TENSOR_Q] = "attn_q.weight",
    [TR_TENSOR_K] = "attn_k.weight",
    [TR_TENSOR_V] = "attn_v.weight",
    [TR_TENSOR_O] = "attn_output.weight",
    [TR_TENSOR_Q_NORM] = "attn_q_norm.weight",
    [TR_TENSOR_K_NORM] = "attn_k_norm.weight",
    [TR_TENSOR_ATTN_POST_NORM] = "post_attention_norm.weight",
    [TR_TENSOR_FFN_NORM] = "ffn_norm.weight",
    [TR_TENSOR_GATE] = "ffn_gate.weight",
    [TR_TENSOR_UP] = "ffn_up.weight",
    [TR_TENSOR_DOWN] = "ffn_down.weight",
    [TR_TENSOR_FFN_POST_NORM] = "post_ffw_norm.weight",
};
/* Where two architectures use one name for two roles, the gemma meaning is here and hf_name knows the other. */
static const char *const hf_names[TR_TENSOR_ROLE_COUNT] = {
    [TR_TENSOR_EMBED] = "model.embed_tokens.weight",
    [TR_TENSOR_OUTPUT_NORM] = "model.norm.weight",
    [TR_TENSOR_OUTPUT] = "lm_head.weight",
    [TR_TENSOR_ROPE_FREQS] = NULL,
    [TR_TENSOR_ATTN_NORM] = "input_layernorm.weight",
    [TR_TENSOR_Q] = "self_attn.q_proj.weight",
    [TR_TENSOR_K] = "self_attn.k_proj.weight",
    [TR_TENSOR_V] = "self_attn.v_proj.weight",
    [TR_TENSOR_O] = "self_attn.o_proj.weight",
    [TR_TENSOR_Q_NORM] = "self_attn.q_norm.weight",
    [TR_TENSOR_K_NORM] = "self_attn.k_norm.weight",
    [TR_TENSOR_ATTN_POST_NORM] = "post_attention_layernorm.weight",
    [TR_TENSOR_FFN_NORM] = "pre_feedforward_layernorm.weight",
    [TR_TENSOR_GATE] = "mlp.gate_proj.weight",
    [TR_TENSOR_UP] = "mlp.up_proj.weight",
    [TR_TENSOR_DOWN] = "mlp.down_proj.weight",
    [TR_TENSOR_FFN_POST_NORM] = "post_feedforward_layernorm.weight",
};

static const char *hf_name(tr_model_arch arch, tr_tensor_role role) {
    if (arch != TR_ARCH_GEMMA3 && role == TR_TENSOR_FFN_NORM) return "post_attention_layernorm.weight";
    return hf_names[role];
}

static bool role_is_norm(tr_tensor_role role) {
    return role == TR_TENSOR_OUTPUT_NORM || role == TR_TENSOR_ATTN_NORM || role == TR_TENSOR_Q_NORM ||
           role == TR_TENSOR_K_NORM || role == TR_TENSOR_ATTN_POST_NORM || role == TR_TENSOR_FFN_NORM ||
           role == TR_TENSOR_FFN_POST_NORM;
}

/* Does the architecture have this tensor in the file? */
static bool role_exists(const tr_model_config *c, tr_tensor_role role) {
    switch (role) {
    case TR_TENSOR_OUTPUT: return !c->tied_embeddings;
    case TR_TENSOR_Q_NORM:
    case TR_TENSOR_K_NORM: return c->has_qk_norm;
    case TR_TENSOR_ATTN_POST_NORM:
    case TR_TENSOR_FFN_POST_NORM: return c->has_post_norms;
    case TR_TENSOR_ROPE_FREQS: return false; /* optional: handled apart */
    default: return true;
    }
}

/* Shape that the config asks for; products stay far below 2^32 by the bounds of the config. */
static void role_shape(const tr_model_config *c, tr_tensor_role role, uint32_t *rows, uint32_t *cols) {
    *rows = 1;
    *cols = c->hidden;
    switch (role) {
    case TR_TENSOR_EMBED:
    case TR_TENSOR_OUTPUT: *rows = c->vocab; break;
    case TR_TENSOR_ROPE_FREQS: *cols = c->head_dim / 2; break;
    case TR_TENSOR_Q: *rows = c->n_heads * c->head_dim; break;
    case TR_TENSOR_K:
    case TR_TENSOR_V: *rows = c->n_kv_heads * c->head_dim; break;
    case TR_TENSOR_O:
        *rows = c->hidden;
        *cols = c->n_heads * c->head_dim;
        break;
    case TR_TENSOR_Q_NORM:
    case TR_TENSOR_K_NORM: *cols = c->head_dim; break;
    case TR_TENSOR_GATE:
    case TR_TENSOR_UP: *rows = c->ffn; break;
    case TR_TENSOR_DOWN:
        *rows = c->hidden;
        *cols = c->ffn;
        break;
    default: break;
    }
}

/* ---- resolving ---- */

/* A tensor of either format: columns, rows, and whether it has more dimensions than a matrix. */
typedef struct found {
    tr_dequant_type type;
    uint64_t rows, cols;
    bool flat;
    const uint8_t *data;
} found;

static bool find(const tr_model_file *mf, const char *name, found *out) {
    if (mf->gguf) {
        const tr_gguf_tensor *t = tr_gguf_tensor_find(mf->gguf, name);
        if (!t) return false;
        *out = (found){t->type, t->dims[1], t->dims[0], t->dims[2] == 1 && t->dims[3] == 1, t->data};
        return true;
    }
    const tr_safetensors_tensor *t = tr_shards_find(mf->st, name);
    if (!t) return false;
    bool vector = t->n_dims < 2;
    *out = (found){t->type, vector ? 1 : t->dims[0], vector ? t->dims[0] : t->dims[1], t->n_dims <= 2, t->data};
    return true;
}

static void tensor_name(const tr_model_file *mf, tr_tensor_role role, uint32_t layer, char *out) {
    const char *name = mf->gguf ? gguf_names[role] : hf_name(mf->config.arch, role);
    if (!role_per_layer[role])
        snprintf(out, NAME_BYTES, "%s", name);
    else
        snprintf(out, NAME_BYTES, "%s.%" PRIu32 ".%s", mf->gguf ? "blk" : "model.layers", layer, name);
}

static tr_status resolve(tr_model_file *mf, tr_tensor_role role, uint32_t layer, tr_model_file_view *v, tr_error *err) {
    const tr_model_config *c = &mf->config;
    char name[NAME_BYTES];
    found f;
    uint32_t rows, cols;
    tensor_name(mf, role, layer, name);
    if (!find(mf, name, &f))
        return tr_error_set(err, TR_DATA, "%.250s: tensor %s is missing%s", mf->path, name,
                            tr_model_folder_is_shard(mf->path) ? "; this is one shard of a model: name its folder"
                                                               : "");
    role_shape(c, role, &rows, &cols);
    if (!f.flat || f.rows != rows || f.cols != cols)
        return tr_error_set(err, TR_DATA,
                            "%s: tensor %s has the shape [%" PRIu64 ", %" PRIu64 "%s], the model's configuration "
                            "needs [%" PRIu32 ", %" PRIu32 "]",
                            mf->path, name, f.rows, f.cols, f.flat ? "" : ", ...", rows, cols);
    tr_model_file_view view = {.type = f.type, .rows = rows, .cols = cols, .data = f.data};
    tr_check(tr_dequant_row_bytes(f.type, cols, &view.row_bytes)); /* the reader has checked whole blocks */
    bool rotated = role == TR_TENSOR_Q || role == TR_TENSOR_K;
    view.permuted_dim = mf->gguf && c->arch == TR_ARCH_LLAMA && rotated ? c->head_dim : 0;
    view.plus_one = c->norm_plus_one && role_is_norm(role);
    *v = view;
    mf->n_used++;
    return TR_OK;
}

static tr_status resolve_freqs(tr_model_file *mf, tr_error *err) {
    found f;
    if (!mf->gguf || mf->config.arch != TR_ARCH_LLAMA || !find(mf, gguf_names[TR_TENSOR_ROPE_FREQS], &f)) return TR_OK;
    tr_model_file_view *v = &mf->top[TR_TENSOR_ROPE_FREQS];
    TR_TRY(resolve(mf, TR_TENSOR_ROPE_FREQS, 0, v, err));
    tr_dequant_row(v->type, v->data, v->cols, mf->config.rope_freq_factors);
    mf->config.has_rope_freq_factors = true;
    return tr_model_config_check(&mf->config, mf->path, err);
}

/* Tensors that may be in the file and mean nothing: the copy of a tied matrix, the old table of RoPE frequencies. */
static bool harmless(const tr_model_file *mf, const char *name, size_t len) {
    static const char tail[] = ".rotary_emb.inv_freq", head[] = "lm_head.weight";
    if (mf->gguf) return false;
    if (len >= sizeof tail - 1 && memcmp(name + len - (sizeof tail - 1), tail, sizeof tail - 1) == 0) return true;
    return mf->config.tied_embeddings && len == sizeof head - 1 && memcmp(name, head, len) == 0;
}

static bool refers_to(const tr_model_file *mf, const uint8_t *data) {
    for (int r = 0; r < TR_TENSOR_ROLE_COUNT; r++)
        if (mf->top[r].data == data) return true;
    for (size_t i = 0; i < (size_t)mf->config.n_layers * TR_TENSOR_ROLE_COUNT; i++)
        if (mf->layers[i].data == data) return true;
    return false;
}

/* Tensors have bytes of their own (both readers check that), so the address names the tensor. The count is the quick
 * test; the search runs only for files that will be refused or hold a harmless extra. */
static tr_status check_extras(const tr_model_file *mf, tr_error *err) {
    uint32_t n = mf->gguf ? tr_gguf_tensor_count(mf->gguf) : tr_shards_count(mf->st);
    if (n == mf->n_used) return TR_OK;
    for (uint32_t i = 0; i < n; i++) {
        const char *name;
        size_t len;
        const uint8_t *data;
        if (mf->gguf) {
            const tr_gguf_tensor *t = tr_gguf_tensor_at(mf->gguf, i);
            name = t->name.data, len = t->name.len, data = t->data;
        } else {
            const tr_safetensors_tensor *t = tr_shards_at(mf->st, i);
            name = t->name, len = strlen(t->name), data = t->data;
        }
        if (refers_to(mf, data) || harmless(mf, name, len)) continue;
        char shown[81];
        size_t m = len < sizeof shown - 1 ? len : sizeof shown - 1;
        for (size_t k = 0; k < m; k++) shown[k] = name[k] >= 0x20 && name[k] <= 0x7e ? name[k] : '?';
        shown[m] = 0;
        return tr_error_set(err, TR_DATA, "%s: tensor %s is not part of the %s architecture as troupe runs it",
                            mf->path, shown, tr_model_config_arch_name(mf->config.arch));
    }
    return TR_OK;
}

static tr_status resolve_all(tr_model_file *mf, tr_error *err) {
    const tr_model_config *c = &mf->config;
    mf->layers = calloc((size_t)c->n_layers * TR_TENSOR_ROLE_COUNT, sizeof *mf->layers);
    if (!mf->layers) return tr_error_set(err, TR_SYSTEM, "%s: out of memory", mf->path);
    for (int r = 0; r < TR_TENSOR_ROLE_COUNT; r++) {
        tr_tensor_role role = (tr_tensor_role)r;
        if (!role_exists(c, role)) continue;
        if (!role_per_layer[r]) TR_TRY(resolve(mf, role, 0, &mf->top[r], err));
        for (uint32_t l = 0; role_per_layer[r] && l < c->n_layers; l++)
            TR_TRY(resolve(mf, role, l, &mf->layers[l * TR_TENSOR_ROLE_COUNT + r], err));
    }
    if (c->tied_embeddings) mf->top[TR_TENSOR_OUTPUT] = mf->top[TR_TENSOR_EMBED];
    TR_TRY(resolve_freqs(mf, err));
    return check_extras(mf, err);
}

/* ---- opening ---- */

typedef tr_status (*side_reader)(tr_model_config *, const char *, size_t, const char *, tr_error *);

static tr_status read_beside(tr_model_file *mf, const char *name, bool required, side_reader read, tr_error *err) {
    char *path;
    tr_file_map map;
    TR_TRY(tr_model_folder_map(mf->path, name, TR_MODEL_FOLDER_SIDE_MAX, required, &map, err));
    if (!map.data) return TR_OK;
    tr_status s = tr_model_folder_beside(mf->path, name, &path, err);
    if (s == TR_OK) {
        s = read(&mf->config, (const char *)map.data, map.size, path, err);
        free(path);
    }
    tr_file_map_close(&map);
    return s;
}

static tr_status read_config(tr_model_config *c, const char *text, size_t len, const char *name, tr_error *err) {
    return tr_model_config_from_json(text, len, name, c, err);
}

static tr_status note_chat_template(tr_model_config *c, const char *text, size_t len, const char *name, tr_error *err) {
    (void)text, (void)name, (void)err;
    c->is_instruct = c->is_instruct || len > 0;
    return TR_OK;
}

static tr_status open_safetensors(tr_model_file *mf, tr_error *err) {
    TR_TRY(tr_shards_open(mf->path, &mf->st, err));
    TR_TRY(read_beside(mf, "config.json", true, read_config, err));
    TR_TRY(read_beside(mf, "generation_config.json", false, tr_model_config_add_generation, err));
    TR_TRY(read_beside(mf, "tokenizer_config.json", false, tr_model_config_add_tokenizer, err));
    TR_TRY(read_beside(mf, "chat_template.jinja", false, note_chat_template, err));
    return resolve_all(mf, err);
}

static tr_status open_gguf(tr_model_file *mf, tr_error *err) {
    TR_TRY(tr_gguf_open(mf->path, &mf->gguf, err));
    TR_TRY(tr_model_config_from_gguf(mf->gguf, &mf->config, err));
    return resolve_all(mf, err);
}

static tr_status detect(const char *path, bool *is_gguf, tr_error *err) {
    tr_file_map map;
    TR_TRY(tr_file_map_open(path, &map, err));
    *is_gguf = map.size >= 4 && memcmp(map.data, "GGUF", 4) == 0;
    tr_file_map_close(&map);
    if (*is_gguf || tr_model_folder_is(path)) return TR_OK;
    return tr_error_set(err, TR_DATA, "%s: offset 0: not a GGUF file, and not named .safetensors", path);
}

tr_status tr_model_file_open(const char *path, tr_model_file **mf_out, tr_error *err) {
    tr_model_file *mf = calloc(1, sizeof *mf);
    if (!mf) return tr_error_set(err, TR_SYSTEM, "%s: out of memory", path);
    bool is_gguf = false;
    tr_status s = tr_model_folder_weights(path, &mf->path, err);
    if (s == TR_OK) s = detect(mf->path, &is_gguf, err);
    if (s == TR_OK) s = is_gguf ? open_gguf(mf, err) : open_safetensors(mf, err);
    if (s != TR_OK) {
        tr_model_file_close(&mf);
        return s;
    }
    *mf_out = mf;
    return TR_OK;
}

void tr_model_file_close(tr_model_file **mf) {
    tr_model_file *m = *mf;
    *mf = NULL;
    if (!m) return;
    tr_gguf_close(&m->gguf);
    tr_shards_close(&m->st);
    free(m->layers);
    free(m->path);
    free(m);
}

/* ---- access ---- */

const tr_model_config *tr_model_file_config(const tr_model_file *mf) { return &mf->config; }
const char *tr_model_file_path(const tr_model_file *mf) { return mf->path; }
const tr_gguf *tr_model_file_gguf(const tr_model_file *mf) { return mf->gguf; }
uint32_t tr_model_file_parts(const tr_model_file *mf) { return mf->gguf ? 1 : tr_shards_files(mf->st); }
const char *tr_model_file_part(const tr_model_file *mf, uint32_t i) {
    return mf->gguf ? mf->path : tr_shards_file(mf->st, i);
}

const char *tr_model_file_role_name(tr_tensor_role role) {
    return (unsigned)role < TR_TENSOR_ROLE_COUNT ? role_names[role] : "unknown";
}

tr_status tr_model_file_tensor(const tr_model_file *mf, tr_tensor_role role, uint32_t layer,
                               tr_model_file_view *view_out, tr_error *err) {
    if ((unsigned)role >= TR_TENSOR_ROLE_COUNT || (role_per_layer[role] && layer >= mf->config.n_layers))
        return tr_error_set(err, TR_INVALID, "%s: no tensor %s in layer %" PRIu32, mf->path,
                            tr_model_file_role_name(role), layer);
    const tr_model_file_view *v =
        role_per_layer[role] ? &mf->layers[(size_t)layer * TR_TENSOR_ROLE_COUNT + role] : &mf->top[role];
    if (!v->data)
        return tr_error_set(err, TR_UNAVAILABLE, "%s: this model has no tensor %s", mf->path,
                            tr_model_file_role_name(role));
    *view_out = *v;
    return TR_OK;
}

/* Interleaved heads keep element i of the first half at 2i and of the second half at 2i + 1. */
uint32_t tr_model_file_source_row(const tr_model_file_view *view, uint32_t row) {
    if (view->permuted_dim == 0) return row;
    uint32_t half = view->permuted_dim / 2, within = row % view->permuted_dim;
    return row - within + within % half * 2 + within / half;
}

void tr_model_file_row(const tr_model_file *mf, const tr_model_file_view *view, uint32_t row, float *out) {
    (void)mf;
    tr_check(row < view->rows);
    const uint8_t *src = view->data + tr_model_file_source_row(view, row) * view->row_bytes;
    tr_dequant_row(view->type, src, view->cols, out);
    for (uint32_t i = 0; view->plus_one && i < view->cols; i++) out[i] += 1.0f;
}
