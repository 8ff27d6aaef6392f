package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/poemq/poemq/addfd"
	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/broker/ends"
	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/notify"
	"github.com/poemq/poemq/notify/hook"
	"github.com/poemq/poemq/quic"
	"golang.org/x/sys/unix"
)

// Config is what a Broker is made of.
type Config struct {
	Host *quic.Host // the broker's to use, the caller's to close
	Log  *slog.Logger
	// Policy is in force from the start; nil prefers QUIC everywhere.
	Policy *policy.Policy
	// Fallback is DefaultFallback when it is zero.
	Fallback Fallback
	// UDPPort is where peers serve QUIC; 0: on the port that a program connects to.
	UDPPort uint16
	// Guarded tells ports that only peers with certain names may connect to:
	// under prefer they are served by QUIC alone, since TCP has no names. nil
	// is none.
	Guarded func(port uint16) bool
	// Keeper keeps what the next broker needs; nil: sessions end with this one.
	Keeper Keeper
	// Direct connects programs that this broker serves with each other, without
	// QUIC between them.
	Direct bool
	// RuntimeDirs are tried in order for the directory of socket names.
	RuntimeDirs []string
}

// Broker serves sessions.
type Broker struct {
	host    *quic.Host
	udpPort uint16 // see Config
	guarded func(port uint16) bool
	direct  bool // see Config
	log     *slog.Logger
	dir     *addfd.Dir
	dock    *addfd.Dock
	anchors *addfd.Anchors
	lost    *addfd.Lost
	stock   addfd.Stock
	started time.Time

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup // the broker's own goroutines and relays

	namespaces namespaces
	ports      portTable
	points     pointTable
	ruling     ruling
	policy     atomic.Pointer[policy.Policy]
	fallback   atomic.Pointer[Fallback]
	memory     memory
	fronts     fronts
	oracle     oracle
	tripwires  tripwires
	ends       *ends.Set
	narrow     bool // sockets have small send buffers here (net.core.wmem_default)
	ledger     ledger
	storing    *storing   // of all sessions but those with a keeper; nil: there is none
	adopting   sync.Mutex // held while what another broker left is taken over
	young      young
	checks     checks
	directs    directs
	sysctls    knownSysctls
	targets    notify.Targets // of what is done between calls
	// rebinding is held while a port is free for a moment that stays in use;
	// read-locked to bind one.
	rebinding sync.RWMutex

	nextSession atomic.Uint64
	pointNumber atomic.Uint64 // of the last one that was kept
	hookedMu    sync.Mutex    // held while a session of the hook library begins

	mu       sync.Mutex // guards what follows
	changed  *sync.Cond // the last session or relay ended
	relays   int
	sockets  map[uint64]*Socket
	sessions map[uint64]*Session
	hooked   map[hook.SessionID]*Session // those of sessions that the hook library made
}

// New makes a broker. Close it.
func New(c Config) (*Broker, error) {
	raiseNofile(c.Log)
	dir, err := addfd.OpenDir(c.RuntimeDirs...)
	if err != nil {
		return nil, err
	}
	dock, err := addfd.NewDock(dir)
	if err != nil {
		dir.Close()
		return nil, err
	}
	watched, err := ends.NewSet(runtime.GOMAXPROCS(0))
	if err != nil {
		dock.Close()
		dir.Close()
		return nil, err
	}
	b := &Broker{
		host: c.Host, udpPort: c.UDPPort, guarded: c.Guarded, direct: c.Direct, log: c.Log, dir: dir, dock: dock, anchors: addfd.NewAnchors(dir, c.Log), lost: addfd.NewLost(), started: time.Now(),
		ends: watched, narrow: addfd.SendBuffer() < wideBuffer,
		sockets: make(map[uint64]*Socket), sessions: make(map[uint64]*Session),
		hooked: make(map[hook.SessionID]*Session),
	}
	b.changed = sync.NewCond(&b.mu)
	if c.Keeper != nil {
		b.storing = newStoring(c.Keeper, c.Log)
	}
	b.ctx, b.stop = context.WithCancel(context.Background())
	if c.Fallback == (Fallback{}) {
		c.Fallback = DefaultFallback
	}
	b.SetFallback(c.Fallback)
	if c.Policy == nil {
		c.Policy = policy.New(policy.Prefer, nil)
	}
	b.SetPolicy(c.Policy)
	b.tripwires.alarm.f, b.checks.alarm.f = b.tripwires.layAll, b.checks.tick
	b.tripwires.alarm.open()
	b.checks.alarm.open()
	return b, nil
}

