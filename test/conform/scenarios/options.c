/* options.c - setsockopt and getsockopt. */
#include "conform.h"
#include <linux/filter.h>
#include <linux/net_tstamp.h>

struct option {
	int level, opt;
	const char *name;
};
#define SOL(x) {SOL_SOCKET, x, #x}
#define TCP(x) {IPPROTO_TCP, x, #x}
#define IP4(x) {IPPROTO_IP, x, #x}
#define IP6(x) {IPPROTO_IPV6, x, #x}

static const struct option sol_options[] = {
	SOL(SO_DEBUG), SOL(SO_REUSEADDR), SOL(SO_TYPE), SOL(SO_ERROR), SOL(SO_DONTROUTE), SOL(SO_BROADCAST),
	SOL(SO_KEEPALIVE), SOL(SO_OOBINLINE), SOL(SO_PRIORITY), SOL(SO_REUSEPORT), SOL(SO_RCVLOWAT),
	SOL(SO_SNDLOWAT), SOL(SO_ACCEPTCONN), SOL(SO_MARK), SOL(SO_TIMESTAMP), SOL(SO_PROTOCOL), SOL(SO_DOMAIN),
	SOL(SO_RXQ_OVFL), SOL(SO_PEEK_OFF), SOL(SO_NOFCS), SOL(SO_LOCK_FILTER), SOL(SO_SELECT_ERR_QUEUE),
	SOL(SO_BUSY_POLL), SOL(SO_MAX_PACING_RATE), SOL(SO_INCOMING_CPU), SOL(SO_ZEROCOPY), SOL(SO_TXTIME),
	SOL(SO_TIMESTAMPNS), SOL(SO_TIMESTAMPING), SOL(SO_PASSCRED), SOL(SO_PASSSEC), SOL(SO_NO_CHECK),
	SOL(SO_BUF_LOCK), SOL(SO_RESERVE_MEM), SOL(SO_PREFER_BUSY_POLL), {SOL_SOCKET, 999, "999"}};

static const struct option tcp_options[] = {
	TCP(TCP_NODELAY), TCP(TCP_MAXSEG), TCP(TCP_CORK), TCP(TCP_KEEPIDLE), TCP(TCP_KEEPINTVL), TCP(TCP_KEEPCNT),
	TCP(TCP_SYNCNT), TCP(TCP_LINGER2), TCP(TCP_DEFER_ACCEPT), TCP(TCP_WINDOW_CLAMP), TCP(TCP_QUICKACK),
	TCP(TCP_THIN_LINEAR_TIMEOUTS), TCP(TCP_THIN_DUPACK), TCP(TCP_USER_TIMEOUT), TCP(TCP_FASTOPEN),
	TCP(TCP_FASTOPEN_CONNECT), TCP(TCP_FASTOPEN_NO_COOKIE), TCP(TCP_NOTSENT_LOWAT), TCP(TCP_SAVE_SYN),
	TCP(TCP_SAVED_SYN), TCP(TCP_REPAIR_WINDOW), TCP(TCP_INQ), {IPPROTO_TCP, 37, "TCP_TX_DELAY"}, {IPPROTO_TCP, 999, "999"}};

static const struct option ip_options[] = {
	IP4(IP_TOS), IP4(IP_TTL), IP4(IP_OPTIONS), IP4(IP_RECVTOS), IP4(IP_RECVTTL), IP4(IP_RETOPTS), IP4(IP_PKTINFO),
	IP4(IP_MTU_DISCOVER), IP4(IP_RECVERR), IP4(IP_MTU), IP4(IP_FREEBIND), IP4(IP_TRANSPARENT), IP4(IP_MINTTL),
	IP4(IP_BIND_ADDRESS_NO_PORT), IP4(IP_MULTICAST_TTL), IP4(IP_MULTICAST_LOOP), IP4(IP_UNICAST_IF),
	{IPPROTO_IP, 51, "IP_LOCAL_PORT_RANGE"}, {IPPROTO_IP, 999, "999"}};

