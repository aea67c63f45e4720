/* A user's program: compiled by install_test.py with nothing but the installed library. ENDPOINT PROMPT TOKENS */
#include <client/troupe_client.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    tr_client *c = NULL;
    tr_error err;
    tr_client_event e;
    uint64_t id;
    if (argc != 4) return 64;
    const tr_client_params params = {
        .prompt = argv[2], .prompt_len = strlen(argv[2]), .max_tokens = (uint32_t)atoi(argv[3])};
    tr_status s = tr_client_connect(argv[1], NULL, &c, &err);
    if (s == TR_OK) s = tr_client_add(c, &params, &id, &err);
    while (s == TR_OK || s == TR_AGAIN) {
        s = tr_client_poll(c, 1000, &e, &err);
        if (s != TR_OK) continue;
        if (e.kind == TR_CLIENT_ERROR) return fprintf(stderr, "%s\n", e.error), 1;
        fwrite(e.text, 1, e.text_bytes, stdout);
        if (e.kind == TR_CLIENT_END) break;
    }
    if (s != TR_OK) fprintf(stderr, "%s\n", err.text);
    tr_client_close(&c);
    return s != TR_OK;
}
