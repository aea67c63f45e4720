/* actors/cli/load.h - requests of a serving benchmark: when each arrives, how long its prompt and its answer are. Pure
 * but for reading the file. Sources: random lengths with Poisson arrivals, or a trace: .csv    first line names
 * columns; used are TIMESTAMP (date and time, or seconds), ContextTokens, GeneratedTokens: the form of the Azure LLM
 * inference traces 2023 .jsonl  one object a line: timestamp (ms), input_length, output_length, hash_ids (one a block
 * of 512 tokens; equal ids are a shared beginning): the form of the Mooncake traces Owner of the list is who made it.
 */
#ifndef TR_LOAD_H
#define TR_LOAD_H
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { TR_LOAD_MAX = 1000000, TR_LOAD_BLOCK = 512, TR_LOAD_BLOCKS_MAX = 256 };

typedef struct tr_load_request {
    uint64_t at_ns; /* after the first one */
    uint32_t prompt, output;
    uint32_t n_blocks;
    uint64_t *block; /* [n_blocks] names of the prompt's blocks of TR_LOAD_BLOCK tokens; owned; NULL: all its own */
} tr_load_request;

typedef struct tr_load {
    tr_load_request *request; /* in order of arrival */
    size_t n;
} tr_load;

typedef enum tr_load_lengths {
    TR_LOAD_UNIFORM,  /* in mean * [1 - spread, 1 + spread] */
    TR_LOAD_NORMAL,   /* standard deviation: mean * spread */
    TR_LOAD_LOGNORMAL /* the same */
} tr_load_lengths;

typedef struct tr_load_want {
    size_t n;                /* requests; of a trace the first ones, 0: all */
    uint32_t prompt, output; /* random: mean lengths */
    double spread;           /* random: of the lengths, see tr_load_lengths */
    tr_load_lengths lengths; /* random */
    double rate;             /* requests a second on average; 0: random: all at once, trace: its own times */
    double burstiness;       /* random: shape of the gaps' gamma distribution; 1 (and 0): Poisson, less: bursts */
    double length_scale;     /* trace: factor on all lengths */
    uint32_t prompt_max, output_max; /* longer ones are cut */
    uint64_t seed;
} tr_load_want;

tr_status tr_load_random(const tr_load_want *want, tr_load *out, tr_error *err);
/* TR_NO_INPUT, TR_DATA (names the line). */
tr_status tr_load_trace(const char *path, const tr_load_want *want, tr_load *out, tr_error *err);
void tr_load_free(tr_load *load); /* idempotent */

/* The prompt of request i as words, about one token each in the vocabularies of language models: the same words for the
 * same block. NUL-terminated, owned by the caller; NULL: no memory. */
char *tr_load_prompt(const tr_load *load, size_t i, uint64_t seed);
#endif
