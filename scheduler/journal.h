/* scheduler/journal.h - every accepted request, in memory of the supervisor: what a new scheduler or frontend starts
 * from. An entry is a sequence slot: its index is the row of both page tables. Layout: tr_journal, then n_slots entries
 * of entry_bytes, each followed by u32 tokens[context] and the log-probabilities of its last tokens. Writer: the
 * scheduler alone; for every change the parts first, then the word that makes them count (state, n_tokens, kv_*) with
 * release order. Readers (frontend, status; a last stage: tokens and what edits the logits) load that word with
 * acquire. A writer that dies in between leaves the old truth. Invariants: I1 kv_* never exceed what was computed and
 * confirmed, and fall only with a preemption (evictions odd: to 0, and the pages are given back); I2
 * tokens[0..n_tokens) never change once published; I3 an entry is FREE only when no page and no step of it is left; I4
 * n samples of one prompt are n entries, accepted together: the rid of each is rid + sample.
 */
#ifndef TR_JOURNAL_H
#define TR_JOURNAL_H
#include "base/ledger.h"
#include "base/status.h"
#include "transport/schema.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum tr_journal_state {
    TR_JOURNAL_FREE = 0,
    TR_JOURNAL_OPEN = 1, /* accepted, not ended */
    TR_JOURNAL_DONE = 2  /* finish is set; waits for RELEASE by the frontend */
} tr_journal_state;

typedef enum tr_journal_file {
    TR_JOURNAL_FILE_OPEN = 0, /* not asked for, or still to be done */
    TR_JOURNAL_FILE_FAILED = 1,
    TR_JOURNAL_FILE_DONE = 2
} tr_journal_file;

typedef enum tr_journal_swap {
    TR_JOURNAL_SWAP_NONE = 0,
    TR_JOURNAL_SWAP_WRITING = 1, /* the image may be in the making */
    TR_JOURNAL_SWAP_OUT = 2,     /* it is whole; it counts when kv_prefilled is 0 */
    TR_JOURNAL_SWAP_BACK = 3     /* its positions are in the decode pool again; kv_* follow */
} tr_journal_swap;

typedef struct tr_journal_entry {
    _Alignas(64) _Atomic uint32_t state;
    _Atomic uint32_t n_tokens;     /* prompt and generated */
    _Atomic uint32_t kv_prefilled; /* positions [0, n) computed by the prefill path */
    _Atomic uint32_t kv_moved;     /* positions [0, n) handed over to the decode pool */
    _Atomic uint32_t kv_decoded;   /* positions [0, n) present for decode: moved ones and decoded ones */
    _Atomic uint32_t evictions;    /* twice the preemptions; odd: one is under way, kv_* and pages count for nothing */
    uint32_t
        deaths; /* counted deaths with this request in flight; forgotten when what was in flight then is confirmed: */
    uint32_t suspect_compute, suspect_move; /* positions computed / moved up to here clear it; 0: not under suspicion */
    uint64_t rid, id;
    uint32_t client_len, prompt_len, forced, max_tokens, top_k, ignore_eos, logits, n_stops;
    int32_t priority; /* the smaller comes first */
    float temperature, top_p, min_p;
    uint64_t seed;
    float presence_penalty, frequency_penalty, repetition_penalty; /* repetition: 1 is off */
    uint32_t min_tokens, n_bias, n_stop_tokens;
    uint32_t include_stop, show_special; /* of the frontend */
    uint32_t logprobs;                   /* entries for each token */
    uint32_t bias_token[TR_MAX_BIAS], stop_token[TR_MAX_STOP_TOKENS];
    float bias[TR_MAX_BIAS];
    /* Prompt positions that were there at admission: [0, start[0]) not computed, [0, start[1]) not moved. Written
     * before the table entries; the admission counts when kv_prefilled reaches start[0]. */
    _Atomic uint32_t start[2];
    uint32_t cached;            /* prompt tokens that came from the prefix cache */
    uint32_t sample, n_samples; /* of n of one prompt; sample 0 leads, it is the one that is prefilled */
    _Atomic uint32_t whole;     /* sample > 0: all samples were accepted, the leader last */
    _Atomic uint32_t fork;      /* 1 + slot of the leader whose last page is to be copied with the first decode step */
    uint64_t tenant[2];         /* whose cached prefixes it may use */
    uint8_t store_tenant[32];   /* the same for every company: tr_kv_block_tenant */
    /* Pages are held for a prefix that the store lays down, and hold nothing before kv_prefilled reaches this. */
    _Atomic uint32_t fetch_end;
    uint32_t finish, code;
    uint32_t kept;  /* with DONE: generated tokens that count; n_tokens is cut to prompt_len + kept right after DONE */
    uint64_t order; /* of arrival */
    uint64_t deadline_ns; /* it ends then at the latest, with an error; 0: none */
    uint64_t accepted_ns, first_step_ns, first_token_ns, last_token_ns, handoff_ns, handoff_bytes;
    uint64_t prefilled_ns, visible_ns; /* end of the prefill; from there to the end of the hand-off */
    /* saved sequences: names in the company's folder; restored: restore_end positions are there, kv_* follow */
    char save[TR_MAX_FILE_NAME_BYTES + 1], restore[TR_MAX_FILE_NAME_BYTES + 1], note[TR_MAX_NOTE_BYTES + 1];
    uint32_t restore_end, file_tries;
    _Atomic uint32_t saved, restored; /* tr_journal_file */
    uint64_t saved_bytes;
    _Atomic uint32_t swap;          /* tr_journal_swap; where it is not NONE the next ones say what lies: */
    uint32_t swap_end, swap_min[2]; /* positions [swap_min of the group, swap_end) of the decode pool */
    uint32_t swap_n, swap_tries;    /* images so far; failures */
    uint64_t swap_at, swap_bytes;   /* in the swap space */
    uint8_t client[TR_MAX_CLIENT_ID_BYTES + 1];
    uint16_t stop_len[TR_MAX_STOPS];
    char stop[TR_MAX_STOPS][TR_MAX_STOP_BYTES];
    char error[TR_MAX_ERROR_BYTES];
    uint32_t tokens[]; /* [context] */
} tr_journal_entry;

