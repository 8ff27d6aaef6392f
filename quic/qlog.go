package quic

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

// qlogs writes what connections do in the format of
// draft-ietf-quic-qlog-main-schema, JSON text sequences, one file each. The
// files hold addresses and sizes, no keys and no data.
type qlogs struct {
	log      *slog.Logger
	maxFiles int
	maxBytes int64
	unset    string // directory of what Trace asks for while dir is ""

	mu         sync.Mutex                  // guards what follows, and orders the making of files
	wanted     map[netip.AddrPort]struct{} // peers whose connections Trace asks for
	dir        string                      // "": off
	complained bool                        // since dir was set
	open       map[*qlogFile]struct{}
	wg         sync.WaitGroup // the files' goroutines
}

func newQlogs(cfg Config) *qlogs {
	q := &qlogs{
		log: cfg.Log, dir: cfg.QlogDir, maxFiles: cfg.QlogMaxFiles, maxBytes: cfg.QlogMaxBytes,
		open: map[*qlogFile]struct{}{}, wanted: map[netip.AddrPort]struct{}{}, unset: cfg.QlogUnset,
	}
	if q.maxFiles <= 0 {
		q.maxFiles = 256
	}
	if q.maxBytes <= 0 {
		q.maxBytes = 16 << 20
	}
	return q
}

// SetQlog has connections made from now on write a file each to dir, which is
// made if need be; with "" none. Files of connections that are open already
// go on. Errors of writing are logged, once for each SetQlog.
func (h *Host) SetQlog(dir string) {
	h.qlog.mu.Lock()
	defer h.qlog.mu.Unlock()
	h.qlog.dir, h.qlog.complained = dir, false
}

type qlogPeer struct{}

// traceSlot is what a connection and its trace know of each other.
type traceSlot struct {
	peer netip.AddrPort
	file atomic.Pointer[qlogFile] // nil: nothing is written
}

// withPeer tells trace the address of a connection's peer, and has a place for
// what it answers.
func withPeer(ctx context.Context, peer netip.AddrPort) context.Context {
	return context.WithValue(ctx, qlogPeer{}, &traceSlot{peer: peer})
}

// trace is asked by quic-go for each new connection; nil: it writes nothing.
func (h *Host) trace(ctx context.Context, client bool, id quicgo.ConnectionID) qlogwriter.Trace {
	q := h.qlog
	q.mu.Lock()
	defer q.mu.Unlock()
	slot, _ := ctx.Value(qlogPeer{}).(*traceSlot)
	if slot == nil {
		slot = new(traceSlot)
	}
	dir := q.dirFor(client, slot.peer)
	if dir == "" {
		return nil
	}
	role := "server"
	if client {
		role = "client"
	}
	f, err := q.create(dir, qlogName(time.Now(), role, slot.peer, id))
	if err != nil {
		q.complain(err)
		return nil
	}
	f.seq = qlogwriter.NewConnectionFileSeq(qlogOut{f}, client, id)
	f.rec = f.seq.AddProducer()
	q.open[f] = struct{}{}
	q.wg.Go(f.seq.Run)
	slot.file.Store(f)
	return f
}

const qlogTime = "20060102T150405.000000"

var (
	qlogOurs    = regexp.MustCompile(`^\d{8}T\d{6}\.\d{6}_(client|server)_[0-9A-Za-z.-]+_[0-9a-z()]+\.sqlog$`)
	qlogStrange = regexp.MustCompile(`[^0-9A-Za-z.]`)
)

// qlogName sorts by time.
func qlogName(now time.Time, role string, peer netip.AddrPort, id quicgo.ConnectionID) string {
	at := qlogStrange.ReplaceAllString(peer.String(), "-")
	return fmt.Sprintf("%s_%s_%s_%s.sqlog", now.UTC().Format(qlogTime), role, at, id)
}

// create makes a file, after making room for it; mu is held.
func (q *qlogs) create(dir, name string) (*qlogFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !qlogOurs.MatchString(e.Name()) })
	for len(entries) >= q.maxFiles {
		if err := os.Remove(filepath.Join(dir, entries[0].Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		entries = entries[1:]
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &qlogFile{q: q, f: f, buf: bufio.NewWriter(f)}, nil
}

// complain logs the first error; mu is held.
func (q *qlogs) complain(err error) {
	if !q.complained {
		q.complained = true
		q.log.Warn("qlog files are not written", "err", err)
	}
}

// close ends what connections have left open. It is called when they are over.
func (q *qlogs) close() {
	q.mu.Lock()
	q.dir, q.unset = "", ""
	left := q.open
	q.open = map[*qlogFile]struct{}{}
	q.mu.Unlock()
	for f := range left {
		f.end()
	}
	q.wg.Wait()
}

// qlogFile is one connection's file: the trace and the recorder that quic-go
// sees, and what quic-go's own writer of the format writes to.
type qlogFile struct {
	q   *qlogs
	f   *os.File
	buf *bufio.Writer
	seq *qlogwriter.FileSeq
	rec qlogwriter.Recorder

	written atomic.Int64 // octets
	full    atomic.Bool
	failed  bool // the writer's
	ended   sync.Once
}

// AddProducer: see qlogwriter.Trace. A connection has one recorder.
func (f *qlogFile) AddProducer() qlogwriter.Recorder { return f }

// RecordEvent stops at the limit, with a note. What waits to be written then,
// 50 events at most, is over it.
func (f *qlogFile) RecordEvent(e qlogwriter.Event) {
	if f.full.Load() {
		return
	}
	if f.written.Load() >= f.q.maxBytes {
		if f.full.Swap(true) {
			return
		}
		e = qlog.DebugEvent{EventName: "stopped", Message: fmt.Sprintf("the limit of %d octets is reached", f.q.maxBytes)}
	}
	f.rec.RecordEvent(e)
}

// Close is called by the connection when it is over.
func (f *qlogFile) Close() error {
	f.q.mu.Lock()
	delete(f.q.open, f)
	f.q.mu.Unlock()
	f.end()
	return nil
}

func (f *qlogFile) end() { f.ended.Do(func() { f.rec.Close() }) }

// Write never fails, for quic-go's writer would print the error.
func (f *qlogFile) Write(p []byte) (int, error) {
	f.written.Add(int64(len(p)))
	if !f.failed {
		_, err := f.buf.Write(p)
		f.check(err)
	}
	return len(p), nil
}

func (f *qlogFile) check(err error) {
	if err != nil {
		f.failed = true
		f.q.mu.Lock()
		f.q.complain(err)
		f.q.mu.Unlock()
	}
}

// qlogOut is what quic-go's writer closes at the end.
type qlogOut struct{ *qlogFile }

func (f qlogOut) Close() error {
	f.check(errors.Join(f.buf.Flush(), f.f.Close()))
	return nil
}
