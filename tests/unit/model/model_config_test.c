/* The architecture description from GGUF metadata and from config.json: values, and each number out of bounds. */
#include "base/file_map.h"
#include "model/model_config.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define JSON "tests/fuzz/corpus/model_config/"
#define GGUF "tests/golden/model_file/"

static tr_status read_json(json_t *root, tr_model_config *c, tr_error *err) {
    char *text = json_dumps(root, 0);
    assert_non_null(text);
    tr_status s = tr_model_config_from_json(text, strlen(text), "config.json", c, err);
    free(text);
    return s;
}

static json_t *load(const char *path) {
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    return root;
}

static void load_ok(const char *path, tr_model_config *c) {
    tr_error err = {0};
    json_t *root = load(path);
    if (read_json(root, c, &err) != TR_OK) fail_msg("%s: %s", path, err.text);
    json_decref(root);
}

static void test_gemma3_json(void **state) {
    (void)state;
    tr_model_config c;
    load_ok(JSON "gemma3.json", &c);
    assert_int_equal(c.arch, TR_ARCH_GEMMA3);
    assert_int_equal(c.act, TR_MODEL_ACT_GELU_TANH);
    assert_int_equal(c.n_layers, 18);
    assert_int_equal(c.hidden, 640);
    assert_int_equal(c.ffn, 2048);
    assert_int_equal(c.n_heads, 4);
    assert_int_equal(c.n_kv_heads, 1);
    assert_int_equal(c.head_dim, 256);
    assert_int_equal(c.vocab, 262144);
    assert_int_equal(c.context_max, 32768);
    assert_true(c.rms_eps == 1e-6f && c.rope_base_global == 1e6f && c.rope_base_local == 1e4f);
    assert_true(c.rope_scale_linear == 1.0f && c.attn_scale == 0.0625f && c.embed_scale == sqrtf(640.0f));
    assert_int_equal(c.sliding_window, 512);
    for (uint32_t i = 0; i < 18; i++) assert_int_equal(c.layer_is_global[i], i % 6 == 5);
    assert_true(c.has_qk_norm && c.has_post_norms && c.tied_embeddings && c.norm_plus_one && c.add_bos);
    assert_int_equal(c.bos_id, 2);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos_ids[1], 106);
}

static void test_rope_parameters(void **state) {
    (void)state;
    tr_model_config c;
    load_ok(JSON "gemma3-rope-parameters.json", &c);
    assert_true(c.rope_base_global == 5e5f && c.rope_base_local == 2e4f && c.rope_scale_linear == 8.0f);
    assert_true(c.attn_scale == (float)(1.0 / sqrt(168.0)));
    assert_int_equal(c.layer_is_global[0] + c.layer_is_global[1], 0);
    assert_int_equal(c.layer_is_global[2], 1);
}

static void test_llama_json(void **state) {
    (void)state;
    tr_model_config c;
    load_ok(JSON "llama3.json", &c);
    assert_int_equal(c.arch, TR_ARCH_LLAMA);
    assert_true(c.attn_scale == 0.125f && c.embed_scale == 1.0f && c.rope_base_global == 5e5f);
    assert_true(!c.has_qk_norm && !c.has_post_norms && !c.norm_plus_one && c.tied_embeddings);
    assert_int_equal(c.sliding_window, 0);
    for (uint32_t i = 0; i < c.n_layers; i++) assert_int_equal(c.layer_is_global[i], 1);
    assert_int_equal(c.n_eos, 3);
    /* Published factors of this scaling: untouched at first, all of 32 at the end, rising between. */
    assert_true(c.has_rope_freq_factors && c.rope_freq_factors[0] == 1.0f && c.rope_freq_factors[31] == 32.0f);
    for (uint32_t i = 1; i < 32; i++) assert_true(c.rope_freq_factors[i] >= c.rope_freq_factors[i - 1]);
    /* i = 16: wavelength 2 pi 500000^(1/2) = 4442.88, smooth = (8192 / 4442.88 - 1) / 3 = 0.281283 */
    assert_true(fabsf(c.rope_freq_factors[16] - 3.292262f) < 1e-4f);
}

/* One key set to a JSON value; the reader must name the key. */
static void refuse_json(const char *path, const char *key, const char *value, const char *fragment) {
    tr_error err = {0};
    tr_model_config c, before;
    memset(&c, 0x5a, sizeof c);
    before = c;
    json_t *root = load(path), *v = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_non_null(v);
    json_object_set_new(root, key, v);
    tr_status s = read_json(root, &c, &err);
    if (s != TR_DATA || !strstr(err.text, key) || !strstr(err.text, fragment))
        fail_msg("%s = %s: status %d (%s), expected \"%s\"", key, value, s, err.text, fragment);
    assert_memory_equal(&c, &before, sizeof c);
    json_decref(root);
}

