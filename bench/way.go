package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// The ways that bytes go, by name.
const (
	tcp    = "tcp"     // the kernel's
	tls    = "tls"     // TLS over TCP, by two relays
	quicGo = "quic-go" // the programs use the library themselves
	two    = "two"     // poemq, a broker for each end
	one    = "one"     // poemq, one broker for both ends
	direct = "direct"  // the same, with the two ends joined without QUIC
	quicly = "quicly"  // poem-quicly, poemq's ancestor
	hooked = "zpoline" // poemq, one broker, its calls caught by the hook library
	floor  = "floor"   // no way for bytes: the least that any broker could cost
)

// ways are all of them, as they stand in the table.
var ways = []struct{ name, title string }{
	{tcp, "the kernel's TCP"},
	{tls, "TLS 1.3 over TCP by two relays (4 processes)"},
	{quicGo, "quic-go with its default settings, used by the programs themselves (2 processes)"},
	{two, "poemq, a broker for each end (4 processes)"},
	{one, "poemq, one broker for both ends (3 processes)"},
	{direct, "poemq, one broker, [wire] local = \"direct\""},
	{hooked, "poemq, one broker, calls caught in the programs (poemq-launch --via zpoline)"},
	{quicly, "poem-quicly (3 processes)"},
	{floor, "a supervisor that makes only the system calls which no broker can do without"},
}

// lane is a way that has been set up: what it stands on runs.
type lane struct {
	way   string
	bench *bench
	dir   string

	base    procs // brokers
	servers procs // the measured programs' servers, and relays in front of them

	// Where the two ends run, and the server's address.
	serverAt, clientAt place
	address            string
	port               int // of the server that most is measured with

	// server and client wrap a command line, or leave it as it is.
	server, client func(argv []string) (wrapped, env []string)
	via            []string // poemq-launch's flags for how calls are caught
	// brokers serve the two ends; they may be the same.
	brokers struct{ server, client *broker }
}

type broker struct {
	*proc
	socket, control string
}

func plain(argv []string) (wrapped, env []string) { return argv, nil }

// missing tells why a way cannot be had on this machine; "" if it can.
func (b *bench) missing(way string) string {
	switch way {
	case direct:
		return b.noDirect()
	case hooked:
		for _, library := range []string{"libpoemq-zpoline.so", "libpoemq-hook.so"} {
			if _, err := os.Stat(b.program(library)); err != nil {
				return err.Error()
			}
		}
		// Its status for --help is of no interest.
		if help, _ := exec.Command(b.program("poemq-launch"), "--help").CombinedOutput(); !bytes.Contains(help, []byte("--via")) {
			return "poemq-launch has no --via"
		}
	case quicly:
		if b.quiclyDir == "" {
			return "POEM_QUICLY_DIR is not set"
		}
		if _, err := os.Stat(b.quiclyLib("poem-quicly", "libpoem-quicly.so")); err != nil {
			return err.Error()
		}
	}
	return ""
}

// lanes sets up those of the ways that can be had, and starts what is measured
// on them. One that fails is told and left out. The caller closes them.
func (b *bench) lanes(start func(*lane) error, names ...string) (all []*lane) {
	for _, way := range names {
		if b.missing(way) != "" || len(b.onlyWays) > 0 && !slices.Contains(b.onlyWays, way) {
			continue
		}
		l, err := b.lane(way)
		if err == nil {
			if err = start(l); err == nil {
				all = append(all, l)
				continue
			}
			l.close()
		}
		b.fail(way, err)
	}
	return all
}

// few leaves out ways that differ little from others in what programs they run,
// when only that something can be measured counts.
func (b *bench) few(ways ...string) []string {
	if !b.quick {
		return ways
	}
	return slices.DeleteFunc(ways, func(way string) bool { return way == tls || way == one })
}

func closeAll(all []*lane) {
	for _, l := range all {
		l.close()
	}
}

