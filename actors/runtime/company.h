/* actors/runtime/company.h - the resolved plan of one company: flat, bounded, no pointers, the same bytes in every
 * process. Made by company_build.c from a topology, a model and a machine; written to a memfd that the supervisor and
 * every actor map read-only. Nothing in it is parsed from outside: the command line has validated all of it. Segments
 * are memfds with fixed descriptor numbers in every process of the company. */
#ifndef TR_COMPANY_H
#define TR_COMPANY_H
#include "base/siphash.h"
#include "base/status.h"
#include "kv/kv_layout.h"
#include "model/image.h"
#include "model/kv_calibration.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    TR_COMPANY_MAGIC = 0x55505254, /* "TRPU" */
    TR_COMPANY_VERSION = 1,
    TR_COMPANY_ACTORS_MAX = 72,
    TR_COMPANY_LINKS_MAX = 320,
    TR_COMPANY_SEGMENTS_MAX = 16,
    TR_COMPANY_CPUS_MAX = 64,
    TR_COMPANY_NODES_MAX = 8,
    TR_COMPANY_NODE_NAME_BYTES = 16,
    TR_COMPANY_PATH_MAX = 1024,
    TR_COMPANY_FD_PLAN = 3,   /* descriptor of the plan memfd in every actor */
    TR_COMPANY_FD_SEGMENT = 4 /* segment i is descriptor 4 + i */
};

typedef enum tr_role {
    TR_ROLE_SUPERVISOR,
    TR_ROLE_FRONTEND,
    TR_ROLE_SCHEDULER,
    TR_ROLE_RESHARDER,
    TR_ROLE_STAGE,
    TR_ROLE_GATEWAY,
    TR_ROLE_STORE, /* prefixes of prompts in a store outside of the company */
    TR_ROLE_NODE   /* carries the links between this node and the others */
} tr_role;

/* What a stage runs for one phase (index TR_PHASE_* - 1). */
typedef struct tr_company_phase {
    uint32_t active;    /* 0: this stage has no part in the phase */
    uint32_t precision; /* tr_precision */
    uint32_t pool;      /* 0 prefill pool, 1 decode pool */
} tr_company_phase;

typedef struct tr_company_actor {
    char name[32]; /* "supervisor", "frontend", "scheduler", "resharder", "store", "gateway", "prefill.0", "decode.2",
                      "unified.0";     rank 1 of a stage: "decode.2.1" */
    uint32_t role; /* tr_role */
    uint32_t node; /* where it runs: index into node[] */
    uint32_t pipeline; /* stage: 0 or 1, index of the scheduler's pipeline */
    uint32_t stage, n_stages;
    uint32_t rank,
        tp;          /* tensor parallel: rank of the stage's tp, 0 leads and alone has channels; its ranks follow it */
    uint32_t lo, hi; /* layers */
    tr_company_phase phase[2];
    uint32_t n_cpus;                    /* workers of a stage: one a CPU; 0: not pinned */
    uint32_t cpus[TR_COMPANY_CPUS_MAX]; /* logical CPU numbers */
    uint32_t workers;                   /* threads of a stage (n_cpus when pinned) */
    uint32_t worker0, team_workers;     /* of all ranks: index of its first one, how many in all */
    /* tp > 1: of the stage in TR_SEGMENT_TEAMS, whole pages; the rest behind the filled part is a hole */
    uint64_t team_offset, team_bytes, team_filled;
    int32_t numa_node; /* -1: not bound */
    uint32_t spin_ns;  /* how long it may spin before it sleeps; 0 where cores are shared */
} tr_company_actor;

typedef enum tr_link_kind {
    TR_LINK_CONTROL = 1,
    TR_LINK_ACTIVATION = 2,
    TR_LINK_LOGITS = 3,
    TR_LINK_KV = 4,    /* between the resharders of two nodes */
    TR_LINK_TOKENS = 5 /* last stage to first: what a decode step sampled */
} tr_link_kind;

/* One-way channel from -> to. In ring mode it lies at offset in segment `segment`; in zmq mode at
 * ipc://<runtime>/link.<index>. Between nodes it is a ring on each, and the agents carry records from one to the other.
 */
typedef struct tr_company_link {
    uint32_t kind, from, to;
    uint32_t segment;
    uint64_t offset, bytes; /* tr_ring_bytes(capacity) */
    uint64_t capacity;      /* bytes of records */
    uint64_t record_max;    /* largest record */
} tr_company_link;

typedef enum tr_segment_id {
    TR_SEGMENT_CONTROL, /* tr_control: blocks of all actors, bells */
    TR_SEGMENT_LINKS,   /* rings */
    TR_SEGMENT_JOURNAL, /* tr_journal */
    TR_SEGMENT_TABLES,  /* page tables and bitmaps of both pools */
    TR_SEGMENT_POOL_PREFILL,
    TR_SEGMENT_POOL_DECODE, /* bytes 0 when one_pool */
    TR_SEGMENT_SWAP,        /* KV of sequences that gave way; bytes 0: none, or in a file */
    TR_SEGMENT_TEAMS,       /* a stage of several ranks: tr_team_meeting, then what its forward passes share */
    TR_SEGMENT_COUNT
} tr_segment_id;

typedef struct tr_company_segment {
    char name[32];
    uint64_t bytes;
    uint64_t sparse; /* of these: holes, which have no memory before somebody writes there */
} tr_company_segment;

