/*
 * One call: the question, the answer, and signals in between.
 *
 * While the answer is waited for, the kernel treats the wait as it would the
 * call: a handler with SA_RESTART runs, and recvmsg goes on; one without makes it
 * EINTR. Then the broker is told (PQ_CANCEL) and says which came first, its
 * answer or the signal: nothing that it gave is lost.
 */
#include "hook.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>

static long kernel(const struct pq_args *c)
{
	return pq_next(c->nr, c->a[0], c->a[1], c->a[2], c->a[3], c->a[4], c->a[5]);
}

/* Whether a listening socket of ours has lost its broker: its name is in one of
   the directories that brokers make, and nobody puts connections there. */
static int orphan(int fd)
{
	static const char dir[] = "/poemq-";
	struct sockaddr_un a;
	unsigned int len = sizeof(a);
	size_t n = 0;

	if (pq_sys(SYS_getsockname, fd, &a, &len) != 0 || a.sun_family != AF_UNIX || len <= offsetof(struct sockaddr_un, sun_path))
		return 0;
	len -= offsetof(struct sockaddr_un, sun_path);
	for (size_t i = 0; i < len && i < sizeof(a.sun_path) && a.sun_path[i]; i++) {
		n = a.sun_path[i] == dir[n] ? n + 1 : a.sun_path[i] == dir[0];
		if (n == sizeof(dir) - 1)
			return 1;
	}
	return 0;
}

/* A call that no broker answers. An accept that would wait for ever fails. */
static long unanswered(const struct pq_args *c)
{
	if ((c->nr == SYS_accept || c->nr == SYS_accept4) && orphan(c->a[0]))
		return -ENOSYS;
	return kernel(c);
}

static int waits(const struct pq_args *c)
{
	return c->nr == SYS_connect || c->nr == SYS_accept || c->nr == SYS_accept4;
}

static int cloexec(const struct pq_args *c)
{
	return (c->nr == SYS_socket && (c->a[1] & SOCK_CLOEXEC)) || (c->nr == SYS_accept4 && (c->a[3] & SOCK_CLOEXEC));
}

/* The program's descriptor that c is about, or -1. */
static int file(const struct pq_args *c) { return c->nr == SYS_socket ? -1 : (int)c->a[0]; }

/* Sends the question. -EBADF: the program's descriptor is not open. */
static long question(struct pq_slot *s, const struct pq_args *c, int netns)
{
	struct pq_call *q = &s->call;
	struct iovec iov[1 + PQ_MEMS] = { { q, sizeof(*q) } };
	int fds[2], n = 0;
	long r;

	if (file(c) >= 0 && (q->fds & PQ_CALL_FILE))
		fds[n++] = file(c);
	if (netns >= 0)
		fds[n++] = netns;
	for (uint32_t i = 0; i < q->nmem; i++)
		iov[1 + i] = (struct iovec){ (void *)q->mem[i].addr, q->mem[i].unreadable ? 0 : q->mem[i].len };
	r = pq_send(s->fd, iov, 1 + q->nmem, fds, n);
	if (r == -EFAULT && q->nmem && !q->mem[0].unreadable) {
		for (uint32_t i = 0; i < q->nmem; i++)
			q->mem[i].unreadable = 1;
		return question(s, c, netns);
	}
	if (r == -ETOOMANYREFS && (q->fds & PQ_CALL_FILE)) { /* sent, and not received yet, by this user */
		q->fds &= ~PQ_CALL_FILE;
		return question(s, c, netns);
	}
	return r;
}

