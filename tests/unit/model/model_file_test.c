/* One model, two formats, one convention: the GGUF and the safetensors fixture of an architecture hold the same
 * weights, so configs and every row must come out equal (tests/tools/make_model_fixtures.py). Then the ways to be
 * refused. */
#include "base/file_map.h"
#include "model/model_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define FIXTURES "tests/golden/model_file"

static tr_model_file *open_ok(const char *path) {
    tr_model_file *mf = NULL;
    tr_error err = {0};
    if (tr_model_file_open(path, &mf, &err) != TR_OK) fail_msg("%s: %s", path, err.text);
    return mf;
}

static void compare_configs(const tr_model_config *a, const tr_model_config *b) {
    assert_int_equal(a->arch, b->arch);
    assert_int_equal(a->act, b->act);
    assert_string_equal(a->name, b->name);
    assert_memory_equal(&a->n_layers, &b->n_layers, 8 * sizeof(uint32_t));
    assert_true(a->rms_eps == b->rms_eps && a->rope_base_global == b->rope_base_global);
    assert_true(a->rope_base_local == b->rope_base_local && a->rope_scale_linear == b->rope_scale_linear);
    assert_int_equal(a->has_rope_freq_factors, b->has_rope_freq_factors);
    assert_memory_equal(a->rope_freq_factors, b->rope_freq_factors, sizeof a->rope_freq_factors);
    assert_int_equal(a->sliding_window, b->sliding_window);
    assert_memory_equal(a->layer_is_global, b->layer_is_global, sizeof a->layer_is_global);
    assert_true(a->attn_scale == b->attn_scale && a->embed_scale == b->embed_scale);
    assert_true(a->has_qk_norm == b->has_qk_norm && a->has_post_norms == b->has_post_norms);
    assert_true(a->tied_embeddings == b->tied_embeddings && a->add_bos == b->add_bos);
    assert_int_equal(a->bos_id, b->bos_id);
    assert_int_equal(a->n_eos, b->n_eos);
    assert_memory_equal(a->eos_ids, b->eos_ids, sizeof a->eos_ids);
    assert_int_equal(a->is_instruct, b->is_instruct);
}

static void compare_rows(const tr_model_file *a, const tr_model_file *b, tr_tensor_role role, uint32_t layer) {
    tr_model_file_view x, y;
    tr_error err = {0};
    tr_status s = tr_model_file_tensor(a, role, layer, &x, &err);
    tr_status t = tr_model_file_tensor(b, role, layer, &y, &err);
    if (role == TR_TENSOR_ROPE_FREQS) return; /* a tensor only in GGUF; the configs have been compared */
    assert_int_equal(s, t);
    if (s == TR_UNAVAILABLE) return;
    assert_int_equal(s, TR_OK);
    assert_int_equal(x.rows, y.rows);
    assert_int_equal(x.cols, y.cols);
    float p[64], q[64];
    assert_true(x.cols <= 64);
    for (uint32_t r = 0; r < x.rows; r++) {
        tr_model_file_row(a, &x, r, p);
        tr_model_file_row(b, &y, r, q);
        for (uint32_t c = 0; c < x.cols; c++)
            if (p[c] != q[c])
                fail_msg("%s layer %u [%u, %u]: %g in GGUF, %g in safetensors", tr_model_file_role_name(role), layer, r,
                         c, (double)p[c], (double)q[c]);
    }
}

static void compare_formats(const char *gguf, const char *folder) {
    tr_model_file *a = open_ok(gguf), *b = open_ok(folder);
    const tr_model_config *config = tr_model_file_config(a);
    assert_non_null(tr_model_file_gguf(a));
    assert_null(tr_model_file_gguf(b));
    compare_configs(config, tr_model_file_config(b));
    for (int role = 0; role < TR_TENSOR_ROLE_COUNT; role++)
        for (uint32_t l = 0; l < config->n_layers; l++) compare_rows(a, b, (tr_tensor_role)role, l);
    tr_model_file_close(&a);
    tr_model_file_close(&b);
    assert_null(a);
}

