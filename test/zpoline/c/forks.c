/* 500 children, of every kind that there is; each must be seen, and so must the
 * parent afterwards. At most 50 live at a time. */
#define _GNU_SOURCE
#include "check.h"

#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { CHILDREN = 500, AT_ONCE = 50, STACK = 64 << 10 };

static _Alignas(16) char stacks[AT_ONCE][STACK];
static char *self;

static int seen(void)
{
	return raw(SYS_getsid, 0, 0, 0, 0, 0, 0) == SESSION && getsid(0) == SESSION;
}

static int child(void *arg)
{
	return seen() && strcmp(arg, "arg") == 0 ? 7 : 1;
}

static int by_fork(void)
{
	int pid = fork();

	if (pid == 0)
		_exit(seen() ? 7 : 1);
	return pid;
}

static int by_raw_fork(void)
{
	long pid = raw(SYS_fork, 0, 0, 0, 0, 0, 0);

	if (pid == 0)
		_exit(seen() ? 7 : 1);
	return pid;
}

/* The child calls functions, and so writes where the parent's call was. */
static int by_vfork(void)
{
	volatile long canary = 0x1234567;
	int pid = vfork();

	if (pid == 0)
		_exit(seen() ? 7 : 1);
	CHECK(canary == 0x1234567);
	return pid;
}

static int by_vfork_exec(void)
{
	int pid = vfork();

	if (pid == 0) {
		execl(self, self, "child", NULL);
		_exit(1);
	}
	return pid;
}

static int by_spawn(void)
{
	char *argv[] = { self, "child", NULL }, *none[] = { NULL };
	posix_spawnattr_t attr;
	sigset_t all;
	pid_t pid;

	sigfillset(&all);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
	CHECK(posix_spawn(&pid, self, NULL, &attr, argv, none) == 0);
	posix_spawnattr_destroy(&attr);
	return pid;
}

static int slot;

static int by_clone(void)
{
	return clone(child, stacks[slot] + STACK, SIGCHLD, "arg");
}

static int by_clone_vm(void)
{
	return clone(child, stacks[slot] + STACK, CLONE_VM | SIGCHLD, "arg");
}

static int by_clone3(void)
{
	struct clone_args a = { .exit_signal = SIGCHLD, .flags = CLONE_CLEAR_SIGHAND };
	long pid = raw(SYS_clone3, (long)&a, sizeof(a), 0, 0, 0, 0);

	if (pid == 0)
		_exit(seen() ? 7 : 1);
	return pid;
}

/* With a stack: in assembly, for C cannot come back on another. */
static int by_clone3_stack(void)
{
	struct clone_args a = { .exit_signal = SIGCHLD, .flags = CLONE_VM, .stack = (long)stacks[slot], .stack_size = STACK };
	register long fn __asm__("r12") = (long)child;
	register long arg __asm__("r13") = (long)"arg";
	const struct clone_args before = a;
	long pid, same = (long)&a;

	__asm__ volatile("mov %%rdi, %%r14\n\t"
			 "syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "cmp %%rdi, %%r14\n\t" /* still as it was */
			 "jne 2f\n\t"
			 "mov %%r13, %%rdi\n\t"
			 "call *%%r12\n\t"
			 "mov %%eax, %%edi\n\t"
			 "2: mov $60, %%eax\n\t"
			 "syscall\n"
			 "1:"
			 : "=a"(pid), "+D"(same)
			 : "a"(SYS_clone3), "S"(sizeof(a)), "r"(fn), "r"(arg), "m"(a)
			 : "rcx", "r11", "r14", "memory");
	CHECK(same == (long)&a && memcmp(&a, &before, sizeof(a)) == 0);
	return pid;
}

static int (*const ways[])(void) = {
	by_fork, by_raw_fork, by_vfork, by_vfork_exec, by_spawn, by_clone, by_clone_vm, by_clone3, by_clone3_stack,
};

int main(int argc, char **argv)
{
	int live = 0, status;

	self = argv[0];
	if (argc > 1)
		return seen() ? 7 : 1;
	for (int i = 0; i < CHILDREN; i++) {
		slot = i % AT_ONCE;
		if (slot == 0)
			for (; live; live--)
				CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 7);
		CHECK(ways[i % (sizeof(ways) / sizeof(*ways))]() > 0);
		live++;
		CHECK(seen());
	}
	for (; live; live--)
		CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 7);
	return 0;
}
