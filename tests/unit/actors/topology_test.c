/* Topology files: what they mean, what they must not hold, and every file in configs/. */
#include "actors/cli/topology.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL "tests/golden/tiny/gemma3.gguf"

static char folder[64], path[128];
static tr_options o;
static tr_topology t;
static tr_error err;

static int fresh(void **state) {
    (void)state;
    strcpy(folder, "/tmp/troupe-topology-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/t.yaml", folder);
    tr_options_init(&o, TR_COMMAND_PLAN);
    memset(&err, 0, sizeof err);
    return 0;
}

static int clean(void **state) {
    (void)state;
    char command[128];
    tr_options_fini(&o);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static tr_status load_bytes(const char *text, size_t n) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fwrite(text, 1, n, f);
    fclose(f);
    tr_options_fini(&o);
    tr_options_init(&o, TR_COMMAND_PLAN);
    return tr_topology_load(path, &o, &err);
}
static tr_status load(const char *text) { return load_bytes(text, strlen(text)); }

static tr_status resolve(void) {
    tr_status status = tr_options_given(&o, TR_OPTION_MODEL)
                           ? TR_OK
                           : tr_options_set_key(&o, TR_SOURCE_FLAG, "model", MODEL, "--model", &err);
    return status == TR_OK ? tr_topology_resolve(&o, path, &t, &err) : status;
}

static void good(const char *text) {
    if (load(text) != TR_OK || resolve() != TR_OK) fail_msg("%s\n%s", text, err.text);
}

static void bad(const char *text, const char *hint) {
    assert_int_equal(load(text), TR_CONFIG);
    if (!strstr(err.text, hint)) fail_msg("'%s' lacks '%s'", err.text, hint);
    if (strchr(err.text, '\n')) fail_msg("more than a line: '%s'", err.text);
}

static void test_nothing_said(void **state) {
    (void)state;
    good("version: 1\n");
    assert_true(t.want.unified);
    assert_int_equal(t.want.side[0].dtype, TR_PRECISION_BF16);
    assert_int_equal(t.want.side[0].kv, TR_KV_BF16);
    assert_int_equal(t.want.side[1].dtype, TR_PRECISION_INT8);
    assert_int_equal(t.want.side[1].kv, TR_KV_INT8);
    assert_string_equal(t.model_name, "gemma3");
    assert_int_equal(t.model[0], '/');
}

static void test_two_pipelines(void **state) {
    (void)state;
    good("version: 1\nprefill: {pp: 2, dtype: bf16}\ndecode:\n  pp: 3\n  layers: [3, 2, 2]\n  page: 32\n  kv: bf16\n");
    assert_false(t.want.unified);
    assert_int_equal(t.want.side[0].pp, 2);
    assert_int_equal(t.want.side[1].pp, 3);
    assert_int_equal(t.want.side[1].n_layers, 3);
    assert_int_equal(t.want.side[1].layers[0], 3);
    assert_int_equal(t.want.side[1].page, 32);
    assert_int_equal(t.want.side[1].kv, TR_KV_BF16);
    good("{\"version\": 1, \"prefill\": {\"pp\": 2}, \"decode\": {}}\n"); /* JSON is YAML */
    assert_false(t.want.unified);
    good("version: 1\ndecode: {}\n");
    assert_false(t.want.unified);
}

static void test_unified(void **state) {
    (void)state;
    good("version: 1\nunified: {pp: 2, prefill: int8, decode: bf16}\n");
    assert_true(t.want.unified);
    assert_int_equal(t.want.side[0].pp, 2);
    assert_int_equal(t.want.side[0].dtype, TR_PRECISION_INT8);
    assert_int_equal(t.want.side[1].dtype, TR_PRECISION_BF16);
    good("version: 1\nunified: {dtype: bf16}\n");
    assert_int_equal(t.want.side[1].dtype, TR_PRECISION_BF16);
}

