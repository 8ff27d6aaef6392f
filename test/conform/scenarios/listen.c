/* listen.c - listening sockets and accept. */
#include "conform.h"

SCENARIO(unbound, ALL, "listen without bind takes a port")
{
	int fd = tcp();
	R(listen(fd, 5));
	show_names("listening", fd);
	struct addr a = local_of(fd), to = loop(port_of(&a));
	R(connect(tcp(), &to.sa, to.len));
	FD(accept(fd, NULL, NULL));
}

SCENARIO(backlogs, ALL, "any backlog is taken, and a second listen")
{
	static const int b[] = {0, 1, -1, 128, 4096, 1 << 30, -(1 << 30)};
	struct addr a;
	int fd = server(&a);
	for (size_t i = 0; i < N(b); i++)
		RL(listen(fd, b[i]), "listen %d", b[i]);
	int c = client(&a);
	FD(accept(fd, NULL, NULL));
	show_names("client", c);
}

SCENARIO(wrong_state, ALL, "listen on a connected socket, accept on others")
{
	struct conn k = conn();
	R(listen(k.c, 5));
	R(listen(k.s, 5));
	R(accept(k.c, NULL, NULL));
	R(accept(tcp(), NULL, NULL));
	int b = tcp();
	struct addr a = loop(0);
	R(bind(b, &a.sa, a.len));
	R(accept(b, NULL, NULL));
	OK(send_all(k.c, 100, 0));
	take("accepted", k.s, 100);
}

SCENARIO(calls_on_listener, ALL, "what a listening socket refuses")
{
	struct addr a, b = closed_port();
	int l = server(&a), v = 1;
	char c[4] = "abc";
	R(read(l, c, 1));
	R(recv(l, c, 1, MSG_DONTWAIT));
	R(send(l, c, 1, MSG_NOSIGNAL));
	R(connect(l, &b.sa, b.len));
	R(connect(l, &a.sa, a.len));
	R(get_int(l, SOL_SOCKET, SO_ACCEPTCONN));
	R(ioctl(l, FIONREAD, &v));
	show_error("listening", l);
	show_names("listening", l);
	show_bits("listening", l);
	R(connect(tcp(), &a.sa, a.len));
	FD(accept(l, NULL, NULL));
}

SCENARIO(nonblock, ALL, "EAGAIN, then a connection, then EAGAIN")
{
	struct addr a, from = {.len = sizeof from.ss};
	int l = server(&a);
	nonblock(l, 1);
	R(accept(l, NULL, NULL));
	int c = client(&a);
	wait_bits("listening", l, POLLIN);
	int s = FD(accept(l, &from.sa, &from.len));
	say("from %s", addr_text(&from.sa, from.len));
	show_names("client", c);
	show_names("accepted", s);
	R(accept(l, NULL, NULL));
	show_bits("listening", l);
}

SCENARIO(accept_flags, ALL, "accept4 flags; O_NONBLOCK is not inherited")
{
	static const int flags[] = {0, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC, 1, 0x1000, -1};
	struct addr a;
	int l = server(&a);
	fcntl(l, F_SETFD, FD_CLOEXEC);
	for (size_t i = 0; i < N(flags); i++) {
		int c = client(&a);
		nonblock(l, 1);
		await(l, POLLIN);
		int s = FDL(accept4(l, NULL, NULL, flags[i]), "accept4 flags %#x", flags[i]);
		if (s < 0)
			s = FD(accept(l, NULL, NULL));
		say("F_GETFL %#x F_GETFD %#x", fcntl(s, F_GETFL), fcntl(s, F_GETFD));
		close(c), close(s);
	}
}

SCENARIO(address_lengths, ALL, "the peer's name in a buffer too short or too long")
{
	static const int lens[] = {0, 1, 2, 8, 15, 16, 20, 28, 100, 128, 1000, -1};
	struct addr a;
	int l = server(&a);
	for (size_t i = 0; i < N(lens); i++) {
		unsigned char buf[1000];
		socklen_t n = (socklen_t)lens[i];
		int c = client(&a), s;
		memset(buf, 0xee, sizeof buf);
		struct addr me = local_of(c);
		await(l, POLLIN);
		s = FDL(syscall(SYS_accept, l, buf, &n), "accept length %d", lens[i]);
		say("length %d", (int)n);
		show_written(buf, sizeof buf, lens[i], &me);
		close(c), close(s);
	}
}

