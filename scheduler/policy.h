/* scheduler/policy.h - what runs next, one table row a policy. Pure functions of a look at the queues; all that they
 * decide is order and size of steps, never a number in them, so that texts do not depend on the policy.
 * - sarathi: stall-free (Agrawal et al. 2024): decode steps and chunks of prompts take turns, or share a step where
 * both phases are one arithmetic; a chunk is as long as the inter-token objective leaves room for
 * - prefill-first: prompts as soon as they are there, in whole chunks (vLLM before chunked prefill)
 * - decode-first: prompts when nothing can be decoded
 * - fcfs: request level: who came together is admitted, prefilled and decoded to the last one's end; then the next
 *   (FasterTransformer's static batches)
 * - mlfq: skip-join multi-level feedback (FastServe): levels of doubling quanta of service, a prompt joins the level
 * that holds it whole, and who has had its quantum goes down; who waits too long goes up
 * - gpipe: fill and drain: a pipeline is filled, then runs empty before the next is issued. The textbook baseline: no
 *   option offers it, the simulators do */
#ifndef TR_POLICY_H
#define TR_POLICY_H
#include <stdbool.h>
#include <stdint.h>

typedef enum tr_policy_id {
    TR_POLICY_SARATHI = 0,
    TR_POLICY_PREFILL_FIRST,
    TR_POLICY_DECODE_FIRST,
    TR_POLICY_FCFS,
    TR_POLICY_MLFQ,
    TR_POLICY_GPIPE,
    TR_POLICY_END
} tr_policy_id;

enum { TR_POLICY_LEVELS = 6, TR_POLICY_QUANTUM = 256, TR_POLICY_DECODE_SERVICE = 16 };
#define TR_POLICY_NO_LIMIT UINT64_MAX

/* What a decision looks at. */
typedef struct tr_policy_look {
    uint32_t last_phase; /* of the step issued last: 0 prefill, 1 decode */
    bool mixes;          /* both phases can share a step */
    uint32_t streams;    /* sequences that have begun to decode */
    uint32_t prompts;    /* sequences that run and have not begun to */
    uint32_t turns;      /* decode steps until each of them has had one */
    uint64_t decode_ns;  /* of one such step, as measured; 0: not known yet */
    uint64_t slo_ns;     /* longest time between tokens of a stream that is wanted; 0: none was named */
} tr_policy_look;

typedef struct tr_policy {
    const char *name;
    uint32_t (*first)(const tr_policy_look *look); /* phase that has the next turn where they meet */
    /* Time that a step with a chunk may take while streams run, with the decode rows in it if it mixes; 0: not known,
     * a small one. Not asked when nobody decodes. */
    uint64_t (*slot_ns)(const tr_policy_look *look);
    bool mixes;    /* decode rows join chunks where they can */
    bool whole;    /* admission only when nobody who was admitted before is left */
    bool drains;   /* a pipeline is filled, then emptied */
    bool feedback; /* order by level instead of by arrival */
} tr_policy;

extern const tr_policy tr_policy_table[TR_POLICY_END];

/* Level of a sequence: of its prompt at first, and of the service that it has had. Service: prompt tokens, a decoded
 * token counts TR_POLICY_DECODE_SERVICE. */
uint32_t tr_policy_level(uint64_t prompt, uint64_t service);
#endif
