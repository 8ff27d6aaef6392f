package notify

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A descriptor that got another file is found by its number in the epoll
// instances that watched it, and so is what they tell of it; the old file is
// told of no more.
func TestMoveRegistrations(t *testing.T) {
	self, err := OpenTarget(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	before, after := socketPair(t), socketPair(t)
	was, err := unix.Dup(before[0])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(was)
	n := before[0]
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: 7, Pad: -8}
	watching, elsewhere := epollWith(t, n, event), epollWith(t, after[1], event)
	if err := unix.Dup3(after[0], n, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}

	if err := self.MoveRegistrations(n, was, after[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(before[1], []byte("x")); err != nil {
		t.Fatal(err)
	}
	got := make([]unix.EpollEvent, 4)
	if k, err := unix.EpollWait(watching, got, 0); k != 0 || err != nil {
		t.Errorf("of the old file: %v, %v", got[:max(k, 0)], err)
	}
	if _, err := unix.Write(after[1], []byte("x")); err != nil {
		t.Fatal(err)
	}
	want := unix.EpollEvent{Events: unix.EPOLLIN, Fd: 7, Pad: -8}
	if k, err := unix.EpollWait(watching, got, 0); k != 1 || err != nil || got[0] != want {
		t.Errorf("of the new file: %v, %v, want %v", got[:max(k, 0)], err, want)
	}
	if k, err := unix.EpollWait(watching, got, 0); k != 0 || err != nil {
		t.Errorf("it is not edge-triggered any more: %v, %v", got[:max(k, 0)], err)
	}
	for name, epoll := range map[string]int{"the number": watching, "another number": elsewhere} {
		at := map[int]int{watching: n, elsewhere: after[1]}[epoll]
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_MOD, at, &event); err != nil {
			t.Errorf("modify by %s: %v", name, err)
		}
	}
	sameFile(t, n, after[0]) // the process's own table is as it was
}

func TestFindRegistration(t *testing.T) {
	info := []byte("pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t1057\n" +
		"tfd:        5 events: 8000001d data:                5  pos:0 ino:28d4 sdev:8\n" +
		"tfd:       15 events:       19 data: fffffff8ffffffff  pos:0 ino:28d5 sdev:8\n")
	for _, c := range []struct {
		n     int
		ino   uint64
		event unix.EpollEvent
		found bool
	}{
		{5, 0x28d4, unix.EpollEvent{Events: 0x8000001d, Fd: 5}, true},
		{15, 0x28d5, unix.EpollEvent{Events: 0x19, Fd: -1, Pad: -8}, true},
		{5, 0x28d5, unix.EpollEvent{}, false}, // the number's earlier file
		{1, 0x28d4, unix.EpollEvent{}, false},
		{0, 1057, unix.EpollEvent{}, false},
	} {
		if event, found := findRegistration(info, c.n, c.ino); event != c.event || found != c.found {
			t.Errorf("descriptor %d, inode %x: %v, %v, want %v, %v", c.n, c.ino, event, found, c.event, c.found)
		}
	}
}

func socketPair(t *testing.T) [2]int {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(pair[0])
		unix.Close(pair[1])
	})
	return pair
}

func epollWith(t *testing.T, fd int, event unix.EpollEvent) int {
	t.Helper()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(epoll) })
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		t.Fatal(err)
	}
	return epoll
}

func sameFile(t *testing.T, a, b int) {
	t.Helper()
	var sa, sb unix.Stat_t
	if err := unix.Fstat(a, &sa); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fstat(b, &sb); err != nil {
		t.Fatal(err)
	}
	if sa.Ino != sb.Ino {
		t.Errorf("descriptors %d and %d are different files", a, b)
	}
}
