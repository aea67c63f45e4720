/* actors/resharder/kv_receive.h - the half of a hand-off between nodes that writes: it walks the same plan as the half
 * that reads, so it knows what must come, and finds the place of each tile in its own tables.
 * A record that does not fit the plan fails the job. A tile whose CRC does not match is asked for again by layer, head
 * and position, at most TR_KV_RECEIVE_TRIES times each. Nothing of a record is believed before it is checked.
 * Borrows: everything. Threads: one. Blocks: never. */
#ifndef TR_KV_RECEIVE_H
#define TR_KV_RECEIVE_H
#include "actors/resharder/kv_pieces.h"
#include "kernels/kv_convert.h"
#include "kv/kv_wire.h"
#include "transport/channel.h"

#include <stdbool.h>

enum { TR_KV_RECEIVE_REPAIRS = 16, TR_KV_RECEIVE_TRIES = 3 };

typedef struct tr_kv_receive_repair {
    tr_kv_piece piece;
    uint32_t tries;
} tr_kv_receive_repair;

typedef struct tr_kv_receive {
    const tr_ops *ops;
    uint8_t *pool;
    const tr_kv_layout *layout;
    tr_channel *link;
    const char *link_name; /* "resharder -> resharder.b", for people */
    float *tmp;
    bool active, have_next;
    uint32_t epoch;
    uint64_t job, bytes, damaged;
    tr_kv_pieces pieces;
    tr_kv_piece next;
    uint32_t n_repairs;
    tr_kv_receive_repair repair[TR_KV_RECEIVE_REPAIRS];
    uint32_t n_replies; /* to be sent by the driver, then 0 */
    tr_msg_kv_reply reply[TR_KV_RECEIVE_REPAIRS + 1];
} tr_kv_receive;

tr_status tr_kv_receive_begin(tr_kv_receive *r, const tr_msg_reshard *job, const tr_reshard_side *src,
                              const tr_reshard_side *dst, tr_error *err);
void tr_kv_receive_abort(tr_kv_receive *r);
/* Take at most one record. epoch: what is older is thrown away, also without a job. TR_OK: the job is over (its reply
 * says so); TR_AGAIN: wait; else it has failed. */
tr_status tr_kv_receive_pump(tr_kv_receive *r, uint32_t epoch, bool *any_out, tr_error *err);
#endif
