#include "scheduler/fair.h"

static uint64_t least_served(const tr_fair *f) {
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < f->n; i++)
        if (f->client[i].open > 0 && f->client[i].served < least) least = f->client[i].served;
    return least == UINT64_MAX ? 0 : least;
}

/* The client's place, or a new one: behind the last, or that of the absent one that had least. */
static uint32_t place_of(tr_fair *f, uint64_t id) {
    uint32_t absent = UINT32_MAX;
    for (uint32_t i = 0; i < f->n; i++) {
        if (f->client[i].id == id) return i;
        if (f->client[i].open == 0 && (absent == UINT32_MAX || f->client[i].served < f->client[absent].served))
            absent = i;
    }
    if (f->n < f->capacity) absent = f->n++;
    f->client[absent] = (tr_fair_client){.id = id};
    return absent;
}

uint32_t tr_fair_open(tr_fair *f, uint64_t id) {
    const uint64_t least = least_served(f);
    const uint32_t i = place_of(f, id);
    if (f->client[i].open++ == 0 && f->client[i].served < least) f->client[i].served = least;
    return i;
}

void tr_fair_close(tr_fair *f, uint32_t client) { f->client[client].open--; }
