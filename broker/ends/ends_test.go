package ends_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/poemq/poemq/broker/ends"
	"golang.org/x/sys/unix"
)

// reader collects what comes at an end, half of the time in Look and half on a
// goroutine that looks on.
type reader struct {
	end   *ends.End
	looks atomic.Int64
	inUse atomic.Int32 // looks at a time, which must be one
	twice atomic.Bool
	mu    sync.Mutex
	got   []byte
	over  chan struct{} // closed at the end of file, or of the end
}

func newReader(t *testing.T, set *ends.Set) (r *reader, program int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	r = &reader{over: make(chan struct{})}
	r.end = set.New(fds[0], r)
	return r, fds[1]
}

func (r *reader) Look(bool) {
	if r.looks.Add(1)%2 == 0 {
		go r.LookAside()
		return
	}
	r.LookAside()
}

func (r *reader) LookAside() {
	if r.inUse.Add(1) != 1 {
		r.twice.Store(true)
	}
	for {
		n, err := r.read()
		switch {
		case n > 0:
		case errors.Is(err, unix.EAGAIN):
			r.inUse.Add(-1)
			if r.end.Rest() {
				return
			}
			r.inUse.Add(1)
		default:
			close(r.over)
			return
		}
	}
}

func (r *reader) read() (int, error) {
	if !r.end.Hold() {
		return 0, os.ErrClosed
	}
	defer r.end.Release()
	var buf [4096]byte
	n, _, err := unix.Recvfrom(r.end.FD(), buf[:], unix.MSG_DONTWAIT)
	if n > 0 {
		r.mu.Lock()
		r.got = append(r.got, buf[:n]...)
		r.mu.Unlock()
	}
	return n, err
}

func newSet(t *testing.T, goroutines int) *ends.Set {
	t.Helper()
	set, err := ends.NewSet(goroutines)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Close)
	return set
}

func waitFor(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("not within 20 s: ", what)
	}
}

// Nothing that many programs write is lost, and no end is looked at twice at a time.
func TestAllIsSeen(t *testing.T) {
	set := newSet(t, 2)
	var wg sync.WaitGroup
	for range 50 {
		r, program := newReader(t, set)
		if err := r.end.Watch(); err != nil {
			t.Fatal(err)
		}
		want := make([]byte, 20000)
		rand.Read(want)
		wg.Go(func() {
			for rest := want; len(rest) > 0; {
				n := min(len(rest), 1+int(rest[0])*3)
				if _, err := unix.Write(program, rest[:n]); err == nil {
					rest = rest[n:]
				} else if !errors.Is(err, unix.EAGAIN) {
					t.Error(err)
					return
				}
				switch {
				case n%7 == 0:
					r.end.Poke()
				case n%11 == 0:
					if r.end.Begin() {
						r.Look(false)
					}
				case n%13 == 0:
					set.Look()
				}
			}
			unix.Close(program)
			waitFor(t, "the end of file", r.over)
			if !bytes.Equal(r.got, want) || r.twice.Load() {
				t.Errorf("%d octets of %d, twice at a time: %v", len(r.got), len(want), r.twice.Load())
			}
			r.end.Close()
		})
	}
	wg.Wait()
}

// What happened before Watch is seen, too.
func TestBeforeWatch(t *testing.T) {
	r, program := newReader(t, newSet(t, 1))
	unix.Write(program, []byte("early"))
	unix.Close(program)
	if err := r.end.Watch(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of file", r.over)
	if string(r.got) != "early" {
		t.Errorf("got %q", r.got)
	}
	r.end.Close()
}

// stopper keeps the goroutine of its set until it is let go.
type stopper struct {
	end           *ends.End
	looked, letGo chan struct{}
}

func (s *stopper) Look(bool) {
	close(s.looked)
	<-s.letGo
	s.end.Rest()
}

func (s *stopper) LookAside() {}

// However much happens at once, all of it is seen.
func TestManyAtOnce(t *testing.T) {
	set := newSet(t, 1)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	s := &stopper{looked: make(chan struct{}), letGo: make(chan struct{})}
	s.end = set.New(fds[0], s)
	if err := s.end.Watch(); err != nil {
		t.Fatal(err)
	}
	var readers []*reader
	var programs []int
	for range 300 {
		r, program := newReader(t, set)
		if err := r.end.Watch(); err != nil {
			t.Fatal(err)
		}
		readers, programs = append(readers, r), append(programs, program)
	}
	unix.Write(fds[1], []byte("x"))
	waitFor(t, "the look that lasts", s.looked)
	for _, program := range programs {
		unix.Write(program, []byte("at once"))
		unix.Close(program)
	}
	close(s.letGo)
	for _, r := range readers {
		waitFor(t, "the end of file", r.over)
		if string(r.got) != "at once" {
			t.Errorf("got %q", r.got)
		}
		r.end.Close()
	}
	s.end.Close()
}

// A set that is closed is looked at in vain, whatever its descriptors are by now.
func TestLookAfterClose(t *testing.T) {
	set, err := ends.NewSet(2)
	if err != nil {
		t.Fatal(err)
	}
	set.Close()
	r, program := newReader(t, newSet(t, 2))
	defer unix.Close(program)
	if err := r.end.Watch(); err != nil {
		t.Fatal(err)
	}
	set.Look()
	r.end.Close()
}

// A program that reads wakes nobody: that is what the package is for.
func TestReadingIsNoNews(t *testing.T) {
	r, program := newReader(t, newSet(t, 1))
	defer unix.Close(program)
	if err := r.end.Watch(); err != nil {
		t.Fatal(err)
	}
	unix.Write(program, []byte("x"))
	for deadline := time.Now().Add(20 * time.Second); r.looks.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the first octet was not seen")
		}
	}
	before := r.looks.Load()
	var buf [64]byte
	for range 100 {
		if err := r.end.Write([]byte("to the program"), func(int) {}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Read(program, buf[:]); err != nil {
			t.Fatal(err)
		}
	}
	unix.Write(program, []byte("y")) // comes after whatever there was
	for deadline := time.Now().Add(20 * time.Second); r.looks.Load() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the last octet was not seen")
		}
	}
	if n := r.looks.Load() - before; n != 1 {
		t.Errorf("%d looks after one octet and 100 reads of the program, want 1", n)
	}
	r.end.Close()
}