/* A server outside that keeps prefixes of prompts. */
typedef struct tr_company_store {
    char host[128]; /* address, or path of a socket; empty: none */
    uint32_t port, db;
    uint32_t timeout_ms;
    /* first line: what lets us in; what values are sealed with. Absolute paths; empty: none */
    char password_file[TR_COMPANY_PATH_MAX], secret_file[TR_COMPANY_PATH_MAX];
} tr_company_store;

/* How long silence is borne. */
typedef struct tr_company_lease {
    uint32_t actor_ms; /* of an actor that has work */
    uint32_t link_ms;  /* of another node, before the link to it counts as broken */
    uint32_t away_s;   /* of a broken link, before the company ends */
} tr_company_lease;

/* One machine of the company. Node 0 is the head: frontend and scheduler run there, the others connect to it. */
typedef struct tr_company_node {
    char name[TR_COMPANY_NODE_NAME_BYTES];
    uint32_t supervisor; /* actor index */
    uint32_t agent;      /* actor index of its node actor; TR_NOBODY in a company of one node */
} tr_company_node;

typedef struct tr_company {
    uint32_t magic, version;
    uint64_t id;   /* random, of this start */
    char name[64]; /* --name */
    char model_path[TR_COMPANY_PATH_MAX];
    char model_name[256]; /* served name */
    /* packed tables of the tokenizer; empty: they are made from the model file */
    char vocabulary_path[TR_COMPANY_PATH_MAX];
    char runtime_dir[TR_COMPANY_PATH_MAX];
    char save_dir[TR_COMPANY_PATH_MAX];                     /* folder of saved sequences, absolute; empty: none */
    char swap_file[TR_COMPANY_PATH_MAX];                    /* of the swap space, absolute; empty: in memory */
    char endpoint[TR_COMPANY_PATH_MAX];                     /* ZeroMQ endpoint of the frontend */
    char image_path[TR_PRECISION_END][TR_COMPANY_PATH_MAX]; /* index: precision of the image; empty: not needed */
    int32_t image_fd[TR_PRECISION_END];                     /* or a descriptor (cache could not be written); -1: none */
    char kv_calibration[TR_COMPANY_PATH_MAX]; /* file of the calibrated KV formats; empty: none is in use */
    uint32_t kv_calibration_crc;
    char ops[16];           /* kernel set, tr_ops_find */
    uint32_t transport_zmq; /* 1: transport.local: zmq */
    uint32_t unified, exclusive, one_pool;
    uint32_t prefix_cache, one_path, watermark, promise_tok, policy, fair; /* as in tr_scheduler_config */
    uint64_t slo_ns, swap_bytes;
    tr_company_lease lease;
    tr_siphash_key prefix_key; /* random, of this start */
    uint32_t context, chunk, max_rows, max_batch, max_waiting, n_slots;
    uint32_t max_in_flight[2];
    uint32_t vocab, hidden, instruct;
    uint32_t n_eos, eos[16];
    uint64_t model_hash;
    tr_kv_layout layout[2];                     /* prefill pool, decode pool */
    uint64_t table_offset[2], bitmap_offset[2]; /* inside TR_SEGMENT_TABLES */
    uint32_t n_actors, n_links;
    uint32_t frontend, scheduler;
    uint32_t resharder, resharder_to; /* reads the prefill pool, writes the decode pool: one actor where one node has
                                         both; TR_NOBODY: one pool, no files */
    uint32_t store_actor;             /* on the head; TR_NOBODY: there is none */
    tr_company_store store;
    uint32_t n_nodes, self;             /* self: the node that this copy of the plan is for */
    uint32_t pool_node[2];              /* where the pool of each phase lies */
    uint64_t plan_hash;                 /* of all that every node computes alike */
    char node_endpoint[256];            /* where the head listens for the other nodes */
    char keys_dir[TR_COMPANY_PATH_MAX]; /* of this node; empty: loopback without keys */
    tr_company_node node[TR_COMPANY_NODES_MAX];
    char http_host[64]; /* of the gateway, where there is one */
    uint32_t http_port; /* 0: any free one */
    char api_key_file[TR_COMPANY_PATH_MAX];
    tr_company_actor actor[TR_COMPANY_ACTORS_MAX];
    tr_company_link link[TR_COMPANY_LINKS_MAX];
    tr_company_segment segment[TR_SEGMENT_COUNT];
} tr_company;

/* Link of that kind between two actors, or NULL. */
const tr_company_link *tr_company_find_link(const tr_company *c, tr_link_kind kind, uint32_t from, uint32_t to);
const tr_company_actor *tr_company_find_actor(const tr_company *c, const char *name);
static inline bool tr_company_is_local(const tr_company *c, uint32_t actor) { return c->actor[actor].node == c->self; }
/* Actor whose bell wakes the other end of a link here: the peer itself, or the agent that carries the link away. */
uint32_t tr_company_bell_of(const tr_company *c, uint32_t peer);
/* Bytes of a segment on this node: pools and the journal lie where they are used. */
uint64_t tr_company_segment_bytes(const tr_company *c, uint32_t segment);
/* Of these, what has memory behind it. */
uint64_t tr_company_segment_memory(const tr_company *c, uint32_t segment);
/* Does a pool have a calibrated format? */
bool tr_company_calibrated(const tr_company *c);
/* The calibration that the plan names, NULL where none is in use. TR_DATA: another file lies there by now. */
tr_status tr_company_calibration(const tr_company *c, tr_kv_calibration **out, tr_error *err);
#endif
