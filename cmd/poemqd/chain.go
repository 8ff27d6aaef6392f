package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/poemq/poemq/broker/config"
	"golang.org/x/sys/unix"
)

// statusLine tells the outer launcher what became of the program.
type statusLine struct {
	PID    int    `json:"pid,omitempty"`
	Exit   *int   `json:"exit,omitempty"`
	Signal int    `json:"signal,omitempty"`
	Core   bool   `json:"core,omitempty"`
	Error  string `json:"error,omitempty"`
}

// runChain starts the launcher argv as a child, so that its program is a
// descendant, serves it, and reports its end to fd (launcher/doc.go, "Chain").
func runChain(o *options, fd int, argv []string) error {
	status := os.NewFile(uintptr(fd), "status")
	if status == nil || len(argv) == 0 {
		return errors.New("--chain needs --status-fd and a command")
	}
	unix.CloseOnExec(fd)
	report := func(l statusLine) {
		line, _ := json.Marshal(l) // of plain fields: cannot fail
		status.Write(append(line, '\n'))
	}
	if err := chain(o, status, argv, report); err != nil {
		report(statusLine{Error: err.Error()})
		return err
	}
	return nil
}

func chain(o *options, status *os.File, argv []string, report func(statusLine)) error {
	c, err := config.Load(o.sources(ordinaryUser()))
	if err != nil {
		return err
	}
	out := newQuietable()
	log, _ := logger(c, slog.LevelWarn, out)
	// Until setsid below, the terminal's signals come here too. Caught ones are
	// back to their default in the child, which restores what was inherited.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
	r, err := start(c, log, nil)
	if err != nil {
		return err
	}
	noFronts(c, log)
	conn, child, err := startChild(argv)
	if err != nil {
		return errors.Join(err, r.close())
	}
	threads(c, log)
	if _, err := unix.Setsid(); err != nil {
		log.Warn("the terminal's signals reach poemqd too", "error", err)
	}
	closeStdio()
	report(statusLine{PID: child.Process.Pid})
	go killWith(status, child.Process)
	admitted := make(chan struct{})
	go func() {
		defer close(admitted)
		_ = r.broker.Admit(conn, nil) // logged, and told to the launcher, whose exit status tells on
		conn.Close()
	}()
	_ = child.Wait() // ProcessState has it all
	report(ended(child.ProcessState))
	status.Close()
	<-admitted
	r.serveOut(out)
	return r.close()
}

// startChild starts argv with its end of a socket pair as descriptor 3.
func startChild(argv []string) (*net.UnixConn, *exec.Cmd, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "handover")
	defer theirs.Close()
	conn, err := unixConn(pair[0])
	if err != nil {
		return nil, nil, err
	}
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.ExtraFiles = []*os.File{theirs}
	if err := c.Start(); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, c, nil
}

// closeStdio lets go of what is the program's; stderr stays for the log.
func closeStdio() {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_ = unix.Dup2(null, 0)
	_ = unix.Dup2(null, 1)
	unix.Close(null)
}

// killWith ends the program when the outer launcher was killed: then the read
// end of status is gone.
func killWith(status *os.File, p *os.Process) {
	fds := []unix.PollFd{{Fd: int32(status.Fd())}}
	for {
		_, err := unix.Poll(fds, -1)
		if err == unix.EINTR {
			continue
		}
		if err == nil && fds[0].Revents&unix.POLLERR != 0 {
			_ = p.Kill()
		}
		return
	}
}

func ended(st *os.ProcessState) statusLine {
	ws := st.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return statusLine{Signal: int(ws.Signal()), Core: ws.CoreDump()}
	}
	code := ws.ExitStatus()
	return statusLine{Exit: &code}
}
