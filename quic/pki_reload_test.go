package quic

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// rotate puts a new key and certificate into p's files and reloads.
func rotate(t *testing.T, p *PKI, ca *testCA) {
	t.Helper()
	key := newKey(t, "")
	put(t, p.files.Key, keyPEM(t, key))
	put(t, p.files.Cert, pemOf(ca.leaf(key, nil)))
	if err := p.Reload(); err != nil {
		t.Error(err)
	}
}

// TestReloadUnderLoad: while streams run and new ones are made, on pooled and
// on fresh connections, both sides rotate their certificates 50 times.
func TestReloadUnderLoad(t *testing.T) {
	root := newCA(t, "root", "", nil, nil)
	ps, pc := member(t, root, root.crl()), member(t, root, root.crl())
	quiet := func(c *Config) { c.Log = nil }
	e, err := fleetHost(t, ps, quiet).Listen(nil, addrPort("127.0.0.1:0"), ListenOptions{}, func(in *Incoming) {
		st, err := in.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(st, st)
		st.CloseWrite()
	})
	if err != nil {
		t.Fatal(err)
	}
	hc := fleetHost(t, pc, quiet)
	long := dial(t, hc, e.Addr())
	rotated := make(chan struct{})
	ctx := testContext(t)
	echo := func(st *Stream) {
		b := make([]byte, 1000)
		if _, err := st.Write(b); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(st, b); err != nil {
			t.Error(err)
		}
	}
	until := func(f func(i int)) func() {
		return func() {
			for i := 0; ; i++ {
				select {
				case <-rotated:
					return
				default:
					f(i)
				}
			}
		}
	}
	var wg sync.WaitGroup
	made := 0
	wg.Go(until(func(int) { echo(long) }))
	wg.Go(until(func(i int) {
		st, err := hc.Dial(ctx, Peer{Remote: e.Addr(), UID: uint32(i / 4)}, 1, nil) // each fourth: a fresh connection
		if err != nil {
			t.Error(err)
			return
		}
		echo(st)
		st.CloseWrite()
		if _, err := io.ReadAll(st); err != nil {
			t.Error(err)
		}
		made++
	}))
	for range 50 {
		rotate(t, ps, root)
		rotate(t, pc, root)
	}
	close(rotated)
	wg.Wait()
	if made < 10 {
		t.Errorf("only %d streams were made meanwhile", made)
	}
	st := dial(t, hc, e.Addr()) // on the connection from before
	if st.c != long.c {
		t.Error("the first connection was given up")
	}
	t.Logf("%d streams made", made)
	long.CloseWrite()
}

// TestReloadRevokes: a CRL that comes later. Living streams go on; new ones
// fail, whichever side learns of it.
func TestReloadRevokes(t *testing.T) {
	for _, who := range []string{"server", "client"} {
		t.Run(who+" is revoked", func(t *testing.T) {
			root := newCA(t, "root", "", nil, nil)
			ps, pc := member(t, root, root.crl()), member(t, root, root.crl())
			var log logBuffer
			e, got := listen(t, fleetHost(t, ps, log.use), "127.0.0.1:0", ListenOptions{})
			hc := fleetHost(t, pc, log.use)
			st := dial(t, hc, e.Addr())
			srv := <-got

			learns, revoked, says := pc, ps, "revoked"
			if who == "client" {
				learns, revoked, says = ps, pc, "the peer refused our certificate"
			}
			put(t, learns.files.CRL[0], root.crl(revoked.ownCert().Leaf))
			if err := learns.Reload(); err != nil {
				t.Fatal(err)
			}
			// On the client's side nothing is asynchronous; the server's
			// GOAWAY may be under way, then the stream is refused by status.
			_, err := hc.Dial(testContext(t), Peer{Remote: e.Addr()}, 1, nil)
			if err == nil {
				t.Fatal("a revoked peer got a stream")
			}
			await(t, st.c.drains)
			_, err = hc.Dial(testContext(t), Peer{Remote: e.Addr()}, 1, nil)
			wantIdentity(t, err, says)
			if len(got) != 0 {
				t.Error("a stream came through")
			}
			if l := log.lines("no longer verifies", "revoked"); len(l) != 1 {
				t.Errorf("%d lines tell of it, want 1:\n%s", len(l), log.b.String())
			}
			if l := log.lines("certificates reloaded", "1 revoked"); len(l) != 1 {
				t.Errorf("%d lines tell of the reload, want 1", len(l))
			}
			for _, dir := range [][2]*Stream{{st, srv}, {srv, st}} {
				dir[0].Write([]byte("alive"))
				b := make([]byte, 5)
				if _, err := io.ReadFull(dir[1], b); err != nil || string(b) != "alive" {
					t.Errorf("living stream: %q, %v", b, err)
				}
			}
		})
	}
}

