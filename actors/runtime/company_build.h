/* actors/runtime/company_build.h - from what is wanted (topology and request), a model and a machine to the flat plan
 * of a company. Pure: reads no file, starts nothing. Sizes are computed checked; the first thing that does not fit is
 * the error. The caller fills in what has no part in sizes: names, paths, endpoint, images, model hash, id. Errors:
 * TR_CONFIG (layers, stages, context, memory), TR_UNAVAILABLE (a model that this version's KV cannot hold). */
#ifndef TR_COMPANY_BUILD_H
#define TR_COMPANY_BUILD_H
#include "actors/runtime/company.h"
#include "affinity/placement.h"
#include "base/status.h"
#include "model/model_config.h"
#include "scheduler/policy.h"

#include <stdbool.h>
#include <stdint.h>

enum { TR_COMPANY_BUILD_STAGES_MAX = 64, TR_COMPANY_BUILD_RANKS_MAX = 64 /* over all stages */ };

typedef struct tr_company_build_side {
    uint32_t pp, tp;
    tr_precision dtype;
    tr_kv_format kv;
    uint32_t page;
    uint32_t n_layers; /* entries of layers; 0: split by cost */
    uint32_t layers[TR_COMPANY_BUILD_STAGES_MAX];
} tr_company_build_side;

typedef struct tr_company_build_want {
    bool unified;                  /* one pipeline; side[0].pp, tp and layers count, dtype and kv of both */
    tr_company_build_side side[2]; /* prefill, decode */
    bool zmq;
    bool http; /* a gateway */
    tr_placement_cores cores;
    uint32_t threads;     /* 0: all cores */
    uint32_t context;     /* 0: what requests need; without requests what the model can and the memory holds */
    uint32_t chunk;       /* prompt tokens of a step */
    uint32_t max_batch;   /* 0: n_requests, or 16 */
    uint32_t max_waiting; /* of a company that stays */
    uint64_t kv_memory;   /* bytes over both pools; 0: by the rule */
    /* What a company that lives for one command will be asked; 0: it stays, and the rule for serve counts. */
    uint32_t n_requests;                                         /* at once */
    uint32_t request_tokens;                                     /* positions of the longest one, prompt and output */
    bool logits;                                                 /* every position's logits will be asked for */
    uint32_t n_nodes;                                            /* 0 and 1: all here */
    char node[TR_COMPANY_NODES_MAX][TR_COMPANY_NODE_NAME_BYTES]; /* names; 0 is the head */
    uint32_t side_node[2];                                       /* index of the node of each side */
    bool prefix_cache; /* prompts use what earlier ones with the same beginning left */
    tr_policy_id policy;
    uint64_t slo_ns; /* as in tr_scheduler_config */
    bool fair;
    uint32_t watermark;  /* per cent of the KV pages that stay unpromised while anything runs */
    bool reserve_full;   /* pages up to max_tokens are set aside when a request is let in: it never gives way */
    uint64_t swap_bytes; /* of the swap space for sequences that give way; 0: they are computed again */
    bool swap_file;      /* it is a file, not memory */
    bool files;          /* sequences may be saved and restored */
    bool store;          /* prefixes go to a store outside and come from there */
    tr_company_lease lease;
} tr_company_build_want;

/* machine: one a node, the head's first. The plan is made for the head (self 0); every node computes the same one, but
 * for self and paths: plan_hash covers what must agree. */
tr_status tr_company_build(const tr_company_build_want *want, const tr_model_config *model, const tr_machine *machine,
                           tr_company *company_out, tr_error *err);
#endif
