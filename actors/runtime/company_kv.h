/* actors/runtime/company_kv.h - what the plan of a company has to know of the KV cache: the model as kv/ sees it, and
 * bytes. Pure. */
#ifndef TR_COMPANY_KV_H
#define TR_COMPANY_KV_H
#include "actors/runtime/company_build.h"
#include "kv/kv_pool.h"

/* TR_UNAVAILABLE: more layers than kv/ takes. */
tr_status tr_company_kv_model(const tr_model_config *m, tr_kv_model *out, tr_error *err);

/* Windows of the groups in the order of kv_layout (global, that is 0, first) and the layers of each; returns how many
 * groups there are. */
uint32_t tr_company_kv_windows(const tr_kv_model *m, uint32_t window[TR_KV_GROUPS_MAX],
                               uint32_t layers[TR_KV_GROUPS_MAX]);

/* Bytes of KV of one sequence of that many tokens on one side; 0: a model that kv/ does not take. */
uint64_t tr_company_kv_bytes(const tr_model_config *model, const tr_company_build_side *side, uint32_t tokens,
                             uint32_t chunk);
#endif
