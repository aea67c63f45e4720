/* base/options_table.h - every option of troupe, once. Topology file, flags, environment, --set, help and
 * docs/options.md all come from this table. */
#ifndef TR_OPTIONS_TABLE_H
#define TR_OPTIONS_TABLE_H

/* X(NAME, name, available now, argument, summary) */
#define TR_COMMANDS(X)                                                                                                 \
    X(RUN, run, 1, "MODEL [PROMPT] | -f TOPOLOGY [PROMPT]", "start a company, stream the continuation, stop")          \
    X(SERVE, serve, 1, "MODEL | -f TOPOLOGY", "start a company and stay")                                              \
    X(GENERATE, generate, 1, "[PROMPT]", "send a prompt to a running company")                                         \
    X(PLAN, plan, 1, "MODEL | -f TOPOLOGY", "show placement and memory, start nothing")                                \
    X(EVAL, eval, 1, "MODEL | -f TOPOLOGY", "perplexity and log-probabilities of a text, through the real actors")     \
    X(TOKENIZE, tokenize, 1, "MODEL", "token ids of a text")                                                           \
    X(BENCH, bench, 1, "model MODEL | model -f TOPOLOGY | kernel [FILTER] | serve",                                    \
      "speed through the real actors, of each operation, or of a server")                                              \
    X(STATUS, status, 1, "", "actors, pools and requests of a running company")                                        \
    X(DRAIN, drain, 1, "", "let a running company accept nothing new")                                                 \
    X(STOP, stop, 1, "", "stop a running company; returns when every process is gone")                                 \
    X(NODE, node, 1, "NAME HEAD@ADDRESS:PORT", "run the part of a company that is planned for this host")              \
    X(KEYGEN, keygen, 1, "DIR NAME...", "make keys for the hosts of a company")                                        \
    X(CALIBRATE, calibrate, 1, "MODEL | -f TOPOLOGY", "measure K and V on a text for the calibrated KV formats")       \
    X(SIMULATE, simulate, 1, "MODEL --costs FILE | -f TOPOLOGY --costs FILE",                                          \
      "a company under load by given costs, start nothing")                                                            \
    X(DOCTOR, doctor, 1, "", "what this machine offers and refuses, size of the cache")                                \
    X(CHAT, chat, 1, "MODEL | -f TOPOLOGY", "a conversation in the terminal, by the model's chat template")            \
    X(TOP, top, 1, "", "watch a running company")                                                                      \
    X(TRACE, trace, 0, "", "trace of a running company")

#define TR_CMD_COMPANY                                                                                                 \
    (TR_CMD_RUN | TR_CMD_SERVE | TR_CMD_PLAN | TR_CMD_EVAL | TR_CMD_BENCH | TR_CMD_SIMULATE | TR_CMD_CHAT)
#define TR_CMD_MODEL  (TR_CMD_COMPANY | TR_CMD_CALIBRATE)
#define TR_CMD_LOAD   (TR_CMD_BENCH | TR_CMD_SIMULATE | TR_CMD_PLAN)
#define TR_CMD_TEXT   (TR_CMD_EVAL | TR_CMD_TOKENIZE | TR_CMD_CALIBRATE)
#define TR_CMD_ASK    (TR_CMD_RUN | TR_CMD_GENERATE)
#define TR_CMD_TALK   (TR_CMD_ASK | TR_CMD_CHAT)
#define TR_CMD_REMOTE (TR_CMD_GENERATE | TR_CMD_STATUS | TR_CMD_DRAIN | TR_CMD_STOP | TR_CMD_TOP)

