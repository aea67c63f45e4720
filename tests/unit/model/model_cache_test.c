/* The image cache: cold, warm, shared by racing processes, damaged, full, not writable, cleared. */
#include "model/model_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64], model[128], safetensors[128];

static void copy(const char *from, const char *to) {
    char buffer[65536];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_true(in && out);
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, in)) > 0;) assert_int_equal(fwrite(buffer, 1, n, out), n);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

static int setup(void **state) {
    (void)state;
    strcpy(root, "/tmp/troupe-cache-XXXXXX");
    if (!mkdtemp(root)) return -1;
    setenv("XDG_CACHE_HOME", root, 1);
    snprintf(model, sizeof model, "%s/model.gguf", root);
    snprintf(safetensors, sizeof safetensors, "%s/hf", root);
    copy("tests/golden/tiny/llama.gguf", model);
    mkdir(safetensors, 0700);
    char to[256];
    snprintf(to, sizeof to, "%s/config.json", safetensors), copy("tests/golden/tiny/llama-hf/config.json", to);
    snprintf(to, sizeof to, "%s/model.safetensors", safetensors);
    copy("tests/golden/tiny/llama-hf/model.safetensors", to);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static tr_model_cache_image get_from(const char *path, tr_precision p) {
    tr_model_cache_image image = {0};
    tr_error err = {0};
    if (tr_model_cache_get(path, p, 2, NULL, NULL, &image, &err) != TR_OK) fail_msg("%s", err.text);
    return image;
}
static tr_model_cache_image get(tr_precision p) { return get_from(model, p); }

static void opens(const tr_model_cache_image *i, tr_precision p) {
    char path[TR_MODEL_CACHE_PATH_MAX];
    tr_image *image = NULL;
    tr_error err = {0};
    if (i->fd >= 0)
        snprintf(path, sizeof path, "/proc/self/fd/%d", i->fd);
    else
        strcpy(path, i->path);
    if (tr_image_open(path, &image, &err) != TR_OK) fail_msg("%s", err.text);
    assert_int_equal(tr_image_precision(image), p);
    assert_int_equal(tr_image_model_hash(image), i->model_hash);
    tr_image_close(&image);
}

static int files_in(const char *folder, const char *ending) {
    char path[256];
    int n = 0;
    snprintf(path, sizeof path, "%s/troupe/%s", root, folder);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        size_t have = strlen(e->d_name), want = strlen(ending);
        n += e->d_name[0] != '.' && have >= want && strcmp(e->d_name + have - want, ending) == 0;
    }
    if (d) closedir(d);
    return n;
}

static void cold_and_warm(void **state) {
    (void)state;
    tr_model_cache_image a = get(TR_PRECISION_BF16), b = get(TR_PRECISION_INT8), c = get(TR_PRECISION_BF16);
    assert_true(a.packed && b.packed && !c.packed);
    assert_true(a.fd == -1 && a.warning[0] == '\0');
    assert_string_equal(a.path, c.path);
    assert_string_not_equal(a.path, b.path);
    assert_true(a.model_hash == b.model_hash && a.model_hash == c.model_hash);
    opens(&a, TR_PRECISION_BF16), opens(&b, TR_PRECISION_INT8);
    struct stat st;
    char folder[128];
    snprintf(folder, sizeof folder, "%s/troupe/images", root);
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(files_in("images", ".img"), 2);
    assert_int_equal(files_in("images", ".tmp"), 0);
    assert_int_equal(files_in("hashes", ""), 1);
}

/* A warm start believes the remembered hash, and only as long as the file is what it was. */
static void remembers_the_hash(void **state) {
    (void)state;
    tr_model_cache_image first = get(TR_PRECISION_BF16), then;
    char path[600], line[256];
    snprintf(path, sizeof path, "%s/troupe/hashes", root);
    DIR *d = opendir(path);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.') snprintf(path, sizeof path, "%s/troupe/hashes/%s", root, e->d_name);
    closedir(d);
    FILE *f = fopen(path, "r+");
    assert_non_null(fgets(line, sizeof line, f));
    memcpy(line + strlen(line) - 17, "00000000deadbeef", 16);
    rewind(f);
    fputs(line, f);
    fclose(f);
    then = get(TR_PRECISION_BF16);
    assert_int_equal(then.model_hash, 0xdeadbeef);
    assert_true(then.packed);
    assert_int_equal(truncate(path, (off_t)strlen(line) - 3), 0); /* damaged: hash again */
    then = get(TR_PRECISION_BF16);
    assert_int_equal(then.model_hash, first.model_hash);
    f = fopen(model, "ab"); /* changed: a new image */
    fputc(0, f);
    fclose(f);
    then = get(TR_PRECISION_BF16);
    assert_true(then.packed && then.model_hash != first.model_hash);
}

