package broker

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/notify"
	"github.com/poemq/poemq/notify/handover"
	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

// Looks at a running broker, for those who operate it. None holds a lock that a
// program's call waits for longer than it takes to copy a list of pointers; what
// is slow, /proc and the kernel's TCP_INFO, is asked with no lock held.

// callKinds is how many kinds of calls are counted, more than notify knows.
const callKinds = 16

// firstProcess is the pid of a session's first process, 0 if not known: that
// of poemq-launch, whose place the program takes, or what a container engine says.
func firstProcess(h *handover.Handover, launcher int) int32 {
	if h.Meta.Version > 0 {
		return int32(launcher)
	}
	if h.State.Pid > 0 {
		return int32(h.State.Pid)
	}
	return int32(h.State.State.Pid)
}

// settle is the end of a session's account.
func (s *Session) settle(err error) {
	l := &s.b.ledger
	l.mu.Lock()
	l.sessions++
	s.settled = true
	for i := range s.calls {
		l.calls[i] += s.calls[i].Load()
	}
	o, n, open := s.past, s.connections, 0
	for r := range l.living {
		if r.sess.Load() == s {
			open++
			o.add(r.octets())
		}
	}
	l.mu.Unlock()
	reason := "its last task has ended"
	if s.b.ctx.Err() != nil {
		reason = endBroker
	}
	attrs := []any{
		"reason", reason, "connections", n + uint64(open), "still_delivering", open, "sent", o.Sent, "received", o.Received,
		"duration", time.Since(s.begun).Round(time.Millisecond),
	}
	if err != nil {
		s.log.Error("session ends", append(attrs, "error", err)...)
		return
	}
	s.log.Info("session ends", attrs...)
}

// Sessions lists those of the users that see allows, by number.
func (b *Broker) Sessions(see func(uid uint32) bool) []api.Session {
	sessions, sockets := b.sessionsOf(see), map[*Session]int{}
	b.mu.Lock()
	for _, s := range b.sockets {
		sockets[s.sess]++
	}
	b.mu.Unlock()
	type living struct {
		octets
		n int
	}
	sums := map[*Session]living{}
	b.ledger.mu.Lock()
	for r := range b.ledger.living {
		s := r.sess.Load()
		l := sums[s]
		l.add(r.octets())
		l.n++
		sums[s] = l
	}
	for _, s := range sessions {
		l := sums[s]
		l.add(s.past)
		sums[s] = l
	}
	totals := make(map[*Session]uint64, len(sessions))
	for _, s := range sessions {
		totals[s] = s.connections + uint64(sums[s].n)
	}
	b.ledger.mu.Unlock()
	now := time.Now()
	all := make([]api.Session, 0, len(sessions))
	for _, s := range sessions {
		a := api.Session{
			ID: s.ID, Program: s.name, PID: int(s.pid.Load()), UID: s.uid, Quic: s.asked.String(), Since: s.begun, Age: now.Sub(s.begun).Seconds(),
			Sockets: sockets[s], Connections: sums[s].n, Total: totals[s], Sent: sums[s].Sent, Received: sums[s].Received,
		}
		for i := range s.calls {
			a.Calls += s.calls[i].Load()
		}
		all = append(all, a)
	}
	return all
}

func (b *Broker) sessionsOf(see func(uid uint32) bool) []*Session {
	b.mu.Lock()
	var all []*Session
	for _, s := range b.sessions {
		if see(s.uid) {
			all = append(all, s)
		}
	}
	b.mu.Unlock()
	slices.SortFunc(all, func(a, b *Session) int { return int(a.ID) - int(b.ID) })
	return all
}

// Sockets lists those of the users that see allows, the oldest first.
func (b *Broker) Sockets(see func(uid uint32) bool) []api.Socket {
	b.mu.Lock()
	list := make([]*Socket, 0, len(b.sockets))
	for _, s := range b.sockets {
		if see(s.sess.uid) {
			list = append(list, s)
		}
	}
	b.mu.Unlock()
	slices.SortFunc(list, func(a, b *Socket) int { return a.created.Compare(b.created) })
	l := look{now: time.Now(), tasks: map[int]task{}, conns: map[uint64]quic.Stats{}}
	all := make([]api.Socket, 0, len(list))
	for _, s := range list {
		all = append(all, l.socket(s))
	}
	return all
}

