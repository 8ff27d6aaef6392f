package addfd

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// drain reads n bytes of ours.
func drain(t *testing.T, end, n int) {
	t.Helper()
	for n > 0 {
		b := make([]byte, n)
		got, ours, err := Recv(end, b)
		if err != nil || !ours || got == 0 {
			t.Fatalf("drain: %d bytes, ours %v, %v", got, ours, err)
		}
		n -= got
	}
}

// A connection that is not there yet: nothing to read, no room to write,
// whatever the program has set SO_SNDBUF to.
func TestFillLooksLikeConnecting(t *testing.T) {
	d := openDock(t)
	for _, sndbuf := range []int{0, 1, 4096, 1 << 20} {
		program, end := attached(t, d)
		if sndbuf > 0 {
			if err := SetSendBuffer(program, sndbuf); err != nil {
				t.Fatal(err)
			}
		}
		was, err := unix.GetsockoptInt(program, unix.SOL_SOCKET, unix.SO_SNDBUF)
		if err != nil {
			t.Fatal(err)
		}
		fillers, back, err := Fill(program)
		if err != nil {
			t.Fatal(err)
		}
		if fillers < 2 {
			t.Errorf("%d fillers: none would be left of them and be writable", fillers)
		}
		if got := pollBits(t, program); got != 0 {
			t.Errorf("poll while it connects: %#x, want 0", got)
		}
		if err := unix.Sendto(program, []byte("x"), unix.MSG_NOSIGNAL, nil); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("send while it connects: %v, want EAGAIN", err)
		}
		if _, _, err := unix.Recvfrom(program, make([]byte, 1), 0); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("recv while it connects: %v, want EAGAIN", err)
		}

		drain(t, end, fillers-1) // the one left is the tripwire
		if err := SetSendBuffer(program, back); err != nil {
			t.Fatal(err)
		}
		if got := pollBits(t, program); got != unix.POLLOUT {
			t.Errorf("poll when connected: %#x, want POLLOUT", got)
		}
		if now, _ := unix.GetsockoptInt(program, unix.SOL_SOCKET, unix.SO_SNDBUF); now != was {
			t.Errorf("SO_SNDBUF is %d afterwards, was %d", now, was)
		}
		if got := recvAll(t, end); got != "[.]" {
			t.Errorf("left are %q, want one byte of ours", got)
		}
		unix.Close(end)
	}
}

// One queue carries both, from any process that has the program's socket.
func TestRecvTellsApart(t *testing.T) {
	d := openDock(t)
	program, end := attached(t, d)
	defer unix.Close(end)
	trip := func() {
		t.Helper()
		if err := Trip(program); err != nil {
			t.Fatal(err)
		}
	}
	parent, child := startProcess(t, program), startProcess(t, program)
	trip()
	parent.must("write one.")
	trip()
	trip()
	child.must("write two..")
	parent.must("write three")
	trip()
	if got := recvAll(t, end); got != "[.]one.[..]two..three[.]" {
		t.Errorf("read %q", got)
	}

	// A buffer that a message does not fit in loses nothing of the tellings.
	child.must("write abc")
	trip()
	parent.must("write d")
	var got strings.Builder
	for range 5 {
		var b [1]byte
		n, ours, err := Recv(end, b[:])
		if err != nil || n != 1 {
			t.Fatal(n, err)
		}
		if ours {
			got.WriteString("[.]")
		} else {
			got.Write(b[:])
		}
	}
	if got.String() != "abc[.]d" {
		t.Errorf("read by the byte: %q", got.String())
	}
}

