package broker

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/notify"
	"github.com/poemq/poemq/quic/netns"
	"golang.org/x/sys/unix"
)

// What a broker does with what the one before it left (keep.go): listening
// sockets go on, sockets that were not connected are as they were, those that
// were have lost their connection, and calls that were caught in the middle are
// made once more.

// Left is a descriptor that a Keeper kept, with the name it was stored under.
type Left struct {
	Name string
	FD   int
}

// estate is what was left of one session.
type estate struct {
	id       string
	listener int // -1: none
	journal  int // -1: none
	anchors  map[uint64]leftSocket
	ports    map[uint64]leftSocket // by the cookie of the socket itself
	names    []string
	others   []int // that nobody asks for
}

// leftSocket is a kept socket, or way to one.
type leftSocket struct {
	fd   int
	name string
	kept *kept
}

// Adopt goes on with the sessions that left tells of, whose descriptors it
// takes over. What cannot be gone on with is let go of, and logged. To be
// called before any session comes.
func (b *Broker) Adopt(left []Left) (sessions int) { return b.adoptFrom(left, b.storing) }

// adoptFrom is Adopt of what store keeps.
func (b *Broker) adoptFrom(left []Left, store *storing) (sessions int) {
	b.adopting.Lock()
	defer b.adopting.Unlock()
	estates := make(map[string]*estate)
	udp := make(map[string][]leftSocket) // by session
	for _, one := range left {
		id, rest, _ := strings.Cut(one.Name, ".")
		e := estates[id]
		if e == nil {
			e = &estate{id: id, listener: -1, journal: -1, anchors: make(map[uint64]leftSocket), ports: make(map[uint64]leftSocket)}
			estates[id] = e
		}
		e.names = append(e.names, one.Name)
		if strings.HasPrefix(rest, "udp.") {
			udp[id] = append(udp[id], leftSocket{fd: one.FD, name: one.Name})
		} else {
			e.add(one, rest)
		}
	}
	var begun []*Session
	b.points.mu.Lock()
	b.points.left = make(map[pointKey]leftSocket)
	b.points.mu.Unlock()
	for id, e := range estates {
		s, err := b.adopt(e, udp[id], store)
		if err != nil {
			b.log.Error("a session of the broker before cannot be gone on with", "session", id, "error", err)
			e.close()
			continue
		}
		begun = append(begun, s)
	}
	b.dropLeft()
	for _, s := range begun {
		b.wg.Go(func() { _ = s.Serve() }) // logs its own end
	}
	return len(begun)
}

func (e *estate) add(one Left, rest string) {
	kind, number, _ := strings.Cut(rest, ".")
	switch kind {
	case "listener":
		e.listener = one.FD
	case "journal":
		e.journal = one.FD
	case "anchor":
		if cookie, err := strconv.ParseUint(number, 10, 64); err == nil {
			e.anchors[cookie] = leftSocket{fd: one.FD, name: one.Name}
			return
		}
		e.others = append(e.others, one.FD)
	case "port":
		if cookie, err := addfd.Cookie(one.FD); err == nil {
			e.ports[cookie] = leftSocket{fd: one.FD, name: one.Name}
			return
		}
		e.others = append(e.others, one.FD)
	default:
		e.others = append(e.others, one.FD)
	}
}

// close lets go of what nobody took.
func (e *estate) close() {
	for _, fd := range append(e.others, e.listener, e.journal) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	for _, kind := range []map[uint64]leftSocket{e.anchors, e.ports} {
		for _, one := range kind {
			unix.Close(one.fd)
		}
	}
}

