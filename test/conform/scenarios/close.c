/* close.c - every way a connection ends, and what each side sees of it. */
#include "conform.h"

/* Both sides' bits, read and write results, at one step. */
static void state(const char *who, int fd)
{
	char b[1] = "";
	show_bits(who, fd);
	RL(recv(fd, b, 1, MSG_PEEK | MSG_DONTWAIT), "%s: recv", who);
}

static void reset(int fd)
{
	struct linger lg = {1, 0};
	R(setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
	R(close(fd));
}

SCENARIO(shutdown_read, ALL, "SHUT_RD: EOF here, the peer can still write")
{
	struct conn k = conn();
	R(shutdown(k.c, SHUT_RD));
	state("client", k.c);
	state("accepted", k.s);
	R(send(k.c, "abc", 3, MSG_NOSIGNAL));
	take("accepted", k.s, 0);
	char b[8];
	R(recv(k.s, b, 3, MSG_WAITALL));
	R(shutdown(k.c, SHUT_RD));
	show_names("client", k.c);
}

SCENARIO(shutdown_read_data, ALL, "SHUT_RD with data waiting, then data arriving")
{
	struct conn k = conn();
	char b[8];
	R(send(k.s, "abc", 3, MSG_NOSIGNAL));
	await(k.c, POLLIN);
	R(shutdown(k.c, SHUT_RD));
	R(recv(k.c, b, 8, 0));
	R(recv(k.c, b, 8, 0));
	cf_wait_ms = SHORT_MS;
	R(send(k.s, "def", 3, MSG_NOSIGNAL));
	int v = 0;
	UNTIL(ioctl(k.c, FIONREAD, &v) == 0 && v == 3);
	R(recv(k.c, b, 8, 0));
	R(recv(k.c, b, 8, 0));
}

SCENARIO(shutdown_write, ALL, "SHUT_WR: EOF there, EPIPE here, the reply still comes")
{
	struct conn k = conn();
	OK(send_all(k.c, 5000, 0));
	R(shutdown(k.c, SHUT_WR));
	show_bits("client", k.c);
	R(send(k.c, "x", 1, MSG_NOSIGNAL));
	take("accepted", k.s, 6000);
	wait_bits("accepted", k.s, POLLRDHUP);
	OK(send_all(k.s, 70000, 0));
	R(shutdown(k.s, SHUT_WR));
	take("client", k.c, 80000);
	wait_bits("client", k.c, POLLHUP);
	wait_bits("accepted", k.s, POLLHUP);
	show_names("client", k.c);
	R(shutdown(k.c, SHUT_RD));
	R(shutdown(k.c, SHUT_WR));
	R(shutdown(k.c, SHUT_RDWR));
}

SCENARIO(shutdown_both, ALL, "SHUT_RDWR at once")
{
	struct conn k = conn();
	R(shutdown(k.c, SHUT_RDWR));
	state("client", k.c);
	wait_bits("accepted", k.s, POLLRDHUP);
	state("accepted", k.s);
	R(send(k.c, "x", 1, MSG_NOSIGNAL));
	R(close(k.s));
	wait_bits("client", k.c, POLLHUP);
	show_error("client", k.c);
}

SCENARIO(shutdown_stepwise, ALL, "the bits of both sides at every step")
{
	struct conn k = conn();
	state("client", k.c);
	R(shutdown(k.c, SHUT_WR));
	wait_bits("accepted", k.s, POLLRDHUP);
	state("client", k.c);
	state("accepted", k.s);
	R(shutdown(k.s, SHUT_WR));
	wait_bits("client", k.c, POLLHUP);
	state("client", k.c);
	wait_bits("accepted", k.s, POLLHUP);
	state("accepted", k.s);
	R(close(k.s));
	state("client", k.c);
}

SCENARIO(shutdown_bad, ALL, "shutdown with a how that does not exist")
{
	struct conn k = conn();
	R(shutdown(k.c, 3));
	R(shutdown(k.c, -1));
	R(shutdown(k.c, 99));
	state("client", k.c);
}

SCENARIO(close_clean, ALL, "close: EOF, POLLRDHUP, not POLLHUP")
{
	struct conn k = conn();
	R(close(k.c));
	wait_bits("accepted", k.s, POLLRDHUP);
	state("accepted", k.s);
	show_names("accepted", k.s);
	show_error("accepted", k.s);
}

SCENARIO(write_after_close, ALL, "the first write after the peer's close goes, a later one fails")
{
	struct conn k = conn();
	R(close(k.s));
	wait_bits("client", k.c, POLLRDHUP);
	R(send(k.c, "x", 1, MSG_NOSIGNAL));
	wait_bits("client", k.c, POLLHUP);
	R(send(k.c, "x", 1, MSG_NOSIGNAL));
	R(send(k.c, "x", 1, MSG_NOSIGNAL));
	state("client", k.c);
	show_error("client", k.c);
}

SCENARIO(read_after_write_to_closed, ALL, "what a read says when the write met a closed peer")
{
	struct conn k = conn();
	char b[8];
	R(send(k.s, "bye", 3, MSG_NOSIGNAL));
	R(close(k.s));
	wait_bits("client", k.c, POLLRDHUP);
	R(send(k.c, "x", 1, MSG_NOSIGNAL));
	wait_bits("client", k.c, POLLHUP);
	R(recv(k.c, b, 8, 0));
	R(recv(k.c, b, 8, 0));
	R(recv(k.c, b, 8, 0));
	show_error("client", k.c);
}

SCENARIO(close_unread, ALL, "close with unread data resets the peer")
{
	struct conn k = conn();
	char b[1];
	OK(send_all(k.c, 1000, 0));
	await(k.s, POLLIN);
	R(close(k.s));
	wait_bits("client", k.c, POLLHUP);
	R(recv(k.c, b, 1, 0));
	R(recv(k.c, b, 1, 0));
	R(send(k.c, b, 1, MSG_NOSIGNAL));
	show_names("client", k.c);
}

SCENARIO(close_unread_after_reply, ALL, "a reply, then close with unread data: is the reply read?")
{
	struct conn k = conn();
	char b[16];
	OK(send_all(k.c, 1000, 0));
	await(k.s, POLLIN);
	R(send(k.s, "reply", 5, MSG_NOSIGNAL));
	await(k.c, POLLIN);
	R(close(k.s));
	wait_bits("client", k.c, POLLHUP);
	R(recv(k.c, b, 16, 0));
	R(recv(k.c, b, 16, 0));
	R(recv(k.c, b, 16, 0));
}

SCENARIO(reset, ALL, "SO_LINGER 0: the peer gets ECONNRESET once")
{
	struct conn k = conn();
	char b[1];
	reset(k.c);
	wait_bits("accepted", k.s, POLLHUP);
	R(recv(k.s, b, 1, 0));
	R(recv(k.s, b, 1, 0));
	R(send(k.s, b, 1, MSG_NOSIGNAL));
	state("accepted", k.s);
	show_names("accepted", k.s);
}

SCENARIO(reset_so_error, ALL, "a reset read by SO_ERROR")
{
	struct conn k = conn();
	reset(k.c);
	wait_bits("accepted", k.s, POLLHUP);
	show_error("accepted", k.s);
	show_error("accepted", k.s);
	state("accepted", k.s);
	R(send(k.s, "x", 1, MSG_NOSIGNAL));
}

SCENARIO(reset_by_write, ALL, "a reset met by a write")
{
	struct conn k = conn();
	reset(k.c);
	wait_bits("accepted", k.s, POLLHUP);
	R(send(k.s, "x", 1, MSG_NOSIGNAL));
	R(send(k.s, "x", 1, MSG_NOSIGNAL));
	state("accepted", k.s);
}

SCENARIO(reset_after_data, ALL, "data, then a reset: what the reader gets")
{
	struct conn k = conn();
	char b[16];
	R(send(k.c, "hello", 5, 0));
	await(k.s, POLLIN);
	reset(k.c);
	wait_bits("accepted", k.s, POLLHUP);
	R(recv(k.s, b, 16, 0));
	R(recv(k.s, b, 16, 0));
	R(recv(k.s, b, 16, 0));
}

static void read_one(void *arg)
{
	char b[1];
	R(read(*(int *)arg, b, 1));
	show_bits("then", *(int *)arg);
}

SCENARIO(reset_blocked, ALL, "a reset and a close end a blocked read")
{
	for (int i = 0; i < 2; i++) {
		struct conn k = conn();
		struct task *t = start("reader", read_one, &k.s);
		blocked_in(t->tid, SYS_read);
		if (i)
			R(close(k.c));
		else
			reset(k.c);
		join(t);
	}
}

SCENARIO(shutdown_blocked, ALL, "one's own shutdown ends a blocked read")
{
	struct conn k = conn();
	struct task *t = start("reader", read_one, &k.s);
	blocked_in(t->tid, SYS_read);
	R(shutdown(k.s, SHUT_RD));
	join(t);
}

SCENARIO(close_blocked, ALL, "one's own close does not end a blocked read; data does")
{
	struct conn k = conn();
	int copy = k.s;
	struct task *t = start("reader", read_one, &copy);
	blocked_in(t->tid, SYS_read);
	R(close(k.s));
	R(send(k.c, "x", 1, MSG_NOSIGNAL));
	join(t);
}

struct writer {
	int fd;
	size_t n;
};

static void write_big(void *arg)
{
	struct writer *w = arg;
	OK(send_all(w->fd, w->n, 0));
	say("SO_ERROR %s", ename(so_error(w->fd)));
}

SCENARIO(blocked_writer_reset, ALL, "a reset ends a blocked write")
{
	struct conn k = conn();
	struct writer w = {k.c, 64 << 20};
	struct task *t = start("writer", write_big, &w);
	blocked_in(t->tid, SYS_sendto);
	reset(k.s);
	join(t);
}

static void write_then_close(void *arg)
{
	struct writer *w = arg;
	OK(send_all(w->fd, w->n, 0));
	R(close(w->fd));
}

static void write_and_close(size_t n)
{
	struct conn k = conn();
	struct writer w = {k.c, n};
	struct task *t = start("writer", write_then_close, &w);
	R(close(k.l));
	/* The reader starts late: much is in flight, or waits to be. */
	await(k.s, POLLIN);
	take("accepted", k.s, 2 * n);
	join(t);
}

SCENARIO(in_flight_100k, ALL, "100 kB written, then close: all arrive") { write_and_close(100000); }
SCENARIO(in_flight_1m, ALL, "1 MB written, then close: all arrive") { write_and_close(1000000); }
SCENARIO(in_flight_10m, ALL, "10 MB written, then close: all arrive") { write_and_close(10000000); }

static void write_and_exit(void *arg)
{
	struct conn *k = arg;
	close(k->s), close(k->l);
	OK(send_all(k->c, 1000000, 0));
	_exit(3);
}

SCENARIO(in_flight_exit, ALL, "1 MB written, then the process is gone: all arrive")
{
	struct conn k = conn();
	struct task *t = spawn("writer", write_and_exit, &k);
	R(close(k.c));
	take("accepted", k.s, 2000000);
	reap(t);
}

SCENARIO(close_at_once, ALL, "connect, write, close; the reader comes after it all")
{
	struct addr a;
	int l = server(&a), c = client(&a);
	OK(send_all(c, 100000, 0));
	R(close(c));
	int s = FD(accept(l, NULL, NULL));
	take("accepted", s, 200000);
	OK(send(s, "x", 1, MSG_NOSIGNAL));
}

SCENARIO(linger_on, ALL, "SO_LINGER with a time: close waits for the data to go")
{
	struct conn k = conn();
	struct linger lg = {1, 5};
	R(setsockopt(k.c, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
	OK(send_all(k.c, 10000, 0));
	int64_t t = now_ms();
	R(close(k.c));
	say("less than 3 s: %d", now_ms() - t < 3000);
	take("accepted", k.s, 20000);
}

static void wait_to_be_killed(void *arg)
{
	struct conn *k = arg;
	close(k->s), close(k->l);
	OK(send_all(k->c, 100, 0));
	turn_give(0);
	await(k->c, POLLIN);
	turn_give(1);
	pause();
}

SCENARIO(killed, ALL, "SIGKILL of one side: data, then EOF")
{
	struct conn k = conn();
	struct task *t = spawn("child", wait_to_be_killed, &k);
	R(close(k.c));
	turn_wait(0, 1);
	R(kill(t->tid, SIGKILL));
	take("accepted", k.s, 200);
	wait_bits("accepted", k.s, POLLRDHUP);
	reap(t);
}

SCENARIO(killed_unread, ALL, "SIGKILL of a side with unread data: a reset")
{
	struct conn k = conn();
	struct task *t = spawn("child", wait_to_be_killed, &k);
	char b[1];
	R(close(k.c));
	take("accepted", k.s, 100);
	OK(send_all(k.s, 100, 0));
	turn_wait(1, 1); /* it has arrived */
	R(kill(t->tid, SIGKILL));
	wait_bits("accepted", k.s, POLLHUP);
	R(recv(k.s, b, 1, 0));
	reap(t);
}

SCENARIO(dup_close, ALL, "only the last close ends the connection; shutdown ends it for all")
{
	struct conn k = conn();
	int d = dup(k.c);
	R(close(k.c));
	R(send(d, "x", 1, MSG_NOSIGNAL));
	char b[1];
	R(recv(k.s, b, 1, MSG_WAITALL));
	state("accepted", k.s);
	int e = dup(d);
	R(shutdown(e, SHUT_WR));
	wait_bits("accepted", k.s, POLLRDHUP);
	R(send(d, "x", 1, MSG_NOSIGNAL));
}

static void epoll_end(int how)
{
	struct conn k = conn();
	int ep = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET}, got = {0};
	R(epoll_ctl(ep, EPOLL_CTL_ADD, k.s, &ev));
	R(epoll_wait(ep, &got, 1, 0));
	if (how == 0)
		R(shutdown(k.c, SHUT_WR));
	else if (how == 1)
		R(close(k.c));
	else
		reset(k.c);
	await(k.s, how == 2 ? POLLHUP | POLLERR : POLLRDHUP);
	R(epoll_wait(ep, &got, 1, WAIT_MS));
	say("events %s", bits_text(got.events));
	R(epoll_wait(ep, &got, 1, 30));
	R(epoll_ctl(ep, EPOLL_CTL_DEL, k.s, NULL));
}

SCENARIO(epoll_shutdown, ALL, "epoll edges of a half-close") { epoll_end(0); }
SCENARIO(epoll_close, ALL, "epoll edges of a close") { epoll_end(1); }
SCENARIO(epoll_reset, ALL, "epoll edges of a reset") { epoll_end(2); }

SCENARIO(epoll_closed_fd, ALL, "a closed descriptor leaves the epoll set; a dup keeps it")
{
	struct conn k = conn();
	int ep = epoll_create1(0), d;
	struct epoll_event ev = {.events = EPOLLOUT};
	R(epoll_ctl(ep, EPOLL_CTL_ADD, k.c, &ev));
	R(epoll_wait(ep, &ev, 1, 0));
	d = dup(k.c);
	R(close(k.c));
	R(epoll_wait(ep, &ev, 1, 0));
	R(close(d));
	R(epoll_wait(ep, &ev, 1, 0));
}

SCENARIO(select_end, ALL, "select at EOF and at a reset")
{
	for (int i = 0; i < 2; i++) {
		struct conn k = conn();
		fd_set r, w, x;
		struct timeval tv = {WAIT_MS / 1000, 0};
		if (i)
			reset(k.c);
		else
			R(close(k.c));
		await(k.s, i ? POLLHUP | POLLERR : POLLRDHUP);
		FD_ZERO(&r);
		FD_ZERO(&w);
		FD_ZERO(&x);
		FD_SET(k.s, &r);
		FD_SET(k.s, &w);
		FD_SET(k.s, &x);
		R(select(k.s + 1, &r, &w, &x, &tv));
		say("read %d write %d except %d", FD_ISSET(k.s, &r) != 0, FD_ISSET(k.s, &w) != 0, FD_ISSET(k.s, &x) != 0);
	}
}

SCENARIO(simultaneous, ALL, "both sides close")
{
	struct conn k = conn();
	R(shutdown(k.c, SHUT_WR));
	R(shutdown(k.s, SHUT_WR));
	wait_bits("client", k.c, POLLHUP);
	wait_bits("accepted", k.s, POLLHUP);
	R(close(k.c));
	R(close(k.s));
}

SCENARIO(many_rounds, ALL, "200 connections, each a request, a reply and a close")
{
	struct addr a;
	int l = server(&a), ok = 0;
	for (int i = 0; i < 200; i++) {
		char b[8];
		int c = client(&a), s = accept(l, NULL, NULL);
		ok += send(c, "q", 1, MSG_NOSIGNAL) == 1 && shutdown(c, SHUT_WR) == 0 && recv(s, b, 8, MSG_WAITALL) == 1 &&
		      send(s, "ans", 3, MSG_NOSIGNAL) == 3 && close(s) == 0 && recv(c, b, 8, MSG_WAITALL) == 3 && close(c) == 0;
	}
	R(ok);
}

SCENARIO(range, ALL, "close_range closes sockets")
{
	struct conn k = conn();
	int c = fcntl(k.c, F_DUPFD, 100);
	R(close(k.c));
	R(syscall(SYS_close_range, c, c, 0));
	wait_bits("accepted", k.s, POLLRDHUP);
	R(fcntl(c, F_GETFD));
}
