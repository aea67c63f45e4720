#include "actors/cli/topology.h"

#include "actors/cli/store_url.h"
#include "base/clock.h"
#include "base/file_map.h"
#include "transport/zmq_socket.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

enum { FILE_BYTES_MAX = 1 << 20, KEYS_MAX = 64, KEY_BYTES = 96 };

typedef struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    bool have; /* event holds something to delete */
    const char *path;
    tr_options *options;
    tr_error *err;
} reader;

/* ---- events ---- */

static const char *where(const reader *r, char out[1100]) {
    snprintf(out, 1100, "%s:%zu", r->path, r->event.start_mark.line + 1);
    return out;
}

static tr_status fail(reader *r, const char *what) {
    char at[1100];
    return tr_error_set(r->err, TR_CONFIG, "%.200s: %s", where(r, at), what);
}

static tr_status next(reader *r) {
    if (r->have) yaml_event_delete(&r->event);
    r->have = false;
    if (!yaml_parser_parse(&r->parser, &r->event))
        return tr_error_set(r->err, TR_CONFIG, "%.200s:%zu: %s", r->path, r->parser.problem_mark.line + 1,
                            r->parser.problem ? r->parser.problem : "not YAML");
    r->have = true;
    if (r->event.type == YAML_ALIAS_EVENT) return fail(r, "aliases are not allowed: write the value out");
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (r->event.type) {
    case YAML_SCALAR_EVENT: anchor = r->event.data.scalar.anchor, tag = r->event.data.scalar.tag; break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = r->event.data.sequence_start.anchor, tag = r->event.data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = r->event.data.mapping_start.anchor, tag = r->event.data.mapping_start.tag;
        break;
    default: break;
    }
    if (anchor) return fail(r, "anchors are not allowed: write the value where it is used");
    if (tag) return fail(r, "tags are not allowed");
    return TR_OK;
}

/* Text of the scalar at hand; no NUL bytes inside. */
static tr_status scalar(reader *r, char *out, size_t cap) {
    size_t n = r->event.data.scalar.length;
    const char *text = (const char *)r->event.data.scalar.value;
    if (n >= cap || memchr(text, 0, n)) return fail(r, "a value is too long or holds a NUL byte");
    memcpy(out, text, n);
    out[n] = 0;
    return TR_OK;
}

/* ---- keys and values
 * ------------------------------------------------------------------------------------------------- */

/* Keys of one mapping, to see doubles. */
typedef struct seen {
    uint32_t n;
    char key[KEYS_MAX][KEY_BYTES];
} seen;

static tr_status note_key(reader *r, seen *s, char *key) {
    for (char *p = key; *p; p++)
        if (*p == '-') *p = '_';
    char text[KEY_BYTES + 40];
    for (uint32_t i = 0; i < s->n; i++) {
        if (strcmp(s->key[i], key) != 0) continue;
        snprintf(text, sizeof text, "key '%s' comes twice", key);
        return fail(r, text);
    }
    if (s->n == KEYS_MAX) return fail(r, "too many keys");
    strcpy(s->key[s->n++], key);
    return TR_OK;
}

/* {name: b, address: 10.0.0.2:5570, ssh: user@b} as the text form of one host (hosts.h). Its start has been read. */
static tr_status read_host(reader *r, char *out, size_t cap) {
    seen keys = {0};
    char key[KEY_BYTES], value[128], rest[512] = "", name[128] = "";
    for (;;) {
        TR_TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) break;
        if (r->event.type != YAML_SCALAR_EVENT) return fail(r, "a key must be a plain word");
        TR_TRY(scalar(r, key, sizeof key));
        TR_TRY(note_key(r, &keys, key));
        TR_TRY(next(r));
        if (r->event.type != YAML_SCALAR_EVENT) return fail(r, "a plain value is expected here");
        TR_TRY(scalar(r, value, sizeof value));
        if (strpbrk(value, ",;")) return fail(r, "a value of a host holds no comma and no semicolon");
        if (strcmp(key, "name") == 0)
            strcpy(name, value);
        else if (strcmp(key, "address") == 0 || strcmp(key, "ssh") == 0 || strcmp(key, "netns") == 0)
            snprintf(rest + strlen(rest), sizeof rest - strlen(rest), ";%s=%s", key, value);
        else
            return fail(r, "unknown key of a host: name, address, ssh and netns are known");
    }
    if (!name[0]) return fail(r, "a host needs a name");
    return snprintf(out, cap, "%s%s", name, rest) < (int)cap ? TR_OK : fail(r, "this host is too long");
}

