package link

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Host is one end of a path: a network namespace with loopback and an address.
type Host struct {
	Name string     // for messages
	Addr netip.Addr // on the path; invalid for a host without one

	calls chan func()
	ended chan struct{}
	tun   int // the path's end; -1 without one
}

// NewHost makes a network namespace with nothing but loopback: no way leads out
// of it. The caller closes it.
func NewHost(name string) (*Host, error) {
	h := &Host{Name: name, calls: make(chan func()), ended: make(chan struct{}), tun: -1}
	entered := make(chan error)
	go h.run(entered)
	err := <-entered
	if err == nil {
		if err = h.Run("ip", "link", "set", "lo", "up"); err != nil {
			h.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	return h, nil
}

// run is the thread that is inside. Programs that it starts with Pdeathsig end
// with it.
func (h *Host) run(entered chan<- error) {
	defer close(h.ended)
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		entered <- fmt.Errorf("make a network namespace (it needs root): %w", err)
		return
	}
	entered <- nil
	for f := range h.calls {
		f()
	}
}

// Close gives up the namespace, which ends with the last process in it.
func (h *Host) Close() {
	close(h.calls)
	<-h.ended
	if h.tun >= 0 {
		unix.Close(h.tun)
	}
}

// Do calls f on a thread inside: sockets that f makes, by itself and not on
// other goroutines, belong to the host.
func (h *Host) Do(f func() error) (err error) {
	done := make(chan struct{})
	h.calls <- func() {
		defer close(done)
		err = f()
	}
	<-done
	return err
}

// Start is cmd.Start inside.
func (h *Host) Start(cmd *exec.Cmd) error { return h.Do(cmd.Start) }

// Run runs a program inside to its end.
func (h *Host) Run(argv ...string) error {
	var said []byte
	err := h.Do(func() (err error) {
		said, err = exec.Command(argv[0], argv[1:]...).CombinedOutput()
		return err
	})
	if err != nil {
		return fmt.Errorf("%v on %s: %w: %s", argv, h.Name, err, said)
	}
	return nil
}

// Sysctl sets one of the namespace's, such as "net/ipv4/tcp_congestion_control".
func (h *Host) Sysctl(name, value string) error {
	return h.Do(func() error { return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0) })
}

// Namespace opens the namespace's file, at whose /proc/PID/fd/N it can be
// entered (nsenter(1)). The caller closes it.
func (h *Host) Namespace() (f *os.File, err error) {
	err = h.Do(func() (err error) {
		f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return f, err
}

// attach gives the host its end of the path.
func (h *Host) attach(addr netip.Prefix) error {
	err := h.Do(func() (err error) {
		h.tun, err = openTUN()
		return err
	})
	if err != nil {
		return fmt.Errorf("host %s: %w", h.Name, err)
	}
	h.Addr = addr.Addr()
	return errors.Join(
		// Its own packets would be counted with the tests'.
		h.Sysctl("net/ipv6/conf/"+device+"/disable_ipv6", "1"),
		// Fewer packets may wait in the device than in the path's own queue.
		h.Run("ip", "link", "set", device, "mtu", fmt.Sprint(MTU), "txqueuelen", "1000", "up"),
		h.Run("ip", "addr", "add", addr.String(), "dev", device),
	)
}
