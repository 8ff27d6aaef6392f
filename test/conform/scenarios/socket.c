/* socket.c - socket() itself, and what can be asked of a fresh socket. */
#include "conform.h"
#include <net/if.h>

struct named {
	int v;
	const char *name;
};
#define NAMED(x) {x, #x}

SCENARIO(domains, ONCE, "every domain a program may try")
{
	static const struct named d[] = {NAMED(AF_UNSPEC), NAMED(AF_UNIX), NAMED(AF_INET), NAMED(AF_INET6),
					 NAMED(AF_NETLINK), NAMED(AF_APPLETALK), NAMED(AF_MAX), {-1, "-1"}, {4711, "4711"}};
	for (size_t i = 0; i < N(d); i++)
		close(FDL(socket(d[i].v, SOCK_STREAM, 0), "socket(%s, SOCK_STREAM, 0)", d[i].name));
}

SCENARIO(types, V4 | V6, "every type in the family")
{
	static const struct named t[] = {{0, "0"}, NAMED(SOCK_STREAM), NAMED(SOCK_DGRAM), NAMED(SOCK_RDM),
					 NAMED(SOCK_SEQPACKET), NAMED(SOCK_DCCP), {8, "8"}, {9, "9"},
					 {11, "11"}, {15, "15"}, {-1, "-1"}};
	for (size_t i = 0; i < N(t); i++)
		close(FDL(socket(AF, t[i].v, 0), "socket(AF, %s, 0)", t[i].name));
}

SCENARIO(protocols, V4 | V6, "every protocol of a stream and of a datagram socket")
{
	static const struct named p[] = {{0, "0"}, NAMED(IPPROTO_ICMP), NAMED(IPPROTO_TCP), NAMED(IPPROTO_UDP),
					 NAMED(IPPROTO_IPV6), NAMED(IPPROTO_RAW), {254, "254"}, {256, "256"}, {-1, "-1"}};
	for (size_t i = 0; i < N(p); i++) {
		close(FDL(socket(AF, SOCK_STREAM, p[i].v), "socket(AF, SOCK_STREAM, %s)", p[i].name));
		close(FDL(socket(AF, SOCK_DGRAM, p[i].v), "socket(AF, SOCK_DGRAM, %s)", p[i].name));
	}
}

SCENARIO(mptcp, V4 | V6, "an MPTCP socket, which systemd and Go may open")
{
	int fd = FD(socket(AF, SOCK_STREAM, 262));
	if (fd >= 0) {
		say("protocol %d", get_int(fd, SOL_SOCKET, SO_PROTOCOL));
		struct addr a = loop(0);
		R(bind(fd, &a.sa, a.len));
		R(listen(fd, 5));
		a = local_of(fd);
		int c = client(&a), s = FD(accept4(fd, NULL, NULL, 0));
		OK(send_all(c, 1000, 0));
		take("accepted", s, 1000);
	}
}

SCENARIO(type_flags, ALL, "SOCK_CLOEXEC, SOCK_NONBLOCK and flags that do not exist")
{
	static const struct named f[] = {{0, "0"}, NAMED(SOCK_CLOEXEC), NAMED(SOCK_NONBLOCK),
					 {SOCK_CLOEXEC | SOCK_NONBLOCK, "SOCK_CLOEXEC|SOCK_NONBLOCK"},
					 {0x10, "0x10"}, {0x1000, "0x1000"}, {0x100000, "0x100000"},
					 {(int)0x80000000, "0x80000000"}};
	for (size_t i = 0; i < N(f); i++) {
		int fd = FDL(socket(AF, SOCK_STREAM | f[i].v, IPPROTO_TCP), "socket(AF, SOCK_STREAM|%s, TCP)", f[i].name);
		if (fd < 0)
			continue;
		say("F_GETFD %#x F_GETFL %#x", fcntl(fd, F_GETFD), fcntl(fd, F_GETFL));
		close(fd);
	}
}

