package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/poemq/poemq/broker"
	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/quic"
)

// asClient has the test binary ask a control socket, as another user.
const asClient = "TEST_AS_CLIENT"

func TestMain(m *testing.M) {
	if socket := os.Getenv(asClient); socket != "" {
		client := api.New(socket)
		for _, ask := range os.Args[1:] {
			method, path, _ := strings.Cut(ask, " ")
			path, text, more := strings.Cut(path, " ")
			var body any
			if more {
				body = json.RawMessage(text)
			}
			answer, err := client.Raw(context.Background(), method, path, body)
			if e, ok := errors.AsType[*api.Error](err); ok {
				fmt.Printf("%d %s\n", e.Status, e.Message)
			} else if err != nil {
				fmt.Println(err)
			} else {
				fmt.Printf("200 %s", answer)
			}
		}
		return
	}
	os.Exit(m.Run())
}

// rig is a broker with a control socket, whose group is gid.
func rig(t *testing.T, a *authority) (socket string, level *slog.LevelVar) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pq") // short, as sockets' names must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	id, err := quic.LoadIdentity(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	host, err := quic.NewHost(quic.Config{Identity: id, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	b, err := broker.New(broker.Config{Host: host, Log: log, RuntimeDirs: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	socket, level = filepath.Join(dir, "c"), new(slog.LevelVar)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	stop := serve(l, Config{
		Broker: b, Host: host, Log: log, Version: "test", Level: level,
		Reload: func() (api.Reloaded, error) { return api.Reloaded{}, fmt.Errorf("poemq.toml:3: x: unknown key") },
	}, a)
	t.Cleanup(func() {
		stop()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		host.Close()
	})
	return socket, level
}

// askAs asks as another user, and gives one line for each question.
func askAs(t *testing.T, socket string, cred *syscall.Credential, asks ...string) []string {
	t.Helper()
	program := filepath.Join(filepath.Dir(socket), "ask")
	if _, err := os.Stat(program); err != nil { // the test's own directory may be closed to others
		in, err := os.ReadFile(os.Args[0])
		if err == nil {
			err = os.WriteFile(program, in, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, program, asks...)
	c.Env = []string{asClient + "=" + socket}
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// TestWhoMayWhat asks everything as root, as a member of the group by its first
// and by a supplementary group, and as somebody else.
func TestWhoMayWhat(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to ask as other users")
	}
	const group = 54321
	socket, _ := rig(t, &authority{uids: []uint32{0}, gids: []uint32{group}})
	asks := []string{
		"GET /v1/status", "GET /v1/sessions", "GET /v1/sockets", "GET /v1/connections", "GET /v1/fallback", "DELETE /v1/fallback",
		"GET /v1/why?to=192.0.2.1:1&uid=65534", "GET /v1/why?to=192.0.2.1:1&uid=1", "GET /v1/log-level",
		"GET /v1/trust", `PUT /v1/trust {"peer":"192.0.2.1:443","key":"sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`,
		"DELETE /v1/trust?peer=192.0.2.1:443", "POST /v1/reload", `PUT /v1/log-level {"level":"debug"}`, `PUT /v1/connections/7/qlog {"on":true}`,
		"GET /debug/pprof/",
	}
	const mayAll, mayOwn = "200 200 200 200 200 200 200 200 200 200 200 200 409 200 404 200", "200 200 200 200 200 200 200 403 200 403 403 403 403 403 403 403"
	for _, tc := range []struct {
		name string
		cred syscall.Credential
		want string
	}{
		{"root", syscall.Credential{}, mayAll},
		{"first group", syscall.Credential{Uid: 65534, Gid: group}, mayAll},
		{"supplementary group", syscall.Credential{Uid: 65534, Gid: 65534, Groups: append(manyGroups(), group)}, mayAll},
		{"another user", syscall.Credential{Uid: 65534, Gid: 65534, Groups: manyGroups()}, mayOwn},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, ask := range asks { // pprof's answer has many lines
				got = append(got, strings.Fields(askAs(t, socket, &tc.cred, ask)[0])[0])
			}
			if diff := cmp.Diff(strings.Fields(tc.want), got); diff != "" {
				t.Errorf("%v\n%s", asks, diff)
			}
		})
	}
}

// manyGroups are more than peerGroups has room for at first.
func manyGroups() []uint32 {
	var all []uint32
	for i := range uint32(100) {
		all = append(all, 60000+i)
	}
	return all
}

