/* argv[1]: what is done to a null pointer. It must be a SIGSEGV, of which it tells
 * the address if there is a second argument; else it dies by it. */
#define _GNU_SOURCE
#include "check.h"

#include <signal.h>
#include <sys/syscall.h>

static void handler(int sig, siginfo_t *info, void *context)
{
	(void)context;
	printf("signal %d at %p\n", sig, info->si_addr);
	fflush(stdout);
	_exit(0);
}

int main(int argc, char **argv)
{
	void (*volatile fn)(void) = NULL;
	volatile int *volatile p = NULL;
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

	CHECK(argc > 1);
	for (int i = 0; i < 2000; i++) /* long enough for rewriting to begin */
		CHECK(getsid(0) > 0);
	if (argc > 2)
		CHECK(sigaction(SIGSEGV, &sa, NULL) == 0);
	CHECK(getsid(0) > 0);
	if (strcmp(argv[1], "call") == 0)
		fn();
	else if (strcmp(argv[1], "call-rax") == 0) /* looks like a rewritten one */
		__asm__ volatile("xor %%eax, %%eax\n\tcall *%%rax" : : : "rax", "memory");
	else if (strcmp(argv[1], "call-rax-124") == 0)
		__asm__ volatile("mov $124, %%eax\n\tcall *%%rax" : : : "rax", "memory");
	else if (strcmp(argv[1], "read") == 0)
		printf("read %d\n", *p);
	else if (strcmp(argv[1], "write") == 0)
		*p = 1;
	printf("%s: survived\n", argv[1]);
	return 3;
}