static tr_status read_sequence(reader *r, const char *key, const char *at) {
    char text[TR_OPTIONS_TEXT_MAX] = "", item[600];
    const bool hosts = strcmp(key, "hosts") == 0;
    size_t n = 0;
    for (;;) {
        TR_TRY(next(r));
        if (r->event.type == YAML_SEQUENCE_END_EVENT) break;
        if (hosts && r->event.type == YAML_MAPPING_START_EVENT)
            TR_TRY(read_host(r, item, sizeof item));
        else if (r->event.type != YAML_SCALAR_EVENT)
            return fail(r, "a list of plain values is expected here");
        else
            TR_TRY(scalar(r, item, sizeof item));
        int more = snprintf(text + n, sizeof text - n, "%s%s", n == 0 ? "" : hosts ? "," : ":", item);
        if (more < 0 || (size_t)more >= sizeof text - n) return fail(r, "the list is too long");
        n += (size_t)more;
    }
    tr_option_id id = tr_options_find_key(key);
    if (id != TR_OPTION_COUNT && !tr_options_takes_list(id) && !strstr(key, "hosts"))
        return tr_error_set(r->err, TR_CONFIG, "%.200s: '%s' takes one value, not a list", at, key);
    return tr_options_set_key(r->options, TR_SOURCE_FILE, key, text, at, r->err);
}

static tr_status read_scalar(reader *r, const char *key, const char *at) {
    char text[TR_OPTIONS_TEXT_MAX];
    bool plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    TR_TRY(scalar(r, text, sizeof text));
    tr_option_id id = tr_options_find_key(key);
    if (plain && (!text[0] || strcmp(text, "~") == 0 || strcmp(text, "null") == 0))
        return tr_error_set(r->err, TR_CONFIG, "%.200s: '%s' has no value: give one or leave the key out", at, key);
    if (!plain && id != TR_OPTION_COUNT && tr_options_is_number(id))
        return tr_error_set(r->err, TR_CONFIG, "%.200s: '%s' takes a number, not a text in quotes", at, key);
    return tr_options_set_key(r->options, TR_SOURCE_FILE, key, text, at, r->err);
}

/* Pairs of a mapping whose start has been read. section: "" at the top. */
static tr_status read_mapping(reader *r, const char *section) {
    seen keys = {0};
    char name[KEY_BYTES], key[2 * KEY_BYTES], at[1100];
    for (;;) {
        TR_TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) return TR_OK;
        if (r->event.type != YAML_SCALAR_EVENT) return fail(r, "a key must be a plain word");
        TR_TRY(scalar(r, name, sizeof name));
        TR_TRY(note_key(r, &keys, name));
        where(r, at);
        snprintf(key, sizeof key, "%s%s%s", section, *section ? "." : "", name);
        if (tr_options_find_key(key) == TR_OPTION_COUNT && !(!*section && tr_options_is_section(key)))
            return tr_options_unknown_key(key, at, r->err);
        TR_TRY(next(r));
        if (r->event.type == YAML_MAPPING_START_EVENT) {
            if (*section || !tr_options_is_section(key)) return fail(r, "a plain value is expected here");
            tr_options_touch_section(r->options, TR_SOURCE_FILE, key);
            TR_TRY(read_mapping(r, key));
        } else if (!*section && tr_options_is_section(key)) {
            return fail(r, "this key is a section: write its keys below it, or {}");
        } else if (r->event.type == YAML_SEQUENCE_START_EVENT) {
            TR_TRY(read_sequence(r, key, at));
        } else {
            TR_TRY(read_scalar(r, key, at));
        }
    }
}

