#include "transport/zmq_channel.h"
#include "base/checked.h"
#include "transport/zmq_socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { LINE = 64, RECORDS_MIN = 16, RECORDS_MAX = 1000 };

typedef struct zmq_end {
    tr_channel channel;
    void *socket;
    uint8_t *buffer; /* [record_max], aligned: being filled, or received */
    size_t record_max;
    size_t bytes; /* reserved or held; 0: none */
    bool waiting; /* producer met a full queue */
    int fd;
    zmq_msg_t message;   /* consumer: the record itself when it is aligned already */
    const void *payload; /* of the held record */
    bool message_open;
} zmq_end;

static tr_status of_errno(int error) {
    return error == EAGAIN ? TR_AGAIN : error == ETERM || error == ENOTSOCK ? TR_PEER : TR_SYSTEM;
}

/* ---- producer ---------------------------------------------------------------------------------------------------- */

static tr_status reserve(tr_channel *c, size_t bytes, void **data_out) {
    zmq_end *z = (zmq_end *)c;
    z->bytes = 0;
    if (bytes == 0 || bytes > z->record_max) return TR_INVALID;
    int events = 0;
    size_t size = sizeof events;
    if (zmq_getsockopt(z->socket, ZMQ_EVENTS, &events, &size) != 0) return of_errno(errno);
    z->waiting = !(events & ZMQ_POLLOUT);
    if (z->waiting) return TR_AGAIN;
    z->bytes = bytes;
    *data_out = z->buffer;
    return TR_OK;
}

static tr_status commit(tr_channel *c, size_t bytes) {
    zmq_end *z = (zmq_end *)c;
    if (bytes == 0 || bytes > z->bytes) return TR_INVALID;
    int rc;
    do rc = zmq_send(z->socket, z->buffer, bytes, ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    if (rc < 0) {
        z->waiting = errno == EAGAIN;
        return of_errno(errno);
    }
    z->bytes = 0;
    return TR_OK;
}

/* ---- consumer ---------------------------------------------------------------------------------------------------- */

static void drop(zmq_end *z) {
    if (z->message_open) zmq_msg_close(&z->message);
    z->message_open = false;
    z->bytes = 0;
}

/* A record is one frame. What comes in several is taken off the queue as a whole. */
static tr_status drop_multipart(zmq_end *z) {
    while (zmq_msg_more(&z->message) && zmq_msg_recv(&z->message, z->socket, ZMQ_DONTWAIT) >= 0) {
    }
    drop(z);
    return TR_PROTO;
}

static tr_status peek(tr_channel *c, const void **data_out, size_t *bytes_out) {
    zmq_end *z = (zmq_end *)c;
    if (z->bytes == 0) {
        zmq_msg_init(&z->message);
        z->message_open = true;
        int rc;
        do rc = zmq_msg_recv(&z->message, z->socket, ZMQ_DONTWAIT);
        while (rc < 0 && errno == EINTR);
        if (rc < 0) {
            int error = errno;
            drop(z);
            return of_errno(error);
        }
        size_t bytes = zmq_msg_size(&z->message);
        if (bytes == 0 || bytes > z->record_max || zmq_msg_more(&z->message)) return drop_multipart(z);
        z->payload = zmq_msg_data(&z->message);
        if (((uintptr_t)z->payload & (LINE - 1)) != 0) {
            memcpy(z->buffer, z->payload, bytes);
            z->payload = z->buffer;
        }
        z->bytes = bytes;
    }
    *data_out = z->payload;
    *bytes_out = z->bytes;
    return TR_OK;
}

static void release(tr_channel *c) { drop((zmq_end *)c); }

/* ---- both -------------------------------------------------------------------------------------------------------- */

static void close_end(tr_channel *c) {
    zmq_end *z = (zmq_end *)c;
    if (z->message_open) zmq_msg_close(&z->message);
    tr_zmq_socket_close(&z->socket);
    free(z->buffer);
    free(z);
}

static int producer_fd(tr_channel *c) { return ((zmq_end *)c)->waiting ? ((zmq_end *)c)->fd : -1; }
static int consumer_fd(tr_channel *c) { return ((zmq_end *)c)->bytes ? -1 : ((zmq_end *)c)->fd; }

static const tr_channel_ops producer_ops = {"zmq",     reserve,    commit, tr_channel_not_peek, tr_channel_not_release,
                                            close_end, producer_fd};
static const tr_channel_ops consumer_ops = {
    "zmq", tr_channel_not_reserve, tr_channel_not_commit, peek, release, close_end, consumer_fd};

static tr_status open_end(void *context, const char *endpoint, size_t record_max, size_t capacity, bool producer,
                          tr_channel **out, tr_error *err) {
    if (record_max == 0 || record_max > INT64_MAX / 2) return tr_error_set(err, TR_INVALID, "a link of no records");
    size_t records = capacity / record_max;
    int hwm = (int)(records < RECORDS_MIN ? RECORDS_MIN : records > RECORDS_MAX ? RECORDS_MAX : records);
    zmq_end *z = calloc(1, sizeof *z);
    if (!z) return tr_error_set(err, TR_UNAVAILABLE, "no memory for the end of a link");
    z->channel.ops = producer ? &producer_ops : &consumer_ops;
    z->record_max = record_max;
    z->buffer = aligned_alloc(LINE, tr_align_up(record_max, LINE));
    tr_zmq_socket_options o = {.type = producer ? ZMQ_PUSH : ZMQ_PULL,
                               .bind = !producer,
                               .private_dir = true,
                               .hwm = hwm,
                               .max_message_bytes = (int64_t)record_max};
    tr_status status = z->buffer ? tr_zmq_socket_open(context, endpoint, &o, &z->socket, err)
                                 : tr_error_set(err, TR_UNAVAILABLE, "no memory for records of %zu bytes", record_max);
    size_t size = sizeof z->fd;
    if (status == TR_OK && zmq_getsockopt(z->socket, ZMQ_FD, &z->fd, &size) != 0)
        status = tr_error_set(err, TR_SYSTEM, "cannot wait for %s: %s", endpoint, zmq_strerror(errno));
    if (status != TR_OK)
        close_end(&z->channel);
    else
        *out = &z->channel;
    return status;
}

tr_status tr_zmq_channel_open_producer(void *context, const char *endpoint, size_t record_max, size_t capacity,
                                       tr_channel **out, tr_error *err) {
    return open_end(context, endpoint, record_max, capacity, true, out, err);
}

tr_status tr_zmq_channel_open_consumer(void *context, const char *endpoint, size_t record_max, size_t capacity,
                                       tr_channel **out, tr_error *err) {
    return open_end(context, endpoint, record_max, capacity, false, out, err);
}