static void test_llama(void **state) {
    (void)state;
    compare_formats(FIXTURES "/llama.gguf", FIXTURES "/llama");
    tr_model_file *mf = open_ok(FIXTURES "/llama.gguf");
    const tr_model_config *c = tr_model_file_config(mf);
    assert_true(c->has_rope_freq_factors && c->rope_freq_factors[0] == 1.0f && c->rope_freq_factors[7] == 8.0f);
    assert_true(c->rope_freq_factors[1] > 1.0f && c->rope_freq_factors[1] < 8.0f);
    assert_false(c->tied_embeddings);
    tr_model_file_close(&mf);
}

static void test_gemma3(void **state) {
    (void)state;
    compare_formats(FIXTURES "/gemma3.gguf", FIXTURES "/gemma3/model.safetensors");
    tr_model_file *mf = open_ok(FIXTURES "/gemma3");
    tr_model_file_view embed, output;
    tr_error err = {0};
    assert_int_equal(tr_model_file_tensor(mf, TR_TENSOR_EMBED, 0, &embed, &err), TR_OK);
    assert_int_equal(tr_model_file_tensor(mf, TR_TENSOR_OUTPUT, 0, &output, &err), TR_OK);
    assert_ptr_equal(embed.data, output.data); /* tied */
    tr_model_file_close(&mf);
}

/* Row r of a llama GGUF q matrix: first halves at even file rows, second halves at odd ones, head by head. */
static void test_source_row(void **state) {
    (void)state;
    tr_model_file_view v = {.rows = 16, .permuted_dim = 8};
    static const uint32_t want[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
    for (uint32_t r = 0; r < 16; r++) assert_int_equal(tr_model_file_source_row(&v, r), want[r]);
    v.permuted_dim = 0;
    for (uint32_t r = 0; r < 16; r++) assert_int_equal(tr_model_file_source_row(&v, r), r);
}

static void test_absent(void **state) {
    (void)state;
    tr_model_file *mf = open_ok(FIXTURES "/llama.gguf");
    tr_model_file_view v;
    tr_error err = {0};
    assert_int_equal(tr_model_file_tensor(mf, TR_TENSOR_Q_NORM, 0, &v, &err), TR_UNAVAILABLE);
    assert_int_equal(tr_model_file_tensor(mf, TR_TENSOR_Q, 2, &v, &err), TR_INVALID);
    assert_int_equal(tr_model_file_tensor(mf, TR_TENSOR_ROLE_COUNT, 0, &v, &err), TR_INVALID);
    tr_model_file_close(&mf);
}

/* ---- refusals ---- */

static char scratch[] = "/tmp/troupe-model-file-XXXXXX";

static int make_scratch(void **state) {
    (void)state;
    return mkdtemp(scratch) ? 0 : -1;
}

static int drop_scratch(void **state) {
    (void)state;
    static const char *const names[] = {"m.gguf", "model.safetensors", "config.json"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", scratch, names[i]);
        unlink(path);
    }
    return rmdir(scratch);
}

/* Copy a fixture into the scratch folder with every `from` replaced by `to` of the same length (NULL: as it is). */
static void copy_changed(const char *source, const char *name, const char *from, const char *to) {
    tr_file_map map;
    tr_error err = {0};
    char path[128];
    int changes = 0;
    assert_int_equal(tr_file_map_open(source, &map, &err), TR_OK);
    char *copy = malloc(map.size);
    memcpy(copy, map.data, map.size);
    for (char *p = copy; from && (p = memmem(p, map.size - (size_t)(p - copy), from, strlen(from))); changes++)
        memcpy(p, to, strlen(to));
    assert_true(!from || (changes > 0 && strlen(from) == strlen(to)));
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(copy, 1, map.size, f), map.size);
    assert_int_equal(fclose(f), 0);
    free(copy);
    tr_file_map_close(&map);
}

