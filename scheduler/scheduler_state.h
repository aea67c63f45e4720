/* scheduler/scheduler_state.h - private state of the scheduler, shared by its files only.
 * scheduler.c   init, dispatch of events, output, stats      intake.c    SUBMIT, CANCEL, RELEASE, admission
 * batcher.c     what runs next: chunks and decode batches    progress.c  STEP_DONE, RESHARD_DONE, end of a request
 * pace.c        how long a step may be, what steps took      order.c     who comes first      keep.c  files
 * waits.c       why stages have nothing to do
 * handoff.c     RESHARD jobs, by the table of transfer.h     recovery.c  peers, resets, poison, own restart
 * reuse.c       cached prefixes: what an admission finds, what a confirmation makes known; stored.c: those of a store
 * preempt.c     promises that grow while a sequence decodes, and who gives way when there is nothing left to promise
 * sample.c      n samples of one prompt: the leader is prefilled and draws n tokens, the others fork off its pages
 * Everything is level-triggered: an event changes state, then tr_batcher_pump and the flush of outputs do what the
 * state allows. So a lost moment (no room for effects, a peer away) is made up for at the next event.
 *
 * A component is what is reset as one: a pipeline, the resharder, or the store. Its epoch lives from one reset to the
 * next. I1: issued[phase] >= confirmed (journal). I2: a sequence holds at most what it needs (need). I3: pages are
 * given back only when nothing can touch them: steps == 0, no pipeline and no store unsettled for it (an earlier
 * scheduler's work may still run there), no store job out, transfer at rest (transfer.h); until then they are in
 * quarantine. Except pages behind the window and behind what was moved, which nothing unconfirmed can touch. */
#ifndef TR_SCHEDULER_STATE_H
#define TR_SCHEDULER_STATE_H
#include "kv/crash_point.h"
#include "kv/kv_budget.h"
#include "kv/kv_pool.h"
#include "kv/kv_prefix.h"
#include "kv/kv_table.h"
#include "scheduler/cost.h"
#include "scheduler/fair.h"
#include "scheduler/scheduler.h"
#include "scheduler/slots.h"
#include "scheduler/stored.h"
#include "scheduler/transfer.h"

enum { SPAN_SAMPLE = 1, SPAN_LOGITS = 2, SPAN_EDIT = 4, SPAN_HIDDEN = 8 }; /* flags of a span, transport/schema.h */
enum { PREFILL = 0, DECODE = 1, RESHARDER = 2, STORE = 3, COMPONENTS = 4 };
enum { JOBS_MAX = 16, POISON_DEATHS = 2, NO_SLOT = UINT32_MAX };
enum { COPIES_A_SPAN = TR_MAX_COPIES / TR_MAX_SPANS };

typedef enum tr_sequence_state { SEQUENCE_NONE, SEQUENCE_WAITING, SEQUENCE_RUNNING, SEQUENCE_ENDED } tr_sequence_state;

typedef struct tr_sequence {
    tr_sequence_state state;
    uint32_t prefill_end, decode_end; /* positions [0, prefill_end) are prefilled, the rest decoded, if any */
    uint32_t issued;                  /* prefill: next position to issue */
    uint32_t move_issued;             /* hand-off: next position to move */
    uint32_t part_end, part_layers;   /* of positions [move_issued, part_end), in a step that still runs, layers
                                         [0, part_layers) are issued to be moved */
    uint32_t steps, jobs;             /* unconfirmed ones of this scheduler */
    uint32_t unsettled;               /* bit a pipeline or store: work of an earlier scheduler may still run there */
    tr_transfer_state transfer;       /* jobs > 0 in every state that is not at rest, but *_LOST after a restart */
    uint32_t table_version;           /* raised with every change of its tables */
    uint64_t issued_ns;               /* when a step of it was issued last, or it was let in */
    uint32_t sent;                    /* generated tokens told to the frontend of now */
    bool announce;                    /* tell something in any case */
    bool finish_sent, released;
    bool fell;                    /* scratch of a reset: was in flight at a counted death */
    uint32_t fetch, found;        /* TR_STORED_*; positions that the store has */
    uint32_t put_end, store_jobs; /* positions [0, put_end) need not be stored any more; jobs of it that are out */
    tr_kv_table_row row[2];       /* one_pool: only row[0] */
    tr_kv_budget_need need;       /* pages that it may come to hold: up to position `promised`, rounded up to a page */
    uint32_t promised;
    bool stopped; /* gives way: nothing is issued for it, until what is out has been confirmed */
    struct {
        uint64_t node;  /* of the last page that is known of it */
        uint32_t pages; /* that are known */
        bool ends;      /* nothing behind them can be */
    } known[2];         /* by pool */
} tr_sequence;

