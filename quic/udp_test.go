package quic

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// asGo is what Go's poller asks for (runtime/netpoll_epoll.go).
const asGo = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// What the filter rests on: an epoll descriptor in which nobody calls epoll_wait,
// in another's, edge-triggered, tells of each packet that comes, be the one before
// read or not, and of none that goes. The socket itself tells of both.
func TestFilter(t *testing.T) {
	to, from := udpOn(t), udpOn(t)
	outer, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(outer)
	const plain, filtered = 1, 2
	for what, fd := range map[int32]int{plain: to.fd, filtered: to.in.fd} {
		if err := unix.EpollCtl(outer, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: asGo, Fd: what}); err != nil {
			t.Fatal(err)
		}
	}
	told := func(wait int) map[int32]bool {
		t.Helper()
		var events [4]unix.EpollEvent
		n, err := unix.EpollWait(outer, events[:], wait)
		for err == unix.EINTR {
			n, err = unix.EpollWait(outer, events[:], wait)
		}
		if err != nil {
			t.Fatal(err)
		}
		what := map[int32]bool{}
		for _, e := range events[:n] {
			what[e.Fd] = true
		}
		return what
	}
	send := func(u, to *udp) {
		t.Helper()
		if _, err := u.send([]byte("x"), nil, to.local); err != nil {
			t.Fatal(err)
		}
	}
	told(0) // EPOLLOUT, from the beginning
	for i := range 100 {
		send(from, to)
		for w := told(10000); !w[filtered]; w = told(10000) {
			if len(w) == 0 {
				t.Fatalf("packet %d came and the filter does not tell of it", i)
			}
		}
		if w := told(0); w[filtered] {
			t.Fatalf("packet %d was told of twice", i)
		}
		if i%3 == 0 {
			for to.tryReceive(0) {
				to.got.release()
			}
		}
	}
	for to.tryReceive(0) {
		to.got.release()
	}
	told(0)
	for i := range 100 {
		send(to, from)
		if w := told(0); w[filtered] {
			t.Fatalf("packet %d went and the filter tells of it", i)
		} else if !w[plain] {
			t.Logf("packet %d went and the socket does not tell of it: the filter is of no use here", i)
		}
	}
}

func udpOn(t *testing.T) *udp {
	t.Helper()
	return loopbackSocket(t, ListenOptions{}).cur.Load()
}

func loopbackSocket(t *testing.T, o ListenOptions) *socket {
	t.Helper()
	s, err := listenSocket(nil, netip.MustParseAddrPort("127.0.0.1:0"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// reader reads from s on a goroutine until that fails, and calls got for each
// packet.
func reader(t *testing.T, s interface {
	ReadBatch([]ipv4.Message, int) (int, error)
}, got func(packet []byte),
) (ended <-chan error) {
	t.Helper()
	c := make(chan error, 1)
	go func() {
		ms := make([]ipv4.Message, 3)
		for i := range ms {
			ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1452)}, make([]byte, 128)
		}
		for {
			n, err := s.ReadBatch(ms, 0)
			if err != nil {
				c <- err
				return
			}
			for _, m := range ms[:n] {
				got(m.Buffers[0][:m.N])
			}
		}
	}()
	return c
}

// No wake-up is lost: two senders, who wait for each burst of theirs to be read
// and pause for as long as it takes a reader to be about to wait. The socket
// sends meanwhile.
func TestNoWakeupIsLost(t *testing.T) {
	const bursts = 10000
	s, sink := loopbackSocket(t, ListenOptions{}), udpOn(t)
	var read [2]atomic.Uint32
	news := [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)}
	ended := reader(t, s, func(p []byte) {
		read[p[0]].Add(1)
		select {
		case news[p[0]] <- struct{}{}:
		default:
		}
	})
	var wg sync.WaitGroup
	for who := range byte(2) {
		from := udpOn(t)
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(who)))
			for sent, burst := uint32(0), 0; burst < bursts; burst++ {
				for range 1 + r.IntN(6) {
					if _, err := from.send([]byte{who}, nil, s.cur.Load().local); err != nil {
						t.Error(err)
						return
					}
					sent++
				}
				for late := time.After(20 * time.Second); read[who].Load() < sent; {
					select {
					case <-news[who]:
					case <-late:
						t.Errorf("sender %d, burst %d: %d of %d packets were read", who, burst, read[who].Load(), sent)
						return
					}
				}
				if r.IntN(2) == 0 {
					s.WriteMsgUDP([]byte("x"), nil, sink.local)
				}
				for end := time.Now().Add(time.Duration(r.IntN(20)) * time.Microsecond); time.Now().Before(end); {
				}
			}
		})
	}
	wg.Wait()
	s.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading ended with %v, want net.ErrClosed", err)
	}
}

