/*
 * What the parts of load share: how a connection asks the server for work, and
 * the bytes that both sides know.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum op { SINK = 1, SOURCE, ECHO, TOTAL };

/* The first bytes on a connection. ECHO sends them back. */
struct ask {
	char magic[8];
	uint32_t op;
	uint32_t size;	 /* of a write or a message; for TOTAL the number of streams */
	uint64_t run;	 /* which run the stream's bytes are counted for */
	uint64_t ns;	 /* how long SOURCE writes */
	uint64_t offset; /* where in the pattern the stream begins */
	uint32_t full;	 /* compare every byte, not a sample of each read */
	uint32_t pad[5];
};
_Static_assert(sizeof(struct ask) == 64, "the first message is 64 bytes");

/* The answer to TOTAL. */
struct total {
	uint64_t bytes;
	uint64_t bad; /* streams that did not carry the pattern */
};

#define MAGIC "poemqld\n"
#define MOST (1 << 18) /* the largest write or read */
#define PERIOD 131071  /* of the pattern: a prime, so that a lost or doubled block shows */
#define SAMPLE 64      /* bytes of each read that are compared */

extern unsigned char pattern[PERIOD + MOST];

void make_pattern(void);
void die(const char *what);
uint64_t now(void);	 /* CLOCK_MONOTONIC in ns */
uint64_t cpu_used(void); /* by this process so far, in ns */
void write_all(int fd, const void *data, size_t n);
int read_all(int fd, void *data, size_t n); /* 1; 0 at the end of file before the first byte */

/* Sends the pattern in writes of size until the time is over; gives the bytes. */
uint64_t pour(int fd, uint64_t offset, uint32_t size, uint64_t until);
/* Reads to the end of file; *bad tells whether it was the pattern. */
uint64_t drain(int fd, void *buffer, uint64_t offset, int full, int *bad);

/* Servers print "port N" once they listen on all addresses, and never end. */
void serve(void);     /* a thread for each connection */
void serve_one(void); /* one connection after the other, ECHO only */
void serve_hold(void);

int dial(uint32_t address, int port);
uint32_t address_of(const char *text); /* host byte order */
void bulk(int argc, char **argv);
void ping(int argc, char **argv);
void connects(int argc, char **argv);
void hold(int argc, char **argv);
