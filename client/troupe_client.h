/* client/troupe_client.h - public C library of troupe: talk to a running company over ZeroMQ.
 *
 *   tr_client *c = NULL;
 *   tr_error err;
 *   tr_client_event e;
 *   tr_client_connect("ipc:///run/user/1000/troupe/default/api", NULL, &c, &err);
 *   tr_client_add(c, &(tr_client_params){.prompt = "Once", .prompt_len = 4, .max_tokens = 32}, &id, &err);
 *   do {
 *       s = tr_client_poll(c, 1000, &e, &err);
 *       if (s == TR_OK && e.kind <= TR_CLIENT_END) fwrite(e.text, 1, e.text_bytes, stdout);
 *   } while (s == TR_AGAIN || (s == TR_OK && e.kind == TR_CLIENT_TEXT));
 *   tr_client_close(&c);
 *
 * Every sample of a request that was added (one, where nothing else is asked for) ends in exactly one TR_CLIENT_END or
 * TR_CLIENT_ERROR, of its own or of all samples together. The library pings, connects again,
 * adds open requests again after a restart of the frontend, and drops what it has delivered already. The wire form is
 * in docs/protocol.md.
 * Threads: a client belongs to one thread; several clients, each in its own thread, are fine. Not usable after fork.
 * Blocks: connect up to its timeout, poll up to its timeout, close up to 250 ms; nothing else.
 * Call poll at least every few seconds while requests are open: the pings go out in there, and the company aborts the
 * requests of a client that is silent for 10 s.
 * Installed: compile and link with `pkg-config troupe-client`. */
#ifndef TR_TROUPE_CLIENT_H
#define TR_TROUPE_CLIENT_H
#include "base/status.h"
#include "transport/schema.h" /* tr_finish, limits */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tr_client tr_client;

/* Zero values are the defaults. */
typedef struct tr_client_options {
    const char *name;        /* of the program, for logs; "client" */
    int connect_timeout_ms;  /* how long a starting company is waited for; 5000 */
    int lost_timeout_ms;     /* silence after which open requests are given up; 30000 */
    int64_t max_frame_bytes; /* largest frame accepted (logits); 256 MiB */
    void *zmq_context;       /* the process's context, where it has one; else the client makes its own */
} tr_client_options;

typedef struct tr_client_info {
    char model[257]; /* served name */
    uint32_t vocab, context;
    bool instruct;    /* the model has a chat template */
    uint64_t company; /* random id of this start of the company */
} tr_client_info;

/* A request. Zero values are the defaults; text and lists are copied. prompt or tokens, not both. */
typedef struct tr_client_params {
    const char *prompt; /* UTF-8, prompt_len bytes, at most TR_MAX_TEXT_BYTES */
    size_t prompt_len;
    const uint32_t *tokens;
    size_t n_tokens;
    uint32_t max_tokens;
    float temperature, top_p; /* 0: greedy; 0 or 1: off */
    uint32_t top_k;           /* 0: off */
    uint64_t seed;
    const char *const *stop; /* NUL-terminated, 1 to TR_MAX_STOP_BYTES bytes each */
    size_t n_stop;           /* at most TR_MAX_STOPS */
    bool ignore_eos, parse_special, no_bos;
    int32_t priority; /* the smaller comes first */
    uint32_t forced;  /* tokens at the end of the prompt that the decode path computes */
    bool logits;      /* send the logits of every position computed */
    /* Names of files in the company's folder of saved sequences; NULL: none. restore: the prompt is given as tokens and
     * begins with those of the file, of which restore_end have KV there; forced covers all tokens behind what its
     * prefill path computed. A file that cannot be used costs time only: see note at the end. */
    const char *save, *restore;
    uint32_t restore_end;
    uint32_t n;      /* samples of the prompt, at most TR_MAX_SAMPLES, each with a text and an end of its own; 0: one */
    bool keep_cache; /* with logits: a cached prefix is used and has none; else every position is computed */
    uint32_t timeout_ms;    /* what has not ended by then ends with error 75; 0: none */
    const char *cache_salt; /* cached prefixes are shared only among requests of the same salt; NULL: none */
    bool hidden;            /* without max_tokens: final hidden states of every position come where logits would */
    float min_p;            /* draw among tokens at least so likely, measured by the likeliest; 0: off */
    /* On the logits: -2 to 2 off those of tokens generated before, once, and for each time; those of tokens of prompt
     * and output divided by it (negative ones multiplied; 0 or 1: off); bias of single tokens, -100 to 100. Not where
     * the last stage of a pipeline runs on another host. */
    float presence_penalty, frequency_penalty, repetition_penalty;
    const uint32_t *bias_tokens; /* [n_bias], at most TR_MAX_BIAS */
    const float *bias;
    size_t n_bias;
    uint32_t min_tokens; /* no end before */
    const uint32_t *stop_tokens;
    size_t n_stop_tokens;            /* at most TR_MAX_STOP_TOKENS */
    bool include_stop, show_special; /* a stop text is part of the output; special tokens have text */
    bool logprobs;                   /* tell the log-probability of each token, */
    uint32_t top_logprobs;           /* and of so many likeliest ones, at most TR_MAX_LOGPROBS */
    bool marked; /* U+FDD0 in the prompt parts what would be a special token, and is left out; two of them are one */
} tr_client_params;

