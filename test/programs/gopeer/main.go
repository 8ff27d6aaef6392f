// Gopeer is a static Go program that talks TCP in the ways the end-to-end tests
// need. Its runtime makes raw system calls, which no preloaded library sees.
//
//	gopeer listen  ADDR ACTION [N]   one connection, then exit (echo and banner: for ever)
//	gopeer connect ADDR ACTION [N]
//
// Actions on a connection:
//
//	blast N   write N bytes and close at once
//	sink      read to the end, tell the sum and how it ended
//	echo      send back what comes, to its end
//	talk N    send N bytes to an echo and compare what comes back
//	stall     read nothing until a line comes on standard input, then as sink
//	endless   write until an error, tell it
//	idle      exchange one byte, then wait for the end, tell it
//	banner    send a line with the peer's address, then echo
//
// For connect only, against banner:
//
//	hold N    N connections at once, all kept, each echoing its own data
//	churn N   N connections one after the other
package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gopeer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: gopeer listen|connect ADDR ACTION [N]")
	}
	role, addr, action, n := args[0], args[1], args[2], 0
	if len(args) > 3 {
		var err error
		if n, err = strconv.Atoi(args[3]); err != nil {
			return err
		}
	}
	if role == "listen" {
		return listen(addr, action, n)
	}
	switch action {
	case "hold":
		return hold(addr, n)
	case "churn":
		return churn(addr, n)
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	return act(c.(*net.TCPConn), action, n, true)
}

func listen(addr, action string, n int) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	forever := action == "echo" || action == "banner"
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if !forever {
			l.Close()
			return act(c.(*net.TCPConn), action, n, false)
		}
		go func() {
			if err := act(c.(*net.TCPConn), action, n, false); err != nil {
				fmt.Fprintln(os.Stderr, "gopeer:", err)
			}
		}()
	}
}

// act does one action on a connection and closes it.
func act(c *net.TCPConn, action string, n int, client bool) error {
	defer c.Close()
	switch action {
	case "blast":
		return blast(c, n)
	case "sink":
		return sink(c)
	case "echo":
		return echo(c)
	case "talk":
		return talk(c, n)
	case "stall":
		fmt.Println("holding")
		var line string
		if _, err := fmt.Scanln(&line); err != nil {
			return err
		}
		return sink(c)
	case "endless":
		return endless(c)
	case "idle":
		return idle(c, client)
	case "banner":
		if _, err := fmt.Fprintf(c, "%-64s", c.RemoteAddr()); err != nil {
			return err
		}
		return echo(c)
	}
	return fmt.Errorf("unknown action %q", action)
}

func blast(c *net.TCPConn, n int) error {
	data := payload(n)
	if _, err := c.Write(data); err != nil {
		return err
	}
	err := c.Close()
	fmt.Printf("sent %d %x\n", n, sha256.Sum256(data))
	return err
}

func sink(c *net.TCPConn) error {
	sum, total := sha256.New(), 0
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		sum.Write(buf[:n])
		if total < 1<<20 && total+n >= 1<<20 {
			fmt.Println("under way")
		}
		total += n
		if err != nil {
			fmt.Printf("received %d %x\nended %s\n", total, sum.Sum(nil), name(err))
			return nil
		}
	}
}

func echo(c *net.TCPConn) error {
	if _, err := io.Copy(c, c); err != nil {
		return err
	}
	return c.CloseWrite()
}

func talk(c *net.TCPConn, n int) error {
	data := payload(n)
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		wrote <- errors.Join(err, c.CloseWrite())
	}()
	sum := sha256.New()
	got, err := io.Copy(sum, c)
	if err := errors.Join(err, <-wrote); err != nil {
		return err
	}
	if got != int64(n) || !same(sum, data) {
		return fmt.Errorf("%d bytes came back with another sum than the %d sent", got, n)
	}
	fmt.Printf("echoed %d\n", n)
	return nil
}

func endless(c *net.TCPConn) error {
	data, total := payload(64<<10), 0
	for {
		n, err := c.Write(data)
		if total < 1<<20 && total+n >= 1<<20 {
			fmt.Println("under way")
		}
		total += n
		if err != nil {
			fmt.Printf("ended %s\n", name(err))
			return nil
		}
	}
}

func idle(c *net.TCPConn, client bool) error {
	b := []byte{'?'}
	steps := []func([]byte) (int, error){c.Read, c.Write}
	if client {
		steps = []func([]byte) (int, error){c.Write, c.Read}
	}
	for _, step := range steps {
		if _, err := step(b); err != nil {
			return err
		}
	}
	fmt.Println("under way")
	_, err := c.Read(b)
	fmt.Printf("ended %s\n", name(err))
	return nil
}

// payload is n bytes that are the same in every run.
func payload(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{'p', 'o', 'e', 'm', 'q'}).Read(data)
	return data
}

func same(sum hash.Hash, data []byte) bool {
	want := sha256.Sum256(data)
	return string(sum.Sum(nil)) == string(want[:])
}

// name is how a connection ended: "eof", the name of an errno, or the error.
func name(err error) string {
	var errno unix.Errno
	switch {
	case errors.Is(err, io.EOF):
		return "eof"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	case err == nil:
		return "never"
	}
	return err.Error()
}
