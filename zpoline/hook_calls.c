/*
 * Which calls are the broker's: those that poemq-launch's filter traps
 * (package launcher/filter, where the reasons stand). A test holds the two together.
 */
#include "hook.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

enum { SOCK_TYPE_MASK_ = 0xf, SO_PEERPIDFD_ = 77 };

static const int get_options[] = {
	SO_ERROR, SO_PROTOCOL, SO_DOMAIN, SO_REUSEPORT,
	SO_SNDBUF, SO_RCVBUF,
	SO_RCVLOWAT, SO_PASSCRED, SO_PASSSEC,
	SO_PEERCRED, SO_PEERGROUPS, SO_PEERSEC, SO_PEERPIDFD_,
	SO_ZEROCOPY, SO_BINDTODEVICE, SO_INCOMING_CPU, SO_INCOMING_NAPI_ID,
	SO_MAX_PACING_RATE, SO_BUSY_POLL, SO_MEMINFO,
};

static const int set_options[] = {
	SO_REUSEADDR, SO_DONTROUTE, SO_BROADCAST, SO_SNDBUF, SO_RCVBUF,
	SO_KEEPALIVE, SO_OOBINLINE, SO_PRIORITY, SO_LINGER, SO_REUSEPORT,
	SO_PASSCRED, SO_PASSSEC, SO_RCVLOWAT,
	SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW,
	SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF,
	SO_RCVTIMEO_OLD, SO_RCVTIMEO_NEW, SO_SNDTIMEO_OLD, SO_SNDTIMEO_NEW,
	SO_BINDTODEVICE, SO_MARK, SO_SNDBUFFORCE, SO_RCVBUFFORCE,
	SO_BUSY_POLL, SO_ZEROCOPY, SO_MAX_PACING_RATE, SO_INCOMING_CPU, SO_TXTIME,
};

static int listed(const int *list, size_t n, int what)
{
	for (size_t i = 0; i < n; i++) {
		if (list[i] == what)
			return 1;
	}
	return 0;
}

#define LISTED(list, what) listed(list, sizeof(list) / sizeof(*(list)), what)

static int matched(int domain, int type, int protocol)
{
	for (int i = 0; i < pq_config.hello.nmatch; i++) {
		const int32_t *m = pq_config.match[i];

		if (m[0] == domain && m[1] == (type & SOCK_TYPE_MASK_) && m[2] == protocol)
			return 1;
	}
	return 0;
}

int pq_wanted(const struct pq_args *c)
{
	const int level = c->a[1], option = c->a[2];

	switch (c->nr) {
	case SYS_socket:
		return matched(c->a[0], c->a[1], c->a[2]);
	case SYS_getsockopt:
		return level != SOL_SOCKET || LISTED(get_options, option);
	case SYS_setsockopt:
		return level != SOL_SOCKET || LISTED(set_options, option);
	case SYS_ioctl:
		switch ((unsigned int)c->a[1]) {
		case SIOCOUTQ:
		case SIOCOUTQNSD:
		case SIOCGIFADDR:
		case SIOCGIFDSTADDR:
		case SIOCGIFBRDADDR:
		case SIOCGIFNETMASK:
			return 1;
		}
		return 0;
	case SYS_unshare:
	case SYS_setns:
		return 0;
	}
	return 1; /* of those that pq_hook looks at */
}

static void piece(struct pq_call *q, long addr, long len)
{
	q->mem[q->nmem++] = (struct pq_mem){ addr, len, 0 };
}

/* The memory that the broker will want to read. */
void pq_describe(const struct pq_args *c, struct pq_call *q)
{
	enum { SOCKADDR = 128, LENGTH = 4, OPTION = 4096, IFREQ = 32 };
	const int len2 = c->a[2], len4 = c->a[4];

	q->nmem = 0;
	switch (c->nr) {
	case SYS_connect:
	case SYS_bind:
		if (len2 > 0 && len2 <= SOCKADDR)
			piece(q, c->a[1], len2);
		break;
	case SYS_accept:
	case SYS_accept4:
		if (c->a[1] == 0)
			break;
		/* fall through */
	case SYS_getsockname:
	case SYS_getpeername:
		piece(q, c->a[2], LENGTH);
		break;
	case SYS_setsockopt:
		if (len4 > 0)
			piece(q, c->a[3], len4 < OPTION ? len4 : OPTION);
		break;
	case SYS_getsockopt:
		piece(q, c->a[4], LENGTH);
		break;
	case SYS_ioctl:
		if ((unsigned int)c->a[1] != SIOCOUTQ && (unsigned int)c->a[1] != SIOCOUTQNSD)
			piece(q, c->a[2], IFREQ);
		break;
	}
}