/* What the order of sequences looks at, close together: there may be thousands that wait. */
typedef struct tr_turn {
    uint64_t order;
    int32_t priority;
    uint32_t client; /* in the counters of clients */
} tr_turn;

typedef enum tr_component_state { COMPONENT_DOWN, COMPONENT_RESETTING, COMPONENT_RUNNING } tr_component_state;

typedef struct tr_component {
    tr_component_state state;
    uint32_t n, max_in_flight;
    uint32_t n_lead; /* the first ones: they get STEPs, the others only live and die with them */
    uint32_t actor[TR_SCHEDULER_STAGES_MAX], incarnation[TR_SCHEDULER_STAGES_MAX];
    bool up[TR_SCHEDULER_STAGES_MAX], acked[TR_SCHEDULER_STAGES_MAX];
    bool holds[TR_SCHEDULER_STAGES_MAX]; /* it may be at work on what is in flight: until it has answered a RESET */
    uint32_t epoch;
    uint64_t next_id; /* of a step or job in this epoch */
    uint32_t in_flight;
    bool drains;              /* filled; nothing more before it is empty */
    uint64_t done_ns, dry_ns; /* when its last step was confirmed, when nothing was in flight last */
    bool counted_death;       /* it went down while running by a death that counts */
} tr_component;

typedef struct tr_flight { /* a STEP that is out, or parked between two slices */
    bool used, suspect;
    uint32_t component, phase; /* phase: PREFILL or DECODE; PREFILL: there may be decode rows among them */
    uint64_t step;
    uint64_t source; /* step that this one was issued ahead of, or 0 */
    uint32_t n_spans, n_rows, n_draws, n_copies, prefill_rows;
    uint32_t layers;                       /* prefill: K and V of layers [0, layers) are complete */
    bool parked;                           /* not out, but computed up to `layer`: it waits for its next slice */
    uint32_t layer, layer_end;             /* of the slice that is out, or waits; layer_end 0: to the end */
    uint64_t issued_ns, slot_ns, spent_ns; /* slot_ns: that it may take, while it is filled; spent_ns: in its slices */
    tr_cost_work work;
    tr_msg_span *spans; /* [spans_max] */
    uint32_t *tokens;   /* [max_rows] */
    uint32_t *copies;   /* [COPIES_A_SPAN * spans_max] */
} tr_flight;

enum { TR_HANDOFF_SAVE = 1, TR_HANDOFF_RESTORE = 2, TR_HANDOFF_SWAP_OUT = 3, TR_HANDOFF_SWAP_IN = 4 };
typedef struct tr_handoff_job { /* a RESHARD that is out */
    bool used;
    uint64_t job, rid;
    uint32_t slot, tok0, tok1, layer0, layer1;
    uint32_t file, pool; /* file: no move, but a save or a restore */
    bool part;           /* of a step that still runs: another job says when these positions are moved */
    uint32_t tok_min[TR_KV_GROUPS_MAX];
} tr_handoff_job;

