/* actors/cli/cli_session.h - a company that lives as long as this command: topology, model, plan, images, processes,
 * connection. Steps in order: load -> plan -> start -> (use client) -> stop, and from plan on again; fini is safe after
 * any failure and leaves no process, folder or socket behind. Threads: one. Blocks: start waits for the model to be
 * packed and all actors to be READY; a signal ends it with TR_CANCELLED. */
#ifndef TR_CLI_SESSION_H
#define TR_CLI_SESSION_H
#include "actors/cli/cli.h"
#include "actors/cli/cli_nodes.h"
#include "actors/cli/topology.h"
#include "actors/runtime/launch.h"
#include "affinity/machine.h"
#include "client/troupe_client.h"
#include "model/model_cache.h"
#include "model/model_file.h"
#include "model/tokenizer.h"

typedef struct tr_cli_session {
    tr_options *options;
    tr_topology topology;
    uint32_t words_used; /* positional words that named the model */
    tr_model_file *model;
    tr_tokenizer *tokenizer;                  /* NULL: not opened, or the model brings none that we read */
    char vocabulary[TR_MODEL_CACHE_PATH_MAX]; /* its packed tables; empty: not cached */
    tr_machine machine;
    tr_cli_nodes nodes; /* the other hosts, until the company starts */
    tr_company company;
    tr_model_cache_image image[TR_PRECISION_END]; /* index: precision of the image */
    tr_cli_home home;
    tr_launch launch;
    bool launched;
    int exit_code; /* of the company, after stop */
    tr_client *client;
} tr_cli_session;

/* Options (file, model argument) and model metadata. The first positional word is the model unless a file, --model or
 * the environment names one. */
tr_status tr_cli_session_load(tr_cli_session *s, tr_options *options, tr_error *err);
/* For the part of a company that another host plans: options and the machine, no model. */
tr_status tr_cli_session_load_machine(tr_cli_session *s, tr_options *options, tr_error *err);
/* Packed weights of the stages of this node, and the model's hash, into the plan. */
tr_status tr_cli_session_images(tr_cli_session *s, tr_error *err);
/* Start the processes of this node and wait until all are READY. */
tr_status tr_cli_session_launch(tr_cli_session *s, tr_error *err);
/* Tokens of a text as the model wants them; *ids_out is the caller's (free). flags: tr_tokenize_flags. */
tr_status tr_cli_session_tokenize(tr_cli_session *s, const char *text, size_t len, unsigned flags, uint32_t **ids_out,
                                  uint32_t *n_out, tr_error *err);
/* Where the KV calibration is: as the topology says, else in the cache. */
tr_status tr_cli_session_calibration_path(const tr_cli_session *s, uint64_t model_hash, char out[TR_COMPANY_PATH_MAX],
                                          tr_error *err);
/* Plan for topology.want, which the command has completed. */
tr_status tr_cli_session_plan(tr_cli_session *s, tr_error *err);
/* Pack, start, wait until ready, connect. name: of the runtime folder. */
tr_status tr_cli_session_start(tr_cli_session *s, const char *name, tr_error *err);
/* End of all processes. Idempotent. */
void tr_cli_session_stop(tr_cli_session *s);
/* After stop: exit code of a command that ended with status. Prints the one line of whatever went wrong, unless the
 * company has printed it. */
int tr_cli_session_exit(const tr_cli_session *s, tr_status status, const tr_error *err);
void tr_cli_session_fini(tr_cli_session *s);
/* --name, else run-PID. */
void tr_cli_session_name(const tr_options *options, char out[64]);
/* Kernel set for this start (tr_ops_select). */
tr_status tr_cli_session_kernels(char out[16], tr_error *err);
#endif