#define TR_DTYPES "bf16|int8|int8a16|native|int4|nf4;fp16"
/* kernels/kv_page.h has the same names (topology.c looks them up). */
#define TR_KV_NAMES "bf16|int8|int8-static|int8-residual"
#define TR_SIDE_OPTIONS(X, SIDE, side, pp_default, dtype_default)                                                      \
    X(SIDE##_PP, side ".pp", "", 0, U32, 1, 64, 0, pp_default, "", "N", 0, "stages of the " side " pipeline")          \
    X(SIDE##_TP, side ".tp", "", 0, U32, 1, 64, 0, "1", "", "N", 0, "tensor parallel ranks of a stage")                \
    X(SIDE##_DTYPE, side ".dtype", "", 0, CHOICE, 0, 0, 0, dtype_default, TR_DTYPES, "TYPE", 0,                        \
      "weights and arithmetic; int8 is W8A8, native the file's own blocks")                                            \
    X(SIDE##_KV, side ".kv", "", 0, CHOICE, 0, 0, 0, "", TR_KV_NAMES, "TYPE", 0, "KV cache; follows dtype")            \
    X(SIDE##_PAGE, side ".page", "", 0, U32, 16, 64, 0, "16", "", "N", 0, "tokens of a KV page: 16, 32 or 64")         \
    X(SIDE##_LAYERS, side ".layers", "", 0, LIST, 1, 64, 0, "auto", "", "A:B:...", 0, "layers of each stage")          \
    X(SIDE##_BIND, side ".bind", "", 0, CHOICE, 0, 0, 0, "numa", "numa", "HOW", 0,                                     \
      "stages and their memory by NUMA node")                                                                          \
    X(SIDE##_HOSTS, side ".hosts", "", 0, TEXT, 0, 0, 0, "", "", "NAME", 0, "host of its stages; default: the first")

/* X(ID, key, flag, letter, type, min, max, now, default, values, argument, commands, help)
 * - key: name in a topology file and for --set; "" where an option belongs to one call, not to a company
 * - flag: one spelling; "" where only the key exists. The variable is TROUPE_ and the flag (else the key) in capitals
 * - letter: one-letter flag or 0
 * - type: FLAG (no value), U32, U64, SIZE (bytes, K M G T), F64, TEXT, CHOICE, LIST (numbers), SIDE (k=v,...)
 * - min, max: bounds of a number; of the entries of a LIST
 * - now: largest number that this version runs (0: max); above it: "not available yet"
 * - values: CHOICE "a|b", after ';' those that are not available yet; SIDE: prefix of its keys
 * - commands: set of TR_CMD_ bits that take the flag; 0: file and --set only */
#define TR_OPTIONS(X)                                                                                                  \
    X(VERSION, "version", "", 0, U32, 1, 1, 0, "1", "", "1", 0, "version of the topology format")                      \
    X(MODEL, "model", "--model", 'm', TEXT, 0, 0, 0, "", "", "MODEL", TR_CMD_MODEL | TR_CMD_TOKENIZE | TR_CMD_NODE,    \
      "model: a .gguf file, a Hugging Face folder, or a name that scripts/fetch-model stored")                         \
    X(FILE, "", "--file", 'f', TEXT, 0, 0, 0, "", "", "TOPOLOGY", TR_CMD_MODEL, "topology file (YAML)")                \
    X(PREFILL, "", "--prefill", 0, SIDE, 0, 0, 0, "", "prefill", "pp=2,dtype=bf16", TR_CMD_COMPANY,                    \
      "prefill pipeline: pp, tp, dtype, kv, page, layers=6:6:6")                                                       \
    X(DECODE, "", "--decode", 0, SIDE, 0, 0, 0, "", "decode", "pp=3,dtype=int8", TR_CMD_COMPANY, "decode pipeline")    \
    X(UNIFIED, "", "--unified", 0, SIDE, 0, 0, 0, "", "unified", "pp=2,prefill=bf16,decode=int8", TR_CMD_COMPANY,      \
      "one pipeline for both phases: pp, tp, prefill, decode (precisions), page, layers")                              \
    X(SET, "", "--set", 0, TEXT, 0, 0, 0, "", "", "KEY=VALUE", TR_CMD_COMPANY, "any key of the topology (repeatable)") \
    TR_SIDE_OPTIONS(X, PREFILL, "prefill", "1", "bf16")                                                                \
    TR_SIDE_OPTIONS(X, DECODE, "decode", "1", "int8")                                                                  \
    X(UNIFIED_PP, "unified.pp", "", 0, U32, 1, 64, 0, "1", "", "N", 0, "stages")                                       \
    X(UNIFIED_TP, "unified.tp", "", 0, U32, 1, 64, 0, "1", "", "N", 0, "tensor parallel ranks of a stage")             \
    X(UNIFIED_PREFILL, "unified.prefill", "", 0, CHOICE, 0, 0, 0, "bf16", TR_DTYPES, "TYPE", 0,                        \
      "precision of prefill")                                                                                          \
    X(UNIFIED_DECODE, "unified.decode", "", 0, CHOICE, 0, 0, 0, "int8", TR_DTYPES, "TYPE", 0, "precision of decode")   \
    X(UNIFIED_DTYPE, "unified.dtype", "", 0, CHOICE, 0, 0, 0, "", TR_DTYPES, "TYPE", 0,                                \
      "one precision for both phases")                                                                                 \
    X(UNIFIED_KV, "unified.kv", "", 0, CHOICE, 0, 0, 0, "", TR_KV_NAMES, "TYPE", 0,                                    \
      "one KV format for both phases; each follows its precision otherwise")                                           \
    X(UNIFIED_PAGE, "unified.page", "", 0, U32, 16, 64, 0, "16", "", "N", 0, "tokens of a KV page: 16, 32 or 64")      \
    X(UNIFIED_LAYERS, "unified.layers", "", 0, LIST, 1, 64, 0, "auto", "", "A:B:...", 0, "layers of each stage")       \
    X(UNIFIED_BIND, "unified.bind", "", 0, CHOICE, 0, 0, 0, "numa", "numa", "HOW", 0,                                  \
      "stages and their memory by NUMA node")                                                                          \
    X(UNIFIED_HOSTS, "unified.hosts", "", 0, TEXT, 0, 0, 0, "", "", "NAME", 0,                                         \
      "host of its stages; default: the first")                                                                        \
    X(LEASE_ACTOR, "lease.actor_ms", "", 0, U32, 100, 600000, 0, "1000", "", "MS", 0,                                  \
      "an actor with work that gives no sign of life for this long is killed and started again")                       \
    X(LEASE_LINK, "lease.link_ms", "", 0, U32, 50, 60000, 0, "250", "", "MS", 0,                                       \
      "silence between hosts that counts as a broken link; up to four times as much beside busy processes")            \
    X(LEASE_AWAY, "lease.away_s", "", 0, U32, 1, 3600, 0, "10", "", "S", 0,                                            \
      "a host that stays away for this long ends the company")                                                         \
    X(HANDOFF_ON_FAILURE, "handoff.on_failure", "", 0, CHOICE, 0, 0, 0, "recompute", "recompute", "HOW", 0,            \
      "what a lost hand-off leads to")                                                                                 \
    X(HANDOFF_SAVE_DIR, "handoff.save_dir", "", 0, TEXT, 0, 0, 0, "", "", "FOLDER", 0,                                 \
      "where clients may save and restore sequences by name; empty: nowhere")                                          \
    X(KV_STORE, "kv.store", "", 0, TEXT, 0, 0, 0, "", "", "ADDRESS", 0,                                                \
      "server of the Redis protocol that keeps prefixes of prompts: redis://ADDRESS:PORT/DB or unix:///PATH")          \
    X(KV_STORE_TIMEOUT, "kv.store_timeout_ms", "", 0, U32, 1, 10000, 0, "50", "", "MS", 0,                             \
      "for a question to it, and for each 4 MiB of an answer; then the prompt is computed")                            \
    X(KV_STORE_PASSWORD, "kv.store_password_file", "", 0, TEXT, 0, 0, 0, "", "", "FILE", 0,                            \
      "first line: its password; beyond this machine there must be one")                                               \
    X(KV_STORE_SECRET, "kv.store_secret_file", "", 0, TEXT, 0, 0, 0, "", "", "FILE", 0,                                \
      "first line: secret of all companies that share it; what was made without is not believed")                      \
    X(POLICY, "scheduler.policy", "", 0, CHOICE, 0, 0, 0, "sarathi", "sarathi|prefill-first|decode-first|fcfs|mlfq",   \
      "NAME", 0, "what runs next: sarathi keeps streams smooth, fcfs takes whole requests; scheduler/policy.h")        \
    X(FAIR, "scheduler.fair", "", 0, CHOICE, 0, 0, 0, "on", "on|off", "on|off", 0,                                     \
      "who has had less of the company is let in first, of equal priority")                                            \
    X(CHUNK, "scheduler.chunk", "--chunk", 0, U32, 1, 4096, 0, "256", "", "N", TR_CMD_COMPANY,                         \
      "prompt tokens of one prefill step at most")                                                                     \
    X(MAX_BATCH, "scheduler.max_batch", "", 0, U32, 1, 256, 0, "", "", "N", 0,                                         \
      "sequences of one decode step at most; 16, in run and eval what is asked")                                       \
    X(MAX_WAITING, "scheduler.max_waiting", "", 0, U32, 1, 4096, 0, "64", "", "N", 0,                                  \
      "requests that may wait; more are refused")                                                                      \
    X(CORES, "scheduler.cores", "", 0, CHOICE, 0, 0, 0, "auto", "auto|own|shared", "HOW", 0,                           \
      "stages on cores of their own, or all on the same ones in turn")                                                 \
    X(ITL_SLO, "scheduler.itl_slo_ms", "--itl-slo-ms", 0, F64, 0, 60000, 0, "0", "", "MS",                             \
      TR_CMD_RUN | TR_CMD_SERVE | TR_CMD_PLAN | TR_CMD_SIMULATE,                                                       \
      "longest time between two tokens of a stream that is wanted, fractions too: prompts get what is left of it; "    \
      "0: every request an equal share")                                                                               \
    X(KV_MEMORY, "scheduler.kv_memory", "--kv-memory", 0, SIZE, 4096, 1ull << 50, 0, "", "", "SIZE", TR_CMD_COMPANY,   \
      "KV cache in all, over both pools; default: what the request needs; serve: the smaller of a quarter of the "     \
      "memory and eight full contexts")                                                                                \
    X(KV_CALIBRATION, "scheduler.kv_calibration", "--kv-calibration", 0, TEXT, 0, 0, 0, "", "", "FILE", TR_CMD_MODEL,  \
      "of the calibrated KV formats, made by troupe calibrate; default: in the cache of packed models")                \
    X(CONTEXT, "scheduler.context", "--context", 'c', U32, 1, 131072, 0, "", "", "N", TR_CMD_COMPANY,                  \
      "longest sequence, prompt and output together; default: what is asked, serve: what the model can")               \
    X(PREFIX_CACHE, "scheduler.prefix_cache", "--prefix-cache", 0, CHOICE, 0, 0, 0, "on", "on|off", "on|off",          \
      TR_CMD_RUN | TR_CMD_SERVE, "a prompt uses what the pools still hold of one with the same beginning")             \
    X(WATERMARK, "scheduler.watermark", "", 0, U32, 0, 90, 0, "0", "", "PERCENT", 0,                                   \
      "part of the KV pages that stays unpromised while anything runs")                                                \
    X(RESERVE, "scheduler.reserve", "", 0, CHOICE, 0, 0, 0, "prompt", "prompt|full", "HOW", 0,                         \
      "KV pages set aside for a request that is let in: for its prompt, and it grows, or up to max_tokens")            \
    X(SWAP_MEMORY, "scheduler.swap_memory", "", 0, SIZE, 0, 1ull << 50, 0, "0", "", "SIZE", 0,                         \
      "swap space for the KV of requests that give way, where that is cheaper than to compute them again; 0: none")    \
    X(SWAP_FILE, "scheduler.swap_file", "", 0, TEXT, 0, 0, 0, "", "", "FILE", 0,                                       \
      "the swap space lies in this file, not in memory")                                                               \
    X(THREADS, "scheduler.threads", "--threads", 't', U32, 1, 1024, 0, "", "", "N", TR_CMD_MODEL,                      \
      "cores to use, over all stages; default: all")                                                                   \
    X(TRANSPORT_LOCAL, "transport.local", "", 0, CHOICE, 0, 0, 0, "shm", "shm|zmq", "HOW", 0,                          \
      "between actors of a node: shared-memory rings or ZeroMQ")                                                       \
    X(TRANSPORT_REMOTE, "transport.remote", "", 0, CHOICE, 0, 0, 0, "tcp", "tcp", "HOW", 0, "between hosts")           \
    X(TRANSPORT_GPU, "transport.gpu", "", 0, CHOICE, 0, 0, 0, "", ";nccl|ipc", "HOW", 0, "between GPUs")               \
    X(TRANSPORT_CURVE, "transport.curve", "", 0, CHOICE, 0, 0, 0, "auto", "auto|on|off", "HOW", 0,                     \
      "encryption and keys between hosts; off is possible on loopback alone, where auto takes keys if there are any")  \
    X(TRANSPORT_KEYS, "transport.keys", "--keys", 0, TEXT, 0, 0, 0, "", "", "DIR", TR_CMD_COMPANY | TR_CMD_NODE,       \
      "folder with NAME.key of this host and NAME.pub of the others; troupe keygen makes them")                        \
    X(ENDPOINT, "server.endpoint", "--endpoint", 0, TEXT, 0, 0, 0, "", "", "ADDRESS", TR_CMD_SERVE,                    \
      "ZeroMQ endpoint: ipc://PATH or tcp://127.0.0.1:PORT; default: a socket in the runtime folder")                  \
    X(SERVED_NAME, "server.served_model_name", "--served-model-name", 0, TEXT, 0, 0, 0, "", "", "NAME", TR_CMD_SERVE,  \
      "name that clients see; default: name of the model file")                                                        \
    X(HOST, "server.host", "--host", 0, TEXT, 0, 0, 0, "127.0.0.1", "", "ADDRESS", TR_CMD_SERVE,                       \
      "address of the HTTP server")                                                                                    \
    X(PORT, "server.port", "--port", 0, U32, 0, 65535, 0, "", "", "N", TR_CMD_SERVE,                                   \
      "serve the OpenAI API by HTTP on this port; 0: any free one")                                                    \
    X(API_KEY_FILE, "server.api_key_file", "", 0, TEXT, 0, 0, 0, "", "", "FILE", 0,                                    \
      "keys that HTTP requests must carry, one a line")                                                                \
    X(METRICS, "server.metrics", "", 0, TEXT, 0, 0, 0, "", "", "on|off", 0, "HTTP: not available yet")                 \
    X(HOSTS, "hosts", "", 0, TEXT, 0, 0, 0, "", "", "NAME@ADDRESS:PORT,NAME,...", 0,                                   \
      "hosts of the company; the first is the head, which listens at that address for the others")                     \
    X(PREDICT, "", "--predict", 'n', U32, 1, 131072, 0, "256", "", "N", TR_CMD_TALK, "tokens to generate at most")     \
    X(TEMP, "", "--temp", 0, F64, 0, 100, 0, "0", "", "T", TR_CMD_TALK, "temperature; 0 is greedy")                    \
    X(TOP_K, "", "--top-k", 0, U32, 0, 2097152, 0, "0", "", "K", TR_CMD_TALK, "draw among the K likeliest; 0: off")    \
    X(TOP_P, "", "--top-p", 0, F64, 0, 1, 0, "1", "", "P", TR_CMD_TALK, "draw among the likeliest of mass P; 1: off")  \
    X(MIN_P, "", "--min-p", 0, F64, 0, 1, 0, "0", "", "P", TR_CMD_TALK,                                                \
      "draw among tokens at least P times as likely as the likeliest; 0: off")                                         \
    X(PRESENCE, "", "--presence-penalty", 0, F64, 0, 2, 0, "0", "", "X", TR_CMD_TALK,                                  \
      "off the logits of tokens that were generated")                                                                  \
    X(FREQUENCY, "", "--frequency-penalty", 0, F64, 0, 2, 0, "0", "", "X", TR_CMD_TALK,                                \
      "off the logits of tokens, for each time that they were generated")                                              \
    X(REPETITION, "", "--repetition-penalty", 0, F64, 0, 100, 0, "1", "", "X", TR_CMD_TALK,                            \
      "logits of tokens of prompt and output are divided by it; 1: off")                                               \
    X(MIN_TOKENS, "", "--min-tokens", 0, U32, 0, 131072, 0, "0", "", "N", TR_CMD_TALK, "no end before so many tokens") \
    X(SEED, "", "--seed", 0, U64, 0, 0, 0, "0", "", "N", TR_CMD_TALK | TR_CMD_LOAD, "key of the draws")                \
    X(SAMPLES, "", "--samples", 0, U32, 1, 16, 0, "1", "", "N", TR_CMD_ASK,                                            \
      "samples of the prompt, one text after the other; see --temp and --seed")                                        \
    X(STOP_TEXT, "", "--stop", 0, TEXT, 0, 0, 0, "", "", "TEXT", TR_CMD_TALK, "end the output here (repeatable)")      \
    X(IGNORE_EOS, "", "--ignore-eos", 0, FLAG, 0, 0, 0, "", "", "", TR_CMD_TALK, "go on past the end token")           \
    X(CHAT, "", "--chat", 0, FLAG, 0, 0, 0, "", "", "", TR_CMD_RUN, "a conversation, as troupe chat")                  \
    X(SYSTEM, "", "--system", 0, TEXT, 0, 0, 0, "", "", "TEXT", TR_CMD_RUN | TR_CMD_CHAT,                              \
      "what the system says first")                                                                                    \
    X(SAVE, "", "--save", 0, TEXT, 0, 0, 0, "", "", "FILE", TR_CMD_ASK, "save the sequence and its KV at the end")     \
    X(RESTORE, "", "--restore", 0, TEXT, 0, 0, 0, "", "", "FILE", TR_CMD_ASK, "go on where a saved sequence ended")    \
    X(QUIET, "", "--quiet", 'q', FLAG, 0, 0, 0, "", "", "", TR_CMD_TALK, "no table on stderr")                         \
    X(NO_BOS, "", "--no-bos", 0, FLAG, 0, 0, 0, "", "", "", TR_CMD_ASK | TR_CMD_TEXT, "leave out the begin token")     \
    X(SPECIAL, "", "--special", 0, FLAG, 0, 0, 0, "", "", "", TR_CMD_ASK | TR_CMD_TEXT,                                \
      "special tokens written in the text become tokens")                                                              \
    X(NAME, "", "--name", 0, TEXT, 0, 0, 0, "", "", "NAME",                                                            \
      TR_CMD_RUN | TR_CMD_SERVE | TR_CMD_CHAT | TR_CMD_EVAL | TR_CMD_BENCH | TR_CMD_REMOTE,                            \
      "name of the company; default: default, for run, eval and bench run-PID")                                        \
    X(CONNECT, "", "--connect", 0, TEXT, 0, 0, 0, "", "", "ENDPOINT", TR_CMD_REMOTE,                                   \
      "endpoint of the company, instead of --name")                                                                    \
    X(TEXT_FILE, "", "--text", 0, TEXT, 0, 0, 0, "", "", "FILE", TR_CMD_TEXT, "file, byte for byte; - is stdin")       \
    X(PATH, "", "--path", 0, CHOICE, 0, 0, 0, "handoff", "prefill|decode|handoff", "PATH", TR_CMD_EVAL,                \
      "which actors compute the positions")                                                                            \
    X(TOPK, "", "--topk", 0, U32, 0, 4096, 0, "0", "", "K", TR_CMD_EVAL,                                               \
      "log-probabilities of the K likeliest tokens")                                                                   \
    X(COMPARE_KV, "", "--compare-kv", 0, FLAG, 0, 0, 0, "", "", "", TR_CMD_EVAL,                                       \
      "each KV format on both sides against bf16: KL, perplexity, bytes and time of a token")                          \
    X(LOGITS, "", "--logits", 0, TEXT, 0, 0, 0, "", "", "FILE", TR_CMD_EVAL,                                           \
      "write the logits as .npy [positions, vocabulary]")                                                              \
    X(JSON, "", "--json", 0, FLAG, 0, 0, 0, "", "", "",                                                                \
      TR_CMD_PLAN | TR_CMD_EVAL | TR_CMD_TOKENIZE | TR_CMD_STATUS | TR_CMD_DOCTOR | TR_CMD_SIMULATE,                   \
      "machine-readable output")                                                                                       \
    X(VERIFY, "", "--verify", 0, FLAG, 0, 0, 0, "", "", "", TR_CMD_PLAN,                                               \
      "prove that the hand-off plan moves every cell once")                                                            \
    X(CLEAR_CACHE, "", "--clear-cache", 0, FLAG, 0, 0, 0, "", "", "", TR_CMD_DOCTOR,                                   \
      "empty the cache of packed models")                                                                              \
    X(ONCE, "", "--once", 0, FLAG, 0, 0, 0, "", "", "", TR_CMD_TOP, "one table, of the next second")                   \
    X(DRAIN_STOP, "", "--and-stop", 0, FLAG, 0, 0, 0, "", "", "", TR_CMD_DRAIN, "stop when the last stream has ended") \
    X(BENCH_P, "", "--prompt-tokens", 'p', LIST, 1, 16, 0, "512", "", "N,...", TR_CMD_LOAD, "prompt lengths")          \
    X(BENCH_N, "", "--gen-tokens", 'n', LIST, 1, 16, 0, "64", "", "N,...", TR_CMD_LOAD, "generated lengths")           \
    X(BENCH_B, "", "--batch", 'b', LIST, 1, 16, 0, "1", "", "N,...", TR_CMD_BENCH, "sequences at once")                \
    X(BENCH_D, "", "--depth", 'd', U32, 0, 131072, 0, "0", "", "N", TR_CMD_BENCH, "context before the test")           \
    X(BENCH_R, "", "--repetitions", 'r', U32, 1, 1000, 0, "3", "", "N", TR_CMD_BENCH, "repetitions")                   \
    X(BENCH_DTYPE, "", "--dtype", 0, CHOICE, 0, 0, 0, "", TR_DTYPES, "TYPE", TR_CMD_BENCH,                             \
      "both phases in this precision")                                                                                 \
    X(BENCH_OUT, "", "--output", 'o', CHOICE, 0, 0, 0, "md", "md|json|csv", "FORMAT", TR_CMD_BENCH,                    \
      "form of the result")                                                                                            \
    X(URL, "", "--url", 0, TEXT, 0, 0, 0, "http://127.0.0.1:8000", "", "URL", TR_CMD_BENCH,                            \
      "serve: the server, troupe or any other with the OpenAI API; OPENAI_API_KEY holds its key")                      \
    X(REQUESTS, "", "--num-prompts", 0, U32, 1, 1000000, 0, "100", "", "N", TR_CMD_LOAD,                               \
      "load: requests; of a trace the first N, default all")                                                           \
    X(RATE, "", "--request-rate", 0, F64, 0, 100000, 0, "0", "", "R", TR_CMD_LOAD,                                     \
      "load: requests a second on average; 0: all at once, of a trace its own times")                                  \
    X(CONCURRENCY, "", "--max-concurrency", 0, U32, 0, 1024, 0, "0", "", "N", TR_CMD_LOAD,                             \
      "load: requests open at the same time, at most; 0: 1024")                                                        \
    X(SPREAD, "", "--length-spread", 0, F64, 0, 1, 0, "0", "", "S", TR_CMD_LOAD,                                       \
      "load: lengths are uniform in [1 - S, 1 + S] times -p and -n")                                                   \
    X(LENGTHS, "", "--lengths", 0, CHOICE, 0, 0, 0, "uniform", "uniform|normal|lognormal", "HOW", TR_CMD_LOAD,         \
      "load: how lengths vary; normal and lognormal: S times the mean is their standard deviation")                    \
    X(BURSTINESS, "", "--burstiness", 0, F64, 0, 1000, 0, "1", "", "B", TR_CMD_LOAD,                                   \
      "load: shape of the gaps between arrivals (gamma); 1: Poisson, less: bursts, more: even")                        \
    X(TRACE, "", "--trace", 0, TEXT, 0, 0, 0, "", "", "FILE", TR_CMD_LOAD,                                             \
      "load: arrivals and lengths from a trace, .csv (Azure) or .jsonl (Mooncake)")                                    \
    X(LENGTH_SCALE, "", "--length-scale", 0, F64, 0, 1000, 0, "1", "", "X", TR_CMD_LOAD,                               \
      "load: factor on the lengths of a trace")                                                                        \
    X(PROMPT_MAX, "", "--prompt-max", 0, U32, 1, 131072, 0, "131072", "", "N", TR_CMD_LOAD,                            \
      "load: longer prompts are cut to N tokens")                                                                      \
    X(GOODPUT, "", "--goodput", 0, TEXT, 0, 0, 0, "", "", "ttft:MS,itl:MS,...", TR_CMD_LOAD,                           \
      "load: count the requests within these limits; also tpot and e2el")                                              \
    X(COSTS, "", "--costs", 0, TEXT, 0, 0, 0, "", "", "FILE", TR_CMD_PLAN | TR_CMD_BENCH | TR_CMD_SIMULATE,            \
      "what steps and links cost, JSON; bench model measures and writes it")                                           \
    X(MEASURE, "", "--measure", 0, FLAG, 0, 0, 0, "", "", "", TR_CMD_PLAN,                                             \
      "start the company, measure its costs (half a minute and more), and predict by them; --costs keeps them")        \
    X(COMPARE, "", "--compare", 0, FLAG, 0, 0, 0, "", "", "", TR_CMD_PLAN,                                             \
      "predict other topologies too, and say whether two pipelines are worth it")                                      \
    X(REPLICAS, "", "--replicas", 0, U32, 1, 256, 0, "1", "", "N", TR_CMD_SIMULATE,                                    \
      "so many of these companies; a request goes to the one with the fewest tokens open")                             \
    X(SIM_POLICY, "", "--policy", 0, CHOICE, 0, 0, 0, "", "sarathi|prefill-first|decode-first|fcfs|mlfq|gpipe",        \
      "NAME", TR_CMD_SIMULATE, "instead of scheduler.policy; gpipe: fill and drain")                                   \
    X(HELP, "", "--help", 'h', FLAG, 0, 0, 0, "", "", "", TR_CMD_ALL, "this text")

/* Where the help of a command says less or something else than the page of all options: X(ID, commands, help). */
#define TR_OPTION_HELPS(X)                                                                                             \
    X(BENCH_P, TR_CMD_SIMULATE | TR_CMD_PLAN, "mean prompt length")                                                    \
    X(BENCH_N, TR_CMD_SIMULATE | TR_CMD_PLAN, "mean output length")                                                    \
    X(COSTS, TR_CMD_PLAN, "predict by these costs of steps and links; with --measure: write them there")               \
    X(REQUESTS, TR_CMD_PLAN, "load of the prediction: requests; default 48")                                           \
    X(CONCURRENCY, TR_CMD_PLAN, "load: requests open at the same time; default 8, with a rate or a trace any number")  \
    X(KV_MEMORY, TR_CMD_SERVE | TR_CMD_PLAN | TR_CMD_SIMULATE,                                                         \
      "KV cache in all, over both pools; default: the smaller of a quarter of the memory and eight full contexts")     \
    X(KV_MEMORY, TR_CMD_RUN, "KV cache in all, over both pools; default: what the prompt and -n need")                 \
    X(KV_MEMORY, TR_CMD_EVAL, "KV cache in all, over both pools; default: what the text needs")                        \
    X(KV_MEMORY, TR_CMD_BENCH, "KV cache in all, over both pools; default: what the tests need")                       \
    X(CONTEXT, TR_CMD_SERVE | TR_CMD_PLAN | TR_CMD_SIMULATE,                                                           \
      "longest sequence, prompt and output together; default: what the model can")                                     \
    X(CONTEXT, TR_CMD_RUN, "longest sequence, prompt and output together; default: what the prompt and -n need")       \
    X(CONTEXT, TR_CMD_EVAL, "longest text in tokens; default: as long as it is")                                       \
    X(CONTEXT, TR_CMD_BENCH, "longest sequence, prompt and output together; default: what the tests need")             \
    X(NAME, TR_CMD_SERVE, "name of the company, by which other commands find it [default]")                            \
    X(NAME, TR_CMD_RUN | TR_CMD_EVAL | TR_CMD_BENCH, "name of the company while it runs [run-PID]")                    \
    X(NAME, TR_CMD_REMOTE, "name of the running company [default]")                                                    \
    X(CONNECT, TR_CMD_REMOTE, "endpoint of the running company, instead of --name")                                    \
    X(MODEL, TR_CMD_NODE, "model file or stored name; default: the path that the head names")
#endif
