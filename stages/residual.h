/* stages/residual.h - residuals of the step's keys and values (kv: int8-residual); private to stages/.
 * Which token has a slot of its tile follows from the tokens before it, so this comes after all workers have stored
 * theirs, tile by tile. Unrotated keys and the values of all rows lie in place; the workers meet before and after. */
#ifndef TR_RESIDUAL_H
#define TR_RESIDUAL_H
#include "stages/step.h"

void tr_residual_run(const tr_step *c, uint32_t layer);
#endif
