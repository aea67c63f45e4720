/* actors/runtime/company_scheduler.h - the plan of a company as its scheduler needs it. Pure. */
#ifndef TR_COMPANY_SCHEDULER_H
#define TR_COMPANY_SCHEDULER_H
#include "actors/runtime/company.h"
#include "scheduler/scheduler.h"

/* All but the memory of journal, tables and bitmaps. */
void tr_company_scheduler(const tr_company *c, tr_scheduler_config *config_out);
#endif
