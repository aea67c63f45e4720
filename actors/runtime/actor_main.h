/* actors/runtime/actor_main.h - one binary, role by argument: the process of the actor of that name in the plan
 * (descriptor 3). Returns the exit code of the process; a start-up failure has been printed in one line. */
#ifndef TR_ACTOR_MAIN_H
#define TR_ACTOR_MAIN_H
int tr_actor_main(const char *name);
#endif
