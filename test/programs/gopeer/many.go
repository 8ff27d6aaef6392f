package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// hold opens n connections at once and keeps them all: each sees its own port
// at the far side and gets its own data back, twice.
func hold(addr string, n int) error {
	conns := make([]*net.TCPConn, n)
	if err := each(n, func(i int) (err error) {
		conns[i], err = dial(addr)
		return err
	}); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	ports := map[string]bool{}
	for _, c := range conns {
		ports[c.LocalAddr().String()] = true
	}
	if len(ports) != n {
		return fmt.Errorf("%d connections have only %d local addresses", n, len(ports))
	}
	for round := range 2 {
		if err := each(n, func(i int) error {
			return exchange(conns[i], fmt.Sprintf("round %d of connection %d\n", round, i))
		}); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	fmt.Printf("held %d\n", n)
	var line string
	fmt.Scanln(&line) // kept until the test says so, or ends
	return each(n, func(i int) error { return conns[i].Close() })
}

// churn opens and closes n connections one after the other.
func churn(addr string, n int) error {
	for i := range n {
		c, err := dial(addr)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		if err := exchange(c, fmt.Sprintf("connection %d\n", i)); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		if err := c.Close(); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	fmt.Printf("churned %d\n", n)
	return nil
}

// dial connects and checks that the far side sees this side's address.
func dial(addr string) (*net.TCPConn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := conn.(*net.TCPConn)
	banner := make([]byte, 64)
	if _, err := io.ReadFull(c, banner); err != nil {
		c.Close()
		return nil, fmt.Errorf("banner: %w", err)
	}
	if seen := strings.TrimSpace(string(banner)); seen != c.LocalAddr().String() {
		c.Close()
		return nil, fmt.Errorf("this side is %s, the far side sees %s", c.LocalAddr(), seen)
	}
	return c, nil
}

// exchange sends text to an echo and wants it back.
func exchange(c *net.TCPConn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	back := make([]byte, len(text))
	if _, err := io.ReadFull(c, back); err != nil {
		return err
	}
	if string(back) != text {
		return fmt.Errorf("sent %q, got %q", text, back)
	}
	return nil
}

// each runs f for 0…n-1 at once and returns one of the errors.
func each(n int, f func(i int) error) error {
	errs := make(chan error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := f(i); err != nil {
				errs <- err
			}
		})
	}
	all.Wait()
	close(errs)
	if failed := len(errs); failed > 0 {
		return fmt.Errorf("%d of %d: %w", failed, n, <-errs)
	}
	return nil
}
