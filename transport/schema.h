/* transport/schema.h - every message of the company, once. Structs, ids, names, bounds, codec, log lines,
 * docs/messages.md and the round-trip and fuzz tests all come from these tables. Wire form: a msgpack map {"type":
 * name, field: value, ...}; unknown fields are ignored, absent ones keep their zero; a value of another type, beyond
 * its bound, or nested deeper than the schema needs is TR_PROTO. The version travels in HELLO only. Field kinds: u32
 * u64 f32 scalars, real a float of either sign · str (valid UTF-8) and bin, views into the received buffer · u32v realv
 * lists of numbers · strv list of strings · spanv list of span maps. Views and lists live as long as the decode buffer
 * and arena. F(kind, name, bound, doc): bound = largest value of a number (0: any), bytes of a str/bin, entries of a
 * list. Ids are never reused. Bulk data (activations, KV, logits) never passes here: transport/wire.h. */
#ifndef TR_SCHEMA_H
#define TR_SCHEMA_H

#include "transport/schema_base.h"

/* ---- client <-> frontend ---- */
#define TR_FIELDS_HELLO(F)                                                                                             \
    F(u32, major, 0, "protocol version; another major is refused")                                                     \
    F(u32, minor, 0, "")                                                                                               \
    F(str, name, 64, "of the client program, for logs")
#define TR_FIELDS_WELCOME(F)                                                                                           \
    F(u32, major, 0, "")                                                                                               \
    F(u32, minor, 0, "")                                                                                               \
    F(str, model, 256, "served model name")                                                                            \
    F(u32, vocab, 0, "")                                                                                               \
    F(u32, context, 0, "tokens, prompt and output together")                                                           \
    F(u32, instruct, 1, "1: the model has a chat template")                                                            \
    F(u64, company, 0, "random id of this start of the company")
#define TR_FIELDS_SAMPLING(F)                                                                                          \
    F(u32, max_tokens, TR_MAX_TOKENS, "tokens to generate at most")                                                    \
    F(f32, temperature, 100, "0: greedy")                                                                              \
    F(f32, top_p, 1, "1 or absent: off")                                                                               \
    F(u32, top_k, 0, "0: off")                                                                                         \
    F(u64, seed, 0, "key of the draws")                                                                                \
    F(u32, ignore_eos, 1, "go on past the end token")                                                                  \
    F(f32, min_p, 1, "draw among tokens at least so likely, measured by the likeliest; 0: off")                        \
    F(real, presence_penalty, 2, "off the logits of tokens that were generated")                                       \
    F(real, frequency_penalty, 2, "the same, for each time")                                                           \
    F(f32, repetition_penalty, 100,                                                                                    \
      "logits of tokens of prompt and output are divided by it, negative ones "                                        \
      "multiplied; 0 or 1: off")                                                                                       \
    F(u32v, bias_tokens, TR_MAX_BIAS, "ids of tokens")                                                                 \
    F(realv, bias, TR_MAX_BIAS, "-100 to 100, on the logits of these, one a token")                                    \
    F(u32, min_tokens, TR_MAX_TOKENS, "no end before so many tokens")                                                  \
    F(u32v, stop_tokens, TR_MAX_STOP_TOKENS, "end the output as the end token does")                                   \
    F(u32, include_stop, 1, "a stop text that ends the output is part of it")                                          \
    F(u32, show_special, 1, "special tokens have their text in the output")                                            \
    F(u32, logprobs, TR_MAX_LOGPROBS + 1,                                                                              \
      "0, or 1 + k: tell each token's log-probability and those of the k likeliest")                                   \
    F(u32, priority, 0, "signed, two's complement: the smaller is let in and prefilled first; 0: as all")
#define TR_FIELDS_FILES(F)                                                                                             \
    F(str, save, TR_MAX_FILE_NAME_BYTES, "name of a file in the company's folder that the sequence is saved to")       \
    F(str, restore, TR_MAX_FILE_NAME_BYTES, "name of a saved sequence whose tokens the prompt begins with")            \
    F(u32, restore_end, TR_MAX_TOKENS, "positions whose KV that file holds")
