package ctl

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/broker/doctor"
)

// shape lists the fields of JSON with their kinds, those of lists once.
func shape(path string, v any, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, one := range v {
			shape(path+"."+k, one, into)
		}
	case []any:
		into[path+" list"] = true
		for _, one := range v {
			shape(path+"[]", one, into)
		}
	case nil:
		into[path+" null"] = true
	default:
		kind := map[string]string{"string": "text", "float64": "number", "bool": "bool"}[fmt.Sprintf("%T", v)]
		into[path+" "+kind] = true
	}
}

// TestJSON holds every command's JSON to a list of its fields: programs read it.
// POEMQ_UPDATE=1 writes the list anew.
func TestJSON(t *testing.T) {
	b := newBench(t, "")
	b.configure(fmt.Sprintf("[[expose]]\nlisten = \"udp/127.0.0.1:%d\"\nto = \"127.0.0.1:9\"\n", freePort(t)))
	b.must("reload")
	addr := b.serve()
	held := b.hold(addr, 2, time.Minute)
	conn := read[api.Connections](b, "conns").Connections[0]
	ca, out := filepath.Join(b.Dir, "ca"), b.Mkdir("hosts", "")
	key := "sha256:" + strings.Repeat("A", 43) + "="
	var got strings.Builder
	for _, command := range []string{
		"version", "status", "ps", "ss", "conns", "top -n 1", "why " + addr, "why --listen " + addr, "fallback", "fallback forget", "trust list",
		"trust pin 192.0.2.1:443 " + key, "trust forget 192.0.2.1:443", "log-level", "log-level info", "reload",
		fmt.Sprint("qlog on ", conn.ID), fmt.Sprint("qlog off ", conn.ID), "doctor " + addr,
		"ca init --dir " + ca, "ca issue a.example --dir " + ca + " --out " + out, "ca list --dir " + ca,
		"ca revoke " + filepath.Join(out, "a.example.pem") + " --dir " + ca, "ca crl --dir " + ca,
	} {
		text, errs, _ := b.ctl(append([]string{"--json"}, strings.Fields(command)...)...)
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil || errs != "" {
			t.Errorf("poemqctl --json %s: %v: %s%s", command, err, text, errs)
			continue
		}
		if strings.Count(text, "\n") != 1 {
			t.Errorf("poemqctl --json %s: not one line: %s", command, text)
		}
		fields := map[string]bool{}
		shape("", v, fields)
		name := strings.Join(strings.Fields(strings.NewReplacer(addr, "", ca, "", out, "", key, "", "192.0.2.1:443", "", fmt.Sprint(conn.ID), "", "--dir", "", "--out", "", "/a.example.pem", "").Replace(command)), " ")
		fmt.Fprintf(&got, "poemqctl %s\n", name)
		delete(fields, ".checks[].do text") // where there is something to do
		for _, f := range slices.Sorted(maps.Keys(fields)) {
			fmt.Fprintf(&got, "  %s\n", f)
		}
	}
	held.Tell("")
	held.Wait(30 * time.Second)
	const golden = "testdata/json"
	if os.Getenv("POEMQ_UPDATE") == "1" {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("fields differ from %s:\n%s", golden, diff)
	}
}

