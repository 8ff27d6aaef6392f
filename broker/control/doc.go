// Package control serves the API of package api over a UNIX socket.
//
// What comes in: HTTP requests of whoever may open the socket. What goes out:
// JSON. Each connection is authorised once, by what the kernel tells of its peer
// (SO_PEERCRED, SO_PEERGROUPS): root, the broker's own user and members of the
// group poemq may do everything; other users see what belongs to their own
// sessions, and change nothing that others could notice.
//
// Nothing here holds a lock of the broker's while an answer is written: it is
// put together first, then sent.
package control