// look keeps what many sockets share.
type look struct {
	now   time.Time
	tasks map[int]task
	conns map[uint64]quic.Stats
}

type task struct {
	pid  int
	name string
}

func (l *look) socket(s *Socket) api.Socket {
	s.mu.Lock()
	a := api.Socket{
		ID: s.cookie, Session: s.sess.ID, UID: s.sess.uid, State: s.state.String(), Accepted: s.accepted,
		Local: plain(s.local), Remote: plain(s.remote), Age: l.now.Sub(s.created).Seconds(),
	}
	tid, relay, listen, dial, direct := s.hint.tid, s.relay, s.listen, s.dial, s.direct
	if s.ns != nil {
		a.NetNS = s.ns.ID()
	}
	s.mu.Unlock()
	t := l.task(tid)
	a.PID, a.Program = t.pid, t.name
	if a.Program == "" {
		a.Program = s.sess.name
	}
	switch {
	case direct:
		a.Via, a.Why = "direct", "both programs are served by this broker"
	case relay != nil:
		l.carried(&a, relay)
	case listen != nil:
		a.Via, a.Why, a.Waiting = listen.served()
	case dial != nil:
		a.Why = "policy " + dial.decision.Mode.String() + ", " + dial.decision.By()
	}
	return a
}

// plain is a as people write it; AddrPorts without an address are the zero one.
func plain(a netip.AddrPort) netip.AddrPort {
	if !a.Addr().IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// served tells how l is reached.
func (l *listenState) served() (via, why string, waiting int) {
	quic := l.sock.b.onPoint(l)
	switch {
	case quic && l.tcp != nil:
		via = "quic+tcp"
	case quic:
		via = "quic"
	case l.tcp != nil:
		via = "tcp"
	}
	l.mu.Lock()
	waiting = len(l.queue)
	l.mu.Unlock()
	return via, "policy " + l.decision.Mode.String() + ", " + l.decision.By(), waiting
}

// carried adds what is known of a connection.
func (l *look) carried(a *api.Socket, r *relay) {
	r.mu.Lock()
	t := r.t
	r.mu.Unlock()
	if t == nil {
		return // it connects
	}
	a.Via, a.Why = via(t), r.reasonCarried()
	o := r.octets()
	a.Sent, a.Received = o.Sent, o.Received
	switch t := t.(type) {
	case *quic.Stream:
		a.Connection = t.Conn()
		st, known := l.conns[a.Connection]
		if !known {
			st = t.Stats()
			l.conns[a.Connection] = st
		}
		a.RTT, a.CWnd, a.Lost = ms(st.RTT), st.CongestionWindow, st.PacketsLost
	case *tcpTransport:
		if i, err := t.info(); err == nil {
			a.RTT, a.CWnd, a.Lost = float64(i.Rtt)/1000, uint64(i.Snd_cwnd)*uint64(i.Snd_mss), uint64(i.Total_retrans)
		}
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// info is what the kernel tells of the connection (tcp(7), TCP_INFO).
func (t *tcpTransport) info() (i *unix.TCPInfo, err error) {
	raw, err := t.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) {
		i, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if cerr != nil {
		return nil, cerr
	}
	return i, err
}

// task is the process of a thread, and what it is called now (proc(5)).
func (l *look) task(tid int) task {
	if tid == 0 {
		return task{}
	}
	if t, known := l.tasks[tid]; known {
		return t
	}
	var t task
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid)); err == nil {
		for line := range bytes.Lines(status) {
			key, value, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
			switch key {
			case "Name":
				t.name = strings.TrimSpace(value)
			case "Tgid":
				t.pid, _ = strconv.Atoi(strings.TrimSpace(value))
			}
			if t.pid != 0 {
				break
			}
		}
	}
	if t.pid != 0 && t.pid != tid { // a thread has a name of its own
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", t.pid)); err == nil {
			t.name = strings.TrimSpace(string(comm))
		}
	}
	l.tasks[tid] = t
	return t
}

