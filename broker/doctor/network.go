package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/poemq/poemq/broker/api"
	"golang.org/x/sys/unix"
)

// bufferWanted is what fast transfers want of UDP buffers, octets.
const bufferWanted = 7_500_000

// udpBuffers asks for large ones and looks at what comes.
func udpBuffers() []Check {
	const name = "UDP buffers"
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return one(name, Fail, "socket: "+err.Error(), "UDP sockets must be allowed")
	}
	defer unix.Close(fd)
	receive := largest(fd, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE)
	send := largest(fd, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE)
	found := fmt.Sprintf("receive %.1f MB, send %.1f MB", float64(receive)/1e6, float64(send)/1e6)
	if receive < bufferWanted || send < bufferWanted {
		return one(name, Warn, found+", fast transfers will lose packets", "sysctl net.core.rmem_max=7500000 net.core.wmem_max=7500000, or CAP_NET_ADMIN for the broker")
	}
	return one(name, OK, found, "")
}

// largest sets what is wanted, by privilege if need be. The kernel tells twice
// what it was asked for (socket(7)).
func largest(fd, option, force int) int {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, bufferWanted) // it tells what came of it
	got, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	if got/2 < bufferWanted && unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bufferWanted) == nil {
		got, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	}
	return got / 2
}

// udpOffload tries what makes many packets of one call.
func udpOffload() []Check {
	const name = "UDP GSO and GRO"
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return one(name, Fail, "socket: "+err.Error(), "UDP sockets must be allowed")
	}
	defer unix.Close(fd)
	gso := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1200)
	gro := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	if gso != nil || gro != nil {
		return one(name, Warn, fmt.Sprintf("UDP_SEGMENT: %v, UDP_GRO: %v", gso, gro), "poemq works without, and needs more CPU; a kernel of 5.0 or newer has both")
	}
	return one(name, OK, "work", "")
}

// port443 binds 443/udp and sends to it.
func port443() []Check {
	const name = "port 443/udp"
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4zero, Port: 443})
	switch {
	case errors.Is(err, unix.EACCES):
		return one(name, Warn, "may not be bound by this user", "serve it as root or with CAP_NET_BIND_SERVICE, or sysctl net.ipv4.ip_unprivileged_port_start=443; connecting needs nothing")
	case errors.Is(err, unix.EADDRINUSE):
		return one(name, Warn, "another program serves it", "ss -ulpn 'sport = :443' names it; if that is poemqd all is well, else a program under poemq cannot serve QUIC there")
	case err != nil:
		return one(name, Fail, err.Error(), "see ip link and ip address")
	}
	defer server.Close()
	if err := echoes(server); err != nil {
		return one(name, Fail, "can be bound, but a packet to 127.0.0.1 does not arrive: "+err.Error(), "a firewall is in the way: nft list ruleset, or iptables-save; is the interface lo up?")
	}
	return one(name, OK, "can be bound, and packets arrive on loopback; from other hosts the firewalls on the way must let it through", "")
}

const echoLimit = 2 * time.Second

func echoes(server *net.UDPConn) error {
	client, err := net.Dial("udp4", "127.0.0.1:443")
	if err != nil {
		return err
	}
	defer client.Close()
	token := []byte(rand.Text())
	if _, err := client.Write(token); err != nil {
		return err
	}
	if err := server.SetReadDeadline(time.Now().Add(echoLimit)); err != nil {
		return err
	}
	for buf := make([]byte, 2048); ; { // others may send there, too
		n, _, err := server.ReadFromUDP(buf)
		if err != nil || string(buf[:n]) == string(token) {
			return err
		}
	}
}

// peerAnswers asks for a QUIC version that nobody has: each QUIC server tells then
// which it has (RFC 9000 section 6), and no program there learns of it.
func peerAnswers(ctx context.Context, peer string) []Check {
	name := "QUIC at " + peer
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", peer)
	if err != nil {
		return one(name, Fail, err.Error(), "name it as HOST:PORT")
	}
	defer c.Close()
	for range 3 {
		if _, err = c.Write(unknownVersion()); err != nil {
			break
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		buf := make([]byte, 2048)
		var n int
		if n, err = c.Read(buf); err == nil && n > 6 && buf[0]&0x80 != 0 && [4]byte(buf[1:5]) == [4]byte{} {
			return one(name, OK, "answers, at "+c.RemoteAddr().String(), "")
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return one(name, Fail, "the UDP port is closed", "start the server under poemq-launch there; with [wire] udp_port ask for that port")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return one(name, Fail, "no answer to three packets", "UDP is dropped on the way, or nothing but TCP is served: look at the firewalls of both hosts and between")
	case err != nil:
		return one(name, Fail, err.Error(), "see ip route get, and the firewall")
	}
	return one(name, Warn, "something that is not QUIC answers", "see what serves that UDP port")
}

// unknownVersion is a long-header packet of a version that is reserved to be
// unknown (RFC 9000 sections 15 and 17.2), as long as an Initial has to be.
func unknownVersion() []byte {
	b := make([]byte, 1200)
	_, _ = rand.Read(b) // never fails
	copy(b, []byte{0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8})
	b[14] = 8 // the source's connection ID, after the destination's
	return b
}

// brokerThere asks for the system's broker.
func brokerThere(ctx context.Context, control string) []Check {
	const name = "system broker"
	client := api.New(control)
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := api.Get[api.Status](ctx, client, "/v1/status")
	switch {
	case errors.Is(err, api.ErrNoBroker):
		return one(name, OK, "none: poemq-launch starts a private broker for each program", "")
	case err != nil:
		return one(name, Fail, err.Error(), "see its log: journalctl -u poemq")
	}
	return one(name, OK, fmt.Sprintf("poemqd %s, pid %d, %d sessions, at %s", s.Version, s.PID, s.Sessions, control), "")
}

// stateDirectory looks whether our own broker would remember its key.
func stateDirectory() []Check {
	const name = "state directory"
	dir := os.Getenv("POEMQ_STATE_DIR")
	switch home, xdg := os.Getenv("HOME"), os.Getenv("XDG_STATE_HOME"); {
	case dir != "":
	case root():
		dir = "/var/lib/poemq"
	case filepath.IsAbs(xdg):
		dir = filepath.Join(xdg, "poemq")
	case filepath.IsAbs(home):
		dir = filepath.Join(home, ".local", "state", "poemq")
	default:
		return one(name, Warn, "none, since HOME is not set: each private broker has a new key", "set POEMQ_STATE_DIR")
	}
	// The nearest directory above that is there must let it be made.
	for at := dir; ; at = filepath.Dir(at) {
		err := unix.Access(at, unix.W_OK|unix.X_OK)
		switch {
		case err == nil && at == dir:
			return one(name, OK, dir, "")
		case err == nil:
			return one(name, OK, dir+", which is made when it is needed", "")
		case errors.Is(err, unix.ENOENT) && at != filepath.Dir(at):
			continue
		}
		return one(name, Warn, fmt.Sprintf("%s cannot be written (%v): each private broker has a new key, which peers that know the old one refuse", at, err), "make it writable, or set POEMQ_STATE_DIR")
	}
}
