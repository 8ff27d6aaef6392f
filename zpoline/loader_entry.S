/*
 * The way of a call from the rewritten instruction to the kernel and back.
 *
 * From zp_text_start to zp_text_end is the range whose system calls the kernel
 * does not dispatch; the loader's C makes its own by zp_sys6.
 *
 * Only rax, rcx and r11 may change over a system call. The stack below the red
 * zone is ours, the word below the stack pointer is if the call came by `call
 * *%rax`: loader_live.c has seen that nobody needs it.
 */
#include "loader_internal.h"

	.section .note.GNU-stack,"",@progbits
	.text
	.globl	zp_text_start, zp_text_end
	.hidden	zp_text_start, zp_text_end
zp_text_start:

#define HIDDEN(name) .globl name; .hidden name; .type name, @function; name

/* Through page 0: rax is the number, the return address is on the stack. */
	.p2align 6
HIDDEN(zp_entry_call):
	.cfi_startproc
	cmp	$ZP_CALLS, %rax
	jae	.Lunproved
	mov	(%rsp), %rcx
	imul	$ZP_HASH, %ecx, %ecx
	shr	$(32 - ZP_SITE_BITS), %ecx
	lea	zp_sites(%rip), %r11
	mov	(%r11,%rcx,8), %r11
	cmp	%r11, (%rsp)
	jne	.Lunproved
	lea	zp_way(%rip), %r11
	cmpb	$0, (%r11,%rax)
	jne	.Lproved
	syscall
	ret
.Lproved:
	pop	%rcx
	.cfi_adjust_cfa_offset -8
	.cfi_register rip, rcx
	xor	%r11d, %r11d
	jmp	.Lslow
	.cfi_endproc

	.cfi_startproc
.Lunproved:
	pop	%rcx
	.cfi_adjust_cfa_offset -8
	.cfi_register rip, rcx
	mov	$1, %r11d
	jmp	.Lslow
	.cfi_endproc

/* From the SIGSYS handler: rcx is the return address, and the stack the
 * program's. */
HIDDEN(zp_entry_dispatch):
	.cfi_startproc
	.cfi_def_cfa_offset 0
	.cfi_register rip, rcx
	cmp	$ZP_CALLS, %rax
	jae	1f
	lea	zp_way(%rip), %r11
	cmpb	$0, (%r11,%rax)
	mov	$0, %r11d
	jne	.Lslow
1:	lea	-ZP_RED_ZONE(%rsp), %rsp
	.cfi_adjust_cfa_offset ZP_RED_ZONE
	push	%rcx
	.cfi_adjust_cfa_offset 8
	.cfi_offset rip, -(ZP_RED_ZONE + 8)
	syscall
	ret	$ZP_RED_ZONE
	.cfi_endproc

/* rcx is the return address, r11 what zp_handle gets as frame.x: 1 if the return
 * address is still to be looked at. */
	.cfi_startproc
	.cfi_def_cfa_offset 0
	.cfi_register rip, rcx
.Lslow:
	lea	-ZP_RED_ZONE(%rsp), %rsp
	.cfi_adjust_cfa_offset ZP_RED_ZONE
	push	%r11
	.cfi_adjust_cfa_offset 8
	push	%rcx
	.cfi_adjust_cfa_offset 8
	.cfi_offset rip, -(ZP_RED_ZONE + 16)
	push	%r9
	push	%r8
	push	%r10
	push	%rdx
	push	%rsi
	push	%rdi
	push	%rax
	push	%rbp
	.cfi_adjust_cfa_offset 64
	.cfi_offset rbp, -(ZP_RED_ZONE + 80)
	mov	%rsp, %rbp
	.cfi_def_cfa_register rbp
	and	$-16, %rsp
	mov	%rbp, %rdi
	cld
	call	zp_handle
	mov	%rbp, %rsp
	mov	%eax, %r11d
	pop	%rbp
	.cfi_def_cfa rsp, ZP_RED_ZONE + 72
	.cfi_restore rbp
	pop	%rax
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%r10
	pop	%r8
	pop	%r9
	.cfi_def_cfa_offset ZP_RED_ZONE + 16
	/* Here the stack has the return address and frame.x. */
	cmp	$ZP_RESULT, %r11d
	je	.Lback
	ja	.Lspecial
	syscall