// rebind has a reader that waits go on with the other socket.
func TestRebindWakes(t *testing.T) {
	s := loopbackSocket(t, ListenOptions{})
	got := make(chan byte, 1)
	reader(t, s, func(p []byte) { got <- p[0] })
	from := udpOn(t)
	for i := range byte(50) {
		if i > 0 {
			fd, err := bindUDP(netip.MustParseAddrPort("127.0.0.1:0"), ListenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.rebind(fd); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := from.send([]byte{i}, nil, s.LocalAddr().(*net.UDPAddr)); err != nil {
			t.Fatal(err)
		}
		select {
		case p := <-got:
			if p != i {
				t.Fatalf("packet %d, want %d", p, i)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("after %d changes nothing is read", i)
		}
	}
}

// An ICMP error comes to onError though no packet comes and none is sent after it.
func TestErrorWakes(t *testing.T) {
	gone := udpOn(t)
	gone.Close()
	for name, s := range map[string]*socket{"unconnected": loopbackSocket(t, ListenOptions{}), "connected": dialed(t, gone.local.AddrPort())} {
		t.Run(name, func(t *testing.T) {
			errs := make(chan socketError, 100)
			s.onError = func(e socketError) { errs <- e }
			reader(t, s, func([]byte) {})
			if _, _, err := s.WriteMsgUDP([]byte("x"), nil, gone.local); err != nil {
				t.Fatal(err)
			}
			select {
			case e := <-errs:
				if !e.icmp || e.errno != unix.ECONNREFUSED || e.dst != gone.local.AddrPort() {
					t.Errorf("%+v, want that %v refused", e, gone.local)
				}
			case <-time.After(20 * time.Second):
				t.Error("nothing was told")
			}
		})
	}
}

func dialed(t *testing.T, to netip.AddrPort) *socket {
	t.Helper()
	s, err := dialSocket(nil, netip.Addr{}, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Who has no room waits for some, and all arrives: the send buffer is small and
// the path slow. Close and rebind end the wait.
func TestSendWaitsForRoom(t *testing.T) {
	tc, err := exec.LookPath("tc")
	if err != nil {
		t.Skip("needs tc(8) of iproute2")
	}
	a, b := veth(t)
	to, err := listenSocket(b, netip.MustParseAddrPort("10.9.0.2:0"), ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	shape := func(verb, rate string) {
		t.Helper()
		err := a.Do(exec.Command(tc, "qdisc", verb, "dev", "va", "root", "tbf", "rate", rate, "burst", "2kb", "limit", "10mb").Run)
		if err != nil {
			t.Skipf("tbf, a queue of the kernel's: %v", err)
		}
	}
	shape("add", "20mbit")
	from, err := dialSocket(a, netip.Addr{}, udpAddrPort(to.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	small := func() {
		from.cur.Load().control(func(fd int) { err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8192) })
		if err != nil {
			t.Fatal(err)
		}
	}
	small()
	waits := func() bool {
		u := from.cur.Load()
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.room != nil
	}
	const senders, each = 3, 400
	var seen [senders][each]bool
	var left atomic.Int32
	left.Store(senders * each)
	all := make(chan struct{})
	reader(t, to, func(p []byte) {
		if len(p) < 5 {
			return // of those that fill the path
		}
		who, i := p[0], binary.NativeEndian.Uint32(p[1:])
		if seen[who][i] {
			t.Errorf("packet %d of sender %d came twice", i, who)
		}
		seen[who][i] = true
		if left.Add(-1) == 0 {
			close(all)
		}
	})
	var wg sync.WaitGroup
	for who := range byte(senders) {
		wg.Go(func() {
			p := make([]byte, 1200)
			p[0] = who
			for i := range uint32(each) {
				binary.NativeEndian.PutUint32(p[1:], i)
				if _, _, err := from.WriteMsgUDP(p, nil, nil); err != nil {
					t.Errorf("packet %d of sender %d: %v", i, who, err)
				}
			}
		})
	}
	wg.Wait()
	select {
	case <-all:
	case <-time.After(30 * time.Second):
		t.Fatalf("%d of %d packets did not come", left.Load(), senders*each)
	}
	if !waits() {
		t.Error("there was room all the time: nothing was tried")
	}

	// Nothing gets through any more, as good as.
	shape("change", "100bit")
	stuck := func() (ended chan error) {
		ended = make(chan error, 1)
		u := from.cur.Load()
		go func() {
			for {
				if _, _, err := from.WriteMsgUDP(make([]byte, 4), nil, nil); err != nil {
					ended <- err
					return
				}
				if from.cur.Load() != u {
					ended <- nil
					return
				}
			}
		}()
		until(t, "full send buffer", func() bool {
			var free bool
			u.control(func(fd int) {
				fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
				n, err := unix.Poll(fds, 0)
				free = n != 0 || err != nil
			})
			return !free && waits()
		})
		return ended
	}
	ended := stuck()
	fd, err := dialUDP(a, netip.Addr{}, udpAddrPort(to.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	if err := from.rebind(fd); err != nil {
		t.Fatal(err)
	}
	from.forget()
	within(t, "rebind", ended, nil)
	small()
	ended = stuck()
	from.Close()
	within(t, "Close", ended, net.ErrClosed)
}

func within(t *testing.T, what string, ended <-chan error, want error) {
	t.Helper()
	select {
	case err := <-ended:
		if !errors.Is(err, want) {
			t.Errorf("%s ended the wait for room with %v, want %v", what, err, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%s did not end the wait for room", what)
	}
}
