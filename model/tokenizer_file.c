/* model/tokenizer_file.c - see the header.
 * Layout: header, then the tables in the order of enum section, each at the next multiple of 64. Their places follow
 * from the counts in the header, so there is no offset that could be wrong; the size of the file must be what they add
 * up to. What is quick to make is not stored: the byte alphabet and the trie of special tokens. */
#include "model/tokenizer_file.h"

#include "base/checked.h"
#include "base/file_map.h"
#include "model/tokenizer_bpe.h"
#include "model/tokenizer_impl.h"
#include "model/tokenizer_special.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define MAGIC 0x314b4f5455505254ull /* "TRPUTOK1" */

enum { ALIGN = 64, N_ROLES = 11 };

typedef struct header {
    uint64_t magic;
    uint64_t check; /* XXH3 of all that follows this field */
    uint32_t version;
    uint32_t kind, pre; /* tr_tokenizer_kind, tr_pretokenize_kind */
    uint32_t add_bos, add_space_prefix, ignore_merges;
    uint64_t model_hash;
    uint64_t max_len;
    uint64_t n_bytes; /* of the arena */
    uint64_t n_slots; /* of the index by text */
    uint64_t n_rules; /* of the merge table; 0: SentencePiece by scores */
    uint32_t n_tokens;
    uint32_t role[N_ROLES];
    uint32_t byte_ids[256];
    uint32_t prefix_rule, declared, nfc;
} header;

enum section { BYTES, SPANS, ATTRS, PRIORITIES, SLOTS, RULES, N_SECTIONS };

/* Where the tables lie. */
typedef struct layout {
    uint64_t begin[N_SECTIONS], bytes[N_SECTIONS], end;
} layout;

/* False: the counts add up to no 64-bit number. */
static bool lay_out(const header *h, layout *out) {
    const tr_tokenizer *t = NULL; /* for the sizes of elements */
    const struct {
        uint64_t n, size;
    } all[N_SECTIONS] = {
        [BYTES] = {h->n_bytes, sizeof *t->bytes},
        [SPANS] = {h->n_tokens, sizeof *t->spans},
        [ATTRS] = {h->n_tokens, sizeof *t->attrs},
        [PRIORITIES] = {h->n_rules == 0 ? h->n_tokens : 0, sizeof *t->priorities},
        [SLOTS] = {h->n_slots, sizeof *t->map.slots},
        [RULES] = {h->n_rules, sizeof *t->rules},
    };
    out->end = sizeof *h;
    for (size_t i = 0; i < N_SECTIONS; i++)
        if (!tr_checked_align(out->end, ALIGN, &out->begin[i]) ||
            !tr_checked_mul(all[i].n, all[i].size, &out->bytes[i]) ||
            !tr_checked_add(out->begin[i], out->bytes[i], &out->end))
            return false;
    return true;
}

/* What header.role[i] is. */
static uint32_t *role(tr_tokenizer *t, size_t i) {
    uint32_t *const all[N_ROLES] = {&t->bos,     &t->eos,        &t->eot,        &t->eom,
                                    &t->unk,     &t->fim_prefix, &t->fim_suffix, &t->fim_middle,
                                    &t->fim_pad, &t->fim_repo,   &t->fim_sep};
    return all[i];
}

static uint64_t checksum(const void *data, size_t size) {
    const size_t from = offsetof(header, version);
    return XXH3_64bits((const uint8_t *)data + from, size - from);
}

void tr_tokenizer_file_seal(void *data, size_t size) {
    if (size >= sizeof(header)) ((header *)data)->check = checksum(data, size);
}

/* ---- write ------------------------------------------------------------------------------------------------------- */

static header header_of(const tr_tokenizer *t, uint64_t model_hash) {
    const tr_tokenizer_span last = t->spans[t->n_tokens - 1]; /* the arena has no gaps */
    header h = {.magic = MAGIC,
                .version = TR_TOKENIZER_FILE_VERSION,
                .kind = t->kind,
                .pre = t->pre,
                .add_bos = t->add_bos,
                .add_space_prefix = t->add_space_prefix,
                .ignore_merges = t->ignore_merges,
                .prefix_rule = t->prefix_rule,
                .declared = t->declared,
                .nfc = t->nfc,
                .model_hash = model_hash,
                .max_len = t->max_len,
                .n_bytes = (uint64_t)last.offset + last.len,
                .n_slots = t->map.mask + 1,
                .n_rules = t->rules ? t->rules_mask + 1 : 0,
                .n_tokens = t->n_tokens};
    tr_tokenizer copy = *t;
    for (size_t i = 0; i < N_ROLES; i++) h.role[i] = *role(&copy, i);
    memcpy(h.byte_ids, t->byte_ids, sizeof h.byte_ids);
    return h;
}