static void test_bad_json(void **state) {
    (void)state;
    static const struct {
        const char *key, *value, *fragment;
    } both[] = {
        {"architectures", "[\"Qwen2ForCausalLM\"]", "Qwen3ForCausalLM), but Qwen2ForCausalLM"},
        {"architectures", "[\"Gemma3ForConditionalGeneration\"]", "names none"},
        {"architectures", "[5]", "names none"},
        {"architectures", "[\"a\\nb\"]", "Qwen3ForCausalLM)"},
        {"num_hidden_layers", "0", "supported are 1"},
        {"num_hidden_layers", "257", "supported are 1"},
        {"num_hidden_layers", "-1", "is -1"},
        {"num_hidden_layers", "2.5", "not an integer"},
        {"num_hidden_layers", "null", "missing"},
        {"hidden_size", "9223372036854775807", "supported are"},
        {"intermediate_size", "\"many\"", "not an integer"},
        {"vocab_size", "0", "supported are"},
        {"vocab_size", "2097153", "supported are"},
        {"num_attention_heads", "0", "supported are"},
        {"num_key_value_heads", "513", "supported are"},
        {"head_dim", "8", "supported are"},
        {"head_dim", "1024", "supported are"},
        {"max_position_embeddings", "0", "supported are"},
        {"rms_norm_eps", "0", "supported are"},
        {"rms_norm_eps", "[]", "not a number"},
        {"rope_theta", "0.5", "supported are"},
        {"rope_scaling", "7", "not an object"},
        {"attention_bias", "true", "biases"},
        {"quantization_config", "{}", "another tool"},
        {"tie_word_embeddings", "1", "not true or false"},
        {"bos_token_id", "262144", "not a token"},
        {"eos_token_id", "-1", "not a token"},
        {"eos_token_id", "[1,2,3,4,5,6,7,8,9]", "more than 8"},
        {"eos_token_id", "[1,\"x\"]", "not a token"},
        {"partial_rotary_factor", "0.5", "supported are"},
    };
    for (size_t i = 0; i < sizeof both / sizeof both[0]; i++) {
        refuse_json(JSON "gemma3.json", both[i].key, both[i].value, both[i].fragment);
        refuse_json(JSON "llama3.json", both[i].key, both[i].value, both[i].fragment);
    }
    refuse_json(JSON "gemma3.json", "layer_types", "[\"full_attention\"]", "one entry a layer");
    refuse_json(JSON "gemma3-rope-parameters.json", "layer_types",
                "[\"full_attention\",\"sliding_attention\",\"chunked_attention\"]", "entry 2");
    refuse_json(JSON "gemma3.json", "hidden_activation", "\"gelu\"", "not gelu_pytorch_tanh");
    refuse_json(JSON "gemma3.json", "final_logit_softcapping", "30.0", "capped logits");
    refuse_json(JSON "gemma3.json", "sliding_window", "-5", "supported are");
    refuse_json(JSON "gemma3.json", "query_pre_attn_scalar", "0", "supported are");
    refuse_json(JSON "llama-wide-heads.json", "head_dim", "null", "hidden_size / num_attention_heads is 2048");
    refuse_json(JSON "llama3.json", "hidden_act", "\"relu\"", "not silu");
    refuse_json(JSON "llama3.json", "rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8}", "lacks a factor");
}

/* tests/golden/folders, as transformers writes them, with a key changed. */
static tr_status changed(const char *folder, const char *key, const char *value, tr_model_config *c, tr_error *err) {
    char path[128];
    snprintf(path, sizeof path, "tests/golden/folders/%s/config.json", folder);
    json_t *root = load(path);
    if (value)
        json_object_set_new(root, key, json_loads(value, JSON_DECODE_ANY, NULL));
    else
        json_object_del(root, key);
    tr_status s = read_json(root, c, err);
    json_decref(root);
    return s;
}

static void test_mistral_json(void **state) {
    (void)state;
    tr_error err = {0};
    tr_model_config c;
    assert_int_equal(changed("mistral", "max_position_embeddings", "null", &c, &err), TR_OK);
    assert_int_equal(c.arch, TR_ARCH_LLAMA);
    assert_int_equal(c.context_max, 131072); /* the default of the class */
    assert_int_equal(c.sliding_window, 8);
    assert_true(!c.layer_is_global[0] && !c.layer_is_global[1] && !c.tied_embeddings);
    assert_true(c.rope_base_local == c.rope_base_global);
    assert_int_equal(changed("mistral", "sliding_window", "null", &c, &err), TR_OK);
    assert_true(c.sliding_window == 0 && c.layer_is_global[0] && c.layer_is_global[1]);
    assert_int_equal(changed("mistral", "sliding_window", NULL, &c, &err), TR_OK);
    assert_int_equal(c.sliding_window, 4096); /* the default of the class */
    assert_int_equal(changed("mistral", "architectures", "null", &c, &err), TR_OK);
    assert_int_equal(c.arch, TR_ARCH_LLAMA); /* by model_type */
    assert_int_equal(changed("mistral", "rope_parameters", "{\"rope_type\":\"linear\",\"factor\":2}", &c, &err),
                     TR_DATA);
    assert_non_null(strstr(err.text, "rope_scaling scales the RoPE of layers with a window"));
}