SCENARIO(address_faults, ALL, "NULL and bad pointers; a fault loses the connection")
{
	struct addr a;
	int l = server(&a), c = client(&a);
	socklen_t n = sizeof a.ss;
	FD(syscall(SYS_accept, l, NULL, NULL));
	close(c), c = client(&a);
	FD(syscall(SYS_accept, l, NULL, &n));
	say("length %u", n);
	close(c), c = client(&a);
	FD(syscall(SYS_accept, l, &a.sa, NULL));
	wait_bits("client", c, POLLRDHUP);
	close(c), c = client(&a);
	FD(syscall(SYS_accept, l, 1L, &n));
	wait_bits("client", c, POLLRDHUP);
	nonblock(l, 1);
	R(accept(l, NULL, NULL));
}

SCENARIO(fault_before_wait, ALL, "bad pointers do not matter when there is nothing to accept")
{
	struct addr a;
	int l = server(&a);
	socklen_t n = (socklen_t)-1;
	nonblock(l, 1);
	R(syscall(SYS_accept, l, 1L, 1L));
	R(syscall(SYS_accept, l, &a.sa, &n));
}

SCENARIO(rcvtimeo, ALL, "SO_RCVTIMEO ends accept with EAGAIN")
{
	struct addr a;
	int l = server(&a);
	struct timeval tv = {0, 150000};
	R(setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	int64_t t = now_ms();
	R(accept(l, NULL, NULL));
	t = now_ms() - t;
	say("waited at least 150 ms: %d, less than 3 s: %d", t >= 149, t < 3000);
	int c = client(&a), s = FD(accept(l, NULL, NULL));
	show_names("client", c);
	socklen_t n = sizeof tv;
	R(getsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, &n));
	say("accepted has %ld.%06ld", (long)tv.tv_sec, (long)tv.tv_usec);
}

SCENARIO(queue_order, ALL, "connections come out in the order they were made")
{
	struct addr a, from;
	int l = server(&a), c[10], right = 0;
	for (int i = 0; i < 10; i++)
		c[i] = client(&a);
	for (int i = 0; i < 10; i++) {
		from.len = sizeof from.ss;
		accept(l, &from.sa, &from.len);
		struct addr me = local_of(c[i]);
		right += port_of(&me) == port_of(&from);
	}
	R(right);
}

SCENARIO(data_before_accept, ALL, "data and a close that came before accept")
{
	struct addr a;
	int l = server(&a), c = client(&a);
	OK(send_all(c, 5000, 0));
	R(close(c));
	c = client(&a);
	int s = accept(l, NULL, NULL);
	take("first", s, 10000);
	int s2 = accept(l, NULL, NULL);
	show_bits("second", s2);
	OK(send_all(s2, 100, 0));
	take("client", c, 100);
}

static void reset(int fd)
{
	struct linger lg = {1, 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof lg);
	close(fd);
}

SCENARIO(reset_before_accept, ALL, "a connection reset before accept is still accepted")
{
	struct addr a;
	int l = server(&a), c = client(&a);
	char b[1];
	await(l, POLLIN);
	reset(c);
	int s = FD(accept(l, NULL, NULL));
	wait_bits("accepted", s, POLLHUP);
	R(read(s, b, 1));
	R(read(s, b, 1));
	show_names("accepted", s);
}

SCENARIO(close_with_waiting, ALL, "closing the listening socket resets who waits")
{
	struct addr a;
	int l = server(&a), c = client(&a), d = client(&a), s = accept(l, NULL, NULL);
	char b[1];
	await(l, POLLIN);
	R(close(l));
	wait_bits("waiting", d, POLLHUP);
	R(read(d, b, 1));
	R(read(d, b, 1));
	R(connect(tcp(), &a.sa, a.len));
	OK(send_all(s, 10, 0));
	take("accepted one", c, 10);
}