// Connections lists the QUIC connections of the users that see allows, the
// oldest first. Those that peers have made belong to nobody; others says
// whether they are listed.
func (b *Broker) Connections(see func(uid uint32) bool, others bool) []api.Connection {
	all := []api.Connection{}
	for _, c := range b.host.Snapshot() {
		if c.Client && !see(c.UID) || !c.Client && !others {
			continue
		}
		a := api.Connection{
			ID: c.ID, Side: "server", Local: c.Local, Peer: c.Peer, Key: c.Identity.Key, UID: c.UID, NetNS: c.NS,
			Streams: c.Streams, Total: c.Total, Age: c.Age.Seconds(), RTT: ms(c.Stats.RTT), MinRTT: ms(c.Stats.MinRTT), CWnd: c.Stats.CongestionWindow,
			Sent: c.Stats.BytesSent, Received: c.Stats.BytesReceived,
			PacketsSent: c.Stats.PacketsSent, PacketsReceived: c.Stats.PacketsReceived, PacketsLost: c.Stats.PacketsLost,
			Version: c.Version, Handshaking: c.Handshaking, Resumed: c.Resumed, ZeroRTT: c.ZeroRTT, Draining: c.Draining, Qlog: c.Qlog,
		}
		if c.Client {
			a.Side = "client"
		}
		if a.Identity = strings.Join(c.Identity.Names, " "); a.Identity == "" {
			a.Identity = c.Identity.Key
		}
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b api.Connection) int { return int(a.ID) - int(b.ID) })
	return all
}

// Figures are a broker's sums, for metrics. Those of past and present never go
// down.
type Figures struct {
	Sessions, SessionsTotal int
	SocketsByState          map[string]int
	Living                  map[Carried]int
	Begun                   map[Carried]uint64
	Octets                  map[Carried]Octets
	Endings                 map[string]uint64 // by reason
	Fallbacks               map[string]uint64 // by reason
	ConnectsFailed          map[string]uint64 // by errno
	Calls                   map[string]uint64
	Remembered              int
	QUIC                    quic.Totals
	QUICConnections         []quic.ConnInfo
	Limits                  quic.LimitCounts
	Fronts                  []api.Front
}

// Carried is how a connection is carried.
type Carried = carried

// Octets are counted in the direction seen from the program.
type Octets = octets

// Figures counts what there is, and was.
func (b *Broker) Figures() Figures {
	f := Figures{
		SocketsByState: map[string]int{}, Living: map[Carried]int{}, Begun: map[Carried]uint64{}, Octets: map[Carried]Octets{},
		Calls: map[string]uint64{}, QUIC: b.host.Totals(), QUICConnections: b.host.Snapshot(), Limits: b.host.LimitCounts(), Fronts: b.frontStatus(), Remembered: len(b.Remembered()),
	}
	b.mu.Lock()
	list := make([]*Socket, 0, len(b.sockets))
	for _, s := range b.sockets {
		list = append(list, s)
	}
	sessions := make([]*Session, 0, len(b.sessions))
	for _, s := range b.sessions {
		sessions = append(sessions, s)
	}
	b.mu.Unlock()
	for _, name := range stateNames {
		f.SocketsByState[name] = 0
	}
	for _, s := range list {
		s.mu.Lock()
		state := s.state
		s.mu.Unlock()
		f.SocketsByState[state.String()]++
	}
	b.ledger.sum(&f, sessions)
	return f
}

func (l *ledger) sum(f *Figures, sessions []*Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, n := range l.begun {
		f.Begun[k] = n
	}
	for k, o := range l.ended {
		f.Octets[k] = o
	}
	for r := range l.living {
		k := r.carried()
		f.Living[k]++
		sum := f.Octets[k]
		sum.add(r.octets())
		f.Octets[k] = sum
	}
	f.Endings, f.Fallbacks, f.ConnectsFailed = copied(l.endings), copied(l.fallback), copied(l.failed)
	sessions = slices.DeleteFunc(sessions, func(s *Session) bool { return s.settled })
	f.Sessions, f.SessionsTotal = len(sessions), len(sessions)+int(l.sessions)
	for i := range l.calls {
		n := l.calls[i]
		for _, s := range sessions {
			n += s.calls[i].Load()
		}
		if n > 0 {
			f.Calls[notify.Call(i).String()] = n
		}
	}
}

func copied(m map[string]uint64) map[string]uint64 {
	c := make(map[string]uint64, len(m))
	for k, n := range m {
		c[k] = n
	}
	return c
}
