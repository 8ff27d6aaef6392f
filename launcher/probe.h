/* Whether this process tree can have a seccomp listener. */
#ifndef POEMQ_PROBE_H
#define POEMQ_PROBE_H

/* 0, or the errno with which a child of ours was refused one. */
int poemq_probe_listener(int no_new_privs);

#endif
