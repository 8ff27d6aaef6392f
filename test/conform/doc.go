// Package conform proves that a program cannot tell a poemq socket from a
// kernel TCP socket.
//
// # Theory of operation
//
// Each C file in scenarios/ is one family (socket.c, bind.c, ...); conform.h is
// all they share and tells how a scenario is written. A scenario makes its own
// server and client on the loopback of one address family (v4, v6, or v6
// sockets with v4-mapped addresses), does what real programs do, and prints a
// transcript: calls, results, errno, names, poll bits.
//
// TestConform compiles the families, runs every scenario twice, natively and
// under poemq-launch, and compares the transcripts line by line. A difference
// fails the test unless known-differences lists it with its reason. A scenario
// that does not end is killed and counts as different. The score by family is
// printed at the end.
//
// A scenario never prints what may differ between two native runs: the second
// run is native too when no poemq-launch is given, and all must be equal.
//
// # Switches, all environment variables
//
//	POEMQ_LAUNCH        the poemq-launch to test (default ../../bin/poemq-launch,
//	                    else both runs are native); poemqd is looked for beside it
//	POEMQ_LAUNCH_FLAGS  flags put before "--"
//	CONFORM_NATIVE=1    compare native with native in any case
//	CONFORM_EMBEDDED=1  a private broker per scenario instead of one for the run
//	CONFORM_VIA         the way in: seccomp (default) or zpoline, whose own
//	                    differences are in known-differences-zpoline
//	CONFORM_ONLY        only scenarios matching one of these globs, such as
//	                    bind/reuse*,ways/*
//	CONFORM_REPEAT      how many times to run everything (default 1)
//	CONFORM_PARALLEL    scenarios at a time (default 4)
//	CONFORM_HEAVY=1     the heavy scenarios at full size: 2 GB both ways
//	CONFORM_SHOW        all: print every transcript; listed: the known differences
package conform
