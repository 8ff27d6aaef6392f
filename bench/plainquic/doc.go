// Package plainquic is the peer that poemq is compared with: programs that use
// quic-go themselves, with the library's default settings and without anything
// of ours between.
//
// What comes in: the commands and arguments of bench/c/load.c. What goes out:
// the same lines. A connection of load's is a stream here; all streams of a
// client share one QUIC connection, but with "spread", where each has its own.
// A stream's bytes and its first message are those of load's connections.
package plainquic