static const struct option ip6_options[] = {
	IP6(IPV6_V6ONLY), IP6(IPV6_UNICAST_HOPS), IP6(IPV6_MULTICAST_HOPS), IP6(IPV6_MULTICAST_LOOP), IP6(IPV6_TCLASS),
	IP6(IPV6_RECVTCLASS), IP6(IPV6_RECVPKTINFO), IP6(IPV6_RECVHOPLIMIT), IP6(IPV6_MTU_DISCOVER), IP6(IPV6_MTU),
	IP6(IPV6_RECVERR), IP6(IPV6_DONTFRAG), IP6(IPV6_FREEBIND), IP6(IPV6_TRANSPARENT), IP6(IPV6_AUTOFLOWLABEL),
	IP6(IPV6_MINHOPCOUNT), IP6(IPV6_ADDR_PREFERENCES), {IPPROTO_IPV6, 999, "999"}};

/* What a connection's path decides, not the program. */
static int depends_on_path(const struct option *o, int state)
{
	if (o->level == SOL_SOCKET)
		return o->opt == SO_INCOMING_CPU && state;
	if (o->level == IPPROTO_TCP)
		return state && (o->opt == TCP_MAXSEG || o->opt == TCP_WINDOW_CLAMP || o->opt == TCP_QUICKACK);
	return state && (o->opt == IP_MTU || o->opt == IPV6_MTU);
}

static void get_one(int fd, const struct option *o, int state)
{
	int v[32] = {0};
	socklen_t n = sizeof v;
	if (getsockopt(fd, o->level, o->opt, v, &n) < 0)
		say("%s = %s", o->name, ename(errno));
	else if (depends_on_path(o, state))
		say("%s: length %u, not negative %d", o->name, n, v[0] >= 0);
	else
		say("%s: length %u, %d", o->name, n, v[0]);
}

static void get_all(const struct option *o, size_t n)
{
	struct conn k = conn();
	int fds[] = {tcp(), k.l, k.c, k.s};
	for (int i = 0; i < 4; i++) {
		say("%s:", (const char *[]){"fresh", "listening", "client", "accepted"}[i]);
		for (size_t j = 0; j < n; j++)
			get_one(fds[i], &o[j], i);
	}
}

/* set_all tries values each on a fresh socket and shows what became of them. */
static void set_all(const struct option *o, size_t n)
{
	static const int values[] = {-1, 0, 1, 2, 64, 1000, 100000};
	for (size_t j = 0; j < n; j++)
		for (size_t i = 0; i < N(values); i++) {
			int fd = tcp();
			RL(set_int(fd, o[j].level, o[j].opt, values[i]), "%s %d", o[j].name, values[i]);
			get_one(fd, &o[j], 0);
			close(fd);
		}
}

SCENARIO(get_socket, ALL, "SOL_SOCKET in every state") { get_all(sol_options, N(sol_options)); }
SCENARIO(get_tcp, ALL, "IPPROTO_TCP in every state") { get_all(tcp_options, N(tcp_options)); }
SCENARIO(get_ip, ALL, "IPPROTO_IP in every state") { get_all(ip_options, N(ip_options)); }
SCENARIO(get_ipv6, ALL, "IPPROTO_IPV6 in every state") { get_all(ip6_options, N(ip6_options)); }
SCENARIO(set_socket, ALL, "SOL_SOCKET set, then get") { set_all(sol_options, N(sol_options)); }
SCENARIO(set_tcp, ALL, "IPPROTO_TCP set, then get") { set_all(tcp_options, N(tcp_options)); }
SCENARIO(set_ip, ALL, "IPPROTO_IP set, then get") { set_all(ip_options, N(ip_options)); }
SCENARIO(set_ipv6, ALL, "IPPROTO_IPV6 set, then get") { set_all(ip6_options, N(ip6_options)); }