SCENARIO(accepted_outlive, ALL, "accepted connections outlive the listening socket")
{
	struct conn k = conn();
	R(close(k.l));
	OK(send_all(k.c, 100000, 0));
	take("accepted", k.s, 100000);
	OK(send_all(k.s, 100000, 0));
	take("client", k.c, 100000);
	show_names("client", k.c);
	show_names("accepted", k.s);
}

SCENARIO(backlog_full, ALL, "a full queue leaves a connect in progress until there is room")
{
	struct addr a = loop(0), z;
	int l = server_at(&a, 1), c1 = client(&a), c2 = client(&a), c3 = tcp();
	(void)c1, (void)c2;
	nonblock(c3, 1);
	R(connect(c3, &a.sa, a.len));
	R(poll(&(struct pollfd){.fd = c3, .events = ALLBITS}, 1, 100));
	R(connect(c3, &a.sa, a.len));
	R(name_of(SYS_getpeername, c3, &z));
	show_error("third", c3);
	FD(accept(l, NULL, NULL));
	wait_bits("third", c3, POLLOUT);
	show_error("third", c3);
	FD(accept(l, NULL, NULL));
	FD(accept(l, NULL, NULL));
	show_names("third", c3);
}

SCENARIO(backlog_zero, ALL, "backlog 0 holds one")
{
	struct addr a = loop(0);
	int l = server_at(&a, 0), c1 = client(&a), c2 = tcp();
	(void)c1;
	nonblock(c2, 1);
	R(connect(c2, &a.sa, a.len));
	R(poll(&(struct pollfd){.fd = c2, .events = POLLOUT}, 1, 100));
	FD(accept(l, NULL, NULL));
	wait_bits("second", c2, POLLOUT);
}

SCENARIO(long_queue, ALL, "two hundred wait, all are accepted")
{
	struct addr a = loop(0), from;
	int l = server_at(&a, 256), c[200], right = 0;
	for (int i = 0; i < 200; i++)
		c[i] = client(&a);
	for (int i = 0; i < 200; i++) {
		from.len = sizeof from.ss;
		right += accept(l, &from.sa, &from.len) >= 0;
	}
	R(right);
	nonblock(l, 1);
	R(accept(l, NULL, NULL));
	show_names("last", c[199]);
}

static void accept_one(void *arg)
{
	int s = FD(accept(*(int *)arg, NULL, NULL));
	if (s >= 0)
		OK(send(s, "hello", 5, MSG_NOSIGNAL));
}

SCENARIO(blocked, ALL, "accept waits for a connection")
{
	struct addr a;
	int l = server(&a);
	struct task *t = start("server", accept_one, &l);
	blocked_in(t->tid, SYS_accept);
	int c = client(&a);
	join(t);
	char b[8];
	R(recv(c, b, 5, MSG_WAITALL));
}

static void accept_until_error(void *arg)
{
	int l = *(int *)arg, n = 0, s;
	while ((s = accept(l, NULL, NULL)) >= 0) {
		turn_give(1);
		n++;
		if (send(s, "x", 1, MSG_NOSIGNAL) != 1)
			say("send: %s", ename(errno));
	}
	say("ended by %s", ename(errno));
}

static void serve_many(struct task *(*begin)(const char *, void (*)(void *), void *), void (*end)(struct task *))
{
	struct addr a;
	int l = server(&a), answered = 0;
	struct task *t[4];
	for (int i = 0; i < 4; i++) {
		t[i] = begin("worker", accept_until_error, &l);
		blocked_in(t[i]->tid, SYS_accept);
	}
	for (int i = 0; i < 60; i++) {
		char b;
		int c = client(&a);
		answered += recv(c, &b, 1, 0) == 1;
		close(c);
	}
	R(answered);
	R(cf_shared->turn[1]);
	R(shutdown(l, SHUT_RDWR));
	for (int i = 0; i < 4; i++)
		end(t[i]);
}

SCENARIO(thread_pool, ALL, "four threads in accept on one socket")
{
	serve_many(start, join);
}

SCENARIO(prefork, ALL, "four processes in accept on one inherited socket")
{
	serve_many(spawn, reap);
}