.Lback:
	ret	$(ZP_RED_ZONE + 8)

.Lspecial:
	cmp	$ZP_CLONE, %r11d
	je	.Lclone
	cmp	$ZP_CLONE3, %r11d
	je	.Lclone3
	cmp	$ZP_FORK, %r11d
	je	.Lfork
	cmp	$ZP_VFORK, %r11d
	je	.Lvfork
	cmp	$ZP_FAULT, %r11d
	je	.Lfault
	lea	(ZP_RED_ZONE + 16)(%rsp), %rsp
	syscall		/* rt_sigreturn */
	hlt

.Lclone:
	syscall
	test	%rax, %rax
	jz	.Lchild_new
	mov	8(%rsp), %rsi
	ret	$(ZP_RED_ZONE + 8)

.Lclone3:
	syscall
	test	%rax, %rax
	jz	.Lchild_new
	mov	8(%rsp), %rdi
	ret	$(ZP_RED_ZONE + 8)

.Lfork:
	syscall
	test	%rax, %rax
	jnz	.Lback
	mov	8(%rsp), %r11
	call	.Lchild
	ret	$(ZP_RED_ZONE + 8)

/* The child uses the stack where our frame is: so there is none of it. Where to
 * return to is told by which thunk it is. */
.Lvfork:
	mov	8(%rsp), %r11
	lea	(ZP_RED_ZONE + 16)(%rsp), %rsp
	jmp	*%r11

/* As if page 0 were not there: the caller's return address on the stack, and a
 * jump to where there is nothing. */
.Lfault:
	mov	(%rsp), %rcx
	lea	(ZP_RED_ZONE + 16)(%rsp), %rsp
	push	%rcx
	mov	$0x1000, %r11d
	jmp	*%r11
	.cfi_endproc

/* On a stack of its own, with what zp_clone put there. */
	.cfi_startproc
	.cfi_undefined rip
.Lchild_new:
	pop	%r11	/* flags */
	pop	%rsi
	pop	%rdi
	call	.Lchild
	ret

/* A new task: r11 has its flags. Returns 0, and keeps all other registers. */
.Lchild:
	push	%rcx
	push	%r9
	push	%r8
	push	%r10
	push	%rdx
	push	%rsi
	push	%rdi
	push	%rbp
	mov	%rsp, %rbp
	and	$-16, %rsp
	mov	%r11, %rdi
	call	zp_child
	mov	%rbp, %rsp
	pop	%rbp
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%r10
	pop	%r8
	pop	%r9
	pop	%rcx
	xor	%eax, %eax
	ret
	.cfi_endproc

/* ZP_THUNKS times: makes the call on the program's stack, and then knows by its
 * own address where that was. 16 bytes each. */
	.p2align 4
	.globl	zp_thunk_code
	.hidden	zp_thunk_code
	.cfi_startproc
	.cfi_undefined rip
zp_thunk_code:
	.set	i, 0
	.rept	ZP_THUNKS
	.p2align 4
	syscall
	mov	$i, %r11d
	jmp	.Lvforked
	.set	i, i + 1
	.endr

.Lvforked:
	shl	$4, %r11
	lea	zp_thunk_of(%rip), %rcx
	add	%rcx, %r11
	mov	(%r11), %rcx	/* where to return to */
	test	%rax, %rax
	jz	1f
	jmp	*%rcx
1:	mov	8(%r11), %r11	/* flags */
	lea	-ZP_RED_ZONE(%rsp), %rsp
	call	.Lchild
	lea	ZP_RED_ZONE(%rsp), %rsp
	jmp	*%rcx
	.cfi_endproc

/* The SIGSYS handler has put the return address below the red zone. */
HIDDEN(zp_int80):
	.cfi_startproc
	.cfi_def_cfa_offset ZP_RED_ZONE + 8
	.cfi_offset rip, -(ZP_RED_ZONE + 8)
	int	$0x80
	ret	$ZP_RED_ZONE
	.cfi_endproc

