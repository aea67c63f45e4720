/* base/crc32c.h - CRC-32C (Castagnoli; RFC 3720 appendix B.4): reflected polynomial 0x82f63b78, start and end inverted.
 * Why: pages and files that leave this machine's memory carry one; a mismatch is a damaged copy, never an attack check.
 * By the CPU's instruction where it has SSE4.2, else by tables: the same value. Threads: any. No heap. */
#ifndef TR_CRC32C_H
#define TR_CRC32C_H
#include <stddef.h>
#include <stdint.h>

/* Go on from `crc` (0 at first) over `bytes` more bytes. */
uint32_t tr_crc32c(uint32_t crc, const void *data, size_t bytes);
/* The same by tables alone: what tests compare with. */
uint32_t tr_crc32c_tables(uint32_t crc, const void *data, size_t bytes);
#endif
