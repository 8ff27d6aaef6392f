// Command bench measures poemq beside its peers, all in one run, and holds the
// figures against the bars that poemq wants to keep.
//
//	go run ./bench [-only bulk,pingpong] [-rounds 5] [-quick] [-strict]
//
// What comes in: poemq's binaries (-bin) and the peers that are at hand. What
// goes out: a table on standard output, and in bench/results the same as text,
// every single value as JSON, and a plot as SVG.
//
// A *way* is how a program's bytes get to another program: the kernel's TCP,
// TLS over TCP by two relays, quic-go used by the programs themselves, poemq
// with one broker for both ends or with one for each, and so on (way.go). A
// *part* is a kind of load (bulk.go, pingpong.go, …). Each part sets all ways up
// at once and measures them in turns, round by round, so that whatever else the
// machine does falls on all. The table has the medians of the rounds, ratios are
// made in each round, and ± is half of the distance between the quartiles.
//
// The traffic is made by small programs in C (c/) that count every byte and
// check its place. CPU time is that of all processes a way needs, brokers and
// relays too; what the kernel does for none of them in interrupts is not in it.
//
// No absolute figure means much on another machine, or on one that is busy:
// ratios do, with their spread.
package main
