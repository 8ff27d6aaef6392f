// Package syscalls times single system calls on sockets: the same program on
// the kernel's TCP and under a wrapper such as poemq-launch. Beside them stands
// the floor: a supervisor in C that only makes the system calls which no broker
// can do without.
package syscalls

import (
	"bufio"
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

var (
	//go:embed c/timing.c
	timingSource []byte
	//go:embed c/calls.c
	callsSource []byte
	//go:embed c/floor.c
	floorSource []byte
)

// floors names the call of floor.c that is answered by the same system calls,
// for each call that a broker answers without the network.
var floors = map[string]string{
	"socket":                  "socket",
	"setsockopt_SO_REUSEADDR": "setsockopt",
	"setsockopt_SO_KEEPALIVE": "setsockopt",
	"setsockopt_TCP_NODELAY":  "setsockopt",
	"getsockopt_TCP_NODELAY":  "getsockname",
	"getsockopt_SO_ERROR":     "getsockname",
	"getsockname":             "getsockname",
	"getpeername":             "getsockname",
}

// Floor names the call of Bench.Floor that a call is compared with; "" when it is
// not answered at once.
func Floor(call string) string { return floors[call] }

// Call is what a call takes: the median and the 99th percentile of one run.
type Call struct {
	Name        string
	Median, P99 time.Duration
}

// Bench has the measuring programs.
type Bench struct {
	calls, floor string
	times        string
}

// New compiles the programs into dir. Each call is made so many times in a run,
// 100 at least.
func New(dir string, times int) (*Bench, error) {
	calls, err := compile(dir, "calls", callsSource)
	if err != nil {
		return nil, err
	}
	floor, err := compile(dir, "floor", floorSource)
	return &Bench{calls, floor, fmt.Sprint(times)}, err
}

// Native times all calls on the kernel's sockets.
func (b *Bench) Native() ([]Call, error) { return run(nil, b.calls, b.times) }

// Floor times those that the supervisor in C answers.
func (b *Bench) Floor() ([]Call, error) { return run(nil, b.floor, b.times) }

// Under times one call under what stands before the program on its command line
// and in its environment. Each call has a broker of its own: closing thousands
// of listening sockets is work that goes on while the next kind of call is timed.
func (b *Bench) Under(wrapper, env []string, call string) (Call, error) {
	all, err := run(env, append(wrapper, b.calls, b.times, call)...)
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("%d calls measured in place of %s", len(all), call)
	}
	if err != nil {
		return Call{}, err
	}
	return all[0], nil
}

func compile(dir, name string, source []byte) (program string, err error) {
	program = filepath.Join(dir, name)
	c := exec.Command("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-x", "c", "-", "-o", program)
	c.Stdin = io.MultiReader(bytes.NewReader(timingSource), bytes.NewReader(source))
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile %s.c: %w\n%s", name, err, out)
	}
	return program, nil
}

func run(env []string, argv ...string) (all []Call, err error) {
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = append(os.Environ(), env...)
	c.Stderr = os.Stderr
	c.WaitDelay = 10 * time.Second
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		var name string
		var median, p99 int64
		if _, err := fmt.Sscan(sc.Text(), &name, &median, &p99); err != nil {
			return nil, fmt.Errorf("%s printed %q: %w", argv[0], sc.Text(), err)
		}
		all = append(all, Call{name, time.Duration(median), time.Duration(p99)})
	}
	return all, nil
}
