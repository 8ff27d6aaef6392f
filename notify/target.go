package notify

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const pidfdThread = unix.O_EXCL // PIDFD_THREAD, Linux 6.9

// Target is a task under the filter: its files and memory.
type Target struct {
	TID   int
	pidfd int
	// Note is the listener's user's: what it knows of the task. It is gone when
	// the task is, or has been quiet.
	Note any
}

// OpenTarget finds a task by its thread id; Close it.
func OpenTarget(tid int) (*Target, error) {
	if tid <= 0 {
		return nil, fmt.Errorf("the target is in a pid namespace that is not visible from here: %w", unix.ESRCH)
	}
	fd, err := unix.PidfdOpen(tid, pidfdThread)
	if err == unix.EINVAL { // before 6.9 only thread group leaders have pidfds
		leader, lerr := tgidOf(tid)
		if lerr != nil {
			return nil, lerr
		}
		fd, err = unix.PidfdOpen(leader, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", tid, err)
	}
	return &Target{TID: tid, pidfd: fd}, nil
}

// ended reports that the task is gone and its number may be another's. Asking
// with signal 0 is the cheapest way; EPERM says that it is there, too.
func (t *Target) ended() bool {
	return unix.PidfdSendSignal(t.pidfd, 0, nil, 0) == unix.ESRCH
}

// Close gives the task's pidfd back.
func (t *Target) Close() error { return unix.Close(t.pidfd) }

// Fd gives a copy of the target's descriptor n, close-on-exec, the caller's to
// close (pidfd_getfd(2), Linux 5.6). EBADF: it has no such descriptor. EPERM:
// no ptrace access.
func (t *Target) Fd(n int) (int, error) {
	return unix.PidfdGetfd(t.pidfd, n, 0)
}

// Read fills b from the target's memory at addr. EFAULT: not all of it is
// readable there (process_vm_readv(2)).
func (t *Target) Read(addr uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(t.TID, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	return vmResult(n, len(b), err)
}

// Piece is memory to be written at an address of a target.
type Piece struct {
	Addr uint64
	Data []byte
}

// Write puts pieces into the target's memory, in their order (at most IOV_MAX).
// EFAULT: not all of it is writable; what came before that is written.
func (t *Target) Write(pieces ...Piece) error {
	local := make([]unix.Iovec, 0, 2)
	remote := make([]unix.RemoteIovec, 0, 2)
	want := 0
	for _, p := range pieces {
		if len(p.Data) == 0 {
			continue
		}
		local = append(local, unix.Iovec{Base: &p.Data[0]})
		local[len(local)-1].SetLen(len(p.Data))
		remote = append(remote, unix.RemoteIovec{Base: uintptr(p.Addr), Len: len(p.Data)})
		want += len(p.Data)
	}
	if want == 0 {
		return nil
	}
	n, err := unix.ProcessVMWritev(t.TID, local, remote, 0)
	return vmResult(n, want, err)
}

func vmResult(n, want int, err error) error {
	if err == nil && n != want {
		err = unix.EFAULT
	}
	return err
}

// NetNS opens the target's network namespace; the caller closes it.
func (t *Target) NetNS() (int, error) {
	// PIDFD_GET_NET_NAMESPACE (Linux 6.11) needs no /proc.
	const pidfdGetNetNamespace = 0xff04
	fd, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(t.pidfd), pidfdGetNetNamespace, 0)
	if e == 0 { // close-on-exec as all such (open_namespace in fs/nsfs.c)
		return int(fd), nil
	}
	return unix.Open("/proc/"+strconv.Itoa(t.TID)+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// Creds are what the kernel would check a target's network calls by.
type Creds struct {
	TGID        int
	UID         uint32 // effective
	CapNetBind  bool   // CAP_NET_BIND_SERVICE effective
	CapNetAdmin bool   // CAP_NET_ADMIN effective
	OwnUserNS   bool   // it is in our user namespace
	UserNS      string // its own, as /proc names it: "user:[INODE]"; empty when not to be had
}

// Caller tells the target's process and its effective uid, as Creds does but
// cheaper where the kernel tells by pidfd (PIDFD_GET_INFO, Linux 6.13).
func (t *Target) Caller() (tgid int, uid uint32, err error) {
	const want = unix.PIDFD_INFO_PID | unix.PIDFD_INFO_CREDS
	info := unix.PidfdInfo{Mask: want}
	if unix.IoctlPidfdInfo(t.pidfd, &info) == nil && info.Mask&want == want && info.Tgid != 0 {
		return int(info.Tgid), info.Euid, nil
	}
	c, err := t.Creds()
	return c.TGID, c.UID, err
}

// Creds reads /proc/TID/status. Without a /proc it answers the most that is
// safe to assume: an ordinary user.
func (t *Target) Creds() (Creds, error) {
	dir := "/proc/" + strconv.Itoa(t.TID)
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return Creds{}, err
	}
	c := Creds{TGID: t.TID}
	c.readStatus(b)
	theirs, err1 := os.Readlink(dir + "/ns/user")
	ours, err2 := os.Readlink("/proc/self/ns/user")
	c.OwnUserNS = err1 == nil && err2 == nil && theirs == ours
	c.UserNS = theirs
	return c, nil
}

// readStatus takes what /proc/TID/status says (proc_pid_status(5)). The
// program chooses its name in there.
func (c *Creds) readStatus(b []byte) {
	for line := range bytes.Lines(b) {
		key, val, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		f := strings.Fields(val)
		switch {
		case key == "Tgid" && len(f) == 1:
			c.TGID, _ = strconv.Atoi(f[0])
		case key == "Uid" && len(f) == 4:
			u, _ := strconv.ParseUint(f[1], 10, 32)
			c.UID = uint32(u)
		case key == "CapEff" && len(f) == 1:
			caps, _ := strconv.ParseUint(f[0], 16, 64)
			c.CapNetBind = caps&(1<<unix.CAP_NET_BIND_SERVICE) != 0
			c.CapNetAdmin = caps&(1<<unix.CAP_NET_ADMIN) != 0
		}
	}
}

func tgidOf(tid int) (int, error) {
	c, err := (&Target{TID: tid}).Creds()
	return c.TGID, err
}

// Targets keeps the pidfds of the tasks that were used last. A pidfd never
// comes to mean another task: a task that got the number of one that has ended
// is opened anew. The zero Targets is empty and ready.
type Targets struct {
	mu    sync.Mutex // guards what follows
	byTID map[int]*Target
	order []int // oldest first
	used  bool  // since the timer was set
	timer *time.Timer
}

const (
	maxTargets = 64
	// idleTargets is how long after the last use they are kept at the most.
	idleTargets = time.Second
)

// Use calls f with the task tid, which is f's to use but not to keep.
func (c *Targets) Use(tid int, f func(*Target) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.get(tid)
	if err != nil {
		return err
	}
	c.used = true
	if c.timer == nil {
		c.timer = time.AfterFunc(idleTargets, c.tick)
	}
	return f(t)
}

// tick forgets all when none was used since it last came.
func (c *Targets) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used {
		c.used = false
		c.timer.Reset(idleTargets)
		return
	}
	c.timer = nil
	c.dropAll()
}

func (c *Targets) get(tid int) (*Target, error) {
	if t := c.byTID[tid]; t != nil {
		if !t.ended() {
			return t, nil
		}
		c.drop(tid)
	}
	t, err := OpenTarget(tid)
	if err != nil {
		return nil, err
	}
	if len(c.order) == maxTargets {
		c.drop(c.order[0])
	}
	if c.byTID == nil {
		c.byTID = make(map[int]*Target)
	}
	c.byTID[tid] = t
	c.order = append(c.order, tid)
	return t, nil
}

// Sweep forgets the tasks that have ended.
func (c *Targets) Sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, tid := range append([]int{}, c.order...) {
		if c.byTID[tid].ended() {
			c.drop(tid)
		}
	}
}

func (c *Targets) drop(tid int) {
	unix.Close(c.byTID[tid].pidfd)
	delete(c.byTID, tid)
	for i, o := range c.order {
		if o == tid {
			c.order = append(c.order[:i], c.order[i+1:]...)
			return
		}
	}
}

// Close gives every pidfd back.
func (c *Targets) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.dropAll()
}

func (c *Targets) dropAll() {
	for len(c.order) > 0 {
		c.drop(c.order[0])
	}
}
