/* actors/runtime/company_links.h - the links between the actors of a plan, with room for all that can be under way.
 * Pure. */
#ifndef TR_COMPANY_LINKS_H
#define TR_COMPANY_LINKS_H
#include "actors/runtime/company.h"

#include <stdbool.h>

/* Actors and sizes are in the plan; adds links and the size of their segment. logits_wanted: of every position. */
void tr_company_links_add(tr_company *c, bool logits_wanted);
#endif
