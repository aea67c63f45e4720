/* actors/supervisor/supervisor.h - the process that is parent of all actors of a node. It holds every shared memory
 * object and therefore opens no socket and parses nothing: it reads the plan (made by our own command line) and the
 * control blocks. Life and death are decided by the pure core (supervisor_core.h); here they are carried out.
 *
 *   INIT --all children READY--> READY --SIGTERM, stop_requested, escalation--> DRAINING --all gone--> DEAD (exit)
 *
 * notify_fd: receives 'S' when the memory exists and 'R' when the company is ready; -1: nobody listens.
 * Returns the exit code of the process. Dies with its parent (SIGTERM on the parent's death). */
#ifndef TR_SUPERVISOR_H
#define TR_SUPERVISOR_H
int tr_supervisor_main(int notify_fd);
#endif
