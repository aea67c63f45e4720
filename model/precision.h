/* model/precision.h - names of the forms that weights and arithmetic of a pipeline can have (docs/models.md). */
#ifndef TR_PRECISION_H
#define TR_PRECISION_H

/* X(NAME, name as in options, precision whose image it runs on): weights and arithmetic of a pipeline. Ids start at 1.
 */
#define TR_PRECISIONS(X)                                                                                               \
    X(BF16, "bf16", BF16)                                                                                              \
    X(INT8, "int8", INT8)                                                                                              \
    X(INT8A16, "int8a16", INT8) /* activations of 16 bits */                                                           \
    X(NATIVE, "native", NATIVE) /* the file's own blocks; tensors that have none: bf16 */                              \
    X(INT4, "int4", INT4)                                                                                              \
    X(NF4, "nf4", NF4)
typedef enum tr_precision {
    TR_PRECISION_NONE,
#define X(name, text, image) TR_PRECISION_##name,
    TR_PRECISIONS(X)
#undef X
        TR_PRECISION_END
} tr_precision;
const char *tr_precision_name(tr_precision p);
/* Precision of that name, or TR_PRECISION_NONE. */
tr_precision tr_precision_of(const char *name);
/* Precision of the image that p runs on. */
tr_precision tr_precision_image(tr_precision p);
#endif
