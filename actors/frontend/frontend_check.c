/* actors/frontend/frontend_check.c - what a request asks for, against the bounds of this company. The bounds of every
 * number by itself are in transport/schema.h. */
#include "actors/frontend/frontend.h"

/* Names of files in the one folder: letters, digits, "._-", not hidden. */
static bool valid_name(tr_str name) {
    for (uint32_t i = 0; i < name.len; i++) {
        char c = name.data[i];
        bool letter =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
        if (!letter && (c != '.' || i == 0)) return false;
    }
    return true;
}

static bool valid_files(tr_frontend *f, tr_frontend_sender from, const tr_msg_add *m, uint32_t n_prompt) {
    if (m->save.len + m->restore.len == 0) return true;
    if (f->rt->company->save_dir[0] == 0)
        tr_frontend_refuse(f, from, m->id, 69,
                           "this company saves no sequences: start it with --set handoff.save_dir=FOLDER");
    else if (!valid_name(m->save) || !valid_name(m->restore))
        tr_frontend_refuse(f, from, m->id, 64,
                           "the name of a saved sequence has letters, digits and . _ - only, and no folder");
    else if (m->n > 1)
        tr_frontend_refuse(f, from, m->id, 64, "n is %u: a sequence that is saved or restored has one sample", m->n);
    else if (m->restore.len > 0 &&
             (m->logits || m->restore_end >= n_prompt || m->restore_end + (uint64_t)m->forced < n_prompt))
        tr_frontend_refuse(f, from, m->id, 64,
                           "restore_end is %u: the rest of the %u tokens must be forced, and no logits asked for",
                           m->restore_end, n_prompt);
    else
        return true;
    return false;
}

/* What edits logits is read from the journal by the stages that draw. */
static bool edits_here(const tr_company *c) {
    for (uint32_t a = 0; a < c->n_actors; a++) {
        const tr_company_actor *s = &c->actor[a];
        if (s->role == TR_ROLE_STAGE && s->stage + 1 == s->n_stages && !tr_company_is_local(c, a)) return false;
    }
    return true;
}

static bool edits(const tr_msg_add *m) {
    return m->bias.len > 0 || m->presence_penalty != 0 || m->frequency_penalty != 0 || m->min_tokens > 0 ||
           (m->repetition_penalty > 0 && m->repetition_penalty != 1);
}

static bool valid_sampling(tr_frontend *f, tr_frontend_sender from, const tr_msg_add *m) {
    const uint32_t vocab = f->rt->company->vocab;
    if (m->bias.len != m->bias_tokens.len) {
        tr_frontend_refuse(f, from, m->id, 64, "%u tokens have a bias, but %u values are given", m->bias_tokens.len,
                           m->bias.len);
        return false;
    }
    for (uint32_t i = 0; i < m->bias.len; i++)
        if (m->bias_tokens.data[i] >= vocab || !(m->bias.data[i] >= -100 && m->bias.data[i] <= 100)) {
            tr_frontend_refuse(f, from, m->id, 64,
                               "bias %g of token %u: -100 to 100 are allowed, and the vocabulary ends at %u",
                               (double)m->bias.data[i], m->bias_tokens.data[i], vocab - 1);
            return false;
        }
    for (uint32_t i = 0; i < m->stop_tokens.len; i++)
        if (m->stop_tokens.data[i] >= vocab) {
            tr_frontend_refuse(f, from, m->id, 64, "stop token %u: the vocabulary ends at %u", m->stop_tokens.data[i],
                               vocab - 1);
            return false;
        }
    if (edits(m) && !edits_here(f->rt->company)) {
        tr_frontend_refuse(f, from, m->id, 64,
                           "penalties, bias and min_tokens are not available where the last stage of a pipeline "
                           "runs on another host than the scheduler");
        return false;
    }
    return true;
}

static bool valid_lengths(tr_frontend *f, tr_frontend_sender from, const tr_msg_add *m, uint32_t n_prompt) {
    const uint32_t context = f->rt->company->context;
    bool evaluation = m->logits && m->max_tokens == 0;
    if (n_prompt == 0)
        tr_frontend_refuse(f, from, m->id, 65,
                           "the prompt is empty and the model has no begin token: give at least one token");
    else if (n_prompt > context || (!evaluation && n_prompt == context))
        tr_frontend_refuse(
            f, from, m->id, 65,
            "the prompt has %u tokens, the context holds %u with at least one to generate: shorten it or raise -c",
            n_prompt, context);
    else if (m->forced >= n_prompt)
        tr_frontend_refuse(f, from, m->id, 64, "forced is %u, but the first of %u tokens must come from prefill",
                           m->forced, n_prompt);
    else if (m->logits == TR_LOGITS_HIDDEN && (m->max_tokens > 0 || f->rt->company->vocab < f->rt->company->hidden))
        tr_frontend_refuse(f, from, m->id, 64,
                           "hidden states come without generated tokens, of a vocabulary not below their size");
    else if (m->n > 1 && m->logits)
        tr_frontend_refuse(f, from, m->id, 64, "logits of %u samples: ask for those of one", m->n);
    else if (m->max_tokens == 0 && !evaluation)
        tr_frontend_refuse(f, from, m->id, 64, "max_tokens is 0: ask for at least one token");
    else
        return true;
    return false;
}

bool tr_frontend_check(tr_frontend *f, tr_frontend_sender from, const tr_msg_add *m, uint32_t n_prompt) {
    return valid_lengths(f, from, m, n_prompt) && valid_sampling(f, from, m) && valid_files(f, from, m, n_prompt);
}
