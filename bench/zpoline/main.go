// Command zpoline measures what a system call costs under libpoemq-zpoline.so, by
// the way it takes: not under it, dispatched by the kernel, and rewritten, for a
// hook that does not want the call or wants it. The hooks do nothing, so that this
// is the loader's own cost; the broker's is measured by bench.
//
//	go run ./bench/zpoline [-loader bin/libpoemq-zpoline.so] [-batches 200] [-rounds 7]
//
// It prints medians, each the median of the rounds' medians of batches of 1,000
// calls, with the ways taking turns.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// way is how the calls of the measured program go.
type way struct {
	name  string
	mode  string // POEMQ_ZPOLINE; "" for a program that is not under the loader
	hook  string
	first bool // the first call at a place, not the later ones
}

var ways = []way{
	{name: "native"},
	{name: "rewritten, not wanted by the hook", mode: "rewrite", hook: "none"},
	{name: "rewritten, hook without vectors", mode: "rewrite", hook: "plain"},
	{name: "rewritten, hook, vectors kept", mode: "rewrite", hook: "vectors"},
	{name: "dispatched, not wanted by the hook", mode: "dispatch", hook: "none"},
	{name: "dispatched, hook, vectors kept", mode: "dispatch", hook: "vectors"},
	{name: "first at a place, native", first: true},
	{name: "first at a place, rewritten", mode: "rewrite", hook: "none", first: true},
}

// hooks are the ways of building c/hook.c.
var hooks = map[string][]string{
	"none":    {"-DWANTS=0", "-DVECTORS=0"},
	"plain":   {"-DWANTS=1", "-DVECTORS=0", "-mgeneral-regs-only"},
	"vectors": {"-DWANTS=1", "-DVECTORS=1"},
}

func main() {
	loader := flag.String("loader", "bin/libpoemq-zpoline.so", "the loader")
	batches := flag.Int("batches", 200, "batches of 1,000 calls in a round")
	rounds := flag.Int("rounds", 7, "rounds")
	flag.Parse()
	if err := measure(*loader, *batches, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench-zpoline:", err)
		os.Exit(1)
	}
}

func measure(loader string, batches, rounds int) error {
	loader, err := filepath.Abs(loader)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "poemq-bench-zpoline-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := compile(dir); err != nil {
		return err
	}
	ns := make([][]float64, len(ways))
	starts := map[string][]float64{}
	for range rounds {
		for i, w := range ways {
			one, err := w.run(dir, loader, batches)
			if err != nil {
				return err
			}
			ns[i] = append(ns[i], one)
		}
		for _, mode := range []string{"", "rewrite", "dispatch"} {
			one, err := start(dir, loader, mode)
			if err != nil {
				return err
			}
			starts[mode] = append(starts[mode], one)
		}
	}
	fmt.Printf("%-36s %10s  (medians of %d rounds)\n", "getpgrp(2)", "ns", rounds)
	for i, w := range ways {
		fmt.Printf("%-36s %10.1f\n", w.name, median(ns[i]))
	}
	fmt.Printf("\n%-36s %10s\n", "a program that does nothing", "µs")
	for _, s := range []struct{ mode, name string }{{"", "native"}, {"rewrite", "under the loader, rewriting"}, {"dispatch", "under the loader, dispatching"}} {
		fmt.Printf("%-36s %10.0f\n", s.name, median(starts[s.mode])/1000)
	}
	return nil
}

func compile(dir string) error {
	jobs := [][]string{{"-o", filepath.Join(dir, "cost"), "bench/zpoline/c/cost.c"}}
	for name, flags := range hooks {
		jobs = append(jobs, append([]string{"-shared", "-fPIC", "-Izpoline", "-o", filepath.Join(dir, name+".so"), "bench/zpoline/c/hook.c"}, flags...))
	}
	for _, job := range jobs {
		c := exec.Command("cc", append([]string{"-O2", "-Wall", "-Wextra", "-Werror"}, job...)...)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("cc %s: %w\n%s", strings.Join(job, " "), err, out)
		}
	}
	return nil
}

func under(c *exec.Cmd, dir, loader, mode, hook string) {
	if mode != "" {
		c.Env = append(os.Environ(), "LD_PRELOAD="+loader, "LIBZPHOOK="+filepath.Join(dir, hook+".so"), "POEMQ_ZPOLINE=must,"+mode)
	}
	c.Stderr = os.Stderr
}

// run gives the nanoseconds of a call.
func (w way) run(dir, loader string, batches int) (ns float64, err error) {
	c := exec.Command(filepath.Join(dir, "cost"), strconv.Itoa(batches))
	if w.first {
		c.Args = append(c.Args, "first")
	}
	under(c, dir, loader, w.mode, w.hook)
	out, err := c.Output()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", w.name, err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// start gives the nanoseconds that a program takes which only starts and ends.
func start(dir, loader, mode string) (ns float64, err error) {
	var all []float64
	for range 20 {
		c := exec.Command("/bin/true")
		under(c, dir, loader, mode, "none")
		began := time.Now()
		if err := c.Run(); err != nil {
			return 0, fmt.Errorf("/bin/true: %w", err)
		}
		all = append(all, float64(time.Since(began)))
	}
	return median(all), nil
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return s[len(s)/2]
}
