/* tests/sim/sim.h - the whole company in one thread on virtual time, driven by one seed.
 * Real: the cores of scheduler, stages, resharder and supervisor, journal, page tables, bitmaps, reshard plan, codec.
 * Modelled: processes, links, clocks, the frontend with its clients, and the network itself: a KV cell and an
 * activation are hashes of everything they depend on (sim_model.c), so that a lost, doubled, stale or mis-moved datum
 * changes text. sim_config.c draws topology, knobs and faults · sim_world.c time, processes, links · sim_driver.c what
 * a real driver does around each core · sim_ranks.c tensor parallel ranks · sim_frontend.c requests and clients ·
 * sim_nodes.c a connection between two nodes · sim_store.c a store of prefixes outside · sim_faults.c faults aimed at
 * states of requests · sim_model.c network and oracle · sim_check.c invariants. */
#ifndef SIM_H
#define SIM_H
#include "actors/resharder/resharder_core.h"
#include "actors/stage/follower_core.h"
#include "actors/stage/stage_core.h"
#include "actors/store/store_core.h"
#include "actors/supervisor/supervisor_core.h"
#include "base/rng.h"
#include "kv/kv_pool.h"
#include "kv/reshard_plan.h"
#include "scheduler/scheduler.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    FRONTEND = 0,
    SCHEDULER = 1,
    RESHARDER_ACTOR = 2,
    FIRST_STAGE = 3,
    MAX_STAGES = 8, /* their ranks 0 come first, in order; then all other ranks */
    MAX_FOLLOWERS = 8,
    MAX_ACTORS = FIRST_STAGE + MAX_STAGES + MAX_FOLLOWERS + 1, /* the store is the last one, where there is one */
    SUPERVISOR = MAX_ACTORS,                                   /* pseudo actor of events */
    CLIENTS = MAX_ACTORS + 1,
    MAX_REQUESTS = 24,
    MAX_CONTEXT = 208,
    MAX_LAYERS = 8,
    MAX_HEADS = 2,
    MAX_LINK = 512,
    MAX_RECORDS = 16, /* of a channel; activations: at most MAX_ACTIVATIONS */
    MAX_ACTIVATIONS = 4,
    MAX_EVENTS = 1 << 14,
    MAX_EVICTIONS = 30 /* of one request; more of them look like two that take turns for ever */
};
#define US 1000ull
#define MS 1000000ull
#define S  1000000000ull

typedef enum fault {
    CRASH_STAGE = 1,
    CRASH_RESHARDER = 2,
    CRASH_SCHEDULER = 4,
    CRASH_FRONTEND = 8,
    CRASH_IN_EFFECTS = 16, /* only a prefix of the effects of a step happens */
    CRASH_IN_STEP = 32,    /* the scheduler dies between two writes to shared memory */
    DUPLICATE = 64,
    SLOW = 128,
    POISON = 256, /* a request that kills the stage that computes it */
    COUNTED = 512,
    BAD_REQUEST = 1024, /* a request that a stage reports as failed */
    HANG = 2048,
    CANCELS = 4096,
    STRAGGLER = 8192, /* STEP_DONE and the like come very late now and then */
    FAULTS_END = 16384
} fault;

typedef struct request {
    uint64_t rid;
    uint32_t n_prompt, forced, max_tokens, ignore_eos, logits;
    uint32_t prompt[MAX_CONTEXT];
    char salt[4]; /* of its tenant */
    uint64_t seed;
    int32_t priority;
    bool save;        /* to a file of its own */
    uint32_t restore; /* 1 + index of the request whose file it restores; 0: none */
    uint32_t restore_end;
    uint32_t n, sample, lead;      /* samples of the prompt; which one; request that leads them */
    uint32_t stop_at;              /* the frontend finds a stop text after this many tokens; 0: never */
    uint64_t submit_ns, cancel_ns; /* 0: no cancel */
    uint32_t timeout_ms;           /* 0: none */
    bool poison, bad;
    bool gone;      /* its client is dead, and cancelled only in so far as the frontend will find that out */
    uint32_t kills; /* stages that it killed */
    uint32_t seen_tokens, seen_prefilled, seen_moved, seen_decoded; /* of its open entry; they only rise, */
    uint32_t seen_evictions;                                        /* but with one of these */
    uint32_t fault_pos;                                             /* position that is poison or bad */
    /* what a client sees */
    bool submitted, cancelled, ended, accepted;
    uint32_t finish, code, n_got, end_incarnation;
    uint32_t got[MAX_CONTEXT];
    char error[128];
    /* what it should see */
    uint32_t n_oracle, oracle_finish;
    uint32_t oracle[MAX_CONTEXT];
} request;

