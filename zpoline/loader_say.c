/* One line on stderr, by one write, without libc. */
#include "loader_internal.h"

#include <sys/syscall.h>
#include <sys/uio.h>

void zp_say(const char *const *words)
{
	enum { MOST = 30 };
	struct iovec v[MOST];
	int n = 0;

	for (; *words && n < MOST; words++) {
		const char *w = *words;

		v[n].iov_base = (void *)w;
		v[n].iov_len = 0;
		while (w[v[n].iov_len])
			v[n].iov_len++;
		n++;
	}
	zp_sys(SYS_writev, 2, v, n);
}

const char *zp_number(char room[24], long n)
{
	char *c = room + 23;
	unsigned long v = n < 0 ? -(unsigned long)n : (unsigned long)n;

	*c = 0;
	do
		*--c = '0' + v % 10;
	while (v /= 10);
	if (n < 0)
		*--c = '-';
	return c;
}
