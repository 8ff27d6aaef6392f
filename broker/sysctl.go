package broker

import (
	"bytes"
	"strconv"
	"sync"
	"time"

	"github.com/poemq/poemq/quic/netns"
	"golang.org/x/sys/unix"
)

// sysctls are the settings of a network namespace that calls depend on
// (ip(7), tcp(7)).
type sysctls struct {
	ports        portRange // net.ipv4.ip_local_port_range
	unprivileged uint16    // net.ipv4.ip_unprivileged_port_start: below it CAP_NET_BIND_SERVICE is needed
	synRetries   int       // net.ipv4.tcp_syn_retries
	synLinear    int       // net.ipv4.tcp_syn_linear_timeouts, Linux 6.5
}

// knownSysctls keeps what was read for sysctlsFor: reading costs more than all
// else that a connect does here.
type knownSysctls struct {
	mu sync.Mutex
	m  map[uint64]readSysctls
}

type readSysctls struct {
	sysctls
	at time.Time
}

const sysctlsFor = 100 * time.Millisecond

// of tells the settings of ns.
func (k *knownSysctls) of(ns *netns.NS) sysctls {
	now := time.Now()
	k.mu.Lock()
	known, ok := k.m[ns.ID()]
	k.mu.Unlock()
	if ok && now.Sub(known.at) < sysctlsFor {
		return known.sysctls
	}
	var s sysctls
	if err := ns.Do(func() error {
		s = readNow()
		return nil
	}); err != nil {
		return defaultSysctls
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, old := range k.m {
		if now.Sub(old.at) >= sysctlsFor {
			delete(k.m, id)
		}
	}
	if k.m == nil {
		k.m = make(map[uint64]readSysctls)
	}
	k.m[ns.ID()] = readSysctls{s, now}
	return s
}

// defaultSysctls are the kernel's, for where there is no /proc.
var defaultSysctls = sysctls{ports: portRange{32768, 60999}, unprivileged: 1024, synRetries: 6}

// readNow reads the settings of the calling thread's network namespace.
func readNow() sysctls {
	s := defaultSysctls
	if n := sysctl("ip_local_port_range"); len(n) == 2 && 0 < n[0] && n[0] <= n[1] && n[1] <= 65535 {
		s.ports = portRange{uint16(n[0]), uint16(n[1])}
	}
	if n := sysctl("ip_unprivileged_port_start"); len(n) == 1 && n[0] <= 65535 {
		s.unprivileged = uint16(n[0])
	}
	if n := sysctl("tcp_syn_retries"); len(n) == 1 {
		s.synRetries = n[0]
	}
	if n := sysctl("tcp_syn_linear_timeouts"); len(n) == 1 {
		s.synLinear = n[0]
	}
	return s
}

// sysctl is the numbers of a setting of net.ipv4, none of them negative; nil
// where there are none. It reads without the poller, which has no use for such
// files.
func sysctl(name string) (numbers []int) {
	fd, err := unix.Open("/proc/sys/net/ipv4/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var buf [64]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return nil
	}
	for _, f := range bytes.Fields(buf[:n]) {
		v, err := strconv.ParseUint(string(f), 10, 31)
		if err != nil {
			return nil
		}
		numbers = append(numbers, int(v))
	}
	return numbers
}