#define TR_FIELDS_KEPT(F)                                                                                              \
    F(u64, saved_bytes, 0, "with finish: of the file; 0: not asked, or see note")                                      \
    F(str, note, TR_MAX_NOTE_BYTES, "with finish: what became of save and restore; the text is right all the same")
#define TR_FIELDS_LOGPROBS(F)                                                                                          \
    F(u32v, logprob_ids, TR_MAX_LOGPROB_ENTRIES, "for each of the last tokens here: itself, then the likeliest")       \
    F(realv, logprobs, TR_MAX_LOGPROB_ENTRIES, "their log-probabilities, before penalties, bias and temperature")
#define TR_FIELDS_ADD(F)                                                                                               \
    F(u64, id, 0, "of the request, chosen by the client, unique among its open ones")                                  \
    F(str, prompt, TR_MAX_TEXT_BYTES, "text, or")                                                                      \
    F(u32v, tokens, TR_MAX_TOKENS, "token ids as they are")                                                            \
    TR_FIELDS_SAMPLING(F)                                                                                              \
    F(strv, stop, TR_MAX_STOPS, "texts that end the output (each up to 256 bytes)")                                    \
    F(u32, parse_special, 1, "special tokens written in the prompt text become tokens")                                \
    F(u32, marked, 1, "U+FDD0 in the prompt text parts what would be a special token, and is left out; two are one")   \
    F(u32, no_bos, 1, "leave out the begin token")                                                                     \
    F(u32, forced, TR_MAX_TOKENS, "tokens at the end of the prompt that the decode path computes (teacher-forced)")    \
    TR_FIELDS_FILES(F)                                                                                                 \
    F(u32, logits, 3,                                                                                                  \
      "send a logits frame: 1 for every position, 2 for those that no cached prefix holds; 3: hidden states instead, " \
      "of every position")                                                                                             \
    F(str, cache_salt, TR_MAX_SALT_BYTES, "cached prefixes are shared only among requests of the same salt")           \
    F(u32, n, TR_MAX_SAMPLES, "samples of the prompt, each with a text and an end of its own; 0: one")                 \
    F(u32, timeout_ms, TR_MAX_TIMEOUT_MS, "from its acceptance; then what has not ended ends with error 75; 0: none")
#define TR_FIELDS_TEXT(F)                                                                                              \
    F(u64, id, 0, "")                                                                                                  \
    F(u32, index, 0, "of the first token in this message, counted from the first generated one")                       \
    F(u32v, tokens, TR_MAX_TOKENS, "")                                                                                 \
    F(u64, offset, 0, "of text in the whole output, bytes: a repeat after a restart is recognized by it")              \
    F(bin, text, TR_MAX_TEXT_BYTES, "whole code points only")                                                          \
    F(u32, finish, 5, "0: more follows; else tr_finish")                                                               \
    F(u32, prompt_tokens, 0, "with finish")                                                                            \
    F(u64, queue_ns, 0, "with finish: accepted to first step")                                                         \
    F(u64, ttft_ns, 0, "with finish: accepted to first token")                                                         \
    F(u64, handoff_ns, 0, "with finish: time inside the resharder")                                                    \
    F(u64, handoff_bytes, 0, "with finish: KV bytes written by the resharder")                                         \
    F(u64, visible_ns, 0, "with finish: end of the prefill to the end of the hand-off: what it did not hide")          \
    F(u64, total_ns, 0, "with finish: accepted to last token")                                                         \
    TR_FIELDS_KEPT(F)                                                                                                  \
    F(u32, cached_tokens, 0, "with finish: of the prompt, taken from the prefix cache")                                \
    F(u32, sample, TR_MAX_SAMPLES, "which of the n samples; the request ends with the last of them")                   \
    TR_FIELDS_LOGPROBS(F)