static void as_user(void *arg)
{
	(void)arg;
	if (setgid(65534) || setuid(65534))
		die("setuid");
	int fd = tcp();
	R(set_int(fd, SOL_SOCKET, SO_MARK, 1));
	R(set_int(fd, SOL_SOCKET, SO_PRIORITY, 6));
	R(set_int(fd, SOL_SOCKET, SO_PRIORITY, 7));
	R(set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20));
	R(set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, 1 << 20));
	R(set_int(fd, SOL_SOCKET, SO_DEBUG, 1));
	R(set_int(fd, IPPROTO_IP, IP_TRANSPARENT, 1));
	R(set_int(fd, IPPROTO_TCP, TCP_REPAIR, 1));
	R(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "bbr", 3));
}

SCENARIO(as_user, ALL | ROOT, "options an ordinary user may not set") { reap(spawn("user", as_user, NULL)); }

SCENARIO(levels, ALL, "levels that a TCP socket does not have")
{
	static const int levels[] = {IPPROTO_ICMP, IPPROTO_UDP, IPPROTO_RAW, IPPROTO_ICMPV6, SOL_NETLINK, 136, 9999, -1};
	int fd = tcp(), v = 1;
	for (size_t i = 0; i < N(levels); i++) {
		socklen_t n = sizeof v;
		RL(setsockopt(fd, levels[i], 1, &v, sizeof v), "set level %d", levels[i]);
		RL(getsockopt(fd, levels[i], 1, &v, &n), "get level %d", levels[i]);
	}
}

SCENARIO(get_lengths, ALL, "getsockopt lengths and bad pointers")
{
	static const int lens[] = {0, 1, 2, 3, 4, 5, 8, 100, -1};
	static const struct option o[] = {SOL(SO_TYPE), SOL(SO_RCVBUF), TCP(TCP_NODELAY), IP4(IP_TTL)};
	int fd = tcp();
	for (size_t j = 0; j < N(o); j++) {
		for (size_t i = 0; i < N(lens); i++) {
			unsigned char b[100];
			socklen_t n = (socklen_t)lens[i], used;
			memset(b, 0xee, sizeof b);
			RL(getsockopt(fd, o[j].level, o[j].opt, b, &n), "%s length %d", o[j].name, lens[i]);
			for (used = sizeof b; used > 0 && b[used - 1] == 0xee; used--)
				;
			say("length %d, %u bytes written", (int)n, used);
		}
		socklen_t n = 4;
		RL(syscall(SYS_getsockopt, fd, o[j].level, o[j].opt, 1L, &n), "%s bad value", o[j].name);
		RL(syscall(SYS_getsockopt, fd, o[j].level, o[j].opt, &n, 1L), "%s bad length", o[j].name);
		RL(syscall(SYS_getsockopt, fd, o[j].level, o[j].opt, &n, NULL), "%s NULL length", o[j].name);
	}
}

SCENARIO(set_lengths, ALL, "setsockopt lengths and bad pointers")
{
	static const int lens[] = {0, 1, 2, 3, 4, 5, 8, 100, -1};
	static const struct option o[] = {SOL(SO_KEEPALIVE), TCP(TCP_NODELAY), IP4(IP_TOS), SOL(SO_LINGER), SOL(SO_RCVTIMEO)};
	for (size_t j = 0; j < N(o); j++) {
		int fd = tcp();
		char b[100] = {1};
		for (size_t i = 0; i < N(lens); i++)
			RL(syscall(SYS_setsockopt, fd, o[j].level, o[j].opt, b, lens[i]), "%s length %d", o[j].name, lens[i]);
		RL(syscall(SYS_setsockopt, fd, o[j].level, o[j].opt, 1L, 4), "%s bad value", o[j].name);
		RL(syscall(SYS_setsockopt, fd, o[j].level, o[j].opt, NULL, 4), "%s NULL value", o[j].name);
		RL(syscall(SYS_setsockopt, fd, o[j].level, o[j].opt, NULL, 0), "%s NULL value, length 0", o[j].name);
	}
}

