/* actors/cli/cli_ask.h - one prompt to a company, its text to stdout as it comes, the closing table to stderr. */
#ifndef TR_CLI_ASK_H
#define TR_CLI_ASK_H
#include "actors/cli/cli.h"
#include "client/troupe_client.h"

typedef struct tr_cli_answer {
    uint32_t prompt_tokens, cached_tokens, n_tokens; /* n_tokens and times: of the first sample */
    uint32_t n_samples, all_tokens;                  /* generated ones of all samples */
    uint32_t finish;                                 /* tr_finish; NONE when it was interrupted */
    uint64_t *gap_ns;                                /* [n_gaps] between tokens as they came; owned */
    uint32_t n_gaps, cap_gaps;
    uint64_t first_ns, last_ns; /* arrival of the first and the last token, on the clock of tr_clock_now_ns */
    uint64_t ttft_ns, total_ns, handoff_ns, handoff_bytes, visible_ns, saved_bytes;
    char note[TR_MAX_NOTE_BYTES + 1]; /* what became of save and restore */
} tr_cli_answer;
void tr_cli_answer_fini(tr_cli_answer *answer);

/* Times between tokens, over the tokens that came after the first message. */
typedef struct tr_cli_figures {
    double mean_ms, p50_ms, p99_ms; /* percentiles by nearest rank */
    double tok_s;
} tr_cli_figures;
/* False: nothing came after the first message. */
bool tr_cli_ask_figures(const tr_cli_answer *answer, tr_cli_figures *out);

/* Still there? Called now and then; an error ends the wait with it. */
typedef tr_status (*tr_cli_alive)(void *arg, tr_error *err);

/* params without prompt and tokens, from the sampling options. stop: [TR_OPTIONS_STOPS_MAX] memory for the list. */
tr_client_params tr_cli_ask_params(const tr_options *options, const char **stop);
/* Stream. A signal aborts the request and returns TR_CANCELLED; what had come is written and counted. */
tr_status tr_cli_ask(tr_client *client, const tr_client_params *params, tr_cli_alive alive, void *arg,
                     tr_cli_answer *answer_out, tr_error *err);
/* The table: figures of the answer, one line an actor. wait_ms: for the status of the company. */
void tr_cli_ask_table(tr_client *client, const tr_cli_answer *answer, int wait_ms);
/* Status of the company as JSON text (free), or NULL with err set. */
char *tr_cli_ask_status(tr_client *client, int wait_ms, tr_error *err);
/* One line an actor of that JSON. */
void tr_cli_ask_print_actors(void *file, const char *json);
/* Exit-code class of an ERROR message as a status. */
tr_status tr_cli_ask_code(uint32_t code);
#endif