/* What became of the store, since the start. */
typedef struct tr_journal_store {
    _Atomic uint32_t up;                       /* the server answers */
    _Atomic uint64_t asked, hits, hit_tokens;  /* requests; prompt tokens */
    _Atomic uint64_t stored, stored_bytes;     /* blocks */
    _Atomic uint64_t refused, failed, dropped; /* as in STORE_STATE */
} tr_journal_store;

typedef struct tr_journal {
    _Alignas(64) uint32_t n_slots, context;
    uint64_t entry_bytes;
    _Atomic uint32_t epoch;     /* of pipelines and resharder together: raised at every reset, survives the scheduler */
    _Atomic uint32_t cached[2]; /* pages of each pool that nobody holds and in which a prefix is known */
    /* Pages of each pool that are held although their request has ended, or whose content nobody knows: until what
     * could still touch them is confirmed. A page of several such sequences counts for each. */
    _Atomic uint32_t quarantined[2];
    _Atomic uint32_t waits[2]; /* by pipeline: tr_ledger_kind that the waiting of its stages counts as */
    _Atomic uint64_t prefix_hits, prefix_hit_tokens, prefix_query_tokens; /* requests, tokens; since the start */
    _Atomic uint64_t preemptions, preempted_tokens; /* positions that are computed again, or that prefixes still hold */
    _Atomic uint64_t mixed_steps, slices;           /* steps with rows of both phases; parts in which steps went */
    _Atomic uint64_t swapped_out, swapped_in, swaps_lost, swap_used; /* images; those that did not come back; bytes */
    tr_journal_store store;
} tr_journal;

/* Log-probabilities of generated token i: [e->logprobs] ids, and as many values TR_MAX_LOGPROB_ENTRIES behind. Those of
 * the last TR_MAX_LOGPROB_TOKENS are there. */
static inline uint32_t *tr_journal_logprobs(const tr_journal *j, tr_journal_entry *e, uint32_t i) {
    return e->tokens + j->context + (size_t)(i % TR_MAX_LOGPROB_TOKENS) * e->logprobs;
}
/* Something changes the logits from which the token at `position` is drawn. */
bool tr_journal_edits(const tr_journal_entry *e, uint32_t position);
/* Views of generated tokens [from, end) with what is known of their log-probabilities. Returns the end: less than the
 * one that was asked for where log-probabilities do not lie in one piece; go on from there. */
uint32_t tr_journal_view(const tr_journal *j, tr_journal_entry *e, uint32_t from, uint32_t end, tr_msg_output *m);

uint64_t tr_journal_bytes(uint32_t n_slots, uint32_t context);           /* 0 on overflow */
void tr_journal_init(tr_journal *j, uint32_t n_slots, uint32_t context); /* memory is zero */
/* Holds a request: others than the scheduler look at nothing else. */
static inline bool tr_journal_counts(tr_journal_entry *e) {
    return atomic_load_explicit(&e->state, memory_order_acquire) != TR_JOURNAL_FREE &&
           (e->sample == 0 || atomic_load_explicit(&e->whole, memory_order_acquire));
}
static inline tr_journal_entry *tr_journal_at(tr_journal *j, uint32_t slot) {
    return (tr_journal_entry *)((char *)(j + 1) + (uint64_t)slot * j->entry_bytes);
}
#endif
