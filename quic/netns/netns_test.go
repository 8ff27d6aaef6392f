package netns

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func inode(t *testing.T) uint64 {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		t.Error(err)
	}
	return st.Ino
}

func TestSelf(t *testing.T) {
	own, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := FromFd(fd)
	if err != nil || ns != own || own.ID() != inode(t) {
		t.Errorf("%v, %v, want %v", ns, err, own)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
		t.Error("fd was not closed")
	}
	want := errors.New("mine")
	if err := own.Do(func() error { return want }); err != want {
		t.Error(err)
	}
	var none *NS
	if none.ID() != own.ID() || none.Do(func() error { return nil }) != nil || none.Close() != nil {
		t.Error("nil is not Self")
	}
}

func TestFromFdRefuses(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	fd, _ := unix.Dup(int(f.Fd()))
	f.Close()
	if _, err := FromFd(fd); !errors.Is(err, unix.EINVAL) {
		t.Errorf("/dev/null: %v", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
		t.Error("fd was not closed")
	}
}

func TestDo(t *testing.T) {
	own, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	fds := make(chan int)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		if unix.Unshare(unix.CLONE_NEWNET) != nil {
			fds <- -1
			return
		}
		fd, _ := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		fds <- fd
	}()
	fd := <-fds
	if fd < 0 {
		t.Skip("needs CAP_SYS_ADMIN to make a network namespace")
	}
	ns, err := FromFd(fd)
	if err != nil {
		t.Fatal(err)
	}
	if ns.ID() == own.ID() {
		t.Fatal("same namespace")
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			ns.Do(func() error {
				if got := inode(t); got != ns.ID() {
					t.Errorf("inside is %d, want %d", got, ns.ID())
				}
				return nil
			})
			if got := inode(t); got != own.ID() {
				t.Errorf("outside is %d, want %d", got, own.ID())
			}
		})
	}
	wg.Wait()
	if err := ns.UDP(unix.AF_INET, func(fd int) bool {
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if errors.Is(err, unix.ENOPROTOOPT) { // before Linux 5.14
			return true
		}
		here, err2 := ownCookie()
		if err != nil || err2 != nil || cookie == here {
			t.Errorf("the lent socket is of namespace %d, we are in %d (%v, %v)", cookie, here, err, err2)
		}
		return true
	}); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := ns.UDP(unix.AF_INET, func(int) bool { return true }); err != ErrClosed {
		t.Errorf("UDP after Close: %v", err)
	}
	if err := ns.Do(func() error { return nil }); err != ErrClosed {
		t.Errorf("after Close: %v", err)
	}
}

func ownCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}
