/*
 * libpoemq-zpoline: has the system calls of a whole process come to a hook.
 *
 * Theory of operation
 *
 * LD_PRELOAD brings us into a program. The constructor below loads the hook
 * library that LIBZPHOOK names into a namespace of its own and calls its
 * __hook_init, as upstream zpoline does. Then it asks the kernel for Syscall User
 * Dispatch: from now on each system call of the thread is a SIGSYS, but for those
 * made within loader_entry.S.
 *
 *	a `syscall` runs for the first time
 *	  -> SIGSYS -> zp_see: the two bytes become `call *%rax`, if that is safe
 *	            -> the thread goes on at zp_entry_dispatch
 *	it runs again
 *	  -> call *%rax -> page 0 at the address that is the call's number
 *	  -> slides to zp_entry_call -> the kernel, the loader itself, or the hook
 *	  -> back behind the instruction
 *
 * So no text is searched for what might be an instruction: only what the processor
 * has executed as a system call is ever changed, in libraries loaded later and in
 * code made at run time as well. What cannot be changed is dispatched each time.
 *
 *	loader.c          start; the settings
 *	loader_hooklib.c  the hook library
 *	loader_page.c     page 0
 *	loader_signal.c   SIGSYS, and what programs may do to it; loader_fault.c SIGSEGV
 *	loader_rewrite.c  whether an instruction is rewritten; loader_sites.c which
 *	                  are; loader_text.c reads and writes text; loader_live.c and
 *	                  loader_insn.c: whether the word below the stack is in use
 *	loader_entry.S    the way of a call; loader_calls.c: the slow one
 *	loader_task.c     clone, fork, vfork; loader_exec.c execve
 *	loader_stack.c    stacks for hooks of Go programs
 *
 * Rules that all but the constructor keep: no libc and no thread-local storage (a
 * thread may have none), no locks that anybody waits for, no vector registers,
 * small frames. The program's memory is read by the kernel where it may be bad.
 *
 * What it never does: hold a program to anything. A program can make calls past
 * it, or leave it; seccomp is the way in that enforces.
 */
#include "loader_internal.h"

#include <cpuid.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON 1
#endif

unsigned char zp_way[ZP_CALLS] = {
	[SYS_rt_sigreturn] = ZP_WAY_OWN,
	[SYS_rt_sigaction] = ZP_WAY_OWN,
	[SYS_rt_sigprocmask] = ZP_WAY_OWN,
	[SYS_rt_sigsuspend] = ZP_WAY_OWN,
	[SYS_ppoll] = ZP_WAY_OWN,
	[SYS_pselect6] = ZP_WAY_OWN,
	[SYS_epoll_pwait] = ZP_WAY_OWN,
	[441 /* epoll_pwait2 */] = ZP_WAY_OWN,
	[SYS_io_pgetevents] = ZP_WAY_OWN,
	[SYS_io_uring_enter] = ZP_WAY_OWN,
	[SYS_clone] = ZP_WAY_OWN,
	[SYS_clone3] = ZP_WAY_OWN,
	[SYS_fork] = ZP_WAY_OWN,
	[SYS_vfork] = ZP_WAY_OWN,
	[SYS_execve] = ZP_WAY_OWN,
	[SYS_execveat] = ZP_WAY_OWN,
	[SYS_prctl] = ZP_WAY_OWN,
};

uint32_t zp_xsave_size, zp_xsave_kind;
bool zp_small_stacks;

/* Settings, the words of POEMQ_ZPOLINE. */
static bool must, only_dispatch;

long zp_arm(void)
{
	return zp_sys(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, zp_text_start, zp_text_end - zp_text_start, 0);
}

static void settings(const char *text)
{
	while (text && *text) {
		size_t n = strcspn(text, ",");

		if (n == 4 && strncmp(text, "must", n) == 0)
			must = true;
		else if (n == 8 && strncmp(text, "dispatch", n) == 0)
			only_dispatch = true;
		else if (n == 7 && strncmp(text, "rewrite", n) == 0)
			zp_rewrite_always = true;
		else
			ZP_SAY("poemq-zpoline: POEMQ_ZPOLINE=", text, ": want must, dispatch or rewrite, with commas between them\n");
		text += n + (text[n] == ',');
	}
}

/* How the processor saves vector registers; the size of what XSTATE names in
 * loader_entry.S (Intel SDM 1, 13.2 and 13.4.3). */
