/* data.c - every way to read and write a stream. */
#include "conform.h"

static void fill(char *b, size_t n, uint64_t off)
{
	for (size_t i = 0; i < n; i++)
		b[i] = (char)pattern(off + i);
}

/* arrived waits until n bytes can be read at once. */
static void arrived(int fd, int n)
{
	int v = 0;
	UNTIL(ioctl(fd, FIONREAD, &v) == 0 && v >= n);
}

SCENARIO(read_write, ALL, "read and write, both ways")
{
	struct conn k = conn();
	char b[16] = "";
	R(write(k.c, "ping", 4));
	R(read(k.s, b, sizeof b));
	say("%s", b);
	R(write(k.s, "pong!", 5));
	R(read(k.c, b, sizeof b));
	say("%s", b);
}

SCENARIO(readv_writev, ALL, "readv and writev, empty and many vectors")
{
	struct conn k = conn();
	char out[100], in[100], x[3], y[50], z[100];
	fill(out, 100, 0);
	struct iovec w[] = {{out, 10}, {out + 10, 0}, {out + 10, 90}}, r[] = {{x, 3}, {NULL, 0}, {y, 50}, {z, 100}};
	R(writev(k.c, w, 3));
	arrived(k.s, 100);
	R(readv(k.s, r, 4));
	memcpy(in, x, 3), memcpy(in + 3, y, 50), memcpy(in + 53, z, 47);
	say("right: %d", !memcmp(in, out, 100));
	R(writev(k.c, w, 0));
	R(syscall(SYS_writev, k.c, w, -1L));
	R(syscall(SYS_writev, k.c, w, 1025L));
	struct iovec many[1024];
	for (int i = 0; i < 1024; i++)
		many[i] = (struct iovec){out, 1};
	R(writev(k.c, many, 1024));
	arrived(k.s, 1024);
	R(recv(k.s, (char[2000]){0}, 2000, 0));
}

SCENARIO(recvfrom_name, ALL, "recvfrom gives no name on a stream")
{
	struct conn k = conn();
	struct addr from = {.len = sizeof from.ss};
	char b[8];
	R(send(k.c, "abc", 3, 0));
	R(recvfrom(k.s, b, 8, 0, &from.sa, &from.len));
	say("length %u", from.len);
}

SCENARIO(recvmsg_sendmsg, ALL, "msghdr in and out: name, control and flags")
{
	struct conn k = conn();
	char b[8], ctl[64] = {0};
	struct addr from = {.len = sizeof from.ss};
	struct iovec v = {"abcdef", 6}, r = {b, 4};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	R(sendmsg(k.c, &m, 0));
	arrived(k.s, 6);
	m = (struct msghdr){.msg_name = &from.sa, .msg_namelen = sizeof from.ss, .msg_iov = &r, .msg_iovlen = 1,
			    .msg_control = ctl, .msg_controllen = sizeof ctl, .msg_flags = -1};
	R(recvmsg(k.s, &m, 0));
	say("namelen %u controllen %zu flags %#x", m.msg_namelen, m.msg_controllen, m.msg_flags);
	R(recvmsg(k.s, &m, MSG_CMSG_CLOEXEC));
	R(close(k.c));
	R(recvmsg(k.s, &m, 0));
	say("flags %#x", m.msg_flags);
}

SCENARIO(control_messages, ALL, "sending control messages a TCP socket does not know")
{
	struct conn k = conn();
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u = {0};
	struct iovec v = {"x", 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof u.buf};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &k.l, sizeof(int));
	R(sendmsg(k.c, &m, 0));
	char b[8];
	R(recv(k.s, b, 8, 0));
	c->cmsg_type = 99;
	R(sendmsg(k.c, &m, 0));
	c->cmsg_level = IPPROTO_TCP;
	R(sendmsg(k.c, &m, 0));
}