#define TR_FIELDS_ERROR(F)                                                                                             \
    F(u64, id, 0, "of the request that ends with this")                                                                \
    F(u32, code, 0, "exit-code style class: 64 usage, 65 data, 69 unavailable or full, 70 internal, 75 timeout")       \
    F(str, text, TR_MAX_ERROR_BYTES, "one line: what, where, what to do")                                              \
    F(u32, sample, TR_MAX_SAMPLES, "which sample ends with this; TR_MAX_SAMPLES: all that are open")
#define TR_FIELDS_ABORT(F)        F(u64, id, 0, "")
#define TR_FIELDS_PING(F)         F(u64, nonce, 0, "answered by the same message")
#define TR_FIELDS_STATUS(F)       F(u64, id, 0, "")
#define TR_FIELDS_STATUS_REPLY(F) F(u64, id, 0, "") F(str, json, TR_MAX_TEXT_BYTES, "as `troupe status --json`")
#define TR_FIELDS_DRAIN(F)        F(u32, stop, 1, "1: stop the company when the last stream has ended")

/* ---- frontend <-> scheduler ---- */
#define TR_FIELDS_SUBMIT(F)                                                                                            \
    F(u64, rid, 0, "request id inside the company; a repeat is answered, not run again")                               \
    F(bin, client, TR_MAX_CLIENT_ID_BYTES, "routing id")                                                               \
    F(u64, id, 0, "the client's id")                                                                                   \
    F(u32v, tokens, TR_MAX_TOKENS, "")                                                                                 \
    F(u32, forced, TR_MAX_TOKENS, "as in ADD")                                                                         \
    TR_FIELDS_SAMPLING(F)                                                                                              \
    F(strv, stop, TR_MAX_STOPS, "")                                                                                    \
    TR_FIELDS_FILES(F)                                                                                                 \
    F(u32, logits, 3, "")                                                                                              \
    F(str, cache_salt, TR_MAX_SALT_BYTES, "")                                                                          \
    F(u32, n, TR_MAX_SAMPLES, "samples, 0: one; sample k is request rid + k, the last 4 bits of rid are 0")            \
    F(u32, sample, TR_MAX_SAMPLES, "with n up to 1: which sample of a prompt it is; rid + sample is its rid")          \
    F(u32, timeout_ms, TR_MAX_TIMEOUT_MS, "as in ADD")
#define TR_FIELDS_ACCEPTED(F) F(u64, rid, 0, "now in the journal") F(u32, slot, 0, "")
#define TR_FIELDS_CANCEL(F)                                                                                            \
    F(u64, rid, 0, "")                                                                                                 \
    F(u32, finish, 5, "what the request ends with")                                                                    \
    F(u32, keep, 0, "tokens that count (a stop text may end before the last one)")
#define TR_FIELDS_OUTPUT(F)                                                                                            \
    F(u64, rid, 0, "")                                                                                                 \
    F(u32, index, 0, "of the first token here")                                                                        \
    F(u32v, tokens, TR_MAX_TOKENS, "")                                                                                 \
    F(u32, finish, 5, "")                                                                                              \
    F(u32, code, 0, "with finish error")                                                                               \
    F(str, error, TR_MAX_ERROR_BYTES, "")                                                                              \
    F(u64, queue_ns, 0, "")                                                                                            \
    F(u64, ttft_ns, 0, "")                                                                                             \
    F(u64, handoff_ns, 0, "")                                                                                          \
    F(u64, handoff_bytes, 0, "")                                                                                       \
    F(u64, visible_ns, 0, "")                                                                                          \
    F(u64, total_ns, 0, "")                                                                                            \
    TR_FIELDS_KEPT(F)                                                                                                  \
    F(u32, cached_tokens, 0, "")                                                                                       \
    F(u32, refused, 1, "it was not accepted, none of its samples")                                                     \
    TR_FIELDS_LOGPROBS(F)
#define TR_FIELDS_RELEASE(F) F(u64, rid, 0, "the client has its end: forget the journal entry")

