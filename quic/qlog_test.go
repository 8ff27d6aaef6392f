package quic

import (
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// qlogRecords checks that a file is a JSON text sequence (RFC 7464) and gives
// the names of its events.
func qlogRecords(t *testing.T, path string) (names []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range strings.Split(string(b), "\x1e")[1:] {
		var r struct {
			Name   string
			Format string `json:"serialization_format"`
		}
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatalf("%s, record %d: %v", path, i, err)
		}
		if i == 0 && r.Format != "application/qlog+json-seq" {
			t.Errorf("%s begins with %q", path, text)
		}
		names = append(names, r.Name)
	}
	return names
}

func files(dir string) []string {
	all, _ := filepath.Glob(filepath.Join(dir, "*.sqlog"))
	return all
}

// One file a connection and side, turned on and off while the hosts run.
func TestQlog(t *testing.T) {
	dir, later := filepath.Join(t.TempDir(), "new"), t.TempDir()
	_, addr := echoServer(t, t.TempDir(), "127.0.0.1:0", ListenOptions{}, nil)
	h := testHost(t, func(c *Config) { c.QlogDir = dir })
	ask(t, h, Peer{Remote: addr})
	h.SetQlog("")
	ask(t, h, Peer{Remote: addr, UID: 1})
	h.SetQlog(later)
	ask(t, h, Peer{Remote: addr, UID: 2})
	h.Close()
	first := files(dir)
	if len(first) != 1 || len(files(later)) != 1 {
		t.Fatalf("files are %v and %v", first, files(later))
	}
	at := strings.ReplaceAll(addr.String(), ":", "-")
	if name := filepath.Base(first[0]); !qlogOurs.MatchString(name) || !strings.Contains(name, "_client_"+at+"_") {
		t.Errorf("the name is %s", name)
	}
	if fi, err := os.Stat(first[0]); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	names := strings.Join(qlogRecords(t, first[0]), " ")
	for _, want := range []string{"connection_started", "packet_sent", "packet_received", "connection_closed"} {
		if !strings.Contains(names, want) {
			t.Errorf("no %s among %s", want, names)
		}
	}

	srv := testHost(t, func(c *Config) { c.QlogDir = dir })
	e, _ := listen(t, srv, "127.0.0.1:0", ListenOptions{})
	c := testHost(t, nil)
	dial(t, c, e.Addr())
	srv.Close()
	all := files(dir)
	if len(all) != 2 || !strings.Contains(all[1], "_server_127.0.0.1-") {
		t.Fatalf("files are %v", all)
	}
	qlogRecords(t, all[1])
}

// Files stop at their limit with a note, the oldest go, and what is not ours
// stays.
func TestQlogBounded(t *testing.T) {
	dir := t.TempDir()
	notOurs := filepath.Join(dir, "0000.sqlog")
	os.WriteFile(notOurs, nil, 0o600)
	_, addr := echoServer(t, t.TempDir(), "127.0.0.1:0", ListenOptions{}, nil)
	const limit = 20000
	h := testHost(t, func(c *Config) { c.QlogDir, c.QlogMaxFiles, c.QlogMaxBytes = dir, 3, limit })
	for uid := range 6 {
		st, err := h.Dial(testContext(t), Peer{Remote: addr, UID: uint32(uid)}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			st.Write(make([]byte, 1<<20))
			st.CloseWrite()
		}()
		if _, err := st.WriteTo(io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	h.Close()
	all := files(dir)
	if len(all) != 4 || all[0] != notOurs {
		t.Fatalf("files are %v", all)
	}
	for _, f := range all[1:] {
		names := qlogRecords(t, f)
		if last := names[len(names)-1]; last != "transport:stopped" {
			t.Errorf("%s ends with %s", f, last)
		}
		if fi, err := os.Stat(f); err != nil || fi.Size() < limit || fi.Size() > limit+51*2000 {
			t.Errorf("%s has %d octets", f, fi.Size())
		}
	}
}

// Where files cannot be made connections go on, and the log says so once.
func TestQlogUnwritable(t *testing.T) {
	notDir := filepath.Join(t.TempDir(), "file")
	os.WriteFile(notDir, nil, 0o600)
	var log logged
	_, addr := echoServer(t, t.TempDir(), "127.0.0.1:0", ListenOptions{}, nil)
	h := testHost(t, func(c *Config) { c.QlogDir, c.Log = notDir, slog.New(slog.NewTextHandler(&log, nil)) })
	for uid := range 3 {
		ask(t, h, Peer{Remote: addr, UID: uint32(uid)})
	}
	if n := log.lines("qlog files are not written"); n != 1 {
		t.Errorf("%d lines: %s", n, log.b.String())
	}
	h.SetQlog("/proc/1/no/such")
	ask(t, h, Peer{Remote: addr, UID: 9})
	if n := log.lines("qlog files are not written"); n != 2 {
		t.Errorf("after SetQlog %d lines: %s", n, log.b.String())
	}
}
