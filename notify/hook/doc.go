// Package hook is the way in of calls that the hook library (zpoline/hook.c)
// catches inside of a program: the library's hello and calls, and the answers.
//
// # Theory of operation
//
// A process of the program introduces itself with a hello, by which the broker
// gets one end of a pair of AF_UNIX SOCK_SEQPACKET sockets. The hello comes over
// the front door's stream, beside handovers, from which it is told by its first
// bytes (IsHello), or over a connection that the process or its parent has. Every
// packet on a connection is one message: a call with a copy of the file that it
// is about and the memory it points to, an answer, a cancellation, a receipt for
// a descriptor. A connection has one call at a time; a process has as many
// connections as calls at once. docs/hook.md is the format, hook_wire.h the
// library's side of it.
//
// A Server is what a notify.Listener is for seccomp: it gives the calls of a
// session, and what is posted to it, their turns. It keeps account of the
// processes that have introduced themselves, and ends when none is left.
//
//	wire.go     messages; what came is not trusted
//	hello.go    a hello on the front door
//	server.go   turns, processes, the beginning and the end
//	receive.go  messages as they come
//	process.go  who is behind a connection
//	call.go     one call and its answer, as notify.Notification is
//
// Whose process it is, the kernel says (SO_PEERCRED of the pair): a message is
// never believed a pid that something is read from or done to. Files and memory
// come with the call. Where a call is about more, the process itself is looked
// at, which takes the right to trace it; without that the answer is an error.
package hook