// adopt makes a session of e, which is not served yet.
func (b *Broker) adopt(e *estate, udp []leftSocket, store *storing) (*Session, error) {
	k := newKept(e.id, store, nil, b.log)
	for _, name := range e.names {
		k.names[name] = struct{}{}
	}
	abandon := func(err error) (*Session, error) {
		for _, one := range udp {
			unix.Close(one.fd)
		}
		for _, name := range e.names {
			store.remove(name)
		}
		return nil, err
	}
	if e.listener < 0 || e.journal < 0 {
		return abandon(errors.New("its listener or its journal is missing"))
	}
	journal, head, err := openJournal(e.journal)
	e.journal = -1
	if err != nil {
		return abandon(err)
	}
	k.journal = journal
	asked, err := policy.ParseMode(head.Asked)
	if err != nil {
		asked = policy.Unset
	}
	l, err := notify.NewListener(e.listener)
	e.listener = -1
	if err != nil {
		journal.close()
		return abandon(err)
	}
	s := &Session{
		name: head.Name, asked: asked, match: head.Match, seesSetns: head.SeesSetns, uid: head.UID,
		source: filtered{l}, keptBy: store, kept: k, caught: journal.calls(),
	}
	b.register(s)
	k.log = s.log
	b.leaveUDP(udp, k)
	open, listening := s.adoptSockets(e)
	e.close()
	s.log.Info("session goes on", "sockets", open, "listening", listening, "calls", len(s.caught))
	return s, nil
}

// leaveUDP has listening sockets find theirs.
func (b *Broker) leaveUDP(udp []leftSocket, k *kept) {
	b.points.mu.Lock()
	defer b.points.mu.Unlock()
	for _, one := range udp {
		one.kept = k
		parts := strings.Split(one.name, ".") // SESSION.udp.NETNS.NUMBER
		key := pointKey{}
		var err error
		if len(parts) == 4 {
			key.ns, err = strconv.ParseUint(parts[2], 10, 64)
		}
		if err == nil {
			key.local, err = localAddr(one.fd)
		}
		if _, twice := b.points.left[key]; err != nil || twice {
			unix.Close(one.fd)
			k.drop(one.name)
			continue
		}
		only, _ := unix.GetsockoptInt(one.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) // of IPv4: an error, and 0
		key.v6only = only != 0
		b.points.left[key] = one
	}
}

// dropLeft ends the looking for sockets of the broker before.
func (b *Broker) dropLeft() {
	b.points.mu.Lock()
	left := b.points.left
	b.points.left = nil
	b.points.mu.Unlock()
	for _, one := range left {
		unix.Close(one.fd)
		one.kept.drop(one.name)
	}
}

// found is a socket of the journal with a copy of the program's descriptor, -1
// when that is not found.
type found struct {
	record
	slot int32
	copy int
}

// adoptSockets takes e's sockets over.
func (s *Session) adoptSockets(e *estate) (open, listens int) {
	var all []*found
	s.kept.journal.records(func(slot int32, b []byte) {
		r, err := readRecord(b)
		if err != nil {
			s.log.Warn("a socket is lost", "error", err)
			s.kept.journal.release(slot)
			return
		}
		all = append(all, &found{record: r, slot: slot, copy: -1})
	})
	s.b.findAll(all)
	for _, f := range all {
		if f.copy < 0 { // closed meanwhile
			s.kept.journal.release(f.slot)
			continue
		}
		sock := s.adoptSocket(f, e)
		open++
		if f.state == listening && s.b.relisten(sock, f) {
			listens++
		}
		unix.Close(f.copy)
	}
	for _, kind := range []map[uint64]leftSocket{e.anchors, e.ports} {
		for _, one := range kind {
			s.kept.drop(one.name) // e closes it
		}
	}
	return open, listens
}

