package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// comeUp is how long a server may take until it serves.
const comeUp = time.Minute

// tick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 for every
// program on Linux (proc(5)).
const tick = time.Second / 100

// proc is a server, a broker or a relay that runs until it is stopped.
type proc struct {
	name string
	cmd  *exec.Cmd
	said bytes.Buffer // its standard error; read after done
	done chan struct{}
}

// place starts processes where they shall run: here, or on an emulated host.
type place interface {
	Start(*exec.Cmd) error
}

type here struct{}

func (here) Start(c *exec.Cmd) error { return c.Start() }

// start starts a process and waits until ready, which is called with each line
// of its output, from another goroutine, has reported true. Without ready there is
// no waiting.
func start(at place, name string, argv, env []string, ready func(line string) bool) (*proc, error) {
	p := &proc{name: name, cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.cmd.Stderr = &p.said
	p.cmd.WaitDelay = time.Second
	var out io.ReadCloser
	var err error
	if ready != nil {
		if out, err = p.cmd.StdoutPipe(); err != nil {
			return nil, err
		}
	}
	if err := at.Start(p.cmd); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	running.add(p)
	up := make(chan bool, 1)
	go func() {
		if out != nil {
			for sc := bufio.NewScanner(out); sc.Scan(); {
				if ready(sc.Text()) {
					select {
					case up <- true:
					default: // it was before
					}
				}
			}
		}
		_ = p.cmd.Wait() // the state tells
		running.remove(p)
		close(p.done)
	}()
	if ready == nil {
		return p, nil
	}
	select {
	case <-up:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("%s: %s: %s", name, p.cmd.ProcessState, p.said.Bytes())
	case <-time.After(comeUp):
		p.stop()
		return nil, fmt.Errorf("%s does not serve after %v: %s", name, comeUp, p.said.Bytes())
	}
}

// running are all processes that have not ended, for an end before the time:
// a server's children do not end when it is killed.
var running group

type group struct {
	mu  sync.Mutex // guards all
	all map[*proc]bool
}

func (g *group) add(p *proc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all == nil {
		g.all = map[*proc]bool{}
	}
	g.all[p] = true
}

func (g *group) remove(p *proc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.all, p)
}

// kill ends them with their children, and lets nothing more be started.
func (g *group) kill() {
	g.mu.Lock() // for good
	for p := range g.all {
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // it may have ended
	}
}

// startServer starts a process that says "port N".
func startServer(at place, name string, argv, env []string) (p *proc, port int, err error) {
	p, err = start(at, name, argv, env, func(line string) bool {
		_, err := fmt.Sscanf(line, "port %d", &port)
		return err == nil
	})
	return p, port, err
}

func (p *proc) pid() int { return p.cmd.Process.Pid }

func (p *proc) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
		<-p.done
	}
}

// alive is an error once the process has ended by itself.
func (p *proc) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %s: %s", p.name, p.cmd.ProcessState, p.said.Bytes())
	default:
		return nil
	}
}

// cpu is the time that the process, its threads and its children, living or
// not, have used so far.
func (p *proc) cpu() (sum time.Duration, err error) {
	for _, pid := range family(p.pid()) {
		t, err := cpuOf(pid)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// family is a process and its living descendants.
func family(pid int) (all []int) {
	all = []int{pid}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		data, _ := os.ReadFile(file) // the thread may have ended
		for _, field := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, family(child)...)
			}
		}
	}
	return all
}

// cpuOf is utime, stime, cutime and cstime of proc_pid_stat(5).
func cpuOf(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:])) // from the third on
	if len(fields) < 15 {
		return 0, fmt.Errorf("/proc/%d/stat is too short: %q", pid, data)
	}
	var sum time.Duration
	for _, field := range fields[11:15] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// memory is the process's anonymous memory in bytes: what its connections cost,
// without the program file's pages, which many processes share.
func (p *proc) memory() (bytes float64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "Pss_Anon:"); ok {
			n, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return n * 1024, err
		}
	}
	return 0, errors.New("smaps_rollup has no Pss_Anon; it needs Linux 5.4")
}

// run runs a program to its end and gives its output.
func run(at place, limit time.Duration, argv, env []string) (out []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env = append(os.Environ(), env...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var told, said bytes.Buffer
	c.Stdout, c.Stderr = &told, &said
	c.WaitDelay = time.Second
	if err = at.Start(c); err == nil {
		err = c.Wait()
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("is not done after %v", limit)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s%s", strings.Join(argv, " "), err, said.Bytes(), tail(told.Bytes()))
	}
	return told.Bytes(), nil
}

func tail(b []byte) []byte { return b[max(0, len(b)-500):] }

// values reads lines of a name and a number.
func values(out []byte) (map[string]float64, error) {
	v := map[string]float64{}
	for line := range strings.Lines(string(out)) {
		var name string
		var n float64
		if _, err := fmt.Sscan(line, &name, &n); err != nil {
			return nil, fmt.Errorf("a line that is no name and number: %q", line)
		}
		v[name] = n
	}
	return v, nil
}

// procs are started one after the other and stopped together.
type procs []*proc

// stop ends them, the last first.
func (ps *procs) stop() {
	for i := len(*ps) - 1; i >= 0; i-- {
		(*ps)[i].stop()
	}
	*ps = nil
}

// cpu is the sum of all.
func (ps procs) cpu() (sum time.Duration, err error) {
	for _, p := range ps {
		t, err := p.cpu()
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// alive is an error once one has ended by itself.
func (ps procs) alive() error {
	for _, p := range ps {
		if err := p.alive(); err != nil {
			return err
		}
	}
	return nil
}
