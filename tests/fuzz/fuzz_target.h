/* tests/fuzz/fuzz_target.h - what every fuzz target defines (libFuzzer's entry point). Returns 0. */
#ifndef TR_FUZZ_TARGET_H
#define TR_FUZZ_TARGET_H
#include <stddef.h>
#include <stdint.h>
/* Visible, since the project hides symbols by default. */
__attribute__((visibility("default"))) int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
#endif
