package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/poemq/poemq/broker/policy"
)

// write makes files in a directory of the test's, which it returns.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDefaults(t *testing.T) {
	c, err := Load(Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Log.Level != slog.LevelInfo || c.Fallback.HeadStart != 300*time.Millisecond || c.Qlog.MaxBytes != 16<<20 || c.Policy.Default != policy.Prefer || !c.Pool.FastOpen {
		t.Errorf("%+v", c)
	}
	for _, name := range keyNames() {
		if o, ok := c.origins[name]; !ok || !o.Built() {
			t.Errorf("%s has no default in poemq.toml", name)
		}
	}
}

// TestExamples loads the tables that poemq.toml shows in comments, and finds
// every key of them there.
func TestExamples(t *testing.T) {
	var b strings.Builder
	inTable := false
	for line := range strings.Lines(Defaults) {
		rest, comment := strings.CutPrefix(strings.TrimSpace(line), "#")
		inTable = comment && rest != "" && (inTable || strings.HasPrefix(strings.TrimSpace(rest), "[["))
		if inTable {
			b.WriteString(strings.Replace(strings.Replace(rest, "sha256:BASE64", "", 1), `"postgres"`, `"root"`, 1) + "\n")
		}
	}
	dir := write(t, map[string]string{"poemq.toml": b.String()})
	c, err := Load(Sources{File: filepath.Join(dir, "poemq.toml")})
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	if len(c.Rules) != 1 || len(c.Allows) != 1 || len(c.Exposes) != 1 || len(c.Forwards) != 1 {
		t.Errorf("%+v", c)
	}
	for list, fields := range map[string][]string{"rule": names(ruleFields), "allow": names(allowFields), "expose": names(exposeFields), "forward": names(forwardFields)} {
		for _, f := range fields {
			if !strings.Contains(b.String(), " "+f+" = ") {
				t.Errorf("no example has %s.%s", list, f)
			}
		}
	}
}

func TestLayers(t *testing.T) {
	dir := write(t, map[string]string{
		"poemq.toml":      "[pool]\nidle = \"10s\"\nmax_connections = 2\n\n[[rule]]\nname = \"first\"\nport = 1\n",
		"poemq.d/10.toml": "pool.idle = \"20s\"\nfallback = { head_start = \"1s\", entries = 7 }\n[[rule]]\nname = \"second\"\n",
		"poemq.d/9.toml":  "[pool]\nidle = \"9s\" # read after 10.toml\n",
		"poemq.d/x.conf":  "this is read by nobody",
		"more.toml":       "[wire]\nmax_idle = \"1h30m\"\n",
	})
	file := filepath.Join(dir, "poemq.toml")
	c, err := Load(Sources{
		File: file, More: []string{filepath.Join(dir, "more.toml")},
		Environ: []string{"POEMQ_POOL_MAX_CONNECTIONS=3", "POEMQ_LOG=debug", "POEMQ_TLS_CRL=/a, /b", "POEMQ_TLS_CA=/ca", "POEMQ_QUIC=off", "POEMQ_STATE_DIR=", "HOME=/"},
		Flags:   []Flag{{"--log-level", "log.level", "error"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Pool.Idle != 9*time.Second || c.Pool.MaxConnections != 3 || c.Log.Level != slog.LevelError || c.Fallback.Entries != 7 || c.Fallback.HeadStart != time.Second || c.Wire.MaxIdle != 90*time.Minute || len(c.TLS.CRL) != 2 {
		t.Errorf("%+v", c)
	}
	if len(c.Rules) != 2 || c.Rules[0].Name != "first" || c.Rules[1].Name != "second" {
		t.Errorf("rules %+v", c.Rules)
	}
	for key, want := range map[string]string{
		"pool.idle": filepath.Join(dir, "poemq.d/9.toml") + ":2", "pool.max_connections": "POEMQ_POOL_MAX_CONNECTIONS",
		"log.level": "--log-level", "fallback.entries": filepath.Join(dir, "poemq.d/10.toml") + ":2",
		"wire.max_idle": filepath.Join(dir, "more.toml") + ":2", "state.dir": "default",
	} {
		if got := c.Origin(key).String(); got != want {
			t.Errorf("%s is from %s, want %s", key, got, want)
		}
	}
	if len(c.Files()) != 4 || c.Rules[0].Where != file+":5" {
		t.Errorf("%v, %s", c.Files(), c.Rules[0].Where)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "none.toml")
	if _, err := Load(Sources{File: missing}); err != nil {
		t.Error(err)
	}
	for _, s := range []Sources{{File: missing, Required: true}, {More: []string{missing}}, {File: dir}} {
		if _, err := Load(s); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	getenv := func(m map[string]string) func(string) string { return func(k string) string { return m[k] } }
	user := write(t, map[string]string{".config/poemq/poemq.toml": ""})
	for _, tc := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"HOME": user}, filepath.Join(user, ".config/poemq/poemq.toml")},
		{map[string]string{"XDG_CONFIG_HOME": filepath.Join(user, ".config")}, filepath.Join(user, ".config/poemq/poemq.toml")},
		{map[string]string{"HOME": dir}, ""},
		{map[string]string{"HOME": "relative"}, ""},
		{nil, ""},
	} {
		if got := UserFile(getenv(tc.env)); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.env, got, tc.want)
		}
	}
}

