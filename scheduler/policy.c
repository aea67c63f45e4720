#include "scheduler/policy.h"

enum { PREFILL = 0, DECODE = 1 };

static uint32_t in_turn(const tr_policy_look *l) { return l->mixes || l->last_phase == DECODE ? PREFILL : DECODE; }
static uint32_t prefill(const tr_policy_look *l) {
    (void)l;
    return PREFILL;
}
static uint32_t decode(const tr_policy_look *l) {
    (void)l;
    return DECODE;
}

/* A stream waits for the decode steps of all turns and a slot between any two of them. Where no objective is named,
 * every sequence has an equal share of the time, a prompt like a stream; a few prompts beside many streams have a
 * quarter together. An objective that leaves less than a quarter of a decode step is not met: prompts must get on. */
static uint64_t even(const tr_policy_look *l) {
    if (l->decode_ns == 0) return 0;
    if (l->slo_ns == 0) {
        const uint64_t third = l->decode_ns / 3, share = l->streams ? l->decode_ns * l->prompts / l->streams : 0;
        return (share > third ? share : third) + (l->mixes ? l->decode_ns : 0);
    }
    const uint64_t turn = l->slo_ns / (l->turns ? l->turns : 1), least = l->decode_ns + l->decode_ns / 4;
    return (turn > least ? turn : least) - (l->mixes ? 0 : l->decode_ns);
}
static uint64_t unlimited(const tr_policy_look *l) {
    (void)l;
    return TR_POLICY_NO_LIMIT;
}

const tr_policy tr_policy_table[TR_POLICY_END] = {
    [TR_POLICY_SARATHI] = {.name = "sarathi", .first = in_turn, .slot_ns = even, .mixes = true},
    [TR_POLICY_PREFILL_FIRST] = {.name = "prefill-first", .first = prefill, .slot_ns = unlimited},
    [TR_POLICY_DECODE_FIRST] = {.name = "decode-first", .first = decode, .slot_ns = unlimited},
    [TR_POLICY_FCFS] = {.name = "fcfs", .first = prefill, .slot_ns = unlimited, .whole = true},
    [TR_POLICY_MLFQ] = {.name = "mlfq", .first = in_turn, .slot_ns = even, .mixes = true, .feedback = true},
    [TR_POLICY_GPIPE] = {.name = "gpipe", .first = in_turn, .slot_ns = unlimited, .drains = true},
};

/* Level k ends where QUANTUM * (2^(k + 1) - 1) units of service do. A prompt that would pass through levels before its
 * first token begins in the one where it does not. */
uint32_t tr_policy_level(uint64_t prompt, uint64_t service) {
    uint32_t level = 0;
    const uint64_t had = service > prompt ? service : prompt;
    while (level + 1 < TR_POLICY_LEVELS && had >= (uint64_t)TR_POLICY_QUANTUM * ((2ull << level) - 1)) level++;
    return level;
}
