package apps

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// Redis in its default configuration: no bind directive and protected mode,
// which refuses every client whose peer name is not loopback.
func TestRedis(t *testing.T) {
	r := rig.New(t, "redis-server", "redis-cli", "redis-benchmark")
	port := r.Port()
	server := r.Command("redis-server", "--port", port, "--save", "", "--dir", r.Dir).Start()
	server.Says("Ready to accept connections")

	cli := func(args ...any) *rig.Cmd {
		return r.Command(append([]any{"redis-cli", "-p", port}, args...)...)
	}
	want := func(want string, args ...any) {
		t.Helper()
		if got := strings.TrimSpace(cli(args...).Output()); got != want {
			t.Errorf("redis-cli %v: %q, want %q", args, got, want)
		}
	}
	want("PONG", "ping")
	want("OK", "set", "poem", "so much depends")
	want("so much depends", "get", "poem")

	// Mass insertion by pipeline, then read back in one.
	const keys = 10000
	var sets, gets, values strings.Builder
	for i := range keys {
		value := fmt.Sprintf("value-%d-%s", i, strings.Repeat("x", i%200))
		fmt.Fprintf(&sets, "SET key:%d %s\r\n", i, value)
		fmt.Fprintf(&gets, "GET key:%d\n", i)
		fmt.Fprintln(&values, value)
	}
	pipe := cli("--pipe")
	pipe.Stdin = strings.NewReader(sets.String())
	if out := pipe.Output(); !strings.Contains(out, fmt.Sprintf("errors: 0, replies: %d", keys)) {
		t.Errorf("redis-cli --pipe: %s", out)
	}
	want(fmt.Sprint(keys+1), "dbsize")
	read := cli()
	read.Stdin = strings.NewReader(gets.String())
	if got := read.Output(); got != values.String() {
		t.Errorf("the values read back differ: %d bytes, want %d", len(got), values.Len())
	}

	// A value larger than any buffer on the way.
	big := strings.Repeat("0123456789abcdef", 8<<20/16)
	set := cli("-x", "set", "big")
	set.Stdin = strings.NewReader(big)
	set.Output()
	if got := cli("get", "big").Output(); got != big+"\n" {
		t.Errorf("a value of %d bytes came back with %d", len(big), len(got)-1)
	}

	// Names of both ends, as the server sees them.
	list := cli("client", "list").Output()
	if !regexp.MustCompile(fmt.Sprintf(`addr=127\.0\.0\.1:[1-9]\d* laddr=127\.0\.0\.1:%d `, port)).MatchString(list) {
		t.Errorf("client list: %s", list)
	}

	for _, depth := range []int{1, 16} {
		out := r.Command("redis-benchmark", "-p", port, "-n", 20000, "-c", 20, "-P", depth, "-t", "set,get", "-q").Output()
		if strings.Contains(out, "rror") || strings.Count(out, "requests per second") != 2 {
			t.Errorf("redis-benchmark -P %d:\n%s", depth, out)
		}
	}
}
