/* transfer_doc --write FILE | --check FILE: the part of docs/protocol.md between its two marks from the table of
 * scheduler/transfer.h. */
#include "scheduler/transfer.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BEGIN "<!-- transfer table: made by `ninja docs_transfer` -->\n"
#define END   "<!-- end of the transfer table -->\n"

#define NAME(N, text) #N,
#define TEXT(N, text) text,
static const char *const state_name[] = {TR_TRANSFER_STATES(NAME)}, *const state_text[] = {TR_TRANSFER_STATES(TEXT)};
static const char *const event_name[] = {TR_TRANSFER_EVENTS(NAME)}, *const event_text[] = {TR_TRANSFER_EVENTS(TEXT)};
static const char *const action_name[] = {TR_TRANSFER_ACTIONS(NAME)}, *const action_text[] = {
                                                                          TR_TRANSFER_ACTIONS(TEXT)};

/* MOVE_LOST as "move lost". */
static const char *words(const char *name, char out[40]) {
    size_t i = 0;
    for (; name[i] && i < 39; i++) out[i] = name[i] == '_' ? ' ' : (char)tolower((unsigned char)name[i]);
    out[i] = 0;
    return out;
}

static void put_cell(FILE *out, const tr_transfer_rule *r) {
    char next[40], action[40];
    if (r->action == TR_TRANSFER_DO_WRONG)
        fprintf(out, " - |");
    else if (r->action == TR_TRANSFER_DO_NONE)
        fprintf(out, " %s |", words(state_name[r->next], next));
    else
        fprintf(out, " %s, *%s* |", words(state_name[r->next], next), words(action_name[r->action], action));
}

static void put_list(FILE *out, const char *title, const char *const *name, const char *const *text, uint32_t n) {
    char w[40];
    fprintf(out, "\n| %s | meaning |\n|---|---|\n", title);
    for (uint32_t i = 0; i < n; i++) fprintf(out, "| %s | %s |\n", words(name[i], w), text[i]);
}

static void put_all(FILE *out) {
    char w[40];
    fprintf(out, BEGIN "| state |");
    for (uint32_t e = 0; e < TR_TRANSFER_N_EVENTS; e++) fprintf(out, " %s |", words(event_name[e], w));
    fprintf(out, "\n|---|");
    for (uint32_t e = 0; e < TR_TRANSFER_N_EVENTS; e++) fprintf(out, "---|");
    fprintf(out, "\n");
    for (uint32_t s = 0; s < TR_TRANSFER_N_STATES; s++) {
        fprintf(out, "| %s |", words(state_name[s], w));
        for (uint32_t e = 0; e < TR_TRANSFER_N_EVENTS; e++) put_cell(out, &tr_transfer_table[s][e]);
        fprintf(out, "\n");
    }
    put_list(out, "state", state_name, state_text, TR_TRANSFER_N_STATES);
    put_list(out, "event", event_name, event_text, TR_TRANSFER_N_EVENTS);
    put_list(out, "action", action_name + 2, action_text + 2, TR_TRANSFER_N_ACTIONS - 2);
    fprintf(out, END);
}

static char *read_file(const char *path) {
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);
    if (f && text) text[fread(text, 1, (1 << 20) - 1, f)] = 0;
    if (f) fclose(f);
    return text;
}

int main(int argc, char **argv) {
    char *want = NULL;
    size_t n = 0;
    if (argc != 3) return fprintf(stderr, "usage: transfer_doc --write FILE | --check FILE\n"), 64;
    FILE *memory = open_memstream(&want, &n);
    if (!memory) return 70;
    put_all(memory);
    fclose(memory);
    char *have = read_file(argv[2]), *begin = have ? strstr(have, BEGIN) : NULL;
    char *end = begin ? strstr(begin, END) : NULL;
    if (!end) return fprintf(stderr, "%s: the marks of the transfer table are missing\n", argv[2]), 65;
    end += strlen(END);
    int rc = (size_t)(end - begin) == n && memcmp(begin, want, n) == 0 ? 0 : 1;
    if (strcmp(argv[1], "--write") == 0) {
        FILE *f = fopen(argv[2], "wb");
        rc = f && fprintf(f, "%.*s%s%s", (int)(begin - have), have, want, end) > 0 ? 0 : 73;
        if (f && fclose(f) != 0) rc = 73;
    } else if (rc != 0) {
        fprintf(stderr, "%s is out of date: run `ninja docs_transfer` in the build folder\n", argv[2]);
    }
    free(have);
    free(want);
    return rc;
}
