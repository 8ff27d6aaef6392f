package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// serve answers requests. congestion names the kernel's congestion control for
// TCP (tcp(7), TCP_CONGESTION), "" its default.
func serve(addr string, secret bool, congestion string) error {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if congestion == "" {
			return nil
		}
		if e := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
		}); e != nil {
			return e
		}
		return os.NewSyscallError("TCP_CONGESTION", err)
	}}
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	if secret {
		cert, err := certificate()
		if err != nil {
			return err
		}
		l = tls.NewListener(l, &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true,
		})
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			r := bufio.NewReader(c)
			for {
				if err := answer(c, r); err == io.EOF {
					return
				} else if err != nil {
					fmt.Fprintln(os.Stderr, "peer:", c.RemoteAddr(), err)
					return
				}
			}
		}()
	}
}

// answer serves one request; io.EOF when there are no more.
func answer(c net.Conn, r *bufio.Reader) error {
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	var n int64
	switch {
	case line == "hold\n":
		_, err = c.Write([]byte{0})
	case parsed(line, "get %d\n", &n):
		_, err = io.CopyN(c, octets(), n)
	case parsed(line, "put %d\n", &n):
		h := sha256.New()
		var silence time.Duration
		if _, silence, err = copyWatching(h, io.LimitReader(r, n)); err != nil {
			return err
		}
		fmt.Printf("received=%d silence=%d\n", n, silence.Microseconds())
		_, err = io.WriteString(c, hex.EncodeToString(h.Sum(nil)))
	default:
		err = fmt.Errorf("no request: %q", line)
	}
	return err
}

func parsed(line, format string, n *int64) bool {
	_, err := fmt.Sscanf(line, format, n)
	return err == nil
}

// certificate makes one for TLS tests, which nobody checks.
func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
