/* stages/rope.h - angles of the rotary position embedding (Su et al. 2021), the same bits on every machine.
 * Why: stages of one pipeline may stand on different hosts; libm picks its code by the CPU, and its last bit with it.
 *      Only +, -, *, / and sqrt in double are used here. */
#ifndef TR_ROPE_H
#define TR_ROPE_H
#include "model/model_config.h"

#include <stdbool.h>

/* inv_freq_out[i] = base^(-2i/d), i < head_dim / 2, rounded to fp32; for the global base divided by the linear scale
 * and the factors of the model. */
void tr_rope_frequencies(const tr_model_config *config, bool global, float *inv_freq_out);
/* cos and sin of an angle in radians, |angle| <= 2^25; each within 3e-9 before it is rounded. */
void tr_rope_angle(float angle, float *cos_out, float *sin_out);
#endif
