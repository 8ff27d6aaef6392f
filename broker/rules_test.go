package broker

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/quic"
)

// TestPeer: what a rule demands of a peer is what QUIC is told.
func TestPeer(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:443")
	for _, d := range []policy.Decision{
		{Mode: policy.Require, Identity: "db.example.com", ZeroRTT: true},
		{Mode: policy.Require, Framing: policy.FramingRaw, ALPN: "h3"},
	} {
		p := (&dialState{sock: &Socket{b: &Broker{udpPort: 7}}, remote: at, decision: d}).peer()
		raw := d.Framing == policy.FramingRaw
		if p.Expect != d.Identity || p.ZeroRTT != d.ZeroRTT || p.Raw != raw || p.ALPN != d.ALPN {
			t.Errorf("%+v is told as %+v", d, p)
		}
		if want := map[bool]uint16{true: 443, false: 7}[raw]; p.Remote.Port() != want {
			t.Errorf("%+v is sought at %v", d, p.Remote)
		}
	}
}

func TestCgroupOfSelf(t *testing.T) {
	got, err := cgroupOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if all, _ := os.ReadFile("/proc/self/cgroup"); !strings.HasPrefix(got, "/") || !strings.Contains(string(all), ":"+got+"\n") {
		t.Errorf("%q is none of\n%s", got, all)
	}
	if _, err := cgroupOf(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of nobody: %v", err)
	}
}

// TestSetPolicy changes the policy of a running broker, with and without host
// names to look after.
func TestSetPolicy(t *testing.T) {
	host, err := quic.NewHost(quic.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	b, err := New(Config{Host: host, Log: slog.New(slog.DiscardHandler), RuntimeDirs: []string{filepath.Clean(t.TempDir())}})
	if err != nil {
		t.Fatal(err)
	}
	mode := func() policy.Mode {
		s := &Session{b: b, log: b.log, name: "web", asked: policy.Off}
		return s.decide(newFake(0), policy.Query{Addr: netip.MustParseAddrPort("127.0.0.1:80")}).Mode
	}
	if got := mode(); got != policy.Off {
		t.Errorf("the session's word does not count: %v", got)
	}
	here, err := policy.ParseTarget("localhost")
	if err != nil {
		t.Fatal(err)
	}
	b.SetPolicy(policy.New(policy.Prefer, []policy.Rule{{To: []policy.Target{here}, Mode: policy.Require}}))
	if got := mode(); got != policy.Require {
		t.Errorf("localhost is not known when the policy comes into force: %v", got)
	}
	b.SetPolicy(policy.New(policy.Prefer, []policy.Rule{{Sessions: []string{"web"}, Cgroups: []string{"/"}, Mode: policy.Prefer}}))
	if got := mode(); got != policy.Prefer {
		t.Errorf("%v", got)
	}
	if err := b.Close(); err != nil { // waits for what SetPolicy started
		t.Error(err)
	}
}