static void storm(void *arg)
{
	int ok = 0;
	for (int i = 0; i < 25; i++) {
		char b;
		int c = client(arg);
		ok += recv(c, &b, 1, 0) == 1;
		close(c);
	}
	R(ok);
}

SCENARIO(storm, ALL, "eight clients at once, each gets every answer")
{
	struct addr a;
	int l = server(&a);
	struct task *s = start("server", accept_until_error, &l), *t[8];
	for (int i = 0; i < 8; i++)
		t[i] = start("client", storm, &a);
	for (int i = 0; i < 8; i++)
		join(t[i]);
	R(shutdown(l, SHUT_RDWR));
	join(s);
	R(cf_shared->turn[1]);
}

SCENARIO(shutdown_blocked, ALL, "shutdown of the listening socket ends a blocked accept")
{
	struct addr a;
	int how[] = {SHUT_RD, SHUT_RDWR};
	for (int i = 0; i < 2; i++) {
		int l = server(&a);
		struct task *t = start("server", accept_one, &l);
		blocked_in(t->tid, SYS_accept);
		RL(shutdown(l, how[i]), "shutdown %d", how[i]);
		join(t);
		show_bits("after", l);
		R(accept(l, NULL, NULL));
		R(connect(tcp(), &a.sa, a.len));
		R(listen(l, 5));
		show_bits("again", l);
		struct addr b = local_of(l), to = loop(port_of(&b));
		say("port kept: %d", port_of(&a) == port_of(&b));
		R(connect(tcp(), &to.sa, to.len));
		FD(accept(l, NULL, NULL));
	}
}

SCENARIO(shutdown_write, ALL, "SHUT_WR of a listening socket")
{
	struct addr a;
	int l = server(&a);
	R(shutdown(l, SHUT_WR));
	show_bits("listening", l);
	int c = client(&a);
	FD(accept(l, NULL, NULL));
	show_names("client", c);
}

SCENARIO(close_blocked, ALL, "after close a blocked accept still takes one connection")
{
	struct addr a;
	int l = server(&a), copy = l;
	struct task *t = start("server", accept_one, &copy);
	blocked_in(t->tid, SYS_accept);
	R(close(l));
	int c = tcp();
	char b[8];
	R(connect(c, &a.sa, a.len));
	R(recv(c, b, 5, MSG_WAITALL));
	join(t);
	R(connect(tcp(), &a.sa, a.len));
}

SCENARIO(dup_listener, ALL, "a dup of a listening socket listens on")
{
	struct addr a;
	int l = server(&a), d = dup(l);
	int c = client(&a);
	FD(accept(d, NULL, NULL));
	R(close(l));
	int e = client(&a);
	wait_bits("dup", d, POLLIN);
	FD(accept(d, NULL, NULL));
	show_names("first", c);
	show_names("second", e);
	R(close(d));
	R(connect(tcp(), &a.sa, a.len));
}

SCENARIO(poll_two, ALL, "poll over two listening sockets")
{
	struct addr a, b;
	struct pollfd p[2] = {{.fd = server(&a), .events = POLLIN | POLLOUT}, {.fd = server(&b), .events = POLLIN}};
	R(poll(p, 2, 0));
	client(&b);
	R(poll(p, 2, WAIT_MS));
	say("%s, %s", bits_text((unsigned)p[0].revents), bits_text((unsigned)p[1].revents));
	client(&a);
	await(p[0].fd, POLLIN);
	R(poll(p, 2, WAIT_MS));
	say("%s, %s", bits_text((unsigned)p[0].revents), bits_text((unsigned)p[1].revents));
	FD(accept(p[1].fd, NULL, NULL));
	R(poll(p, 2, WAIT_MS));
	say("%s, %s", bits_text((unsigned)p[0].revents), bits_text((unsigned)p[1].revents));
}

SCENARIO(select_listen, ALL, "select over a listening socket")
{
	struct addr a;
	int l = server(&a);
	struct timeval tv = {0, 0}, wait = {WAIT_MS / 1000, 0};
	fd_set r, w;
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_SET(l, &r);
	FD_SET(l, &w);
	R(select(l + 1, &r, &w, NULL, &tv));
	client(&a);
	FD_SET(l, &r);
	FD_SET(l, &w);
	R(select(l + 1, &r, &w, NULL, &wait));
	say("read %d write %d", FD_ISSET(l, &r) != 0, FD_ISSET(l, &w) != 0);
}

