/* Inside of the hook library; hook.c tells how it works. */
#ifndef POEMQ_HOOK_H
#define POEMQ_HOOK_H

#include "hook_wire.h"

typedef long (*pq_syscall)(long nr, long a1, long a2, long a3, long a4, long a5, long a6);

/* What is known from the environment; it does not change after __hook_init. */
struct pq_config {
	char broker[108]; /* the front door's path */
	int plain;        /* without a broker: TCP, not failure */
	struct pq_hello hello;
	int32_t match[PQ_MATCHES][3];
	char name[PQ_NAME];
};

extern struct pq_config pq_config;

/* The next hook in the chain: for calls that are not ours, and all of our own. */
extern pq_syscall pq_next;

/* A call as it was made: number, then six arguments. */
struct pq_args {
	long nr, a[6];
};

/* pq_sys makes a system call that reaches no hook of ours. */
#define pq_sys(nr, ...) pq_sys_(nr, __VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define pq_sys_(nr, a, b, c, d, e, f, ...) \
	pq_next(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* hook_env.c: reads the environment. */
void pq_configure(void);

/* hook_calls.c: whether a call is one that the broker answers, and the memory
   that it will want to read. */
int pq_wanted(const struct pq_args *c);
void pq_describe(const struct pq_args *c, struct pq_call *q);

/* hook.c: the network namespace may be another than when connections were made. */
extern int pq_moved;

/* hook_ask.c: has the broker answer a call; the result is the call's. */
long pq_ask(const struct pq_args *c);

/* A connection to the broker, with the room that a call needs. */
struct pq_slot {
	int owner;   /* tid of the thread that has it; 0: nobody */
	int fd;      /* valid while cookie is not 0 */
	uint64_t cookie;
	uintptr_t frame; /* of the owner's call: how deep its stack was */
	uint32_t id;
	int temporary;   /* not in the table: gone after the call */
	struct pq_call call;
	struct pq_answer answer;
	char data[PQ_DATA];
};

/* hook_slots.c: connections, of which each call has one to itself. */
int pq_slots_init(void);
struct pq_slot *pq_take(int pid, int tid, uintptr_t frame); /* NULL: no memory */
void pq_give(struct pq_slot *s);

/* hook_connect.c: a connection; 0 or -errno. */
int pq_connect(struct pq_slot *s, int pid);
void pq_disconnect(struct pq_slot *s);
int pq_is_ours(int fd, uint64_t cookie);

/* hook_io.c: one packet, with descriptors. Results are the system calls'. */
enum { PQ_FDS = PQ_REPLACES + 1 };
struct iovec;
long pq_send(int fd, const struct iovec *iov, size_t niov, const int *fds, int nfds);
long pq_receive(int fd, const struct iovec *iov, size_t niov, int flags, int *fds, int *nfds, int *lost);

/* hook_text.c: one line on stderr, "poemq: what: on: why; then". */
void pq_say(const char *what, const char *on, const char *why, const char *then);
const char *pq_error(long error); /* of a few errnos, negative or not */
void pq_refusal(const char *why); /* what pq_error says of EPROTO from now on */

void pq_copy(void *to, const void *from, size_t n);

#endif
