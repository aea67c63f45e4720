/* model/tokenizer_impl.h - the tables of a tokenizer, seen by the files model/tokenizer*.c only (and their tests).
 * Files: tokenizer_load (GGUF -> tables), tokenizer_json (tokenizer.json -> tables), tokenizer_file (tables <-> a file
 * that is mapped), tokenizer_names (roles by text), tokenizer_special (tokens found in the raw text), tokenizer_spm and
 * tokenizer_bpe (one fragment -> ids), tokenizer_merge (their common loop). */
#ifndef TR_TOKENIZER_IMPL_H
#define TR_TOKENIZER_IMPL_H
#include "base/file_map.h"
#include "model/pretokenize.h"
#include "model/tokenizer.h"
#include "model/tokenizer_map.h"
#include "model/tokenizer_merge.h"

/* Bits of a token; several may be set (a user-defined token that is known to end a turn is control too). */
enum {
    TR_TOKENIZER_NORMAL = 1,
    TR_TOKENIZER_UNKNOWN = 2,
    TR_TOKENIZER_CONTROL = 4,
    TR_TOKENIZER_USER = 8,
    TR_TOKENIZER_UNUSED = 16,
    TR_TOKENIZER_BYTE = 32,
    TR_TOKENIZER_RSTRIP = 64, /* takes the white space behind it (Phi-3) */
    TR_TOKENIZER_EOG = 128,
};

enum { TR_TOKENIZER_ALPHABET = 324 }; /* code points that stand for the 256 bytes lie below this */

typedef enum tr_tokenizer_kind { TR_TOKENIZER_SPM, TR_TOKENIZER_BPE } tr_tokenizer_kind;

/* Fragments (of a text cut at special tokens) that get a blank in front, where add_space_prefix says so. */
typedef enum tr_tokenizer_prefix {
    TR_TOKENIZER_PREFIX_EACH,
    TR_TOKENIZER_PREFIX_UNLESS_BLANK, /* each that does not begin with one */
    TR_TOKENIZER_PREFIX_FIRST,        /* the one at the start of the text, unless it begins with one */
} tr_tokenizer_prefix;

/* Entry of the merge table; rank TR_TOKENIZER_NONE is free. */
typedef struct tr_tokenizer_rule {
    uint32_t left, right, rank, result; /* tokens; rank is the place in the merge list */
} tr_tokenizer_rule;

/* Trie of the texts that are looked for in raw text. Node 0 is the root. */
typedef struct tr_tokenizer_node {
    uint32_t child, sibling; /* node, 0 for none */
    uint32_t rank;           /* place in order[] of the token that ends here, or TR_TOKENIZER_NONE */
    uint8_t byte;
} tr_tokenizer_node;

struct tr_tokenizer {
    tr_tokenizer_kind kind;
    tr_pretokenize_kind pre;
    tr_tokenizer_prefix prefix_rule;
    bool add_bos, add_space_prefix, ignore_merges;
    bool nfc;      /* BPE: a fragment is brought into Unicode normalization form C first */
    bool declared; /* from a tokenizer.json: special tokens are what it declares, not what their names say, and are
                      found in raw text leftmost first; byte symbols that are no token leave nothing to merge across */
    uint32_t n_tokens;
    uint32_t bos, eos, eot, eom, unk;
    uint32_t fim_prefix, fim_suffix, fim_middle, fim_pad, fim_repo, fim_sep;
    size_t max_len; /* bytes of the longest token */

    bool borrowed;    /* bytes to rules lie in the file, or in memory of somebody else */
    tr_file_map file; /* see tokenizer_file.h */

    char *bytes;              /* arena of all texts, in id order without gaps */
    tr_tokenizer_span *spans; /* [n_tokens] */
    uint8_t *attrs;           /* [n_tokens] */
    uint32_t *priorities;     /* [n_tokens] SPM without rules: order-preserving image of the score, best is lowest */
    tr_tokenizer_map map;
    uint32_t byte_ids[256]; /* token of a byte that no other token covers, or TR_TOKENIZER_NONE */

    uint16_t byte_point[256];                  /* BPE: code point that stands for a byte */
    int16_t point_byte[TR_TOKENIZER_ALPHABET]; /* the inverse; -1 for none */
    tr_tokenizer_rule *rules;                  /* [rules_mask + 1] BPE, and SPM of a tokenizer.json */
    uint64_t rules_mask;

    uint32_t *order; /* [n_special] tokens looked for in raw text: longest first, then lowest id */
    uint32_t n_special;
    bool any_user; /* some of them are found without TR_TOKENIZE_PARSE_SPECIAL */
    tr_tokenizer_node *nodes;
    uint32_t root[256]; /* children of the root by byte, 0 for none */
};

/* Ids written so far; n goes on counting past cap. */
typedef struct tr_tokenizer_sink {
    uint32_t *ids;
    size_t cap, n;
} tr_tokenizer_sink;

static inline void tr_tokenizer_emit(tr_tokenizer_sink *sink, uint32_t id) {
    if (sink->n < sink->cap) sink->ids[sink->n] = id;
    sink->n++;
}

/* encode that also reports its work: heap moves, pair lookups and trie steps (work_out may be NULL). */
tr_status tr_tokenizer_encode_counted(const tr_tokenizer *t, const char *text, size_t len, unsigned flags,
                                      uint32_t *ids, size_t cap, size_t *n_out, int64_t *work_out, tr_error *err);
#endif
