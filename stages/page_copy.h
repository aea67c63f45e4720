/* stages/page_copy.h - the content of one KV page becomes that of another, in the layers of one stage: a sequence that
 * shares all full pages of another one gets a page of its own where it will write. Bytes are copied as they lie, scales
 * included; what lies behind the common tokens is overwritten before anybody reads it, so a repeat does no harm.
 * Threads: nobody else touches the two pages in these layers meanwhile. */
#ifndef TR_PAGE_COPY_H
#define TR_PAGE_COPY_H
#include "stages/forward.h"

/* copies: [n] (group, source page, destination page) in turn. TR_INVALID: no such group or page; nothing is copied. */
tr_status tr_page_copy_run(const tr_kv_memory *kv, uint32_t lo, uint32_t hi, const uint32_t *copies, uint32_t n);
#endif
