// Package e2e proves poemq with real, unmodified programs.
//
// What comes in: the three binaries (POEMQ_BIN, or built here by make) and the
// small programs of test/programs. What is shown: bytes by checksum, the wire
// by a packet capture on the port (UDP > 0, TCP == 0), the absence of leaks by
// counting the broker's descriptors, goroutines and memory.
//
// Where it runs: over loopback with private brokers, and between two hosts,
// which are two network namespaces joined by a veth pair. Captures and
// namespaces need root; without it those tests skip and say so.
//
// POEMQ_TEST_NATIVE=1 runs the same programs on plain TCP. It is there to try
// the tests themselves: captures then want TCP and no UDP, and what concerns
// only the broker is skipped.
//
// Rules: no fixed ports, no sleeping to wait for something (eventually polls a
// condition until a deadline), and every process belongs to the test that
// started it, which ends it by pid and waits for it.
package e2e
