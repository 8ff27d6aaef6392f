package notify

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestTargetMemory(t *testing.T) {
	p, l := startTarget(t)
	asked := make(chan string, 1)
	serve(t, p, l, func(n *Notification) {
		target, err := n.Target()
		if err != nil {
			t.Error(err)
		}
		b := make([]byte, 8)
		if err := target.Read(n.Pointer(1), b); err != nil {
			t.Error(err)
		}
		asked <- string(b)
		if err := target.Write(Piece{Addr: n.Pointer(1), Data: []byte("answered")}); err != nil {
			t.Error(err)
		}
		for _, addr := range []uint64{0, 8, 1 << 62, ^uint64(0)} {
			if err := target.Read(addr, b); !errors.Is(err, unix.EFAULT) {
				t.Errorf("read at %#x: %v, want EFAULT", addr, err)
			}
			if err := target.Write(Piece{Addr: addr, Data: b}); !errors.Is(err, unix.EFAULT) {
				t.Errorf("write at %#x: %v, want EFAULT", addr, err)
			}
			if err := target.Read(addr, nil); err != nil {
				t.Errorf("read of nothing at %#x: %v", addr, err)
			}
		}
		_ = n.Return(0)
	})
	p.tell("memory")
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if got := wait(t, asked, "the call"); got != "question" || line != "answered 0 0\n" {
		t.Errorf("read %q; the target has %q", got, line)
	}
}

func TestTargetFiles(t *testing.T) {
	p, l := startTarget(t)
	serve(t, p, l, func(n *Notification) {
		defer func() { _ = n.Return(0) }()
		target, err := n.Target()
		if err != nil {
			t.Error(err)
			return
		}
		fd, err := target.Fd(3)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
			t.Errorf("the copy's flags: %d, %v", flags, err)
		}
		if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
			t.Errorf("it is not the socket: %v", err)
		}
		for _, n := range []int{-1, 99999} {
			if _, err := target.Fd(n); !errors.Is(err, unix.EBADF) {
				t.Errorf("descriptor %d: %v, want EBADF", n, err)
			}
		}
		sameNetNS(t, target)
		creds, err := target.Creds()
		if err != nil || creds.TGID != p.cmd.Process.Pid || int(creds.UID) != os.Geteuid() || !creds.OwnUserNS {
			t.Errorf("%+v, %v", creds, err)
		}
	})
	p.do("socket")
}

func sameNetNS(t *testing.T, target *Target) {
	ns, err := target.NetNS()
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(ns)
	var theirs, ours unix.Stat_t
	if err := errors.Join(unix.Fstat(ns, &theirs), unix.Stat("/proc/self/ns/net", &ours)); err != nil {
		t.Error(err)
	}
	if theirs.Ino != ours.Ino {
		t.Error("another network namespace")
	}
}

func TestOpenTargetOfNobody(t *testing.T) {
	for _, tid := range []int{0, -1, 1 << 30} {
		if target, err := OpenTarget(tid); err == nil {
			target.Close()
			t.Errorf("task %d was opened", tid)
		}
	}
}

// A program may have more threads than are kept; and a number may come to mean
// another task.
func TestTargetCache(t *testing.T) {
	var c Targets
	defer c.Close()
	tids, end := threads(maxTargets + 10)
	for _, tid := range tids {
		target, err := c.get(tid)
		if err != nil {
			t.Fatal(err)
		}
		again, err := c.get(tid)
		if err != nil || target != again {
			t.Errorf("task %d is opened twice: %v", tid, err)
		}
	}
	if len(c.byTID) != maxTargets || len(c.order) != maxTargets {
		t.Errorf("%d and %d are kept, want %d", len(c.byTID), len(c.order), maxTargets)
	}
	last := tids[len(tids)-1]
	if last == os.Getpid() {
		last = tids[len(tids)-2] // which does not end
	}
	end()
	if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", last)); err == nil {
		t.Skip("the Go runtime keeps its threads here")
	}
	if target, err := c.get(last); err == nil {
		t.Errorf("a task that has ended is found: %+v", target)
	}
	if c.byTID[last] != nil {
		t.Error("it is kept")
	}
	before := len(c.order)
	c.Close()
	if len(c.byTID) != 0 || before != maxTargets-1 {
		t.Errorf("%d were kept, %d are left", before, len(c.byTID))
	}
}

// threads starts n threads; end waits until the kernel has forgotten them.
func threads(n int) (tids []int, end func()) {
	ids := make(chan int)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			runtime.LockOSThread() // the thread ends with the goroutine
			ids <- unix.Gettid()
			<-stop
		})
	}
	for range n {
		tids = append(tids, <-ids)
	}
	return tids, func() {
		close(stop)
		wg.Wait()
		for _, tid := range tids {
			if tid == os.Getpid() {
				continue // the runtime keeps the process's first thread
			}
			for unix.Tgkill(os.Getpid(), tid, 0) == nil {
				runtime.Gosched()
			}
		}
	}
}
