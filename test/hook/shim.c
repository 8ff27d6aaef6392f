/*
 * A stand-in for the loader, to try the hook library by itself: LD_PRELOAD it
 * and the C library's socket calls go to the hook named in LIBZPHOOK. Calls that
 * a program makes without the C library do not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef long (*hook_t)(long nr, long a1, long a2, long a3, long a4, long a5, long a6);

static long kernel(long nr, long a1, long a2, long a3, long a4, long a5, long a6)
{
	register long r10 __asm__("r10") = a4, r8 __asm__("r8") = a5, r9 __asm__("r9") = a6;
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a1), "S"(a2), "d"(a3), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return r;
}

static hook_t hook = kernel;

__attribute__((constructor)) static void load(void)
{
	const char *path = getenv("LIBZPHOOK");
	void *lib = path ? dlmopen(LM_ID_NEWLM, path, RTLD_NOW | RTLD_LOCAL) : NULL;
	int (*init)(long, void *) = lib ? (int (*)(long, void *))dlsym(lib, "__hook_init") : NULL;

	if (!init || init(0, &hook) != 0) {
		fprintf(stderr, "shim: LIBZPHOOK=%s: %s\n", path ? path : "", lib ? "no __hook_init" : dlerror());
		_exit(125);
	}
}

static long result(long r)
{
	if (r < 0 && r > -4096) {
		errno = -r;
		return -1;
	}
	return r;
}

#define CALL(nr, a, b, c, d, e) result(hook(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0))

int socket(int domain, int type, int protocol) { return CALL(SYS_socket, domain, type, protocol, 0, 0); }
int connect(int fd, __CONST_SOCKADDR_ARG a, socklen_t n) { return CALL(SYS_connect, fd, a.__sockaddr__, n, 0, 0); }
int bind(int fd, __CONST_SOCKADDR_ARG a, socklen_t n) { return CALL(SYS_bind, fd, a.__sockaddr__, n, 0, 0); }
int listen(int fd, int n) { return CALL(SYS_listen, fd, n, 0, 0, 0); }
int accept(int fd, __SOCKADDR_ARG a, socklen_t *n) { return CALL(SYS_accept, fd, a.__sockaddr__, n, 0, 0); }
int accept4(int fd, __SOCKADDR_ARG a, socklen_t *n, int flags) { return CALL(SYS_accept4, fd, a.__sockaddr__, n, flags, 0); }
int getsockname(int fd, __SOCKADDR_ARG a, socklen_t *n) { return CALL(SYS_getsockname, fd, a.__sockaddr__, n, 0, 0); }
int getpeername(int fd, __SOCKADDR_ARG a, socklen_t *n) { return CALL(SYS_getpeername, fd, a.__sockaddr__, n, 0, 0); }
int setsockopt(int fd, int l, int o, const void *v, socklen_t n) { return CALL(SYS_setsockopt, fd, l, o, v, n); }
int getsockopt(int fd, int l, int o, void *v, socklen_t *n) { return CALL(SYS_getsockopt, fd, l, o, v, n); }
int shutdown(int fd, int how) { return CALL(SYS_shutdown, fd, how, 0, 0, 0); }
int setns(int fd, int what) { return CALL(SYS_setns, fd, what, 0, 0, 0); }
int unshare(int what) { return CALL(SYS_unshare, what, 0, 0, 0, 0); }

int ioctl(int fd, unsigned long what, ...)
{
	va_list ap;

	va_start(ap, what);
	long arg = va_arg(ap, long);
	va_end(ap);
	return CALL(SYS_ioctl, fd, what, arg, 0, 0);
}

/* Whatever a program calls by number. */
long syscall(long nr, ...)
{
	va_list ap;
	long a[6];

	va_start(ap, nr);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	return result(hook(nr, a[0], a[1], a[2], a[3], a[4], a[5]));
}