SCENARIO(high_bits, ONCE, "only the low 32 bits of the arguments count")
{
	int fd = FD(syscall(SYS_socket, 0x100000000L | AF_INET, 0x100000000L | SOCK_STREAM, 0x100000000L));
	say("SO_DOMAIN %d SO_TYPE %d", get_int(fd, SOL_SOCKET, SO_DOMAIN), get_int(fd, SOL_SOCKET, SO_TYPE));
}

SCENARIO(lowest_fd, ALL, "a new descriptor is the lowest free one")
{
	int fd[5];
	for (int i = 0; i < 5; i++)
		fd[i] = socket(AF, SOCK_STREAM, 0);
	for (int i = 0; i < 5; i++)
		say("socket %d is %d above the first", i, fd[i] - fd[0]);
	close(fd[3]), close(fd[1]);
	say("with 1 and 3 closed: %d", socket(AF, SOCK_STREAM, 0) - fd[0]);
	say("then: %d", socket(AF, SOCK_STREAM, 0) - fd[0]);
	say("then: %d", socket(AF, SOCK_STREAM, 0) - fd[0]);
	close(0);
	say("with 0 closed: %d", socket(AF, SOCK_STREAM, 0));
}

SCENARIO(lowest_fd_accept, ALL, "accept takes the lowest free descriptor")
{
	struct addr a;
	int l = server(&a), hole = dup(0), c = client(&a);
	close(hole);
	int s = accept(l, NULL, NULL);
	say("accepted the free one: %d, client's %d above it", s == hole, c - s);
}

static void set_files(rlim_t n)
{
	struct rlimit r;
	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = n;
	if (n > r.rlim_max)
		r.rlim_max = n;
	if (setrlimit(RLIMIT_NOFILE, &r) < 0)
		skip("cannot set RLIMIT_NOFILE");
}

SCENARIO(emfile, ALL, "EMFILE from socket and accept, and recovery")
{
	struct addr a;
	int l = server(&a), c = client(&a), top = dup(0);
	close(top);
	set_files((rlim_t)top + 1);
	int fd = FD(socket(AF, SOCK_STREAM, 0));
	FD(socket(AF, SOCK_STREAM, 0));
	FD(accept(l, NULL, NULL));
	wait_bits("the connection still waits", l, POLLIN);
	R(close(fd));
	int s = FD(accept(l, NULL, NULL));
	OK(send_all(c, 100, 0));
	take("accepted", s, 100);
}

SCENARIO(high_fds, ALL, "descriptors above 1024 and above 4096 work")
{
	set_files(6000);
	struct addr a;
	int l = server(&a), base[] = {1500, 5500};
	for (int i = 0; i < 2; i++) {
		int fd = tcp(), c = fcntl(fd, F_DUPFD, base[i]);
		close(fd);
		R(c == base[i]);
		R(connect(c, &a.sa, a.len));
		int s = accept(l, NULL, NULL), hs = fcntl(s, F_DUPFD, base[i] + 10);
		close(s);
		OK(send_all(hs, 3000, 0));
		take("client", c, 3000);
		show_bits("client", c);
		R(close(hs));
		wait_bits("client", c, POLLIN | POLLRDHUP);
	}
}

SCENARIO(fresh_poll, ALL, "a socket that is not connected polls OUT and HUP")
{
	int fd = tcp();
	show_bits("fresh", fd);
	struct addr a = loop(0);
	R(bind(fd, &a.sa, a.len));
	show_bits("bound", fd);
	R(listen(fd, 1));
	show_bits("listening", fd);
}

SCENARIO(fresh_epoll, ALL, "epoll registered before connect, level and edge")
{
	int ep = epoll_create1(0), fd = tcp();
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP};
	R(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
	R(epoll_wait(ep, &ev, 1, 0));
	say("events %s", bits_text(ev.events));
	ev.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
	R(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev));
	R(epoll_wait(ep, &ev, 1, 0));
	say("events %s", bits_text(ev.events));
	R(epoll_wait(ep, &ev, 1, 0));
}

