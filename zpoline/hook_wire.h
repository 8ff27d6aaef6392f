/*
 * What the hook library and the broker say to each other (docs/hook.md tells
 * how). Every message is one packet of an AF_UNIX SOCK_SEQPACKET socket, or for
 * the first hello of a process one write to the broker's front door. Numbers are
 * in the machine's own byte order: both ends are on one machine.
 */
#ifndef POEMQ_HOOK_WIRE_H
#define POEMQ_HOOK_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define PQ_MAGIC "pmqh"

enum {
	PQ_VERSION = 1,
	PQ_SESSION_ID = 16, /* bytes */
	PQ_MATCHES = 32,    /* most */
	PQ_NAME = 64,       /* most bytes of a program's name */
	PQ_MEMS = 2,        /* pieces of memory with a call */
	PQ_WRITES = 2,      /* pieces to be written by an answer */
	PQ_REPLACES = 16,   /* descriptors to be replaced by an answer */
	PQ_DATA = 4096 + 256 /* most bytes of memory with one message */
};

/* What to do about TCP where no rule of the broker says otherwise. */
enum { PQ_QUIC_DEFAULT, PQ_QUIC_REQUIRE, PQ_QUIC_PREFER, PQ_QUIC_OFF };

/* Descriptors with a hello, in this order. */
enum { PQ_HAS_END = 1, PQ_HAS_NETNS = 2, PQ_HAS_DOOR = 4 };

struct pq_hello {
	char magic[4];
	uint16_t version;
	uint16_t size; /* of the whole message: matches and name follow */
	uint8_t session[PQ_SESSION_ID];
	int32_t pid; /* as the program sees itself */
	uint8_t quic, nmatch, namelen, fds;
	/* int32_t match[nmatch][3]; char name[namelen]; */
};

/* Kinds of messages to the broker; a hello may come, too. */
enum { PQ_CALL = 1, PQ_CANCEL = 2, PQ_TAKEN = 3 };

struct pq_mem {
	uint64_t addr;
	uint32_t len;
	uint32_t unreadable; /* no bytes of it follow */
};

/* Descriptors with a call, in this order. */
enum { PQ_CALL_FILE = 1, PQ_CALL_NETNS = 2 };

struct pq_call {
	uint32_t kind;
	uint32_t id;  /* of the call; answers, PQ_CANCEL and PQ_TAKEN name it */
	int32_t nr;   /* of x86-64; PQ_TAKEN: the descriptor's number, or -errno */
	int32_t tid;  /* as the program sees itself */
	uint64_t args[6];
	uint32_t fds;
	uint32_t nmem;
	struct pq_mem mem[PQ_MEMS];
	/* the bytes of each mem, one after the other */
};

/* Kinds of answers. */
enum {
	PQ_WELCOME = 1,   /* to a hello: val is the broker's pid if it wants to trace, or 0 */
	PQ_REFUSED = 2,   /* to a hello: data says why */
	PQ_CONTINUE = 3,  /* the call is the kernel's */
	PQ_RETURN = 4,    /* val is the call's result, -errno for a failure */
	PQ_INSTALL = 5,   /* the last descriptor is the call's result; if val is not 0, answer PQ_TAKEN */
	PQ_CANCELLED = 6, /* to PQ_CANCEL, when there was no answer before */
};

struct pq_write {
	uint64_t addr;
	uint32_t len;
	uint32_t zero;
};

struct pq_answer {
	uint32_t kind;
	uint32_t id;
	int64_t val;
	uint32_t nwrite;
	uint32_t nreplace; /* descriptors that come first: each takes the place of replace[i] */
	struct pq_write write[PQ_WRITES];
	int32_t replace[PQ_REPLACES];
	/* the bytes of each write, one after the other */
};

_Static_assert(sizeof(struct pq_hello) == 32, "the broker reads it so");
_Static_assert(sizeof(struct pq_call) == 104, "the broker reads it so");
_Static_assert(sizeof(struct pq_answer) == 120, "the broker writes it so");

#endif
