/* model/pack_groups.h - rows of weights into the container of kernels/groups.h: the blocks of a file as they are, or
 * codes made from fp32 values. Private to the packer. Threads: pure functions. */
#ifndef TR_PACK_GROUPS_H
#define TR_PACK_GROUPS_H
#include "kernels/groups.h"
#include "model/dequant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The format that holds a type of files; false: the type has no groups (F32, F16, BF16). */
bool tr_pack_groups_format(tr_dequant_type type, tr_groups_format *format_out);
/* One row of k inputs as it lies in the file, into a channel (0..15) of a block of zeros. */
void tr_pack_groups_copy(tr_dequant_type type, const uint8_t *row, size_t k, uint8_t *block, size_t channel);
/* One row of finite numbers, rounded to Q4_0, Q8_0 or NF4: of a few scales for each group the one with the least square
 * error. */
void tr_pack_groups_round(tr_groups_format format, const float *row, size_t k, uint8_t *block, size_t channel);
#endif