struct tr_scheduler {
    tr_scheduler_config config;
    tr_kv_pool pool[2];
    tr_kv_prefix *prefix[2]; /* by pool; NULL: off */
    tr_component component[COMPONENTS];
    tr_sequence *sequence; /* [n_slots] */
    tr_turn *turn;         /* [n_slots] */
    uint32_t *running;     /* slots, as tr_order_before */
    uint32_t *waiting;
    uint32_t n_slots, n_running, n_waiting, n_flights;
    tr_flight *flight; /* [n_flights] */
    tr_handoff_job job[JOBS_MAX];
    const tr_policy *policy;
    tr_cost cost[2];                            /* by phase */
    uint64_t swap_bytes, swap_ns, swap_rest_ns; /* jobs of the swap space, fading; none is written before */
    tr_fair fair;
    bool admission_due;    /* something changed that could let somebody in */
    tr_slots open, ended;  /* in any state but NONE; ENDED */
    tr_slots tell, kept;   /* the frontend may have to be told of it; it has to do with files */
    tr_slots_index by_rid; /* of the open ones */
    uint64_t deadline_ns;  /* no open one has an earlier one; UINT64_MAX: none */
    bool suspects;         /* some that run may be under suspicion */
    tr_stored_job store_job[STORE_JOBS];
    uint64_t now_ns, next_order;
    uint64_t last_decoded; /* order of the sequence served last: round robin, */
    int32_t last_priority; /* and its priority */
    uint32_t last_phase;
    bool started, frontend_up, draining, more; /* more: something had to wait for room in the effects */
    bool starving;                             /* a running sequence waits for pages: nobody else is let in */
    tr_error refusal;                          /* text of the refusal in the effects */
    tr_scheduler_stats stats;
};

static inline tr_journal_entry *entry_of(const tr_scheduler *s, uint32_t slot) {
    return tr_journal_at(s->config.journal, slot);
}
static inline uint32_t load(_Atomic uint32_t *word) { return atomic_load_explicit(word, memory_order_acquire); }
/* Make a change of the journal count: everything that it speaks of was written before. */
static inline void publish(_Atomic uint32_t *word, uint32_t value) {
    tr_crash_point();
    atomic_store_explicit(word, value, memory_order_release);
    tr_crash_point();
}
static inline uint32_t generated(const tr_scheduler *s, uint32_t slot) {
    tr_journal_entry *e = entry_of(s, slot);
    return load(&e->state) == TR_JOURNAL_DONE ? e->kept : load(&e->n_tokens) - e->prompt_len;
}
/* No work of an earlier scheduler can touch it, and no job of an unknown fate. */
static inline bool settled(const tr_sequence *q) { return q->unsettled == 0 && !tr_transfer_lost(q->transfer); }
/* Pool and pipeline of a phase. */
static inline uint32_t pool_of(const tr_scheduler *s, uint32_t phase) { return s->config.one_pool ? 0 : phase; }
static inline uint32_t component_of(const tr_scheduler *s, uint32_t phase) {
    return s->config.n_pipelines == 1 ? 0 : phase;
}
/* First position of a group that a query at position pos sees. */
static inline uint32_t window_begin(const tr_kv_group *g, uint32_t pos) {
    return g->window == 0 || pos + 1 <= g->window ? 0 : pos + 1 - g->window;
}
/* First position of a group that a hand-off moves: what a query at the end of the prefilled part sees, and, where that
 * lies in a page of the source in any case, the beginning of the page, so that the page is complete. */
static inline uint32_t moved_from(const tr_scheduler *s, uint32_t g, const tr_sequence *q) {
    const tr_kv_layout *l = s->config.layout;
    uint32_t begin = window_begin(&l[1].group[g], q->prefill_end);
    return l[0].page_tok % l[1].page_tok == 0 ? begin - begin % l[1].page_tok : begin;
}
static inline bool room(tr_scheduler *s, const tr_effects *fx, uint32_t n) {
    if (fx->n + n < TR_EFFECTS_MAX) return true; /* one stays for the timer */
    s->more = true;
    return false;
}
tr_msg *tr_scheduler_send(tr_effects *fx, uint32_t to, tr_msg_type type);

/* intake.c */
uint32_t tr_intake_find(const tr_scheduler *s, uint64_t rid); /* slot or NO_SLOT */
void tr_intake_submit(tr_scheduler *s, const tr_msg_submit *m, tr_effects *fx);
void tr_intake_cancel(tr_scheduler *s, const tr_msg_cancel *m);
void tr_intake_release(tr_scheduler *s, const tr_msg_release *m);
void tr_intake_admit(tr_scheduler *s);
/* Add up what is promised. False: more than there is, some table is damaged. */
bool tr_intake_claims(tr_scheduler *s, tr_kv_budget *b);
/* Spans of an entry's life, and pages that it needs to get to `end` (cut to decode_end, not below prefill_end). */
void tr_intake_measure(const tr_scheduler *s, const tr_journal_entry *e, tr_sequence *q, uint32_t end);
void tr_intake_open(tr_scheduler *s, uint32_t slot); /* it has a request from now on, in whatever state */
void tr_intake_close(tr_scheduler *s, uint32_t slot);
void tr_intake_insert(const tr_scheduler *s, uint32_t *list, uint32_t *n, uint32_t slot); /* as tr_order_before */