SCENARIO(mmsg, ALL, "sendmmsg and recvmmsg")
{
	struct conn k = conn();
	char b[3][4] = {{0}};
	struct iovec w[3] = {{"abc", 3}, {"def", 3}, {"ghi", 3}}, r[3];
	struct mmsghdr m[3] = {0}, q[3] = {0};
	for (int i = 0; i < 3; i++) {
		r[i] = (struct iovec){b[i], 3};
		m[i].msg_hdr = (struct msghdr){.msg_iov = &w[i], .msg_iovlen = 1};
		q[i].msg_hdr = (struct msghdr){.msg_iov = &r[i], .msg_iovlen = 1};
	}
	R(sendmmsg(k.c, m, 3, 0));
	say("%u %u %u", m[0].msg_len, m[1].msg_len, m[2].msg_len);
	arrived(k.s, 9);
	R(recvmmsg(k.s, q, 3, 0, NULL));
	say("%u %u %u %.3s%.3s%.3s", q[0].msg_len, q[1].msg_len, q[2].msg_len, b[0], b[1], b[2]);
	R(recvmmsg(k.s, q, 3, MSG_DONTWAIT, NULL));
}

SCENARIO(peek, ALL, "MSG_PEEK, and SO_PEEK_OFF")
{
	struct conn k = conn();
	char b[8] = "";
	R(send(k.c, "abcdef", 6, 0));
	arrived(k.s, 6);
	R(recv(k.s, b, 3, MSG_PEEK));
	R(recv(k.s, b, 8, MSG_PEEK));
	R(recv(k.s, b, 8, MSG_PEEK | MSG_TRUNC));
	say("%s", b);
	R(recv(k.s, b, 2, 0));
	R(recv(k.s, b, 8, MSG_PEEK | MSG_DONTWAIT));
	say("%.4s", b);
	R(shutdown(k.c, SHUT_WR));
	R(recv(k.s, b, 4, 0));
	R(recv(k.s, b, 4, MSG_PEEK));
	R(recv(k.s, b, 4, 0));
}

SCENARIO(peek_off, ALL, "SO_PEEK_OFF")
{
	struct conn k = conn();
	char b[8] = "";
	R(send(k.c, "abcdef", 6, 0));
	arrived(k.s, 6);
	say("%d", get_int(k.s, SOL_SOCKET, SO_PEEK_OFF));
	R(set_int(k.s, SOL_SOCKET, SO_PEEK_OFF, 2));
	R(recv(k.s, b, 2, MSG_PEEK));
	say("%.2s", b);
	R(recv(k.s, b, 2, MSG_PEEK));
	say("%.2s", b);
	say("%d", get_int(k.s, SOL_SOCKET, SO_PEEK_OFF));
	R(recv(k.s, b, 3, 0));
	say("%d", get_int(k.s, SOL_SOCKET, SO_PEEK_OFF));
}

static void send_later(void *arg)
{
	int fd = *(int *)arg;
	turn_wait(0, 1);
	OK(send_all(fd, 40, 0));
	turn_wait(0, 2);
	OK(send_all(fd, 60, 40));
}

static void recv_waitall(void *arg)
{
	char b[100], want[100];
	fill(want, 100, 0);
	R(recv(*(int *)arg, b, 100, MSG_WAITALL));
	say("right: %d", !memcmp(b, want, 100));
}

SCENARIO(waitall, ALL, "MSG_WAITALL waits for pieces, and ends at EOF")
{
	struct conn k = conn();
	struct task *r = start("reader", recv_waitall, &k.s), *w;
	char b[100];
	blocked_in(r->tid, SYS_recvfrom);
	w = start("writer", send_later, &k.c);
	turn_give(0);
	blocked_in(r->tid, SYS_recvfrom);
	turn_give(0);
	join(w);
	join(r);
	OK(send_all(k.c, 10, 0));
	R(shutdown(k.c, SHUT_WR));
	R(recv(k.s, b, 100, MSG_WAITALL));
	R(recv(k.s, b, 100, MSG_WAITALL));
}

SCENARIO(waitall_nonblock, ALL, "MSG_WAITALL with O_NONBLOCK gives what there is")
{
	struct conn k = conn();
	char b[100];
	OK(send_all(k.c, 10, 0));
	arrived(k.s, 10);
	R(recv(k.s, b, 100, MSG_WAITALL | MSG_DONTWAIT));
	R(recv(k.s, b, 100, MSG_WAITALL | MSG_DONTWAIT));
}

