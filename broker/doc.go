// Package broker is what a socket call means: it turns the calls of programs
// into connections and listening ports, and carries the bytes.
//
// # Theory of operation
//
// In come sessions (a launched process tree or a container, with its listener
// fd), and from each of them requests: one trapped call that waits for its
// answer. A request is an interface, so that another way in than seccomp meets
// the same handlers. Out go answers, and through package quic (or the kernel's
// TCP, where a policy allows it) connections to other hosts.
//
// State lives on the Socket, found by the cookie of the open file, whatever
// process and descriptor it is reached by. A call on anything else is let
// through to the kernel. Every transition of a Socket is listed in state.go.
//
// A handler has its session's turn and never waits: for what takes time
// it leaves a waiter (wait.go), answered later in a turn of its own. Since a
// signal may take the program out of any call, and the call may come again,
// every operation can be joined or repeated.
//
//	session.go   a session's life; which handler a call has
//	door.go      how sessions come in, hooked.go those of the hook library;
//	             request.go one call
//	socket.go    the Socket and its end; find.go its descriptor in the program,
//	             young.go how its closing is seen before it is connected
//	connect.go   connect: docking, waiting; way.go where to, transport.go by what
//	             (tcp.go the kernel's TCP), patience.go for how long
//	rules.go     what the policy says; memory.go who answered TCP and not QUIC
//	renew.go     a socket that is unconnected again; refused.go one that never was
//	bind.go      bind, getsockname, getpeername; hold.go and ports.go the ports
//	listen.go    listen, what arrives at a port; point.go the UDP port under it,
//	             heldby.go who else has that, yield.go a program that wants it
//	defer.go     TCP_DEFER_ACCEPT
//	accept.go    accept
//	options.go   setsockopt; options_get.go getsockopt, options_info.go TCP_INFO,
//	             options_privileged.go what takes a capability
//	shutdown.go  shutdown
//	ioctl.go     the rare ioctls
//	relay.go     bytes between the program's socket and the connection
//	up.go        the way from the program, without a goroutine where that is enough
//	ends/        waiting for the programs' ends
//	tripwire.go  what is left unread so that a lost broker is an error
//	ended.go     a socket between its connection's end and its closing
//	keep.go      what outlives the broker: kept descriptors, journal.go the state
//	             of sockets (record.go); adopt.go what the next broker does with it;
//	             keeper.go the keeper that poemq-launch leaves
//	front.go     [[expose]], for servers outside poemq; forward.go [[forward]];
//	             pump.go the bytes of both
//
// What it never does: let a program do what the kernel would refuse it
// (privileged ports, other network namespaces), look at the bytes, or serve as
// a sandbox: a program that wants around the filter finds a way.
package broker
