package broker

import "fmt"

// state is where a Socket is in its life.
type state uint8

const (
	fresh state = iota
	bound
	listening
	connecting
	connected
	failed // a connection, or an attempt at one that the program could watch, was lost
	closed
)

var stateNames = [...]string{"fresh", "bound", "listening", "connecting", "connected", "failed", "closed"}

func (s state) String() string { return stateNames[s] }

// transitions lists every legal change of state.
var transitions = map[state][]state{
	fresh:      {bound, listening, connecting, closed},
	bound:      {listening, connecting, closed},
	listening:  {bound, closed},                           // back: by shutdown
	connecting: {connected, failed, fresh, bound, closed}, // back: a blocking connect failed, it may be tried again
	connected:  {failed, closed},
	failed:     {fresh, bound, closed},
	closed:     {},
}

// become changes s's state; s.mu is held.
func (s *Socket) become(to state) {
	for _, ok := range transitions[s.state] {
		if ok == to {
			s.state = to
			return
		}
	}
	panic(fmt.Sprintf("socket %d: %v cannot become %v", s.cookie, s.state, to))
}
