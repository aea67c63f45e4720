#include "actors/runtime/company_side.h"

#include <string.h>

void tr_company_side_init(tr_company_side *s, const tr_company *c, uint32_t phase, const uint32_t *table) {
    memset(s, 0, sizeof *s);
    s->side = (tr_reshard_side){.layout = &c->layout[phase], .table = table, .layer_begin = s->layer_begin, .tp = 1};
    for (uint32_t a = 0; a < c->n_actors; a++) {
        const tr_company_actor *actor = &c->actor[a];
        if (actor->role != TR_ROLE_STAGE || !actor->phase[phase].active) continue;
        s->side.tp = actor->tp;
        s->layer_begin[actor->stage] = actor->lo;
        s->layer_begin[actor->stage + 1] = actor->hi;
        if (actor->stage + 1 > s->side.n_stages) s->side.n_stages = actor->stage + 1;
    }
}
