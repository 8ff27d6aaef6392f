package broker

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Threads changes a whole process, so it is tried in one of its own.
func TestThreads(t *testing.T) {
	if os.Getenv("POEMQ_TEST_THREADS") == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestThreads$", "-test.v")
		c.Env = append(os.Environ(), "POEMQ_TEST_THREADS=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	chosen := make(chan int)
	go func() { // a policy that was chosen before
		runtime.LockOSThread()
		if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
			t.Error(err)
		}
		chosen <- unix.Gettid()
		<-chosen
	}()
	idle := <-chosen
	before := runtime.GOMAXPROCS(0)
	if err := Threads(0); err != nil {
		t.Fatal(err)
	}
	begun, end := make(chan struct{}), make(chan struct{})
	for range 8 { // each has a thread, most of them new ones
		go func() {
			runtime.LockOSThread()
			begun <- struct{}{}
			<-end
		}()
		<-begun
	}
	if got, want := runtime.GOMAXPROCS(0), max(1, before/2); got != want && os.Getenv("GOMAXPROCS") == "" {
		t.Errorf("%d places for goroutines, want %d", got, want)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		a, err := unix.SchedGetAttr(tid, 0)
		want := uint32(unix.SCHED_BATCH)
		if tid == idle {
			want = unix.SCHED_IDLE
		}
		if err == nil && a.Policy != want {
			t.Errorf("thread %d: policy %d, want %d", tid, a.Policy, want)
		}
		// Another thread's is for CAP_SYS_NICE to know.
		slack, err := os.ReadFile("/proc/" + task.Name() + "/timerslack_ns")
		if got := strings.TrimSpace(string(slack)); err == nil && got != strconv.Itoa(timerSlack) {
			t.Errorf("thread %d: timer slack %s ns, want %d", tid, got, timerSlack)
		}
	}
	close(end)
	close(chosen)
}