/* A saved sequence: cells as they lay in the pool. */
typedef struct saved {
    uint32_t n_tokens, n_prefill, n_kv, pool, tok_min[TR_KV_GROUPS_MAX];
    uint32_t token[MAX_CONTEXT];
    uint64_t cell[MAX_LAYERS][MAX_HEADS][MAX_CONTEXT];
} saved;

/* What the store has: 16 positions of a group, behind the same tokens of the same tenant. */
typedef struct block {
    struct block *next;
    uint8_t tenant[32];
    uint32_t group, end;
    uint32_t token[MAX_CONTEXT];
    uint64_t cell[MAX_LAYERS][MAX_HEADS][TR_KV_TILE_TOK];
} block;

typedef struct message {
    uint64_t at;
    uint32_t len;
    uint8_t *data;
} message;
typedef struct link { /* control, from one actor to another */
    message queue[MAX_LINK];
    uint32_t head, n;
    uint64_t last_at;
} link_t;

typedef struct record {
    tr_wire_header header;
    uint64_t at;
    uint64_t act[MAX_CONTEXT * 4];
} record;
typedef struct channel { /* activations, to stage i from the one before it; to a first stage tokens from the last */
    record queue[MAX_RECORDS];
    uint32_t head, n, cap;
    uint64_t last_at;
} channel;

/* Pages that a running computation may read or write; while it runs they belong to its sequence. */
enum { MAX_TOUCHED = 2048 };
typedef struct touched {
    uint32_t pool, slot, entry, page; /* entry: index of the page table */
    uint64_t rid;
} touched;

typedef enum process_state { GONE, STARTING, ALIVE } process_state;
typedef struct process {
    process_state state;
    bool ready, busy, hung, dies_in_effects;
    uint32_t incarnation;
    uint64_t progress, life; /* life: number of starts, tells old events from new */
    uint32_t seen_incarnation[MAX_ACTORS], seen_up[MAX_ACTORS], seen_counted[MAX_ACTORS];
    uint64_t timer; /* number of the timer that counts */
    void *core;
    /* computation in progress */
    uint32_t positions; /* of a job of the store */
    bool computing, file_failed, done_early, input_announced, room_announced;
    uint64_t compute_no;
    tr_msg compute;
    uint32_t status;
    uint32_t n_touched;
    touched touched[MAX_TOUCHED];
    uint32_t sampled[TR_MAX_SPANS];
    record out;
    uint64_t carried[MAX_CONTEXT * 4]; /* what a slice left for the next one */
    /* ranks: present as the supervisor knows; aborted is the word that all ranks of a stage see, kept at its rank 0 and
     * outliving it */
    bool present, in_run, aborted;
    tr_msg_step run;
    tr_msg_span run_spans[TR_MAX_SPANS];
} process;

typedef enum what {
    W_MESSAGE,
    W_RECORD,
    W_ROOM,
    W_START,
    W_READY,
    W_OBSERVE,
    W_COMPUTED,
    W_LAYERS,
    W_TIMER,
    W_CHILD_EXIT,
    W_CHILD_STATE,
    W_SUBMIT,
    W_CANCEL,
    W_CHAOS,
    W_SIGNAL,
    W_ABORT,
    W_CUT,
    W_CUT_SEEN,
    W_CUT_END,
    W_CLIENT_DIES,
    W_SILENCE,
    W_STRIKE
} what;
typedef struct event {
    uint64_t at, seq;
    what kind;
    uint32_t actor, other;
    uint64_t life, arg;
} event;

typedef struct published {
    uint32_t incarnation, up, counted;
} published;

/* What a fault may find a request in, and kinds of faults. */
typedef enum sim_state {
    SIM_AWAY,
    SIM_ON_ITS_WAY,
    SIM_WAITING,
    SIM_FORKED,
    SIM_RESTORING,
    SIM_IN_RESET,
    SIM_PREFILL,
    SIM_HANDOFF,
    SIM_DECODE,
    SIM_SAVING,
    SIM_NOT_TOLD,
    SIM_FETCHING,  /* from the store, where there is one */
    SIM_PREEMPTED, /* in tight pools */
    SIM_SWAPPING,  /* with a swap space: on the way there or back */
    SIM_STATES
} sim_state;
typedef enum sim_kind {
    SIM_ABORT,
    SIM_CLIENT,
    SIM_TIMEOUT,
    SIM_STAGE,
    SIM_RANK,
    SIM_RESHARDER,
    SIM_SCHEDULER,
    SIM_IN_STEP,
    SIM_FRONTEND,
    SIM_EFFECTS,
    SIM_CRASHED,
    SIM_HUNG,
    SIM_CUT,
    SIM_STORE,
    SIM_KINDS
} sim_kind;
typedef struct sim_table {
    uint64_t faults, cell[SIM_STATES][SIM_KINDS];
} sim_table;
enum { SIM_AIMS = 6 };
typedef struct sim_aim { /* strikes at the first request in that state after `skip` looks that found one */
    uint32_t state, kind, skip;
    bool struck;
} sim_aim;

