// Package link joins two network namespaces by a path that is as long, as
// narrow and as lossy as a test wants it, on kernels without netem.
//
// What comes in: [Params], for each direction its own. What goes out: two
// [Host]s, which start programs in their namespaces, and counts of what the
// path did. Each namespace has a TUN device; a thread a direction reads IP
// packets from one and writes them to the other when their time has come, so
// that TCP, UDP and ICMP see the same path. The packet's way, and that of the
// files: tun, direction, shaper, tun. [Link.Through] puts a middlebox on it
// that sees every packet, and may change or drop it.
//
// The namespaces have no names: the kernel takes them away with the last
// process in them, even when a test is killed. It needs root.
//
// Limits: IPv4 between the two hosts; packets of MTU octets at most. A packet
// may come up to 100 µs early, which saves half of the work at 100 Mbit/s.
package link
