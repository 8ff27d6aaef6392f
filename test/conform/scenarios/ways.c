/* ways.c - ways past the C library's socket calls. */
#include "conform.h"
#include <linux/io_uring.h>

/* ---- io_uring, as a program with a way back uses it ---------------------- */

struct ring {
	int fd;
	unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static int ring_open(struct ring *r)
{
	struct io_uring_params p = {0};
	r->fd = (int)syscall(SYS_io_uring_setup, 8, &p);
	if (r->fd < 0)
		return -1;
	char *sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	char *cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof *r->cqes, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_CQ_RING);
	r->sqes = mmap(NULL, p.sq_entries * sizeof *r->sqes, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || r->sqes == MAP_FAILED)
		die("mmap of a ring");
	r->sq_tail = (void *)(sq + p.sq_off.tail), r->sq_mask = (void *)(sq + p.sq_off.ring_mask);
	r->sq_array = (void *)(sq + p.sq_off.array), r->cqes = (void *)(cq + p.cq_off.cqes);
	r->cq_head = (void *)(cq + p.cq_off.head), r->cq_tail = (void *)(cq + p.cq_off.tail);
	r->cq_mask = (void *)(cq + p.cq_off.ring_mask);
	return 0;
}

/* ring_do submits one operation, waits for it, and answers as a call would. */
static int ring_do(struct ring *r, struct io_uring_sqe sqe)
{
	unsigned tail = *r->sq_tail, i = tail & *r->sq_mask;
	r->sqes[i] = sqe;
	r->sq_array[i] = i;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return -1;
	int res = r->cqes[*r->cq_head & *r->cq_mask].res;
	__atomic_store_n(r->cq_head, *r->cq_head + 1, __ATOMIC_RELEASE);
	if (res < 0)
		errno = -res, res = -1;
	return res;
}

SCENARIO(io_uring, ALL, "io_uring works, or is ENOSYS and plain calls work")
{
	struct ring r;
	struct addr a, to;
	int have = ring_open(&r) == 0, l = server(&a), c, s;
	char b[8] = "";
	if (!have && errno != ENOSYS)
		say("io_uring_setup: %s", ename(errno));
	to = a;
	if (have) {
		c = ring_do(&r, (struct io_uring_sqe){.opcode = IORING_OP_SOCKET, .fd = AF, .off = SOCK_STREAM});
		RL(ring_do(&r, (struct io_uring_sqe){.opcode = IORING_OP_CONNECT, .fd = c, .addr = (uintptr_t)&to.sa, .off = to.len}),
		   "connect");
		s = ring_do(&r, (struct io_uring_sqe){.opcode = IORING_OP_ACCEPT, .fd = l});
		RL(ring_do(&r, (struct io_uring_sqe){.opcode = IORING_OP_SEND, .fd = c, .addr = (uintptr_t)"hello", .len = 5}), "send");
		RL(ring_do(&r, (struct io_uring_sqe){.opcode = IORING_OP_RECV, .fd = s, .addr = (uintptr_t)b, .len = 5}), "recv");
	} else {
		c = socket(AF, SOCK_STREAM, 0);
		RL(connect(c, &to.sa, to.len), "connect");
		s = accept(l, NULL, NULL);
		RL(send(c, "hello", 5, 0), "send");
		RL(recv(s, b, 5, MSG_WAITALL), "recv");
	}
	say("%s", b);
	show_names("client", c);
	show_names("accepted", s);
}

SCENARIO(io_uring_args, ONCE, "io_uring calls without a ring")
{
	long r = syscall(SYS_io_uring_setup, 0, NULL);
	say("setup fails, clearly: %d", r == -1 && (errno == ENOSYS || errno == EFAULT));
	r = syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0);
	say("enter fails, clearly: %d", r == -1 && (errno == ENOSYS || errno == EBADF || errno == EOPNOTSUPP));
	r = syscall(SYS_io_uring_register, -1, 0, NULL, 0);
	say("register fails, clearly: %d", r == -1 && (errno == ENOSYS || errno == EBADF || errno == EINVAL || errno == EOPNOTSUPP));
}

/* ---- foreign ABIs --------------------------------------------------------- */

#ifdef __x86_64__
/* int80 makes an i386 call from a 64-bit program; pointers must be low. */
static long int80(long nr, long a, long b, long c, long d, long e)
{
	long r;
	__asm__ volatile("int $0x80"
			 : "=a"(r)
			 : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
			 : "r8", "r9", "r10", "r11", "memory");
	r = (int)r;
	if (r < 0 && r > -4096) {
		errno = (int)-r;
		return -1;
	}
	return r;
}

