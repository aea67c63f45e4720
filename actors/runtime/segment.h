/* actors/runtime/segment.h - shared memory of a company: memfds made by the supervisor, inherited under fixed numbers.
 * All of a segment is allocated when it is made (a full machine is an error then, never a SIGBUS later) and sealed
 * against shrinking and growing. Pages of a pool are bound to the NUMA node of the stage that owns the layer before
 * they are touched. */
#ifndef TR_SEGMENT_H
#define TR_SEGMENT_H
#include "actors/runtime/company.h"
#include "base/status.h"
#include "stages/team.h"

#include <stdbool.h>

/* Descriptor of the eventfd of an actor's bell. */
static inline int tr_segment_bell_fd(uint32_t actor) { return TR_COMPANY_FD_SEGMENT + TR_SEGMENT_COUNT + (int)actor; }

/* Where the ranks of a stage meet, and the memory that their forward passes share, in a mapping of TR_SEGMENT_TEAMS. */
static inline tr_team_meeting *tr_segment_meeting(void *teams, const tr_company_actor *rank) {
    return (tr_team_meeting *)(void *)((char *)teams + rank->team_offset);
}
static inline void *tr_segment_common(void *teams, const tr_company_actor *rank) {
    return tr_segment_meeting(teams, rank) + 1;
}

/* Anonymous file of that size with its pages allocated, placed at descriptor number fd. TR_UNAVAILABLE: no memory. */
tr_status tr_segment_create(const char *name, uint64_t bytes, int fd, tr_error *err);
/* Map a whole segment by descriptor. bytes 0: *data_out = NULL. */
tr_status tr_segment_map(int fd, uint64_t bytes, bool writable, void **data_out, tr_error *err);
/* Supervisor: create all segments and bell descriptors of the plan, initialize control, rings, journal and tables. */
tr_status tr_segment_create_all(const tr_company *c, void *segment_out[TR_SEGMENT_COUNT], tr_error *err);
/* Actor: map the plan from TR_COMPANY_FD_PLAN (checked) and all segments. */
tr_status tr_segment_map_plan(const tr_company **company_out, tr_error *err);
tr_status tr_segment_map_all(const tr_company *c, void *segment_out[TR_SEGMENT_COUNT], tr_error *err);
#endif