// TestFaults: each fault names the file, the line, the key, and what is right.
func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		text string
		want []string // one for each line of the error, FILE: before it
	}{
		{"[pool]\nidel = \"5s\"", []string{"2: pool.idel: unknown key; did you mean pool.idle?"}},
		{"idle = \"5s\"", []string{"1: idle: unknown key; did you mean pool.idle?"}},
		{"[pol]\nidle = \"5s\"", []string{"1: pol: unknown key; did you mean pool?"}},
		{"[zzzzzz]", []string{"1: zzzzzz: unknown key"}},
		{"[rule]\nname = \"a\"", []string{"1: [rule] may come several times: write [[rule]]"}},
		{"[[pool]]", []string{"1: [[pool]] comes only once: write [pool]"}},
		{"\n\n[[rule]]\nprot = 443", []string{"4: rule.prot: unknown key; did you mean port?"}},
		{"[pool]\nidle = 5", []string{`2: pool.idle: is a number, and takes a duration with its unit, like "30s"`}},
		{"[pool]\nidle = \"5\"", []string{`2: pool.idle: "5" is no duration like "300ms", "1m30s" or "2h"`}},
		{"[pool]\nidle = \"-5s\"", []string{`2: pool.idle: "-5s" is not from 1s to 24h`}},
		{"[pool]\nidle = \"+5s\"", []string{`2: pool.idle: "+5s" is no duration`}},
		{"[pool]\nidle = \"9999h\"", []string{`2: pool.idle: "9999h" is not from 1s to 24h`}},
		{"[pool]\nfast_open = \"yes\"", []string{"2: pool.fast_open: is text, and takes true or false"}},
		{"[pool]\nmax_connections = -1", []string{"2: pool.max_connections: -1 is not from 1 to 64"}},
		{"[pool]\nmax_connections = 1.5", []string{"2: pool.max_connections: is something else, and takes a number from 1 to 64"}},
		{"[wire]\nudp_port = \"all\"", []string{`2: wire.udp_port: "all" is neither "same" nor a number from 1 to 65535`}},
		{"[wire]\nudp_port = 70000", []string{"2: wire.udp_port: 70000 is not from 1 to 65535"}},
		{"[qlog]\nmax_bytes = \"64kB\"", []string{`2: qlog.max_bytes: "64kB" is no size: whole octets, or with KiB, MiB, GiB or TiB`}},
		{"[qlog]\nmax_bytes = \"-1KiB\"", []string{`2: qlog.max_bytes: "-1KiB" is no size`}},
		{"[qlog]\nmax_bytes = 99999999999999999", []string{"2: qlog.max_bytes: 99999999999999999 is not from 4KiB to 1TiB"}},
		{"[qlog]\nmax_bytes = \"9999999999TiB\"", []string{`2: qlog.max_bytes: "9999999999TiB" is no size`}},
		{"[log]\nlevel = \"loud\"", []string{`2: log.level: "loud" is none of debug, info, warn, error`}},
		{"[state]\ndir = \"here\"", []string{`2: state.dir: "here" does not begin with /`}},
		{"[policy]\ndefault = \"\"", []string{"2: policy.default: is empty; it is require, prefer or off"}},
		{"[tls]\ncert = \"/c\"", []string{"2: tls.cert: needs tls.key"}},
		{"[tls]\ncrl = [\"/c\"]", []string{"2: tls.crl: needs tls.ca"}},
		{"[wire]\nmax_idle = \"10s\"\nkeep_alive = \"20s\"", []string{"3: wire.keep_alive: keep_alive, 20s, must be shorter than max_idle, 10s"}},
		{
			"[[rule]]\nto = [\n  \"10.0.0.0/8\",\n  \"10.0.0.1/8\",\n  \"a b\",\n]\nport = [0]",
			[]string{`4: rule.to: "10.0.0.1/8" has bits`, `5: rule.to: "a b" is no address`, "7: rule.port: 0 is not from 1 to 65535"},
		},
		{"[[rule]]\nto = []", []string{"2: rule.to: is an empty list; leave the key out to mean everything"}},
		{"[[rule]]\nto = [[\"a\"]]", []string{"2: rule.to: is a list, and takes single values in one list"}},
		{"[[rule]]\nuid = \"no-such-user-here\"", []string{`2: rule.uid: "no-such-user-here" is no user of this machine`}},
		{"[[rule]]\nuid = 4294967295", []string{"2: rule.uid: 4294967295 is not from 0 to 4294967294"}},
		{"[[rule]]\nmode = \"always\"", []string{`2: rule.mode: "always" is none of require, prefer, off`}},
		{"[[rule]]\nframing = \"raw\"", []string{`1: rule: framing "raw" needs alpn`}},
		{"rule = 5", []string{"1: rule: is a number, and takes tables: write [[rule]]"}},
		{"[[allow]]\npeer = \"*.web.example\"", []string{"1: allow: needs peer and port"}},
		{"[[allow]]\npeer = \"pin\"\nport = 1", []string{`2: allow.peer: "pin" is none of`}},
		{"[[expose]]\nlisten = \"tcp/0.0.0.0:1\"\nto = \"x\"", []string{`2: expose.listen: "tcp/0.0.0.0:1" is not like udp/0.0.0.0:5432`, `3: expose.to: "x" is no host and port`}},
		{"[[forward]]\nto = \"db.example.com:5432\"", []string{"1: forward: needs listen and to"}},
		{"[pool]\nidle = \"5s\"\nidle = \"6s\"", []string{"3: "}},
		{"[pool]\n[pool]", []string{"2: "}},
		{"[pool\nidle = 1", []string{"1: "}},
		{"\"pool.idle\" = \"5s\"", []string{"1: \"pool.idle\": unknown key"}},
	} {
		dir := write(t, map[string]string{"c.toml": tc.text})
		file := filepath.Join(dir, "c.toml")
		c, err := Load(Sources{File: file})
		if err == nil || c != nil {
			t.Errorf("%q was taken", tc.text)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != len(tc.want) {
			t.Errorf("%q: %d lines, want %d:\n%v", tc.text, len(lines), len(tc.want), err)
			continue
		}
		for i, want := range tc.want {
			if !strings.HasPrefix(lines[i], file+":"+want) {
				t.Errorf("%q: %s, want %s", tc.text, strings.TrimPrefix(lines[i], file+":"), want)
			}
		}
	}
}

