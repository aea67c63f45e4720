/* scheduler/scheduler.h - the policy of the company as a pure core: queues, admission, chunks, slots, hand-off,
 * recovery. Sole writer of the journal, the page bitmaps and the page tables (all in memory of the supervisor, so a new
 * incarnation finds them); everything else it knows is rebuilt from them at START. In: SUBMIT, CANCEL, RELEASE, DRAIN
 * (frontend) · STEP_DONE, RESET_DONE (stages) · RESHARD_DONE, RESET_DONE (resharder) · PEER_UP / PEER_DOWN of all of
 * them. Out: ACCEPTED, OUTPUT (frontend) · STEP (rank 0 of every stage of a pipeline), RESET (every rank) · RESHARD,
 * RESET (resharder). Life of a sequence: waiting -> prefill (chunks) -> hand-off (RESHARD by chunk, may overlap
 * prefill) -> decode -> done -> free. prompt positions [0, prompt - forced) are prefilled; the forced tail and
 * generated tokens are decoded (known tokens several at once). Position p's token is tokens[p]; computing position p
 * yields the token p + 1, sampled when not known yet. Admission: pages for the whole prompt in the prefill pool, and
 * for it and promise_tok more tokens in the decode pool, are promised, all or nothing, in the order of policy.h; so a
 * hand-off never meets a full pool. The promise grows while the sequence decodes; where nothing is left, the last of
 * those that run gives way and is computed again (preempt.h, which says why everything ends). A request that could not
 * reach its end alone is refused at SUBMIT. Prefix cache (reuse.c): what the pools still hold of an earlier prompt with
 * the same beginning is neither computed nor moved again; kv_* of the journal begin there. Recovery: a stage dies ->
 * when it is up again RESET with a higher epoch to every stage of its pipeline; when all have answered, the steps in
 * flight are issued again. The scheduler itself restarts -> reset of everything first, bitmaps rebuilt from the tables
 * of open entries, then work goes on from the journal's kv_* counts. Pages are never reused while a step or job that
 * could still touch them is unconfirmed. Poison: a request in flight at two counted deaths of what computes it, with
 * what was in flight then not confirmed in between, ends with an error; until cleared it runs alone, so that the next
 * death names one. End token: ends the request with STOP and is no output token. A span that a stage reports as failed
 * ends its request alone; the pipeline is reset and the rest runs again. Contract of the frontend: every OUTPUT with
 * finish is answered by RELEASE (also for a rid that it does not know, and for a refusal); OUTPUT without finish of a
 * rid that it does not know by CANCEL; tokens below the index that it has are repeats; an OUTPUT whose index lies
 * beyond what it has was meant for its predecessor and is ignored (all is told again from 0 after PEER_UP). After
 * PEER_UP of the scheduler it repeats SUBMITs without ACCEPTED and CANCELs without end. Order and size of steps:
 * policy.h, by times that the events tell (cost.h); no clock. Cost of an event: O(running), of
 * one that lets somebody in also O(waiting) over a small array, and of one that lets sequences grow O(running) for each
 * of them; no scan of slots. */
#ifndef TR_SCHEDULER_H
#define TR_SCHEDULER_H
#include "base/siphash.h"
#include "base/status.h"
#include "kv/kv_layout.h"
#include "scheduler/journal.h"
#include "scheduler/policy.h"
#include "transport/event.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TR_SCHEDULER_STAGES_MAX = 64, TR_SCHEDULER_EOS_MAX = 16 };
#define TR_SCHEDULER_PROMISE_ALL UINT32_MAX
#define TR_SCHEDULER_PROMISE_TOK 32 /* what a company takes else */

typedef struct tr_scheduler_pipeline {
    uint32_t n_stages;
    uint32_t stage[TR_SCHEDULER_STAGES_MAX]; /* actor indices: rank 0 of each stage, first to last, then all others */
    uint32_t max_in_flight;                  /* micro-batches: stages that can really run at once */
    uint32_t n_ranks;                        /* entries of stage[]; 0: n_stages */
    bool feeds; /* its last stage feeds sampled tokens to the first: a decode step may be issued ahead of them */
} tr_scheduler_pipeline;

