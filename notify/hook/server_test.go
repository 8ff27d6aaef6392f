package hook

import (
	"encoding/hex"
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/poemq/poemq/notify"
	"golang.org/x/sys/unix"
)

const soon = 20 * time.Second

// program is this process as one that has introduced itself.
type program struct {
	t  *testing.T
	fd int
	s  *Server
	// served is closed when Serve returns.
	served chan struct{}
}

// introduce starts a server with handle and says hello to it.
func introduce(t *testing.T, handle func(*Call)) *program {
	t.Helper()
	s := NewServer()
	p := &program{t: t, s: s, served: make(chan struct{}), fd: -1}
	p.hello()
	go func() {
		s.Serve(handle, func(g *Guest) { s.Add(g) })
		close(p.served)
	}()
	t.Cleanup(func() {
		unix.Close(p.fd)
		s.Stop()
		select {
		case <-p.served:
		case <-time.After(soon):
			t.Error("the server does not end")
		}
	})
	if a := p.hear(); a.kind != answerWelcome {
		t.Fatalf("answer to hello: %+v", a)
	}
	return p
}

func (p *program) hello() {
	p.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	h := Hello{PID: os.Getpid(), fds: helloEnd}
	g, err := newGuest(h.encode(), &files{pair[1]}, os.Getpid())
	if err != nil {
		p.t.Fatal(err)
	}
	p.fd = pair[0]
	tv := unix.Timeval{Sec: int64(soon / time.Second)}
	if err := unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		p.t.Fatal(err)
	}
	if !p.s.Add(g) {
		p.t.Fatal("the server has ended")
	}
}

func (p *program) send(b []byte, fds ...int) {
	p.t.Helper()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
		ne.PutUint32(b[64:], callFile)
	}
	ne.PutUint32(b[12:], uint32(unix.Getpid()))
	if err := unix.Sendmsg(p.fd, b, oob, nil, 0); err != nil {
		p.t.Fatal(err)
	}
}

type heard struct {
	answer
	data []byte
	fds  files
}

