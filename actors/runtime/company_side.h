/* actors/runtime/company_side.h - one side of the hand-off as the plan of a company describes it: who has which layers
 * and heads, and where. The one place that turns actors of a pipeline into a tr_reshard_side. */
#ifndef TR_COMPANY_SIDE_H
#define TR_COMPANY_SIDE_H
#include "actors/runtime/company.h"
#include "kv/reshard_plan.h"

typedef struct tr_company_side {
    tr_reshard_side side; /* points into this struct: do not copy it */
    uint32_t layer_begin[TR_COMPANY_ACTORS_MAX + 1];
} tr_company_side;

/* phase: 0 prefill, 1 decode. table: entries of that pool (u32, tr_kv_layout.table_bytes). Borrows both. */
void tr_company_side_init(tr_company_side *s, const tr_company *c, uint32_t phase, const uint32_t *table);
#endif