// drains tells whether a connection takes no new streams.
func (c *conn) drains() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

// await polls until done, for what tells nobody when it happens.
func await(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.After(10 * time.Second); !done(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it does not happen")
		}
	}
}

// TestBarredClient: a client that ignores GOAWAY gets no stream either.
func TestBarredClient(t *testing.T) {
	root := newCA(t, "root", "", nil, nil)
	ps := member(t, root, root.crl())
	e, got := listen(t, fleetHost(t, ps, nil), "127.0.0.1:0", ListenOptions{})
	pc := member(t, root)
	st := dial(t, fleetHost(t, pc, nil), e.Addr())
	<-got
	put(t, ps.files.CRL[0], root.crl(pc.ownCert().Leaf))
	if err := ps.Reload(); err != nil {
		t.Fatal(err)
	}
	s, err := st.c.qc.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	s.Write((&header{ClientPort: 1}).append(nil))
	b := make([]byte, 2)
	if n, err := s.Read(b); n != 1 || status(b[0]) != statusRefused {
		t.Errorf("answer % x, %v", b[:n], err)
	}
	s.CancelRead(streamReset)
	if len(got) != 0 {
		t.Error("the stream came through")
	}
}

// TestReloadWhileShakingHands: a connection that became known only after the
// reload is verified again.
func TestReloadWhileShakingHands(t *testing.T) {
	root := newCA(t, "root", "", nil, nil)
	ps, pc := member(t, root, root.crl()), member(t, root)
	h := fleetHost(t, ps, nil)
	e, got := listen(t, h, "127.0.0.1:0", ListenOptions{})
	st := dial(t, fleetHost(t, pc, nil), e.Addr())
	c := (<-got).c
	// As if the connection had not been in the list when it was walked.
	e.p.mu.Lock()
	delete(e.p.conns, c)
	e.p.mu.Unlock()
	put(t, ps.files.CRL[0], root.crl(pc.ownCert().Leaf))
	if err := ps.Reload(); err != nil {
		t.Fatal(err)
	}
	if c.drains() {
		t.Fatal("the connection was found")
	}
	e.p.mu.Lock()
	e.p.conns[c] = struct{}{}
	e.p.mu.Unlock()
	h.verifyLate(c, nil)
	if !c.drains() {
		t.Error("a connection from before the reload stays")
	}
	st.Close()
}

// TestReloadCA: a new CA beside the old one, then the old one goes.
func TestReloadCA(t *testing.T) {
	old, young := newCA(t, "old", "", nil, nil), newCA(t, "young", "", nil, nil)
	ps, pc := member(t, old), member(t, old)
	e, _ := listen(t, fleetHost(t, ps, nil), "127.0.0.1:0", ListenOptions{})
	hc := fleetHost(t, pc, nil)
	try := func(uid uint32) error {
		_, err := hc.Dial(testContext(t), Peer{Remote: e.Addr(), UID: uid}, 1, nil)
		return err
	}
	step := func(cas []*x509.Certificate, from *testCA) {
		for _, p := range []*PKI{ps, pc} {
			put(t, p.files.CA, pemOf(cas...))
			rotate(t, p, from)
		}
	}
	for i, f := range []func(){
		func() {},
		func() { step([]*x509.Certificate{old.cert, young.cert}, old) },
		func() { step([]*x509.Certificate{old.cert, young.cert}, young) },
		func() { step([]*x509.Certificate{young.cert}, young) },
	} {
		f()
		if err := try(uint32(i)); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
	put(t, pc.files.CA, pemOf(old.cert))
	if err := pc.Reload(); err != nil {
		t.Fatal(err)
	}
	wantIdentity(t, try(3), "unknown authority") // the pooled one is not used
}

// TestTimePasses: a reload without new files finds the peers that have expired,
// when it is asked to.
func TestTimePasses(t *testing.T) {
	root := newCA(t, "root", "", nil, nil)
	ps, key := member(t, root), newKey(t, "")
	end := time.Now().Add(4 * time.Second).Truncate(time.Second)
	short := root.leaf(key, func(c *x509.Certificate) { c.NotAfter = end })
	pc := mustPKI(t, writePKI(t, key, []*x509.Certificate{short}, []*x509.Certificate{root.cert}))
	e, got := listen(t, fleetHost(t, ps, nil), "127.0.0.1:0", ListenOptions{})
	dial(t, fleetHost(t, pc, nil), e.Addr())
	c := (<-got).c
	if err := ps.reload(true); err != nil || c.drains() {
		t.Fatalf("too early: %v", err)
	}
	<-time.After(time.Until(end.Add(time.Millisecond)))
	if err := ps.reload(false); err != nil || c.drains() {
		t.Errorf("nothing has changed, yet peers were verified: %v", err)
	}
	if err := ps.reload(true); err != nil || !c.drains() {
		t.Errorf("an expired peer keeps its connection: %v", err)
	}
}

// TestReloadKeepsOld: what cannot be loaded changes nothing.
func TestReloadKeepsOld(t *testing.T) {
	root := newCA(t, "root", "", nil, nil)
	p := member(t, root)
	before, called := p.now.Load(), 0
	p.OnReload(func(ReloadReport) { called++ })
	put(t, p.files.Key, keyPEM(t, newKey(t, "")))
	if err := p.Reload(); err == nil || !strings.Contains(err.Error(), "the old ones stay") {
		t.Errorf("a key that does not match: %v", err)
	}
	if p.now.Load() != before || called != 0 {
		t.Error("something changed")
	}
}

func TestReloadReport(t *testing.T) {
	root := newCA(t, "root", "", nil, nil)
	p := member(t, root, root.crl())
	var got []ReloadReport
	stop := p.OnReload(func(r ReloadReport) { got = append(got, r) })
	p.Reload()
	key := newKey(t, "")
	put(t, p.files.Key, keyPEM(t, key))
	put(t, p.files.Cert, pemOf(root.leaf(key, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })))
	p.Reload()
	p.Reload()
	stop()
	p.Reload()
	if len(got) != 3 {
		t.Fatalf("%d reports, want 3", len(got))
	}
	for i, want := range []int{0, 1, 0} {
		if len(got[i].Changed) != want || len(got[i].Warnings) != want {
			t.Errorf("report %d: %+v, want %d changes and warnings", i, got[i], want)
		}
	}
}

