// Command syscalls measures what a trapped system call costs: the same program
// on kernel TCP and under poemq-launch, in turns, in one run.
//
//	go run ./bench/syscalls [-launch bin/poemq-launch] [-times 2000] [-rounds 7]
//
// It prints medians in µs and exits with 1 when one is over its bar. Each figure
// is the median of the rounds' medians.
package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:embed c/calls.c
var source []byte

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
	program, err := compile(dir)
	if err != nil {
		return 0, err
	}
	native, poemq := map[string]*result{}, map[string]*result{}
	var names []string
	for range rounds {
		if names, err = run(native, program, fmt.Sprint(times)); err != nil {
			return 0, err
		}
		if _, err = run(poemq, launch, "--", program, fmt.Sprint(times)); err != nil {
			return 0, err
		}
	}
	fmt.Printf("%-26s %10s %10s %10s %8s  (µs, medians of %d rounds of %d)\n", "call", "native", "poemq", "poemq p99", "bar", rounds, times)
	for _, name := range names {
		n, p := micros(native[name].median), micros(poemq[name].median)
		line := fmt.Sprintf("%-26s %10.2f %10.2f %10.2f", name, n, p, micros(poemq[name].p99))
		if bar, ok := bars[name]; ok {
			line += fmt.Sprintf(" %8.0f", bar)
			if p > bar {
				line += "  OVER"
				over++
			}
		}
		fmt.Println(line)
	}
	return over, nil
}

func compile(dir string) (program string, err error) {
	program = filepath.Join(dir, "calls")
	c := exec.Command("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-x", "c", "-", "-o", program)
	c.Stdin = bytes.NewReader(source)
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile calls.c: %w\n%s", err, out)
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