static tr_status read_document(reader *r) {
    TR_TRY(next(r)); /* stream start */
    TR_TRY(next(r));
    if (r->event.type == YAML_STREAM_END_EVENT) return fail(r, "the topology is empty");
    TR_TRY(next(r));
    if (r->event.type != YAML_MAPPING_START_EVENT) return fail(r, "a topology is a mapping of keys to values");
    TR_TRY(read_mapping(r, ""));
    TR_TRY(next(r)); /* document end */
    TR_TRY(next(r));
    if (r->event.type != YAML_STREAM_END_EVENT) return fail(r, "one document only");
    if (!tr_options_given(r->options, TR_OPTION_VERSION))
        return tr_error_set(r->err, TR_CONFIG, "%.200s: 'version' is missing: write version: 1", r->path);
    return TR_OK;
}

tr_status tr_topology_load(const char *path, tr_options *options, tr_error *err) {
    tr_file_map map = {0};
    tr_status status = tr_file_map_open(path, &map, err);
    if (status == TR_DATA) return tr_error_set(err, TR_CONFIG, "%.300s: an empty file or no file at all", path);
    TR_TRY(status);
    reader r = {.path = path, .options = options, .err = err};
    if (map.size > FILE_BYTES_MAX) {
        status = tr_error_set(err, TR_CONFIG, "%.300s: larger than 1 MiB, this is no topology", path);
    } else if (!yaml_parser_initialize(&r.parser)) {
        status = tr_error_set(err, TR_UNAVAILABLE, "no memory for the YAML reader");
    } else {
        yaml_parser_set_input_string(&r.parser, map.data, map.size);
        status = read_document(&r);
        if (r.have) yaml_event_delete(&r.event);
        yaml_parser_delete(&r.parser);
    }
    tr_file_map_close(&map);
    return status;
}

/* ---- resolution
 * ------------------------------------------------------------------------------------------------------ */

static bool exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

static bool stored_path(const char *name, char *out, size_t cap) {
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n;
    if (xdg && xdg[0] == '/')
        n = snprintf(out, cap, "%s/troupe/models/%s.gguf", xdg, name);
    else if (home && home[0] == '/')
        n = snprintf(out, cap, "%s/.cache/troupe/models/%s.gguf", home, name);
    else
        return false;
    return n > 0 && (size_t)n < cap;
}

tr_status tr_topology_find_model(const char *text, const char *base, char *path_out, size_t cap, tr_error *err) {
    char joined[2 * TR_COMPANY_PATH_MAX], found[PATH_MAX];
    if (!*text) return tr_error_set(err, TR_USAGE, "no model named: give MODEL, --model, or model: in the topology");
    int n = text[0] == '/' || !*base ? snprintf(joined, sizeof joined, "%s", text)
                                     : snprintf(joined, sizeof joined, "%s/%s", base, text);
    if (n < 0 || (size_t)n >= sizeof joined) return tr_error_set(err, TR_NO_INPUT, "%.100s...: path too long", text);
    bool is_name = text[strcspn(text, "/. \t\n")] == 0;
    if (!exists(joined)) {
        if (errno != ENOENT && errno != ENOTDIR)
            return tr_error_set(err, TR_NO_INPUT, "%.300s: %s", joined, strerror(errno));
        if (strchr(text, '/') || !stored_path(text, joined, sizeof joined) || !exists(joined))
            return is_name ? tr_error_set(err, TR_NO_INPUT,
                                          "%.200s: no such file and no stored model of that name: run "
                                          "scripts/fetch-model %.200s, or give a path",
                                          text, text)
                           : tr_error_set(err, TR_NO_INPUT,
                                          "%.300s: no such file: the path or name of a model is wanted here", text);
    }
    if (!realpath(joined, found)) return tr_error_set(err, TR_NO_INPUT, "%.300s: %s", joined, strerror(errno));
    if (strlen(found) >= cap) return tr_error_set(err, TR_NO_INPUT, "%.300s...: path too long", found);
    strcpy(path_out, found);
    return TR_OK;
}