// TestLists looks at sessions, sockets and connections that are known.
func TestLists(t *testing.T) {
	b := newBench(t, "")
	addr := b.serve()
	held := b.hold(addr, 3, time.Minute)
	ps := read[api.Sessions](b, "ps").Sessions
	if len(ps) != 2 || ps[1].Program != "gopeer" || ps[1].PID == 0 || ps[1].Connections != 3 || ps[1].Total != 3 || ps[1].Sent == 0 || ps[1].Received == 0 || ps[1].Calls < 6 || ps[0].Sockets < 4 {
		t.Errorf("%+v", ps)
	}
	listening, dialed, accepted := 0, 0, 0
	for _, s := range read[api.Sockets](b, "ss").Sockets {
		switch {
		case s.State == "listening":
			listening++
			if s.Local.String() != addr || s.Via != "quic+tcp" || s.Why != "policy prefer, no rule" || s.Program != "gopeer" {
				t.Errorf("%+v", s)
			}
		case s.State == "fresh": // the Go runtime tries out what the host has; their end is seen late
		case s.Accepted:
			accepted++
			if s.Why != "the peer came by QUIC" || s.Local.String() != addr {
				t.Errorf("%+v", s)
			}
		default:
			dialed++
			if s.State != "connected" || s.Via != "quic" || s.Why != "QUIC answered" || s.Remote.String() != addr || s.PID == 0 || s.Connection == 0 ||
				s.RTT <= 0 || s.CWnd == 0 || s.Sent == 0 || s.Received <= s.Sent || s.Age <= 0 || s.NetNS == 0 {
				t.Errorf("%+v", s)
			}
		}
	}
	if listening != 1 || dialed != 3 || accepted != 3 {
		t.Errorf("%d listening, %d dialed, %d accepted", listening, dialed, accepted)
	}
	if n := len(read[api.Sockets](b, "ss", "-l").Sockets); n != 1 {
		t.Errorf("ss -l: %d", n)
	}
	conns := read[api.Connections](b, "conns").Connections
	if len(conns) != 2 || conns[0].Peer.String() != addr && conns[1].Peer.String() != addr || conns[0].Streams != 3 {
		t.Errorf("%+v", conns)
	}
	why := read[api.Why](b, "why", addr)
	if why.Probe == nil || why.Probe.QUIC.Answer != "ok" || !why.Probe.QUIC.Reused || why.Probe.TCP.Answer != "ok" || why.Probe.Verdict != "QUIC" {
		t.Errorf("%+v", why)
	}
	held.Tell("")
	held.Wait(30 * time.Second)
	b.await("one line tells of each end", func() bool { return strings.Count(b.broker.Stderr(), `msg="connection ends" session=2`) == 3 })
	for line := range strings.Lines(b.broker.Stderr()) {
		if strings.Contains(line, `msg="connection ends" session=2`) {
			for _, want := range []string{"program=gopeer", "via=quic", `why="QUIC answered"`, `reason="the program finished first"`, "remote=" + addr, "sent=", "received=", "duration="} {
				if !strings.Contains(line, want) {
					t.Errorf("no %s in %s", want, line)
				}
			}
		}
	}
	b.await("and of the session's", func() bool {
		return strings.Contains(b.broker.Stderr(), `msg="session ends" session=2 program=gopeer reason="its last task has ended" connections=3`)
	})
}

// TestTrust pins a wrong key for a server, which is refused then, and forgets it.
func TestTrust(t *testing.T) {
	b := newBench(t, "[policy]\ndefault = \"require\"\n")
	addr := b.serve()
	connect := func() int {
		p := b.program("connect", addr, "hold", 1).Start()
		p.Wait(time.Minute)
		return p.ExitCode()
	}
	b.must("trust", "pin", addr, "sha256:"+strings.Repeat("B", 42)+"E=")
	if connect() == 0 {
		t.Error("connected to a peer with another key than its pin")
	}
	if list := b.must("trust", "list"); !strings.Contains(list, addr) || !strings.Contains(list, "known_peers:1") {
		t.Errorf("%s", list)
	}
	if said := b.must("trust", "forget", addr); said != "forgotten: 1\n" {
		t.Error(said)
	}
	if connect() != 0 {
		t.Error("refused though the pin is forgotten")
	}
	if pins := read[api.Trust](b, "trust", "list").Pins; len(pins) != 1 || pins[0].Peer != addr || pins[0].Line != 1 {
		t.Errorf("%+v", pins)
	}
}