/* ---- scheduler <-> stage ---- */
/* One span = consecutive rows of one sequence. */
#define TR_FIELDS_SPAN(F)                                                                                              \
    F(u64, rid, 0, "")                                                                                                 \
    F(u32, slot, 0, "row of the page tables")                                                                          \
    F(u32, pos0, 0, "")                                                                                                \
    F(u32, rows, TR_MAX_STEP_ROWS, "")                                                                                 \
    F(u32, flags, 15, "TR_SPAN_SAMPLE 1, TR_SPAN_LOGITS 2, TR_SPAN_EDIT 4, TR_SPAN_HIDDEN 8")                          \
    F(u32, table_version, 0, "")                                                                                       \
    F(f32, temperature, 100, "")                                                                                       \
    F(f32, top_p, 1, "")                                                                                               \
    F(u32, top_k, 0, "")                                                                                               \
    F(u32, sample, TR_MAX_SAMPLES, "index of the sample among those of one prompt")                                    \
    F(u32, draws, TR_MAX_SAMPLES, "tokens drawn behind the last row: of samples sample, sample + 1, ...; 0: one")      \
    F(u64, seed, 0, "")                                                                                                \
    F(f32, min_p, 1, "")                                                                                               \
    F(u32, logprobs, TR_MAX_LOGPROBS + 1, "as in ADD: entries for each token drawn")
#define TR_FIELDS_STEP(F)                                                                                              \
    F(u32, epoch, 0, "of the pipeline; a stage drops what is older")                                                   \
    F(u64, step, 0, "monotonic in an epoch")                                                                           \
    F(u32, phase, 2, "1 prefill, 2 decode: which precision and pool a unified stage uses")                             \
    F(spanv, spans, TR_MAX_SPANS, "")                                                                                  \
    F(u32v, tokens, TR_MAX_STEP_ROWS, "one a row; TR_TOKEN_OF_STEP: what source_step sampled for this slot")           \
    F(u64, source_step, 0, "0, or the step before: this one does not begin before its tokens are known")               \
    F(u32v, copies, TR_MAX_COPIES, "before the rows: (group, page, page), the first is copied to the second")          \
    F(u32, layer0, 0, "of a prefill step of a single stage: it begins here, with what the slice before it left")       \
    F(u32, layer1, 0, "... and ends before this layer, without a token; 0: at the end")
#define TR_FIELDS_STEP_DONE(F)                                                                                         \
    F(u32, epoch, 0, "")                                                                                               \
    F(u64, step, 0, "")                                                                                                \
    F(u32, phase, 2, "")                                                                                               \
    F(u32, status, 0, "0 or 1 + index of the span at fault")                                                           \
    F(str, error, TR_MAX_ERROR_BYTES, "")                                                                              \
    F(u32v, sampled, TR_MAX_SPANS, "one a span, or as many as it draws; 0 where it did not sample")                    \
    F(u32v, logprob_ids, TR_MAX_LOGPROB_ENTRIES, "of the spans that ask, for each token drawn")                        \
    F(realv, logprobs, TR_MAX_LOGPROB_ENTRIES, "")                                                                     \
    F(u64, kernel_ns, 0, "inside kernels, this stage")                                                                 \
    F(u64, total_ns, 0, "step received to output published")
#define TR_FIELDS_STEP_LAYERS(F)                                                                                       \
    F(u32, epoch, 0, "")                                                                                               \
    F(u64, step, 0, "")                                                                                                \
    F(u32, lo, 0, "K and V of layers [lo, hi) of every row of the step lie in the pages")                              \
    F(u32, hi, 0, "")
#define TR_FIELDS_RESET(F)      F(u32, epoch, 0, "forget all steps of older epochs; answered by RESET_DONE when idle")
#define TR_FIELDS_RESET_DONE(F) F(u32, epoch, 0, "")