static void config_beside_weights_counts(void **state) {
    (void)state;
    tr_model_cache_image a = get_from(safetensors, TR_PRECISION_BF16), b;
    char path[256];
    snprintf(path, sizeof path, "%s/generation_config.json", safetensors);
    FILE *f = fopen(path, "w");
    fputs("{\"eos_token_id\": [2, 5]}", f);
    fclose(f);
    b = get_from(safetensors, TR_PRECISION_BF16);
    assert_true(a.packed && b.packed && a.model_hash != b.model_hash);
    b = get_from(safetensors, TR_PRECISION_BF16);
    assert_false(b.packed);
}

static void racing_processes_pack_once(void **state) {
    (void)state;
    enum { N = 6 };
    int go[2], packed = 0;
    pid_t pid[N];
    assert_int_equal(pipe(go), 0);
    for (int i = 0; i < N; i++)
        if ((pid[i] = fork()) == 0) {
            char c;
            tr_model_cache_image image = {0};
            close(go[1]);
            if (read(go[0], &c, 1) != 0) _exit(9); /* all begin when the pipe closes */
            if (tr_model_cache_get(model, TR_PRECISION_INT8, 1, NULL, NULL, &image, NULL) != TR_OK) _exit(2);
            tr_image *opened = NULL;
            if (tr_image_open(image.path, &opened, NULL) != TR_OK) _exit(3);
            _exit(image.packed ? 1 : 0);
        }
    close(go[0]), close(go[1]);
    for (int i = 0; i < N; i++) {
        int s;
        assert_int_equal(waitpid(pid[i], &s, 0), pid[i]);
        assert_true(WIFEXITED(s) && WEXITSTATUS(s) <= 1);
        packed += WEXITSTATUS(s);
    }
    assert_int_equal(packed, 1);
}

static void damaged_and_stale(void **state) {
    (void)state;
    tr_model_cache_image a = get(TR_PRECISION_BF16), b;
    assert_int_equal(truncate(a.path, 5000), 0);
    char stale[TR_MODEL_CACHE_PATH_MAX + 16], other[256];
    snprintf(stale, sizeof stale, "%s.tmp", a.path);
    copy("tests/golden/tiny/llama.ids.json", stale);
    snprintf(other, sizeof other, "%s/troupe/images/0000000000000001-int8-v1.img.tmp", root);
    copy("tests/golden/tiny/llama.ids.json", other);
    b = get(TR_PRECISION_BF16);
    assert_true(b.packed);
    assert_string_equal(a.path, b.path);
    opens(&b, TR_PRECISION_BF16);
    assert_int_equal(files_in("images", ".tmp"), 0);
}

static void unusable_folder(void **state) {
    (void)state;
    char file[128];
    snprintf(file, sizeof file, "%s/file", root);
    copy("tests/golden/tiny/llama.ids.json", file);
    setenv("XDG_CACHE_HOME", file, 1); /* no folder can be made below a file */
    tr_model_cache_image image = get(TR_PRECISION_INT8);
    assert_true(image.fd >= 0 && image.packed && image.path[0] == '\0');
    assert_non_null(strstr(image.warning, "not cached"));
    opens(&image, TR_PRECISION_INT8);
    assert_int_equal(ftruncate(image.fd, 0), -1); /* sealed: nobody can pull it away */
    close(image.fd);
    tr_error err = {0};
    assert_int_equal(tr_model_cache_probe(&err), TR_CANNOT_CREATE);
    assert_non_null(strstr(err.text, "Not a directory"));
    /* The reason is the one of the folder that could not be made, not that of the folders below it. */
    struct stat st;
    if (stat("/sys", &st) == 0 && S_ISDIR(st.st_mode)) {
        setenv("XDG_CACHE_HOME", "/sys/troupe-test/deep", 1);
        assert_int_equal(tr_model_cache_probe(&err), TR_CANNOT_CREATE);
        assert_null(strstr(err.text, "No such file"));
    }
    setenv("XDG_CACHE_HOME", "relative", 1);
    unsetenv("HOME");
    assert_int_equal(tr_model_cache_probe(&err), TR_UNAVAILABLE);
    image = get(TR_PRECISION_INT8);
    assert_true(image.fd >= 0 && image.warning[0]);
    close(image.fd);
}

/* A file size limit stands for a full disk; it holds for memory as well. */

