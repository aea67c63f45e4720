/* kernels/read_probe.h - reading memory and nothing else: the ceiling of whatever streams its weights.
 * Method: each byte once by vector loads, summed. Threads: any, each for its own part. No heap. */
#ifndef TR_READ_PROBE_H
#define TR_READ_PROBE_H
#include <stdbool.h>
#include <stddef.h>

/* Read [bytes] once: n_streams 1, in one run; 4, in four runs a quarter apart. False without AVX2 or memory. */
bool tr_read_probe_run(const void *mem, size_t bytes, unsigned n_streams);
#endif
