/* stages/layer_split.h - which layers each pipeline stage runs. Pure.
 * By cost: a layer weighs 1; the LM head stands on the last stage and weighs its multiply-adds over those of a layer,
 * for one row in rows_a_head (decode: every row, 1; prefill: the last row of a prompt, the chunk). The split minimizes
 * the heaviest stage, earlier stages taking more on ties. */
#ifndef TR_LAYER_SPLIT_H
#define TR_LAYER_SPLIT_H
#include "base/status.h"
#include "model/model_config.h"

#include <stdint.h>

/* Multiply-adds of the head for one row over those of a layer, in 1/1000. */
uint64_t tr_layer_split_head_milli(const tr_model_config *m);
/* begin_out: [pp + 1], stage i runs [begin_out[i], begin_out[i + 1]). TR_CONFIG: more stages than layers. */
tr_status tr_layer_split_auto(const tr_model_config *m, uint32_t pp, uint32_t rows_a_head, uint32_t *begin_out,
                              tr_error *err);
/* Explicit counts, one a stage. TR_CONFIG: zero layers in a stage, or a sum that is not the model's. */
tr_status tr_layer_split_given(const tr_model_config *m, uint32_t pp, const uint32_t *count, uint32_t *begin_out,
                               tr_error *err);
#endif
