/* Numbers that no call has, at a place where others were made before. */
#define _GNU_SOURCE
#include "check.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

int main(void)
{
	static const long none[] = { -1, -4096, 511, 580, 650, 3000, 4000, 4096, 5000, 0x40000000 + 41, 0x40000000, 0xffffffff };
	struct sigaction is;
	int status, pid;

	for (int i = 0; i < 1500; i++)
		CHECK(syscall(SYS_getsid, 0) == SESSION);
	for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++) {
		errno = 0;
		CHECK(syscall(none[i], 1, 2, 3, 4, 5, 6) == -1 && errno == ENOSYS);
		CHECK(syscall(SYS_getsid, 0) == SESSION);
	}
	/* The kernel looks at 32 bits: this is write, of nothing. */
	for (int bit = 33; bit < 64; bit++)
		CHECK(raw(SYS_write | 1L << bit, 1, (long)"", 0, 0, 0, 0) == 0);
	CHECK(sigaction(SIGSEGV, NULL, &is) == 0 && is.sa_handler == SIG_DFL && is.sa_flags == 0);
	CHECK(signal(SIGSEGV, SIG_IGN) == SIG_DFL && signal(SIGSEGV, SIG_DFL) == SIG_IGN);
	errno = 0;
	CHECK(syscall(-1) == -1 && errno == ENOSYS);
	pid = fork();
	if (pid == 0) {
		raise(SIGSEGV);
		_exit(1);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	return 0;
}
