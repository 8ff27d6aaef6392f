// Package tlsrelay carries TCP connections over TLS 1.3, by the standard library:
// what people who want encryption below an unmodified program do without
// poemq. Two relays stand between client and server, as two brokers do.
//
//	tls-relay near TO    TCP connections to a port of its own, by TLS to TO
//	tls-relay far TO     TLS connections to a port of its own, by TCP to TO
//
// Each connection has a handshake of its own, as with stunnel.
package tlsrelay

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/poemq/poemq/bench/selfsigned"
)

// Main serves until the process ends.
func Main(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("tls-relay: near|far ADDRESS:PORT, not %q", args)
	}
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return err
	}
	fmt.Println("port", l.Addr().(*net.TCPAddr).Port)
	dial := func() (halfCloser, error) {
		c, err := net.Dial("tcp", args[1])
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil
	}
	accepted := func(c net.Conn) halfCloser { return c.(*net.TCPConn) }
	if args[0] == "near" {
		trust := &tls.Config{InsecureSkipVerify: true} // whose it is makes no difference to a measurement
		dial = func() (halfCloser, error) { return tls.Dial("tcp", args[1], trust) }
	} else {
		cert, err := selfsigned.Certificate()
		if err != nil {
			return err
		}
		config := &tls.Config{Certificates: []tls.Certificate{cert}}
		accepted = func(c net.Conn) halfCloser { return tls.Server(c, config) }
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go relay(accepted(c), dial)
	}
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

func relay(from halfCloser, dial func() (halfCloser, error)) {
	defer from.Close()
	to, err := dial()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tls-relay:", err)
		return
	}
	defer to.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(from, to) // an end that breaks shows in the measuring program
		_ = from.CloseWrite()
	}()
	_, _ = io.Copy(to, from)
	_ = to.CloseWrite()
	<-done
}
