/* actors/resharder/resharder_swap.h - KV of a sequence into the swap space and back (kv/kv_swap.h): memory of the
 * supervisor, or a file of this host that only one company at a time uses. */
#ifndef TR_RESHARDER_SWAP_H
#define TR_RESHARDER_SWAP_H
#include "actors/resharder/resharder_file.h"

#include <stdbool.h>

typedef struct tr_resharder_swap {
    uint8_t *memory;  /* NULL: in the file */
    const char *path; /* of the file; the company's */
    int fd;           /* -1: not open */
    uint64_t bytes;   /* of the space */
    uint8_t *buffer;  /* what goes to the file at once */
    bool told;        /* a failure was logged; the next ones are not, until something works */
} tr_resharder_swap;

void tr_resharder_swap_init(tr_resharder_swap *s, const tr_company *c, uint8_t *memory);
/* Gives the file's space back, also what a life before this one wrote. */
void tr_resharder_swap_end(tr_resharder_swap *s);
/* Positions of the job (file 3: out, 4: back) to or from the place that the entry names. An error costs nothing but
 * that the sequence is computed again. */
tr_status tr_resharder_swap_run(tr_resharder_swap *s, const tr_resharder_file *f, uint64_t *bytes_out, tr_error *err);
#endif