// adoptSocket makes a Socket of f. The kernel knows best what became of it.
func (s *Session) adoptSocket(f *found, e *estate) *Socket {
	sock := &Socket{
		b: s.b, sess: s, cookie: f.cookie, ino: f.ino, domain: f.domain, proto: f.proto, accepted: f.accepted,
		opts: f.opts, local: f.local, inJournal: inJournal{slot: f.slot, jotted: true, backlog: f.backlog, mode: f.mode},
	}
	sock.hint.tid, sock.hint.fd = f.tid, f.fd
	port, bindsPort := e.ports[f.hold]
	sock.ns = s.b.namespaceOf(f, port.fd, bindsPort)
	ended := hasEnd(f.copy)
	switch {
	case bindsPort && !isConnected(port.fd):
		delete(e.ports, f.hold)
		sock.hold = s.b.adoptHold(sock, f, port, s.kept)
	case f.hold != 0 && !ended && sock.ns != nil: // it was not kept in time
		sock.hold = s.b.holdAgain(sock, f, s.kept)
	}
	switch {
	case ended:
		sock.state, sock.soError = failed, f.soError
		if f.state == connected || f.state == failed {
			sock.remote = f.remote
		}
		if f.state == connecting {
			sock.soError = unix.ECONNRESET
		}
	case sock.hold != nil:
		sock.state = bound
	}
	s.b.add(sock)
	if a, ok := e.anchors[f.cookie]; ok {
		delete(e.anchors, f.cookie)
		anchor, err := s.b.anchors.Adopt(a.fd, sock.closedByProgram)
		if err != nil {
			go sock.closedByProgram()
			return sock
		}
		sock.anchor, sock.anchorName = anchor, a.name
	} else {
		s.b.watchAdopted(sock, f.copy)
	}
	return sock
}

// watchAdopted has the closing of a socket without an anchor seen.
func (b *Broker) watchAdopted(sock *Socket, fd int) {
	if sock.state != failed {
		b.watchClose(sock, fd)
		return
	}
	if _, err := b.lost.Watch(fd, sock.closedByProgram); err != nil {
		b.log.Warn("a socket's closing will not be seen", "error", opError("epoll", sock, err))
	}
}

// hasEnd reports that a program's socket was attached to an end, which is lost,
// or is one that was made to show its refusal (refused.go).
func hasEnd(fd int) bool {
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && domain != unix.AF_UNIX {
		return true
	}
	return isConnected(fd)
}

func isConnected(fd int) bool {
	_, err := unix.Getpeername(fd)
	return err == nil
}

// adoptHold is the port that sock had bound.
func (b *Broker) adoptHold(sock *Socket, f *found, port leftSocket, k *kept) *portHold {
	h := &portHold{b: b, fd: port.fd, cookie: f.hold, kept: k, name: port.name, local: f.local, ns: f.ns, uid: f.uid, chosen: f.chosen, users: 1}
	if local, err := localAddr(port.fd); err == nil && local.Port() != 0 {
		h.local = local
	}
	h.heldAs = h.local
	b.ports.hold(h.ns, h.local, true, false, h.uid) // there is nobody yet who could mind
	return h
}

// holdAgain binds what sock had bound; nil when that is not to be had.
func (b *Broker) holdAgain(sock *Socket, f *found, k *kept) *portHold {
	fd, errno := b.tcpSocket(sock, sock.ns)
	if errno != 0 {
		return nil
	}
	if errno := rawBind(fd, encodeSockaddr(f.local, sock.domain)); errno != 0 {
		unix.Close(fd)
		k.log.Error("a program's port is lost", "port", f.local, "error", errno)
		return nil
	}
	cookie, _ := addfd.Cookie(fd)
	f.hold = cookie
	h := b.adoptHold(sock, f, leftSocket{fd: fd}, nil)
	h.keptBy(k)
	return h
}

// siocGSKNS gives the network namespace of a socket (<linux/sockios.h>).
const siocGSKNS = 0x894c

// namespaceOf finds the network namespace that a socket was in; nil when that
// is not to be found, and will be its program's at its next call.
func (b *Broker) namespaceOf(f *found, port int, hasPort bool) *netns.NS {
	if own, err := netns.Self(); err == nil && own.ID() == f.ns {
		return own
	}
	open := []func() (int, error){func() (int, error) {
		t, err := notify.OpenTarget(f.tid)
		if err != nil {
			return -1, err
		}
		defer t.Close()
		return t.NetNS()
	}}
	if hasPort {
		open = append(open, func() (int, error) {
			fd, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(port), siocGSKNS, 0)
			if e != 0 {
				return -1, e
			}
			return int(fd), nil
		})
	}
	for _, o := range open {
		fd, err := o()
		if err != nil {
			continue
		}
		if ns, err := b.namespaces.share(fd); err == nil && ns.ID() == f.ns {
			return ns
		}
	}
	return nil
}