/* ---- scheduler <-> resharder ---- */
#define TR_FIELDS_RESHARD(F)                                                                                           \
    F(u32, epoch, 0, "")                                                                                               \
    F(u64, job, 0, "")                                                                                                 \
    F(u64, rid, 0, "")                                                                                                 \
    F(u32, src_slot, 0, "")                                                                                            \
    F(u32, dst_slot, 0, "")                                                                                            \
    F(u32, tok0, 0, "positions [tok0, tok1) of every group, less those outside tok_min")                               \
    F(u32, tok1, 0, "")                                                                                                \
    F(u32v, tok_min, 8, "per group: first position that the destination still needs")                                  \
    F(u32, layer0, 0, "layers [layer0, layer1)")                                                                       \
    F(u32, layer1, 0, "")                                                                                              \
    F(u32, file, 4,                                                                                                    \
      "not a move: 1 save these positions of dst_slot to the file that the journal names, 2 restore, 3 to its place "  \
      "in the swap space, 4 and back")                                                                                 \
    F(u32, pool, 1, "with file")
#define TR_FIELDS_RESHARD_DONE(F)                                                                                      \
    F(u32, epoch, 0, "")                                                                                               \
    F(u64, job, 0, "")                                                                                                 \
    F(u32, status, 0, "")                                                                                              \
    F(u64, bytes, 0, "written")                                                                                        \
    F(u64, ns, 0, "")                                                                                                  \
    F(str, note, TR_MAX_NOTE_BYTES, "why not, or what is to be known of it")

/* ---- scheduler <-> store ---- */
#define TR_FIELDS_STORE_GET(F)                                                                                         \
    F(u32, epoch, 0, "")                                                                                               \
    F(u64, job, 0, "")                                                                                                 \
    F(u64, rid, 0, "")                                                                                                 \
    F(u32, slot, 0, "")                                                                                                \
    F(u32, fetch, 1, "0: how many of positions [0, tok1) does the store have? 1: lay them into the pages of the slot") \
    F(u32, tok1, TR_MAX_TOKENS, "")                                                                                    \
    F(u32v, tok_min, 8, "with fetch, per group: first position that has a page")
#define TR_FIELDS_STORE_PUT(F)                                                                                         \
    F(u32, epoch, 0, "")                                                                                               \
    F(u64, job, 0, "")                                                                                                 \
    F(u64, rid, 0, "")                                                                                                 \
    F(u32, slot, 0, "")                                                                                                \
    F(u32, tok1, TR_MAX_TOKENS, "")                                                                                    \
    F(u32v, tok_min, 8, "per group: positions [tok_min, tok1) are complete, and stay so until STORE_DONE")
#define TR_FIELDS_STORE_DONE(F)                                                                                        \
    F(u32, epoch, 0, "")                                                                                               \
    F(u64, job, 0, "")                                                                                                 \
    F(u32, status, 0, "0, or it cannot be had: what pages hold is of no use")                                          \
    F(u32, tok1, TR_MAX_TOKENS, "positions that are there; of a STORE_PUT: nothing of it is read any more")            \
    F(u64, bytes, 0, "")
#define TR_FIELDS_STORE_STATE(F)                                                                                       \
    F(u32, up, 1, "the server answers")                                                                                \
    F(u64, stored, 0, "blocks; this and what follows: since the last one")                                             \
    F(u64, stored_bytes, 0, "")                                                                                        \
    F(u64, refused, 0, "values that were not what they should be")                                                     \
    F(u64, failed, 0, "questions that the server did not answer, or not in time")                                      \
    F(u64, dropped, 0, "blocks that were not stored")

/* ---- between nodes ---- */
/* A program that would run a node, to the command that starts the company. */
#define TR_FIELDS_NODE_HELLO(F)                                                                                        \
    F(u32, major, 0, "protocol version; another one is refused")                                                       \
    F(u32, minor, 0, "another one is refused: both ends compute the same plan")                                        \
    F(str, name, 64, "of the node, as in hosts:")                                                                      \
    F(bin, machine, 65536, "its cores and memory")                                                                     \
    F(strv, kernels, 16, "kernel sets that it can run, slowest first")
#define TR_FIELDS_NODE_PLAN(F)                                                                                         \
    F(bin, want, 65536, "what the company shall be: the node computes the plan itself")                                \
    F(bin, machines, 131072, "of all nodes")                                                                           \
    F(u32, node, 64, "index of the receiver")                                                                          \
    F(u64, plan_hash, 0, "of the plan as the head computed it")                                                        \
    F(u64, company, 0, "random id of this start")                                                                      \
    F(str, name, 64, "of the company")                                                                                 \
    F(str, kernels, 16, "kernel set of the company")                                                                   \
    F(str, model, 1024, "path of the model on the head")                                                               \
    F(str, model_name, 256, "")