/* "gemma3-270m" of /x/gemma3-270m.gguf; name of the folder for .../NAME/model.safetensors and its index. */
static void name_of(const char *path, char *out, size_t cap) {
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    char *last = basename(copy);
    if (strncmp(last, "model.safetensors", 17) == 0) {
        snprintf(copy, sizeof copy, "%s", path);
        last = basename(dirname(copy));
    }
    snprintf(out, cap, "%s", last);
    char *dot = strrchr(out, '.');
    if (dot && dot > out && (strcmp(dot, ".gguf") == 0 || strcmp(dot, ".safetensors") == 0)) *dot = 0;
}

static tr_kv_format kv_of(const char *text, tr_precision dtype) {
    for (int f = TR_KV_NONE + 1; f < TR_KV_FORMAT_END; f++)
        if (strcmp(text, tr_kv_format_name((tr_kv_format)f)) == 0) return (tr_kv_format)f;
    return dtype == TR_PRECISION_BF16 ? TR_KV_BF16 : TR_KV_INT8;
}

static void read_side(const tr_options *o, bool decode, tr_company_build_side *s) {
    const tr_option_id first = decode ? TR_OPTION_DECODE_PP : TR_OPTION_PREFILL_PP;
    const int shift = (int)first - (int)TR_OPTION_PREFILL_PP;
#define ID(name) ((tr_option_id)((int)TR_OPTION_PREFILL_##name + shift))
    s->pp = tr_options_u32(o, ID(PP));
    s->tp = tr_options_u32(o, ID(TP));
    s->page = tr_options_u32(o, ID(PAGE));
    s->dtype = tr_precision_of(tr_options_text(o, ID(DTYPE)));
    s->kv = kv_of(tr_options_text(o, ID(KV)), s->dtype);
    s->n_layers = o->value[ID(LAYERS)].n_list;
    memcpy(s->layers, o->value[ID(LAYERS)].list, sizeof s->layers);
#undef ID
}

static void read_unified(const tr_options *o, tr_company_build_want *w) {
    const tr_source both = o->value[TR_OPTION_UNIFIED_DTYPE].source;
    for (int phase = 0; phase < 2; phase++) {
        tr_option_id own = phase == 0 ? TR_OPTION_UNIFIED_PREFILL : TR_OPTION_UNIFIED_DECODE;
        tr_company_build_side *s = &w->side[phase];
        bool shared = both != TR_SOURCE_DEFAULT && both > o->value[own].source;
        s->pp = tr_options_u32(o, TR_OPTION_UNIFIED_PP);
        s->tp = tr_options_u32(o, TR_OPTION_UNIFIED_TP);
        s->page = tr_options_u32(o, TR_OPTION_UNIFIED_PAGE);
        s->dtype = tr_precision_of(tr_options_text(o, shared ? TR_OPTION_UNIFIED_DTYPE : own));
        s->kv = kv_of(tr_options_text(o, TR_OPTION_UNIFIED_KV), s->dtype);
        s->n_layers = o->value[TR_OPTION_UNIFIED_LAYERS].n_list;
        memcpy(s->layers, o->value[TR_OPTION_UNIFIED_LAYERS].list, sizeof s->layers);
    }
}