static tr_status write_all(int fd, const uint8_t *data, size_t size, tr_error *err) {
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return tr_error_set(err, TR_CANNOT_CREATE, "cannot write the packed vocabulary: %s", strerror(errno));
        data += n;
        size -= (size_t)n;
    }
    return TR_OK;
}

tr_status tr_tokenizer_file_write(const tr_tokenizer *t, uint64_t model_hash, int fd, tr_error *err) {
    const header h = header_of(t, model_hash);
    const void *const table[N_SECTIONS] = {[BYTES] = t->bytes,           [SPANS] = t->spans,     [ATTRS] = t->attrs,
                                           [PRIORITIES] = t->priorities, [SLOTS] = t->map.slots, [RULES] = t->rules};
    layout l;
    uint8_t *file = lay_out(&h, &l) ? calloc(1, l.end) : NULL;
    if (!file) return tr_error_set(err, TR_SYSTEM, "no memory to pack the vocabulary");
    memcpy(file, &h, sizeof h);
    for (size_t i = 0; i < N_SECTIONS; i++)
        if (l.bytes[i] > 0) memcpy(file + l.begin[i], table[i], l.bytes[i]);
    tr_tokenizer_file_seal(file, l.end);
    tr_status status = write_all(fd, file, l.end, err);
    free(file);
    return status;
}

/* ---- read -------------------------------------------------------------------------------------------------------- */

static bool power_of_two(uint64_t n) { return n > 0 && (n & (n - 1)) == 0; }

static bool header_sound(const header *h) {
    if (h->n_tokens == 0 || h->n_tokens > TR_TOKENIZER_MAX_TOKENS || h->n_bytes >= UINT32_MAX) return false;
    if (h->max_len > h->n_bytes || h->add_bos > 1 || h->add_space_prefix > 1 || h->ignore_merges > 1) return false;
    if (h->kind != TR_TOKENIZER_SPM && h->kind != TR_TOKENIZER_BPE) return false;
    if (h->pre > TR_PRETOKENIZE_QWEN2 || !power_of_two(h->n_slots)) return false;
    if (h->prefix_rule > TR_TOKENIZER_PREFIX_FIRST || h->declared > 1 || h->nfc > 1) return false;
    if (!power_of_two(h->n_rules) && (h->kind == TR_TOKENIZER_BPE || h->n_rules != 0)) return false;
    for (size_t i = 0; i < N_ROLES; i++)
        if (h->role[i] >= h->n_tokens && h->role[i] != TR_TOKENIZER_NONE) return false;
    if (h->add_bos && h->role[0] == TR_TOKENIZER_NONE) return false;
    for (size_t i = 0; i < 256; i++)
        if (h->byte_ids[i] >= h->n_tokens && !(h->kind == TR_TOKENIZER_BPE && h->byte_ids[i] == TR_TOKENIZER_NONE))
            return false;
    return true;
}

/* Texts lie one behind the other and fill the arena. */
static bool texts_sound(const tr_tokenizer *t, const header *h) {
    uint64_t used = 0;
    bool sound = true;
    for (uint32_t id = 0; id < h->n_tokens; id++) {
        const tr_tokenizer_span s = t->spans[id];
        sound &= s.offset == used && s.len <= h->max_len;
        sound &= (t->attrs[id] & TR_TOKENIZER_BYTE) == 0 || s.len == 6; /* <0xNN> */
        used += s.len;
    }
    return sound && used == h->n_bytes;
}

static bool index_sound(const tr_tokenizer *t, const header *h) {
    bool sound = true;
    for (uint64_t i = 0; i < h->n_slots; i++) {
        const uint64_t slot = t->map.slots[i];
        sound &= slot == 0 || (uint32_t)slot - 1 < h->n_tokens;
    }
    for (uint64_t i = 0; i < h->n_rules; i++)
        sound &= t->rules[i].rank == TR_TOKENIZER_NONE || t->rules[i].result < h->n_tokens;
    return sound;
}