typedef struct tr_scheduler_config {
    uint32_t n_pipelines; /* 1: unified (both phases on pipeline 0), 2: 0 prefill, 1 decode */
    tr_scheduler_pipeline pipeline[2];
    uint32_t exclusive;           /* 1: the pipelines share cores, at most one step in flight over both */
    uint32_t frontend, resharder; /* actor indices */
    uint32_t resharder_to;        /* with two_resharders: the one that writes the decode pool, on another node */
    uint32_t two_resharders;
    tr_policy_id policy;
    uint64_t slo_ns;           /* wanted between two tokens of a stream; 0: see policy.c */
    uint32_t fair;             /* 1: clients are admitted by what they have had, not by arrival alone */
    uint32_t has_store, store; /* has_store 1: store is the actor of a store of prefixes outside of the company */
    uint32_t store_least;      /* it is asked where it could save that many prompt tokens or more */
    uint32_t chunk;            /* prompt tokens of one prefill step at most */
    uint32_t max_rows;         /* rows of any step at most (>= chunk) */
    uint32_t max_batch;        /* sequences of one decode step at most */
    uint32_t max_waiting;      /* SUBMITs beyond are refused (code 69) */
    uint32_t one_pool;         /* 1: prefill and decode use the same pool; hand-off is a change of owner */
    uint32_t prefix_cache;     /* 1: a prompt uses what earlier ones with the same beginning left in the pools */
    uint32_t one_path; /* 1: both phases have one precision: pages of generated tokens are such a beginning too */
    tr_siphash_key prefix_key; /* random, of this start of the company */
    uint32_t watermark;        /* per cent of the pages that stay unpromised while anything runs */
    uint32_t promise_tok;      /* an admission promises pages for so many tokens behind those that are known, 1 or more;
                                  TR_SCHEDULER_PROMISE_ALL: for max_tokens, so that nobody ever gives way */
    uint64_t swap_bytes;       /* of the swap space; 0: none */
    uint32_t context, vocab;
    uint32_t n_eos, eos[TR_SCHEDULER_EOS_MAX];
    tr_kv_layout layout[2]; /* 0 prefill pool, 1 decode pool (equal when one_pool) */
    /* memory of the supervisor, borrowed */
    tr_journal *journal;
    uint32_t *table[2];          /* tr_kv_layout.table_bytes each; same pointer when one_pool */
    _Atomic uint64_t *bitmap[2]; /* tr_kv_pool_bitmap_bytes(layout): who holds which pages */
} tr_scheduler_config;

typedef struct tr_scheduler tr_scheduler;
/* Bytes of state; the caller gives zeroed memory of that size (64-byte aligned). 0: configuration out of bounds. */
size_t tr_scheduler_bytes(const tr_scheduler_config *config);
tr_status tr_scheduler_init(tr_scheduler *s, const tr_scheduler_config *config);
/* One event in, effects out (fx->n is reset first). A message that makes no sense here is counted and ignored. */
void tr_scheduler_step(tr_scheduler *s, const tr_event *event, tr_effects *fx);

typedef struct tr_scheduler_stats {
    uint32_t running, waiting, draining;  /* draining: 1 after DRAIN or STOP */
    uint32_t pool_pages[2], pool_free[2]; /* over all groups */
    uint32_t pool_cached[2];              /* of the free ones, those in which a prefix is known */
    uint32_t pool_quarantined[2];         /* as in the journal */
    uint64_t prefix_hits, prefix_hit_tokens, prefix_query_tokens; /* requests; prompt tokens */
    uint64_t preemptions, preempted_tokens, swapped_out, swapped_in, swaps_lost;
    uint64_t steps[2], rows[2], handoffs, handoff_bytes, handoff_ns, replays, protocol_errors, finished, failed;
} tr_scheduler_stats;
void tr_scheduler_get_stats(const tr_scheduler *s, tr_scheduler_stats *out);
/* True when nothing is open, waiting or in flight (drain is complete). */
bool tr_scheduler_idle(const tr_scheduler *s);
/* Canonical hash of the state, for replay checks in the simulator. */
uint64_t tr_scheduler_digest(const tr_scheduler *s);
#endif
