// Package regress holds a test for each failure known from poemq's ancestor,
// a TCP-to-QUIC shim with one process-wide table of file descriptors: what it
// lost, doubled, leaked or hung on must be right here.
//
// The programs are in testdata (Python) and test/programs (C). What ssh -v
// prints about addresses is in test/apps with the rest of ssh. Without poemq
// (POEMQ_TEST_NATIVE=1) the same expectations hold for kernel TCP: each test
// asks for nothing that the kernel would not do.
package regress
