/* base/options_foreign.h - flags of other programs and what to write instead; only options_parse.c reads it. */
#ifndef TR_OPTIONS_FOREIGN_H
#define TR_OPTIONS_FOREIGN_H
/* X(flag, hint) */
#define TR_FOREIGN_FLAGS(X)                                                                                            \
    X("--tensor-parallel-size", "use --decode tp=N or --prefill tp=N")                                                 \
    X("-tp", "use --decode tp=N or --prefill tp=N")                                                                    \
    X("--tp-size", "use --decode tp=N or --prefill tp=N")                                                              \
    X("--tp", "use --decode tp=N or --prefill tp=N")                                                                   \
    X("--pipeline-parallel-size", "use --decode pp=N or --prefill pp=N")                                               \
    X("-pp", "use --decode pp=N or --prefill pp=N")                                                                    \
    X("--pp-size", "use --decode pp=N or --prefill pp=N")                                                              \
    X("--pp", "use --decode pp=N or --prefill pp=N")                                                                   \
    X("--data-parallel-size", "data parallelism is not available yet: start several companies")                        \
    X("-dp", "data parallelism is not available yet: start several companies")                                         \
    X("--dp-size", "data parallelism is not available yet: start several companies")                                   \
    X("--context-tensor-parallel-size", "use --prefill tp=N")                                                          \
    X("--context-pipeline-parallel-size", "use --prefill pp=N")                                                        \
    X("--decoding-tensor-parallel-size", "use --decode tp=N")                                                          \
    X("--decoding-pipeline-parallel-size", "use --decode pp=N")                                                        \
    X("--disaggregation-mode", "use --prefill pp=N --decode pp=N: one company runs both")                              \
    X("--kv-transfer-config", "the hand-off needs no setting: use --prefill and --decode")                             \
    X("--layer-split", "use --decode layers=A:B:C")                                                                    \
    X("-ts", "use --decode layers=A:B:C")                                                                              \
    X("--tensor-split", "use --decode layers=A:B:C")                                                                   \
    X("--max-model-len", "use -c N")                                                                                   \
    X("--context-length", "use -c N")                                                                                  \
    X("--ctx-size", "use -c N")                                                                                        \
    X("--max-num-seqs", "use --set scheduler.max_batch=N")                                                             \
    X("--max-running-requests", "use --set scheduler.max_batch=N")                                                     \
    X("-np", "use --set scheduler.max_batch=N")                                                                        \
    X("--parallel", "use --set scheduler.max_batch=N")                                                                 \
    X("--max-num-batched-tokens", "use --chunk N")                                                                     \
    X("--chunked-prefill-size", "use --chunk N")                                                                       \
    X("-ub", "use --chunk N")                                                                                          \
    X("--ubatch-size", "use --chunk N")                                                                                \
    X("--batch-size", "use --chunk N")                                                                                 \
    X("--kv-cache-dtype", "use --decode kv=int8")                                                                      \
    X("-ctk", "use --decode kv=int8")                                                                                  \
    X("-ctv", "use --decode kv=int8")                                                                                  \
    X("--cache-type-k", "use --decode kv=int8")                                                                        \
    X("--cache-type-v", "use --decode kv=int8")                                                                        \
    X("--block-size", "use --decode page=16")                                                                          \
    X("--page-size", "use --decode page=16")                                                                           \
    X("--quantization", "use --decode dtype=int8")                                                                     \
    X("--gpu-memory-utilization", "use --kv-memory SIZE")                                                              \
    X("--mem-fraction-static", "use --kv-memory SIZE")                                                                 \
    X("--model-path", "give the model as the first argument, or --model")                                              \
    X("--config", "use -f TOPOLOGY")                                                                                   \
    X("--prompt", "give the prompt as an argument")                                                                    \
    X("--n-predict", "use -n N")                                                                                       \
    X("--max-tokens", "use -n N")                                                                                      \
    X("--max-new-tokens", "use -n N")                                                                                  \
    X("--temperature", "use --temp T")                                                                                 \
    X("-s", "use --seed N")                                                                                            \
    X("-tb", "use -t N: one number of cores for both phases")                                                          \
    X("--threads-batch", "use -t N: one number of cores for both phases")                                              \
    X("-ngl", "GPUs are not available yet in this version")                                                            \
    X("--n-gpu-layers", "GPUs are not available yet in this version")                                                  \
    X("-fa", "there is nothing to set: attention is always computed in tiles")                                         \
    X("--flash-attn", "there is nothing to set: attention is always computed in tiles")                                \
    X("--numa", "stages are bound to NUMA nodes by themselves; see troupe plan")                                       \
    X("--numa-bind", "stages are bound to NUMA nodes by themselves; see troupe plan")                                  \
    X("--cpu-mask", "use taskset or a cpuset, and -t N")                                                               \
    X("--cpu-range", "use taskset or a cpuset, and -t N")                                                              \
    X("--tokenizer", "the tokenizer is read from the model file")                                                      \
    X("--load-format", "the format is told from the file")                                                             \
    X("--chat-template", "the model's own template is used; see POST /v1/chat/completions")                            \
    X("--api-key", "use --set server.api_key_file=FILE")                                                               \
    X("--dry-run", "use troupe plan")                                                                                  \
    X("--enable-chunked-prefill", "prefill is always chunked; see --chunk")                                            \
    X("--enable-prefix-caching", "prefix caching is on already; see --prefix-cache")                                   \
    X("--no-enable-prefix-caching", "use --prefix-cache off")                                                          \
    X("--no-prefix-cache", "use --prefix-cache off")                                                                   \
    X("--version", "use troupe --version")
#endif
