/* What the environment says. Runs once, when the library is loaded. */
#include "hook.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

struct pq_config pq_config;

static const char default_broker[] = "/run/poemq/broker.sock";

/* Protocols of TCP as programs ask for it; MPTCP is TCP to who asks for it. */
static const int tcp_protocols[] = { 0, 6, 262 };

static void match_default(void)
{
	int n = 0;

	for (int family = 0; family < 2; family++) {
		for (size_t p = 0; p < sizeof(tcp_protocols) / sizeof(*tcp_protocols); p++) {
			pq_config.match[n][0] = family ? AF_INET6 : AF_INET;
			pq_config.match[n][1] = SOCK_STREAM;
			pq_config.match[n++][2] = tcp_protocols[p];
		}
	}
	pq_config.hello.nmatch = n;
}

/* Reads "DOMAIN,TYPE,PROTO;DOMAIN,TYPE,PROTO", in numbers; 0 if it is not so. */
static int match_text(const char *text)
{
	int n = 0;

	for (;;) {
		for (int i = 0; i < 3; i++) {
			char *end;
			long v = strtol(text, &end, 0);

			if (n == PQ_MATCHES || end == text || v < 0 || v > 0x7fffffff || (i < 2 && *end != ','))
				return 0;
			pq_config.match[n][i] = v;
			text = i < 2 ? end + 1 : end;
		}
		pq_config.hello.nmatch = ++n;
		if (*text == 0 || (*text == ';' && text[1] == 0))
			return 1;
		if (*text++ != ';')
			return 0;
	}
}

static int hex(char c)
{
	const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* The id that groups the processes of one tree; one of its own if there is none. */
static void session(const char *text)
{
	uint8_t *id = pq_config.hello.session;

	if (text && strlen(text) == 2 * PQ_SESSION_ID) {
		int i;

		for (i = 0; i < PQ_SESSION_ID && hex(text[2 * i]) >= 0 && hex(text[2 * i + 1]) >= 0; i++)
			id[i] = hex(text[2 * i]) << 4 | hex(text[2 * i + 1]);
		if (i == PQ_SESSION_ID)
			return;
	}
	if (text)
		pq_say("POEMQ_SESSION", NULL, "it is not 32 hexadecimal digits", "this program is a session of its own");
	pq_sys(SYS_getrandom, id, PQ_SESSION_ID, 0);
}

static void quic(const char *text)
{
	static const char *const words[] = { "", "require", "prefer", "off" };

	for (size_t i = 0; text && i < sizeof(words) / sizeof(*words); i++) {
		if (strcmp(text, words[i]) == 0) {
			pq_config.hello.quic = i;
			return;
		}
	}
	if (text)
		pq_say("POEMQ_QUIC", text, "it is none of require, prefer and off", "the broker's configuration counts");
}

/* The program's own name, as /proc has it. */
static void name(void)
{
	long n = -1;
	int fd = pq_sys(SYS_open, "/proc/self/comm", O_RDONLY | O_CLOEXEC, 0);

	if (fd >= 0) {
		n = pq_sys(SYS_read, fd, pq_config.name, sizeof(pq_config.name));
		pq_sys(SYS_close, fd);
	}
	while (n > 0 && pq_config.name[n - 1] == '\n')
		n--;
	pq_config.hello.namelen = n > 0 ? n : 0;
}

void pq_configure(void)
{
	const char *broker = getenv("POEMQ_BROKER"), *match = getenv("POEMQ_MATCH");
	const char *missing = getenv("POEMQ_ON_BROKER_MISSING"), *called = getenv("POEMQ_NAME");

	if (!broker || !*broker)
		broker = default_broker;
	if (strlen(broker) >= sizeof(pq_config.broker))
		pq_say("POEMQ_BROKER", broker, pq_error(ENAMETOOLONG), "no broker is asked");
	else
		memcpy(pq_config.broker, broker, strlen(broker) + 1);
	pq_config.plain = missing && strcmp(missing, "plain") == 0;
	memcpy(pq_config.hello.magic, PQ_MAGIC, sizeof(pq_config.hello.magic));
	pq_config.hello.version = PQ_VERSION;
	if (!match || !*match) {
		match_default();
	} else if (!match_text(match)) {
		pq_say("POEMQ_MATCH", match, "want DOMAIN,TYPE,PROTO in numbers, with ; between them", "every TCP socket is matched");
		match_default();
	}
	quic(getenv("POEMQ_QUIC"));
	session(getenv("POEMQ_SESSION"));
	if (called && *called && strlen(called) <= PQ_NAME) {
		pq_config.hello.namelen = strlen(called);
		memcpy(pq_config.name, called, strlen(called));
	} else {
		name();
	}
	pq_config.hello.size = sizeof(struct pq_hello) + pq_config.hello.nmatch * sizeof(*pq_config.match) + pq_config.hello.namelen;
}