/* Which host runs what, where the head listens, and whether that needs keys. */
static tr_status read_hosts(const tr_options *o, tr_topology *t, tr_error *err) {
    tr_company_build_want *w = &t->want;
    const char *curve = tr_options_text(o, TR_OPTION_TRANSPORT_CURVE);
    const tr_option_id side[2] = {w->unified ? TR_OPTION_UNIFIED_HOSTS : TR_OPTION_PREFILL_HOSTS,
                                  w->unified ? TR_OPTION_UNIFIED_HOSTS : TR_OPTION_DECODE_HOSTS};
    static const char *const keys[2][2] = {{"prefill.hosts", "decode.hosts"}, {"unified.hosts", "unified.hosts"}};
    TR_TRY(tr_hosts_parse(tr_options_text(o, TR_OPTION_HOSTS), &t->hosts, err));
    for (int i = 0; i < 2; i++)
        TR_TRY(tr_hosts_find(&t->hosts, tr_options_text(o, side[i]), keys[w->unified][i], &w->side_node[i], err));
    if (t->hosts.n < 2) return TR_OK;
    w->n_nodes = t->hosts.n;
    for (uint32_t i = 0; i < w->n_nodes; i++) memcpy(w->node[i], t->hosts.host[i].name, sizeof w->node[i]);
    if (!t->hosts.host[0].address[0])
        return tr_error_set(err, TR_CONFIG, "hosts: %s needs an address, where the others reach it: address: HOST:PORT",
                            t->hosts.host[0].name);
    snprintf(t->node_endpoint, sizeof t->node_endpoint, "tcp://%s", t->hosts.host[0].address);
    if (strcmp(curve, "off") != 0)
        snprintf(t->keys_dir, sizeof t->keys_dir, "%s", tr_options_text(o, TR_OPTION_TRANSPORT_KEYS));
    if (strcmp(curve, "on") == 0 && !t->keys_dir[0])
        return tr_error_set(err, TR_CONFIG, "transport.curve: on needs transport.keys: troupe keygen makes them");
    if (!t->keys_dir[0] && !tr_zmq_socket_is_loopback(t->node_endpoint))
        return tr_error_set(err, TR_CONFIG,
                            "hosts: %s listens at %s, which other machines reach: that needs keys (troupe keygen DIR "
                            "NAME..., then --keys DIR)",
                            t->hosts.host[0].name, t->hosts.host[0].address);
    return TR_OK;
}

/* The stronger source says whether there is one pipeline or two. */
static tr_status read_pipelines(const tr_options *o, const char *file, tr_company_build_want *w, tr_error *err) {
    tr_source unified = tr_options_section_source(o, "unified");
    tr_source prefill = tr_options_section_source(o, "prefill"), decode = tr_options_section_source(o, "decode");
    tr_source split = prefill > decode ? prefill : decode;
    if (unified != TR_SOURCE_DEFAULT && unified == split)
        return tr_error_set(err, unified == TR_SOURCE_FILE ? TR_CONFIG : TR_USAGE,
                            "%s%sunified together with prefill or decode: choose one pipeline or two",
                            unified == TR_SOURCE_FILE && file ? file : "",
                            unified == TR_SOURCE_FILE && file ? ": " : "");
    w->unified = unified >= split;
    if (w->unified) {
        read_unified(o, w);
    } else {
        read_side(o, false, &w->side[0]);
        read_side(o, true, &w->side[1]);
    }
    return TR_OK;
}

static tr_placement_cores cores_of(const char *text) {
    if (strcmp(text, "own") == 0) return TR_PLACEMENT_OWN;
    return strcmp(text, "shared") == 0 ? TR_PLACEMENT_SHARED : TR_PLACEMENT_AUTO;
}

static tr_policy_id policy_of(const char *name) {
    tr_policy_id p = TR_POLICY_SARATHI;
    while (p + 1 < TR_POLICY_END && strcmp(tr_policy_table[p].name, name) != 0) p++;
    return p;
}

static tr_status find_save_dir(const char *text, tr_topology *t, tr_error *err) {
    char full[PATH_MAX];
    struct stat st;
    if (!text[0]) return TR_OK;
    if (!realpath(text, full) || stat(full, &st) != 0 || !S_ISDIR(st.st_mode) || strlen(full) >= sizeof t->save_dir)
        return tr_error_set(err, TR_CONFIG, "handoff.save_dir: '%.200s' is no folder: create it first", text);
    memcpy(t->save_dir, full, strlen(full) + 1);
    t->want.files = true;
    return TR_OK;
}

