/* The table of metrics as a document: --write, or --check that docs/metrics.md is of now. */
#include "actors/gateway/metrics.h"
#include "tests/contract/document.h"

int main(int argc, char **argv) { return document_main(argc, argv, "metrics", tr_metrics_document); }