#define TR_FIELDS_NODE_PREPARED(F)                                                                                     \
    F(u32, code, 0, "0, or exit code of what failed")                                                                  \
    F(str, error, TR_MAX_ERROR_BYTES, "")                                                                              \
    F(u64, model_hash, 0, "of the model that the node has packed")
/* Agents: the node's to the head's. */
#define TR_FIELDS_NODE_JOIN(F)                                                                                         \
    F(u64, company, 0, "")                                                                                             \
    F(u32, node, 64, "")                                                                                               \
    F(u64, plan_hash, 0, "")                                                                                           \
    F(u64, nonce, 0, "of this try; a repeat is answered alike")
#define TR_FIELDS_NODE_WELCOME(F) F(u32, session, 0, "0: join anew")
#define TR_FIELDS_NODE_STATE(F)                                                                                        \
    F(u32, actor, 0, "index in the plan")                                                                              \
    F(u32, incarnation, 0, "")                                                                                         \
    F(u32, up, 1, "")                                                                                                  \
    F(u32, counted, 0, "deaths that count, so far")                                                                    \
    F(u32, pid, 0, "0 while down")                                                                                     \
    F(u32, placed, 2, "")                                                                                              \
    F(u64, progress, 0, "")                                                                                            \
    F(u64, kernel_ns, 0, "")                                                                                           \
    F(u64, step_ns, 0, "")                                                                                             \
    F(u64, rss, 0, "bytes")                                                                                            \
    F(u64, compute_ns, 0, "time of a stage by kind: its ledger")                                                       \
    F(u64, communication_ns, 0, "")                                                                                    \
    F(u64, fill_drain_ns, 0, "")                                                                                       \
    F(u64, imbalance_ns, 0, "")                                                                                        \
    F(u64, starvation_ns, 0, "")                                                                                       \
    F(u64, kv_wait_ns, 0, "")
#define TR_FIELDS_NODE_TABLE(F)                                                                                        \
    F(u32, pool, 1, "")                                                                                                \
    F(u32, slot, 0, "")                                                                                                \
    F(u32, group, 8, "")                                                                                               \
    F(u32, first, 0, "logical page of the first entry")                                                                \
    F(u32v, pages, TR_MAX_STEP_ROWS, "page ids, all ones where none is held")
#define TR_FIELDS_NODE_BYE(F)                                                                                          \
    F(u32, code, 0, "exit code of the node that leaves")                                                               \
    F(str, text, TR_MAX_ERROR_BYTES, "")
#define TR_FIELDS_KV_REPLY(F)                                                                                          \
    F(u32, epoch, 0, "")                                                                                               \
    F(u64, job, 0, "")                                                                                                 \
    F(u32, done, 1, "1: all tiles of the job are in place; 0: send this tile again")                                   \
    F(u32, layer, 0, "")                                                                                               \
    F(u32, kv_head, 0, "")                                                                                             \
    F(u32, pos, 0, "first position of the job in that tile")