/* works or a clear refusal: both are right, a wrong answer is not. */
static int refused(const char *what, long r)
{
	if (r != -1) {
		return 0;
	}
	int clear = errno == ENOSYS || errno == EPERM || errno == EACCES || errno == EAFNOSUPPORT;
	if (!clear)
		say("%s: %s", what, ename(errno));
	return 1;
}

static void *low(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (p == MAP_FAILED)
		skip("no memory below 4 GB");
	return p;
}

static long socketcall(int call, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
	uint32_t *args = low(64);
	args[0] = a, args[1] = b, args[2] = c, args[3] = d;
	return int80(102, call, (long)args, 0, 0, 0);
}

static uint32_t p32(const void *p) { return (uint32_t)(uintptr_t)p; }

static void has_i386(void)
{
	pid_t p = fork();
	if (p == 0) {
		struct rlimit none = {0, 0};
		setrlimit(RLIMIT_CORE, &none);
		int80(20, 0, 0, 0, 0, 0); /* getpid */
		_exit(0);
	}
	int st;
	waitpid(p, &st, 0);
	if (st)
		skip("the kernel runs no i386 calls");
}

SCENARIO(i386_socketcall, ALL, "i386 socketcall(2): a whole connection, or a clear refusal")
{
	has_i386();
	struct addr *a = low(4096);
	socklen_t *n = low(4096);
	char *b = low(4096);
	long l = socketcall(1, (uint32_t)AF, SOCK_STREAM, 0, 0);
	if (refused("socket", l)) {
		say("served or refused");
		return;
	}
	*a = loop(0);
	long r = socketcall(2, (uint32_t)l, p32(&a->sa), a->len, 0) | socketcall(4, (uint32_t)l, 5, 0, 0);
	*n = sizeof a->ss;
	r |= socketcall(6, (uint32_t)l, p32(&a->sa), p32(n), 0);
	long c = socketcall(1, (uint32_t)AF, SOCK_STREAM, 0, 0);
	r |= socketcall(3, (uint32_t)c, p32(&a->sa), *n, 0);
	long s = socketcall(5, (uint32_t)l, 0, 0, 0);
	strcpy(b, "hello");
	if (r != 0 || s < 0 || socketcall(9, (uint32_t)c, p32(b), 5, 0) != 5 || socketcall(10, (uint32_t)s, p32(b + 8), 5, 0) != 5 ||
	    strcmp(b, b + 8))
		say("not served: %ld %s", r, ename(errno));
	say("served or refused");
}

SCENARIO(i386_calls, ALL, "the i386 socket calls of today: a whole connection, or a clear refusal")
{
	has_i386();
	struct addr *a = low(4096);
	socklen_t *n = low(4096);
	int *one = low(4096);
	long l = int80(359, AF, SOCK_STREAM, 0, 0, 0);
	if (refused("socket", l)) {
		say("served or refused");
		return;
	}
	*a = loop(0), *n = sizeof a->ss, *one = 1;
	long r = int80(366, l, SOL_SOCKET, SO_REUSEADDR, p32(one), 4) | int80(361, l, p32(&a->sa), a->len, 0, 0) |
		 int80(363, l, 5, 0, 0, 0) | int80(367, l, p32(&a->sa), p32(n), 0, 0);
	long c = int80(359, AF, SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0);
	r |= int80(362, c, p32(&a->sa), *n, 0, 0);
	long s = int80(364, l, 0, 0, SOCK_NONBLOCK, 0);
	if (r != 0 || s < 0 || fcntl((int)s, F_GETFL) != 0x802 || send((int)c, "x", 1, 0) != 1)
		say("not served: %ld %ld %s", r, s, ename(errno));
	say("served or refused");
}

SCENARIO(i386_mixed, ALL, "an i386 connect on a socket made by the 64-bit call")
{
	has_i386();
	struct addr *a = low(4096);
	int l = server(a), c = tcp();
	long r = int80(362, c, p32(&a->sa), a->len, 0, 0);
	if (refused("connect", r))
		r = connect(c, &a->sa, a->len);
	RL(r, "connect, one way or the other");
	FD(accept(l, NULL, NULL));
	show_names("client", c);
}

