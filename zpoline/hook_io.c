/* Packets with descriptors. */
#include "hook.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

union control {
	struct cmsghdr head;
	char room[CMSG_SPACE(PQ_FDS * sizeof(int))];
};

long pq_send(int fd, const struct iovec *iov, size_t niov, const int *fds, int nfds)
{
	union control c;
	struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = niov };
	long r;

	if (nfds) {
		c.head = (struct cmsghdr){ CMSG_LEN(nfds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		pq_copy(CMSG_DATA(&c.head), fds, nfds * sizeof(int));
		m.msg_control = &c;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
	}
	do
		r = pq_sys(SYS_sendmsg, fd, &m, MSG_NOSIGNAL);
	while (r == -EINTR);
	return r;
}

/* *lost tells that descriptors came for which there was no room. */
long pq_receive(int fd, const struct iovec *iov, size_t niov, int flags, int *fds, int *nfds, int *lost)
{
	union control c;
	struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = niov, .msg_control = &c, .msg_controllen = sizeof(c) };
	long r = pq_sys(SYS_recvmsg, fd, &m, flags);

	*nfds = 0;
	*lost = 0;
	if (r < 0)
		return r;
	*lost = (m.msg_flags & MSG_CTRUNC) != 0;
	if (m.msg_controllen >= CMSG_LEN(sizeof(int)) && c.head.cmsg_level == SOL_SOCKET && c.head.cmsg_type == SCM_RIGHTS) {
		*nfds = (c.head.cmsg_len - CMSG_LEN(0)) / sizeof(int);
		pq_copy(fds, CMSG_DATA(&c.head), *nfds * sizeof(int));
	}
	return r;
}