/* M(NAME, name, id, "from -> to: meaning") */
#define TR_MSGS(M)                                                                                                     \
    M(HELLO, hello, 1, "client -> frontend: first message")                                                            \
    M(WELCOME, welcome, 2, "frontend -> client: answer to hello")                                                      \
    M(ADD, add, 3, "client -> frontend: a request")                                                                    \
    M(TEXT, text, 4, "frontend -> client: tokens and text, in order; the last one carries finish")                     \
    M(ERROR, error, 5, "frontend -> client: the request ended with an error")                                          \
    M(ABORT, abort, 6, "client -> frontend: end a request")                                                            \
    M(PING, ping, 7, "client <-> frontend: liveness, once a second")                                                   \
    M(STATUS, status, 8, "client -> frontend")                                                                         \
    M(STATUS_REPLY, status_reply, 9, "frontend -> client")                                                             \
    M(DRAIN, drain, 10, "client -> frontend, frontend -> scheduler: accept nothing new")                               \
    M(SUBMIT, submit, 20, "frontend -> scheduler: a validated request")                                                \
    M(ACCEPTED, accepted, 21, "scheduler -> frontend: it will end in its text or in one error")                        \
    M(CANCEL, cancel, 22, "frontend -> scheduler: stop text found, abort, client gone")                                \
    M(OUTPUT, output, 23, "scheduler -> frontend: sampled tokens; finish is sent once a request")                      \
    M(RELEASE, release, 24, "frontend -> scheduler: end delivered")                                                    \
    M(STEP, step, 30, "scheduler -> stage: run one micro-batch")                                                       \
    M(STEP_DONE, step_done, 31, "stage -> scheduler: last stage always, another stage only on failure")                \
    M(RESET, reset, 32, "scheduler -> stage, resharder: new epoch")                                                    \
    M(RESET_DONE, reset_done, 33, "stage, resharder -> scheduler: nothing older runs any more")                        \
    M(RESHARD, reshard, 40, "scheduler -> resharder: move KV of a token range to the decode pool")                     \
    M(RESHARD_DONE, reshard_done, 41, "resharder -> scheduler")                                                        \
    M(STEP_LAYERS, step_layers, 60, "stage -> scheduler: layers of a running prefill step that may be moved already")  \
    M(STORE_GET, store_get, 100, "scheduler -> store: what is known of a prompt outside of the company")               \
    M(STORE_PUT, store_put, 101, "scheduler -> store: pages of a prompt that others may use")                          \
    M(STORE_DONE, store_done, 102, "store -> scheduler")                                                               \
    M(STORE_STATE, store_state, 103, "store -> scheduler: how it does")                                                \
    M(NODE_HELLO, node_hello, 70, "node -> starting command: here is a machine")                                       \
    M(NODE_PLAN, node_plan, 71, "starting command -> node: compute this plan and prepare for it")                      \
    M(NODE_PREPARED, node_prepared, 72, "node -> starting command: weights are packed, or why not")                    \
    M(NODE_JOIN, node_join, 73, "agent of a node -> agent of the head: begin a session")                               \
    M(NODE_WELCOME, node_welcome, 74, "agent of the head -> agent of a node: session of all that follows")             \
    M(NODE_STATE, node_state, 75, "agent of a node -> agent of the head: one of its actors")                           \
    M(NODE_TABLE, node_table, 76, "agent of the head -> agent of a node: entries of a page table")                     \
    M(NODE_BYE, node_bye, 77, "agent <-> agent: this node leaves")                                                     \
    M(KV_REPLY, kv_reply, 78, "resharder -> resharder of the prefill pool's node: hand-off is complete, or a repair")

/* ---- structs ---- */
#define TR_FIELD_MEMBER(kind, name, bound, doc) tr_kind_##kind name;
typedef struct tr_msg_span {
    TR_FIELDS_SPAN(TR_FIELD_MEMBER)
} tr_msg_span;
typedef struct tr_spanv {
    const tr_msg_span *data;
    uint32_t len;
} tr_spanv;
typedef tr_spanv tr_kind_spanv;

#define TR_MSG_STRUCT(NAME, lower, id, doc)                                                                            \
    typedef struct tr_msg_##lower {                                                                                    \
        TR_FIELDS_##NAME(TR_FIELD_MEMBER)                                                                              \
    } tr_msg_##lower;
TR_MSGS(TR_MSG_STRUCT)
#undef TR_MSG_STRUCT

typedef enum tr_msg_type {
    TR_MSG_NONE = 0,
#define X(NAME, lower, id, doc) TR_MSG_##NAME = (id),
    TR_MSGS(X)
#undef X
} tr_msg_type;

/* Any message, decoded. */
typedef struct tr_msg {
    tr_msg_type type;
    union {
#define X(NAME, lower, id, doc) tr_msg_##lower lower;
        TR_MSGS(X)
#undef X
    } as;
} tr_msg;

#endif
