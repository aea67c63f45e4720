#include "base/options_impl.h"

#include <string.h>

enum { COLUMN = 39, WIDTH = 100 }; /* where the meaning begins; characters of a line at most */

/* Meaning of an option for a command. */
static const char *help_of(tr_option_id id, tr_command command) {
#define X(ID, mask, text)                                                                                              \
    if (id == TR_OPTION_##ID && ((mask) & (1u << command))) return text;
    TR_OPTION_HELPS(X)
#undef X
    return tr_option_rows[id].help;
}

/* Words of text from column `at` on, in lines that begin at COLUMN. */
static void print_wrapped(FILE *out, const char *text, int at) {
    while (*text) {
        int n = (int)strcspn(text, " ");
        bool first = at < COLUMN;
        if (first || at + 1 + n > WIDTH) {
            if (!first || at < 0) fputc('\n', out);
            fprintf(out, "%*s", first && at >= 0 ? COLUMN - at : COLUMN, "");
            at = COLUMN;
        } else {
            fputc(' ', out);
            at++;
        }
        fprintf(out, "%.*s", n, text);
        at += n;
        text += n;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void print_row(FILE *out, tr_option_id id, tr_command command) {
    const tr_option_row *row = &tr_option_rows[id];
    char text[512], choice[128] = "", dflt[64] = "";
    int n = row->letter ? fprintf(out, "  -%c, %s", row->letter, row->flag) : fprintf(out, "      %s", row->flag);
    if (*row->argument) n += fprintf(out, " %s", row->argument);
    if (row->type == TR_OPTION_TYPE_CHOICE)
        snprintf(choice, sizeof choice, " (%.*s)", (int)strcspn(row->values, ";"), row->values);
    if (*row->dflt && row->type != TR_OPTION_TYPE_TEXT) snprintf(dflt, sizeof dflt, " [%s]", row->dflt);
    snprintf(text, sizeof text, "%s%s%s", help_of(id, command), choice, dflt);
    print_wrapped(out, text, n < COLUMN ? n : -1); /* a long name stands on a line of its own */
}

void tr_options_print_help(FILE *out, tr_command command) {
    const tr_command_row *c = &tr_command_rows[command];
    fprintf(out, "troupe %s%s%s\n%s\n\n", c->name, *c->arguments ? " " : "", c->arguments, c->help);
    for (int id = 0; id < TR_OPTION_COUNT; id++)
        if ((tr_option_rows[id].commands & (1u << command)) && !tr_options_later(&tr_option_rows[id]))
            print_row(out, (tr_option_id)id, command);
    if ((1u << command) & TR_CMD_COMPANY)
        fputs("\nKeys for --set and topology files: docs/options.md. Variables: TROUPE_ and the flag in capitals.\n",
              out);
    if (command == TR_COMMAND_DOCTOR)
        fputs("\nExit code 0: troupe runs here, perhaps with warnings; 69: it lacks something that it needs (no).\n",
              out);
}

void tr_options_print_overview(FILE *out) {
    fputs("troupe runs a language model as a company of actors.\n\n", out);
    for (int c = 0; c < TR_COMMAND_COUNT; c++)
        if (tr_command_rows[c].now)
            fprintf(out, "  troupe %-9s %s\n", tr_command_rows[c].name, tr_command_rows[c].help);
    fputs("\ntroupe COMMAND --help shows the options of a command. troupe --version shows the version.\n"
          "Exit codes: 64 usage, 65 model or prompt data, 66 no such file, 69 unavailable, 70 internal,\n"
          "73 cannot create, 78 configuration, 130 interrupted.\n",
          out);
}

static void print_cell(FILE *out, const char *text) {
    for (const char *p = text; *p; p++) {
        if (*p == '|') fputc('\\', out);
        fputc(*p, out);
    }
}

static void print_values(FILE *out, const tr_option_row *row) {
    if (row->type == TR_OPTION_TYPE_CHOICE) {
        char now[256];
        snprintf(now, sizeof now, "%.*s", (int)strcspn(row->values, ";"), row->values);
        print_cell(out, now[0] ? now : "none yet");
    } else if (row->type == TR_OPTION_TYPE_LIST) {
        fputs(*row->key ? "auto or one number a stage: 6:6:6" : "a list: 128,512", out);
    } else if (row->max) {
        unsigned long long most = row->now ? row->now : row->max;
        if (row->min == most)
            fprintf(out, "%llu", most);
        else
            fprintf(out, "%llu to %llu", (unsigned long long)row->min, most);
    }
}

static void print_commands(FILE *out, uint32_t mask) {
    const char *between = "";
    if (mask == TR_CMD_ALL) {
        fputs("all", out);
        return;
    }
    for (int c = 0; c < TR_COMMAND_COUNT; c++)
        if (mask & (1u << c)) {
            fprintf(out, "%s%s", between, tr_command_rows[c].name);
            between = " ";
        }
}

void tr_options_print_docs(FILE *out) {
    fputs("# Options\n\nGenerated from `base/options_table.h` by `troupe --print-options`; a test compares.\n\n"
          "A flag beats the environment, the environment beats the topology file, the file beats the default.\n\n"
          "## Keys of a topology file (and of `--set`)\n\n"
          "| key | flag | variable | values | default | meaning |\n|---|---|---|---|---|---|\n",
          out);
    char variable[64];
    for (int id = 0; id < TR_OPTION_COUNT; id++) {
        const tr_option_row *row = &tr_option_rows[id];
        if (!*row->key) continue;
        fprintf(out, "| `%s` | ", row->key);
        if (*row->flag && row->letter) fprintf(out, "`-%c` ", row->letter);
        if (*row->flag) fprintf(out, "`%s`", row->flag);
        fprintf(out, " | %s | ", tr_options_variable((tr_option_id)id, variable) ? variable : "");
        print_values(out, row);
        fprintf(out, " | %s | ", row->dflt);
        print_cell(out, row->help);
        fputs(" |\n", out);
    }
    fputs("\n## Flags of one call\n\n| flag | variable | commands | values | default | meaning "
          "|\n|---|---|---|---|---|---|\n",
          out);
    for (int id = 0; id < TR_OPTION_COUNT; id++) {
        const tr_option_row *row = &tr_option_rows[id];
        if (*row->key) continue;
        fputs("| ", out);
        if (row->letter) fprintf(out, "`-%c` ", row->letter);
        fprintf(out, "`%s%s%s` | %s | ", row->flag, *row->argument ? " " : "", row->argument,
                tr_options_variable((tr_option_id)id, variable) ? variable : "");
        print_commands(out, row->commands);
        fputs(" | ", out);
        print_values(out, row);
        fprintf(out, " | %s | ", row->dflt);
        print_cell(out, row->help);
        fputs(" |\n", out);
    }
    fputs(
        "\nVariables read elsewhere: `TROUPE_LOG` (error, warn, info, debug, trace), `TROUPE_CPU` (kernel set at most: "
        "ref, avx2, avx2vnni, avx512, avx512vnni, avx512bf16, amx).\n",
        out);
}
