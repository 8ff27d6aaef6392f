/* Inside of the loader; loader.c tells how it works. */
#ifndef POEMQ_ZPOLINE_LOADER_INTERNAL_H
#define POEMQ_ZPOLINE_LOADER_INTERNAL_H

#if !defined(__x86_64__) || defined(__ILP32__)
#error "libpoemq-zpoline.so is for x86-64 only: it rewrites the machine code of system calls. Elsewhere use poemq-launch --via seccomp."
#endif

/* Offsets and numbers that loader_entry.S shares. */
#define ZP_SITE_BITS 14
#define ZP_HASH	     0x9E3779B1
#define ZP_RED_ZONE  128 /* psABI 3.2.2 */
#define ZP_THUNKS    64
#define ZP_CHILD     32 /* bytes that zp_clone puts on a child's stack */

/* What loader_entry.S does after zp_handle. */
#define ZP_NATIVE    0 /* makes the call */
#define ZP_RESULT    1 /* nothing: frame.nr is the result */
#define ZP_SIGRETURN 2 /* makes the call with the program's stack pointer */
#define ZP_CLONE     3 /* clone(2) with a new stack; restores rsi from frame.x */
#define ZP_CLONE3    4 /* clone3(2) with a new stack; restores rdi from frame.x */
#define ZP_FORK	     5 /* a child with a copy of this stack; frame.x has the flags */
#define ZP_VFORK     6 /* a child on this very stack; frame.x is a thunk */
#define ZP_FAULT     7 /* somebody called a null pointer */

/* How a number is answered: zp_way[nr]. */
#define ZP_WAY_KERNEL 0
#define ZP_WAY_OWN    1 /* by the loader: zp_own */
#define ZP_WAY_HOOK   2

#include "loader.h"

#ifndef __ASSEMBLER__

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef long (*zp_hook_fn)(long nr, long a1, long a2, long a3, long a4, long a5, long a6);

/* A call on its way through loader_entry.S, which lies below the red zone of the
 * program's stack. The order is that of the pushes. */
struct zp_frame {
	long rbp, nr, a[6], ret, x;
};
_Static_assert(sizeof(struct zp_frame) == 80, "loader_entry.S pushes ten words");

/* Registers at a system call, by their numbers in machine code. */
struct zp_regs {
	uint64_t r[16];
};

#define ZP_RSP 4
#define ZP_RBP 5

/* loader_entry.S */
long zp_sys6(long nr, long a1, long a2, long a3, long a4, long a5, long a6);
long zp_call_hook(const struct zp_frame *f, void *stack);
long zp_on_stack(long (*fn)(struct zp_frame *), struct zp_frame *f, void *stack);
void zp_entry_call(void);
void zp_entry_dispatch(void);
void zp_int80(void);
void zp_restore(void);
extern char zp_thunk_code[];
extern char zp_text_start[], zp_text_end[];

#define zp_sys(...) zp_sys_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define zp_sys_(nr, a, b, c, d, e, f, ...) zp_sys6(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* loader.c */
extern zp_hook_fn zp_hook;
extern unsigned char zp_way[ZP_CALLS];
extern uint32_t zp_xsave_size; /* 0: the hook leaves vectors alone */
extern uint32_t zp_xsave_kind; /* 0: fxsave, 1: xsave, 2: xsavec */
extern bool zp_small_stacks;   /* a Go program: its stacks have no room for a hook */
long zp_arm(void);	       /* this thread's calls are dispatched from now on */

/* loader_calls.c: what is done for a call that is not simply the kernel's. */
int zp_handle(struct zp_frame *f);
int zp_own(struct zp_frame *f);

/* loader_hooklib.c: the hook library in its own namespace. */
const char *zp_load_hook(const char *path); /* 0, or what went wrong */
bool zp_of_hook(uint64_t ret);		    /* whether the hook library makes this call */

/* The kernel's struct sigaction. */
struct zp_action {
	void (*handler)(int, siginfo_t *, void *);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};
#define ZP_MASK_SIZE   8
#define ZP_SA_RESTORER 0x04000000UL

/* loader_fault.c */
void zp_fault_catch(void);
long zp_fault_action(const struct zp_action *act, struct zp_action *old);

