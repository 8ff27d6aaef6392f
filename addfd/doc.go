// Package addfd is what a program gets in place of a TCP socket, and how that
// is made to behave as one.
//
// # Theory of operation
//
// At socket() the program gets an *unconnected* AF_UNIX stream socket. It stays
// the same open file until its last descriptor is closed: whatever the program
// registered with epoll, duplicated, passed on or set on it remains true. What
// TCP does to a socket is done to that file later, through a copy of it:
//
//   - A fresh one is POLLOUT|POLLHUP and refuses reads, as TCP's is.
//   - Dock.Attach connects it to an end of the broker's: from then on the two
//     are a pair, one copy of the program's bytes away from the relay.
//   - Fill makes an attached one look as TCP's while it connects: not readable,
//     not writable, EAGAIN; reading the fillers at the other end ends that, and
//     epoll's edge comes with it.
//   - Anchors.Hold gives it a name known only here, after which it can listen;
//     Anchor.Connect puts a connection into its queue. poll, accept queues,
//     backlog and shutdown are then the kernel's own.
//   - Trip leaves a byte of ours unread on the broker's end, so that the end's
//     closing, even by SIGKILL, is ECONNRESET to the program after what it has
//     yet to read. A clean end of file is only ever given on purpose.
//
// Bytes of ours travel in the same queue as the program's. Recv tells them
// apart by the sender's pid (SCM_CREDENTIALS), which the kernel writes.
//
// That a program closed its socket is told by HUP once it is attached, and
// before by the anchor: the file system forgets the name at the last close, and
// inotify(7) says so. Lost is for those that can be watched in neither way, or
// are too many for names. Stock has sockets ready before they are asked for.
//
// What it never does: know of QUIC, of addresses, or of the program's pid.
// Copies given to it are the caller's to close; the ends and anchors it returns
// are the caller's too.
package addfd