SCENARIO(dontwait, ALL, "MSG_DONTWAIT and O_NONBLOCK: EAGAIN")
{
	struct conn k = conn();
	char b[4];
	struct iovec v = {b, 4};
	R(recv(k.s, b, 4, MSG_DONTWAIT));
	nonblock(k.s, 1);
	R(read(k.s, b, 4));
	R(readv(k.s, &v, 1));
	R(recv(k.s, b, 4, MSG_PEEK));
	R(recv(k.s, b, 0, 0));
	nonblock(k.s, 0);
	R(send(k.c, "abcd", 4, 0));
	arrived(k.s, 4);
	R(recv(k.s, b, 4, MSG_DONTWAIT));
}

SCENARIO(rcvtimeo, ALL, "SO_RCVTIMEO ends a read with EAGAIN")
{
	struct conn k = conn();
	struct timeval tv = {0, 100000};
	char b[4];
	R(setsockopt(k.s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	int64_t t = now_ms();
	R(read(k.s, b, 4));
	t = now_ms() - t;
	say("at least 100 ms: %d, less than 3 s: %d", t >= 99, t < 3000);
	R(send(k.c, "ab", 2, 0));
	arrived(k.s, 2);
	R(recv(k.s, b, 4, MSG_WAITALL));
}

SCENARIO(zero_length, ALL, "zero-length reads and writes")
{
	struct conn k = conn();
	char b[4];
	R(write(k.c, b, 0));
	R(send(k.c, b, 0, 0));
	R(send(k.c, NULL, 0, 0));
	R(read(k.s, b, 0));
	R(recv(k.s, NULL, 0, MSG_DONTWAIT));
	show_bits("accepted", k.s);
	R(send(k.c, "x", 1, 0));
	arrived(k.s, 1);
	R(recv(k.s, b, 0, 0));
	R(read(k.s, b, 4));
}

SCENARIO(faults, ALL, "bad buffers")
{
	struct conn k = conn();
	R(syscall(SYS_write, k.c, 1L, 10));
	R(syscall(SYS_sendto, k.c, 1L, 10, 0, 0, 0));
	R(syscall(SYS_sendto, k.c, NULL, 10, 0, 0, 0));
	R(send(k.c, "abcd", 4, 0));
	arrived(k.s, 4);
	R(syscall(SYS_read, k.s, 1L, 4));
	R(syscall(SYS_recvmsg, k.s, 1L, 0));
	R(syscall(SYS_sendmsg, k.s, 1L, 0));
	take("accepted", k.s, 0);
	char b[8];
	R(recv(k.s, b, 4, MSG_DONTWAIT));
	R(syscall(SYS_sendto, k.c, "x", 1, 0, 1L, 16));
}

SCENARIO(rare_trunc, ALL, "MSG_TRUNC throws bytes away")
{
	struct conn k = conn();
	char b[8] = "zzzzzzz";
	R(send(k.c, "abcdef", 6, 0));
	arrived(k.s, 6);
	R(recv(k.s, b, 4, MSG_TRUNC));
	say("%s", b);
	R(recv(k.s, b, 4, 0));
	say("%s", b);
	R(send(k.c, "0123456789", 10, 0));
	arrived(k.s, 10);
	R(recv(k.s, NULL, 100, MSG_TRUNC));
	R(recv(k.s, b, 4, MSG_DONTWAIT));
}

SCENARIO(flags, ALL, "flags of send and recv that exist and do not")
{
	struct conn k = conn();
	static const int f[] = {MSG_OOB, MSG_DONTROUTE, MSG_EOR, MSG_CONFIRM, MSG_MORE, MSG_ERRQUEUE, MSG_CTRUNC,
				MSG_SYN, 0x80000, MSG_ZEROCOPY};
	char b[64];
	for (size_t i = 1; i < N(f); i++)
		RL(send(k.c, "a", 1, f[i] | MSG_NOSIGNAL), "send flag %#x", f[i]);
	arrived(k.s, 9);
	R(recv(k.s, b, sizeof b, 0));
	R(recv(k.s, b, 1, MSG_OOB));
	R(recv(k.s, b, 1, MSG_OOB | MSG_PEEK));
	R(recv(k.s, b, 1, 0x80000 | MSG_DONTWAIT));
}

SCENARIO(rare_errqueue, ALL, "an empty error queue, with data waiting")
{
	struct conn k = conn();
	char b[8];
	R(send(k.c, "ab", 2, 0));
	arrived(k.s, 2);
	R(recv(k.s, b, 1, MSG_ERRQUEUE));
	R(recv(k.s, b, 8, 0));
}

SCENARIO(more, ALL, "MSG_MORE and TCP_CORK: all arrives once uncorked")
{
	struct conn k = conn();
	R(send(k.c, "ab", 2, MSG_MORE));
	R(send(k.c, "cd", 2, 0));
	char b[8] = "";
	R(recv(k.s, b, 4, MSG_WAITALL));
	R(set_int(k.c, IPPROTO_TCP, TCP_CORK, 1));
	R(send(k.c, "ef", 2, 0));
	R(send(k.c, "gh", 2, 0));
	R(set_int(k.c, IPPROTO_TCP, TCP_CORK, 0));
	R(recv(k.s, b, 4, MSG_WAITALL));
	say("%s", b);
}

SCENARIO(rare_oob, ALL, "urgent data: SIGURG aside, POLLPRI, mark, MSG_OOB")
{
	cf_wait_ms = SHORT_MS;
	struct conn k = conn();
	struct timeval tv = {2, 0};
	char b[16] = "";
	int mark = -1;
	R(setsockopt(k.s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	R(send(k.c, "abc", 3, 0));
	R(send(k.c, "X", 1, MSG_OOB));
	R(send(k.c, "def", 3, 0));
	wait_bits("accepted", k.s, POLLPRI);
	arrived(k.s, 3);
	R(recv(k.s, b, 1, MSG_OOB | MSG_PEEK));
	R(recv(k.s, b, 1, MSG_OOB));
	say("%c", b[0]);
	R(recv(k.s, b, 1, MSG_OOB));
	R(ioctl(k.s, SIOCATMARK, &mark));
	say("at mark %d", mark);
	R(recv(k.s, b, 16, 0));
	R(ioctl(k.s, SIOCATMARK, &mark));
	say("at mark %d", mark);
	R(recv(k.s, b, 3, MSG_WAITALL));
	say("%.3s", b);
	show_bits("accepted", k.s);
}

SCENARIO(rare_oob_inline, ALL, "SO_OOBINLINE")
{
	struct conn k = conn();
	char b[16] = "";
	struct timeval tv = {2, 0};
	R(setsockopt(k.s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	R(set_int(k.s, SOL_SOCKET, SO_OOBINLINE, 1));
	R(send(k.c, "ab", 2, 0));
	R(send(k.c, "X", 1, MSG_OOB));
	await(k.s, POLLPRI);
	R(sockatmark(k.s));
	R(recv(k.s, b, 16, 0));
	say("%s", b);
	R(sockatmark(k.s));
	R(recv(k.s, b, 1, MSG_OOB));
	R(recv(k.s, b, 16, 0));
	say("%c", b[0]);
}

static void sigpipe_child(void *arg)
{
	struct conn *k = arg;
	close(k->s);
	R(shutdown(k->c, SHUT_WR));
	R(write(k->c, "x", 1));
}

SCENARIO(sigpipe, ALL, "SIGPIPE, and the ways not to get it")
{
	struct conn k = conn();
	reap(spawn("writer", sigpipe_child, &k));
	R(send(k.c, "x", 1, MSG_NOSIGNAL));
	signal(SIGPIPE, SIG_IGN);
	R(write(k.c, "x", 1));
	struct iovec v = {"x", 1};
	R(writev(k.c, &v, 1));
	show_error("client", k.c);
}

SCENARIO(fionread, ALL, "FIONREAD counts what can be read")
{
	struct conn k = conn();
	int v = -1;
	char b[100];
	R(ioctl(k.s, FIONREAD, &v));
	say("%d", v);
	OK(send_all(k.c, 100, 0));
	arrived(k.s, 100);
	R(ioctl(k.s, FIONREAD, &v));
	say("%d", v);
	R(recv(k.s, b, 30, 0));
	R(ioctl(k.s, FIONREAD, &v));
	say("%d", v);
	R(shutdown(k.c, SHUT_WR));
	wait_bits("accepted", k.s, POLLRDHUP);
	R(recv(k.s, b, 100, 0));
	R(ioctl(k.s, FIONREAD, &v));
	say("%d", v);
}

SCENARIO(rare_outq, ALL, "SIOCOUTQ falls to 0 when all is delivered")
{
	cf_wait_ms = SHORT_MS;
	struct conn k = conn();
	int v = -1;
	OK(send_all(k.c, 1000, 0));
	take("accepted", k.s, 1000);
	UNTIL(ioctl(k.c, SIOCOUTQ, &v) == 0 && v == 0);
	say("%d", v);
}

SCENARIO(full_nonblock, ALL, "a peer that does not read: EAGAIN, not writable, then writable")
{
	struct conn k = conn();
	static char b[65536];
	size_t n = 0, m = 0;
	ssize_t w = 0;
	int e = 0;
	R(set_int(k.c, SOL_SOCKET, SO_SNDBUF, 65536));
	R(set_int(k.s, SOL_SOCKET, SO_RCVBUF, 65536));
	nonblock(k.c, 1);
	/* Full when nothing more went in for a while. */
	for (int idle = 0; idle < 100;) {
		fill(b, sizeof b, n);
		if ((w = send(k.c, b, sizeof b, 0)) > 0)
			n += (size_t)w, idle = 0;
		else
			e = errno, idle++, usleep(2000);
	}
	say("send = %zd %s", w, ename(e));
	say("less than 64 MB: %d", n < 64 << 20);
	show_bits("client", k.c);
	nonblock(k.s, 1);
	while (m < n) {
		await(k.s, POLLIN);
		ssize_t r = read(k.s, b, sizeof b);
		if (r <= 0)
			break;
		for (ssize_t i = 0; i < r; i++)
			if ((unsigned char)b[i] != pattern(m + (size_t)i))
				die("wrong byte");
		m += (size_t)r;
	}
	say("all of it: %d", m == n);
	wait_bits("client", k.c, POLLOUT);
	show_bits("accepted", k.s);
}

SCENARIO(full_vectors, ALL, "sendmsg of two vectors on a full socket never doubles a byte")
{
	struct conn k = conn();
	static char x[30000], y[50000], in[65536];
	uint64_t n = 0, m = 0, bad = 0;
	struct iovec v[2] = {{x, sizeof x}, {y, sizeof y}};
	struct msghdr h = {.msg_iov = v, .msg_iovlen = 2};
	nonblock(k.c, 1);
	nonblock(k.s, 1);
	while (n < 8 << 20) {
		fill(x, sizeof x, n);
		fill(y, sizeof y, n + sizeof x);
		ssize_t w = sendmsg(k.c, &h, 0), r;
		if (w > 0) {
			n += (uint64_t)w;
			continue;
		}
		await(k.s, POLLIN);
		while ((r = read(k.s, in, sizeof in)) > 0)
			for (ssize_t i = 0; i < r; i++)
				bad += (unsigned char)in[i] != pattern(m++);
		await(k.c, POLLOUT);
	}
	close(k.c);
	nonblock(k.s, 0);
	for (ssize_t r; (r = read(k.s, in, sizeof in)) > 0;)
		for (ssize_t i = 0; i < r; i++)
			bad += (unsigned char)in[i] != pattern(m++);
	say("sent = received: %d, wrong %lu", n == m, (unsigned long)bad);
}

SCENARIO(sndtimeo, ALL, "SO_SNDTIMEO ends a write to a full socket")
{
	struct conn k = conn();
	static char b[1 << 20];
	struct timeval tv = {0, 200000};
	ssize_t w;
	R(setsockopt(k.c, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
	for (int i = 0; i < 200 && (w = send(k.c, b, sizeof b, 0)) > 0; i++)
		;
	say("send = %zd %s", w, ename(errno));
}

struct file {
	int fd;
	size_t n;
};

static struct file temp(size_t n)
{
	struct file f = {memfd_create("f", 0), n};
	char b[4096];
	for (size_t i = 0; i < n; i += sizeof b) {
		fill(b, sizeof b, i);
		if (write(f.fd, b, n - i < sizeof b ? n - i : sizeof b) < 0)
			die("write");
	}
	return f;
}

struct transfer {
	int from, to;
	size_t n;
};

static void sendfile_all(void *arg)
{
	struct transfer *t = arg;
	off_t off = 0;
	while ((size_t)off < t->n)
		if (sendfile(t->to, t->from, &off, t->n - (size_t)off) <= 0)
			break;
	R(off);
	shutdown(t->to, SHUT_WR);
}

SCENARIO(sendfile, ALL, "sendfile from a file, offset and end of file")
{
	struct conn k = conn();
	struct file f = temp(1000000);
	struct transfer t = {f.fd, k.c, f.n};
	struct task *w = start("writer", sendfile_all, &t);
	take("accepted", k.s, 2000000);
	join(w);
	off_t off = 999990;
	R(sendfile(k.s, f.fd, &off, 100));
	R(sendfile(k.s, f.fd, &off, 100));
	R(sendfile(f.fd, k.c, NULL, 10));
}

static void splice_all(void *arg)
{
	struct transfer *t = arg;
	int p[2];
	size_t n = 0;
	if (pipe(p) < 0)
		die("pipe");
	while (n < t->n) {
		ssize_t r = splice(t->from, NULL, p[1], NULL, 65536, SPLICE_F_MOVE);
		if (r <= 0) {
			say("splice in: %zd %s", r, ename(errno));
			break;
		}
		for (ssize_t w; r > 0; r -= w, n += (size_t)w)
			if ((w = splice(p[0], NULL, t->to, NULL, (size_t)r, SPLICE_F_MORE)) <= 0) {
				say("splice out: %zd %s", w, ename(errno));
				return;
			}
	}
	R(n);
	shutdown(t->to, SHUT_WR);
}

SCENARIO(splice, ALL, "a splice proxy from one connection to another")
{
	struct conn k = conn(), q = conn();
	struct transfer t = {k.s, q.c, 1 << 20};
	struct file f = temp(1 << 20);
	struct transfer u = {f.fd, k.c, f.n};
	struct task *p = start("proxy", splice_all, &t), *w = start("writer", sendfile_all, &u);
	take("end", q.s, 2 << 20);
	join(p);
	join(w);
}

SCENARIO(splice_nonblock, ALL, "splice from an empty socket and at its end")
{
	struct conn k = conn();
	int p[2];
	if (pipe(p) < 0)
		die("pipe");
	nonblock(k.s, 1);
	R(splice(k.s, NULL, p[1], NULL, 100, SPLICE_F_NONBLOCK));
	R(send(k.c, "abc", 3, 0));
	arrived(k.s, 3);
	R(splice(k.s, NULL, p[1], NULL, 100, SPLICE_F_NONBLOCK));
	R(tee(p[0], p[0], 10, 0));
	R(shutdown(k.c, SHUT_WR));
	await(k.s, POLLRDHUP);
	R(splice(k.s, NULL, p[1], NULL, 100, SPLICE_F_NONBLOCK));
	R(splice(p[0], NULL, k.s, NULL, 100, 0));
	char b[4] = "";
	R(recv(k.c, b, 3, MSG_WAITALL));
	say("%s", b);
	R(tee(k.s, p[1], 10, 0));
	loff_t off = 0;
	R(splice(k.s, &off, p[1], NULL, 10, 0));
	R(copy_file_range(k.s, NULL, k.c, NULL, 10, 0));
}

SCENARIO(vmsplice, ALL, "vmsplice into a pipe and on to a socket")
{
	struct conn k = conn();
	int p[2];
	char b[8] = "";
	struct iovec v = {"hello", 5};
	if (pipe(p) < 0)
		die("pipe");
	R(vmsplice(p[1], &v, 1, 0));
	R(splice(p[0], NULL, k.c, NULL, 5, 0));
	R(recv(k.s, b, 5, MSG_WAITALL));
	say("%s", b);
}

static volatile sig_atomic_t sigs;
static void on_sig(int s) { (void)s, sigs++; }

SCENARIO(sigio, ALL, "O_ASYNC sends SIGIO when data arrives")
{
	struct conn k = conn();
	signal(SIGIO, on_sig);
	R(fcntl(k.s, F_SETOWN, getpid()));
	R(fcntl(k.s, F_SETFL, O_ASYNC | O_NONBLOCK));
	int before = sigs;
	R(send(k.c, "x", 1, 0));
	UNTIL(sigs > before);
	say("signalled: %d", sigs > before);
	show_bits("accepted", k.s);
}

SCENARIO(rare_sigurg, ALL, "F_SETOWN and urgent data send SIGURG")
{
	cf_wait_ms = SHORT_MS;
	struct conn k = conn();
	signal(SIGURG, on_sig);
	R(fcntl(k.s, F_SETOWN, getpid()));
	R(send(k.c, "x", 1, MSG_OOB));
	UNTIL(sigs > 0);
	say("signalled: %d", sigs);
}

SCENARIO(epoll_edges, ALL, "edge-triggered reading: one edge per arrival, none for leftovers")
{
	struct conn k = conn();
	int ep = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET};
	char b[10];
	R(epoll_ctl(ep, EPOLL_CTL_ADD, k.s, &ev));
	R(epoll_wait(ep, &ev, 1, 0));
	R(send(k.c, "abcdef", 6, 0));
	arrived(k.s, 6);
	R(epoll_wait(ep, &ev, 1, WAIT_MS));
	R(recv(k.s, b, 2, 0));
	R(epoll_wait(ep, &ev, 1, 30));
	R(send(k.c, "gh", 2, 0));
	R(epoll_wait(ep, &ev, 1, WAIT_MS));
	arrived(k.s, 6);
	R(recv(k.s, b, 10, 0));
	R(epoll_wait(ep, &ev, 1, 30));
}

SCENARIO(rare_lowat, ALL, "SO_RCVLOWAT holds POLLIN back")
{
	struct conn k = conn();
	R(set_int(k.s, SOL_SOCKET, SO_RCVLOWAT, 10));
	say("%d", get_int(k.s, SOL_SOCKET, SO_RCVLOWAT));
	R(send(k.c, "abcde", 5, 0));
	arrived(k.s, 5);
	show_bits("accepted", k.s);
	R(send(k.c, "fghij", 5, 0));
	wait_bits("accepted", k.s, POLLIN);
}

/* One direction of both_ways: write and read at once, each in its thread. */
struct half {
	int fd;
	uint64_t n;
	const char *who;
};

static void write_half(void *arg)
{
	struct half *h = arg;
	static __thread char b[1 << 17];
	for (size_t i = 0; i < sizeof b; i++)
		b[i] = (char)pattern(i);
	for (uint64_t done = 0; done < h->n;) {
		size_t at = done % 65536, m = h->n - done < 65536 ? h->n - done : 65536;
		ssize_t w = send(h->fd, b + at, m, MSG_NOSIGNAL);
		if (w <= 0) {
			say("send after %lu: %s", (unsigned long)done, ename(errno));
			return;
		}
		done += (uint64_t)w;
	}
	shutdown(h->fd, SHUT_WR);
}

static void read_half(void *arg)
{
	struct half *h = arg;
	static __thread char b[1 << 17], want[1 << 17];
	uint64_t done = 0, bad = 0;
	for (size_t i = 0; i < sizeof want; i++)
		want[i] = (char)pattern(i % 65536);
	for (ssize_t r; (r = recv(h->fd, b, 65536, 0)) > 0; done += (uint64_t)r)
		bad += memcmp(b, want + done % 65536, (size_t)r) != 0;
	say("%s read %lu bytes, wrong blocks %lu", h->who, (unsigned long)done, (unsigned long)bad);
}

static void both_ways(uint64_t n)
{
	struct conn k = conn();
	struct half c = {k.c, n, "client"}, s = {k.s, n, "accepted"};
	struct task *t[4] = {start("cw", write_half, &c), start("sw", write_half, &s), start("cr", read_half, &c),
			     start("sr", read_half, &s)};
	for (int i = 0; i < 4; i++)
		join(t[i]);
	wait_bits("client", k.c, POLLHUP);
	wait_bits("accepted", k.s, POLLHUP);
}

SCENARIO(both_ways, ALL, "4 MB both ways at once") { both_ways(4 << 20); }

SCENARIO(both_ways_heavy, V4 | HEAVY, "64 MB both ways at once, 2 GB when CONFORM_HEAVY is set")
{
	const char *h = getenv("CONFORM_HEAVY");
	uint64_t n = h && *h ? 2ull << 30 : 64ull << 20;
	say("all right when each side read what the other sent");
	both_ways(n);
}

SCENARIO(rare_client_name, ALL, "recvfrom gives no name to the side that connected either")
{
	struct conn k = conn();
	struct addr from = {.len = sizeof from.ss};
	char b[8];
	OK(send_all(k.s, 3, 0));
	R(recvfrom(k.c, b, 3, MSG_WAITALL, &from.sa, &from.len));
	say("client: name of %u bytes", from.len);
}