/* Every precision by its name; the KV cache follows it unless told. */
static void test_precisions(void **state) {
    (void)state;
    static const struct {
        const char *name;
        tr_precision dtype;
        tr_kv_format kv;
    } all[] = {{"bf16", TR_PRECISION_BF16, TR_KV_BF16},       {"int8", TR_PRECISION_INT8, TR_KV_INT8},
               {"int8a16", TR_PRECISION_INT8A16, TR_KV_INT8}, {"native", TR_PRECISION_NATIVE, TR_KV_INT8},
               {"int4", TR_PRECISION_INT4, TR_KV_INT8},       {"nf4", TR_PRECISION_NF4, TR_KV_INT8}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char text[128];
        snprintf(text, sizeof text, "version: 1\nprefill: {dtype: %s}\ndecode: {dtype: %s, kv: bf16}\n", all[i].name,
                 all[i].name);
        good(text);
        assert_int_equal(t.want.side[0].dtype, all[i].dtype);
        assert_int_equal(t.want.side[0].kv, all[i].kv);
        assert_int_equal(t.want.side[1].dtype, all[i].dtype);
        assert_int_equal(t.want.side[1].kv, TR_KV_BF16);
    }
}

static void test_flags_win(void **state) {
    (void)state;
    assert_int_equal(load("version: 1\nprefill: {pp: 2}\ndecode: {pp: 3, dtype: bf16}\nscheduler: {chunk: 64}\n"),
                     TR_OK);
    char a[] = "--decode", b[] = "pp=1", c[] = "--chunk", d[] = "16";
    char *argv[] = {a, b, c, d};
    assert_int_equal(tr_options_parse(&o, 4, argv, 1, &err), TR_OK);
    assert_int_equal(resolve(), TR_OK);
    assert_int_equal(t.want.side[1].pp, 1);
    assert_int_equal(t.want.side[1].dtype, TR_PRECISION_BF16);
    assert_int_equal(t.want.chunk, 16);
    /* --unified makes one pipeline of a file with two. */
    assert_int_equal(load("version: 1\nprefill: {pp: 2}\ndecode: {pp: 3}\n"), TR_OK);
    char e[] = "--unified", f[] = "pp=2";
    char *argv2[] = {e, f};
    assert_int_equal(tr_options_parse(&o, 2, argv2, 1, &err), TR_OK);
    assert_int_equal(resolve(), TR_OK);
    assert_true(t.want.unified);
}

static void test_other_keys(void **state) {
    (void)state;
    good("version: 1\nscheduler: {max-batch: 8, kv_memory: 1M, context: 100, threads: 2, cores: shared}\n"
         "transport: {local: zmq}\nserver: {endpoint: 'tcp://127.0.0.1:9', served_model_name: \"x y\"}\n"
         "handoff: {on_failure: recompute}\nhosts: [local]\n");
    assert_int_equal(t.want.max_batch, 8);
    assert_int_equal(t.want.kv_memory, 1 << 20);
    assert_int_equal(t.want.context, 100);
    assert_int_equal(t.want.threads, 2);
    assert_int_equal(t.want.cores, TR_PLACEMENT_SHARED);
    assert_true(t.want.zmq);
    assert_string_equal(t.endpoint, "tcp://127.0.0.1:9");
    assert_string_equal(t.model_name, "x y");
}

