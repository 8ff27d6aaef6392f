// Package busypoll has a goroutine that is about to wait look for a little while
// first whether there is something to do, as net.core.busy_poll does for the
// kernel's sockets (socket(7), SO_BUSY_POLL).
//
// Waking an idle processor takes 20 to 50 µs on many machines, virtual ones above
// all: more than a broker does with a message. A request and its answer pass the
// broker four times and more. Where messages have come that soon of late, looking for
// the next costs about what sleeping and waking would.
package busypoll

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// patience is how many looks in a row may be in vain until some are left out,
	// each time twice as many, up to most.
	patience = 4
	most     = 128
	// wanted is how long others keep a processor that they were given, who compute
	// and do not only answer: a sleeper would have been woken on another. For that so
	// many looks are left out.
	wanted = time.Millisecond
	away   = 1000
	// bulk is how many octets in a period are too many for anybody to look: 2 Gbit/s.
	// The processor is wanted then, and packets gather meanwhile.
	bulk   = 256 << 10
	period = time.Millisecond
)

// The process's: it is one processor that is kept awake.
var (
	limit   atomic.Int64 // how long a look may take, in ns; 0: there is none
	poller  atomic.Int64 // descriptor of the runtime's epoll instance
	looking atomic.Bool
	carried atomic.Int64 // octets, in this period

	// Of whoever has looking.
	vain  int           // looks in a row
	skip  int           // so many are left out yet
	begun time.Duration // of the period, after loaded
	much  bool          // was carried in the one before
)

var loaded = time.Now()

// Set has looks last for d at most; 0 ends them. An error is about speed only: there
// are no looks then.
func Set(d time.Duration) error {
	if d > 0 && poller.Load() == 0 {
		fd, err := findPoller()
		if err != nil {
			return fmt.Errorf("busy polling: %w", err)
		}
		poller.Store(int64(fd))
	}
	limit.Store(int64(max(0, d)))
	return nil
}

// findPoller finds the epoll instance that Go's runtime waits for: the one that has
// a descriptor which only it was told of (proc(5), fdinfo).
func findPoller() (int, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return -1, err
	}
	defer r.Close()
	defer w.Close()
	raw, err := r.SyscallConn()
	if err != nil {
		return -1, err
	}
	var known int
	if err := raw.Control(func(fd uintptr) { known = int(fd) }); err != nil {
		return -1, err
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1, err
	}
	for _, f := range files {
		if link, err := os.Readlink("/proc/self/fd/" + f.Name()); err != nil || link != "anon_inode:[eventpoll]" {
			continue
		}
		info, err := os.ReadFile("/proc/self/fdinfo/" + f.Name())
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(info)) {
			if words := strings.Fields(line); len(words) > 1 && words[0] == "tfd:" && words[1] == strconv.Itoa(known) {
				return strconv.Atoi(f.Name())
			}
		}
	}
	return -1, fmt.Errorf("the runtime's epoll instance is not among this process's descriptors")
}

// Carried tells that so many octets were sent or have come.
func Carried(octets int) { carried.Add(int64(octets)) }

// Before is called by a goroutine that has nothing to do at the moment and would
// wait for the runtime's poller. It returns when that has something for anybody, or
// when looking on would not pay. Between two looks it offers the processor to
// whoever wants it (sched_yield(2)).
func Before() {
	d := time.Duration(limit.Load())
	if d == 0 || !looking.CompareAndSwap(false, true) {
		return
	}
	defer looking.Store(false)
	if skip > 0 {
		skip--
		return
	}
	begin := time.Since(loaded)
	if after := begin - begun; after > period {
		much = carried.Swap(0) > bulk*int64(after/period)
		begun = begin
	}
	if much {
		return
	}
	runtime.Gosched() // who has something to do goes first
	for now := begin; !ready(); {
		if now-begin > d {
			if vain++; vain >= patience {
				skip = min(most, 1<<min(vain-patience, 30))
			}
			return
		}
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		before := now
		if now = time.Since(loaded); now-before > wanted {
			skip = away
			return
		}
	}
	vain = 0
}

// ready reports that the runtime's poller has something. It takes nothing from it.
func ready() bool {
	p := unix.PollFd{Fd: int32(poller.Load()), Events: unix.POLLIN}
	var now unix.Timespec
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno == 0 && n > 0
}