static void epoll_listen(unsigned mode)
{
	struct addr a;
	int l = server(&a), ep = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLIN | mode}, got = {0};
	R(epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev));
	R(epoll_wait(ep, &got, 1, 0));
	client(&a);
	R(epoll_wait(ep, &got, 1, WAIT_MS));
	say("%s", bits_text(got.events));
	R(epoll_wait(ep, &got, 1, 30));
	client(&a);
	R(epoll_wait(ep, &got, 1, mode & EPOLLONESHOT ? 30 : WAIT_MS));
	nonblock(l, 1);
	await(l, POLLIN);
	FD(accept(l, NULL, NULL));
	R(epoll_wait(ep, &got, 1, mode ? 30 : WAIT_MS));
	R(epoll_ctl(ep, EPOLL_CTL_MOD, l, &ev));
	R(epoll_wait(ep, &got, 1, WAIT_MS));
	UNTIL(accept(l, NULL, NULL) >= 0);
	R(accept(l, NULL, NULL));
	R(epoll_wait(ep, &got, 1, 30));
	client(&a);
	R(epoll_wait(ep, &got, 1, mode & EPOLLONESHOT ? 30 : WAIT_MS));
}

SCENARIO(epoll_level, ALL, "epoll, level-triggered") { epoll_listen(0); }
SCENARIO(epoll_edge, ALL, "epoll, edge-triggered") { epoll_listen(EPOLLET); }
SCENARIO(epoll_oneshot, ALL, "epoll, one shot") { epoll_listen(EPOLLONESHOT); }

SCENARIO(epoll_exclusive, ALL, "EPOLLEXCLUSIVE in two epolls: someone is woken, all are served")
{
	struct addr a;
	int l = server(&a), ep[2] = {epoll_create1(0), epoll_create1(0)}, served = 0;
	struct epoll_event ev = {.events = EPOLLIN | EPOLLEXCLUSIVE}, got;
	nonblock(l, 1);
	R(epoll_ctl(ep[0], EPOLL_CTL_ADD, l, &ev));
	R(epoll_ctl(ep[1], EPOLL_CTL_ADD, l, &ev));
	R(epoll_ctl(ep[0], EPOLL_CTL_MOD, l, &ev));
	for (int i = 0; i < 20; i++) {
		client(&a);
		struct pollfd p[2] = {{.fd = ep[0], .events = POLLIN}, {.fd = ep[1], .events = POLLIN}};
		if (poll(p, 2, WAIT_MS) < 1 || epoll_wait(ep[p[0].revents ? 0 : 1], &got, 1, 0) != 1)
			say("nobody was woken for %d", i);
		served += accept(l, NULL, NULL) >= 0;
	}
	R(served);
}

SCENARIO(wildcard_local, ALL, "an accepted socket's local name is what the client dialled")
{
	struct addr a = any(0);
	int l = server_at(&a, 5);
	struct addr to = loop(port_of(&a));
	int c = client(&to), s = accept(l, NULL, NULL);
	show_names("client", c);
	show_names("accepted", s);
	if (fam == V6)
		return;
	to = ip("127.0.0.5", "", port_of(&a));
	c = client(&to), s = accept(l, NULL, NULL);
	show_names("client", c);
	show_names("accepted", s);
}

SCENARIO(after_unused_close, ALL, "a listening socket closed and made again serves at once")
{
	struct addr a = closed_port();
	int ok = 0;
	for (int i = 0; i < 30; i++) {
		int l = tcp();
		set_int(l, SOL_SOCKET, SO_REUSEADDR, 1);
		if (bind(l, &a.sa, a.len) < 0 || listen(l, 5) < 0) {
			say("round %d: %s", i, ename(errno));
			break;
		}
		a = local_of(l);
		int c = client(&a), s = accept(l, NULL, NULL);
		ok += s >= 0 && send(s, "x", 1, MSG_NOSIGNAL) == 1;
		close(s), close(c), close(l);
	}
	R(ok);
}
