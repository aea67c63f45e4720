/* actors/cli/topology.h - what the user wants a company to be: topology file (strict YAML) and options, resolved.
 * The file sets keys of the options table: one level of sections, plain scalars, lists of scalars. Everything else is
 * an error with file and line: unknown and duplicate keys, aliases, anchors, tags, several documents, wrong types.
 * Errors: TR_CONFIG (with FILE:LINE), TR_NO_INPUT (no such file or model), TR_UNAVAILABLE (known, not in this version).
 * The only door to libyaml. Threads: one. */
#ifndef TR_TOPOLOGY_H
#define TR_TOPOLOGY_H
#include "actors/cli/hosts.h"
#include "actors/runtime/company_build.h"
#include "base/options.h"
#include "base/status.h"

typedef struct tr_topology {
    char model[TR_COMPANY_PATH_MAX]; /* absolute path of an existing file or folder; empty: none was named (simulate) */
    char model_name[256];            /* served */
    char endpoint[TR_COMPANY_PATH_MAX];
    char swap_file[TR_COMPANY_PATH_MAX]; /* absolute path; empty: the swap space is memory */
    char save_dir[TR_COMPANY_PATH_MAX];  /* absolute path of an existing folder; empty: none */
    tr_hosts hosts;
    char node_endpoint[256];            /* where the head listens; empty: one host */
    char keys_dir[TR_COMPANY_PATH_MAX]; /* empty: loopback without keys */
    char http_host[64], api_key_file[TR_COMPANY_PATH_MAX];
    uint32_t http_port;
    tr_company_store store;                   /* host empty: none */
    char kv_calibration[TR_COMPANY_PATH_MAX]; /* empty: the one in the cache */
    tr_company_build_want want;               /* without what the request adds */
} tr_topology;

/* Read a file into the options, as the weakest source. */
tr_status tr_topology_load(const char *path, tr_options *options, tr_error *err);
/* file: the topology file that the options were read from, or NULL; a model path in it is relative to its folder. */
tr_status tr_topology_resolve(const tr_options *options, const char *file, tr_topology *topology_out, tr_error *err);
/* Existing path of a model given as path (relative to base, "" is the working folder) or as a stored name. */
tr_status tr_topology_find_model(const char *text, const char *base, char *path_out, size_t cap, tr_error *err);
#endif
