/* transport/wire.h - header of bulk records on data channels: activations, logits, sampled tokens. Raw payload follows.
 * Little endian; 64 bytes, so the payload of an aligned record is 64-byte aligned. */
#ifndef TR_WIRE_H
#define TR_WIRE_H
#include <stdint.h>

typedef enum tr_wire_kind {
    TR_WIRE_ACTIVATION = 1,
    TR_WIRE_LOGITS = 2,
    TR_WIRE_TOKENS = 3,
    TR_WIRE_HIDDEN = 4 /* like logits: final hidden states, as the head of the model sees them */
} tr_wire_kind;

typedef struct tr_wire_header {
    uint32_t kind;
    uint32_t epoch;
    uint64_t step;
    uint64_t rid;  /* logits: request */
    uint32_t pos0; /* logits: position of the first row */
    uint32_t rows;
    uint32_t cols;          /* floats a row */
    uint32_t phase;         /* activation: 1 prefill, 2 decode */
    uint64_t payload_bytes; /* rows * cols * 4; tokens: rows * sizeof(tr_wire_token) */
    uint64_t reserved[2];
} tr_wire_header;
_Static_assert(sizeof(tr_wire_header) == 64, "wire header");

/* What a span of the step sampled. */
typedef struct tr_wire_token {
    uint32_t slot, token;
} tr_wire_token;
#endif
