// Package hook tests the hook library (zpoline/hook.c) in programs, with the
// loader and poemq-launch that belong to it: without a broker, with one that is
// killed, in children of every kind, in programs that close all they do not know;
// and by a loader like upstream zpoline's, and as a part of a program that
// sanitizers look into.
// That the sockets are right is shown elsewhere, by the same tests over both ways
// in (make conform-zpoline, test-e2e-zpoline).
package hook