SCENARIO(buffers, ALL, "SO_RCVBUF and SO_SNDBUF: defaults, doubled, clamped")
{
	static const int v[] = {0, 1, 2000, 4096, 65536, 200000, 1 << 24, -1};
	int fd = tcp();
	say("default receive %d send %d", get_int(fd, SOL_SOCKET, SO_RCVBUF), get_int(fd, SOL_SOCKET, SO_SNDBUF));
	for (size_t i = 0; i < N(v); i++) {
		RL(set_int(fd, SOL_SOCKET, SO_RCVBUF, v[i]), "SO_RCVBUF %d", v[i]);
		RL(set_int(fd, SOL_SOCKET, SO_SNDBUF, v[i]), "SO_SNDBUF %d", v[i]);
		say("receive %d send %d", get_int(fd, SOL_SOCKET, SO_RCVBUF), get_int(fd, SOL_SOCKET, SO_SNDBUF));
	}
}

SCENARIO(buffers_connected, ALL, "buffer sizes set on a connection, data still flows")
{
	struct conn k = conn();
	R(set_int(k.c, SOL_SOCKET, SO_SNDBUF, 10000));
	R(set_int(k.s, SOL_SOCKET, SO_RCVBUF, 10000));
	say("send %d receive %d", get_int(k.c, SOL_SOCKET, SO_SNDBUF), get_int(k.s, SOL_SOCKET, SO_RCVBUF));
	R(set_int(k.c, SOL_SOCKET, SO_SNDBUF, 100000));
	OK(send_all(k.c, 3000, 0));
	take("accepted", k.s, 3000);
}

SCENARIO(times, ALL, "SO_RCVTIMEO and SO_SNDTIMEO values")
{
	static const struct timeval v[] = {{0, 0}, {0, 1}, {0, 1000}, {1, 500000}, {0, 999999}, {0, 1000000}, {-1, 0}, {1L << 40, 0}};
	static const int o[] = {SO_RCVTIMEO, SO_SNDTIMEO};
	int fd = tcp();
	for (size_t i = 0; i < N(v); i++)
		for (int j = 0; j < 2; j++) {
			struct timeval got = {-7, -7};
			socklen_t n = sizeof got;
			RL(setsockopt(fd, SOL_SOCKET, o[j], &v[i], sizeof v[i]), "%d: %ld.%06ld", o[j], (long)v[i].tv_sec, (long)v[i].tv_usec);
			getsockopt(fd, SOL_SOCKET, o[j], &got, &n);
			say("length %u, %ld.%06ld", n, (long)got.tv_sec, (long)got.tv_usec);
		}
}

SCENARIO(linger, ALL, "SO_LINGER values")
{
	static const struct linger v[] = {{1, 0}, {1, 10}, {0, 10}, {1, -1}, {5, 100000}};
	int fd = tcp();
	for (size_t i = 0; i < N(v); i++) {
		struct linger got = {-7, -7};
		socklen_t n = sizeof got;
		RL(setsockopt(fd, SOL_SOCKET, SO_LINGER, &v[i], sizeof v[i]), "%d %d", v[i].l_onoff, v[i].l_linger);
		getsockopt(fd, SOL_SOCKET, SO_LINGER, &got, &n);
		say("length %u, %d %d", n, got.l_onoff, got.l_linger);
	}
}