// What a program passes over a socket that it takes for TCP's goes nowhere; it
// must not stay open in the broker.
func TestRightsAreClosed(t *testing.T) {
	d := openDock(t)
	program, end := attached(t, d)
	defer unix.Close(end)
	pass, keep, err := pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, pass, program)
	unix.Close(pass)
	defer unix.Close(keep)
	before := countFds(t)
	p.must("pass")
	p.must("close")
	if got := recvAll(t, end); got != "x" {
		t.Errorf("read %q", got)
	}
	if after := countFds(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if !HungUp(keep) && pollBits(t, keep)&unix.POLLERR == 0 {
		t.Error("the descriptor that was passed is open somewhere")
	}
}

func pipe() (r, w int, err error) {
	var p [2]int
	err = unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
	return p[0], p[1], err
}

// A lost connection must never look like a clean end of file, and what came
// before it is still read.
func TestTripMakesCloseAReset(t *testing.T) {
	d := openDock(t)
	for name, lose := range map[string]func(t *testing.T, end int){
		"close": func(_ *testing.T, end int) { unix.Close(end) },
		"SIGKILL": func(t *testing.T, end int) {
			holder := startProcess(t, end)
			unix.Close(end)
			holder.kill()
		},
		"exit": func(t *testing.T, end int) {
			holder := startProcess(t, end)
			unix.Close(end)
			holder.end()
		},
	} {
		t.Run(name, func(t *testing.T) {
			program, end := attached(t, d)
			if err := unix.Sendto(end, []byte("pending"), unix.MSG_NOSIGNAL, nil); err != nil {
				t.Fatal(err)
			}
			if err := Trip(program); err != nil {
				t.Fatal(err)
			}
			if HungUp(program) {
				t.Error("hung up too early")
			}
			lose(t, end)
			if !HungUp(program) {
				t.Error("no HUP")
			}
			b := make([]byte, 100)
			n, err := unix.Read(program, b)
			if err != nil || string(b[:n]) != "pending" {
				t.Errorf("read %q, %v", b[:max(n, 0)], err)
			}
			if n, err := unix.Read(program, b); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("then %d, %v, want ECONNRESET", n, err)
			}
		})
	}
}

// A clean end of file is given on purpose: by shutdown.
func TestShutdownIsEndOfFile(t *testing.T) {
	d := openDock(t)
	program, end := attached(t, d)
	defer unix.Close(end)
	if err := Trip(program); err != nil {
		t.Fatal(err)
	}
	if err := unix.Shutdown(end, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(program, make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("read %d, %v, want an end of file", n, err)
	}
	if HungUp(program) || HungUp(end) {
		t.Error("a shutdown of one direction is no HUP")
	}
}

// The program closes with data unread: TCP would send a reset, and the broker
// has to know.
func TestProgramClosesWithUnread(t *testing.T) {
	d := openDock(t)
	for _, unread := range []bool{false, true} {
		program, _, err := New(true)
		if err != nil {
			t.Fatal(err)
		}
		end, err := d.Attach(program)
		if err != nil {
			t.Fatal(err)
		}
		if unread {
			if err := unix.Sendto(end, []byte("x"), unix.MSG_NOSIGNAL, nil); err != nil {
				t.Fatal(err)
			}
		}
		unix.Close(program)
		if !HungUp(end) {
			t.Error("no HUP")
		}
		n, _, err := Recv(end, make([]byte, 1))
		if unread && !errors.Is(err, unix.ECONNRESET) || !unread && (n != 0 || err != nil) {
			t.Errorf("unread %v: read %d, %v", unread, n, err)
		}
		unix.Close(end)
	}
}

// A full queue protects as well as a byte in it.
func TestTripOfFullQueue(t *testing.T) {
	d := openDock(t)
	program, end := attached(t, d)
	if _, _, err := Fill(program); err != nil {
		t.Fatal(err)
	}
	if err := Trip(program); err != unix.EAGAIN {
		t.Errorf("trip: %v, want EAGAIN", err)
	}
	unix.Close(end)
	if _, err := unix.Read(program, make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("read: %v, want ECONNRESET", err)
	}
	if err := Trip(program); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("trip of what is lost: %v, want an error", err)
	}
}
