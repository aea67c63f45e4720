/* messages_doc --write FILE | --check FILE: docs/messages.md from the tables of transport/schema.h. */
#include "tests/contract/document.h"
#include "transport/schema_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *bound_text(const tr_schema_field *f, char *s, size_t cap) {
    const char *unit = "";
    switch (f->kind) {
    case TR_SCHEMA_str:
    case TR_SCHEMA_bin: unit = " bytes"; break;
    case TR_SCHEMA_u32v:
    case TR_SCHEMA_realv:
    case TR_SCHEMA_strv:
    case TR_SCHEMA_spanv: unit = " entries"; break;
    default: break;
    }
    if (f->bound == 0)
        snprintf(s, cap, "-");
    else
        snprintf(s, cap, "%" PRIu64 "%s", f->bound, unit);
    return s;
}

/* A bar in a text would end the table's cell. */
static void put_cell(FILE *out, const char *text) {
    for (; *text; text++) {
        if (*text == '|') fputc('\\', out);
        fputc(*text, out);
    }
}

static void put_fields(FILE *out, const tr_schema_record *r) {
    fprintf(out, "| field | kind | largest | meaning |\n|---|---|---|---|\n");
    for (uint32_t i = 0; i < r->n_fields; i++) {
        char bound[40];
        const tr_schema_field *f = &r->field[i];
        fprintf(out, "| %s | %s | %s | ", f->name, tr_schema_table_kind_name(f->kind),
                bound_text(f, bound, sizeof bound));
        put_cell(out, f->doc);
        fprintf(out, " |\n");
    }
    fprintf(out, "\n");
}

static void put_all(FILE *out) {
    fprintf(
        out,
        "# Messages\n\nMade from the tables of `transport/schema.h` by `ninja docs_messages`; do not edit. Protocol "
        "version %d.%d.\nWhat they are for and the rules of a connection: [protocol.md](protocol.md).\n\n"
        "A message is one msgpack map: `\"type\"` holds the name, the other keys are the fields. A field whose "
        "value is zero or\nempty is left out. A number is never negative and never above its largest value "
        "(-: any of its kind); an f32 may be sent\nas integer, float or double; a u32 of largest value 1 also as "
        "boolean. str is UTF-8, bin is msgpack bin; an entry of a\nstr list has at most %d bytes. Unknown fields "
        "are ignored; a field that comes twice, has another kind or breaks its\nbound makes the message invalid. "
        "Ids number the messages in traces; they are not sent.\n\n",
        TR_PROTOCOL_MAJOR, TR_PROTOCOL_MINOR, TR_MAX_STOP_BYTES);
    for (uint32_t i = 0; i < TR_SCHEMA_TABLE_COUNT; i++) {
        const tr_schema_record *r = tr_schema_table_at(i);
        fprintf(out, "## %s (%d)\n%s.\n\n", r->name, (int)r->type, r->doc);
        put_fields(out, r);
    }
    fprintf(out, "## span\nEntry of a span list: %s.\n\n", tr_schema_table_span()->doc);
    put_fields(out, tr_schema_table_span());
    fprintf(out,
            "## Values\n| name | value |\n|---|---|\n| finish: end token or stop text | %d |\n"
            "| finish: max_tokens or context reached | %d |\n| finish: aborted | %d |\n| finish: error | %d |\n"
            "| phase: prefill | %d |\n| phase: decode | %d |\n",
            TR_FINISH_STOP, TR_FINISH_LENGTH, TR_FINISH_ABORT, TR_FINISH_ERROR, TR_PHASE_PREFILL, TR_PHASE_DECODE);
}

int main(int argc, char **argv) { return document_main(argc, argv, "messages", put_all); }