SCENARIO(congestion, ALL, "TCP_CONGESTION: get, set, unknown, lengths")
{
	struct conn k = conn();
	int fds[] = {tcp(), k.l, k.c, k.s};
	for (int i = 0; i < 4; i++) {
		char b[32];
		socklen_t n = sizeof b;
		memset(b, 'z', sizeof b);
		R(getsockopt(fds[i], IPPROTO_TCP, TCP_CONGESTION, b, &n));
		say("length %u %.16s", n, b);
		R(setsockopt(fds[i], IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
		n = 3;
		R(getsockopt(fds[i], IPPROTO_TCP, TCP_CONGESTION, b, &n));
		say("length %u %.3s", n, b);
		R(setsockopt(fds[i], IPPROTO_TCP, TCP_CONGESTION, "nosuch", 6));
		R(setsockopt(fds[i], IPPROTO_TCP, TCP_CONGESTION, "", 0));
		n = sizeof b;
		R(getsockopt(fds[i], IPPROTO_TCP, TCP_CONGESTION, b, &n));
		say("%.16s", b);
	}
}

SCENARIO(congestion_inherited, ALL, "an accepted socket has its listening socket's TCP_CONGESTION")
{
	struct addr a;
	int l = server(&a);
	char b[16] = "";
	socklen_t n = sizeof b;
	R(setsockopt(l, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	int c = client(&a), s = FD(accept(l, NULL, NULL));
	(void)c;
	R(getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, b, &n));
	say("%s", b);
}

SCENARIO(inherited, ALL, "what an accepted socket inherits")
{
	static const struct { struct option o; int v; } set[] = {
		{SOL(SO_KEEPALIVE), 1}, {SOL(SO_OOBINLINE), 1}, {SOL(SO_PRIORITY), 3}, {SOL(SO_REUSEADDR), 1},
		{SOL(SO_REUSEPORT), 1}, {SOL(SO_RCVBUF), 30000}, {SOL(SO_SNDBUF), 40000}, {SOL(SO_RCVLOWAT), 5}, {SOL(SO_DONTROUTE), 1},
		{TCP(TCP_NODELAY), 1}, {TCP(TCP_KEEPIDLE), 77}, {TCP(TCP_KEEPINTVL), 11}, {TCP(TCP_KEEPCNT), 4},
		{TCP(TCP_USER_TIMEOUT), 5000}, {TCP(TCP_LINGER2), 9}, {TCP(TCP_NOTSENT_LOWAT), 16384}, {TCP(TCP_SYNCNT), 3},
		{TCP(TCP_DEFER_ACCEPT), 0}, {IP4(IP_TOS), 16}, {IP4(IP_TTL), 33}, {IP6(IPV6_UNICAST_HOPS), 44}, {IP6(IPV6_TCLASS), 8}};
	struct addr a = loop(0);
	int l = tcp();
	bind(l, &a.sa, a.len);
	for (size_t i = 0; i < N(set); i++)
		RL(set_int(l, set[i].o.level, set[i].o.opt, set[i].v), "%s %d", set[i].o.name, set[i].v);
	struct linger lg = {1, 3};
	R(setsockopt(l, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
	R(listen(l, 5));
	a = local_of(l);
	int c = client(&a), s = FD(accept(l, NULL, NULL));
	for (size_t i = 0; i < N(set); i++)
		get_one(s, &set[i].o, 0);
	socklen_t n = sizeof lg;
	getsockopt(s, SOL_SOCKET, SO_LINGER, &lg, &n);
	say("linger %d %d", lg.l_onoff, lg.l_linger);
	say("F_GETFL %#x", fcntl(s, F_GETFL));
	close(c);
}

SCENARIO(identity, ALL, "SO_DOMAIN, SO_TYPE, SO_PROTOCOL, SO_ACCEPTCONN in every state; none can be set")
{
	static const struct option o[] = {SOL(SO_DOMAIN), SOL(SO_TYPE), SOL(SO_PROTOCOL), SOL(SO_ACCEPTCONN), SOL(SO_ERROR)};
	struct conn k = conn();
	int fds[] = {tcp(), k.l, k.c, k.s};
	for (int i = 0; i < 4; i++)
		for (size_t j = 0; j < N(o); j++) {
			get_one(fds[i], &o[j], i);
			RL(set_int(fds[i], o[j].level, o[j].opt, 1), "set %s", o[j].name);
		}
}

SCENARIO(tcp_info, ALL, "TCP_INFO: lengths, states, and what must be filled")
{
	struct conn k = conn();
	int fds[] = {tcp(), k.l, k.c, k.s};
	OK(send_all(k.c, 100000, 0));
	take("accepted", k.s, 100000);
	OK(send_all(k.s, 1000, 0));
	take("client", k.c, 1000);
	for (int i = 0; i < 4; i++) {
		struct tcp_info t = {0};
		socklen_t n = sizeof t;
		R(getsockopt(fds[i], IPPROTO_TCP, TCP_INFO, &t, &n));
		say("length %u state %u", n, t.tcpi_state);
		if (i > 1)
			say("rtt %d mss %d cwnd %d rto %d pmtu %d", t.tcpi_rtt > 0, t.tcpi_snd_mss > 0, t.tcpi_snd_cwnd > 0,
			    t.tcpi_rto > 0, t.tcpi_pmtu > 0);
		n = 8;
		R(getsockopt(fds[i], IPPROTO_TCP, TCP_INFO, &t, &n));
		say("length %u", n);
	}
	R(setsockopt(k.c, IPPROTO_TCP, TCP_INFO, &k, 8));
	R(shutdown(k.c, SHUT_WR));
	wait_bits("accepted", k.s, POLLRDHUP);
	struct tcp_info t = {0};
	socklen_t n = sizeof t;
	R(getsockopt(k.s, IPPROTO_TCP, TCP_INFO, &t, &n));
	say("state after the peer's FIN %u", t.tcpi_state);
}

SCENARIO(maxseg, ALL, "TCP_MAXSEG of a connection is a segment's size")
{
	struct conn k = conn();
	int v = get_int(k.c, IPPROTO_TCP, TCP_MAXSEG);
	say("plausible: %d", v >= 536 && v <= 65535);
	R(set_int(k.c, IPPROTO_TCP, TCP_MAXSEG, 1000));
	R(set_int(tcp(), IPPROTO_TCP, TCP_MAXSEG, 10));
	int fd = tcp();
	R(set_int(fd, IPPROTO_TCP, TCP_MAXSEG, 1000));
	R(connect(fd, &k.a.sa, k.a.len));
	v = get_int(fd, IPPROTO_TCP, TCP_MAXSEG);
	say("at most 1000: %d", v <= 1000 && v > 0);
}

SCENARIO(keepalive_real, ALL, "what curl, Go and libuv set before and after connect")
{
	struct addr a;
	int l = server(&a), c = tcp();
	R(set_int(c, IPPROTO_TCP, TCP_NODELAY, 1));
	R(set_int(c, SOL_SOCKET, SO_KEEPALIVE, 1));
	R(set_int(c, IPPROTO_TCP, TCP_KEEPIDLE, 60));
	R(set_int(c, IPPROTO_TCP, TCP_KEEPINTVL, 60));
	R(set_int(c, IPPROTO_TCP, TCP_KEEPCNT, 9));
	R(connect(c, &a.sa, a.len));
	say("%d %d %d %d %d", get_int(c, IPPROTO_TCP, TCP_NODELAY), get_int(c, SOL_SOCKET, SO_KEEPALIVE),
	    get_int(c, IPPROTO_TCP, TCP_KEEPIDLE), get_int(c, IPPROTO_TCP, TCP_KEEPINTVL), get_int(c, IPPROTO_TCP, TCP_KEEPCNT));
	int s = FD(accept(l, NULL, NULL));
	R(set_int(s, IPPROTO_TCP, TCP_KEEPIDLE, 0));
	R(set_int(s, IPPROTO_TCP, TCP_KEEPIDLE, 32768));
	R(set_int(s, IPPROTO_TCP, TCP_KEEPCNT, 128));
	R(set_int(s, IPPROTO_TCP, TCP_QUICKACK, 1));
	say("%d", get_int(s, SOL_SOCKET, SO_KEEPALIVE));
}

SCENARIO(tos_connected, ALL, "TOS and TCLASS of a connection")
{
	struct conn k = conn();
	int v6 = fam == V6;
	for (int i = 0; i < 256; i += 51) {
		RL(v6 ? set_int(k.c, IPPROTO_IPV6, IPV6_TCLASS, i) : set_int(k.c, IPPROTO_IP, IP_TOS, i), "set %d", i);
		say("%d", v6 ? get_int(k.c, IPPROTO_IPV6, IPV6_TCLASS) : get_int(k.c, IPPROTO_IP, IP_TOS));
	}
	OK(send_all(k.c, 100, 0));
	take("accepted", k.s, 100);
}

SCENARIO(so_error_cleared, ALL, "SO_ERROR is cleared by reading, whatever the length asked")
{
	struct addr a = closed_port();
	int c = tcp();
	char b[4] = {0};
	socklen_t n = 1;
	nonblock(c, 1);
	R(connect(c, &a.sa, a.len));
	await(c, POLLERR | POLLHUP);
	R(getsockopt(c, SOL_SOCKET, SO_ERROR, b, &n));
	say("length %u, %d", n, b[0]);
	show_error("client", c);
}

SCENARIO(defer_accept, ALL, "TCP_DEFER_ACCEPT: accept waits for data")
{
	struct addr a = loop(0);
	int l = tcp();
	bind(l, &a.sa, a.len);
	R(set_int(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, 5));
	R(get_int(l, IPPROTO_TCP, TCP_DEFER_ACCEPT));
	R(listen(l, 5));
	a = local_of(l);
	int c = client(&a);
	R(poll(&(struct pollfd){.fd = l, .events = POLLIN}, 1, 100));
	R(send(c, "x", 1, 0));
	wait_bits("listening", l, POLLIN);
	int s = FD(accept(l, NULL, NULL));
	char b[2];
	R(recv(s, b, 2, MSG_DONTWAIT));
}

SCENARIO(filters, ALL, "SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_ATTACH_REUSEPORT_CBPF")
{
	struct sock_filter all[] = {{BPF_RET | BPF_K, 0, 0, 0xffff}};
	struct sock_fprog p = {1, all};
	int fd = tcp();
	R(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof p));
	R(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &p, sizeof p));
	R(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &p, sizeof p));
	R(setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &p, sizeof p));
	set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	R(setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &p, sizeof p));
}