static void vectors(void)
{
	enum { LEGACY = 512, HEADER = 64, OPMASK = 5, HI16_ZMM = 7 };
	unsigned a, b, c, d, size = LEGACY + HEADER;

	zp_xsave_size = size;
	zp_xsave_kind = 0;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) /* OSXSAVE */
		return;
	__asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	const unsigned enabled = a;

	for (unsigned i = 2; i <= HI16_ZMM; i++) {
		if (i != 2 && i < OPMASK)
			continue;
		if (enabled & 1u << i && __get_cpuid_count(13, i, &a, &b, &c, &d) && a + b > size)
			size = a + b; /* in the standard form, which is the larger */
	}
	zp_xsave_kind = __get_cpuid_count(13, 1, &a, &b, &c, &d) && a & 2 ? 2 : 1;
	zp_xsave_size = (size + 63) & ~63u;
}

/* Go's linker leaves a note. */
static int find_go(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size;
	(void)unused;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type != PT_NOTE)
			continue;
		for (size_t at = 0; at + sizeof(ElfW(Nhdr)) <= p->p_memsz;) {
			const ElfW(Nhdr) *n = (const void *)(info->dlpi_addr + p->p_vaddr + at);

			if (n->n_namesz == 4 && memcmp(n + 1, "Go\0\0", 4) == 0)
				zp_small_stacks = true;
			at += sizeof(*n) + ((n->n_namesz + 3) & ~3u) + ((n->n_descsz + 3) & ~3u);
		}
	}
	return 0;
}

static void fail(const char *what, const char *why)
{
	ZP_SAY("poemq-zpoline: ", what, ": ", why, must ? "\n" : "; the program's system calls are the kernel's\n");
	if (must)
		_exit(127);
}

/* Why page 0 is not to be had, once for a tree of processes. */
static void explain_page(long error)
{
	char room[24];

	if (getenv("POEMQ_ZPOLINE_TOLD"))
		return;
	setenv("POEMQ_ZPOLINE_TOLD", "1", 1);
	if (error == -EPERM || error == -EACCES)
		ZP_SAY("poemq-zpoline: page 0 cannot be mapped: vm.mmap_min_addr forbids it to processes without CAP_SYS_RAWIO. "
		       "Each system call is dispatched by a signal, which is slower. To have it fast: sysctl vm.mmap_min_addr=0, "
		       "or the capability, or poemq-launch --via seccomp\n");
	else if (error == -EEXIST)
		ZP_SAY("poemq-zpoline: page 0 is mapped by somebody else; each system call is dispatched by a signal, which is slower\n");
	else
		ZP_SAY("poemq-zpoline: page 0 cannot be mapped (error ", zp_number(room, -error),
		       "); each system call is dispatched by a signal, which is slower\n");
}

/* Whether and when instructions are rewritten; loader_rewrite.c says why. */
static void choose(void)
{
	long r;

	if (only_dispatch)
		return;
	r = zp_page_map();
	if (r < 0) {
		explain_page(r);
		return;
	}
	if (zp_page_unreadable() || zp_rewrite_always)
		zp_rewriting = zp_page_open() == 0 ? ZP_REWRITE_NOW : ZP_REWRITE_NEVER;
	else
		zp_rewriting = ZP_REWRITE_LATER;
}

__attribute__((constructor)) static void start(int argc, char **argv, char **env)
{
	const char *path = getenv("LIBZPHOOK"), *wrong;
	char room[24];
	long r;

	(void)argc;
	(void)argv;
	settings(getenv("POEMQ_ZPOLINE"));
	if (!path || !*path) {
		fail("LIBZPHOOK", "it does not name a hook library");
		return;
	}
	vectors();
	dl_iterate_phdr(find_go, NULL);
	if ((wrong = zp_load_hook(path))) {
		fail(path, wrong);
		return;
	}
	choose();
	zp_carry_init(env);
	r = zp_catch();
	if (r == 0)
		r = zp_arm();
	if (r == -EINVAL)
		fail("Syscall User Dispatch", "this kernel has none; it came with Linux 5.11, and not for all architectures");
	else if (r < 0)
		fail("Syscall User Dispatch, error", zp_number(room, -r));
	if (r < 0)
		return;
	if (zp_rewriting == ZP_REWRITE_NOW)
		zp_fault_catch();
	zp_arm_threads();
}
