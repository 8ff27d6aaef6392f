// Package quic brings a program's bytes to the other host: one bidirectional
// QUIC stream for each TCP connection, on connections that streams to the same
// peer share. It is the only package that knows quic-go, and knows nothing of
// how programs are caught.
//
// # Theory of operation
//
// What comes in: Host.Dial with a Peer and the port of the program's socket;
// Host.Listen with an address and a function for what arrives. What goes out:
// a Stream, with the semantics of a TCP connection, or an error that holds the
// errno the program is to get. docs/wire.md tells what is on the wire.
//
//	Dial → pool (dial.go) → socket (socket.go) → handshake, pin (host.go,
//	       pins.go) → stream, header (header.go) → status → Stream (stream.go)
//	Listen → port (endpoint.go) → limits (limits.go) → connection → stream →
//	       header → Incoming (incoming.go) → Accept or Refuse → Stream
//
// Packets are read in trains (train.go: UDP_GRO and recvmmsg), and sent in trains
// as quic-go makes them (UDP_SEGMENT).
//
// A client has one connected UDP socket for each connection, so the kernel
// gives it the ICMP errors of that peer and no others. A server has one UDP
// socket for each listening port. Sockets are made inside the program's
// network namespace (package netns) and stay there.
//
// # Order
//
// A client may open a stream while the one before has no answer (Host.Dial). So that
// a server's program accepts in the order in which the client's has connected, that
// stream takes the same connection (pool.go), and the server places a connection's
// streams one after the other (endpoint.go, ListenOptions.Place). A header that is
// late, as its packet was lost, holds up the others for 20 ms at most.
//
// # Dead peers
//
// A closed UDP port is known in one round trip: during the handshake any ICMP
// error ends the dial with its errno. Afterwards anybody could forge one, so
// it is a hint: when ECONNREFUSED repeats for a second while not one packet
// comes from the peer, the connection is lost (conn.go). Both sides read ICMP
// errors from the socket's error queue (errqueue.go). Other errors of the
// network and of sending are no reason to give up: a path may come back within
// MaxIdle, and nothing is lost then.
//
// While streams are open, silence is probed every KeepAlive, and every twelfth of
// it while something sent is unanswered, with a message long enough to be
// answered by a stateless reset, which a restarted peer with the same identity
// sends. So a restarted process is known in about a second to who sends, and
// like one that vanished in about KeepAlive plus one second to who does not; a
// vanished host or a cut cable after MaxIdle.
//
// # Moving
//
// Client connections follow changes of addresses and routes, which rtnetlink
// tells of (netwatch.go), and are revived after outages without waiting for
// QUIC's timers (migrate.go): another UDP socket is put under quic-go
// (rebind.go). At most two such sockets are open for a connection.
//
// # Endings
//
// FIN is io.EOF, RST is ErrReset, a lost connection is ErrLost and never
// io.EOF. Connections end in two ways: after an exchange of GOAWAY and DONE
// (control.go), when nothing is under way any more; or at once, when a side
// died or closed its Host without Drain. Endpoint.Close takes the first way,
// and until it is through the UDP socket lives and refuses what is new. A new
// Listen for the same address takes that socket over.
//
// # Identity
//
// Without a PKI servers show an ECDSA key of their own; clients pin it on first
// use by address and port (pins.go) and show none. A pin is checked while the
// peer shows its certificate and made when the handshake has proved that it has
// the key.
//
// With a PKI (pki.go) both sides show certificates of a CA. Everything about
// them is decided in TLS's VerifyConnection (pki_host.go, pki_verify.go):
// chain, time, usage, CRLs (pki_crl.go), and on the client whether the server
// is who Peer.Expect says (pki_expect.go). A reload verifies the peers of
// living connections again; those that fail take no new streams. Which peer
// may connect to which port is Config.Authorize's to say (authorize.go).
//
// A failure is ErrIdentity, and in the log of both sides at most once a minute
// for each peer (refusals.go). A server's refusal of our certificate comes
// after our handshake is complete; Dial sees it in place of the first status.
//
// # Sessions and 0-RTT
//
// Sessions are resumed: a server's tickets have keys derived from its identity
// key (tickets.go); a client keeps its sessions in memory (sessions.go) and,
// encrypted, in the state directory (sessionsfile.go). With Peer.ZeroRTT the
// first bytes go before the handshake is over (early.go, earlystream.go): they
// may be replayed. A server gives them to a program when it is proved that they
// are not (replay.go), or at once with ListenOptions.ZeroRTT. What a server
// rejects is sent again.
//
// # Observing
//
// Host.Snapshot lists the connections (snapshot.go), Stream counts octets, and
// each connection may write a qlog file (qlog.go).
//
// # Limits
//
// 1024 sessions of 16 KiB; 0-RTT data of 64 KiB a stream and 1 MiB a connection
// are kept until accepted. A replayed connection costs a server some 30 KiB and
// the replayed octets for twice HandshakeTimeout at most. Config.QlogMaxFiles and QlogMaxBytes
// bound qlog files.
//
// 512 KiB to 6 MiB unread a stream; 256 MiB unread a connection
// (Config.ConnWindow): beyond that all its streams wait for the readers. A stream
// header is at most 1 KiB and must come within 10 s. Config.MaxConnections
// connections a Peer.
//
// Hostile peers (docs/limits.md): what a peer address may have is counted from
// the first packet of a connection on (limits.go), and refused beyond
// Config.Limits. What is counted nowhere, above all what came and is not read,
// is bounded by looking at the heap (memory.go): when it is too large, the
// address that holds most loses its connections. Windows do not vary, for the
// sake of 0-RTT.
//
// # Goroutines
//
// Each Host counts its own and Close waits for them. A connection has two
// (control stream, watching its end), on the server one that accepts streams,
// or before that waits for the handshake, and on the client one that waits for
// it after 0-RTT data, with one more for each stream that is sent again; a stream
// has none of ours, except while its header is late and while accept runs. quic-go adds three for each socket and two for each
// connection, and two for a client's side path. While a connection looks for a
// way it has one more.
package quic
