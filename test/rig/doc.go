// Package rig runs real programs under poemq-launch for the tests in test/apps
// and test/regress, and takes them all away again.
//
// What comes in: command lines. What goes out: their output, and a verdict on
// the wire. A Rig belongs to one test. It owns a directory, a state directory
// for the brokers, the ports it hands out and every process it starts; all of
// them end with the test.
//
// Each port got from [Rig.Port] is watched: when the test ends, UDP datagrams
// must have passed on it and not one TCP segment. The kernel counts them behind
// a packet filter, so that the watch costs a load nothing.
//
// Nothing here waits by sleeping for a guessed time: conditions are polled with
// a deadline.
//
// Environment:
//
//	POEMQ_BIN          where poemq-launch and poemqd are; else bin/ of the repository
//	POEMQ_TEST_NATIVE  1: run the programs on kernel TCP, to try the tests themselves;
//	                   the watch then expects TCP
//	POEMQ_TEST_STRICT  1: what is missing (a program, a binary, a privilege) fails the
//	                   test instead of skipping it; make sets it
//	POEMQ_TEST_SHARED  1: one broker serves all programs of a test, and must have
//	                   forgotten all of them in the end
//	POEMQ_LONG         1: the long form of tests that wait
package rig
