/* actors/resharder/kv_send.h - the half of a hand-off between nodes that reads: one job at a time, tiles converted to
 * the destination's format straight into records of the KV link, in the order of the plan.
 * A job is over when the other half has confirmed it; until then single tiles are sent again where they are asked for.
 * Borrows: everything. Threads: one. Blocks: never. */
#ifndef TR_KV_SEND_H
#define TR_KV_SEND_H
#include "actors/resharder/kv_pieces.h"
#include "kernels/kv_convert.h"
#include "kv/kv_wire.h"
#include "transport/channel.h"

#include <stdbool.h>

enum { TR_KV_SEND_REPAIRS = 64 };

typedef struct tr_kv_send {
    const tr_ops *ops;
    const uint8_t *pool;
    const tr_kv_layout *from, *to;
    tr_channel *link;
    float *tmp; /* one head */
    bool active, confirmed, all_sent, have_next;
    uint32_t epoch;
    uint64_t job, bytes;
    tr_kv_pieces pieces, start; /* start: as it began, for repairs */
    tr_kv_piece next;
    uint32_t n_repairs;
    tr_msg_kv_reply repair[TR_KV_SEND_REPAIRS];
} tr_kv_send;

tr_status tr_kv_send_begin(tr_kv_send *s, const tr_msg_reshard *job, const tr_reshard_side *src,
                           const tr_reshard_side *dst, tr_error *err);
void tr_kv_send_abort(tr_kv_send *s);
/* An answer of the other half. Those of other jobs are ignored. */
void tr_kv_send_reply(tr_kv_send *s, const tr_msg_kv_reply *m);
/* Send what has room. TR_OK: the job is over; TR_AGAIN: wait; else it has failed. */
tr_status tr_kv_send_pump(tr_kv_send *s, bool *any_out, tr_error *err);
#endif
