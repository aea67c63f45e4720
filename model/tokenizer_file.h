/* model/tokenizer_file.h - the tables of a tokenizer in one file that is mapped instead of built: reading a large
 * vocabulary from a GGUF and hashing its texts takes longer than everything else of a warm start.
 * A file is trusted as little as any other: it carries a check sum, and whatever the sum says every index in it is
 * checked before it is used. Not portable: bytes of this machine's order, read again by the version that wrote it.
 * Errors: TR_NO_INPUT, TR_DATA (not this version's, of another model, damaged), TR_CANNOT_CREATE (writing), TR_SYSTEM
 * (memory). */
#ifndef TR_TOKENIZER_FILE_H
#define TR_TOKENIZER_FILE_H
#include "model/tokenizer.h"

enum { TR_TOKENIZER_FILE_VERSION = 2 };

/* Write the tables to fd, from its position on. model_hash: of the model that they come from. */
tr_status tr_tokenizer_file_write(const tr_tokenizer *t, uint64_t model_hash, int fd, tr_error *err);
/* The tokenizer owns the mapping. */
tr_status tr_tokenizer_file_open(const char *path, uint64_t model_hash, tr_tokenizer **tokenizer_out, tr_error *err);
/* The same on memory, which must outlive the tokenizer; data: 64-byte aligned. */
tr_status tr_tokenizer_file_view(const void *data, size_t size, const char *name, uint64_t model_hash,
                                 tr_tokenizer **tokenizer_out, tr_error *err);
/* Set the check sum of a file in memory to what its bytes are (for write and tests). */
void tr_tokenizer_file_seal(void *data, size_t size);
#endif
