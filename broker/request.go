package broker

import (
	"github.com/poemq/poemq/notify"
	"github.com/poemq/poemq/notify/hook"
	"golang.org/x/sys/unix"
)

// Request is one call of a program that waits for its answer, wherever it came
// from. All methods but Valid, Anywhere and Post are for a turn of the session. Exactly
// one of the answers is given; ErrGone from it (notify.ErrGone) says that the
// program no longer waits.
type Request interface {
	Call() notify.Call
	// Int and Ptr are argument i.
	Int(i int) int
	Ptr(i int) uint64

	// TID is the calling thread.
	TID() int
	// File gives a copy of the caller's descriptor, the broker's to close.
	File(fd int) (int, error)
	// Read and Write copy from and to the caller's memory; EFAULT. Pieces are
	// written in their order.
	Read(addr uint64, b []byte) error
	Write(pieces ...notify.Piece) error
	// Note is a place for what is known of the caller, for a while; or nil.
	Note() *any
	// NetNS opens the caller's network namespace.
	NetNS() (int, error)
	Creds() (notify.Creds, error)
	// Caller is the part of Creds that most calls need.
	Caller() (tgid int, uid uint32, err error)
	// Valid reports whether the program still waits.
	Valid() bool

	// Continue leaves the call to the kernel.
	Continue() error
	Return(val int64) error
	Fail(errno unix.Errno) error
	// Install gives the program a copy of fd as the call's result, and calls then
	// with its number there once that is known, on the same thread: at once, or
	// later. Until then fd is to stay open. With an error the program has not
	// got it; its call may be answered or not.
	Install(fd int, cloexec bool, then func(at int, err error))
	// Replace puts a copy of fd in place of the program's descriptor at.
	Replace(fd, at int, cloexec bool) error
	// MoveRegistrations gives the caller's epoll registrations of its
	// descriptor at, which was the file from, to the file to.
	MoveRegistrations(at, from, to int) error

	// Anywhere runs f, at once if that can be, for an answer that is Return or
	// Fail; false when the session has ended.
	Anywhere(f func()) bool
	// Post runs f in a turn of its own; false when that has ended.
	Post(f func()) bool
}

// A call that the hook library caught is one as it is.
var _ Request = (*hook.Call)(nil)

// notification is the Request of the seccomp listener.
type notification struct{ n *notify.Notification }

func (r notification) Call() notify.Call      { return r.n.Call }
func (r notification) Int(i int) int          { return r.n.Int(i) }
func (r notification) Ptr(i int) uint64       { return r.n.Pointer(i) }
func (r notification) TID() int               { return r.n.TID }
func (r notification) Valid() bool            { return r.n.Valid() }
func (r notification) Continue() error        { return r.n.Continue() }
func (r notification) Return(val int64) error { return r.n.Return(val) }
func (r notification) Post(f func()) bool     { return r.n.Post(f) }

func (r notification) Anywhere(f func()) bool { return r.n.Anywhere(f) }

func (r notification) Fail(errno unix.Errno) error { return r.n.Fail(errno) }

func (r notification) Install(fd int, cloexec bool, then func(at int, err error)) {
	then(r.n.Install(fd, cloexec))
}

func (r notification) Replace(fd, at int, cloexec bool) error { return r.n.Replace(fd, at, cloexec) }

func (r notification) MoveRegistrations(at, from, to int) error {
	t, err := r.n.Target()
	if err != nil {
		return err
	}
	return t.MoveRegistrations(at, from, to)
}

func (r notification) File(fd int) (int, error)           { return r.n.File(fd) }
func (r notification) Read(addr uint64, b []byte) error   { return r.n.Read(addr, b) }
func (r notification) Write(pieces ...notify.Piece) error { return r.n.Write(pieces...) }

func (r notification) Note() *any {
	t, err := r.n.Target()
	if err != nil {
		return nil
	}
	return &t.Note
}

func (r notification) NetNS() (int, error) {
	t, err := r.n.Target()
	if err != nil {
		return -1, err
	}
	return t.NetNS()
}

func (r notification) Caller() (tgid int, uid uint32, err error) {
	t, err := r.n.Target()
	if err != nil {
		return 0, 0, err
	}
	return t.Caller()
}

func (r notification) Creds() (notify.Creds, error) {
	t, err := r.n.Target()
	if err != nil {
		return notify.Creds{}, err
	}
	return t.Creds()
}