static long ask(struct pq_slot *s, const struct pq_args *c, int tid)
{
	struct pq_call *q = &s->call;
	int netns = -1;
	long r;

	q->kind = PQ_CALL;
	q->id = ++s->id;
	q->nr = c->nr;
	q->tid = tid;
	for (int i = 0; i < 6; i++)
		q->args[i] = c->a[i];
	q->fds = file(c) >= 0 ? PQ_CALL_FILE : 0;
	if (__atomic_load_n(&pq_moved, __ATOMIC_RELAXED))
		netns = pq_sys(SYS_open, "/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC, 0);
	if (netns >= 0)
		q->fds |= PQ_CALL_NETNS;
	pq_describe(c, q);
	r = question(s, c, netns);
	if (netns >= 0)
		pq_sys(SYS_close, netns);
	return r;
}

static long tell(struct pq_slot *s, uint32_t kind, int value)
{
	const struct iovec iov = { &s->call, sizeof(s->call) };

	s->call.kind = kind;
	s->call.id = s->id;
	s->call.nr = value;
	s->call.fds = s->call.nmem = 0;
	return pq_send(s->fd, &iov, 1, 0, 0);
}

/*
 * A wait that SO_RCVTIMEO or SO_SNDTIMEO bounds is never gone on with after a
 * handler (signal(7)): neither is poll.
 */
static int timed(const struct pq_args *c)
{
	struct { long sec, usec; } t = { 0, 0 };
	unsigned int len = sizeof(t);

	if (!waits(c) || pq_sys(SYS_getsockopt, file(c), SOL_SOCKET, c->nr == SYS_connect ? SO_SNDTIMEO_OLD : SO_RCVTIMEO_OLD, &t, &len) != 0)
		return 0;
	return t.sec != 0 || t.usec != 0;
}

static long now(void) /* nanoseconds */
{
	struct { long sec, nsec; } t = { 0, 0 };

	pq_sys(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
	return t.sec * 1000000000 + t.nsec;
}

/*
 * Looks for an answer that comes soon. To sleep, and be woken on a processor that
 * went idle meanwhile, takes longer than the broker does, and more of the
 * processors' time; others are let run in between. -EAGAIN: it was not there soon.
 */
static long hear_soon(struct pq_slot *s, const struct iovec *iov, int flags, int *fds, int *nfds, int *lost)
{
	enum { SOON = 40000 /* ns: a broker that slept is awake by then */, LOOKS = 8 };
	long end = 0;

	for (;;) {
		for (int i = 0; i < LOOKS; i++) {
			long r = pq_receive(s->fd, iov, 2, flags | MSG_DONTWAIT, fds, nfds, lost);

			if (r != -EAGAIN)
				return r;
			pq_sys(SYS_sched_yield, 0);
		}
		if (end == 0)
			end = now() + SOON;
		else if (now() >= end)
			return -EAGAIN;
	}
}

/* Receives one packet. -EINTR: a handler ran, and the call is not to go on. */
static long hear(struct pq_slot *s, const struct pq_args *c, int *fds, int *nfds, int *lost)
{
	const struct iovec iov[2] = { { &s->answer, sizeof(s->answer) }, { s->data, sizeof(s->data) } };
	const int flags = cloexec(c) ? MSG_CMSG_CLOEXEC : 0;
	long r = -EAGAIN;

	if (!waits(c))
		r = hear_soon(s, iov, flags, fds, nfds, lost);
	if (r != -EAGAIN)
		return r;
	if (timed(c)) {
		struct pollfd p = { .fd = s->fd, .events = POLLIN };

		r = pq_sys(SYS_poll, &p, 1, -1);
		if (r < 0)
			return r;
	}
	return pq_receive(s->fd, iov, 2, flags, fds, nfds, lost);
}

static void close_all(const int *fds, int n)
{
	for (int i = 0; i < n; i++)
		pq_sys(SYS_close, fds[i]);
}

/* Waits for the answer: 0, or -errno when there will be none. */
static long answer(struct pq_slot *s, const struct pq_args *c, int pid, int *fds, int *nfds, int *lost)
{
	int cancelled = 0;

	for (;;) {
		long r = hear(s, c, fds, nfds, lost);

		if (r == -EINTR) {
			if (pq_sys(SYS_getpid, 0) != pid)
				return -EINTR; /* a child that its handler made: the question was the parent's */
			if (waits(c) && !cancelled) {
				cancelled = 1;
				r = tell(s, PQ_CANCEL, 0);
				if (r < 0)
					return -ECONNRESET;
			}
			continue;
		}
		if (r == 0)
			return -ECONNRESET;
		if (r < 0)
			return r;
		if (r >= (long)sizeof(s->answer) && s->answer.id == s->id && s->answer.nwrite <= PQ_WRITES && s->answer.nreplace <= PQ_REPLACES)
			return 0;
		close_all(fds, *nfds);
	}
}

/* write_memory where process_vm_writev(2) is not allowed, as by Docker's default
   seccomp profile: through a pipe, in parts that it has room for always
   (PIPE_BUF, pipe(7)). */
static long write_by_pipe(const struct iovec *to, uint32_t n, const char *from)
{
	int p[2];
	long r = pq_sys(SYS_pipe2, p, O_CLOEXEC) < 0 ? -EFAULT : 0;

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n && r == 0; i++) {
		for (size_t done = 0, part; done < to[i].iov_len && r == 0; done += part, from += part) {
			part = to[i].iov_len - done < PIPE_BUF ? to[i].iov_len - done : PIPE_BUF;
			if (pq_sys(SYS_write, p[1], from, part) != (long)part ||
			    pq_sys(SYS_read, p[0], (char *)to[i].iov_base + done, part) != (long)part)
				r = -EFAULT;
		}
	}
	close_all(p, 2);
	return r;
}

/* Writes to the program's memory what the answer brings: 0 or -EFAULT. It is
   named by the thread: the first one may have ended. */
static long write_memory(struct pq_slot *s, int tid)
{
	struct iovec to[PQ_WRITES], from = { s->data, 0 };
	const struct pq_answer *a = &s->answer;

	if (a->nwrite == 0)
		return 0;
	for (uint32_t i = 0; i < a->nwrite; i++) {
		to[i] = (struct iovec){ (void *)a->write[i].addr, a->write[i].len };
		from.iov_len += a->write[i].len;
	}
	if (from.iov_len > sizeof(s->data))
		return -EFAULT;
	if (from.iov_len == 0)
		return 0;
	const long n = pq_sys(SYS_process_vm_writev, tid, &from, 1, to, a->nwrite, 0);

	if (n == -EPERM || n == -ENOSYS)
		return write_by_pipe(to, a->nwrite, s->data);
	return n == (long)from.iov_len ? 0 : -EFAULT;
}

/* Puts the first descriptors in the place of the program's. */
static void replace(const struct pq_answer *a, const int *fds, int nfds)
{
	for (int i = 0; i < (int)a->nreplace && i < nfds; i++) {
		long flags = pq_sys(SYS_fcntl, a->replace[i], F_GETFD);

		if (flags >= 0) /* else it was closed meanwhile */
			pq_sys(SYS_dup3, fds[i], a->replace[i], flags & FD_CLOEXEC ? O_CLOEXEC : 0);
	}
}

/* Makes the last descriptor the call's result. */
static long install(struct pq_slot *s, int *fds, int nfds, int lost, int tid)
{
	const int at = nfds && !lost ? fds[nfds - 1] : -1;
	long r = at < 0 ? -EMFILE : write_memory(s, tid);

	if (r < 0)
		close_all(fds, nfds);
	else
		r = at;
	if (s->answer.val)
		tell(s, PQ_TAKEN, r);
	return r;
}

/* Does what the answer says. */
static long obey(struct pq_slot *s, const struct pq_args *c, int tid, int *fds, int nfds, int lost)
{
	long r;

	replace(&s->answer, fds, nfds);
	if (s->answer.kind == PQ_INSTALL) {
		close_all(fds, nfds - 1);
		return install(s, fds + (nfds ? nfds - 1 : 0), nfds ? 1 : 0, lost, tid);
	}
	close_all(fds, nfds);
	switch (s->answer.kind) {
	case PQ_CONTINUE:
		return unanswered(c);
	case PQ_CANCELLED:
		return -EINTR;
	case PQ_RETURN:
		r = write_memory(s, tid);
		return r < 0 ? r : s->answer.val;
	}
	return -EIO;
}

/* Whether stderr was told of the broker's absence. */
static int told;

static long without_broker(const struct pq_args *c, long error)
{
	if (c->nr != SYS_socket)
		return unanswered(c); /* it may be any file */
	if (error == -EMFILE || error == -ENFILE || error == -ENOMEM)
		return error;
	if (!__atomic_exchange_n(&told, 1, __ATOMIC_RELAXED))
		pq_say("broker", pq_config.broker, pq_error(error),
		       pq_config.plain ? "going on over plain TCP" :
					 "sockets fail (ENOSYS); start poemqd, or set POEMQ_ON_BROKER_MISSING=plain");
	return pq_config.plain ? kernel(c) : -ENOSYS;
}

/* One try over s: the result, or -ECONNRESET in *broken. */
static long try(struct pq_slot *s, const struct pq_args *c, int pid, int tid, long *broken)
{
	int fds[PQ_FDS], nfds = 0, lost = 0;
	long r;

	*broken = 0;
	if (!pq_is_ours(s->fd, s->cookie)) {
		pq_disconnect(s);
		r = pq_connect(s, pid);
		if (r < 0) {
			*broken = r;
			return r;
		}
		__atomic_store_n(&told, 0, __ATOMIC_RELAXED);
	}
	r = ask(s, c, tid);
	if (r == -EBADF)
		return kernel(c); /* which says so, too */
	if (r >= 0)
		r = answer(s, c, pid, fds, &nfds, &lost);
	if (r < 0) {
		*broken = -ECONNRESET;
		return r;
	}
	return obey(s, c, tid, fds, nfds, lost);
}

long pq_ask(const struct pq_args *c)
{
	const int pid = pq_sys(SYS_getpid, 0), tid = pq_sys(SYS_gettid, 0);
	struct pq_slot *s = pq_take(pid, tid, (uintptr_t)__builtin_frame_address(0));
	long r, broken;
	int lost;

	if (!s)
		return -ENOMEM;
	r = try(s, c, pid, tid, &broken);
	if (broken && pq_sys(SYS_getpid, 0) != pid)
		return pq_ask(c); /* now the child's question */
	lost = broken == -ECONNRESET;
	if (lost) { /* it went away; there may be another by now */
		pq_disconnect(s);
		r = try(s, c, pid, tid, &broken);
		if (broken == -ECONNRESET)
			pq_disconnect(s);
	}
	pq_give(s);
	if (broken)
		r = without_broker(c, broken);
	/* What the broker that went was connecting is nothing to anybody else. */
	return lost && c->nr == SYS_connect && r == -EINVAL ? -ECONNRESET : r;
}
