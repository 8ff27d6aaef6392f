/* Prints 1 if the hook library would ask the broker: get|set LEVEL NAME, ioctl COMMAND. */
#include "hook.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

struct pq_config pq_config;

int main(int argc, char **argv)
{
	struct pq_args c = { 0, { 0 } };

	if (argc < 4)
		return 2;
	c.nr = !strcmp(argv[1], "get") ? SYS_getsockopt : !strcmp(argv[1], "set") ? SYS_setsockopt : SYS_ioctl;
	c.a[1] = strtol(argv[2], NULL, 0);
	c.a[2] = strtol(argv[3], NULL, 0);
	printf("%d\n", pq_wanted(&c));
	return 0;
}
