package hook

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The broker ends under living connections, killed or asked to, and another one
// comes: what was connected is reset and nothing hangs, what is new is the new
// one's.
func TestBrokerEndsUnderConnections(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "asked to": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "b")
			b := broker(t, socket)
			p := start(t, nil, append(launch("--broker", socket, "--", program),
				"pair", "accepted", "ended", "write", "wait", "pair", "fork", "write", "accepted")...)
			wantLines(t, p.lines(1), "pair: well")
			// What the end that wrote reads is not looked at: after much was
			// written it may be without a tripwire for some milliseconds
			// (broker/tripwire.go).
			await(t, "the program reads", func() bool { return inCall(p, syscall.SYS_READ) })
			_ = b.Process.Signal(signal)
			b.wait()
			wantLines(t, p.lines(4), "pair: well", "accepted: ECONNRESET", "ended: 1", "write: EPIPE")
			broker(t, socket)
			wantLines(t, p.next(8)[4:], "pair: well", "fork: carried", "write: 1", "accepted: 1")
			if status := p.wait(); status != 0 || p.stderr() != "" {
				t.Errorf("exit status %d: %s", status, p.stderr())
			}
		})
	}
}

// A connect waits for a peer that is silent when its broker is killed: it fails at
// once, whether there is another broker or not.
func TestBrokerIsKilledInAConnect(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	port := fmt.Sprint(silent.LocalAddr().(*net.UDPAddr).Port)
	socket := filepath.Join(t.TempDir(), "b")
	b := broker(t, socket)
	p := start(t, nil, append(launch("--broker", socket, "--quic", "require", "--", program), "socket", "connect", port)...)
	wantLines(t, p.lines(1), "socket: carried")
	await(t, "the program waits for an answer", func() bool { return inCall(p, syscall.SYS_RECVMSG) })
	kill(b)
	p.wait()
	wantLines(t, p.lines(2), "socket: carried", "connect: ECONNRESET")
}

// inCall tells whether the program's first thread waits in the call
// (proc_pid_syscall(5)).
func inCall(p *output, nr int) bool {
	return strings.HasPrefix(read(fmt.Sprintf("/proc/%d/syscall", p.Process.Pid)), fmt.Sprint(nr, " "))
}
