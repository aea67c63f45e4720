/* stages/attention.h - attention of one layer over the pages, shared by all workers of the team; private to stages/.
 * Queries (rotated), keys and values of the step's rows lie in place before, and all workers have met; they meet again
 * before anyone reads what this writes. */
#ifndef TR_ATTENTION_H
#define TR_ATTENTION_H
#include "stages/step.h"

void tr_attention_run(const tr_step *c, const tr_forward_layer *l, uint32_t layer);
#endif
