package hook

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/poemq/poemq/notify"
	"golang.org/x/sys/unix"
)

var errGone = notify.ErrGone

// Call is one call that waits for its answer. As with a notify.Notification its
// methods are for the server's turns, but for Valid, Post and Anywhere, and exactly
// one of the answers is given.
type Call struct {
	s  *Server
	c  *conn
	id uint32

	call notify.Call
	args [6]uint64
	tid  int // the thread as it sees itself
	mems []mem

	file, netns int // descriptors that came with it, or -1; until the handler returns

	// What the answer will bring.
	writes  []write
	replace []int32
	with    files // one for each of replace

	fresh atomic.Bool // the handler that got it has not returned
	over  atomic.Bool // answered, or nobody waits any more

	// Cancelled, if set, is called when the program leaves the call, before
	// Valid is asked again.
	Cancelled func()
}

func newCall(s *Server, c *conn, m *message) *Call {
	what := notify.CallOf(m.nr)
	r := &Call{s: s, c: c, id: m.id, call: what, args: m.args, tid: int(m.tid), mems: m.mems, file: -1, netns: -1}
	r.fresh.Store(true)
	return r
}

// letGo closes the copies that came with the call.
func (r *Call) letGo() {
	for _, fd := range []*int{&r.file, &r.netns} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// handled ends what is only good while the first handler runs.
func (r *Call) handled() {
	r.fresh.Store(false)
	r.letGo()
	if !r.over.Load() { // it waits: the buffer is another's soon
		for i := range r.mems {
			r.mems[i].data = append([]byte{}, r.mems[i].data...)
		}
	}
}

// Call is what the call means.
func (r *Call) Call() notify.Call { return r.call }

// Int is argument i as the C int it is.
func (r *Call) Int(i int) int { return int(int32(r.args[i])) }

// Ptr is argument i as an address in the program.
func (r *Call) Ptr(i int) uint64 { return r.args[i] }

// TID is the calling process: threads of one process share what is asked of it.
func (r *Call) TID() int { return r.c.p.pid }

// File gives a copy of the caller's descriptor n, the receiver's to close.
func (r *Call) File(n int) (int, error) {
	if r.file >= 0 && n == r.Int(0) {
		return unix.FcntlInt(uintptr(r.file), unix.F_DUPFD_CLOEXEC, 0)
	}
	t, err := r.c.p.look()
	if err != nil {
		return -1, err
	}
	return t.Fd(n)
}

// Read copies from the caller's memory: what came with the call, else what may be
// looked at. EFAULT.
func (r *Call) Read(addr uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	for _, m := range r.mems {
		if addr >= m.addr && addr-m.addr <= uint64(len(m.data)) && uint64(len(b)) <= uint64(len(m.data))-(addr-m.addr) {
			copy(b, m.data[addr-m.addr:])
			return nil
		}
	}
	t, err := r.c.p.look()
	if err != nil {
		return unix.EFAULT
	}
	return t.Read(addr, b)
}

// Write has the answer bring pieces, which the library writes before the call
// returns; EFAULT is the call's result then, whatever the answer was.
func (r *Call) Write(pieces ...notify.Piece) error {
	sum := 0
	for _, w := range r.writes {
		sum += len(w.data)
	}
	for _, p := range pieces {
		sum += len(p.Data)
		if len(r.writes) == maxWrites || sum > maxData {
			return errors.New("more memory than an answer can bring")
		}
		r.writes = append(r.writes, write{p.Addr, append([]byte{}, p.Data...)})
	}
	return nil
}

// Note is a place for what is known of the caller: of its connection, unless the
// call says where it is itself.
func (r *Call) Note() *any {
	if r.netns >= 0 {
		return nil
	}
	return &r.c.note
}

// NetNS opens the caller's network namespace.
func (r *Call) NetNS() (int, error) {
	for _, fd := range []int{r.netns, r.c.netns} {
		if fd >= 0 {
			return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		}
	}
	t, err := r.c.p.look()
	if err != nil {
		return -1, err
	}
	return t.NetNS()
}

// Creds are what the kernel would check the caller's calls by.
func (r *Call) Creds() (notify.Creds, error) {
	return (&notify.Target{TID: r.c.p.pid}).Creds()
}

// Caller is the caller's process and its effective uid.
func (r *Call) Caller() (tgid int, uid uint32, err error) {
	c, err := r.Creds()
	return c.TGID, c.UID, err
}

// MoveRegistrations gives the caller's epoll registrations of its descriptor n,
// which was the file from, to the file to. It takes the right to look at the
// process.
func (r *Call) MoveRegistrations(n, from, to int) error {
	t, err := r.c.p.look()
	if err != nil {
		return fmt.Errorf("%w: %w", errNoRights, err)
	}
	return t.MoveRegistrations(n, from, to)
}

// Valid reports whether the program still waits. It may be called on any thread.
func (r *Call) Valid() bool {
	if r.over.Load() {
		return false
	}
	if r.fresh.Load() {
		return true
	}
	return !r.deserted()
}

// Post has f run in a turn of its own; see Server.Post.
func (r *Call) Post(f func()) bool { return r.s.Post(f) }

// Anywhere is Post for an f that gives an answer: it runs at once, on the calling
// goroutine, when nobody has its turn.
func (r *Call) Anywhere(f func()) bool { return r.s.anywhere(f) }

// Continue leaves the call to the kernel.
func (r *Call) Continue() error {
	return r.answer(answer{kind: answerContinue})
}

// Return makes the call return val.
func (r *Call) Return(val int64) error {
	return r.answer(answer{kind: answerReturn, val: val, writes: r.writes})
}

// Fail makes the call fail with errno.
func (r *Call) Fail(errno unix.Errno) error {
	return r.answer(answer{kind: answerReturn, val: -int64(errno)})
}

// Install gives the program a copy of fd as the call's result. then is called
// once it has it, with its number there, or with an error: ErrGone, EMFILE, or
// EFAULT when what was to be written could not be. In each of these the call has
// its result already. Until then fd must stay open. cloexec is as the call asks.
//
// What socket(2) makes is lost with nobody's connection in it: then comes at once,
// and the number, -1, is learnt from the next call.
func (r *Call) Install(fd int, _ bool, then func(at int, err error)) {
	a := answer{kind: answerInstall, val: 1, writes: r.writes}
	if r.call == notify.Socket {
		a.val = 0
		then(-1, r.send(a, fd))
		return
	}
	r.c.taken = then
	if err := r.send(a, fd); err != nil {
		r.c.receipt(-1, err)
	}
}

// Replace has the answer put a copy of fd in place of the program's descriptor
// at, which keeps its close-on-exec flag.
func (r *Call) Replace(fd, at int, _ bool) error {
	if r.over.Load() {
		return errGone
	}
	if len(r.replace) == maxReplace {
		return errors.New("more descriptors than an answer can replace")
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r.replace, r.with = append(r.replace, int32(at)), append(r.with, dup)
	return nil
}

func (r *Call) answer(a answer) error { return r.send(a, -1) }

// send gives the answer, with fd if that is not -1.
func (r *Call) send(a answer, fd int) error {
	defer r.with.close()
	if !r.over.CompareAndSwap(false, true) {
		return errGone
	}
	r.c.call = nil
	if a.kind != answerInstall { // whose then may want them
		r.letGo() // before the program goes on, and closes what may be the last one but ours
	}
	a.id, a.replace = r.id, r.replace
	fds := slices.Clip(r.with)
	if fd >= 0 {
		fds = append(fds, fd)
	}
	var err error
	if len(fds) > 0 {
		err = unix.Sendmsg(r.c.fd, a.encode(), unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	} else {
		err = unix.Send(r.c.fd, a.encode(), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	}
	switch err {
	case nil:
		return nil
	case unix.EPIPE, unix.ECONNRESET, unix.EBADF:
		return errGone
	default: // a library of ours always has room for one
		r.s.drop(r.c)
		return fmt.Errorf("answer: %w", err)
	}
}

// cancel is for a program whose call was interrupted before the answer.
func (r *Call) cancel() {
	if r.over.Load() {
		return
	}
	r.writes, r.replace = nil, nil
	_ = r.send(answer{kind: answerCancelled}, -1)
	r.desert()
}

// leave is for a program that is gone.
func (r *Call) leave() {
	r.over.Store(true)
	r.with.close()
	r.c.call = nil
	r.desert()
}

func (r *Call) desert() {
	if r.Cancelled != nil {
		r.Cancelled()
	}
}

// deserted asks the kernel: a process that was killed is not heard of at once,
// and a thread that was cancelled never.
func (r *Call) deserted() bool {
	r.s.fds.RLock()
	defer r.s.fds.RUnlock()
	p := r.c.p
	if r.over.Load() {
		return true
	}
	if ready(r.c.fd, 0)&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
		return true
	}
	if pidfd := p.pidfd; pidfd >= 0 && ready(pidfd, unix.POLLIN)&unix.POLLIN != 0 {
		return true
	}
	return p.same && unix.Tgkill(p.pid, r.tid, 0) == unix.ESRCH
}

// receipt tells what became of the descriptor that was sent last.
func (c *conn) receipt(at int, err error) {
	if then := c.taken; then != nil {
		c.taken = nil
		then(at, err)
	}
}

// leave ends what waits on a connection whose program is gone.
func (c *conn) leave() {
	c.receipt(-1, errGone)
	if c.call != nil {
		c.call.leave()
	}
}
