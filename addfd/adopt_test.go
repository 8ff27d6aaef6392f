package addfd

import (
	"log/slog"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAdopt: another process goes on with an anchor, connects by it, and sees
// the program's closing by the file system's word and not by looking.
func TestAdopt(t *testing.T) {
	dir := openDir(t)
	first := NewAnchors(dir, slog.New(slog.DiscardHandler))
	fd, _, err := New(false)
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, &fd)
	a, err := first.Hold(fd, func() {})
	if err != nil {
		t.Fatal(err)
	}
	path, ok := a.File()
	if !ok {
		t.Skip("anchors are names here, which cannot be kept")
	}
	if err := unix.Listen(fd, 4); err != nil {
		t.Fatal(err)
	}
	kept, err := unix.FcntlInt(uintptr(path), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a.Release()
	first.Close()

	second := NewAnchors(dir, slog.New(slog.DiscardHandler))
	defer second.Close()
	again, err := unix.FcntlInt(uintptr(kept), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	b, err := second.Adopt(kept, func() { close(closed) })
	if err != nil {
		t.Fatal(err)
	}
	if b.wd == 0 {
		t.Error("the adopted anchor is not watched")
	}
	end, err := b.Connect()
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(end)
	second.mu.Lock()
	clear(second.probed)
	second.mu.Unlock()
	unix.Close(fd)
	fd = -1
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("the closing was not seen")
	}
	if _, err := second.Adopt(again, func() {}); err != unix.ECONNREFUSED {
		t.Errorf("an anchor of a closed socket is adopted: %v", err)
	}
}