typedef enum tr_client_event_kind {
    TR_CLIENT_TEXT,  /* more tokens, text or logits of a request */
    TR_CLIENT_END,   /* the same and the last; finish and the figures are set */
    TR_CLIENT_ERROR, /* the request ended with an error; id 0: the connection's own */
    TR_CLIENT_STATUS
} tr_client_event_kind;

/* Pointers are valid until the next call with this client. */
typedef struct tr_client_event {
    tr_client_event_kind kind;
    uint64_t id;     /* of the request, or of tr_client_status */
    uint32_t sample; /* of the n; with ERROR TR_MAX_SAMPLES: all that were open */
    bool last;       /* END, ERROR: it was the last open sample, the request has ended */
    uint32_t index, n_tokens;
    const uint32_t *tokens; /* [n_tokens], the first is generated token number index */
    const char *text;       /* whole code points, not NUL-terminated */
    size_t text_bytes;
    uint32_t pos0, rows, cols; /* logits of positions pos0..; rows 0: none. After a restart rows may come again */
    const float *logits;       /* [rows][cols] */
    bool hidden;               /* they are hidden states, cols of them */
    /* of the last n_logprobs of the tokens above: [n_logprobs][1 + top_logprobs], the token itself first; all but after
     * a restart that took long */
    uint32_t n_logprobs;
    const uint32_t *logprob_ids;
    const float *logprobs;
    uint32_t finish; /* END: tr_finish */
    uint32_t prompt_tokens, generated_tokens;
    uint32_t cached_tokens; /* of the prompt, taken from the prefix cache */
    uint64_t queue_ns, ttft_ns, handoff_ns, handoff_bytes, visible_ns, total_ns;
    uint64_t saved_bytes; /* END: of the saved sequence */
    const char *note;     /* END: what became of save and restore, note_bytes bytes, not NUL-terminated */
    size_t note_bytes;
    uint32_t code;     /* ERROR: exit-code style class (64, 65, 69, 70) */
    const char *error; /* ERROR: one line */
    const char *json;  /* STATUS: NUL-terminated */
} tr_client_event;

/* Errors: TR_USAGE the endpoint, TR_UNAVAILABLE nobody answers or the company refuses, TR_PROTO not a troupe that this
 * library understands. options may be NULL. */
tr_status tr_client_connect(const char *endpoint, const tr_client_options *options, tr_client **out, tr_error *err);
/* Aborts what is open, waits up to 250 ms until that is sent. Nulls; idempotent. */
void tr_client_close(tr_client **c);
const tr_client_info *tr_client_about(const tr_client *c);

/* Errors: TR_USAGE a parameter out of its bounds, TR_DATA a prompt that is not UTF-8; whether the prompt fits the model
 * is the company's answer. Works while the connection is down: sent when it is back. */
tr_status tr_client_add(tr_client *c, const tr_client_params *params, uint64_t *id_out, tr_error *err);
/* The request goes on to its TR_CLIENT_END (finish is TR_FINISH_ABORT unless it ended before). TR_INVALID: not open. */
tr_status tr_client_abort(tr_client *c, uint64_t id);
/* Answered by TR_CLIENT_STATUS with that id. TR_AGAIN: not connected now. */
tr_status tr_client_status(tr_client *c, uint64_t *id_out);
/* The company takes nothing new; stop: it ends when its last stream has ended. TR_AGAIN: not connected now. */
tr_status tr_client_drain(tr_client *c, bool stop);

/* TR_OK: event filled. TR_AGAIN: nothing within timeout_ms (negative: no limit), or a signal came. TR_PEER: silence for
 * lost_timeout_ms and no request left to report it under (once a silence; polling may go on). TR_PROTO: the company
 * behind the endpoint now speaks another protocol. */
tr_status tr_client_poll(tr_client *c, int timeout_ms, tr_client_event *event, tr_error *err);
size_t tr_client_open_requests(const tr_client *c);
/* For event loops: edge-triggered descriptor (ZMQ_FD). When it is readable, after every other call, and once a second:
 * poll with timeout 0 until it says TR_AGAIN. */
int tr_client_fd(const tr_client *c);

#ifdef __cplusplus
}
#endif
#endif
