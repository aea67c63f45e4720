/* stages/head.h - the end of the last stage: final norm, logits of the rows that ask, tokens of the spans that sample;
 * private to stages/. Where nothing but a few tokens is wanted they are drawn without the logits (stages/screen.h). */
#ifndef TR_HEAD_H
#define TR_HEAD_H
#include "stages/step.h"

void tr_head_run(const tr_step *c);
#endif
