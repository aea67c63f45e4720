/* tests/tools/jinja_render.c - TEMPLATE < lines of JSON contexts > lines of JSON, {"text"} or {"error"}: what tests
 * compare with jinja2. Time stands still at the second argument, if there is one. */
#include "model/jinja.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    static char text[TR_JINJA_TEMPLATE_MAX + 1];
    FILE *f = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (!f) return 66;
    size_t bytes = fread(text, 1, sizeof text, f);
    fclose(f);
    tr_error err = {0};
    tr_jinja *t = NULL;
    tr_status compiled = tr_jinja_compile(text, bytes, &t, &err);
    for (char *line = NULL;;) {
        size_t room = 0, len = 0;
        char *out = NULL;
        if (getline(&line, &room, stdin) < 0) {
            free(line);
            break;
        }
        json_t *context = json_loads(line, 0, NULL), *answer = json_object();
        tr_status status = compiled == TR_OK ? tr_jinja_render(t, context, &tr_jinja_limits_default,
                                                               argc > 2 ? atoll(argv[2]) : 0, &out, &len, &err)
                                             : compiled;
        json_object_set_new(answer, status == TR_OK ? "text" : "error",
                            status == TR_OK ? json_stringn(out, len) : json_string(err.text));
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(answer);
        json_decref(context);
        free(out);
        free(line);
        line = NULL;
    }
    tr_jinja_free(&t);
    return 0;
}