// Close ends every session, connection and listening port. Programs that still
// run get resets, and ENOSYS from what is trapped; with a Keeper their calls
// wait for the next broker.
func (b *Broker) Close() error {
	for s := range b.storings() {
		s.freeze()
	}
	b.stop()
	b.closeFronts()
	b.mu.Lock()
	for _, s := range b.sessions {
		s.source.Stop()
	}
	sockets := make([]*Socket, 0, len(b.sockets))
	for _, s := range b.sockets {
		sockets = append(sockets, s)
	}
	b.mu.Unlock()
	for _, s := range sockets {
		s.abandon()
	}
	b.wg.Wait()
	b.tripwires.alarm.close()
	b.checks.alarm.close()
	b.young.close()
	b.oracle.close()
	b.targets.Close()
	b.anchors.Close()
	b.lost.Close()
	b.stock.Close()
	b.ends.Close()
	return errors.Join(b.dock.Close(), b.dir.Close())
}

// Answers reports that every session's thread, and what they share, is free to
// answer before ctx ends.
func (b *Broker) Answers(ctx context.Context) bool {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		b.mu.Lock()
		sessions := slices.Collect(maps.Values(b.sessions))
		b.mu.Unlock()
		_ = b.onPoint(&listenState{}) // takes their lock
		var wg sync.WaitGroup
		for _, s := range sessions {
			done := make(chan struct{})
			if s.source.Post(func() { close(done) }) {
				wg.Go(func() {
					select {
					case <-done:
					case <-s.ended:
					}
				})
			}
		}
		wg.Wait()
	}()
	select {
	case <-answered:
		return true
	case <-ctx.Done():
		return false
	}
}

// AwaitNoSessions is AwaitSessions until ctx ends.
func (b *Broker) AwaitNoSessions(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		b.mu.Lock()
		b.changed.Broadcast()
		b.mu.Unlock()
	})
	defer stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.sessions) > 0 && ctx.Err() == nil {
		b.changed.Wait()
	}
}

// AwaitPrograms returns when no session has a program that is known to run.
func (b *Broker) AwaitPrograms() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		running := 0
		for _, s := range b.sessions {
			if !s.alone {
				running++
			}
		}
		if running == 0 {
			return
		}
		b.changed.Wait()
	}
}

// AwaitSessions returns when no session is served.
func (b *Broker) AwaitSessions() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.sessions) > 0 {
		b.changed.Wait()
	}
}

// AwaitRelays returns when no bytes are under way, or ctx ends.
func (b *Broker) AwaitRelays(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		b.mu.Lock()
		b.changed.Broadcast()
		b.mu.Unlock()
	})
	defer stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.relays > 0 && ctx.Err() == nil {
		b.changed.Wait()
	}
}

func (b *Broker) countRelay(n int) {
	b.mu.Lock()
	b.relays += n
	if b.relays == 0 {
		b.changed.Broadcast()
	}
	b.mu.Unlock()
}

// Status counts what there is now.
func (b *Broker) Status() api.Status {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, _ := os.ReadDir("/proc/self/fd")
	fronts := b.frontStatus()
	b.mu.Lock()
	defer b.mu.Unlock()
	return api.Status{
		PID: os.Getpid(), Uptime: time.Since(b.started).Seconds(),
		Sessions: len(b.sessions), Sockets: len(b.sockets), Relays: b.relays,
		Goroutines: runtime.NumGoroutine(), Fds: len(fds), HeapBytes: m.HeapAlloc, Fronts: fronts,
	}
}

// raiseNofile lets the broker hold as many descriptors as it may: two for each
// connection.
func raiseNofile(log *slog.Logger) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return
	}
	want := unix.Rlimit{Cur: max(lim.Max, 1<<20), Max: max(lim.Max, 1<<20)}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &want) == nil {
		return
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: lim.Max, Max: lim.Max}); err != nil {
		log.Warn("the limit of open files stays", "limit", lim.Cur, "error", err)
	}
}

// find looks a program's descriptor up. Without a Socket (it is a file of
// another kind) both results are zero: the kernel knows what to say. The
// caller closes fd.
func (b *Broker) find(r Request, n int) (s *Socket, fd int) {
	fd, err := r.File(n)
	if err != nil {
		if !errors.Is(err, unix.EBADF) && !errors.Is(err, unix.ESRCH) {
			b.log.Warn("a program's descriptor cannot be looked at; the call goes to the kernel",
				"call", r.Call(), "tid", r.TID(), "fd", n, "error", err,
				"hint", "the broker needs ptrace access: root, CAP_SYS_PTRACE, or the same user and a dumpable program")
		}
		return nil, -1
	}
	cookie, err := addfd.Cookie(fd)
	if err == nil {
		b.mu.Lock()
		s = b.sockets[cookie]
		b.mu.Unlock()
	}
	if s == nil {
		unix.Close(fd)
		return nil, -1
	}
	s.seenAt(r.TID(), n)
	return s, fd
}

func (b *Broker) add(s *Socket) {
	b.mu.Lock()
	b.sockets[s.cookie] = s
	b.mu.Unlock()
	s.jot()
}

func (b *Broker) remove(s *Socket) {
	b.mu.Lock()
	delete(b.sockets, s.cookie)
	b.mu.Unlock()
	s.forget()
}

// opError names the operation and the socket in an error of the log.
func opError(op string, s *Socket, err error) error {
	return fmt.Errorf("%s (socket %d): %w", op, s.cookie, err)
}