SCENARIO(x32, ALL, "x32 numbers: ENOSYS on a kernel without them")
{
	R(syscall(0x40000000 | SYS_socket, AF, SOCK_STREAM, 0));
	R(syscall(0x40000000 | SYS_connect, -1, NULL, 0));
	R(syscall(0x40000000 | SYS_accept, -1, NULL, 0));
	struct conn k = conn();
	show_names("client", k.c);
}

SCENARIO(inline_syscall, ALL, "a syscall instruction of the program's own, as Go has it")
{
	long fd;
	register long r10 __asm__("r10") = 0;
	__asm__ volatile("syscall" : "=a"(fd) : "a"(SYS_socket), "D"((long)AF), "S"((long)SOCK_STREAM), "d"(0L), "r"(r10) : "rcx", "r11", "memory");
	R(fd >= 0);
	struct addr a;
	int l = server(&a);
	R(connect((int)fd, &a.sa, a.len));
	FD(accept(l, NULL, NULL));
	show_names("client", (int)fd);
}
#endif

SCENARIO(accept_both, ALL, "accept(2) and accept4(2) on one socket")
{
	struct addr a;
	int l = server(&a);
	for (int i = 0; i < 4; i++) {
		int c = client(&a);
		int s = i & 1 ? FD(syscall(SYS_accept, l, NULL, NULL)) : FD(syscall(SYS_accept4, l, NULL, NULL, SOCK_CLOEXEC));
		R(fcntl(s, F_GETFD));
		R(send(c, "x", 1, MSG_NOSIGNAL));
	}
}

SCENARIO(high_half, ALL, "garbage in the upper halves of descriptors and lengths")
{
	struct addr a;
	int l = server(&a), c = tcp(), s;
	long top = 0x7700000000;
	R(syscall(SYS_connect, top | c, &a.sa, top | a.len));
	s = FD(syscall(SYS_accept4, top | l, NULL, NULL, top));
	R(syscall(SYS_setsockopt, top | c, top | IPPROTO_TCP, top | TCP_NODELAY, &(int){1}, top | 4));
	R(get_int(c, IPPROTO_TCP, TCP_NODELAY));
	R(syscall(SYS_shutdown, top | c, top | SHUT_WR));
	wait_bits("accepted", s, POLLRDHUP);
	R(syscall(SYS_listen, top | tcp(), top | 1));
}

SCENARIO(pidfd_getfd, ALL, "a program that takes its own socket through a pidfd")
{
	struct conn k = conn();
	int p = (int)syscall(SYS_pidfd_open, getpid(), 0);
	int d = FD(syscall(SYS_pidfd_getfd, p, k.c, 0));
	show_names("copy", d);
	R(close(k.c));
	show_bits("accepted", k.s);
	R(close(d));
	wait_bits("accepted", k.s, POLLRDHUP);
}

SCENARIO(kcmp, ALL, "kcmp tells a dup from another socket")
{
	struct conn k = conn();
	int d = dup(k.c);
	pid_t me = getpid();
	R(syscall(SYS_kcmp, me, me, 0, k.c, d));
	say("another: %d", syscall(SYS_kcmp, me, me, 0, k.c, k.s) > 0);
}

SCENARIO(address_changed_after, ALL, "the address is taken when connect is called")
{
	struct addr a, b;
	int l = server(&a), m = server(&b), c = tcp();
	struct addr to = a;
	nonblock(c, 1);
	R(connect(c, &to.sa, to.len));
	to = b;
	wait_bits("client", c, POLLOUT);
	FD(accept(l, NULL, NULL));
	nonblock(m, 1);
	R(accept(m, NULL, NULL));
}

static void *write_until_error(void *fd)
{
	while (send(*(int *)fd, "x", 1, MSG_NOSIGNAL) == 1)
		;
	return NULL;
}

SCENARIO(written_before_reset, ALL, "what was written before close arrives, though the peer goes on writing")
{
	struct addr a;
	int l = server(&a), whole = 0;
	static char out[20000], in[sizeof out];
	for (int i = 0; i < 60; i++) {
		int c = client(&a), s = accept(l, NULL, NULL);
		pthread_t t;
		pthread_create(&t, NULL, write_until_error, &c);
		while (i % 3 == 0 && recv(s, in, sizeof in, 0) <= 0)
			;
		size_t n = i % 2 ? sizeof out : 10;
		send(s, out, n, MSG_NOSIGNAL);
		close(s);
		whole += recv(c, in, n, MSG_WAITALL) == (ssize_t)n;
		pthread_join(t, NULL);
		close(c);
	}
	say("whole %d", whole);
}