static void full_disk(void **state) {
    (void)state;
    struct rlimit small, unlimited;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
    small = unlimited;
    small.rlim_cur = 100 * 1024;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    tr_model_cache_image image = {0};
    tr_error err = {0};
    tr_status s = tr_model_cache_get(model, TR_PRECISION_BF16, 1, NULL, NULL, &image, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    assert_int_equal(s, TR_CANNOT_CREATE); /* neither disk nor memory takes it: said, and nothing is left */
    assert_non_null(strstr(err.text, "needed"));
    assert_int_equal(files_in("images", ".img"), 0);
    assert_int_equal(files_in("images", ".tmp"), 0);
}

static void bad_models(void **state) {
    (void)state;
    tr_model_cache_image image = {.fd = 77};
    tr_error err = {0};
    assert_int_equal(tr_model_cache_get("/nowhere.gguf", TR_PRECISION_BF16, 1, NULL, NULL, &image, &err), TR_NO_INPUT);
    assert_int_equal(tr_model_cache_get("README.md", TR_PRECISION_BF16, 1, NULL, NULL, &image, &err) < 0, 1);
    assert_int_equal(image.fd, 77);
    assert_int_equal(files_in("images", ""), 0);
}

/* Asked without reading the weights. */
static void found_without_packing(void **state) {
    (void)state;
    const char *const path[2] = {model, safetensors};
    for (int i = 0; i < 2; i++) {
        tr_model_file *mf = NULL;
        assert_int_equal(tr_model_file_open(path[i], &mf, NULL), TR_OK);
        assert_false(tr_model_cache_has(mf, TR_PRECISION_BF16));
        get_from(path[i], TR_PRECISION_BF16);
        assert_true(tr_model_cache_has(mf, TR_PRECISION_BF16));
        assert_false(tr_model_cache_has(mf, TR_PRECISION_INT8));
        tr_model_file_close(&mf);
    }
    int before = files_in("images", "");
    assert_int_equal(tr_model_cache_probe(NULL), TR_OK);
    assert_int_equal(files_in("images", ""), before);
}

static tr_tokenizer *tokenizer_from(const char *path, char out[TR_MODEL_CACHE_PATH_MAX]) {
    tr_model_file *mf = NULL;
    tr_tokenizer *t = NULL;
    tr_error err = {0};
    assert_int_equal(tr_model_file_open(path, &mf, NULL), TR_OK);
    if (tr_model_cache_tokenizer(mf, &t, out, &err) != TR_OK) fail_msg("%s", err.text);
    tr_model_file_close(&mf);
    assert_true(tr_tokenizer_vocab(t) > 0);
    return t;
}

/* Packed once, found again, made again when it is damaged; a cache that cannot be used costs time only. */
static void vocabularies(void **state) {
    (void)state;
    char path[2][TR_MODEL_CACHE_PATH_MAX];
    struct stat first, then;
    tr_tokenizer *t = tokenizer_from(model, path[0]), *u = tokenizer_from(model, path[1]);
    assert_true(path[0][0] != 0);
    assert_string_equal(path[0], path[1]);
    assert_int_equal(tr_tokenizer_vocab(t), tr_tokenizer_vocab(u));
    tr_tokenizer_destroy(&t), tr_tokenizer_destroy(&u);
    assert_int_equal(stat(path[0], &first), 0);
    assert_int_equal(truncate(path[0], first.st_size / 2), 0);
    t = tokenizer_from(model, path[1]);
    assert_string_equal(path[0], path[1]);
    assert_int_equal(stat(path[0], &then), 0);
    assert_int_equal(first.st_size, then.st_size);
    tr_tokenizer_destroy(&t);
    assert_int_equal(files_in("images", ".tok"), 1);
    assert_int_equal(files_in("images", ".tmp"), 0);
    setenv("XDG_CACHE_HOME", "/dev/null", 1);
    t = tokenizer_from(model, path[1]);
    assert_string_equal(path[1], "");
    tr_tokenizer_destroy(&t);
}

static void cleared(void **state) {
    (void)state;
    uint64_t freed = 0;
    tr_model_cache_image a = get(TR_PRECISION_BF16);
    struct stat st;
    assert_int_equal(stat(a.path, &st), 0);
    assert_true(tr_model_cache_bytes() >= (uint64_t)st.st_size);
    assert_int_equal(tr_model_cache_clear(&freed, NULL), TR_OK);
    assert_true(freed >= (uint64_t)st.st_size);
    assert_int_equal(tr_model_cache_bytes(), 0);
    assert_int_equal(files_in("images", "") + files_in("hashes", ""), 0);
    assert_int_equal(tr_model_cache_clear(&freed, NULL), TR_OK);
    assert_int_equal(freed, 0);
    assert_true(get(TR_PRECISION_BF16).packed);
}

#define FRESH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {FRESH(cold_and_warm),
                                       FRESH(remembers_the_hash),
                                       FRESH(config_beside_weights_counts),
                                       FRESH(racing_processes_pack_once),
                                       FRESH(damaged_and_stale),
                                       FRESH(unusable_folder),
                                       FRESH(full_disk),
                                       FRESH(bad_models),
                                       FRESH(found_without_packing),
                                       FRESH(vocabularies),
                                       FRESH(cleared)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
