/* What the launcher found when it was started, and how to give it back. */
#ifndef POEMQ_INHERIT_H
#define POEMQ_INHERIT_H

#include <stdint.h>

/* Signal sets are the kernel's: bit n-1 is signal n. */
struct poemq_inherited {
	uint64_t blocked;  /* the signal mask */
	uint64_t ignored;  /* signals with SIG_IGN */
	uint64_t nofile;   /* RLIMIT_NOFILE, soft */
	uint32_t closed;   /* bit n: file descriptor n (0 to 2) was closed */
};

extern struct poemq_inherited poemq_inherited;

/* Sets SIG_IGN for the signals in ignored and SIG_DFL for all others. */
void poemq_set_actions(uint64_t ignored);

/* Sets the calling thread's signal mask; 0 or an errno. */
int poemq_set_mask(uint64_t blocked);

struct poemq_spawn {
	const char *path;
	char *const *argv, *const *envp;
	int from, to;      /* the one fd handed on, and its number there */
	int detach;        /* its own session, no parent, no other fds */
	struct poemq_inherited state;
};

/*
 * Starts a process. Returns its pid (0 if detached: it is nobody's child), or
 * minus the errno of what failed, execve(2) included.
 */
int poemq_spawn(const struct poemq_spawn *s);

/*
 * Has every signal that can be caught written to fd (a pipe), one struct
 * poemq_signal each.
 */
struct poemq_signal {
	int32_t signo, code, pid;
};
void poemq_catch_signals(int fd);

/* Stops the process as signo does by default; returns when it is continued. */
void poemq_stop_by(int signo);

/* Ends the process by a signal, without a core dump. Returns if it cannot. */
void poemq_die_by(int signo);

#endif
