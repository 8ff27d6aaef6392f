package broker

import (
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long an attempt goes on with nobody answering, as TCP's does:
// TCP_USER_TIMEOUT, or what the SYNs take that TCP_SYNCNT or
// net.ipv4.tcp_syn_retries allow (tcp(7)).
func (s *Socket) patience(sys sysctls) time.Duration {
	if o, ok := s.set(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); ok && o.int() > 0 {
		return time.Duration(o.int()) * time.Millisecond
	}
	retries := sys.synRetries
	if o, ok := s.set(unix.IPPROTO_TCP, unix.TCP_SYNCNT); ok && o.int() > 0 {
		retries = o.int()
	}
	return synTime(retries, sys.synLinear)
}

const maxRTO = 120 * time.Second // TCP_RTO_MAX

// synTime is when the last of so many retries has waited in vain. The first
// linear ones do not back off (Linux 6.5).
func synTime(retries, linear int) time.Duration {
	total, rto := time.Duration(0), time.Second
	for i := 0; i <= retries+linear; i++ {
		total += rto
		if i >= linear {
			rto = min(2*rto, maxRTO)
		}
	}
	return total
}