typedef enum cut { CUT_NONE, CUT_UNSEEN, CUT_SEEN } cut;

typedef struct world {
    uint64_t seed, now, seq, n_events, digest, faults_until, limit;
    tr_rng rng;
    uint32_t faults;                        /* kinds that are on */
    bool zmq, trace, stopped, quiet, ranks; /* ranks: stages of several */
    bool nodes, away[MAX_ACTORS];           /* nodes: those away are on another one */
    cut cut;                                /* of the connection to it */
    uint32_t outages;                       /* breaks that are over */
    bool store;                             /* there is one outside; its actor is store_actor */
    uint32_t store_actor;
    uint32_t store_down, store_loses; /* of its server: per mille of what is asked, of what is put */
    block *block;
    uint32_t crash_odds; /* mean microseconds between kills */
    uint32_t counted_left, chaos_counted, counted_deaths, poison_deaths;
    uint64_t delay_max, compute_max;
    uint32_t slow_actor, slow_factor; /* one actor may be slower than the others all the time */
    /* topology */
    tr_kv_model model;
    uint32_t n_actors, n_stages[2], n_pipelines, lo[MAX_ACTORS], hi[MAX_ACTORS], pipeline_of[MAX_ACTORS];
    uint32_t split[2][MAX_STAGES + 2];
    uint32_t first_follower, lead_of[MAX_ACTORS]; /* rank 0 of an actor's stage */
    tr_scheduler_config scheduler;
    uint32_t queue_depth[2];
    /* shared memory */
    void *journal_mem;
    uint32_t *table[2];
    _Atomic uint64_t *bitmap[2];
    uint64_t *cells[2];
    size_t n_cells[2];
    /* actors */
    process process[MAX_ACTORS];
    published published[MAX_ACTORS];
    tr_supervisor_core supervisor;
    uint64_t supervisor_timer;
    link_t *link[MAX_ACTORS][MAX_ACTORS];
    channel *channel[MAX_ACTORS];
    event *heap;
    uint32_t n_heap;
    tr_effects *fx;
    /* clients and the volatile state of the frontend */
    request request[MAX_REQUESTS];
    saved *file[MAX_REQUESTS]; /* by the request that saved it */
    uint8_t *swap;             /* NULL: no swap space */
    tr_rng swap_rng;
    bool swap_cheap;
    uint32_t n_requests;
    struct {
        bool known, accepted, cancel_sent;
        uint32_t got;
        uint32_t cancel_finish, cancel_keep;
    } front[MAX_REQUESTS];
    /* crash inside a step of the scheduler */
    jmp_buf crash_env;
    int64_t crash_countdown; /* < 0: off */
    bool in_step;            /* the scheduler dies there */
    bool aimed;              /* this family of seeds aims faults at states */
    bool tight;              /* and this one has small pools, and promises no more than prompts */
    tr_rng aim_rng;
    sim_aim aim[SIM_AIMS];
    sim_table hits;
    uint64_t total_steps, total_replays, total_deaths, total_hits, total_hit_tokens, total_copies, total_fetched,
        total_stored, total_preemptions, total_preempted_tokens, total_swapped_out, total_swapped_in;
} world;

