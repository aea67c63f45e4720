/* tests/contract/contract_carrier.h - two carriers in a thread, joined by tcp with CURVE keys on loopback: what lies
 * between the rings of two nodes. */
#ifndef TR_CONTRACT_CARRIER_H
#define TR_CONTRACT_CARRIER_H
#include "transport/bell.h"
#include "transport/channel.h"

#include <stddef.h>

typedef struct contract_carrier contract_carrier;
/* from: ring that the test writes, to: ring that it reads; both of that capacity. bell: of the thread. */
contract_carrier *contract_carrier_start(void *from, void *to, size_t capacity, tr_bell *producer, tr_bell *consumer);
tr_bell *contract_carrier_bell(contract_carrier *c);
void contract_carrier_stop(contract_carrier *c);
#endif
