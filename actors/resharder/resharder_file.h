/* actors/resharder/resharder_file.h - a sequence into a file and back (kv/kv_file.h): the resharder reads and writes
 * the pages, so no stage is disturbed. Files lie in the one folder that the plan names; a file appears whole, by
 * rename. */
#ifndef TR_RESHARDER_FILE_H
#define TR_RESHARDER_FILE_H
#include "actors/runtime/company.h"
#include "kernels/ops.h"
#include "kv/kv_file.h"
#include "kv/kv_layout.h"
#include "scheduler/journal.h"

/* Borrows everything. */
typedef struct tr_resharder_file {
    const tr_company *company;
    const tr_ops *ops;
    uint8_t *pool; /* the pool to read from or write to */
    const tr_kv_layout *layout;
    const uint32_t *table;
    float *tmp;              /* one head */
    tr_journal_entry *entry; /* names, tokens, sampling */
    const tr_msg_reshard *job;
} tr_resharder_file;

/* A tile in the pool, or NULL when the table names no page. */
uint8_t *tr_resharder_file_tile(const tr_resharder_file *f, const tr_kv_file_tile *t);
/* Positions of the job into the file that the entry names. TR_CANNOT_CREATE, TR_UNAVAILABLE, TR_INVALID. */
tr_status tr_resharder_file_save(const tr_resharder_file *f, uint64_t *bytes_out, tr_error *err);
/* Back from a file. TR_OK with err->text set: the cells are there, and the text says why its continuation may differ
 * from that of an uninterrupted run. An error: the pages hold nothing of use; the text says why. */
tr_status tr_resharder_file_restore(const tr_resharder_file *f, uint64_t *bytes_out, tr_error *err);
#endif