static void refuse(const char *path, tr_status status, const char *fragment) {
    tr_model_file *mf = NULL;
    tr_error err = {0};
    char full[256];
    snprintf(full, sizeof full, "%s%s", path[0] == '/' ? scratch : "", path);
    tr_status s = tr_model_file_open(full, &mf, &err);
    if (s != status || mf || !strstr(err.text, fragment))
        fail_msg("%s: status %d (%s), expected %d with \"%s\"", full, s, err.text, status, fragment);
}

static void test_refused_gguf(void **state) {
    (void)state;
    copy_changed(FIXTURES "/llama.gguf", "m.gguf", "blk.1.ffn_up.weight", "blk.1.ffn_xx.weight");
    refuse("/m.gguf", TR_DATA, "tensor blk.1.ffn_up.weight is missing");
    copy_changed(FIXTURES "/llama.gguf", "m.gguf", "blk.1.attn_norm.weight", "blk.9.attn_norm.weight");
    refuse("/m.gguf", TR_DATA, "tensor blk.1.attn_norm.weight is missing");
    copy_changed(FIXTURES "/llama.gguf", "m.gguf", "rope_freqs.weight", "blk.0.attnq.bias0");
    refuse("/m.gguf", TR_DATA, "tensor blk.0.attnq.bias0 is not part of the llama architecture");
    refuse("tests/golden/texts", TR_NO_INPUT,
           "no model.safetensors in tests/golden/texts, and no model.safetensors.index.json");
    refuse("tests/golden/dequant/F32.bin", TR_DATA, "offset 0: not a GGUF file");
    refuse("tests/no-such-file.gguf", TR_NO_INPUT, "cannot open");
}

static void test_refused_safetensors(void **state) {
    (void)state;
    static const char st[] = FIXTURES "/llama/model.safetensors", cfg[] = FIXTURES "/llama/config.json";
    copy_changed(st, "model.safetensors", NULL, NULL);
    refuse("/model.safetensors", TR_NO_INPUT, "config.json");
    copy_changed(cfg, "config.json", "\"hidden_size\": 32", "\"hidden_size\": 48");
    refuse("/model.safetensors", TR_DATA, "has the shape [20, 32], the model's configuration needs [20, 48]");
    copy_changed(cfg, "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    refuse("/model.safetensors", TR_DATA, "model.layers.1."); /* tensors that nobody would read */
    copy_changed(cfg, "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    refuse("/model.safetensors", TR_DATA, "tensor model.layers.2.input_layernorm.weight is missing");
    copy_changed(cfg, "config.json", NULL, NULL);
    copy_changed(st, "model.safetensors", "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weighs");
    refuse("/model.safetensors", TR_DATA, "tensor model.layers.0.mlp.up_proj.weight is missing");
    copy_changed(st, "model.safetensors", NULL, NULL);
    tr_model_file *mf = NULL;
    tr_error err = {0};
    assert_int_equal(tr_model_file_open(scratch, &mf, &err), TR_OK); /* without the optional files */
    assert_int_equal(tr_model_file_config(mf)->n_eos, 1);
    assert_false(tr_model_file_config(mf)->is_instruct);
    tr_model_file_close(&mf);
    /* A tied model ignores a copy of the embedding under lm_head. */
    copy_changed(cfg, "config.json", "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true ");
    assert_int_equal(tr_model_file_open(scratch, &mf, &err), TR_OK);
    assert_true(tr_model_file_config(mf)->tied_embeddings);
    tr_model_file_close(&mf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama),  cmocka_unit_test(test_gemma3),       cmocka_unit_test(test_source_row),
        cmocka_unit_test(test_absent), cmocka_unit_test(test_refused_gguf), cmocka_unit_test(test_refused_safetensors),
    };
    return cmocka_run_group_tests(tests, make_scratch, drop_scratch);
}
