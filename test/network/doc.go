// Package network proves the transport between two hosts: network namespaces
// with a path between them (test/link) that is slow, narrow, lossy, cut or
// guarded by a middlebox, a poemqd on each, and programs under poemq-launch.
//
// The path itself is the witness: every packet passes a [wire], which counts
// what was UDP, TCP and a TCP SYN, and looks for the program's bytes in clear.
// Times are measured beside the kernel's TCP on the same path in the same run,
// and printed.
//
// `make test-network`, a part of `make test`, runs it. It needs root. POEMQ_LONG=1 takes the long form
// of tests that wait.
package network