// TestAnswers looks at what is told of faults, as who may do everything.
func TestAnswers(t *testing.T) {
	socket, level := rig(t, newAuthority("no such group"))
	client := api.New(socket)
	defer client.Close()
	for _, tc := range []struct {
		method, path string
		body         any
		want         string // in the error; "" for none
	}{
		{"GET", "/v1/why?to=x", nil, "to: "},
		{"GET", "/v1/why", nil, "needs to or listen"},
		{"GET", "/v1/why?to=192.0.2.1:1&probe=perhaps", nil, "neither true nor false"},
		{"GET", "/v1/nothing", nil, "does not know GET /v1/nothing"},
		{"PUT", "/v1/log-level", api.LogLevel{Level: "loud"}, "none of debug"},
		{"PUT", "/v1/log-level", map[string]int{"lebel": 1}, "unknown field"},
		{"PUT", "/v1/log-level", api.LogLevel{Level: "warn"}, ""},
		{"PUT", "/v1/trust", api.Pin{Key: "sha256:x"}, "peer: want an address"},
		{"PUT", "/v1/connections/x/qlog", api.Qlog{On: true}, "no number"},
		{"PUT", "/v1/connections/1/qlog", api.Qlog{On: true}, "no such connection"},
		{"POST", "/v1/reload", nil, "poemq.toml:3: x: unknown key"},
		{"DELETE", "/v1/fallback?destination=x", nil, "destination: "},
		{"DELETE", "/v1/trust", nil, "peer: want an address"},
	} {
		_, err := client.Raw(t.Context(), tc.method, tc.path, tc.body)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %s: %v, want %q", tc.method, tc.path, err, tc.want)
		}
	}
	if level.Level() != slog.LevelWarn {
		t.Errorf("the level is %v", level.Level())
	}
}

// TestNobodyKnown: without credentials nothing is answered.
func TestNobodyKnown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := serve(l, Config{Log: slog.New(slog.DiscardHandler)}, newAuthority(""))
	defer stop()
	resp, err := http.Get("http://" + l.Addr().String() + "/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusForbidden {
		t.Errorf("%s: %s", resp.Status, body)
	}
}

// TestDocument holds docs/api.md to the routes and to the fields of the types.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	var told, there []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\S+ \\S+)` \\| (\\w+) \\| (.*) \\|$").FindAllStringSubmatch(string(text), -1) {
		told = append(told, strings.Join([]string{m[1], fmt.Sprint(m[2] == "all"), m[3]}, "; "))
	}
	for _, r := range (&server{}).routes() {
		there = append(there, strings.Join([]string{r.Method + " " + r.Path, fmt.Sprint(r.All), r.About}, "; "))
	}
	if diff := cmp.Diff(there, told); diff != "" {
		t.Errorf("docs/api.md and the routes differ:\n%s", diff)
	}
	for _, typ := range append(types, reflect.TypeFor[api.Qlog](), reflect.TypeFor[api.Failure]()) {
		for _, field := range fields(typ) {
			if !regexp.MustCompile("[`\"]" + field + "[`\"]").MatchString(string(text)) {
				t.Errorf("docs/api.md does not tell of the field %s", field)
			}
		}
	}
}

// types are the answers.
var types = []reflect.Type{
	reflect.TypeFor[api.Status](), reflect.TypeFor[api.Sessions](), reflect.TypeFor[api.Sockets](), reflect.TypeFor[api.Connections](),
	reflect.TypeFor[api.Fallbacks](), reflect.TypeFor[api.Why](), reflect.TypeFor[api.Trust](), reflect.TypeFor[api.Reloaded](), reflect.TypeFor[api.Traced](),
	reflect.TypeFor[api.Drained](), reflect.TypeFor[api.Forgotten](), reflect.TypeFor[api.LogLevel](),
}

// fields are the names that JSON has for the fields of t.
func fields(t reflect.Type) (all []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t.PkgPath() != "" && !strings.HasSuffix(t.PkgPath(), "broker/api") {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			all = append(all, name)
		}
		all = append(all, fields(f.Type)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestFieldsAreStable holds the field names to a list: programs read them. One is
// added with its line here; none is changed or taken away.
func TestFieldsAreStable(t *testing.T) {
	want, err := os.ReadFile("testdata/fields")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, typ := range types {
		fmt.Fprintf(&b, "%s: %s\n", typ.Name(), strings.Join(fields(typ), " "))
	}
	if os.Getenv("UPDATE") != "" {
		_ = os.WriteFile("testdata/fields", []byte(b.String()), 0o644)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("field names changed (testdata/fields):\n%s", diff)
	}
}

// TestMostConnections: a user who holds many connections keeps no others out.
func TestMostConnections(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "c"))
	if err != nil {
		t.Fatal(err)
	}
	nobody := &authority{uids: []uint32{4000000000}} // we are not trusted with everything
	stop := serve(l, Config{Log: slog.New(slog.DiscardHandler), Level: new(slog.LevelVar)}, nobody)
	defer stop()
	var held []net.Conn
	for range mostConns {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	client := api.New(l.Addr().String())
	defer client.Close()
	ask := func() error {
		_, err := client.Raw(t.Context(), "GET", "/v1/log-level", nil)
		return err
	}
	if ask() == nil {
		t.Error("one more connection is served")
	}
	held[0].Close()
	for late := time.Now().Add(20 * time.Second); ask() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("not served though there is room")
		}
	}
}
