#include "actors/frontend/request.h"

#include <stdlib.h>
#include <string.h>

tr_status tr_request_table_create(uint32_t cap, tr_request_table *t) {
    *t = (tr_request_table){.cap = cap, .at = calloc(cap, sizeof(tr_request))};
    return t->at ? TR_OK : TR_UNAVAILABLE;
}

void tr_request_table_destroy(tr_request_table *t) {
    for (uint32_t i = 0; t->at && i < t->cap; i++)
        if (t->at[i].used) tr_request_remove(t, &t->at[i]);
    free(t->at);
    *t = (tr_request_table){0};
}

tr_request *tr_request_add(tr_request_table *t, uint64_t rid, const uint8_t *client, uint32_t client_len, uint64_t id) {
    for (uint32_t i = 0; i < t->cap; i++) {
        tr_request *r = &t->at[i];
        if (r->used) continue;
        memset(r, 0, sizeof *r);
        r->used = true;
        r->rid = rid;
        r->id = id;
        r->client_len = client_len;
        memcpy(r->client, client, client_len);
        t->n++;
        return r;
    }
    return NULL;
}

tr_request *tr_request_find(tr_request_table *t, uint64_t rid) {
    for (uint32_t i = 0; i < t->cap; i++)
        if (t->at[i].used && t->at[i].rid == rid) return &t->at[i];
    return NULL;
}

tr_request *tr_request_find_client(tr_request_table *t, const uint8_t *client, uint32_t client_len, uint64_t id,
                                   uint32_t sample) {
    for (uint32_t i = 0; i < t->cap; i++) {
        tr_request *r = &t->at[i];
        if (r->used && r->id == id && r->sample == sample && r->client_len == client_len &&
            memcmp(r->client, client, client_len) == 0)
            return r;
    }
    return NULL;
}

void tr_request_remove(tr_request_table *t, tr_request *r) {
    free(r->logit_seen);
    free(r->submit);
    memset(r, 0, sizeof *r);
    t->n--;
}

tr_journal_entry *tr_request_journal(tr_journal *j, uint64_t rid) {
    for (uint32_t slot = 0; slot < j->n_slots; slot++) {
        tr_journal_entry *e = tr_journal_at(j, slot);
        if (tr_journal_counts(e) && e->rid == rid) return e;
    }
    return NULL;
}

tr_journal_entry *tr_request_journal_client(tr_journal *j, const uint8_t *client, uint32_t client_len, uint64_t id,
                                            uint32_t sample) {
    for (uint32_t slot = 0; slot < j->n_slots; slot++) {
        tr_journal_entry *e = tr_journal_at(j, slot);
        if (atomic_load_explicit(&e->state, memory_order_acquire) == TR_JOURNAL_OPEN && tr_journal_counts(e) &&
            e->id == id && e->sample == sample && e->client_len == client_len &&
            memcmp(e->client, client, client_len) == 0)
            return e;
    }
    return NULL;
}