// lane sets up one way on loopback.
func (b *bench) lane(way string) (l *lane, err error) {
	return b.laneOn(way, here{}, here{}, loopback)
}

func (b *bench) laneOn(way string, server, client place, address string) (l *lane, err error) {
	l = &lane{way: way, bench: b, server: plain, client: plain, serverAt: server, clientAt: client, address: address}
	if l.dir, err = os.MkdirTemp(b.dir, way+"-"); err != nil {
		return nil, err
	}
	switch way {
	case two:
		err = l.startBrokers("server", "client", "")
	case one:
		err = l.startBrokers("both", "both", "")
	case direct:
		err = l.startBrokers("both", "both", directConfig)
	case hooked:
		l.via = []string{"--via", "zpoline"}
		err = l.startBrokers("both", "both", "")
	case quicly:
		err = l.startQuicly()
	}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("%s: %w", way, err)
	}
	return l, nil
}

func (l *lane) close() {
	l.servers.stop()
	l.base.stop()
	_ = os.RemoveAll(l.dir) // below a directory that goes too
}

// startBrokers starts one or, by different names, two.
func (l *lane) startBrokers(server, client, config string) (err error) {
	if l.brokers.server, err = l.startBroker(l.serverAt, server, config); err != nil {
		return err
	}
	l.brokers.client = l.brokers.server
	if client != server {
		if l.brokers.client, err = l.startBroker(l.clientAt, client, config); err != nil {
			return err
		}
	}
	// Never TCP by accident: that would be measured as QUIC.
	l.server, l.client = l.under(l.brokers.server, "require"), l.under(l.brokers.client, "require")
	return nil
}

// under wraps command lines so that the broker serves the program.
func (l *lane) under(b *broker, quic string) func([]string) ([]string, []string) {
	return func(argv []string) (wrapped, env []string) {
		launch := []string{l.bench.program("poemq-launch"), "--quic", quic, "--broker", b.socket, "--on-broker-missing", "fail"}
		return slices.Concat(launch, l.via, []string{"--"}, argv), nil
	}
}

// oneAddress is what peers that all have the address of this host need: limits of
// one peer are in the way of measuring many.
const oneAddress = "[limits]\nhandshakes_per_second = 1000000\nconnections_per_peer = 65536\n"

// startBroker starts a poemqd that knows nobody and has the default settings,
// but for oneAddress and what config says.
func (l *lane) startBroker(at place, name, config string) (*broker, error) {
	dir := filepath.Join(l.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "poemq.toml")
	if err := os.WriteFile(file, []byte(oneAddress+config), 0o600); err != nil {
		return nil, err
	}
	b := &broker{socket: filepath.Join(dir, "s"), control: filepath.Join(dir, "c")}
	argv := []string{
		l.bench.program("poemqd"), "serve", "--config", file, "--socket", b.socket, "--control", b.control,
		"--state-dir", dir, "--log-level", "warn",
	}
	var err error
	if b.proc, err = start(at, "poemqd ("+name+")", argv, nil, nil); err != nil {
		return nil, err
	}
	l.base = append(l.base, b.proc)
	for deadline := time.Now().Add(comeUp); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("unix", b.control); err == nil { // the last that it makes
			return b, c.Close()
		}
		if err := b.alive(); err != nil {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("poemqd does not serve %s after %v", b.control, comeUp)
		}
	}
}

const directConfig = "[wire]\nlocal = \"direct\"\n"

// noDirect asks poemqd whether it knows the setting.
func (b *bench) noDirect() string {
	file := filepath.Join(b.dir, "direct.toml")
	if err := os.WriteFile(file, []byte(directConfig), 0o600); err != nil {
		return err.Error()
	}
	if out, err := exec.Command(b.program("poemqd"), "check-config", file).CombinedOutput(); err != nil {
		return fmt.Sprintf("poemqd: %s", out)
	}
	return ""
}

