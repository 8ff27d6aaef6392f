package broker

import (
	"sync"

	"github.com/poemq/poemq/notify"
	"golang.org/x/sys/unix"
)

// fake is a Request of a program that has a little memory from address 0.
// Answers are counted; what is posted runs when the test says so.
type fake struct {
	memory []byte
	creds  notify.Creds
	posts  chan func() // what was posted
	ended  bool        // the session has ended

	mu      sync.Mutex // guards what follows
	gone    bool       // the program no longer waits
	answers []unix.Errno
}

func newFake(memory int) *fake {
	return &fake{memory: make([]byte, memory), posts: make(chan func(), 64)}
}

func (r *fake) span(addr uint64, n int) ([]byte, error) {
	if addr > uint64(len(r.memory)) || uint64(n) > uint64(len(r.memory))-addr {
		return nil, unix.EFAULT
	}
	return r.memory[addr:][:n], nil
}

func (r *fake) Read(addr uint64, b []byte) error {
	m, err := r.span(addr, len(b))
	copy(b, m)
	return err
}

func (r *fake) Note() *any { return nil }

func (r *fake) Write(pieces ...notify.Piece) error {
	for _, p := range pieces {
		m, err := r.span(p.Addr, len(p.Data))
		if err != nil {
			return err
		}
		copy(m, p.Data)
	}
	return nil
}

func (r *fake) answer(errno unix.Errno) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return notify.ErrGone
	}
	r.answers = append(r.answers, errno)
	return nil
}

func (r *fake) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
}

func (r *fake) Valid() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.gone && len(r.answers) == 0
}

func (r *fake) answered() []unix.Errno {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answers
}

func (r *fake) Post(f func()) bool {
	if r.ended {
		return false
	}
	r.posts <- f
	return true
}

func (r *fake) Call() notify.Call     { return notify.Connect }
func (r *fake) Int(int) int           { return 0 }
func (r *fake) Ptr(int) uint64        { return 0 }
func (r *fake) TID() int              { return 1 }
func (r *fake) File(int) (int, error) { return -1, unix.EBADF }
func (r *fake) NetNS() (int, error) {
	return unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}
func (r *fake) Creds() (notify.Creds, error) { return r.creds, nil }
func (r *fake) Caller() (int, uint32, error) { return r.creds.TGID, r.creds.UID, nil }
func (r *fake) Anywhere(f func()) bool {
	if !r.ended {
		f()
	}
	return !r.ended
}
func (r *fake) Continue() error             { return r.answer(0) }
func (r *fake) Return(int64) error          { return r.answer(0) }
func (r *fake) Fail(errno unix.Errno) error { return r.answer(errno) }
func (r *fake) Install(_ int, _ bool, then func(int, error)) {
	then(5, r.answer(0))
}
func (r *fake) Replace(int, int, bool) error          { return nil }
func (r *fake) MoveRegistrations(int, int, int) error { return nil }

var _ Request = (*fake)(nil)