/* The way out of our SIGSYS handler. Unwinders know it by these very bytes. */
	nop
HIDDEN(zp_restore):
	movq	$15, %rax	/* rt_sigreturn */
	syscall
	hlt

/* long zp_sys6(nr, a1 .. a6): the kernel's answer. It is the first hook, too. */
HIDDEN(zp_sys6):
	.cfi_startproc
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	mov	%r8, %r10
	mov	%r9, %r8
	mov	8(%rsp), %r9
	syscall
	ret
	.cfi_endproc

/* long zp_on_stack(fn, frame, stack): fn(frame) there. */
HIDDEN(zp_on_stack):
	.cfi_startproc
	push	%rbp
	.cfi_adjust_cfa_offset 8
	.cfi_offset rbp, -16
	mov	%rsp, %rbp
	.cfi_def_cfa_register rbp
	mov	%rdx, %rsp
	and	$-16, %rsp
	mov	%rdi, %rax
	mov	%rsi, %rdi
	call	*%rax
	mov	%rbp, %rsp
	pop	%rbp
	.cfi_def_cfa rsp, 8
	ret
	.cfi_endproc

/*
 * long zp_call_hook(frame, stack): the hook, on stack if that is not 0, with
 * vector and x87 registers as they were afterwards.
 */
#define XSTATE 0xe7 /* x87, SSE, AVX, AVX-512; a hook touches nothing else */

HIDDEN(zp_call_hook):
	.cfi_startproc
	push	%rbp
	.cfi_adjust_cfa_offset 8
	.cfi_offset rbp, -16
	mov	%rsp, %rbp
	.cfi_def_cfa_register rbp
	push	%rbx
	push	%r12
	.cfi_offset rbx, -24
	.cfi_offset r12, -32
	mov	%rdi, %rbx
	test	%rsi, %rsi
	cmovnz	%rsi, %rsp
	mov	zp_xsave_size(%rip), %eax
	test	%eax, %eax
	jz	.Lcall
	and	$-64, %rsp
	sub	%rax, %rsp
	call	.Lsave_vectors
.Lcall:
	and	$-16, %rsp
	mov	%rsp, %r12
	push	%rax
	mov	64 - 8(%rbx), %rax	/* a6 */
	push	%rax
	mov	8(%rbx), %rdi
	mov	16(%rbx), %rsi
	mov	24(%rbx), %rdx
	mov	32(%rbx), %rcx
	mov	40(%rbx), %r8
	mov	48(%rbx), %r9
	call	*zp_hook(%rip)
	mov	%r12, %rsp
	mov	%rax, %rbx
	cmpl	$0, zp_xsave_size(%rip)
	je	1f
	call	.Lrestore_vectors
1:	mov	%rbx, %rax
	lea	-16(%rbp), %rsp
	pop	%r12
	pop	%rbx
	pop	%rbp
	.cfi_def_cfa rsp, 8
	ret

/* The area begins above the return address. The part of its header that XSAVEC
 * does not write must be 0 (Intel SDM 1, 13.4.2). */
.Lsave_vectors:
	cmpl	$1, zp_xsave_kind(%rip)
	jb	2f
	mov	$0, %edx /* keeps the flags */
	mov	%rdx, 8+512(%rsp)
	mov	%rdx, 8+520(%rsp)
	mov	%rdx, 8+528(%rsp)
	mov	%rdx, 8+536(%rsp)
	mov	%rdx, 8+544(%rsp)
	mov	%rdx, 8+552(%rsp)
	mov	%rdx, 8+560(%rsp)
	mov	%rdx, 8+568(%rsp)
	mov	$XSTATE, %eax
	je	1f
	xsavec64 8(%rsp)
	ret
1:	xsave64	8(%rsp)
	ret
2:	fxsave64 8(%rsp)
	ret

.Lrestore_vectors:
	cmpl	$1, zp_xsave_kind(%rip)
	jb	2f
	xor	%edx, %edx
	mov	$XSTATE, %eax
	xrstor64 8(%rsp)
	ret
2:	fxrstor64 8(%rsp)
	ret
	.cfi_endproc
zp_text_end:
