/* scheduler/swap.h - KV of sequences that gave way, in a swap space instead of nowhere. Part of the scheduler's core.
 * The swap space is memory of the supervisor or a file, as large as the configuration says. The resharder carries pages
 * out and back as jobs (transfer.h); what lies where is told by the journal alone: the images of the entries whose
 * `swap` is not NONE, one extent each, first fit.
 *
 * Rule: a sequence that is handed over is carried out where both ways, at the measured rate of such jobs, take less
 * than to compute its prompt and its tokens again by the measured cost of steps (cost.h), if the space has room and the
 * resharder is there. What the pools may still know of the prompt then is not looked at. Anything that goes wrong on
 * the way (no space, a full disk, a death, a CRC) ends in computing it again, never in an error.
 *
 * Life of the word `swap` (journal.h): NONE -> WRITING, the job is out, the sequence is stopped and holds its pages ->
 * OUT, the image is whole, the pages go -> (let in again, pages taken, read back) BACK, kv_* follow -> NONE. */
#ifndef TR_SWAP_H
#define TR_SWAP_H
#include "scheduler/scheduler_state.h"

/* Carry out a sequence of which nothing is in flight. False: it does not pay, or is not possible now. */
bool tr_swap_out(tr_scheduler *s, uint32_t slot, tr_effects *fx);
/* Bring back those that are let in. */
void tr_swap_pump(tr_scheduler *s, tr_effects *fx);
/* Let in, or about to be, and its image waits for it. */
bool tr_swap_is_out(const tr_scheduler *s, uint32_t slot);
/* A job of it is at work, or one of an earlier scheduler may be. */
bool tr_swap_writes(const tr_scheduler *s, uint32_t slot);
void tr_swap_answer(tr_scheduler *s, const tr_handoff_job *job, const tr_msg_reshard_done *m);
void tr_swap_dropped(tr_scheduler *s, const tr_handoff_job *job);
/* Its image is needed no more; nothing is at work on it. */
void tr_swap_forget(tr_scheduler *s, uint32_t slot);
/* Start: the word written first is the truth. */
void tr_swap_mend(tr_scheduler *s, uint32_t slot);
void tr_swap_take_over(tr_scheduler *s);
#endif