static tr_status bad(tr_error *err, const char *name, const char *what) {
    return tr_error_set(err, TR_DATA, "%s: not a packed vocabulary of this version (%s)", name, what);
}

/* Nothing writes to a tokenizer that is made. */
static void *table(const header *h, uint64_t offset) { return (void *)((uintptr_t)h + offset); }

/* The tables of t in the file. */
static tr_status take_tables(tr_tokenizer *t, const header *h, size_t size, const char *name, tr_error *err) {
    layout l;
    if (!lay_out(h, &l) || l.end != size) return bad(err, name, "size");
    t->bytes = table(h, l.begin[BYTES]);
    t->spans = table(h, l.begin[SPANS]);
    t->attrs = table(h, l.begin[ATTRS]);
    if (l.bytes[PRIORITIES]) t->priorities = table(h, l.begin[PRIORITIES]);
    t->map.slots = table(h, l.begin[SLOTS]);
    if (l.bytes[RULES]) t->rules = table(h, l.begin[RULES]);
    t->map.bytes = t->bytes;
    t->map.spans = t->spans;
    t->map.mask = h->n_slots - 1;
    if (!texts_sound(t, h)) return bad(err, name, "texts");
    return index_sound(t, h) ? TR_OK : bad(err, name, "index");
}

static void take_header(tr_tokenizer *t, const header *h) {
    t->borrowed = true;
    t->kind = (tr_tokenizer_kind)h->kind;
    t->pre = (tr_pretokenize_kind)h->pre;
    t->add_bos = h->add_bos != 0;
    t->add_space_prefix = h->add_space_prefix != 0;
    t->ignore_merges = h->ignore_merges != 0;
    t->prefix_rule = (tr_tokenizer_prefix)h->prefix_rule;
    t->declared = h->declared != 0;
    t->nfc = h->nfc != 0;
    t->n_tokens = h->n_tokens;
    t->max_len = h->max_len;
    t->rules_mask = h->n_rules ? h->n_rules - 1 : 0;
    memcpy(t->byte_ids, h->byte_ids, sizeof t->byte_ids);
    for (size_t i = 0; i < N_ROLES; i++) *role(t, i) = h->role[i];
}

static tr_status read_file(tr_tokenizer *t, const void *data, size_t size, const char *name, uint64_t model_hash,
                           tr_error *err) {
    const header *h = data;
    if (((uintptr_t)data & (ALIGN - 1)) != 0 || size < sizeof *h || h->magic != MAGIC) return bad(err, name, "magic");
    if (h->version != TR_TOKENIZER_FILE_VERSION) return bad(err, name, "version");
    if (h->model_hash != model_hash) return bad(err, name, "model");
    if (h->check != checksum(data, size)) return bad(err, name, "check sum");
    if (!header_sound(h)) return bad(err, name, "header");
    take_header(t, h);
    TR_TRY(take_tables(t, h, size, name, err));
    if (t->kind == TR_TOKENIZER_BPE) tr_tokenizer_bpe_alphabet(t);
    return tr_tokenizer_special_build(t) == TR_OK ? TR_OK : tr_error_set(err, TR_SYSTEM, "no memory for %s", name);
}

tr_status tr_tokenizer_file_view(const void *data, size_t size, const char *name, uint64_t model_hash,
                                 tr_tokenizer **tokenizer_out, tr_error *err) {
    tr_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return tr_error_set(err, TR_SYSTEM, "no memory for the tokenizer");
    tr_status status = read_file(t, data, size, name, model_hash, err);
    if (status == TR_OK)
        *tokenizer_out = t;
    else
        tr_tokenizer_destroy(&t);
    return status;
}

tr_status tr_tokenizer_file_open(const char *path, uint64_t model_hash, tr_tokenizer **tokenizer_out, tr_error *err) {
    tr_file_map map = {0};
    TR_TRY(tr_file_map_open(path, &map, err));
    tr_status status = tr_tokenizer_file_view(map.data, map.size, path, model_hash, tokenizer_out, err);
    if (status == TR_OK)
        (*tokenizer_out)->file = map;
    else
        tr_file_map_close(&map);
    return status;
}
