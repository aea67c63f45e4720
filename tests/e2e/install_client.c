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
    bool failed = s != TR_OK, ended = failed;
    while (!ended) {
        s = tr_client_poll(c, 1000, &e, &err);
        failed = (s != TR_OK && s != TR_AGAIN) || (s == TR_OK && e.kind == TR_CLIENT_ERROR);
        ended = failed || (s == TR_OK && e.kind == TR_CLIENT_END);
        if (s == TR_OK && !failed) fwrite(e.text, 1, e.text_bytes, stdout);
    }
    if (failed) fprintf(stderr, "%s\n", s == TR_OK ? e.error : err.text);
    tr_client_close(&c);
    return failed;
}
