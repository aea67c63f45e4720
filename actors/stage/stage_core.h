/* actors/stage/stage_core.h - what a stage does, without doing it: queue of STEPs, epochs, when to compute, publish and
 * answer. Pure core (transport/event.h); the driver owns channels, kernels and clocks.
 *
 * In: STEP, RESET (scheduler) · INPUT, TOKENS, OUTPUT_ROOM, COMPUTED (driver). Out: COMPUTE, PUBLISH, FEED,
 * RELEASE_INPUT, SEND of STEP_DONE and RESET_DONE to the scheduler. Other events are ignored.
 * Epoch: 0 at birth; only RESET raises it. A STEP counts only in the epoch that the stage is in; a repeated or older
 * step id of the epoch is dropped. So a new incarnation does nothing before its RESET, whatever its rings still hold.
 * Order: steps are computed in the order they came. A step runs when no other runs, its input record is at the head of
 * the input channel (not on the first stage: none needed) and the output channel has room (not on the last stage).
 * Ahead: a STEP with a source_step was issued before that step, the one right before it, had ended. The last stage
 * feeds what every decode step sampled to the first one, which starts such a step when it has the tokens.
 * INPUT contract: the driver announces the record at the head once, and after each RELEASE_INPUT the next one when
 * there is one. OUTPUT_ROOM contract: raised when a record of the largest size fits (at start, and again after each
 * PUBLISH as soon as it fits); it holds until the next PUBLISH. Extra OUTPUT_ROOM and repeated INPUT are harmless.
 * Input older than the epoch, or of a step that is done or was dropped, is released; newer input waits for its RESET.
 * RESET during a computation: the queue is cleared at once, RESET_DONE follows when the computation ends; its result is
 * thrown away (input released, nothing published). A computation that was aborted, because another rank of the stage
 * died, ends with the RESET that follows, in the same way.
 * The message of a COMPUTE effect stays valid until its COMPUTED event (longer than the usual next step).
 * A failed computation (status != 0) publishes nothing: STEP_DONE with status goes to the scheduler, from any stage. */
#ifndef TR_STAGE_CORE_H
#define TR_STAGE_CORE_H
#include "base/status.h"
#include "transport/event.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TR_STAGE_CORE_QUEUE_MAX = 256 };

typedef struct tr_stage_core_config {
    uint32_t scheduler; /* actor index */
    uint32_t first;     /* 1: no input channel (embeds) */
    uint32_t last;      /* 1: no output channel (samples, answers) */
    uint32_t queue;     /* steps that can wait; at least the in-flight bound of the pipeline */
    uint32_t max_spans; /* of one step: at most TR_MAX_SPANS */
    uint32_t max_rows;  /* of one step: at most TR_MAX_STEP_ROWS */
} tr_stage_core_config;

typedef struct tr_stage_core tr_stage_core;
/* Bytes of state; the caller gives zeroed memory of that size (64-byte aligned). 0: configuration out of bounds. */
size_t tr_stage_core_bytes(const tr_stage_core_config *config);
tr_status tr_stage_core_init(tr_stage_core *s, const tr_stage_core_config *config);
/* One event in, effects out (fx->n is reset first). */
void tr_stage_core_step(tr_stage_core *s, const tr_event *event, tr_effects *fx);

typedef struct tr_stage_core_stats {
    uint32_t epoch, queued;
    bool computing;
    uint64_t steps, failed_steps, dropped_steps, dropped_inputs, protocol_errors;
} tr_stage_core_stats;
void tr_stage_core_get_stats(const tr_stage_core *s, tr_stage_core_stats *out);
/* A step computes: the supervisor may expect progress (waiting for a neighbour is no hang). */
bool tr_stage_core_busy(const tr_stage_core *s);
/* The step that computes is the source of the next one: it will follow at once. */
bool tr_stage_core_followed(const tr_stage_core *s);
uint64_t tr_stage_core_digest(const tr_stage_core *s);
#endif