SCENARIO(others, ALL, "SO_PEERCRED, SO_PEERSEC, SO_ORIGINAL_DST, TCP_ULP, TCP_MD5SIG, SO_MEMINFO")
{
	struct conn k = conn();
	char b[256] = {0};
	socklen_t n = sizeof b;
	R(getsockopt(k.c, SOL_SOCKET, SO_PEERCRED, b, &n));
	say("length %u", n);
	n = sizeof b;
	R(getsockopt(k.c, SOL_SOCKET, SO_PEERSEC, b, &n));
	n = sizeof b;
	R(getsockopt(k.c, IPPROTO_IP, 80, b, &n));
	n = sizeof b;
	R(getsockopt(k.c, IPPROTO_TCP, TCP_ULP, b, &n));
	R(setsockopt(k.c, IPPROTO_TCP, TCP_ULP, "nosuch", 6));
	memset(b, 0, sizeof b);
	R(setsockopt(k.c, IPPROTO_TCP, TCP_MD5SIG, b, 4));
	n = sizeof b;
	R(getsockopt(k.c, SOL_SOCKET, SO_MEMINFO, b, &n));
	say("length %u", n);
	n = sizeof b;
	R(getsockopt(k.c, SOL_SOCKET, SO_PEERNAME, b, &n));
	say("length %u", n);
	n = sizeof b;
	R(getsockopt(k.c, SOL_SOCKET, SO_INCOMING_NAPI_ID, b, &n));
	n = 8;
	R(getsockopt(k.c, SOL_SOCKET, 71, b, &n));
}
