#include "actors/runtime/company.h"

#include <string.h>

const tr_company_link *tr_company_find_link(const tr_company *c, tr_link_kind kind, uint32_t from, uint32_t to) {
    for (uint32_t i = 0; i < c->n_links; i++)
        if (c->link[i].kind == (uint32_t)kind && c->link[i].from == from && c->link[i].to == to) return &c->link[i];
    return NULL;
}

const tr_company_actor *tr_company_find_actor(const tr_company *c, const char *name) {
    for (uint32_t i = 0; i < c->n_actors; i++)
        if (strcmp(c->actor[i].name, name) == 0) return &c->actor[i];
    return NULL;
}
