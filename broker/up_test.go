package broker

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/poemq/poemq/addfd"
	"golang.org/x/sys/unix"
)

// mouth is a transport that gives the program what is said to it, and keeps what
// the program answers. It takes each other small piece by TryWrite only.
type mouth struct {
	say  chan []byte
	rest []byte
	over chan struct{} // closed by Reset
	once sync.Once

	ended chan struct{} // has one for each CloseWrite

	mu    sync.Mutex
	heard bytes.Buffer
	tried int
}

func (m *mouth) AwaitRead() {}

func (m *mouth) Read(p []byte) (int, error) {
	if len(m.rest) == 0 {
		select {
		case m.rest = <-m.say:
		case <-m.over:
			return 0, net.ErrClosed
		}
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

func (m *mouth) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heard.Write(p)
}

func (m *mouth) TryWrite(p []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tried++
	if m.tried%4 == 0 {
		return false
	}
	m.heard.Write(p)
	return true
}

func (m *mouth) has() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heard.Len()
}

func (m *mouth) CloseWrite() error          { m.ended <- struct{}{}; return nil }
func (m *mouth) Reset()                     { m.once.Do(func() { close(m.over) }) }
func (m *mouth) WhenWriteEnds(func(error))  {}
func (m *mouth) StopRead()                  {}
func (m *mouth) Close() error               { return nil }
func (m *mouth) LocalAddr() netip.AddrPort  { return netip.AddrPort{} }
func (m *mouth) RemoteAddr() netip.AddrPort { return netip.AddrPort{} }

// echo is a relay to a program, mostly cat, that answers with what it is given.
type echo struct {
	*relay
	mouth  *mouth
	cat    *exec.Cmd
	stderr bytes.Buffer
}

func newEcho(t *testing.T, narrow bool, program ...string) *echo {
	t.Helper()
	b, err := New(Config{Log: slog.New(slog.DiscardHandler), RuntimeDirs: []string{filepath.Clean(t.TempDir())}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		t.Fatal(err)
	}
	e := &echo{mouth: &mouth{say: make(chan []byte), over: make(chan struct{}), ended: make(chan struct{}, 1)}, cat: exec.Command("sh", append([]string{"-c", "exec \"$0\" \"$@\" <&3 >&3"}, program...)...)}
	theirs := os.NewFile(uintptr(fds[1]), "the program's end")
	e.cat.ExtraFiles, e.cat.Stderr = []*os.File{theirs}, &e.stderr
	if err := e.cat.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	e.relay = newRelay(b, fds[0])
	sock := &Socket{b: b, sess: &Session{b: b, log: b.log}, state: connected, relay: e.relay}
	sock.narrow.Store(narrow)
	e.attach(sock)
	e.watch()
	e.start(e.mouth)
	return e
}

// settleAt waits until all that was said came back.
func (e *echo) settleAt(t *testing.T, octets int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); e.mouth.has() < octets; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d octets of %d came back", e.mouth.has(), octets)
		}
	}
}

// finish closes the end, as a broker that is killed does, and tells how cat ended.
func (e *echo) finish(t *testing.T) error {
	t.Helper()
	e.mouth.Reset()
	e.end.Close()
	ended := make(chan error, 1)
	go func() { ended <- e.cat.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(20 * time.Second):
		_ = e.cat.Process.Kill()
		t.Fatal("cat does not end")
		return nil
	}
}

// What the program writes arrives whole and in order, however it comes in pieces
// and whatever the transport takes at once.
func TestCarriesAll(t *testing.T) {
	for _, narrow := range []bool{false, true} {
		e := newEcho(t, narrow, "cat")
		var said []byte
		for range 400 {
			piece := make([]byte, 1+rand.IntN(300))
			if rand.IntN(10) == 0 {
				piece = make([]byte, 1+rand.IntN(20000))
			}
			for i := range piece {
				piece[i] = byte(rand.Uint32())
			}
			e.mouth.say <- piece
			said = append(said, piece...)
			if rand.IntN(3) == 0 { // the next meets what was seen
				e.settleAt(t, len(said))
			}
		}
		e.settleAt(t, len(said))
		if !bytes.Equal(e.mouth.heard.Bytes(), said) {
			t.Errorf("narrow %v: what came back is not what was said", narrow)
		}
		e.finish(t)
	}
}

// One octet of what was carried stays unread: the program learns of a broker that
// was killed by ECONNRESET. It stays when the program has waited for long, too.
func TestLastOctetStays(t *testing.T) {
	e := newEcho(t, false, "cat")
	said := 0
	for range 3 {
		e.mouth.say <- []byte("hello")
		said += 5
		e.settleAt(t, said)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		n, err := addfd.Unread(e.end.FD())
		if err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d octets are unread, want 1", n)
		}
	}
	if n := e.unsent(); n != 0 {
		t.Errorf("%d octets are unsent to the program, want 0", n)
	}
	if err := e.finish(t); err == nil || !strings.Contains(e.stderr.String(), "reset") {
		t.Errorf("cat after the end was closed: %v, %q; want a reset", err, e.stderr.String())
	}
}

// The end of what a program writes is seen when it comes together with the last of
// that.
func TestEndComesWithTheLast(t *testing.T) {
	for range 50 {
		e := newEcho(t, false, "head", "-c", "5") // writes and goes
		e.mouth.say <- []byte("hello")
		select {
		case <-e.mouth.ended:
		case <-time.After(20 * time.Second):
			t.Fatal("the end of what the program wrote was not seen")
		}
		if e.mouth.has() != 5 {
			t.Errorf("%d octets came back, want 5", e.mouth.has())
		}
		e.finish(t)
	}
}

// A program that chose a send buffer has all of it.
func TestNarrowKeepsNothing(t *testing.T) {
	e := newEcho(t, true, "cat")
	e.mouth.say <- []byte("hello")
	e.settleAt(t, 5)
	if n, err := addfd.Unread(e.end.FD()); err != nil || n != 0 {
		t.Errorf("%d octets are unread, %v; want 0", n, err)
	}
	e.finish(t)
}
