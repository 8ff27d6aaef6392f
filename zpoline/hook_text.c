/* Words for people, and what libc would do for us. */
#include "hook.h"

#include <errno.h>
#include <sys/syscall.h>

void pq_copy(void *to, const void *from, size_t n)
{
	char *t = to;
	const char *f = from;

	while (n--)
		*t++ = *f++;
}

static char *append(char *to, const char *end, const char *text)
{
	while (*text && to < end)
		*to++ = *text++;
	return to;
}

/* Writes "poemq: what: on: why; then" as one line and in one piece. */
void pq_say(const char *what, const char *on, const char *why, const char *then)
{
	char line[400], *p = line;
	const char *end = line + sizeof(line) - 1;

	p = append(p, end, "poemq: ");
	p = append(p, end, what);
	if (on) {
		p = append(p, end, ": ");
		p = append(p, end, on);
	}
	if (why) {
		p = append(p, end, ": ");
		p = append(p, end, why);
	}
	if (then) {
		p = append(p, end, "; ");
		p = append(p, end, then);
	}
	*p++ = '\n';
	pq_sys(SYS_write, 2, line, p - line);
}

static char refusal[300] = "it refused: ";

void pq_refusal(const char *why)
{
	char *to = refusal + sizeof("it refused: ") - 1;

	*append(to, refusal + sizeof(refusal) - 1, why) = 0;
}

const char *pq_error(long error)
{
	switch (error < 0 ? -error : error) {
	case ENOENT:
	case ENOTDIR:
	case ECONNREFUSED:
		return "no broker is running there";
	case EACCES:
	case EPERM:
		return "permission denied";
	case EAGAIN:
		return "it does not answer";
	case ECONNRESET:
	case EPIPE:
		return "it went away";
	case EMFILE:
	case ENFILE:
		return "too many open files";
	case ENOMEM:
		return "out of memory";
	case EPROTO:
		return refusal;
	case ENAMETOOLONG:
		return "the path is longer than 107 bytes";
	}
	return "it cannot be reached";
}