_Noreturn void sim_fail(world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sim_trace(world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* sim_config.c */
void sim_config(world *w);

/* sim_world.c */
uint64_t sim_random(world *w, uint64_t n); /* [0, n) */
bool sim_chance(world *w, uint32_t per_mille);
void sim_push(world *w, uint64_t delay, what kind, uint32_t actor, uint32_t other, uint64_t arg);
uint64_t sim_delay(world *w);
void sim_send(world *w, uint32_t from, uint32_t to, const tr_msg *msg);
void sim_kill(world *w, uint32_t actor, int signal, bool ours);
void sim_publish_state(world *w, uint32_t actor);
bool sim_faults_on(const world *w, fault f);
bool sim_run(world *w); /* until everything has ended and is quiet; false never: sim_fail leaves */

/* sim_driver.c */
void sim_driver_start(world *w, uint32_t actor);
void sim_driver_event(world *w, uint32_t actor, tr_event *ev);
void sim_driver_layers(world *w, uint32_t actor, uint64_t compute_no);
void sim_driver_computed(world *w, uint32_t actor, uint64_t compute_no);
void sim_driver_poll_channels(world *w, uint32_t actor);
void sim_driver_supervisor(world *w, tr_event *ev);
void sim_driver_partial(world *w, uint32_t actor); /* it dies while it computes: some of the writes happened */
void sim_crash_point(void);

/* sim_nodes.c */
void sim_nodes_config(world *w);
bool sim_nodes_cross(const world *w, uint32_t a, uint32_t b);
published sim_nodes_view(const world *w, uint32_t actor, uint32_t peer); /* as an actor's control block says it */
void sim_nodes_cut(world *w);
void sim_nodes_seen(world *w);
void sim_nodes_end(world *w);

/* sim_store.c */
void sim_store_config(world *w);
void sim_store_fill(world *w); /* the requests are known */
void sim_store_run(world *w, uint32_t actor, uint64_t max_cells);
void sim_store_free(world *w);

/* sim_faults.c */
void sim_faults_config(world *w);
void sim_faults_count(world *w, sim_kind kind); /* it strikes now */
void sim_faults_client(world *w, uint32_t i, bool received);
void sim_faults_timeouts(world *w);
void sim_faults_look(world *w);
void sim_faults_strike(world *w, uint32_t i, sim_kind kind);
void sim_faults_add(sim_table *sum, const sim_table *t);
/* Cells that are empty. */
uint32_t sim_faults_print(const sim_table *t, bool ranks, bool nodes, bool store, bool tight);

/* sim_ranks.c */
bool sim_ranks_begin(world *w, uint32_t lead, const tr_msg_step *m); /* false: a rank is missing, W_ABORT will come */
bool sim_ranks_whole(const world *w, uint32_t lead);                 /* every rank is still in the run that began */
void sim_ranks_end(world *w, uint32_t lead);
void sim_ranks_died(world *w, uint32_t actor);
void sim_ranks_leave(world *w, uint32_t actor);
void sim_ranks_abort(world *w, uint32_t actor);
void sim_ranks_quiet(world *w, uint32_t actor); /* tells a follower's core that it is in no run, if so */

/* sim_frontend.c */
uint32_t sim_request(const world *w, uint64_t rid); /* index; UINT32_MAX: none */
void sim_frontend_event(world *w, const tr_event *ev);
void sim_frontend_start(world *w);
void sim_frontend_submit(world *w, uint32_t i);
void sim_frontend_cancel(world *w, uint32_t i);
void sim_frontend_client_dies(world *w, uint32_t i);
void sim_frontend_silence(world *w, uint32_t i); /* the frontend takes that client for dead */

/* sim_model.c */
/* What the prefill path computes for a prompt: positions [0, n) of kv. */
void sim_model_prefill(const world *w, const uint32_t *token, uint32_t n, uint64_t (*kv)[MAX_HEADS][MAX_CONTEXT]);
uint64_t *sim_model_cell(world *w, uint32_t pool, uint32_t slot, uint32_t layer, uint32_t head, uint32_t pos);
void sim_model_oracle(world *w, request *r);
void sim_model_step(world *w, uint32_t actor, const tr_msg_step *step, const uint64_t *in, uint64_t *out,
                    uint32_t *sampled, uint32_t max_rows);
void sim_model_garble(world *w, uint32_t actor, const tr_msg_step *step, uint32_t max_rows);
bool sim_model_file(world *w, const tr_msg_reshard *job, uint64_t max_cells); /* false: it cannot be used */
uint64_t sim_model_reshard(world *w, const tr_msg_reshard *job, uint64_t max_ops);

/* sim_swap.c */
void sim_swap_config(world *w);
void sim_swap_free(world *w);
bool sim_swap_run(world *w, const tr_msg_reshard *job, uint64_t max_cells); /* false: it failed */
uint64_t sim_swap_moved(const world *w, const tr_msg_reshard *job);         /* bytes that its answer names */
void sim_swap_check(world *w);

/* sim_check.c */
void sim_check_pages(world *w);
void sim_check_begin(world *w, uint32_t actor); /* notes what its computation touches */
void sim_check_flight(world *w);                /* none of it was given back or to another */
void sim_check_journal(world *w, bool whole_step);
void sim_check_end(world *w);
void sim_check_client_end(world *w, const request *r);
#endif