static void test_qwen3_json(void **state) {
    (void)state;
    tr_error err = {0};
    tr_model_config c;
    assert_int_equal(changed("qwen3", "head_dim", "null", &c, &err), TR_OK);
    assert_int_equal(c.arch, TR_ARCH_QWEN3);
    assert_int_equal(c.head_dim, 128); /* the default of the class */
    assert_true(c.has_qk_norm && !c.has_post_norms && !c.norm_plus_one && !c.add_bos);
    assert_int_equal(c.bos_id, TR_MODEL_NO_TOKEN);
    assert_int_equal(changed("qwen3", "sliding_window", "4096", &c, &err), TR_OK);
    assert_int_equal(c.sliding_window, 0); /* as use_sliding_window says */
    assert_int_equal(changed("qwen3", "use_sliding_window", "true", &c, &err), TR_DATA);
    assert_non_null(strstr(err.text, "use_sliding_window asks for layers with a window"));
    assert_int_equal(changed("qwen3", "layer_types", "[\"full_attention\",\"sliding_attention\"]", &c, &err), TR_DATA);
}

static void refuse_text(const char *text, const char *fragment) {
    tr_error err = {0};
    tr_model_config c;
    tr_status s = tr_model_config_from_json(text, strlen(text), "config.json", &c, &err);
    if (s != TR_DATA || !strstr(err.text, fragment)) fail_msg("%s: status %d (%s)", text, s, err.text);
}

static void test_bad_text(void **state) {
    (void)state;
    refuse_text("", "offset 0");
    refuse_text("[]", "not a JSON object");
    refuse_text("{\"a\":", "syntax error");
    refuse_text("{\"a\":1,\"a\":2}", "offset");
    tr_error err = {0};
    tr_model_config c;
    json_t *root = load(JSON "yarn.json");
    assert_int_equal(read_json(root, &c, &err), TR_DATA);
    assert_non_null(strstr(err.text, "not supported (only linear and llama3 are)"));
    json_decref(root);
}

/* Sizes that hold for themselves and not together. */
static void test_cross_checks(void **state) {
    (void)state;
    static const struct {
        const char *key, *value, *fragment;
    } rows[] = {
        {"hidden_size", "648", "multiples of 16"},
        {"intermediate_size", "2050", "multiples of 16"},
        {"head_dim", "40", "multiples of 16"},
        {"num_key_value_heads", "3", "cannot share 3 kv heads"},
        {"num_key_value_heads", "8", "number of kv heads"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        tr_error err = {0};
        tr_model_config c;
        json_t *root = load(JSON "gemma3.json");
        json_object_set_new(root, rows[i].key, json_loads(rows[i].value, JSON_DECODE_ANY, NULL));
        tr_status s = read_json(root, &c, &err);
        if (s != TR_DATA || !strstr(err.text, rows[i].fragment))
            fail_msg("%s: %s, expected %s", rows[i].key, err.text, rows[i].fragment);
        json_decref(root);
    }
}

/* ---- GGUF ---- */

/* The fixture with one 32-bit value overwritten; rename changes the last character of the key instead. */
static tr_status read_patched(const char *file, const char *key, uint32_t value, bool rename, tr_model_config *c,
                              tr_error *err) {
    tr_file_map map;
    tr_gguf *g = NULL;
    assert_int_equal(tr_file_map_open(file, &map, err), TR_OK);
    uint8_t *copy = malloc(map.size);
    memcpy(copy, map.data, map.size);
    assert_int_equal(tr_gguf_open_buffer(copy, map.size, "model.gguf", &g, err), TR_OK);
    const tr_gguf_kv *kv = tr_gguf_find(g, key);
    if (!kv) fail_msg("no key %s", key);
    if (rename)
        copy[kv->offset + 8 + kv->key.len - 1] = '#';
    else
        memcpy(copy + (kv->data - copy), &value, 4);
    tr_gguf_close(&g);
    tr_status s = tr_gguf_open_buffer(copy, map.size, "model.gguf", &g, err);
    if (s == TR_OK) s = tr_model_config_from_gguf(g, c, err);
    tr_gguf_close(&g);
    free(copy);
    tr_file_map_close(&map);
    return s;
}

static void test_gguf(void **state) {
    (void)state;
    tr_gguf *g = NULL;
    tr_error err = {0};
    tr_model_config c;
    assert_int_equal(tr_gguf_open(GGUF "gemma3.gguf", &g, &err), TR_OK);
    assert_int_equal(tr_model_config_from_gguf(g, &c, &err), TR_OK);
    assert_int_equal(c.arch, TR_ARCH_GEMMA3);
    assert_string_equal(c.name, "tiny gemma3");
    assert_int_equal(c.n_layers, 2);
    assert_int_equal(c.vocab, 20);
    assert_true(c.rope_base_global == 1e6f && c.rope_base_local == 1e4f && !c.norm_plus_one && c.tied_embeddings);
    assert_int_equal(c.layer_is_global[0], 0);
    assert_int_equal(c.layer_is_global[1], 1);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos_ids[1], 6); /* end of turn */
    assert_true(c.is_instruct && c.add_bos);
    tr_gguf_close(&g);
    /* No token id is 4294967295; then no BOS is added either. */
    assert_int_equal(read_patched(GGUF "gemma3.gguf", "tokenizer.ggml.bos_token_id", UINT32_MAX, false, &c, &err),
                     TR_OK);
    assert_true(c.bos_id == TR_MODEL_NO_TOKEN && !c.add_bos);
    /* Without the key, every sixth layer is global. */
    assert_int_equal(read_patched(GGUF "gemma3.gguf", "gemma3.attention.sliding_window_pattern", 0, true, &c, &err),
                     TR_OK);
    assert_int_equal(c.layer_is_global[1], 0);
}