SCENARIO(fresh_select, ALL, "select on a fresh socket")
{
	int fd = tcp();
	fd_set r, w, x;
	struct timeval tv = {0, 0};
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_ZERO(&x);
	FD_SET(fd, &r);
	FD_SET(fd, &w);
	FD_SET(fd, &x);
	R(select(fd + 1, &r, &w, &x, &tv));
	say("read %d write %d except %d", FD_ISSET(fd, &r) != 0, FD_ISSET(fd, &w) != 0, FD_ISSET(fd, &x) != 0);
}

SCENARIO(fresh_io, ALL, "reading and writing without a connection")
{
	int fd = tcp();
	char b[8] = {0};
	struct iovec v = {b, sizeof b};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	struct addr a = closed_port();
	signal(SIGPIPE, SIG_IGN);
	R(read(fd, b, sizeof b));
	R(recv(fd, b, sizeof b, MSG_DONTWAIT));
	R(recv(fd, b, sizeof b, MSG_PEEK));
	R(recv(fd, b, 0, 0));
	R(recvmsg(fd, &m, 0));
	R(write(fd, b, sizeof b));
	R(send(fd, b, sizeof b, MSG_NOSIGNAL));
	R(send(fd, b, 0, MSG_NOSIGNAL));
	R(sendto(fd, b, sizeof b, 0, &a.sa, a.len));
	R(sendmsg(fd, &m, 0));
	R(shutdown(fd, SHUT_RD));
	R(shutdown(fd, SHUT_WR));
	R(shutdown(fd, SHUT_RDWR));
	R(shutdown(fd, 3));
	show_error("fresh", fd);
}

static void write_fresh(void *arg)
{
	(void)arg;
	int fd = tcp();
	say("write %zd", write(fd, "x", 1));
}

SCENARIO(fresh_sigpipe, ALL, "a write without a connection kills by SIGPIPE")
{
	reap(spawn("writer", write_fresh, NULL));
}

SCENARIO(fresh_nonblock_read, ALL, "O_NONBLOCK does not make it EAGAIN")
{
	int fd = tcp();
	char b[1];
	nonblock(fd, 1);
	R(read(fd, b, 1));
	R(accept(fd, NULL, NULL));
}

SCENARIO(fresh_names, ALL, "names of a fresh socket")
{
	int fd = tcp();
	show_names("fresh", fd);
}

SCENARIO(fresh_stat, ALL, "fstat and /proc of a socket")
{
	struct stat st, udp;
	char link[64], path[64];
	int fd = tcp(), u = socket(AF, SOCK_DGRAM, 0);
	R(fstat(fd, &st));
	fstat(u, &udp);
	say("mode %o size %ld nlink %ld uid %u blksize %ld", st.st_mode, (long)st.st_size, (long)st.st_nlink, st.st_uid,
	    (long)st.st_blksize);
	say("on the device of sockets: %d, inodes differ: %d", st.st_dev == udp.st_dev, st.st_ino != udp.st_ino);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(path, link, sizeof link - 1);
	link[n < 0 ? 0 : n] = 0;
	say("link %.8s and inode agree: %d", link, strtoul(link + 8, NULL, 10) == st.st_ino);
	FD(open(path, O_RDWR));
}

SCENARIO(fresh_flags, ALL, "F_GETFL, F_SETFL, F_SETOWN and FIONBIO")
{
	int fd = tcp(), on = 1;
	say("F_GETFL %#x", fcntl(fd, F_GETFL));
	R(ioctl(fd, FIONBIO, &on));
	say("F_GETFL %#x", fcntl(fd, F_GETFL));
	R(fcntl(fd, F_SETFL, O_NONBLOCK | O_APPEND | O_ASYNC));
	say("F_GETFL %#x", fcntl(fd, F_GETFL));
	R(fcntl(fd, F_SETFL, 0));
	R(ioctl(fd, FIOASYNC, &on));
	say("F_GETFL %#x", fcntl(fd, F_GETFL));
	R(fcntl(fd, F_SETOWN, getpid()));
	R(fcntl(fd, F_GETOWN) == getpid());
	R(ioctl(fd, FIOCLEX));
	R(fcntl(fd, F_GETFD));
}

