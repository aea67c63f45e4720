/* tests/contract/contract_link.h - one link of each kind behind the same few calls, for the contract tests.
 * Memory of a ring is shared with forked children; a ZeroMQ end makes its context when it is opened, so that children
 * open theirs after the fork. Failures end the process with a message (usable in children, where cmocka is not). */
#ifndef TR_CONTRACT_LINK_H
#define TR_CONTRACT_LINK_H
#include "base/rng.h"
#include "transport/bell.h"
#include "transport/channel.h"
#include "transport/sim_channel.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum contract_kind {
    CONTRACT_RING,
    CONTRACT_ZMQ,
    CONTRACT_SIM,
    CONTRACT_CARRIER,
    CONTRACT_KINDS
} contract_kind;

typedef struct contract_shared {
    tr_bell producer_bell, consumer_bell;
    _Atomic uint64_t word[8]; /* for the tests */
} contract_shared;

typedef struct contract_link {
    contract_kind kind;
    size_t record_max, capacity;
    bool durable; /* records survive the death of an end */
    contract_shared *shared;
    void *ring_memory; /* carrier: the producer's, then the consumer's */
    size_t ring_bytes;
    char dir[64], endpoint[96];
    void *context[2]; /* zmq: producer's, consumer's */
    tr_sim_channel *sim;
    struct contract_carrier *carrier;
    tr_channel *producer, *consumer;
} contract_link;

extern const char *const contract_kind_names[];
#define CONTRACT_REQUIRE(cond) ((cond) ? (void)0 : contract_fail(#cond, __FILE__, __LINE__))
_Noreturn void contract_fail(const char *cond, const char *file, int line);

/* Room for n_records of at most record_max bytes (zmq: at least). */
contract_link *contract_create(contract_kind kind, size_t n_records, size_t record_max);
void contract_destroy(contract_link *l);
void contract_open_producer(contract_link *l);
void contract_open_consumer(contract_link *l);
/* As after the death of a process: whatever was reserved or peeked is forgotten. */
void contract_close_producer(contract_link *l);
void contract_close_consumer(contract_link *l);

/* Wait at most timeout_ms; false when it passed. */
bool contract_reserve(contract_link *l, size_t bytes, void **data_out, int timeout_ms);
bool contract_peek(contract_link *l, const void **data_out, size_t *bytes_out, int timeout_ms);

/* Records that prove themselves: length and content follow from a sequence number in front. */
enum { CONTRACT_RECORD_MIN = 8 };
size_t contract_record_bytes(uint64_t seq, size_t record_max);
void contract_record_fill(uint64_t seq, void *data, size_t bytes);
/* The number; fails when length or content are wrong. */
uint64_t contract_record_check(const void *data, size_t bytes, size_t record_max);
/* Send record seq; false when there was no room for timeout_ms. */
bool contract_send(contract_link *l, uint64_t seq, int timeout_ms);
/* Receive, check and release one record; false when none came for timeout_ms. */
bool contract_receive(contract_link *l, uint64_t *seq_out, int timeout_ms);

#endif
