/* actors/frontend/request.h - the open requests as the frontend sees them: who asked, how far its text is.
 * Everything here can be rebuilt from the journal: a new frontend adopts the requests of a client that says hello again
 * and makes the same text again from the first token; clients recognize the repeat by token index and text offset.
 * Owns: the table (fixed size). Threads: one. */
#ifndef TR_REQUEST_H
#define TR_REQUEST_H
#include "actors/frontend/stop_match.h"
#include "base/status.h"
#include "model/detokenizer.h"
#include "scheduler/journal.h"
#include "transport/schema.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tr_request {
    bool used, accepted;
    bool gone; /* its client is gone: nothing is sent any more */
    bool logits;
    bool cancel_sent;             /* the scheduler has the CANCEL below, as far as this actor knows */
    uint32_t cancel, cancel_keep; /* tr_finish and keep of a CANCEL; 0: none */
    uint64_t rid, id;
    uint32_t sample; /* of n of one prompt; rid - sample is the same for those that were submitted together */
    uint8_t client[TR_MAX_CLIENT_ID_BYTES];
    uint32_t client_len, prompt_len;
    uint32_t n_tokens;   /* generated tokens seen */
    uint32_t shown;      /* tokens whose text is out or held: keep of a stop text */
    uint32_t min_tokens; /* in which no stop text is looked for */
    uint32_t logprobs;   /* entries for each token */
    uint64_t offset;     /* bytes of text sent */
    uint32_t finish;     /* end seen by the scheduler; waits for logits */
    uint64_t finish_deadline_ns;
    uint32_t logit_rows;  /* distinct positions handed out */
    uint64_t *logit_seen; /* bit a position; NULL without logits */
    tr_detokenizer detokenizer;
    tr_stop_match stop;
    void *submit; /* encoded SUBMIT until ACCEPTED (ZeroMQ transport loses what a dead process held) */
    size_t submit_bytes;
    tr_msg_output end; /* figures of the final OUTPUT; its views are not kept */
    char error[TR_MAX_ERROR_BYTES], note[TR_MAX_NOTE_BYTES + 1];
} tr_request;

typedef struct tr_request_table {
    uint32_t cap, n;
    tr_request *at; /* [cap] */
} tr_request_table;

tr_status tr_request_table_create(uint32_t cap, tr_request_table *t);
void tr_request_table_destroy(tr_request_table *t);
/* A cleared entry, or NULL when full. */
tr_request *tr_request_add(tr_request_table *t, uint64_t rid, const uint8_t *client, uint32_t client_len, uint64_t id);
tr_request *tr_request_find(tr_request_table *t, uint64_t rid);
tr_request *tr_request_find_client(tr_request_table *t, const uint8_t *client, uint32_t client_len, uint64_t id,
                                   uint32_t sample);
void tr_request_remove(tr_request_table *t, tr_request *r);
/* How tokens become text. */
static inline unsigned tr_request_text_flags(bool show_special) {
    return TR_DETOKENIZE_CONTINUE | (show_special ? TR_DETOKENIZE_SPECIAL : 0u);
}
/* Entry of the journal that is not free, or NULL. */
tr_journal_entry *tr_request_journal(tr_journal *j, uint64_t rid);
/* Entry of a sample that has not ended, or NULL. */
tr_journal_entry *tr_request_journal_client(tr_journal *j, const uint8_t *client, uint32_t client_len, uint64_t id,
                                            uint32_t sample);
#endif