SCENARIO(file_calls, ALL, "calls that are for files")
{
	int fd = tcp();
	char b[4];
	R(lseek(fd, 0, SEEK_SET));
	R(pread(fd, b, 1, 0));
	R(pwrite(fd, b, 1, 0));
	R(ftruncate(fd, 0));
	R(fsync(fd));
	R(fchdir(fd));
	R(isatty(fd));
	RL(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0, "mmap");
	R(posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL));
	R(fallocate(fd, 0, 0, 10));
	R(syscall(SYS_getdents64, fd, b, sizeof b));
}

SCENARIO(ioctls, ALL, "ioctls of a fresh, a listening and a connected socket")
{
	struct conn k = conn();
	int fds[] = {tcp(), k.l, k.c};
	const char *who[] = {"fresh", "listening", "connected"};
	for (int i = 0; i < 3; i++) {
		int v = -1;
		RL(ioctl(fds[i], FIONREAD, &v), "%s FIONREAD", who[i]);
		say("%d", v), v = -1;
		RL(ioctl(fds[i], SIOCOUTQ, &v), "%s SIOCOUTQ", who[i]);
		say("%d", v), v = -1;
		RL(ioctl(fds[i], SIOCOUTQNSD, &v), "%s SIOCOUTQNSD", who[i]);
		say("%d", v), v = -1;
		RL(ioctl(fds[i], SIOCATMARK, &v), "%s SIOCATMARK", who[i]);
		say("%d", v), v = -1;
		RL(ioctl(fds[i], TIOCGWINSZ, &v), "%s TIOCGWINSZ", who[i]);
		RL(ioctl(fds[i], 0x89ff, &v), "%s 0x89ff", who[i]);
	}
}

SCENARIO(interface_ioctls, ALL, "programs ask a TCP socket about interfaces")
{
	int fd = tcp();
	struct ifreq r = {.ifr_name = "lo"};
	R(ioctl(fd, SIOCGIFFLAGS, &r));
	say("flags %#x", r.ifr_flags & 0xffff);
	R(ioctl(fd, SIOCGIFINDEX, &r));
	R(ioctl(fd, SIOCGIFMTU, &r));
	R(ioctl(fd, SIOCGIFHWADDR, &r));
	memset(&r.ifr_addr, 0, sizeof r.ifr_addr);
	R(ioctl(fd, SIOCGIFADDR, &r));
	say("family %d", r.ifr_addr.sa_family);
	R(ioctl(fd, SIOCGIFNETMASK, &r));
	struct ifconf c = {0};
	R(ioctl(fd, SIOCGIFCONF, &c));
	say("has a length: %d", c.ifc_len > 0);
	strcpy(r.ifr_name, "nosuch0");
	R(ioctl(fd, SIOCGIFFLAGS, &r));
}

SCENARIO(not_sockets, ALL, "socket calls on what is not a socket")
{
	int file = open("/dev/null", O_RDWR), p[2], gone = dup(0), fds[4];
	if (pipe(p) < 0)
		die("pipe");
	close(gone);
	fds[0] = file, fds[1] = p[0], fds[2] = gone, fds[3] = -1;
	struct addr a = loop(0);
	for (int i = 0; i < 4; i++) {
		const char *who = (const char *[]){"file", "pipe", "closed", "-1"}[i];
		socklen_t n = sizeof a.ss;
		int v = 0;
		RL(bind(fds[i], &a.sa, a.len), "bind(%s)", who);
		RL(connect(fds[i], &a.sa, a.len), "connect(%s)", who);
		RL(listen(fds[i], 1), "listen(%s)", who);
		RL(accept4(fds[i], NULL, NULL, 0), "accept4(%s)", who);
		RL(shutdown(fds[i], SHUT_WR), "shutdown(%s)", who);
		RL(getsockname(fds[i], &a.sa, &n), "getsockname(%s)", who);
		RL(getpeername(fds[i], &a.sa, &n), "getpeername(%s)", who);
		RL(set_int(fds[i], SOL_SOCKET, SO_KEEPALIVE, v), "setsockopt(%s)", who);
		n = sizeof v;
		RL(getsockopt(fds[i], SOL_SOCKET, SO_KEEPALIVE, &v, &n), "getsockopt(%s)", who);
	}
}