func TestEnvironmentFaults(t *testing.T) {
	_, err := Load(Sources{
		Environ: []string{"POEMQ_POOL_IDEL=5s", "POEMQ_POOL_IDLE=5", "POEMQ_POOL_FAST_OPEN=no", "POEMQ_POOL_MAX_CONNECTIONS=x"},
		Flags:   []Flag{{"--log-level", "log.level", "loud"}},
	})
	want := []string{
		"POEMQ_POOL_FAST_OPEN: is text, and takes true or false",
		"POEMQ_POOL_IDEL: unknown key; did you mean POEMQ_POOL_IDLE?",
		`POEMQ_POOL_IDLE: "5" is no duration`,
		"POEMQ_POOL_MAX_CONNECTIONS: is text, and takes a number",
		`--log-level: "loud" is none of`,
	}
	if err == nil {
		t.Fatal("taken")
	}
	for i, line := range strings.Split(err.Error(), "\n") {
		if i >= len(want) || !strings.HasPrefix(line, want[i]) {
			t.Errorf("line %d: %s, want %q", i, line, want)
		}
	}
}

const full = `
log.level = "debug"
[pool]
idle = "1m30s"
[tls]
cert = "/etc/a \"b\".pem"
key = "/etc/k\u007f.pem"
ca = "/ca"
crl = ["/a", "/b"]
[qlog]
max_bytes = 70000
[[rule]]
name = "all\tof it"
to = ["10.0.0.0/8", "db.example.com", "::1"]
listen = ["0.0.0.0/0"]
port = [443, "8000-8100"]
uid = [0, "root"]
cgroup = "/system.slice"
session = ["web"]
mode = "require"
identity = "spiffe://example.com/web"
zero_rtt = true
alpn = "h3"
framing = "raw"
[[rule]]
[[allow]]
peer = ["*.web.example", "a.example"]
port = 5432
[[expose]]
listen = "udp/[::]:5432"
to = "[::1]:5432"
[[forward]]
listen = "tcp/127.0.0.1:5433"
to = "db.example.com:5432"
mode = "prefer"
identity = "pin"
`

