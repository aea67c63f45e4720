/* Damaged files of a fuzz corpus: CORPUS.expect has a line a file: name, offset (- where the error has none of its
 * own), part of the reason, with tabs between. Include after cmocka.h. */
#ifndef TR_TEST_DAMAGED_H
#define TR_TEST_DAMAGED_H
#include "base/status.h"

#include <stdio.h>
#include <string.h>

/* Opens and closes; the status of opening. */
typedef tr_status damaged_open(const char *path, tr_error *err);

static inline void damaged_check_line(const char *corpus, char *line, damaged_open *open) {
    char *offset = strchr(line, '\t'), *reason = offset ? strchr(offset + 1, '\t') : NULL;
    char path[1024], want[600];
    tr_error err = {0};
    assert_non_null(reason);
    *offset++ = *reason++ = 0;
    reason[strcspn(reason, "\n")] = 0;
    snprintf(path, sizeof path, "%s/%s", corpus, line);
    tr_status s = open(path, &err);
    if (s != TR_DATA || err.status != TR_DATA) fail_msg("%s: status %d, expected TR_DATA (%s)", line, s, err.text);
    if (strcmp(offset, "-") == 0)
        snprintf(want, sizeof want, ": offset ");
    else
        snprintf(want, sizeof want, ": offset %s: ", offset);
    if (!strstr(err.text, want) || !strstr(err.text, reason) || !strstr(err.text, line))
        fail_msg("%s: \"%s\" lacks \"%s\" or \"%s\"", line, err.text, want, reason);
}

/* Every file gives its error. Returns how many there are. */
static inline int damaged_check(const char *corpus, damaged_open *open) {
    char path[1024], line[512];
    int n = 0;
    snprintf(path, sizeof path, "%s.expect", corpus);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    for (; fgets(line, sizeof line, f); n++) damaged_check_line(corpus, line, open);
    fclose(f);
    return n;
}

#endif
