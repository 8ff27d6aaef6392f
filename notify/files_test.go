package notify

import (
	"testing"
)

// TestFiles: both ways of finding descriptors find the same.
func TestFiles(t *testing.T) {
	p, l := startTarget(t)
	defer func() {
		l.Stop()
		_ = l.Serve(func(*Notification) {})
	}()
	pid := p.cmd.Process.Pid
	want := make(map[int]string)
	for n, link := range Files(pid) {
		want[n] = link
	}
	if len(want) < 3 {
		t.Fatalf("a process has the files %v", want)
	}
	if filteredSize(pid) == 0 {
		t.Skip("the process's first thread is not the one under the filter")
	}
	got := make(map[int]string)
	copyEach(pid, func(n int, link string) bool {
		got[n] = link
		return true
	})
	if len(got) != len(want) {
		t.Errorf("copies show %v, /proc shows %v", got, want)
	}
	for n, link := range want {
		if got[n] != link {
			t.Errorf("descriptor %d: %q, want %q", n, got[n], link)
		}
	}
}
