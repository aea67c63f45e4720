/* model/tokenizer_names.c - see the header. */
#include "model/tokenizer_names.h"

#include <string.h>

enum role {
    EOT = 1,
    EOM = 2,
    PREFIX = 4,
    SUFFIX = 8,
    MIDDLE = 16,
    PAD = 32,
    REPO = 64,
    SEP = 128,
    EOG = 256,
    USER = 512, /* always visible text */
};

static const struct {
    const char *text;
    unsigned roles;
} names[] = {
    {"<|eot_id|>", EOT | EOG},
    {"<|im_end|>", EOT | EOG},
    {"<|end|>", EOT | EOG},
    {"<end_of_turn>", EOT | EOG},
    {"<|endoftext|>", EOT | EOG},
    {"<|end_of_text|>", EOT | EOG},
    {"<EOT>", EOT | EOG},
    {"_<EOT>", EOT | EOG},
    {"[EOT]", EOT | EOG},
    {"<｜end▁of▁sentence｜>", EOT | EOG},
    {"<end_of_utterance>", EOT | EOG},
    {"<|eom_id|>", EOM | EOG},
    {"<|return|>", EOG},
    {"<|call|>", EOG},
    {"<|flush|>", EOG},
    {"<|calls|>", EOG},
    {"</s>", EOG},
    {"[EOS]", EOG},
    {"<eos>", EOG},
    {"<turn|>", EOG},
    {"<|tool_response>", EOG},
    {"[e~[", EOG},
    {"<|fim_prefix|>", PREFIX},
    {"<fim-prefix>", PREFIX},
    {"<fim_prefix>", PREFIX},
    {"<｜fim▁begin｜>", PREFIX},
    {"<PRE>", PREFIX},
    {"▁<PRE>", PREFIX},
    {"<|code_prefix|>", PREFIX},
    {"<|prefix|>", PREFIX},
    {"<|fim_suffix|>", SUFFIX},
    {"<fim-suffix>", SUFFIX},
    {"<fim_suffix>", SUFFIX},
    {"<｜fim▁hole｜>", SUFFIX},
    {"<SUF>", SUFFIX},
    {"▁<SUF>", SUFFIX},
    {"<|code_suffix|>", SUFFIX},
    {"<|suffix|>", SUFFIX},
    {"<|fim_middle|>", MIDDLE},
    {"<fim-middle>", MIDDLE},
    {"<fim_middle>", MIDDLE},
    {"<｜fim▁end｜>", MIDDLE},
    {"<MID>", MIDDLE},
    {"▁<MID>", MIDDLE},
    {"<|code_middle|>", MIDDLE},
    {"<|middle|>", MIDDLE},
    {"<|fim_pad|>", PAD},
    {"<fim-pad>", PAD},
    {"<fim_pad>", PAD},
    {"<PAD>", PAD},
    {"[PAD]", PAD},
    {"<|fim_repo|>", REPO},
    {"<|repo_name|>", REPO},
    {"<fim-repo>", REPO},
    {"<REPO>", REPO},
    {"<reponame>", REPO},
    {"<|file_sep|>", SEP},
    {"<|channel|>", USER},
    {"<|message|>", USER},
    {"<|start|>", USER},
    {"<|constrain|>", USER},
};
enum { N_NAMES = sizeof names / sizeof *names };

/* Where the file names no token for the role: the lowest id among the candidates, which becomes control. */
static void choose(tr_tokenizer *t, const uint32_t ids[N_NAMES], unsigned role, uint32_t *id) {
    if (*id != TR_TOKENIZER_NONE) return;
    for (size_t i = 0; i < N_NAMES; i++) {
        if ((names[i].roles & role) != 0 && ids[i] < *id) *id = ids[i];
    }
    if (*id != TR_TOKENIZER_NONE) t->attrs[*id] |= TR_TOKENIZER_CONTROL;
}

