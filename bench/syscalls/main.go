// Command syscalls measures what a trapped system call costs: the same program
// on kernel TCP and under poemq-launch, in turns, in one run. Beside them stands
// the floor: a supervisor in C that only makes the system calls which no broker
// can do without.
//
//	go run ./bench/syscalls [-launch bin/poemq-launch] [-times 2000] [-rounds 7]
//
// It prints medians in µs, each the median of the rounds' medians, and exits with
// 1 when a call is over its bar. The floor tells how much of that the kernel is.
package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// The bars, in µs at the median, for calls that need no network.
const (
	barSocket = 20
	barCall   = 15
)

// bars has the calls that must keep one; the others are shown beside them.
var bars = map[string]float64{
	"socket":                  barSocket,
	"setsockopt_SO_REUSEADDR": barCall,
	"setsockopt_SO_KEEPALIVE": barCall,
	"setsockopt_TCP_NODELAY":  barCall,
	"getsockopt_TCP_NODELAY":  barCall,
	"getsockopt_SO_ERROR":     barCall,
	"getsockname":             barCall,
	"getpeername":             barCall,
}

// floors names the call of floor.c that is answered by the same system calls.
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

// result is one call's figures of one way, a round each, in nanoseconds.
type result struct{ median, p99 []float64 }

func main() {
	launch := flag.String("launch", "bin/poemq-launch", "the launcher")
	times := flag.Int("times", 2000, "calls of each kind in a round")
	rounds := flag.Int("rounds", 7, "rounds; native and poemq take turns")
	flag.Parse()
	over, err := measure(*launch, *times, *rounds)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-syscalls:", err)
		os.Exit(2)
	}
	if over > 0 {
		fmt.Fprintf(os.Stderr, "bench-syscalls: %d calls are over their bar\n", over)
		os.Exit(1)
	}
}

func measure(launch string, times, rounds int) (over int, err error) {
	dir, err := os.MkdirTemp("", "poemq-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	program, err := compile(dir, "calls", callsSource)
	if err != nil {
		return 0, err
	}
	supervisor, err := compile(dir, "floor", floorSource)
	if err != nil {
		return 0, err
	}
	native, poemq, floor := map[string]*result{}, map[string]*result{}, map[string]*result{}
	var names []string
	for range rounds {
		if names, err = run(native, program, fmt.Sprint(times)); err != nil {
			return 0, err
		}
		if _, err = run(floor, supervisor, fmt.Sprint(times)); err != nil {
			return 0, err
		}
		// Each call with a broker of its own: closing thousands of listening
		// sockets is work that goes on while the next kind of call is timed.
		for _, name := range names {
			if _, err = run(poemq, launch, "--", program, fmt.Sprint(times), name); err != nil {
				return 0, err
			}
		}
	}
	fmt.Printf("%-26s %8s %8s %8s %10s %6s  (µs, medians of %d rounds of %d)\n", "call", "native", "floor", "poemq", "poemq p99", "bar", rounds, times)
	for _, name := range names {
		p := micros(poemq[name].median)
		least, bar, barred := "", "", ""
		if b, ok := bars[name]; ok {
			f := micros(floor[floors[name]].median)
			least, bar = fmt.Sprintf("%.2f", f), fmt.Sprintf("%.0f", b)
			if p > b {
				barred = fmt.Sprintf("  over its bar, %.2f times the floor", p/f)
				over++
			}
		}
		fmt.Printf("%-26s %8.2f %8s %8.2f %10.2f %6s%s\n", name, micros(native[name].median), least, p, micros(poemq[name].p99), bar, barred)
	}
	return over, nil
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

// run adds a round to into and returns the calls' names in order.
func run(into map[string]*result, argv ...string) (names []string, err error) {
	c := exec.Command(argv[0], argv[1:]...)
	c.Stderr = os.Stderr
	c.WaitDelay = 10 * time.Second
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		var name string
		var median, p99 float64
		if _, err := fmt.Sscan(sc.Text(), &name, &median, &p99); err != nil {
			return nil, fmt.Errorf("%s printed %q: %w", argv[0], sc.Text(), err)
		}
		r := into[name]
		if r == nil {
			r = &result{}
			into[name] = r
		}
		r.median, r.p99 = append(r.median, median), append(r.p99, p99)
		names = append(names, name)
	}
	return names, nil
}

// micros is the median of ns in µs.
func micros(ns []float64) float64 {
	s := slices.Sorted(slices.Values(ns))
	return s[len(s)/2] / 1000
}
