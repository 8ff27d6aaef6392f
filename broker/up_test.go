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

	trying func() // called by TryWrite; nil for nothing

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
	if m.trying != nil {
		m.trying()
	}
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
func (m *mouth) Lost() <-chan struct{}      { return nil }
func (m *mouth) Close() error               { return nil }
func (m *mouth) LocalAddr() netip.AddrPort  { return netip.AddrPort{} }
func (m *mouth) RemoteAddr() netip.AddrPort { return netip.AddrPort{} }

// echo is a relay to a program, mostly cat, that answers with what it is given.
type echo struct {
	*relay
	mouth  *mouth
	theirs *os.File // a copy of the program's
	cat    *exec.Cmd
	stderr bytes.Buffer
}

// newEcho makes one with a tripwire laid.
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
	e.theirs = os.NewFile(uintptr(fds[1]), "the program's end")
	t.Cleanup(func() { e.theirs.Close() })
	e.relay = newRelay(b, fds[0])
	e.trip(fds[1])
	e.cat.ExtraFiles, e.cat.Stderr = []*os.File{e.theirs}, &e.stderr
	if err := e.cat.Start(); err != nil {
		t.Fatal(err)
	}
	sock := &Socket{b: b, sess: &Session{b: b, log: b.log}, state: connected, relay: e.relay}
	sock.narrow.Store(narrow)
	e.attach(sock)
	return e
}

// begin has the bytes carried, by either way to begin.
func (e *echo) begin(at int) {
	if at%2 == 0 {
		e.watchAndStart(e.mouth)
		return
	}
	e.watch()
	e.start(e.mouth)
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
		e.begin(0)
		var said []byte
		for range 400 {
			if rand.IntN(5) == 0 { // a tripwire comes late, and stands anywhere
				e.trip(int(e.theirs.Fd()))
			}
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
	e.begin(0)
	e.theirs.Close()
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
	for i := range 50 {
		e := newEcho(t, false, "head", "-c", "5") // writes and goes
		e.begin(i)
		e.theirs.Close()
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
	e.begin(0)
	e.mouth.say <- []byte("hello")
	e.settleAt(t, 5)
	if n, err := addfd.Unread(e.end.FD()); err != nil || n != 0 {
		t.Errorf("%d octets are unread, %v; want 0", n, err)
	}
	e.finish(t)
}

// The first message is with the transport before anything is taken out of the queue,
// be it the tripwire: that would wake a program that waits for the answer.
func TestFirstIsOnlyLookedAt(t *testing.T) {
	for i := range 4 {
		e := newEcho(t, false, "cat")
		unread := make(chan int, 10)
		e.mouth.trying = func() {
			n, _ := addfd.Unread(e.end.FD())
			unread <- n
		}
		e.begin(i)
		e.mouth.say <- []byte("hello")
		e.settleAt(t, 5)
		if n := <-unread; n != 6 {
			t.Errorf("%d octets were unread when the transport was given 5 after the tripwire, want 6", n)
		}
		e.theirs.Close()
		e.finish(t)
	}
}

// A program that closes its socket with something unread resets the connection,
// after what it wrote.
func TestClosedWithUnread(t *testing.T) {
	for i := range 50 {
		e := newEcho(t, false, "dd", "bs=1", "count=1", "status=none")
		e.begin(i)
		e.theirs.Close()
		e.mouth.say <- []byte("hello")
		select {
		case <-e.mouth.over:
		case <-e.mouth.ended:
			t.Error("the program's closing came as its end of file")
		case <-time.After(20 * time.Second):
			t.Fatal("the program's closing was not seen")
		}
		if e.mouth.has() != 1 {
			t.Errorf("%d octets came back, want 1", e.mouth.has())
		}
		e.finish(t)
	}
}

// A connection can come about when the program has just closed the socket. It begins
// with the socket locked, which is then not waited for.
func TestBeginsLocked(t *testing.T) {
	for i := range 2 {
		e := newEcho(t, false, "true")
		e.theirs.Close()
		for !addfd.HungUp(e.end.FD()) {
			time.Sleep(time.Millisecond)
		}
		begun := make(chan struct{})
		go func() {
			defer close(begun)
			e.sock.mu.Lock()
			defer e.sock.mu.Unlock()
			e.begin(i)
		}()
		select {
		case <-begun:
		case <-time.After(20 * time.Second):
			panic("it waits for the lock that its caller holds") // for good
		}
		e.finish(t)
	}
}