// Write waits for room and tells of all that was taken.
func TestWriteWaits(t *testing.T) {
	r, program := newReader(t, newSet(t, 1))
	if err := r.end.Watch(); err != nil {
		t.Fatal(err)
	}
	unix.SetNonblock(program, false)
	want := make([]byte, 4<<20)
	rand.Read(want)
	f := os.NewFile(uintptr(program), "program")
	defer f.Close()
	got := make(chan []byte, 1)
	go func() {
		time.Sleep(20 * time.Millisecond) // so that there is no room before
		all, _ := io.ReadAll(io.LimitReader(f, int64(len(want))))
		got <- all
	}()
	taken := 0
	if err := r.end.Write(want, func(n int) { taken += n }, nil); err != nil {
		t.Fatal(err)
	}
	if taken != len(want) || !bytes.Equal(<-got, want) {
		t.Errorf("%d octets taken of %d, or other ones came", taken, len(want))
	}
	r.end.Close()
}

// A Write that waits is stopped, and the next one waits again.
func TestWriteStopped(t *testing.T) {
	r, program := newReader(t, newSet(t, 1))
	unix.SetNonblock(program, false)
	f := os.NewFile(uintptr(program), "program")
	defer f.Close()
	if err := r.end.Watch(); err != nil {
		t.Fatal(err)
	}
	taken := 0
	stop := make(chan struct{})
	time.AfterFunc(20*time.Millisecond, func() { close(stop) })
	if err := r.end.Write(make([]byte, 8<<20), func(n int) { taken += n }, stop); !errors.Is(err, ends.ErrStopped) {
		t.Fatalf("Write: %v, want ErrStopped", err)
	}
	go io.CopyN(io.Discard, f, int64(taken)+8)
	if err := r.end.Write(make([]byte, 8), func(int) {}, nil); err != nil {
		t.Errorf("Write after one that was stopped: %v", err)
	}
	r.end.Close()
}

// Close ends a Write that waits and has the looker look, and another end with the
// same descriptor has nothing to do with it.
func TestClose(t *testing.T) {
	set := newSet(t, 1)
	for range 100 {
		r, program := newReader(t, set)
		if err := r.end.Watch(); err != nil {
			t.Fatal(err)
		}
		wrote := make(chan error, 1)
		go func() { wrote <- r.end.Write(make([]byte, 4<<20), func(int) {}, nil) }()
		r.end.Close()
		r.end.Close()
		waitFor(t, "the last look", r.over)
		select {
		case err := <-wrote:
			if !errors.Is(err, os.ErrClosed) {
				t.Errorf("Write: %v, want os.ErrClosed", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("Write waits on after Close")
		}
		if r.end.Hold() {
			t.Error("Hold after Close")
		}
		unix.Close(program)
	}
}

// An end that was closed before Watch has its look.
func TestClosedBeforeWatch(t *testing.T) {
	r, program := newReader(t, newSet(t, 1))
	defer unix.Close(program)
	r.end.Close()
	if err := r.end.Watch(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Watch after Close: %v", err)
	}
	waitFor(t, "the last look", r.over)
}

// Park ends by what happens, and at once by what has happened since the look
// began.
func TestPark(t *testing.T) {
	r, program := newReader(t, newSet(t, 1))
	defer unix.Close(program)
	p := parker{begun: make(chan struct{}), news: make(chan struct{})}
	fd, err := unix.Dup(r.end.FD())
	if err != nil {
		t.Fatal(err)
	}
	r.end.Close()
	p.end = newSet(t, 1).New(fd, &p)
	if err := p.end.Watch(); err != nil {
		t.Fatal(err)
	}
	p.end.Poke()
	waitFor(t, "the look", p.begun)
	for range 3 {
		unix.Write(program, []byte("x"))
		waitFor(t, "news", p.news)
	}
	p.end.Close()
	waitFor(t, "the news of closing", p.news)
}

type parker struct {
	end         *ends.End
	begun, news chan struct{}
}

func (p *parker) Look(bool) { go p.LookAside() }

func (p *parker) LookAside() {
	close(p.begun)
	for range 4 {
		p.end.Park()
		p.news <- struct{}{}
	}
}
