/* The GGUF reader and what reads its metadata: open, walk over everything, read the config, dequantize every tensor's
 * first and last row. A refusal must carry a one-line reason. */
#include "base/status.h"
#include "fuzz_target.h"
#include "model/gguf.h"
#include "model/model_config.h"

#include <stdlib.h>
#include <string.h>

static volatile uint64_t sink; /* keeps reads that the optimizer would drop */

static void touch(const void *data, uint64_t bytes) {
    const uint8_t *p = data;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++) sum += p[i];
    sink += sum;
}

static void walk_kv(const tr_gguf *g, const tr_gguf_kv *kv, const char *key) {
    tr_error err = {0};
    uint32_t u;
    float f;
    bool b;
    tr_gguf_text t = {"", 0};
    tr_gguf_arr a;
    int64_t i;
    (void)tr_gguf_u32(g, key, &u, NULL, &err);
    (void)tr_gguf_f32(g, key, &f, NULL, &err);
    (void)tr_gguf_bool(g, key, &b, NULL, &err);
    if (tr_gguf_str(g, key, &t, NULL, &err) == TR_OK) touch(t.data, t.len);
    if (kv->type != TR_GGUF_ARR) return;
    tr_check(tr_gguf_arr_begin(g, key, kv->elem_type, &a, NULL, &err) == TR_OK);
    if (kv->elem_type == TR_GGUF_STR) {
        while (tr_gguf_arr_str(&a, &t)) touch(t.data, t.len);
    } else if (kv->elem_type == TR_GGUF_F32) {
        while (tr_gguf_arr_f32(&a, &f)) touch(&f, sizeof f);
    } else if (kv->elem_type != TR_GGUF_F64) {
        while (tr_gguf_arr_i64(&a, &i)) touch(&i, sizeof i);
    } else {
        touch(kv->data, kv->count * tr_gguf_type_bytes(kv->elem_type));
    }
}

static void walk_tensor(const tr_gguf *g, const tr_gguf_tensor *t, const char *name) {
    tr_check(tr_gguf_tensor_find(g, name) == t);
    touch(t->data, t->bytes);
    float *row = t->dims[0] <= 65536 ? malloc(t->dims[0] * sizeof *row) : NULL;
    if (!row) return;
    tr_dequant_row(t->type, t->data, t->dims[0], row);
    tr_dequant_row(t->type, t->data + t->bytes - t->row_bytes, t->dims[0], row);
    touch(row, t->dims[0] * sizeof *row);
    free(row);
}

/* Names as C strings: the accessors take those. */
static char *copy_text(tr_gguf_text t) {
    char *s = malloc(t.len + 1);
    tr_check(s != NULL);
    memcpy(s, t.data, t.len);
    s[t.len] = 0;
    return s;
}

static void check_refusal(tr_status s, const tr_error *err) {
    tr_check(s == TR_DATA || s == TR_SYSTEM);
    tr_check(err->status == s && err->text[0] != 0 && strchr(err->text, '\n') == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tr_gguf *g;
    tr_error err = {0};
    tr_model_config config;
    tr_status s = tr_gguf_open_buffer(data, size, "input", &g, &err);
    if (s != TR_OK) {
        check_refusal(s, &err);
        return 0;
    }
    for (uint32_t i = 0; i < tr_gguf_kv_count(g); i++) {
        const tr_gguf_kv *kv = tr_gguf_kv_at(g, i);
        char *key = copy_text(kv->key);
        tr_check(tr_gguf_find(g, key) == kv);
        walk_kv(g, kv, key);
        free(key);
    }
    for (uint32_t i = 0; i < tr_gguf_tensor_count(g); i++) {
        char *name = copy_text(tr_gguf_tensor_at(g, i)->name);
        walk_tensor(g, tr_gguf_tensor_at(g, i), name);
        free(name);
    }
    s = tr_model_config_from_gguf(g, &config, &err);
    if (s == TR_OK)
        tr_check(tr_model_config_check(&config, "input", &err) == TR_OK);
    else
        check_refusal(s, &err);
    tr_gguf_close(&g);
    return 0;
}
