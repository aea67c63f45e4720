/* scheduler/reuse.h - what a sequence shares with others: cached prefixes, and pages of the sample that leads; private
 * to scheduler/. */
#ifndef TR_REUSE_H
#define TR_REUSE_H
#include "scheduler/scheduler_state.h"

/* reuse.c */
typedef struct tr_reuse {
    uint32_t start[2]; /* positions that need not be computed, or moved */
    uint32_t pages[2]; /* the same in pages of the pool */
    uint64_t node[2];
    uint32_t leader;                 /* slot; NO_SLOT: the pages come from the cache */
    tr_kv_budget_need known, parked; /* pages that come with it; of those the ones that nobody holds now */
} tr_reuse;
/* Its prompt may begin with what was computed for another: false where every position is to be told. */
bool tr_reuse_allowed(const tr_scheduler *s, uint32_t slot);
/* What the pools know of the prompt. Valid until the next page is taken. */
void tr_reuse_find(tr_scheduler *s, uint32_t slot, tr_reuse *r);
/* It becomes the beginning of the sequence. */
void tr_reuse_take(tr_scheduler *s, uint32_t slot, const tr_reuse *r);
/* What is confirmed of the sequence can be found from now on. */
void tr_reuse_learn(tr_scheduler *s, uint32_t slot);
/* Positions [0, n) of the pool are complete and may be known. */
uint32_t tr_reuse_complete(const tr_scheduler *s, uint32_t slot, uint32_t p);

/* A token that was drawn, with log-probabilities where its request asks for them. */
typedef struct tr_progress_token {
    uint32_t id;
    const uint32_t *logprob_ids; /* [logprobs of the request] */
    const float *logprobs;
} tr_progress_token;
/* Append it. The end token and stop tokens end the request and are no output tokens. False: the request has ended. */
bool tr_progress_append(tr_scheduler *s, uint32_t slot, uint32_t position, const tr_progress_token *token);

/* sample.c */
uint32_t tr_sample_leader(const tr_scheduler *s, uint32_t slot);             /* slot, NO_SLOT: none, or itself */
uint32_t tr_sample_find(const tr_scheduler *s, uint32_t leader, uint32_t k); /* slot of sample k, or NO_SLOT */
/* Its leader is still about to do what it need not do itself. */
bool tr_sample_waits(const tr_scheduler *s, uint32_t slot);
/* What it shares with its leader; false: nothing, it goes its own way. */
bool tr_sample_find_fork(tr_scheduler *s, uint32_t slot, tr_reuse *r);
void tr_sample_share(tr_scheduler *s, uint32_t slot, const tr_reuse *r);
/* Copies that its first decode step carries: entries added to copies. */
uint32_t tr_sample_copies(const tr_scheduler *s, uint32_t slot, uint32_t *copies);
void tr_sample_copied(tr_scheduler *s, uint32_t slot);
/* A page of it is still to be copied: it gives nothing back. */
bool tr_sample_is_source(const tr_scheduler *s, uint32_t slot);
/* Tokens that a span of the leader drew, one a sample. */
void tr_sample_drawn(tr_scheduler *s, uint32_t leader, uint32_t position, const tr_progress_token *tokens);
/* What cannot be computed for the leader cannot be for those that wait for it. */
void tr_sample_failed(tr_scheduler *s, uint32_t leader);
#endif