SCENARIO(foreign, ONCE, "UNIX and UDP sockets are left alone")
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int l = FD(socket(AF_UNIX, SOCK_STREAM, 0)), v = 0, p[2];
	socklen_t n = sizeof un;
	R(bind(l, (void *)&un, sizeof(sa_family_t)));
	R(getsockname(l, (void *)&un, &n));
	R(listen(l, 5));
	int c = FD(socket(AF_UNIX, SOCK_STREAM, 0));
	R(connect(c, (void *)&un, n));
	int s = FD(accept(l, NULL, NULL));
	R(write(c, "abc", 3));
	R(ioctl(s, FIONREAD, &v));
	say("%d", v);
	R(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, p));
	R(socketpair(AF_INET, SOCK_STREAM, 0, p));
	R(socketpair(AF_INET6, SOCK_STREAM, 0, p));
	R(set_int(s, IPPROTO_TCP, TCP_NODELAY, 1));
	say("SO_DOMAIN %d SO_PROTOCOL %d", get_int(s, SOL_SOCKET, SO_DOMAIN), get_int(s, SOL_SOCKET, SO_PROTOCOL));
}

SCENARIO(udp, ALL, "UDP beside it: bind, connect, echo, ECONNREFUSED")
{
	struct addr a = loop(0), from = {.len = sizeof from.ss};
	char b[16];
	int x = FD(socket(AF, SOCK_DGRAM, 0)), y = FD(socket(AF, SOCK_DGRAM, IPPROTO_UDP));
	R(bind(x, &a.sa, a.len));
	a = local_of(x);
	R(connect(y, &a.sa, a.len));
	show_names("y", y);
	R(send(y, "hello", 5, 0));
	R(recvfrom(x, b, sizeof b, 0, &from.sa, &from.len));
	say("from %s", addr_text(&from.sa, from.len));
	R(listen(x, 1));
	R(accept(x, NULL, NULL));
	close(x);
	R(send(y, "hello", 5, 0));
	wait_bits("y", y, POLLERR);
	show_error("y", y);
}

SCENARIO(udp_same_port, ALL, "UDP and TCP on one port number do not meet")
{
	struct addr a;
	int l = server(&a), u = socket(AF, SOCK_DGRAM, 0);
	R(bind(u, &a.sa, a.len));
	int c = client(&a);
	FD(accept(l, NULL, NULL));
	show_names("client", c);
}

SCENARIO(cookie, ALL, "SO_COOKIE is stable, shared by a dup, and unique")
{
	uint64_t c[3] = {0};
	int fd[3] = {tcp(), tcp()};
	fd[2] = dup(fd[0]);
	for (int i = 0; i < 3; i++) {
		socklen_t n = sizeof c[i];
		R(getsockopt(fd[i], SOL_SOCKET, SO_COOKIE, &c[i], &n));
	}
	say("dup same %d, other differs %d, not zero %d", c[0] == c[2], c[0] != c[1], c[0] != 0);
}

static void many_sockets(void *arg)
{
	int *count = arg;
	for (int i = 0; i < 100; i++) {
		int fd = socket(AF, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd >= 0 && get_int(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM && close(fd) == 0)
			++*count;
	}
}

SCENARIO(threads, ALL, "eight threads open and close sockets")
{
	struct task *t[8];
	int count[8] = {0};
	for (int i = 0; i < 8; i++)
		t[i] = start("t", many_sockets, &count[i]);
	for (int i = 0; i < 8; i++) {
		join(t[i]);
		R(count[i]);
	}
}

SCENARIO(dup_is_same, ALL, "dups of a fresh socket are one socket")
{
	struct addr a;
	int l = server(&a), fd = tcp(), d = dup(fd);
	R(connect(d, &a.sa, a.len));
	int s = FD(accept(l, NULL, NULL));
	show_names("original", fd);
	R(close(d));
	OK(send_all(fd, 500, 0));
	take("accepted", s, 500);
	R(close(d));
	R(close(fd));
	wait_bits("accepted", s, POLLIN | POLLRDHUP);
}