/* A folder of keys that a file names is meant from there, like the model. */
static void keys_beside(const tr_options *o, const char *file, tr_topology *t) {
    char copy[PATH_MAX], whole[PATH_MAX + TR_COMPANY_PATH_MAX];
    if (!file || o->value[TR_OPTION_TRANSPORT_KEYS].source != TR_SOURCE_FILE || !t->keys_dir[0] ||
        t->keys_dir[0] == '/')
        return;
    snprintf(copy, sizeof copy, "%s", file);
    snprintf(whole, sizeof whole, "%s/%s", dirname(copy), t->keys_dir);
    snprintf(t->keys_dir, sizeof t->keys_dir, "%.1023s", whole);
}

static bool loopback(const char *host) {
    return strcmp(host, "127.0.0.1") == 0 || strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0;
}

/* HTTP is there where a port is given, or serve is asked for. Beyond this machine only with keys. */
static tr_status read_http(const tr_options *o, tr_topology *t, tr_error *err) {
    const char *host = tr_options_text(o, TR_OPTION_HOST);
    t->want.http = tr_options_given(o, TR_OPTION_PORT);
    t->http_port = t->want.http ? tr_options_u32(o, TR_OPTION_PORT) : 0;
    snprintf(t->http_host, sizeof t->http_host, "%s", host);
    snprintf(t->api_key_file, sizeof t->api_key_file, "%s", tr_options_text(o, TR_OPTION_API_KEY_FILE));
    if (t->want.http && !loopback(host) && !t->api_key_file[0])
        return tr_error_set(err, TR_CONFIG,
                            "--host %.60s: beyond this machine HTTP is served only with keys; name a file of them by "
                            "--set server.api_key_file=FILE",
                            host);
    return TR_OK;
}

static tr_status whole_path(const char *key, const char *text, char out[TR_COMPANY_PATH_MAX], tr_error *err) {
    char full[PATH_MAX];
    if (!text[0]) return TR_OK;
    if (!realpath(text, full) || strlen(full) >= TR_COMPANY_PATH_MAX)
        return tr_error_set(err, TR_NO_INPUT, "%s: '%.200s': %s", key, text, strerror(errno));
    memcpy(out, full, strlen(full) + 1);
    return TR_OK;
}

static tr_status read_store(const tr_options *o, tr_topology *t, tr_error *err) {
    const char *url = tr_options_text(o, TR_OPTION_KV_STORE);
    tr_company_store *s = &t->store;
    if (!url[0]) return TR_OK;
    TR_TRY(tr_store_url_parse(url, s, err));
    s->timeout_ms = tr_options_u32(o, TR_OPTION_KV_STORE_TIMEOUT);
    TR_TRY(
        whole_path("kv.store_password_file", tr_options_text(o, TR_OPTION_KV_STORE_PASSWORD), s->password_file, err));
    TR_TRY(whole_path("kv.store_secret_file", tr_options_text(o, TR_OPTION_KV_STORE_SECRET), s->secret_file, err));
    t->want.store = true;
    if (!t->want.prefix_cache)
        return tr_error_set(err, TR_CONFIG, "kv.store needs the prefix cache: leave --prefix-cache on");
    if (t->want.side_node[0] != 0)
        return tr_error_set(err, TR_CONFIG, "kv.store needs the prefill pipeline on the first host");
    if (tr_store_url_is_local(s) || s->password_file[0]) return TR_OK;
    return tr_error_set(err, TR_CONFIG,
                        "kv.store: %s is another machine: that needs a password, see "
                        "kv.store_password_file",
                        s->host);
}