/* batcher.c */
void tr_batcher_pump(tr_scheduler *s, tr_effects *fx);

/* progress.c */
void tr_progress_step_done(tr_scheduler *s, uint32_t from, const tr_msg_step_done *m, tr_effects *fx);
void tr_progress_step_layers(tr_scheduler *s, uint32_t from, const tr_msg_step_layers *m);
void tr_progress_moved(tr_scheduler *s, uint32_t slot, uint32_t end); /* positions [0, end) are handed over */
void tr_progress_end(tr_scheduler *s, uint32_t slot, tr_finish finish, uint32_t keep, uint32_t code, const char *error,
                     uint32_t error_len);
/* A suspect is cleared when all that was in flight at the death has been confirmed since. */
void tr_progress_clear_suspect(tr_journal_entry *e);
void tr_progress_remove(uint32_t *list, uint32_t *n, uint32_t slot);
/* Give back what nothing can touch any more; frees the slot of a released request. */
void tr_progress_check_end(tr_scheduler *s, uint32_t slot); /* all tokens there, or all positions computed */
void tr_progress_tidy(tr_scheduler *s, uint32_t slot);
uint64_t tr_progress_expire(tr_scheduler *s); /* ends what is past its deadline; the next one, or UINT64_MAX */
void tr_progress_drop_flight(tr_scheduler *s, tr_flight *f); /* forget it; positions are issued again */

/* handoff.c */
void tr_handoff_pump(tr_scheduler *s, tr_effects *fx);
void tr_handoff_done(tr_scheduler *s, const tr_msg_reshard_done *m, tr_effects *fx);
void tr_handoff_end(tr_scheduler *s, uint32_t slot);       /* the request ends */
void tr_handoff_lost(tr_scheduler *s);                     /* the resharder, or the link to it, is down or is reset */
void tr_handoff_settled(tr_scheduler *s, bool counted);    /* and now nothing of before runs there */
void tr_handoff_take_over(tr_scheduler *s, uint32_t slot); /* of an earlier scheduler, whose jobs are unknown */
tr_handoff_job *tr_handoff_free_job(tr_scheduler *s);      /* or NULL */
void tr_handoff_issue(tr_scheduler *s, uint32_t slot, tr_handoff_job *job, tr_effects *fx);
/* Hold the decode pages that positions up to tok1 need; sliding groups begin at tok_min. */
bool tr_handoff_hold_pages(tr_scheduler *s, uint32_t slot, const uint32_t *tok_min, uint32_t tok1);

/* keep.c */
bool tr_keep_restoring(const tr_scheduler *s, uint32_t slot); /* nothing is computed for it before that is decided */
bool tr_keep_saving(const tr_scheduler *s, uint32_t slot);    /* its pages stay, and its end is not told yet */
void tr_keep_pump(tr_scheduler *s, tr_effects *fx);
void tr_keep_done(tr_scheduler *s, const tr_handoff_job *job, const tr_msg_reshard_done *m);
void tr_keep_dropped(tr_scheduler *s, const tr_handoff_job *job);
void tr_keep_mend(tr_journal_entry *e); /* a death behind `restored` */

/* recovery.c */
void tr_recovery_start(tr_scheduler *s);
void tr_recovery_peer_up(tr_scheduler *s, const tr_event *event, tr_effects *fx);
void tr_recovery_pump(tr_scheduler *s, tr_effects *fx); /* reset what is down and whole again */
void tr_recovery_peer_down(tr_scheduler *s, uint32_t actor, bool counted);
void tr_recovery_reset(tr_scheduler *s, uint32_t component, tr_effects *fx);
void tr_recovery_reset_done(tr_scheduler *s, uint32_t actor, const tr_msg_reset_done *m);
uint32_t tr_recovery_component(const tr_scheduler *s, uint32_t actor, uint32_t *member_out); /* COMPONENTS: none */
#endif