// watched is a PKI that is being watched; its reports come into the channel.
func watched(t *testing.T, p *PKI, log io.Writer) <-chan ReloadReport {
	t.Helper()
	reports := make(chan ReloadReport, 100)
	p.OnReload(func(r ReloadReport) { reports <- r })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Watch(ctx, slog.New(slog.NewTextHandler(log, nil))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return reports
}

func awaitReport(t *testing.T, reports <-chan ReloadReport, want string) {
	t.Helper()
	end := time.After(20 * time.Second)
	for {
		select {
		case r := <-reports:
			if strings.Contains(strings.Join(r.Changed, "\n"), want) {
				return
			}
			t.Logf("changed: %q", r.Changed)
		case <-end:
			t.Fatalf("no reload because of %q", want)
		}
	}
}

func TestWatch(t *testing.T) {
	root := newCA(t, "root", "", nil, nil)
	p := member(t, root, root.crl())
	var log logBuffer
	reports := watched(t, p, &log)
	put(t, p.files.CRL[0], root.crl(root.leaf(newKey(t, ""), nil)))
	awaitReport(t, reports, "1 revoked")
	key := newKey(t, "")
	put(t, p.files.Cert, pemOf(root.leaf(key, nil))) // does not match for now
	await(t, func() bool { return len(log.lines("the old ones stay")) > 0 })
	put(t, p.files.Key, keyPEM(t, key))
	awaitReport(t, reports, "certificate ")
	if l := log.lines("the old ones stay"); len(l) != 1 {
		t.Errorf("%d lines about the failure, want one", len(l))
	}
}

// TestWatchKubernetes: files are links to ..data/FILE, and ..data is a link to
// a directory that is swapped.
func TestWatchKubernetes(t *testing.T) {
	root := newCA(t, "root", "", nil, nil)
	dir := t.TempDir()
	version := func(name string) {
		key := newKey(t, "")
		f := writePKI(t, key, []*x509.Certificate{root.leaf(key, nil)}, []*x509.Certificate{root.cert})
		err := errors.Join(
			os.Rename(filepath.Dir(f.Cert), filepath.Join(dir, name)),
			os.Symlink(name, filepath.Join(dir, "..tmp")),
			os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	f := PKIFiles{Cert: filepath.Join(dir, "tls.pem"), Key: filepath.Join(dir, "tls-key.pem"), CA: filepath.Join(dir, "ca.pem")}
	for _, path := range []string{f.Cert, f.Key, f.CA} {
		os.Symlink(filepath.Join("..data", filepath.Base(path)), path)
	}
	version("..1")
	p := mustPKI(t, f)
	reports := watched(t, p, io.Discard)
	for _, name := range []string{"..2", "..3"} {
		before := describe(p.ownCert().Leaf)
		version(name)
		awaitReport(t, reports, "certificate ")
		if describe(p.ownCert().Leaf) == before {
			t.Error("the certificate is still the old one")
		}
	}
}