// findAll copies the programs' descriptors: first from where they were seen,
// then from wherever they are.
func (b *Broker) findAll(all []*found) {
	missing := make(map[string][]*found) // as /proc/PID/fd shows them
	left := 0
	for _, f := range all {
		sock := &Socket{b: b, cookie: f.cookie}
		err := b.targets.Use(f.tid, func(t *notify.Target) (err error) {
			f.copy, err = sock.copyFrom(t, f.fd)
			return err
		})
		if err != nil {
			f.copy = -1
			link := "socket:[" + strconv.FormatUint(f.ino, 10) + "]"
			missing[link] = append(missing[link], f)
			left++
		}
	}
	if len(missing) == 0 {
		return
	}
	processes, _ := os.ReadDir("/proc")
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() || left == 0 {
			continue
		}
		for n, link := range notify.Files(pid) {
			for _, f := range missing[link] {
				if f.copy >= 0 {
					continue
				}
				if fd, err := (&Socket{b: b, cookie: f.cookie}).copyFromTask(pid, n); err == nil {
					f.tid, f.fd, f.copy = pid, n, fd
					left--
				}
			}
		}
	}
}

// relisten serves a listening socket as the broker before did.
func (b *Broker) relisten(sock *Socket, f *found) bool {
	log, why := sock.sess.log, ""
	sock.mu.Lock()
	switch {
	case sock.state == closed:
		sock.mu.Unlock()
		return false
	case sock.anchor == nil:
		why = "the way to it was not kept"
	case sock.ns == nil:
		why = "its network namespace is not to be found"
	case sock.hold == nil:
		why = "its port is lost"
	}
	sock.mu.Unlock()
	if why != "" {
		log.Error("a listening socket gets no connections any more", "port", f.local, "reason", why)
		return false
	}
	l := &listenState{sock: sock, anchor: sock.anchor, copy: -1, room: make(chan struct{}, maxRoom), ready: make(chan struct{}), zeroRTT: f.zeroRTT}
	defer close(l.ready)
	var unserved error
	if f.mode != policy.Off {
		unserved = b.joinOnce(l, sock.ns, sock.hold.local)
	}
	if f.mode != policy.Require {
		if errno := b.serveTCP(l, sock.hold, f.backlog); errno != 0 {
			log.Error("a listening port is not served by TCP any more", "port", sock.local, "error", errno)
		}
	}
	emptyQueue(f.copy) // of connections that were the dead broker's
	sock.mu.Lock()
	if sock.state != bound {
		sock.mu.Unlock()
		l.close()
		return false
	}
	sock.become(listening)
	sock.listen = l
	sock.jotLocked()
	sock.mu.Unlock()
	if l.tcp != nil {
		b.wg.Go(l.acceptTCP)
	}
	log.Info("listening goes on", "socket", sock.cookie, "port", sock.hold.local, "policy", f.mode, "quic", b.onPoint(l))
	if unserved != nil {
		log.Warn("a listening port waits for its UDP port", "port", sock.hold.local, "reason", unserved)
		b.wg.Go(func() { b.joinLater(l, sock.ns, f.local) })
	}
	return true
}

// release frees the calls that the broker before us had received.
func (s *Session) release() {
	if len(s.caught) == 0 {
		return
	}
	again, interrupted := s.source.(filtered).Release(s.caught)
	s.caught = nil
	if s.kept != nil {
		s.kept.journal.forgetCalls()
	}
	s.log.Info("calls that the broker before had begun", "made_again", again, "interrupted", interrupted)
}
