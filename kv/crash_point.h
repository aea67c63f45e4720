/* kv/crash_point.h - marks places where a death leaves shared memory half changed. Nothing in the product; the
 * simulator compiles the same sources with TR_CRASH_POINT naming a function of its own, which may never return. */
#ifndef TR_CRASH_POINT_H
#define TR_CRASH_POINT_H
#ifdef TR_CRASH_POINT
void TR_CRASH_POINT(void);
#define tr_crash_point() TR_CRASH_POINT()
#else
#define tr_crash_point() ((void)0)
#endif
#endif