static void test_hosts(void **state) {
    (void)state;
    good("version: 1\nhosts: [{name: a, address: '127.0.0.1:5570'}, b, {name: c, ssh: me@c, netns: n}]\n"
         "prefill: {hosts: [b]}\ndecode: {hosts: c}\n");
    assert_int_equal(t.want.n_nodes, 3);
    assert_string_equal(t.want.node[0], "a");
    assert_string_equal(t.want.node[2], "c");
    assert_int_equal(t.want.side_node[0], 1);
    assert_int_equal(t.want.side_node[1], 2);
    assert_string_equal(t.node_endpoint, "tcp://127.0.0.1:5570");
    assert_string_equal(t.hosts.host[2].ssh, "me@c");
    assert_string_equal(t.hosts.host[2].netns, "n");
    good("version: 1\nhosts: a@10.0.0.1:5570,b\ntransport: {keys: /k}\n");
    assert_int_equal(t.want.n_nodes, 2);
    assert_string_equal(t.node_endpoint, "tcp://10.0.0.1:5570");
    assert_string_equal(t.keys_dir, "/k");
    good("version: 1\nhosts: [a]\n");
    assert_int_equal(t.want.n_nodes, 0);
    static const char *const wrong[][2] = {
        {"hosts: [a, b]\n", "a needs an address"},
        {"hosts: [{name: a, address: '10.0.0.1:5570'}, b]\n", "that needs keys"},
        {"hosts: [{name: a, address: '10.0.0.1:5570'}, b]\ntransport: {curve: 'off', keys: /k}\n", "that needs keys"},
        {"hosts: [{name: a, address: '127.0.0.1:5570'}, b]\ntransport: {curve: 'on'}\n", "needs transport.keys"},
        {"hosts: [{name: a, address: '127.0.0.1:5570'}, a]\n", "'a' comes twice"},
        {"hosts: ['a@127.0.0.1:5570', B]\n", "'B' is no host"},
        {"hosts: ['a@127.0.0.1:5570', b]\ndecode: {hosts: c}\n", "decode.hosts: 'c' is not among the hosts"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char text[300];
        snprintf(text, sizeof text, "version: 1\n%s", wrong[i][0]);
        assert_int_equal(load(text), TR_OK);
        assert_int_equal(resolve(), TR_CONFIG);
        if (!strstr(err.text, wrong[i][1])) fail_msg("%s: %s", wrong[i][0], err.text);
    }
    bad("version: 1\nhosts: [{name: a, gpus: 0}]\n", "unknown key of a host");
    bad("version: 1\nhosts: [{address: x}]\n", "a host needs a name");
}

static void test_refused(void **state) {
    (void)state;
    bad("version: 1\ndecode:\n  qq: 2\n", "t.yaml:3: unknown key 'decode.qq'");
    bad("version: 1\nprefil: {pp: 2}\n", "t.yaml:2: unknown key 'prefil', did you mean 'prefill'?");
    bad("version: 1\npp: 2\n", "did you mean 'prefill.pp'?");
    bad("version: 1\nversion: 1\n", "t.yaml:2: key 'version' comes twice");
    bad("version: 1\nscheduler: {max_batch: 1, max-batch: 2}\n", "comes twice");
    bad("version: 1\ndecode: {pp: 1.5}\n", "not a whole number");
    bad("version: 1\ndecode: {pp: -1}\n", "not a whole number");
    bad("version: 1\ndecode: {pp: 65}\n", "t.yaml:2: decode.pp: 65 is out of range");
    bad("version: 1\ndecode: {pp: '2'}\n", "takes a number");
    bad("version: 1\ndecode: {pp: ~}\n", "has no value");
    bad("version: 1\ndecode:\n", "section");
    bad("version: 1\ndecode: [1]\n", "section");
    bad("version: 1\ndecode: {layers: [[1]]}\n", "list of plain values");
    bad("version: 1\ndecode: {? [a] : b}\n", "plain word");
    bad("version: 1\n<<: {pp: 1}\n", "unknown key '<<'");
    bad("version: 1\ndecode: &a {pp: 1}\n", "anchors");
    bad("version: 1\ndecode: *a\n", "aliases");
    bad("version: !x 1\n", "tags");
    bad("version: 1\n...\n---\nversion: 1\n", "one document");
    bad("model: x\n", "'version' is missing");
    bad("version: 9\n", "out of range");
    bad("[]", "mapping");
    bad("version: 1\ndecode: {pp: 1\n", "t.yaml:");
    bad("\tversion: 1\n", "t.yaml:");
    bad("# nothing\n", "empty");
    bad("", "empty file");
    assert_int_equal(load_bytes("version: 1\nmodel: \"a\\0b\"\n", 24), TR_CONFIG);
    assert_int_equal(tr_topology_load("/nowhere/t.yaml", &o, &err), TR_NO_INPUT);
    assert_int_equal(tr_topology_load("/tmp", &o, &err), TR_CONFIG);
}

static void test_not_yet(void **state) {
    (void)state;
    static const char *const texts[] = {"version: 1\ndecode: {dtype: fp16}\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (load(texts[i]) != TR_UNAVAILABLE) fail_msg("accepted: %s", texts[i]);
        assert_non_null(strstr(err.text, "not available yet"));
    }
    assert_int_equal(load("version: 1\nunified: {pp: 1}\ndecode: {pp: 1}\n"), TR_OK);
    assert_int_equal(resolve(), TR_CONFIG);
}

/* Any prefix and any single changed byte of a good file ends in a status, never in a crash. */
static void test_damaged(void **state) {
    (void)state;
    const char text[] = "version: 1\nmodel: m\ndecode: {pp: 2, layers: [3, 4]}\nscheduler:\n  chunk: 16\n";
    char copy[sizeof text];
    for (size_t n = 0; n < sizeof text; n++) load_bytes(text, n);
    for (size_t i = 0; i + 1 < sizeof text; i++)
        for (int c = 0; c < 256; c += 5) {
            memcpy(copy, text, sizeof text);
            copy[i] = (char)c;
            load_bytes(copy, sizeof text - 1);
        }
}

static void test_where_models_are_looked_for(void **state) {
    (void)state;
    char text[256], found[1024], cache[128], file[256];
    snprintf(file, sizeof file, "%s/m.gguf", folder);
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fclose(f);
    snprintf(text, sizeof text, "version: 1\nmodel: m.gguf\n"); /* beside the topology, wherever we stand */
    assert_int_equal(load(text), TR_OK);
    assert_int_equal(tr_topology_resolve(&o, path, &t, &err), TR_OK);
    assert_non_null(strstr(t.model, "/m.gguf"));
    assert_string_equal(t.model_name, "m");
    snprintf(cache, sizeof cache, "%s/cache", folder);
    setenv("XDG_CACHE_HOME", cache, 1);
    assert_int_equal(tr_topology_find_model("stored", "", found, sizeof found, &err), TR_NO_INPUT);
    assert_non_null(strstr(err.text, "scripts/fetch-model stored"));
    assert_int_equal(tr_topology_find_model("Once upon a time", "", found, sizeof found, &err), TR_NO_INPUT);
    assert_non_null(strstr(err.text, "a model is wanted here")); /* the prompt came first */
    char command[512];
    snprintf(command, sizeof command, "mkdir -p %s/troupe/models && touch %s/troupe/models/stored.gguf", cache, cache);
    assert_int_equal(system(command), 0);
    assert_int_equal(tr_topology_find_model("stored", "", found, sizeof found, &err), TR_OK);
    assert_non_null(strstr(found, "models/stored.gguf"));
    unsetenv("XDG_CACHE_HOME");
}

static void test_configs(void **state) {
    (void)state;
    DIR *d = opendir("configs");
    assert_non_null(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char name[300];
        if (!strstr(e->d_name, ".yaml")) continue;
        snprintf(name, sizeof name, "configs/%s", e->d_name);
        tr_options_fini(&o);
        tr_options_init(&o, TR_COMMAND_PLAN);
        if (tr_topology_load(name, &o, &err) != TR_OK) fail_msg("%s", err.text);
        assert_int_equal(tr_options_set_key(&o, TR_SOURCE_FLAG, "model", MODEL, "--model", &err), TR_OK);
        if (tr_topology_resolve(&o, name, &t, &err) != TR_OK) fail_msg("%s: %s", name, err.text);
        n++;
    }
    closedir(d);
    assert_true(n >= 6);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, clean)
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_said),
        TEST(test_two_pipelines),
        TEST(test_unified),
        TEST(test_precisions),
        TEST(test_flags_win),
        TEST(test_other_keys),
        TEST(test_hosts),
        TEST(test_refused),
        TEST(test_not_yet),
        TEST(test_damaged),
        TEST(test_where_models_are_looked_for),
        TEST(test_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
