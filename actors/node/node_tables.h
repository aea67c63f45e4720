/* actors/node/node_tables.h - page tables of another node, kept like the scheduler's.
 * Why: stages and resharders read page ids in their node's table segment; the scheduler writes the one of the head.
 * Before a STEP or RESHARD leaves for a node, the rows of its slots are compared with what that node was told, and what
 * differs goes out first, on the same connection: so the entries that a message speaks of are there before it. Entries
 * of work that is under way never change (kv/kv_table.h), whatever else has changed meanwhile comes along.
 * The scheduler knows nothing of this; a new session begins with nothing known and tells all again. */
#ifndef TR_NODE_TABLES_H
#define TR_NODE_TABLES_H
#include "actors/runtime/company.h"
#include "transport/schema.h"

typedef tr_status (*tr_node_tables_send)(void *arg, const tr_msg *msg);

typedef struct tr_node_tables {
    const tr_company *company;
    const uint8_t *segment; /* TR_SEGMENT_TABLES of the head */
    uint32_t *told[2];      /* owned; what the node holds, or TR_NODE_TABLES_UNKNOWN */
    uint64_t updates;
} tr_node_tables;

tr_status tr_node_tables_init(tr_node_tables *t, const tr_company *c, const void *segment, tr_error *err);
void tr_node_tables_fini(tr_node_tables *t);
void tr_node_tables_forget(tr_node_tables *t);
/* Tell what has changed in the rows of a slot, in every pool. */
tr_status tr_node_tables_update(tr_node_tables *t, uint32_t slot, tr_node_tables_send send, void *arg);
/* On the node: write entries that came in. TR_PROTO: they are not in the bounds of the plan, nothing was written. */
tr_status tr_node_tables_apply(const tr_company *c, void *segment, const tr_msg_node_table *m);
#endif
