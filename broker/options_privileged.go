package broker

import (
	"bytes"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// What the kernel would check of the program and cannot check of the broker.

// privileged lists what needs CAP_NET_ADMIN (capabilities(7)), which the
// broker may have where the program has not.
func (o option) privileged() bool {
	switch o.level {
	case unix.SOL_SOCKET:
		switch o.name {
		case unix.SO_MARK, unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE, unix.SO_TXTIME:
			return true
		case unix.SO_BUSY_POLL:
			return o.int() > 0
		case unix.SO_PRIORITY:
			return o.int() < 0 || o.int() > 6
		}
	case unix.IPPROTO_IP:
		switch o.name {
		case unix.IP_TRANSPARENT, unix.IP_IPSEC_POLICY, unix.IP_XFRM_POLICY:
			return true
		}
	case unix.IPPROTO_IPV6:
		switch o.name {
		case unix.IPV6_TRANSPARENT, unix.IPV6_IPSEC_POLICY, unix.IPV6_XFRM_POLICY,
			unix.IPV6_HOPOPTS, unix.IPV6_RTHDRDSTOPTS, unix.IPV6_DSTOPTS:
			return true
		}
	case unix.IPPROTO_TCP:
		return o.name == unix.TCP_REPAIR
	}
	return isNetfilter(o.level, o.name)
}

// isNetfilter reports an option that is not the socket's but the packet
// filter's (nf_register_sockopt in the kernel): tables, which the broker must
// not read or change for who may not.
func isNetfilter(level, name int) bool {
	switch level {
	case unix.IPPROTO_IP:
		return name >= 64 && name != soOriginalDst
	case unix.IPPROTO_IPV6:
		return name >= 128 || name == 64 || name == 65 || name == 68 || name == 69
	}
	return false
}

const soOriginalDst = 80 // SO_ORIGINAL_DST of <linux/netfilter_ipv4.h>

// mayHave checks o's privilege, if it needs one.
func mayHave(r Request, sock *Socket, o option) unix.Errno {
	congestion := o.level == unix.IPPROTO_TCP && o.name == unix.TCP_CONGESTION
	switch {
	case !congestion && !o.privileged(), congestion && allowedCongestion(o.value), mayAdminister(r, sock):
		return 0
	}
	return unix.EPERM
}

// mayAdminister reports CAP_NET_ADMIN over the network namespace of sock, as
// ns_capable does: a capability is worth something in the user namespace it is
// held in, and in the network namespaces which that one owns.
func mayAdminister(r Request, sock *Socket) bool {
	creds, err := r.Creds()
	if err != nil || !creds.CapNetAdmin {
		return false
	}
	if creds.OwnUserNS {
		return true // the kernel judges us by the same
	}
	ns, err := sock.netNS(r)
	if err != nil {
		return false
	}
	fd, err := r.NetNS()
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Ino != ns.ID() {
		return false // it has moved on
	}
	owner, err := unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
	if err != nil {
		return false
	}
	defer unix.Close(owner)
	return unix.Fstat(owner, &st) == nil && creds.UserNS == fmt.Sprintf("user:[%d]", st.Ino)
}

// allowedCongestion reports whether anybody may have the algorithm (tcp(7)),
// or it is none.
func allowedCongestion(value []byte) bool {
	name, _, _ := bytes.Cut(value, []byte{0})
	for _, f := range []string{"tcp_available_congestion_control", "tcp_allowed_congestion_control"} {
		list, err := os.ReadFile("/proc/sys/net/ipv4/" + f)
		known := slices.ContainsFunc(bytes.Fields(list), func(n []byte) bool { return bytes.Equal(n, name) })
		if err == nil && known == (f == "tcp_allowed_congestion_control") {
			return true
		}
	}
	return false
}