static void test_bad_gguf(void **state) {
    (void)state;
    static const struct {
        const char *key;
        uint32_t value; /* bits */
        const char *fragment;
    } rows[] = {
        {"llama.block_count", 0, "supported are"},
        {"llama.block_count", 4000000000u, "supported are"},
        {"llama.embedding_length", 0, "supported are"},
        {"llama.embedding_length", 40, "multiples of 16"},
        {"llama.feed_forward_length", 1u << 30, "supported are"},
        {"llama.context_length", 0, "supported are"},
        {"llama.attention.head_count", 0, "supported are"},
        {"llama.attention.head_count", 3, "cannot share"},
        {"llama.attention.head_count_kv", 0, "supported are"},
        {"llama.attention.key_length", 24, "supported are 24 to 24"}, /* value_length stays 16 */
        {"llama.rope.dimension_count", 8, "supported are 16 to 16"},
        {"llama.attention.layer_norm_rms_epsilon", 0x7fc00000u, "nan"},
        {"llama.attention.layer_norm_rms_epsilon", 0xbf800000u, "-1"},
        {"llama.rope.freq_base", 0x7f800000u, "inf"},
        {"tokenizer.ggml.bos_token_id", 20, "the vocabulary has 20 tokens"},
        {"tokenizer.ggml.eot_token_id", 1u << 31, "the vocabulary has 20 tokens"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        tr_error err = {0};
        tr_model_config c;
        tr_status s = read_patched(GGUF "llama.gguf", rows[i].key, rows[i].value, false, &c, &err);
        if (s != TR_DATA || !strstr(err.text, rows[i].fragment))
            fail_msg("%s: status %d (%s), expected \"%s\"", rows[i].key, s, err.text, rows[i].fragment);
    }
    static const char *const required[] = {
        "general.architecture",
        "llama.block_count",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.context_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
    };
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        tr_error err = {0};
        tr_model_config c;
        char want[128];
        snprintf(want, sizeof want, "key %s is missing", required[i]);
        assert_int_equal(read_patched(GGUF "llama.gguf", required[i], 0, true, &c, &err), TR_DATA);
        assert_non_null(strstr(err.text, want));
    }
}

static void test_add_eos(void **state) {
    (void)state;
    tr_model_config c = {.vocab = 100};
    static const int64_t ids[] = {5, 5, -1, 100, INT64_MAX, 6, 7, 8, 9, 10, 11, 12, 13};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) tr_model_config_add_eos(&c, ids[i]);
    assert_int_equal(c.n_eos, TR_MODEL_MAX_EOS);
    assert_int_equal(c.eos_ids[0], 5);
    assert_int_equal(c.eos_ids[1], 6);
    assert_int_equal(c.eos_ids[7], 12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemma3_json),  cmocka_unit_test(test_rope_parameters), cmocka_unit_test(test_llama_json),
        cmocka_unit_test(test_mistral_json), cmocka_unit_test(test_qwen3_json),      cmocka_unit_test(test_bad_json),
        cmocka_unit_test(test_bad_text),     cmocka_unit_test(test_cross_checks),    cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_bad_gguf),     cmocka_unit_test(test_add_eos),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
