#include "transport/channel.h"

tr_status tr_channel_not_reserve(tr_channel *c, size_t bytes, void **data_out) {
    (void)c, (void)bytes, (void)data_out;
    return TR_INVALID;
}

tr_status tr_channel_not_commit(tr_channel *c, size_t bytes) {
    (void)c, (void)bytes;
    return TR_INVALID;
}

tr_status tr_channel_not_peek(tr_channel *c, const void **data_out, size_t *bytes_out) {
    (void)c, (void)data_out, (void)bytes_out;
    return TR_INVALID;
}

void tr_channel_not_release(tr_channel *c) { (void)c; }
