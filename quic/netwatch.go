package quic

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/poemq/poemq/quic/netns"
)

const (
	// settle is how long the network must be quiet before connections move: a
	// new address comes with several messages, and IPv6's is not usable at once.
	settle = 100 * time.Millisecond
	// settleMax is how long that is waited for.
	settleMax = time.Second
)

// watch tells of changes of addresses, routes and interfaces in one network
// namespace (rtnetlink(7)).
type watch struct {
	f     *os.File
	links int // that use it; Host.mu guards it
}

// watchNet has l told of changes in its namespace until unwatch.
func (h *Host) watchNet(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.watches[l.key.ns]
	if w == nil {
		f, err := openRoutes(l.ns)
		if err != nil {
			h.log.Warn("changes of the network will not be seen, connections stay on their path", "err", err)
			return
		}
		w = &watch{f: f}
		if h.watches == nil {
			h.watches = make(map[uint64]*watch)
		}
		h.watches[l.key.ns] = w
		h.wg.Go(func() { h.follow(w, l.key.ns) })
	}
	w.links++
	l.watch = w
}

func (h *Host) unwatch(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := l.watch
	if w == nil {
		return
	}
	l.watch = nil
	if w.links--; w.links == 0 {
		delete(h.watches, l.key.ns)
		w.f.Close()
	}
}

func openRoutes(ns *netns.NS) (*os.File, error) {
	var fd int
	err := ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink bind: %w", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// wait returns when the network has changed and is quiet again, or changes all
// the time; false when the watch was closed.
func (w *watch) wait() bool {
	buf := make([]byte, 8<<10)
	w.f.SetReadDeadline(time.Time{})
	for first := (time.Time{}); ; {
		_, err := w.f.Read(buf)
		switch now := time.Now(); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return true
		case err == nil, errors.Is(err, unix.ENOBUFS): // some were lost: there were some
			if first.IsZero() {
				first = now
			}
			quiet := now.Add(settle)
			if last := first.Add(settleMax); last.Before(quiet) {
				quiet = last
			}
			w.f.SetReadDeadline(quiet)
		default:
			return false
		}
	}
}

// follow moves the links of a namespace each time the network has changed and
// is quiet again. What the messages say is not looked at: the kernel is asked
// for the way.
func (h *Host) follow(w *watch, ns uint64) {
	for w.wait() {
		h.mu.Lock()
		for l := range h.links {
			if l.key.ns == ns && !h.closed {
				l.roam(false)
			}
		}
		h.mu.Unlock()
	}
}
