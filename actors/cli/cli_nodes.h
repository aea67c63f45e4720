/* actors/cli/cli_nodes.h - the head's side of a start on several hosts: wait for a program on each (troupe node), plan
 * for all machines, send what the plan is made of, wait until everyone has prepared. The company's own agents connect
 * afterwards; this connection ends before. Threads: one. Blocks: gather and wait, until a signal. */
#ifndef TR_CLI_NODES_H
#define TR_CLI_NODES_H
#include "actors/cli/topology.h"
#include "affinity/machine.h"
#include "transport/curve_key.h"
#include "transport/zmq_zap.h"

#include <stdbool.h>

enum { TR_CLI_NODES_KERNELS = 16 };

typedef struct tr_cli_nodes_one {
    bool here, prepared;
    uint32_t id_bytes;
    uint8_t id[256];
    uint32_t n_kernels;
    char kernels[TR_CLI_NODES_KERNELS][16];
} tr_cli_nodes_one;

typedef struct tr_cli_nodes {
    const tr_topology *topology;
    void *context, *socket;
    tr_zmq_zap *zap;
    tr_curve_key key;
    uint32_t n;
    tr_machine machine[TR_COMPANY_NODES_MAX]; /* 0: this one */
    tr_cli_nodes_one one[TR_COMPANY_NODES_MAX];
    void *arena;
} tr_cli_nodes;

/* Listen, and wait until every host has said what machine it is. */
tr_status tr_cli_nodes_gather(tr_cli_nodes *n, const tr_topology *t, const tr_machine *here, tr_error *err);
/* The best kernel set that every host can run; preferred: what this one would choose. */
tr_status tr_cli_nodes_kernels(const tr_cli_nodes *n, const char *preferred, char out[16], tr_error *err);
/* Send the plan's ingredients to all. */
tr_status tr_cli_nodes_send(tr_cli_nodes *n, const tr_company *company, tr_error *err);
/* Wait until all have prepared; their models must be this one. */
tr_status tr_cli_nodes_wait(tr_cli_nodes *n, uint64_t model_hash, tr_error *err);
void tr_cli_nodes_close(tr_cli_nodes *n); /* idempotent */
#endif
