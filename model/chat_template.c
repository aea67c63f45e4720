#include "model/chat_template.h"

#include "model/jinja.h"

#include <stdlib.h>
#include <string.h>

struct tr_chat_template {
    tr_jinja *jinja;
    char *bos, *eos;
};

/* Own wording of public formats; the model's own template goes before these. Contents may be a list of parts. */
#define CONTENT(of)                                                                                                    \
    "{%- macro text(c) -%}{%- if c is string -%}{{ c }}{%- else -%}{%- for p in c or [] -%}{%- if p.type == 'text' "   \
    "-%}{{ p.text }}{%- endif -%}{%- endfor -%}{%- endif -%}{%- endmacro -%}" of

#define GEMMA                                                                                                          \
    CONTENT("{{ bos_token }}{%- set ns = namespace(system='', first=true) -%}"                                         \
            "{%- for m in messages -%}"                                                                                \
            "{%- if m.role == 'system' or m.role == 'developer' -%}"                                                   \
            "{%- set ns.system = text(m.content) | trim + '\n\n' -%}"                                                  \
            "{%- else -%}"                                                                                             \
            "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"                          \
            "{{- ns.system if ns.first else '' -}}{%- set ns.first = false -%}"                                        \
            "{{ text(m.content) | trim }}{{ '<end_of_turn>\n' }}"                                                      \
            "{%- endif -%}"                                                                                            \
            "{%- endfor -%}"                                                                                           \
            "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}")

#define CHATML_WITH(system)                                                                                            \
    CONTENT("{%- for m in messages -%}" system                                                                         \
            "{{ '<|im_start|>' + m.role + '\n' }}{{ text(m.content) }}{{ '<|im_end|>\n' }}"                            \
            "{%- endfor -%}"                                                                                           \
            "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}")

#define QWEN_SYSTEM                                                                                                    \
    "{%- if loop.first and m.role != 'system' -%}"                                                                     \
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif -%}"

#define LLAMA3                                                                                                         \
    CONTENT("{{ bos_token }}"                                                                                          \
            "{%- for m in messages -%}"                                                                                \
            "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"                                           \
            "{{ text(m.content) | trim }}{{ '<|eot_id|>' }}"                                                           \
            "{%- endfor -%}"                                                                                           \
            "{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif -%}")

const char *const tr_chat_template_names[] = {"gemma", "chatml", "llama3", "qwen", NULL};
static const char *const texts[] = {GEMMA, CHATML_WITH(""), LLAMA3, CHATML_WITH(QWEN_SYSTEM)};

tr_status tr_chat_template_open(const char *text, size_t bytes, const char *bos, const char *eos,
                                tr_chat_template **template_out, tr_error *err) {
    for (size_t i = 0; tr_chat_template_names[i]; i++)
        if (strlen(tr_chat_template_names[i]) == bytes && memcmp(tr_chat_template_names[i], text, bytes) == 0) {
            text = texts[i];
            bytes = strlen(text);
            break;
        }
    tr_chat_template *t = calloc(1, sizeof *t);
    if (t) {
        t->bos = strdup(bos);
        t->eos = strdup(eos);
    }
    tr_status status = t && t->bos && t->eos ? tr_jinja_compile(text, bytes, &t->jinja, err)
                                             : tr_error_set(err, TR_UNAVAILABLE, "no memory for the chat template");
    if (status == TR_OK)
        *template_out = t;
    else
        tr_chat_template_close(&t);
    return status;
}

void tr_chat_template_close(tr_chat_template **template) {
    tr_chat_template *t = *template;
    if (!t) return;
    tr_jinja_free(&t->jinja);
    free(t->bos);
    free(t->eos);
    free(t);
    *template = NULL;
}

static tr_status check(const tr_chat_template_input *in, tr_error *err) {
    size_t i;
    json_t *m;
    if (!json_is_array(in->messages) || json_array_size(in->messages) == 0)
        return tr_error_set(err, TR_USAGE, "messages: a list of one or more messages is wanted");
    json_array_foreach((json_t *)(uintptr_t)in->messages, i, m) {
        if (!json_is_string(json_object_get(m, "role")))
            return tr_error_set(err, TR_USAGE, "messages[%zu]: an object with a \"role\" is wanted", i);
    }
    if (in->tools && !json_is_array(in->tools) && !json_is_null(in->tools))
        return tr_error_set(err, TR_USAGE, "tools: a list is wanted");
    if (in->arguments && !json_is_object(in->arguments))
        return tr_error_set(err, TR_USAGE, "chat_template_kwargs: an object is wanted");
    return TR_OK;
}

tr_status tr_chat_template_render(const tr_chat_template *t, const tr_chat_template_input *in, char **text_out,
                                  size_t *len_out, tr_error *err) {
    TR_TRY(check(in, err));
    json_t *context = json_object();
    const struct {
        const char *name;
        json_t *value; /* taken over */
    } own[] = {{"messages", json_incref((json_t *)(uintptr_t)in->messages)},
               {"tools", in->tools ? json_incref((json_t *)(uintptr_t)in->tools) : json_null()},
               {"documents", json_null()},
               {"add_generation_prompt", json_boolean(in->add_generation_prompt)},
               {"bos_token", json_string(t->bos)},
               {"eos_token", json_string(t->eos)}};
    tr_status status = TR_OK;
    if (in->arguments && json_object_update(context, (json_t *)(uintptr_t)in->arguments) != 0) status = TR_UNAVAILABLE;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (in->arguments && json_object_get(in->arguments, own[i].name))
            status = tr_error_set(err, TR_USAGE, "chat_template_kwargs: '%s' cannot be set here", own[i].name);
        if (json_object_set_new(context, own[i].name, own[i].value) != 0 && status == TR_OK)
            status = tr_error_set(err, TR_UNAVAILABLE, "no memory for the chat");
    }
    if (status == TR_OK)
        status = tr_jinja_render(t->jinja, context, &tr_jinja_limits_default, in->now_s, text_out, len_out, err);
    json_decref(context);
    return status;
}