// quiclyLib is a file of poem-quicly's working directory, as its README lays it
// out.
func (b *bench) quiclyLib(parts ...string) string {
	return filepath.Join(append([]string{b.quiclyDir}, parts...)...)
}

// startQuicly starts poem-quicly's server process and wraps programs in its hook.
func (l *lane) startQuicly() error {
	socket, assets := filepath.Join(l.dir, "s"), l.bench.quiclyLib("poem-quicly", "quicly", "t", "assets")
	preload := []string{
		"LIBZPHOOK=" + l.bench.quiclyLib("poem-quicly", "libpoem-quicly.so"),
		"LD_PRELOAD=" + l.bench.quiclyLib("zpoline", "libzpoline.so"),
	}
	args := fmt.Sprintf("QUICLY_SERVER_ARGS=-c %s/server.crt -k %s/server.key -u %s", assets, assets, socket)
	p, err := start(l.serverAt, "poem-quicly's server", []string{"sleep", "infinity"}, append(preload, args), nil)
	if err != nil {
		return err
	}
	l.base = append(l.base, p)
	for deadline := time.Now().Add(comeUp); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if err := p.alive(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no %s after %v", socket, comeUp)
		}
	}
	hook := func(argv []string) (wrapped, env []string) {
		return argv, append(slices.Clone(preload), "QUICLY_HOOK_ARGS=-q 2,1,0 -q 2,1,6 -u "+socket)
	}
	l.server, l.client = hook, hook
	return nil
}

// load is the command line of the program that makes traffic.
func (l *lane) load(args ...any) []string {
	argv := []string{l.bench.loadProgram}
	if l.way == quicGo {
		argv = []string{l.bench.self, "plain-quic-go"}
	}
	for _, a := range args {
		argv = append(argv, fmt.Sprint(a))
	}
	return argv
}

// serve starts a server that says its port and gives the port where clients
// reach it.
func (l *lane) serve(argv []string) (port int, err error) {
	wrapped, env := l.server(argv)
	p, port, err := startServer(l.serverAt, fmt.Sprintf("%s (%s)", filepath.Base(argv[0]), l.way), wrapped, env)
	if err != nil {
		return 0, err
	}
	l.servers = append(l.servers, p)
	return l.near(port)
}

// near gives the port that clients connect to: the server's, or a relay's.
func (l *lane) near(port int) (int, error) {
	if l.way != tls {
		return port, nil
	}
	for _, side := range []string{"far", "near"} {
		argv := []string{l.bench.self, "tls-relay", side, fmt.Sprintf("127.0.0.1:%d", port)}
		p, its, err := startServer(here{}, "tls-relay "+side, argv, nil)
		if err != nil {
			return 0, err
		}
		l.servers = append(l.servers, p)
		port = its
	}
	return port, nil
}

// used is what a client's run gave and what it cost.
type used struct {
	values map[string]float64
	cpu    time.Duration // of all processes but the client
}

// runClient runs a client to its end and gives its output.
func (l *lane) runClient(limit time.Duration, argv ...string) ([]byte, error) {
	wrapped, env := l.client(argv)
	out, err := run(l.clientAt, limit, wrapped, env)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.way, err)
	}
	return out, nil
}

// ask runs a client that prints names and numbers.
func (l *lane) ask(limit time.Duration, argv []string) (u used, err error) {
	before, err := l.cpu()
	if err != nil {
		return u, err
	}
	out, err := l.runClient(limit, argv...)
	if err != nil {
		return u, err
	}
	if u.values, err = values(out); err != nil {
		return u, fmt.Errorf("%s: %w", l.way, err)
	}
	after, err := l.cpu()
	u.cpu = after - before
	return u, err
}

// cpu is that of all processes that live as long as the lane.
func (l *lane) cpu() (time.Duration, error) {
	base, err := l.base.cpu()
	if err != nil {
		return 0, err
	}
	servers, err := l.servers.cpu()
	return base + servers, err
}
