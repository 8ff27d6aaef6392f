/* Execs itself in every way, with an environment that has nothing of ours; each
 * time the loader must be there again. argv[1] is how many are left. */
#define _GNU_SOURCE
#include "check.h"

#include <fcntl.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
	int left = argc > 1 ? atoi(argv[1]) : 5;
	char next[16], *args[] = { argv[0], next, NULL };
	char *none[] = { NULL }, *other[] = { "A=b", "LD_PRELOAD=libc.so.6", "C=d", NULL };

	CHECK(raw(SYS_getsid, 0, 0, 0, 0, 0, 0) == SESSION);
	CHECK(left == 5 || getenv("A") == NULL || strstr(getenv("LD_PRELOAD"), ":libc.so.6"));
	snprintf(next, sizeof(next), "%d", left - 1);
	switch (left) {
	case 5:
		execve(argv[0], args, none);
		break;
	case 4:
		execve(argv[0], args, other);
		break;
	case 3:
		CHECK(getenv("C") && strcmp(getenv("C"), "d") == 0);
		raw(SYS_execve, (long)argv[0], (long)args, 0, 0, 0, 0);
		break;
	case 2:
		execveat(AT_FDCWD, argv[0], args, none, 0);
		break;
	case 1:
		CHECK(raw(SYS_execve, (long)argv[0], (long)args, -4096, 0, 0, 0) == -EFAULT);
		CHECK(execve("/nowhere", args, none) == -1 && errno == ENOENT);
		CHECK(raw(SYS_getsid, 0, 0, 0, 0, 0, 0) == SESSION);
		printf("all of them\n");
		return 0;
	}
	CHECK(!"exec");
}
