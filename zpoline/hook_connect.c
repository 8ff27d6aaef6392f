/*
 * How a connection comes about. The program's side makes a pair of SOCK_SEQPACKET
 * sockets and sends the broker one of them with a hello: over the front door's
 * path, or over a connection that there is, be it one inherited from the parent.
 * The latter needs no path and no permission, and so works in a child that has
 * changed its user, its root or its namespaces.
 */
#include "hook.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>

enum {
	PATIENCE = 10,    /* seconds for the broker to say welcome */
	HIGH = 3900,      /* where our descriptors are, if so many may be open */
	DOORS = 130
};

/*
 * The connections of this process, for its children: unlike the table it is not
 * wiped. Entries of a parent are told by owner.
 */
static struct door {
	int owner; /* pid; 0: free */
	int fd;
	uint64_t cookie;
} doors[DOORS];

/* A socket's own number, which is never 0; 0 for what is none. */
static uint64_t cookie(int fd)
{
	uint64_t is = 0;
	unsigned int len = sizeof(is);

	return pq_sys(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, &is, &len) == 0 ? is : 0;
}

int pq_is_ours(int fd, uint64_t c) { return c != 0 && cookie(fd) == c; }

static void door_add(int pid, int fd, uint64_t c)
{
	for (int i = 0; i < DOORS; i++) {
		int nobody = 0;

		if (__atomic_compare_exchange_n(&doors[i].owner, &nobody, -pid, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
			doors[i].fd = fd;
			doors[i].cookie = c;
			__atomic_store_n(&doors[i].owner, pid, __ATOMIC_RELEASE);
			return;
		}
	}
}

static void door_remove(int fd, uint64_t c)
{
	for (int i = 0; i < DOORS; i++) {
		int owner = __atomic_load_n(&doors[i].owner, __ATOMIC_ACQUIRE);

		if (owner > 0 && doors[i].fd == fd && doors[i].cookie == c)
			__atomic_compare_exchange_n(&doors[i].owner, &owner, 0, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
	}
}

/* A connection that a hello can go through, or -1. */
static int door(void)
{
	for (int i = 0; i < DOORS; i++) {
		int owner = __atomic_load_n(&doors[i].owner, __ATOMIC_ACQUIRE);

		if (owner > 0 && pq_is_ours(doors[i].fd, doors[i].cookie))
			return doors[i].fd;
	}
	return -1;
}

/* Closes what a child of fork(2) has of its parent's; with shared memory it is
   not the child's to forget. */
static void let_go(int pid)
{
	for (int i = 0; i < DOORS; i++) {
		int owner = __atomic_load_n(&doors[i].owner, __ATOMIC_ACQUIRE);

		if (owner == 0 || owner == pid || owner == -pid)
			continue;
		if (owner > 0 && pq_is_ours(doors[i].fd, doors[i].cookie))
			pq_sys(SYS_close, doors[i].fd);
		__atomic_compare_exchange_n(&doors[i].owner, &owner, 0, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
	}
}

/* Puts fd out of the way of the program's own numbers. */
static int high(int fd)
{
	struct rlimit lim;
	long want = HIGH, got;

	if (pq_sys(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, &lim) == 0 && lim.rlim_cur < HIGH + 160)
		want = lim.rlim_cur > 400 ? (long)lim.rlim_cur - 160 : (long)lim.rlim_cur / 2;
	got = pq_sys(SYS_fcntl, fd, F_DUPFD_CLOEXEC, want);
	if (got < 0)
		return fd;
	pq_sys(SYS_close, fd);
	return got;
}

/* Sends the hello through fd, with the broker's end of the pair. */
static long hello(int fd, int end, int netns)
{
	struct pq_hello h = pq_config.hello;
	const struct iovec iov[3] = {
		{ &h, sizeof(h) },
		{ pq_config.match, h.nmatch * sizeof(*pq_config.match) },
		{ pq_config.name, h.namelen },
	};
	const int fds[2] = { end, netns };

	h.pid = pq_sys(SYS_getpid, 0);
	h.fds = PQ_HAS_END | (netns >= 0 ? PQ_HAS_NETNS : 0);
	return pq_send(fd, iov, 3, fds, netns >= 0 ? 2 : 1);
}

static void patience(int fd, int option, int seconds)
{
	const struct { long sec, usec; } t = { seconds, 0 };

	pq_sys(SYS_setsockopt, fd, SOL_SOCKET, option, &t, sizeof(t));
}

/* Goes to the front door: a descriptor or -errno. */
static long knock(void)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	long fd, r;

	if (!pq_config.broker[0])
		return -ENAMETOOLONG;
	pq_copy(to.sun_path, pq_config.broker, sizeof(to.sun_path));
	fd = pq_sys(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	patience(fd, SO_SNDTIMEO_OLD, PATIENCE);
	do
		r = pq_sys(SYS_connect, fd, &to, sizeof(to));
	while (r == -EINTR);
	if (r == 0)
		return fd;
	pq_sys(SYS_close, fd);
	return r;
}

/* Waits for the broker's word on fd: 0 or -errno. */
static long welcomed(struct pq_slot *s, int fd)
{
	const struct iovec iov[2] = { { &s->answer, sizeof(s->answer) }, { s->data, sizeof(s->data) - 1 } };
	int fds[PQ_FDS], n, lost;
	long r;

	patience(fd, SO_RCVTIMEO_OLD, PATIENCE);
	do
		r = pq_receive(fd, iov, 2, MSG_CMSG_CLOEXEC, fds, &n, &lost);
	while (r == -EINTR);
	patience(fd, SO_RCVTIMEO_OLD, 0);
	if (r == 0)
		return -ECONNRESET;
	if (r < (long)sizeof(s->answer))
		return r < 0 ? r : -ECONNRESET;
	if (s->answer.kind != PQ_WELCOME) {
		s->data[r - sizeof(s->answer)] = 0;
		pq_refusal(s->data);
		return -EPROTO;
	}
	if (s->answer.val > 0)
		pq_sys(SYS_prctl, PR_SET_PTRACER, s->answer.val, 0, 0, 0); /* Yama; EINVAL without it */
	return 0;
}

/* Sends the hello where it can go: 0 or -errno. */
static long introduce(int end)
{
	const int open = door();
	const long netns = pq_sys(SYS_open, "/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC, 0);
	long r = -1;

	if (open >= 0)
		r = hello(open, end, netns);
	if (r < 0) {
		long fd = knock();

		r = fd;
		if (fd >= 0) {
			r = hello(fd, end, netns);
			pq_sys(SYS_close, fd);
		}
	}
	if (netns >= 0)
		pq_sys(SYS_close, netns);
	return r < 0 ? r : 0;
}

int pq_connect(struct pq_slot *s, int pid)
{
	int pair[2];
	long r = pq_sys(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);

	if (r < 0)
		return r;
	r = introduce(pair[1]);
	pq_sys(SYS_close, pair[1]);
	if (r == 0)
		r = welcomed(s, pair[0]);
	if (r < 0) {
		pq_sys(SYS_close, pair[0]);
		return r;
	}
	s->fd = high(pair[0]);
	s->cookie = cookie(s->fd);
	s->id = 0;
	if (!s->temporary) {
		let_go(pid);
		door_add(pid, s->fd, s->cookie);
	}
	return 0;
}

void pq_disconnect(struct pq_slot *s)
{
	if (!s->cookie)
		return;
	if (pq_is_ours(s->fd, s->cookie))
		pq_sys(SYS_close, s->fd);
	if (!s->temporary)
		door_remove(s->fd, s->cookie);
	s->cookie = 0;
}