func (p *program) hear() heard {
	p.t.Helper()
	b, oob := make([]byte, 8192), make([]byte, 512)
	n, oobn, _, _, err := unix.Recvmsg(p.fd, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n < sizeAnswer {
		p.t.Fatalf("answer of %d bytes: %v", n, err)
	}
	fds, _, err := control(oob[:oobn], nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(fds.close)
	h := heard{data: b[sizeAnswer:n], fds: fds}
	h.kind, h.id, h.val = ne.Uint32(b), ne.Uint32(b[4:]), int64(ne.Uint64(b[8:]))
	return h
}

func (p *program) tell(kind, id uint32, value int) {
	b := callBytes(id, int32(value), [6]uint64{})
	ne.PutUint32(b, kind)
	p.send(b)
}

// A call comes with its file and memory, and its answer brings memory back.
func TestCallAndAnswer(t *testing.T) {
	p := introduce(t, func(r *Call) {
		var b [4]byte
		fd, err := r.File(7)
		if err != nil || r.Call() != notify.GetSockName || r.Int(0) != 7 || r.Read(0x1002, b[:2]) != nil || b[0] != 'c' {
			t.Errorf("%v of %d: %q, %v", r.Call(), r.Int(0), b, err)
		}
		unix.Close(fd)
		if err := r.Write(notify.Piece{Addr: 0x2000, Data: []byte("back")}); err != nil {
			t.Error(err)
		}
		if err := r.Return(3); err != nil {
			t.Error(err)
		}
		if err := r.Return(4); !errors.Is(err, notify.ErrGone) {
			t.Errorf("a second answer: %v", err)
		}
	})
	p.send(callBytes(1, 51, [6]uint64{7, 0x3000, 0x1000}, mem{0x1000, []byte("abcd")}), p.fd)
	a := p.hear()
	if a.kind != answerReturn || a.id != 1 || a.val != 3 || string(a.data) != "back" {
		t.Errorf("%+v %q", a, a.data)
	}
}

// What is installed is the program's when it says so, and is given back when it
// does not.
func TestReceipt(t *testing.T) {
	type receipt struct {
		at  int
		err error
	}
	got := make(chan receipt, 1)
	p := introduce(t, func(r *Call) {
		r.Install(0, false, func(at int, err error) { got <- receipt{at, err} })
	})
	await := func(want receipt) {
		t.Helper()
		select {
		case g := <-got:
			if g.at != want.at || !errors.Is(g.err, want.err) {
				t.Errorf("%+v, want %+v", g, want)
			}
		case <-time.After(soon):
			t.Fatal("no receipt")
		}
	}
	for id, c := range []struct {
		says int
		want receipt
	}{{5, receipt{5, nil}}, {-int(unix.EMFILE), receipt{-1, unix.EMFILE}}, {-int(unix.EFAULT), receipt{-1, unix.EFAULT}}} {
		p.send(callBytes(uint32(id), 43, [6]uint64{3}))
		if a := p.hear(); a.kind != answerInstall || len(a.fds) != 1 {
			t.Fatalf("%+v", a)
		}
		p.tell(kindTaken, uint32(id), c.says)
		await(c.want)
	}
	p.send(callBytes(9, 43, [6]uint64{3}))
	p.hear()
	unix.Close(p.fd)
	await(receipt{-1, notify.ErrGone})
}

// A signal takes the program out of its call: what came first counts.
func TestCancel(t *testing.T) {
	calls := make(chan *Call, 1)
	left := make(chan bool, 1)
	p := introduce(t, func(r *Call) {
		r.Cancelled = func() { left <- r.Valid() }
		calls <- r
	})
	p.send(callBytes(1, 43, [6]uint64{3}))
	r := <-calls
	if !r.Valid() {
		t.Error("nobody waits, though nothing happened")
	}
	p.tell(kindCancel, 1, 0)
	if a := p.hear(); a.kind != answerCancelled || a.id != 1 {
		t.Errorf("%+v", a)
	}
	if <-left {
		t.Error("it still waits")
	}
	p.send(callBytes(2, 43, [6]uint64{3}))
	r = <-calls
	answered := make(chan error)
	r.Post(func() { answered <- r.Return(0) })
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	p.tell(kindCancel, 2, 0)
	if a := p.hear(); a.kind != answerReturn || a.id != 2 {
		t.Errorf("%+v, though the answer was first", a)
	}
	p.send(callBytes(3, 43, [6]uint64{3}))
	<-calls
	unix.Close(p.fd)
	if <-left {
		t.Error("it still waits, though its connection is closed")
	}
}

// A child has its parent's connections, and not its rights: what it sends on one
// is not taken for the parent's.
func TestChildOnItsParentsConnection(t *testing.T) {
	calls := make(chan uint64, 4)
	p := introduce(t, func(r *Call) {
		calls <- r.Ptr(1)
		_ = r.Return(0)
	})
	child := exec.Command("python3", "-c", `import socket; socket.socket(fileno=3).send(bytes.fromhex("`+
		hex.EncodeToString(callBytes(1, 49, [6]uint64{3, 0xbad}))+`"))`)
	file := os.NewFile(uintptr(p.dup()), "connection")
	defer file.Close()
	child.ExtraFiles = []*os.File{file}
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.send(callBytes(2, 49, [6]uint64{3, 0x600d}))
	if a := p.hear(); a.id != 2 {
		t.Errorf("the first answer is to call %d, want 2", a.id)
	}
	if got := <-calls; got != 0x600d {
		t.Errorf("the child's call was taken for its parent's: %#x", got)
	}
	h := Hello{PID: os.Getpid(), fds: helloEnd}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	if _, err := newGuest(h.encode(), &files{pair[1]}, os.Getppid()); !errors.Is(err, errSender) {
		t.Errorf("a hello with another process's pair: %v", err)
	}
}

// What a process says before its end counts, whatever is heard of first.
func TestReceiptBeforeTheEnd(t *testing.T) {
	const processes = 100
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	hello := Hello{fds: helloEnd}
	child := exec.Command("python3", "-c", `
import array, os, socket, struct, sys
hello, call = bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2])
door = socket.socket(fileno=3)
for _ in range(int(sys.argv[3])):
    if os.fork() == 0:
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        says = hello[:24] + struct.pack("i", os.getpid()) + hello[28:]
        door.sendmsg([says], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [b.fileno()]))])
        b.close()
        a.recv(9000)
        a.send(call)
        a.recv(9000)
        a.send(struct.pack("IIi", 3, 1, 7) + call[12:])
        os._exit(0)
    os.wait()
`, hex.EncodeToString(hello.encode()), hex.EncodeToString(callBytes(1, 43, [6]uint64{3})), strconv.Itoa(processes))
	child.ExtraFiles = []*os.File{theirs}
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	theirs.Close()
	front, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	heard := make(chan bool, processes)
	s := NewServer()
	s.Linger = soon // from one process to the next
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.Serve(func(r *Call) {
			r.Install(0, false, func(at int, err error) { heard <- at == 7 && err == nil })
		}, func(g *Guest) { g.Close() })
	}()
	buf, oob := make([]byte, maxMessage), make([]byte, oobSize)
	for i := range processes {
		_ = front.SetReadDeadline(time.Now().Add(soon))
		n, oobn, _, _, err := front.(*net.UnixConn).ReadMsgUnix(buf, oob)
		if err != nil {
			t.Fatalf("hello %d: %v", i, err)
		}
		fds, _, err := control(oob[:oobn], nil)
		h, herr := DecodeHello(buf[:n])
		if err != nil || herr != nil {
			t.Fatal(err, herr)
		}
		g, err := newGuest(buf[:n], &fds, h.PID)
		if err != nil {
			t.Fatal(err)
		}
		if !s.Add(g) {
			t.Fatal("the server has ended")
		}
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	unheard := 0
	for range processes {
		select {
		case good := <-heard:
			if !good {
				unheard++
			}
		case <-time.After(soon):
			t.Fatal("a process ended, and nobody says what became of its call")
		}
	}
	if unheard > 0 {
		t.Errorf("of %d receipts %d were not heard", processes, unheard)
	}
	s.Stop()
	select {
	case <-served:
	case <-time.After(soon):
		t.Error("the server does not end")
	}
}

func (p *program) dup() int {
	fd, err := unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	return fd
}

// Garbage ends a connection, not the server.
func TestGarbage(t *testing.T) {
	p := introduce(t, func(r *Call) { _ = r.Return(0) })
	first := p.fd
	if err := unix.Send(first, []byte("garbage"), 0); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(first, make([]byte, 8)); n != 0 {
		t.Errorf("after garbage: %d bytes, %v", n, err)
	}
	unix.Close(first)
	p.hello()
	p.hear()
	p.send(callBytes(1, 41, [6]uint64{2, 1}))
	if a := p.hear(); a.kind != answerReturn {
		t.Errorf("%+v", a)
	}
}