// TestQlog traces the connection that takes an untraced one's place.
func TestQlog(t *testing.T) {
	b := newBench(t, "")
	addr := b.serve()
	held := b.hold(addr, 1, time.Minute)
	client := func(traced bool) (found api.Connection) {
		for _, c := range read[api.Connections](b, "conns").Connections {
			if c.Side == "client" && (c.Qlog != "") == traced {
				found = c
			}
		}
		return found
	}
	traced := read[api.Traced](b, "qlog", "on", fmt.Sprint(client(false).ID))
	if !traced.On || !traced.Next || traced.Dir == "" {
		t.Errorf("%+v", traced)
	}
	again := b.hold(addr, 1, time.Minute)
	c := client(true)
	if c.Qlog == "" {
		t.Fatalf("%s", b.must("conns"))
	}
	if off := read[api.Traced](b, "qlog", "off", fmt.Sprint(c.ID)); off.On || off.File != c.Qlog {
		t.Errorf("%+v", off)
	}
	b.await("the trace is whole", func() bool {
		text, err := os.ReadFile(c.Qlog)
		return err == nil && strings.Contains(string(text), "transport:packet_sent") || strings.Contains(string(text), "quic:packet_sent")
	})
	for _, p := range []interface {
		Tell(any)
		Wait(time.Duration)
	}{held, again} {
		p.Tell("")
		p.Wait(30 * time.Second)
	}
	if _, errs, status := b.ctl("qlog", "on", "999999"); status != 1 || !strings.Contains(errs, "no such connection") {
		t.Errorf("%d: %s", status, errs)
	}
}

// TestSteering reloads good and bad configurations, and changes the log's level.
func TestSteering(t *testing.T) {
	b := newBench(t, "")
	b.configure("[[rule]]\nport = 1\nmode = \"off\"\n[pool]\nidle = \"5s\"\n")
	if said := b.must("reload"); !strings.Contains(said, b.config+"; rules 1") || !strings.Contains(said, "wait for a restart: pool.idle") {
		t.Error(said)
	}
	b.configure("[pool]\nidel = \"5s\"\n")
	out, errs, status := b.ctl("reload")
	if status != 1 || out != "" || !strings.Contains(errs, b.config+":2: pool.idel: unknown key; did you mean pool.idle?") || !strings.Contains(errs, "the one in force stays") {
		t.Errorf("%d: %s%s", status, out, errs)
	}
	if said := b.must("why", "--no-probe", "127.0.0.1:1"); !strings.HasPrefix(said, "127.0.0.1:1: off (rule 1, ") {
		t.Errorf("the old rules are not in force: %s", said)
	}
	b.must("log-level", "debug")
	if said := b.must("log-level"); said != "debug\n" {
		t.Error(said)
	}
	if _, errs, status := b.ctl("log-level", "loud"); status != 1 || !strings.Contains(errs, "none of debug, info, warn, error") {
		t.Errorf("%d: %s", status, errs)
	}
}

// TestUnreachable: errors tell what to do.
func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for socket, want := range map[string]string{
		filepath.Join(dir, "none"): "it does not exist; start poemqd",
		stale:                      "left over from one that has ended; start poemqd",
	} {
		for _, command := range []string{"status", "ss", "top", "fallback forget", "reload"} {
			out, errs, status := poemqctl(t, append([]string{"--control", socket}, strings.Fields(command)...)...)
			if status != 1 || out != "" || !strings.Contains(errs, want) {
				t.Errorf("%s: status %d: %s%s", command, status, out, errs)
			}
		}
	}
}

// TestDoctor runs it under poemq, where a second listener is not possible, and asks
// a peer that serves QUIC.
func TestDoctor(t *testing.T) {
	b := newBench(t, "")
	addr := b.serve()
	held := b.hold(addr, 1, time.Minute) // something passes on the watched port
	held.Tell("")
	held.Wait(30 * time.Second)
	r := read[doctor.Report](b, "doctor", addr)
	state := func(r doctor.Report, name string) doctor.State {
		for _, c := range r.Checks {
			if c.Name == name {
				return c.State
			}
		}
		return "missing"
	}
	for _, name := range []string{"QUIC at " + addr, "system broker", "seccomp ADDFD_SEND", "nested listener"} {
		if state(r, name) != doctor.OK {
			t.Errorf("%s: %+v", name, r)
		}
	}
	nested := b.Command(ctlBinary(), "--json", "doctor")
	nested.Broker = b.broker
	p := nested.Start()
	p.Wait(time.Minute)
	var under doctor.Report
	if err := json.Unmarshal([]byte(p.Stdout()), &under); err != nil || p.ExitCode() != 1 || state(under, "nested listener") != doctor.Fail || state(under, "seccomp ADDFD_SEND") != doctor.Warn {
		t.Errorf("status %d, %v: %s", p.ExitCode(), err, p.Stdout())
	}
}
