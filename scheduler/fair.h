/* scheduler/fair.h - who has had how much: a counter of tokens served to each client, for admission (virtual token
 * counters, Sheng et al. 2024). Who has had least comes next; a client that was away begins with no less than the least
 * of those that are there, so that absence saves nothing up. Counters of clients that left are kept as long as there is
 * room, so that leaving forgives nothing. Pure; memory of the caller. */
#ifndef TR_FAIR_H
#define TR_FAIR_H
#include <stdint.h>

typedef struct tr_fair_client {
    uint64_t id; /* hash of who it is */
    uint64_t served;
    uint32_t open; /* requests that are not forgotten yet */
} tr_fair_client;

typedef struct tr_fair {
    uint32_t n, capacity; /* capacity >= requests that can be open at once */
    tr_fair_client *client;
} tr_fair;

/* A request of the client; index for the calls below until its close. */
uint32_t tr_fair_open(tr_fair *f, uint64_t id);
void tr_fair_close(tr_fair *f, uint32_t client);
static inline void tr_fair_charge(tr_fair *f, uint32_t client, uint64_t tokens) { f->client[client].served += tokens; }
static inline uint64_t tr_fair_served(const tr_fair *f, uint32_t client) { return f->client[client].served; }
#endif
