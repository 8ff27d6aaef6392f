package launcher

import "strings"

// Exit statuses for what happens before the program runs, as chroot(1), env(1)
// and timeout(1) have them.
const (
	StatusFailed        = 125 // poemq-launch itself failed
	StatusNotExecutable = 126 // the command was found but cannot be executed
	StatusNotFound      = 127
)

// An Error is a failure to start the program, told as "what: on what: why; what
// to do". Any part but What may be empty.
type Error struct {
	Status   int // the exit status that belongs to it; 0 means StatusFailed
	What, On string
	Err      error
	Why      string // instead of, or before, Err's own words
	Hint     string
}

func (e *Error) Error() string {
	var why []string
	for _, s := range []string{e.What, e.On, e.Why} {
		if s != "" {
			why = append(why, s)
		}
	}
	if e.Err != nil {
		why = append(why, e.Err.Error())
	}
	s := strings.Join(why, ": ")
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }
