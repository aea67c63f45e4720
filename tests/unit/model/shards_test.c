/* Shards and their index: read as one list, and every way in which the two may differ; names that leave the folder. */
#include "model/shard_index.h"
#include "model/shards.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/shards_test_XXXXXX";

static void path_of(const char *name, char out[256]) { snprintf(out, 256, "%s/%s", folder, name); }

static void put(const char *name, const void *data, size_t len) {
    char path[256];
    path_of(name, path);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
}

/* A file with tensors of one float each. */
static void put_shard(const char *name, size_t n, const char *const *tensors) {
    char file[2048], *header = file + 8;
    uint64_t len = 0;
    header[len++] = '{';
    for (size_t i = 0; i < n; i++)
        len += (uint64_t)sprintf(header + len, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}",
                                 i ? "," : "", tensors[i], 4 * i, 4 * i + 4);
    header[len++] = '}';
    memcpy(file, &len, 8);
    for (size_t i = 0; i < n; i++) memcpy(header + len + 4 * i, &(float){(float)i}, 4);
    put(name, file, 8 + len + 4 * n);
}

#define INDEX "model.safetensors.index.json"

static tr_status open_index(const char *text, tr_shards **out, tr_error *err) {
    char path[256];
    put(INDEX, text, strlen(text));
    path_of(INDEX, path);
    return tr_shards_open(path, out, err);
}

static void refuse(const char *text, tr_status status, const char *reason) {
    tr_shards *s = NULL;
    tr_error err = {0};
    assert_int_equal(open_index(text, &s, &err), status);
    if (!strstr(err.text, reason)) fail_msg("\"%s\" lacks \"%s\"", err.text, reason);
    assert_null(s);
}

static int setup(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    put_shard("a.safetensors", 2, (const char *[]){"x", "y"});
    put_shard("b.safetensors", 1, (const char *[]){"z"});
    return 0;
}

static int teardown(void **state) {
    (void)state;
    static const char *const names[] = {"a.safetensors", "b.safetensors", "c.safetensors", INDEX};
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) path_of(names[i], path), unlink(path);
    return rmdir(folder);
}

static void as_one_list(void **state) {
    (void)state;
    tr_shards *s = NULL;
    tr_error err = {0};
    char link[256];
    path_of("c.safetensors", link);
    assert_int_equal(symlink("b.safetensors", link), 0); /* as in a Hugging Face cache */
    assert_int_equal(open_index("{\"metadata\":{\"total_size\":12},\"weight_map\":{\"z\":\"c.safetensors\",\"x\":"
                                "\"a.safetensors\",\"y\":\"a.safetensors\"}}",
                                &s, &err),
                     TR_OK);
    assert_int_equal(tr_shards_count(s), 3);
    assert_int_equal(tr_shards_files(s), 2);
    assert_string_equal(strrchr(tr_shards_file(s, 1), '/'), "/c.safetensors");
    for (uint32_t i = 0; i < 3; i++) {
        const tr_safetensors_tensor *t = tr_shards_at(s, i);
        assert_string_equal(t->name, ((const char *[]){"x", "y", "z"})[i]);
        assert_ptr_equal(tr_shards_find(s, t->name), t);
    }
    assert_null(tr_shards_find(s, "w"));
    tr_shards_close(&s);
    assert_null(s);
}

static void differences(void **state) {
    (void)state;
#define A "\"a.safetensors\""
#define B "\"b.safetensors\""
    refuse("{\"weight_map\":{\"x\":" A ",\"y\":" A ",\"w\":" B "}}", TR_DATA,
           "tensor z is in this shard, the index does not");
    refuse("{\"weight_map\":{\"x\":" A ",\"z\":" B "}}", TR_DATA, "tensor y is in this shard, the index does not");
    refuse("{\"weight_map\":{\"x\":" A ",\"y\":" B ",\"z\":" B "}}", TR_DATA, "the index has it in b.safetensors");
    refuse("{\"weight_map\":{\"x\":" A ",\"y\":" A ",\"q\":" A "}}", TR_DATA, "2 tensors, the index has 3");
    refuse("{\"weight_map\":{\"x\":\"no.safetensors\"}}", TR_NO_INPUT,
           "no.safetensors: no such file, and the index names it");
}

static void bad_indexes(void **state) {
    (void)state;
    static const char *const files[] = {
        "../a.safetensors",   "/etc/a.safetensors", "b/a.safetensors",    "..", ".safetensors", "a.bin", "",
        "a\\\\a.safetensors", "a\\n.safetensors",   "\\u00e9.safetensors"};
    char text[512];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(text, sizeof text, "{\"weight_map\":{\"x\":\"%s\"}}", files[i]);
        refuse(text, TR_DATA, "the file of tensor x is not the plain name");
    }
    refuse("{\"weight_map\":{\"x\":1}}", TR_DATA, "not the plain name");
    refuse("{\"weight_map\":{}}", TR_DATA, "weight_map is missing");
    refuse("{}", TR_DATA, "weight_map is missing");
    refuse("{\"weight_map\":{\"x\":" A ",\"x\":" B "}}", TR_DATA, "a key is there twice");
    refuse("{\"weight_map\":", TR_DATA, "bad JSON");
    refuse("[[[[[[1]]]]]]", TR_DATA, "too deep");
}

static void too_many_files(void **state) {
    (void)state;
    char *text = malloc(1 << 17);
    int n = sprintf(text, "{\"weight_map\":{");
    for (int i = 0; i <= TR_SHARD_INDEX_MAX_FILES; i++)
        n += sprintf(text + n, "%s\"%d\":\"%d.safetensors\"", i ? "," : "", i, i);
    n += sprintf(text + n, "}}");
    tr_shard_index *x = NULL;
    tr_error err = {0};
    assert_int_equal(tr_shard_index_read(text, (size_t)n, "index", &x, &err), TR_DATA);
    assert_non_null(strstr(err.text, "more than 1024 files"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_one_list),
        cmocka_unit_test(differences),
        cmocka_unit_test(bad_indexes),
        cmocka_unit_test(too_many_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
