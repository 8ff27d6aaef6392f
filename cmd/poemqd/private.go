package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/poemq/poemq/broker/config"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func privateCommand(o *options) *cobra.Command {
	var session, status int
	var chained bool
	c := &cobra.Command{
		Use: "private", Short: "Serve one process tree and end with it (poemq-launch starts this)", Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if chained {
				return runChain(o, status, args)
			}
			return private(o, session)
		},
	}
	c.Flags().IntVar(&session, "session-fd", -1, "connection that the handover comes on")
	c.Flags().BoolVar(&chained, "chain", false, "start the launcher given as arguments, as its parent")
	c.Flags().IntVar(&status, "status-fd", -1, "where to report the program's end")
	return c
}

// private serves the one session that comes over fd.
func private(o *options, fd int) error {
	c, err := config.Load(o.sources(ordinaryUser()))
	if err != nil {
		return err
	}
	conn, err := unixConn(fd)
	if err != nil {
		return err
	}
	out := newQuietable()
	log, _ := logger(c, slog.LevelWarn, out)
	r, err := start(c, log, nil)
	if err != nil {
		return err
	}
	noFronts(c, log)
	threads(c, log)
	if err := r.broker.Admit(conn, nil); err != nil {
		return errors.Join(err, r.close())
	}
	conn.Close()
	r.serveOut(out)
	return r.close()
}

// noFronts tells what a private broker leaves to that of the system: many of
// them would want the same ports.
func noFronts(c *config.Config, log *slog.Logger) {
	if n := len(c.Exposes) + len(c.Forwards); n > 0 {
		log.Debug("a private broker serves no [[expose]] and [[forward]]", "left_out", n)
	}
}

func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "session")
	if f == nil {
		return nil, fmt.Errorf("--session-fd %d is not open", fd)
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("--session-fd %d: %w", fd, err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("--session-fd %d is no UNIX socket", fd)
	}
	return u, nil
}

// lingerMost is how long a private broker stays after its program for bytes
// under way: about when TCP would give up retransmitting (tcp_retries2, tcp(7)).
const lingerMost = 15 * time.Minute

// serveOut returns when the program tree has ended and its last bytes are
// delivered. From the tree's end on nothing is written to its terminal: a pipe
// there must end with the program.
func (r *running) serveOut(out *quietable) {
	r.broker.AwaitPrograms()
	out.quiet()
	r.broker.AwaitSessions() // which for the hook library's is a little later
	ctx, cancel := context.WithTimeout(context.Background(), lingerMost)
	defer cancel()
	r.broker.AwaitRelays(ctx)
	_ = r.host.Drain(ctx) // what is not delivered by then is lost, as with TCP
}

// quietable is stderr until the program has ended.
type quietable struct{ done atomic.Bool }

func newQuietable() *quietable { return &quietable{} }

func (q *quietable) Write(p []byte) (int, error) {
	if q.done.Load() {
		return len(p), nil
	}
	return os.Stderr.Write(p)
}

func (q *quietable) quiet() {
	q.done.Store(true)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(2)
		return
	}
	for fd := range 3 {
		_ = unix.Dup2(null, fd)
	}
	unix.Close(null)
}
