/* transport/zmq_channel.h - the channel contract over ZeroMQ: the producer's PUSH connects, the consumer's PULL binds.
 * For companies that run without shared-memory rings, and the base of links between nodes. One copy on each side.
 * Records on their way to a dead process are lost; its next incarnation binds the same path, the peer connects again
 * by itself. Order and wholeness hold always. Bounds: capacity / record_max records (16 to 1000) are queued on each
 * side; a received record above record_max cuts the connection.
 * Waiting: wait_fd is ZeroMQ's edge-triggered descriptor. A consumer polls it only after peek said TR_AGAIN; it is -1
 * while a record is held. A producer has one only after reserve said TR_AGAIN, and reserves again when it is readable.
 * commit may say TR_AGAIN too (the peer vanished in between): the reservation is kept.
 * Owns: socket and one buffer of record_max. Borrows: the context. Threads: each end by one thread. */
#ifndef TR_ZMQ_CHANNEL_H
#define TR_ZMQ_CHANNEL_H
#include "base/status.h"
#include "transport/channel.h"

/* endpoint: ipc:///path in a 0700 folder, or loopback tcp (zmq_socket.h). */
tr_status tr_zmq_channel_open_producer(void *context, const char *endpoint, size_t record_max, size_t capacity,
                                       tr_channel **out, tr_error *err);
tr_status tr_zmq_channel_open_consumer(void *context, const char *endpoint, size_t record_max, size_t capacity,
                                       tr_channel **out, tr_error *err);

#endif