static bool is_eog(const tr_tokenizer *t, const char *text) {
    uint32_t id = tr_tokenizer_find(t, text);
    return id != TR_TOKENIZER_NONE && (t->attrs[id] & TR_TOKENIZER_EOG) != 0;
}

/* Families that reuse a known name for something else. */
static void exceptions(tr_tokenizer *t) {
    bool call = is_eog(t, "<|call|>") || is_eog(t, "<|calls|>");
    if (is_eog(t, "<|end|>") && call && (is_eog(t, "<|return|>") || is_eog(t, "<|flush|>"))) {
        t->attrs[tr_tokenizer_find(t, "<|end|>")] = TR_TOKENIZER_USER;
    }
    if (is_eog(t, "</s>") && (is_eog(t, "<|tool_response>") || is_eog(t, "<|plamo:eos|>"))) {
        t->attrs[tr_tokenizer_find(t, "</s>")] = TR_TOKENIZER_NORMAL;
    }
}

void tr_tokenizer_names_apply(tr_tokenizer *t) {
    uint32_t ids[N_NAMES];
    for (size_t i = 0; i < N_NAMES; i++) {
        ids[i] = tr_tokenizer_find(t, names[i].text);
        if (t->declared && ids[i] != TR_TOKENIZER_NONE &&
            (t->attrs[ids[i]] & (TR_TOKENIZER_CONTROL | TR_TOKENIZER_USER)) == 0)
            ids[i] = TR_TOKENIZER_NONE; /* a word of the vocabulary */
    }
    choose(t, ids, EOT, &t->eot);
    choose(t, ids, EOM, &t->eom);
    choose(t, ids, PREFIX, &t->fim_prefix);
    choose(t, ids, SUFFIX, &t->fim_suffix);
    choose(t, ids, MIDDLE, &t->fim_middle);
    choose(t, ids, PAD, &t->fim_pad);
    choose(t, ids, REPO, &t->fim_repo);
    choose(t, ids, SEP, &t->fim_sep);
    for (size_t i = 0; i < N_NAMES; i++) {
        if (ids[i] == TR_TOKENIZER_NONE) continue;
        if ((names[i].roles & EOG) != 0) t->attrs[ids[i]] |= TR_TOKENIZER_EOG | TR_TOKENIZER_CONTROL;
        if ((names[i].roles & USER) != 0) t->attrs[ids[i]] = TR_TOKENIZER_USER;
    }
    const uint32_t ends[] = {t->fim_pad, t->fim_repo, t->fim_sep, t->eos, t->eot, t->eom};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (ends[i] != TR_TOKENIZER_NONE) t->attrs[ends[i]] |= TR_TOKENIZER_EOG;
    }
    exceptions(t);
}

static bool has_fold(const char *text, size_t len, const char *word) {
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= len; i++) {
        size_t k = 0;
        while (k < n && (text[i + k] | (text[i + k] >= 'A' && text[i + k] <= 'Z' ? 32 : 0)) == word[k]) k++;
        if (k == n) return true;
    }
    return false;
}

void tr_tokenizer_names_strip(tr_tokenizer *t, const char *model_name, size_t len) {
    static const char *const keeps[] = {"<unk>", "<s>", "<|endoftext|>"};
    if (!has_fold(model_name, len, "phi-3") && !has_fold(model_name, len, "phi3")) return;
    uint8_t special = TR_TOKENIZER_CONTROL | TR_TOKENIZER_USER | TR_TOKENIZER_UNKNOWN;
    for (uint32_t id = 0; id < t->n_tokens; id++) {
        if ((t->attrs[id] & special) != 0) t->attrs[id] |= TR_TOKENIZER_RSTRIP;
    }
    for (size_t i = 0; i < sizeof keeps / sizeof *keeps; i++) {
        uint32_t id = tr_tokenizer_find(t, keeps[i]);
        if (id != TR_TOKENIZER_NONE) t->attrs[id] &= (uint8_t)~TR_TOKENIZER_RSTRIP;
    }
}
