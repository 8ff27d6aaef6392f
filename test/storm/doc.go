// Package storm shows that the ioctl mechanics are right: socket() calls from
// several threads of a program under a 1 kHz signal lose nothing and leak
// nothing, neither in the program nor in the broker.
//
// It takes the binaries from POEMQ_BIN, or builds them with make.
package storm
