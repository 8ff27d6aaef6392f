/* What a hook library may tell libpoemq-zpoline.so about itself. Optional: a
 * library without it, such as those of upstream zpoline, has every call. */
#ifndef POEMQ_ZPOLINE_LOADER_H
#define POEMQ_ZPOLINE_LOADER_H

/* Numbers below this one can be hooked; Linux 6.18 has less than 480. */
#define ZP_CALLS 512

/* Flags of struct zp_hook_wants. */
#define ZP_HOOK_NO_VECTORS 1 /* built with -mgeneral-regs-only: vector and x87 state need not be saved */

#ifndef __ASSEMBLER__

/*
 * Exported with default visibility under the name __hook_wants:
 *
 *	const struct zp_hook_wants __hook_wants = { sizeof(__hook_wants), ZP_HOOK_NO_VECTORS, { [SYS_socket] = 1 } };
 *
 * Calls that are not wanted go to the kernel at the cost of a few instructions.
 */
struct zp_hook_wants {
	unsigned size; /* of this structure */
	unsigned flags;
	unsigned char nr[ZP_CALLS]; /* 1: the hook is called for this number */
};

#endif

/*
 * Whatever a hook wants, these never come to it, for they do not come back, or
 * come back twice: rt_sigreturn, clone, clone3, fork, vfork, execve, execveat,
 * exit, exit_group. Nor do those the loader answers itself: rt_sigaction,
 * rt_sigprocmask, and calls that wait under another signal mask.
 */

#endif