// TestPrint: what is printed loads as what was printed.
func TestPrint(t *testing.T) {
	dir := write(t, map[string]string{"c.toml": full})
	c, err := Load(Sources{File: filepath.Join(dir, "c.toml")})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`idle = "1m30s" # ` + filepath.Join(dir, "c.toml") + ":4 ",
		`handshake_timeout = "30s" # default `, `max_bytes = "70000"`, "level = \"debug\"",
	} {
		if !strings.Contains(strings.Join(strings.Fields(b.String()), " "), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	again := reload(t, b.String())
	if diff := c.AtRestart(again); len(diff) > 0 || len(c.Rules) != len(again.Rules) || c.Log != again.Log {
		t.Errorf("%v differ in\n%s", diff, b.String())
	}
	if a, b := noLines(c.Rules), noLines(again.Rules); !equal(a, b) {
		t.Errorf("%+v\nis printed as\n%+v", a, b)
	}
	if !equal(noLines(c.Exposes), noLines(again.Exposes)) || !equal(noLines(c.Forwards), noLines(again.Forwards)) {
		t.Errorf("%+v %+v\nare printed as\n%+v %+v", c.Exposes, c.Forwards, again.Exposes, again.Forwards)
	}
}

func reload(t testing.TB, text string) *Config {
	t.Helper()
	c, err := Load(Sources{File: filepath.Join(write(t, map[string]string{"c.toml": text}), "c.toml")})
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return c
}

func TestAtRestart(t *testing.T) {
	a := reload(t, "[pool]\nidle = \"5s\"\n[[allow]]\npeer = \"a\"\nport = 1")
	b := reload(t, "log.level = \"warn\"\n[pool]\nidle = \"6s\"\n[fallback]\nentries = 5\n[[allow]]\npeer = \"a\"\nport = 1\n[[rule]]\n")
	if got := a.AtRestart(b); len(got) != 1 || got[0] != "pool.idle" {
		t.Errorf("%q", got)
	}
	if got := a.AtRestart(reload(t, "[pool]\nidle = \"5s\"\n[[allow]]\npeer = \"a\"\nport = 2")); len(got) != 1 || got[0] != "allow" {
		t.Errorf("%q", got)
	}
}

// TestDocs holds docs/configuration.md against poemq.toml.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```toml\n"+Defaults+"```\n") {
		t.Error("docs/configuration.md does not show poemq.toml as it is: put the file's text between its ```toml and ```")
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(Defaults)
	f.Add(full)
	f.Add("rule = [{to = \"::1\"}, 5]\npool = {idle = \"5s\"}\n[a.b]\n[[c.\"d.e\"]]\nx = [1, 2.5, 1979-05-27]")
	f.Fuzz(func(t *testing.T, text string) {
		l := &loader{c: &Config{origins: map[string]Origin{}}}
		l.layer("", []byte(Defaults))
		l.layer("f", []byte(text))
		if len(l.errs) > 0 {
			for _, err := range l.errs {
				if !strings.HasPrefix(err.Error(), "f:") {
					t.Errorf("%v names no file", err)
				}
			}
			return
		}
		var b strings.Builder
		if err := l.c.Print(&b); err != nil {
			t.Fatal(err)
		}
		again := &loader{c: &Config{origins: map[string]Origin{}}}
		again.layer("p", []byte(b.String()))
		if len(again.errs) > 0 || len(l.c.AtRestart(again.c)) > 0 || !equal(noLines(l.c.Rules), noLines(again.c.Rules)) {
			t.Errorf("%q\nis printed as\n%s\n%v", text, b.String(), again.errs)
		}
	})
}

func equal[T any](a, b []T) bool { return reflect.DeepEqual(a, b) || len(a)+len(b) == 0 }