static tr_status read_swap(const tr_options *o, tr_topology *t, tr_error *err) {
    char folder[PATH_MAX], full[PATH_MAX];
    const char *path = tr_options_text(o, TR_OPTION_SWAP_FILE), *slash = strrchr(path, '/');
    t->want.swap_bytes = tr_options_u64(o, TR_OPTION_SWAP_MEMORY);
    if (!(t->want.swap_file = path[0] != 0)) return TR_OK;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    if (t->want.swap_bytes == 0 || !realpath(folder, full) ||
        snprintf(t->swap_file, sizeof t->swap_file, "%s/%s", full, slash ? slash + 1 : path) >= TR_COMPANY_PATH_MAX)
        return tr_error_set(err, TR_CONFIG,
                            "scheduler.swap_file: needs scheduler.swap_memory, its size, and its folder");
    return TR_OK;
}

tr_status tr_topology_resolve(const tr_options *o, const char *file, tr_topology *t, tr_error *err) {
    char folder[PATH_MAX] = "";
    memset(t, 0, sizeof *t);
    TR_TRY(read_pipelines(o, file, &t->want, err));
    TR_TRY(read_hosts(o, t, err));
    keys_beside(o, file, t);
    tr_company_build_want *w = &t->want;
    w->zmq = strcmp(tr_options_text(o, TR_OPTION_TRANSPORT_LOCAL), "zmq") == 0;
    w->cores = cores_of(tr_options_text(o, TR_OPTION_CORES));
    w->threads = tr_options_u32(o, TR_OPTION_THREADS);
    w->context = tr_options_u32(o, TR_OPTION_CONTEXT);
    w->chunk = tr_options_u32(o, TR_OPTION_CHUNK);
    w->max_batch = tr_options_u32(o, TR_OPTION_MAX_BATCH);
    w->max_waiting = tr_options_u32(o, TR_OPTION_MAX_WAITING);
    w->prefix_cache = strcmp(tr_options_text(o, TR_OPTION_PREFIX_CACHE), "on") == 0;
    w->reserve_full = strcmp(tr_options_text(o, TR_OPTION_RESERVE), "full") == 0;
    w->watermark = tr_options_u32(o, TR_OPTION_WATERMARK);
    w->policy = policy_of(tr_options_text(o, TR_OPTION_POLICY));
    w->slo_ns = (uint64_t)(tr_options_f64(o, TR_OPTION_ITL_SLO) * TR_NS_PER_MS);
    w->fair = strcmp(tr_options_text(o, TR_OPTION_FAIR), "on") == 0;
    w->lease = (tr_company_lease){.actor_ms = tr_options_u32(o, TR_OPTION_LEASE_ACTOR),
                                  .link_ms = tr_options_u32(o, TR_OPTION_LEASE_LINK),
                                  .away_s = tr_options_u32(o, TR_OPTION_LEASE_AWAY)};
    w->kv_memory = tr_options_u64(o, TR_OPTION_KV_MEMORY);
    TR_TRY(read_swap(o, t, err));
    TR_TRY(find_save_dir(tr_options_text(o, TR_OPTION_HANDOFF_SAVE_DIR), t, err));
    snprintf(t->kv_calibration, sizeof t->kv_calibration, "%s", tr_options_text(o, TR_OPTION_KV_CALIBRATION));
    TR_TRY(read_store(o, t, err));
    snprintf(t->endpoint, sizeof t->endpoint, "%s", tr_options_text(o, TR_OPTION_ENDPOINT));
    TR_TRY(read_http(o, t, err));
    if (file && o->value[TR_OPTION_MODEL].source == TR_SOURCE_FILE) {
        char copy[PATH_MAX];
        snprintf(copy, sizeof copy, "%s", file);
        snprintf(folder, sizeof folder, "%s", dirname(copy));
    }
    if (o->command == TR_COMMAND_SIMULATE && !tr_options_given(o, TR_OPTION_MODEL)) return TR_OK;
    TR_TRY(tr_topology_find_model(tr_options_text(o, TR_OPTION_MODEL), folder, t->model, sizeof t->model, err));
    name_of(t->model, t->model_name, sizeof t->model_name);
    if (tr_options_given(o, TR_OPTION_SERVED_NAME))
        snprintf(t->model_name, sizeof t->model_name, "%.255s", tr_options_text(o, TR_OPTION_SERVED_NAME));
    return TR_OK;
}