/* loader_signal.c */
#define ZP_SIGSYS_BIT (1UL << 30) /* SIGSYS is 31 */
long zp_catch(void);		  /* makes SIGSYS ours; 0 or -errno */
void zp_signal_forked(void);
int zp_sigaction(struct zp_frame *f);
int zp_sigmask(struct zp_frame *f);
void zp_arm_threads(void); /* those that were there before us */

/* loader_task.c */
int zp_clone(struct zp_frame *f);
void zp_child(unsigned long flags);
extern int zp_threads; /* more than one thread may run in this memory */

/* loader_exec.c */
void zp_carry_init(char **env);
int zp_exec(struct zp_frame *f);

/* loader_stack.c: stacks for hooks of programs whose own are small. */
struct zp_stack;
struct zp_stack *zp_stack_take(void); /* 0: no memory */
void *zp_stack_top(struct zp_stack *s);
void zp_stack_give(struct zp_stack *s);

/* loader_sites.c: the instructions that were rewritten. ret is the address after
 * one. */
extern uint64_t zp_sites[1 << ZP_SITE_BITS];
bool zp_site_known(uint64_t ret);
bool zp_site_add(uint64_t ret); /* false: no room */
bool zp_site_kept(uint64_t ret);
void zp_site_keep(uint64_t ret);

/* loader_rewrite.c */
enum { ZP_REWRITE_NEVER, ZP_REWRITE_LATER, ZP_REWRITE_NOW };
extern int zp_rewriting;
extern bool zp_rewrite_always;			       /* whether or not the program handles SIGSEGV */
void zp_see(uint64_t ret, const struct zp_regs *regs); /* a call was dispatched */
void zp_wants_faults(void);			       /* the program handles SIGSEGV */
void zp_rewrite_forked(void);

/* loader_text.c: the program's text, read and written past its protection. */
struct zp_range {
	uint64_t start, end;
	int prot;
	bool shared, anonymous;
};
int zp_text_open(void); /* a descriptor, or negative for the way without one */
void zp_text_close(int fd);
size_t zp_text_read(int fd, uint64_t addr, void *to, size_t n);
bool zp_text_range(uint64_t addr, struct zp_range *r);
bool zp_text_write(int fd, uint64_t addr, const uint8_t bytes[2], const struct zp_range *r, bool alone);

/* loader_live.c: whether the word below the stack pointer is in use. */
typedef size_t (*zp_reader)(void *of, uint64_t addr, void *to, size_t n);
bool zp_live_below(uint64_t ret, const struct zp_regs *regs, zp_reader read, void *of);

/* loader_insn.c: one instruction. */
enum zp_flow { ZP_NEXT, ZP_JUMP, ZP_BRANCH, ZP_CALL, ZP_RET, ZP_STOP, ZP_UNKNOWN };
struct zp_insn {
	unsigned len, map, op; /* map: 1 one byte, 2 0f, 3 0f38, 4 0f3a */
	enum zp_flow flow;
	int64_t rel;			/* of a jump, from the next instruction */
	bool modrm, memory, vector;	/* vector: VEX or EVEX */
	bool scaled;			/* disp is in units that are not known */
	uint8_t reg, rm, mod, opreg;	/* with REX; opreg is the opcode's last bits */
	int base, index;		/* registers of a memory operand, -1 for none, -2 for rip */
	int32_t disp;
	int64_t imm;
	unsigned width;			/* the most that the memory operand may cover, in bytes */
};
bool zp_decode(const uint8_t *code, size_t n, struct zp_insn *out);

/* loader_page.c: the page at address 0. */
long zp_page_map(void);	 /* 0 or -errno; while there is the right to (a program may give it up) */
long zp_page_open(void); /* it can be executed from now on; 0 or -errno */
void zp_page_unmap(void);
bool zp_page_unreadable(void); /* reading it faults, for there are protection keys */

/* loader_say.c: one line on stderr. */
void zp_say(const char *const *words); /* ends with 0 */
#define ZP_SAY(...) zp_say((const char *const[]){ __VA_ARGS__, NULL })
const char *zp_number(char room[24], long n);

#endif
#endif
