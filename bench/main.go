package main

import (
	"embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/poemq/poemq/bench/plainquic"
	"github.com/poemq/poemq/bench/tlsrelay"
	"golang.org/x/sys/unix"
)

//go:embed c
var sources embed.FS

// parts are the kinds of load, in the order of the table.
var parts = []struct {
	name, title string
	run         func(*bench) error
}{
	{"bulk", "bulk streams and CPU time per GB", bulk},
	{"pingpong", "round trips on one connection", pingPong},
	{"connect", "connections for one message each", connects},
	{"iperf3", "iperf3", iperf},
	{"nginx", "nginx with wrk", webServer},
	{"redis", "redis-server with redis-benchmark", keyValue},
	{"syscalls", "single system calls", calls},
	{"idle", "10,000 idle connections", idle},
	{"growth", "beside more and more connections", growth},
	{"paths", "slow and lossy paths", paths},
}

// bench is one run.
type bench struct {
	*results
	bin, dir  string // poemq's binaries; what the run makes
	quiclyDir string
	self      string // this program, which is also the peers in Go
	onlyWays  []string
	quick     bool
	perFigure int // rounds

	loadProgram string
}

func main() {
	if err := asPeer(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	b := &bench{results: newResults(), quiclyDir: os.Getenv("POEM_QUICLY_DIR")}
	only := flag.String("only", "", "parts to run, with commas: "+strings.Join(names, ","))
	onlyWays := flag.String("ways", "", "ways to measure, with commas; default: all that can be had")
	out := flag.String("out", "bench/results", "directory for the results")
	strict := flag.Bool("strict", false, "exit with 1 when a bar is missed")
	flag.StringVar(&b.bin, "bin", "bin", "directory with poemq's binaries")
	flag.IntVar(&b.perFigure, "rounds", 5, "rounds; the ways take turns in each")
	flag.BoolVar(&b.quick, "quick", false, "one short round of little: it tells only that the measuring works")
	flag.Parse()
	b.onlyWays = fields(*onlyWays)
	if err := b.run(fields(*only), names, *out, *strict); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		if errors.Is(err, errBar) {
			os.Exit(1)
		}
		os.Exit(2)
	}
}

func fields(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// asPeer is the process as one of the peers, which ends in it.
func asPeer(args []string) error {
	if len(args) == 0 {
		return nil
	}
	var err error
	switch args[0] {
	case "plain-quic-go":
		err = plainquic.Main(args[1:])
	case "tls-relay":
		err = tlsrelay.Main(args[1:])
	default:
		return nil
	}
	if err == nil {
		os.Exit(0)
	}
	return err
}

func (b *bench) run(only, names []string, out string, strict bool) error {
	for _, name := range only {
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is no part %q; there are %s", name, strings.Join(names, ", "))
		}
	}
	if err := b.prepare(); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	// A reader that has seen enough: there is still to tidy up. Caught, and not
	// ignored, for that would be inherited.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		s := <-interrupted
		running.kill()
		_ = os.RemoveAll(b.dir) // what is left of it says where it is from
		fmt.Fprintln(os.Stderr, "bench:", s)
		os.Exit(2)
	}()
	for _, w := range ways {
		if why := b.missing(w.name); why != "" {
			b.note("not measured: %s: %s", w.title, strings.TrimSpace(why))
		}
	}
	if b.quick {
		b.note("quick: one short round beside whatever else goes on; no figure here means anything, no bar is kept or missed")
	}
	begin := time.Now()
	for _, p := range parts {
		if len(only) > 0 && !slices.Contains(only, p.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %5.0f s: %s\n", time.Since(begin).Seconds(), p.title)
		if err := p.run(b); err != nil {
			b.failed = append(b.failed, fmt.Sprintf("%s: %v", p.name, err))
		}
	}
	b.note("%d rounds at most, %.0f s in all, %s", b.perFigure, time.Since(begin).Seconds(), machine())
	missed, err := b.report(out)
	if err != nil {
		return err
	}
	if len(b.failed) > 0 {
		return fmt.Errorf("%d measurements failed", len(b.failed))
	}
	if missed > 0 && strict {
		return fmt.Errorf("%d %w", missed, errBar)
	}
	return nil
}

var errBar = errors.New("bars are missed")

// fail tells what could not be measured. poem-quicly is known to hang.
func (b *bench) fail(way string, err error) {
	if way == quicly {
		b.note("not measured: %v", err)
		return
	}
	b.failed = append(b.failed, err.Error())
}

// prepare finds and builds what is measured and what measures.
func (b *bench) prepare() (err error) {
	if b.quick {
		b.perFigure = 1
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	for _, name := range []string{"poemqd", "poemq-launch", "poemqctl"} {
		if _, err := os.Stat(b.program(name)); err != nil {
			return fmt.Errorf("%w; make build makes it", err)
		}
	}
	if b.dir, err = os.MkdirTemp("", "poemq-bench-"); err != nil {
		return err
	}
	if err := b.moreFiles(); err != nil {
		return err
	}
	b.loadProgram, err = b.compile("load")
	return err
}

// program is one of poemq's binaries, absolute.
func (b *bench) program(name string) string {
	path, err := filepath.Abs(filepath.Join(b.bin, name))
	if err != nil {
		return name
	}
	return path
}

// compile builds c/ into a program.
func (b *bench) compile(name string) (program string, err error) {
	entries, err := sources.ReadDir("c")
	if err != nil {
		return "", err
	}
	program = filepath.Join(b.dir, name)
	argv := []string{"-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program}
	for _, e := range entries {
		data, err := sources.ReadFile("c/" + e.Name())
		if err != nil {
			return "", err
		}
		file := filepath.Join(b.dir, e.Name())
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return "", err
		}
		if filepath.Ext(file) == ".c" {
			argv = append(argv, file)
		}
	}
	if out, err := exec.Command("cc", argv...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile bench/c: %w\n%s", err, out)
	}
	return program, nil
}

// moreFiles lets this process and those that it starts have as many descriptors
// as the kernel allows them.
func (b *bench) moreFiles() error {
	limit := unix.Rlimit{Cur: 200_000, Max: 200_000}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		return nil // we are root
	}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

// seconds is how long something is measured.
func (b *bench) seconds(usual float64) float64 {
	if b.quick {
		return 0.1
	}
	return usual
}

// rounds has the lanes take turns, each second round the other way about, most
// rounds (0: as many as asked for). A value that could not be had is told, and
// is the end of that lane's turns.
func (b *bench) rounds(lanes []*lane, most int, measure func(*lane) error) {
	n := b.perFigure
	if most > 0 {
		n = min(n, most)
	}
	turn := slices.Clone(lanes)
	for range n {
		for _, l := range slices.Clone(turn) {
			err := measure(l)
			if err == nil {
				err = errors.Join(l.base.alive(), l.servers.alive())
			}
			if err == nil {
				continue
			}
			turn = slices.DeleteFunc(turn, func(other *lane) bool { return other == l })
			b.fail(l.way, err)
		}
		slices.Reverse(turn)
	}
}
