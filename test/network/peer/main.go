// Peer is the program of the network tests: a static Go program that talks TCP
// and tells, in lines of name=value, what it saw and how long it took.
//
//	peer serve    ADDR [CONTROL] answers requests on each connection, until it is ended;
//	                             with this congestion control of the kernel's
//	peer servetls ADDR           the same behind TLS 1.3 with a key of its own
//	peer first    ADDR N         N connections one after the other, each with one request of 1 KiB
//	peer firsttls ADDR N         the same over TLS 1.3
//	peer get      ADDR N         reads N octets
//	peer put      ADDR N         writes N octets, and compares what arrived
//	peer try      ADDR           connects once
//	peer hold     ADDR           exchanges an octet, then waits for the end
//	peer chat     ADDR           exchanges octets, one each 50 ms, to the end
//	peer rate     ADDR DURATION  reads as much as comes
//	peer loop     ADDR DURATION  a connection and a request each 50 ms
//	peer bind     ADDR           binds
//
// A request is a line: "get N" is answered with N octets, "put N" and N octets
// with their SHA-256, "hold" with one octet. Times are in microseconds.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: peer ACTION ADDR [N|DURATION]")
	}
	action, addr, number := args[0], args[1], ""
	if len(args) > 2 {
		number = args[2]
	}
	switch action {
	case "serve", "servetls":
		return serve(addr, action == "servetls", number)
	case "try":
		return try(addr)
	case "hold":
		return hold(addr)
	case "bind":
		return bind(addr)
	case "chat":
		return chat(addr)
	case "loop", "rate":
		d, err := time.ParseDuration(number)
		if err != nil {
			return err
		}
		if action == "rate" {
			return rate(addr, d)
		}
		return loop(addr, d)
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	switch action {
	case "first", "firsttls":
		return first(addr, n, action == "firsttls")
	case "get":
		return get(addr, n)
	case "put":
		return put(addr, n)
	}
	return fmt.Errorf("unknown action %q", action)
}

// octets is an endless stream that does not compress, always the same.
func octets() io.Reader { return rand.NewChaCha8([32]byte{1}) }

// errnoName is the error's errno as errno(3) calls it, "ok" for none.
func errnoName(err error) string {
	if err == nil {
		return "ok"
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "EOF"
	}
	if e, ok := errors.AsType[unix.Errno](err); ok {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// try connects once and tells how it went.
func try(addr string) error {
	begin := time.Now()
	c, err := net.Dial("tcp", addr)
	fmt.Printf("result=%s us=%d\n", errnoName(err), time.Since(begin).Microseconds())
	if err != nil {
		return nil // it is what was asked for
	}
	return c.Close()
}

func bind(addr string) error {
	l, err := net.Listen("tcp", addr)
	fmt.Printf("result=%s\n", errnoName(err))
	if err != nil {
		return nil
	}
	return l.Close()
}

// hold waits on a connection until it ends in some way.
func hold(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	var b [1]byte
	if _, err := c.Write([]byte("hold\n")); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	fmt.Println("holding")
	_, err = c.Read(b[:])
	fmt.Printf("result=%s at=%d\n", errnoName(err), time.Now().UnixMicro())
	return nil
}

// chat exchanges octets until that fails.
func chat(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		_, err := c.Write([]byte("hold\n"))
		if err == nil {
			_, err = r.ReadByte()
		}
		if err != nil {
			fmt.Printf("result=%s at=%d\n", errnoName(err), time.Now().UnixMicro())
			return nil
		}
		if n == 0 {
			fmt.Println("holding")
		}
		<-tick.C
	}
}

// rate reads for a time and tells how much came.
func rate(addr string, d time.Duration) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	begin := time.Now()
	if err := c.SetReadDeadline(begin.Add(d)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "get %d\n", int64(1)<<40); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, c)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("ended after %d octets: %w", n, err)
	}
	fmt.Printf("octets=%d us=%d\n", n, time.Since(begin).Microseconds())
	return nil
}

// loop asks for one octet on a new connection each 50 ms and counts how that
// ends.
func loop(addr string, d time.Duration) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		begin := time.Now()
		step, err := ask(addr)
		fmt.Printf("at=%d step=%s us=%d result=%s\n", begin.UnixMicro(), step, time.Since(begin).Microseconds(), errnoName(err))
	}
	fmt.Println("done")
	return nil
}

// ask makes a connection for one small request, and tells which step failed.
func ask(addr string) (step string, err error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return "connect", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "deadline", err
	}
	if _, err := io.WriteString(c, "get 1\n"); err != nil {
		return "write", err
	}
	var b [1]byte
	_, err = io.ReadFull(c, b[:])
	return "read", err
}

// get reads n octets and tells the rate, the longest silence and the sum.
func get(addr string, n int) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	begin := time.Now()
	if _, err := fmt.Fprintf(c, "get %d\n", n); err != nil {
		return err
	}
	h := sha256.New()
	got, silence, err := copyWatching(h, io.LimitReader(c, int64(n)))
	if err == nil && got != n {
		err = io.ErrUnexpectedEOF
	}
	want := sha256.New()
	if _, e := io.CopyN(want, octets(), int64(n)); e != nil {
		return e
	}
	if err == nil && string(h.Sum(nil)) != string(want.Sum(nil)) {
		err = errors.New("damaged")
	}
	fmt.Printf("result=%s octets=%d us=%d silence=%d\n", errnoName(err), got, time.Since(begin).Microseconds(), silence.Microseconds())
	return nil
}

// copyWatching copies to the end, prints that the first octets came, and tells
// the longest time that nothing came.
func copyWatching(w io.Writer, r io.Reader) (n int, silence time.Duration, err error) {
	buf := make([]byte, 64<<10)
	last := time.Now()
	for {
		k, err := r.Read(buf)
		now := time.Now()
		silence, last = max(silence, now.Sub(last)), now
		if n == 0 && k > 0 {
			fmt.Println("begun")
		}
		n += k
		if _, err := w.Write(buf[:k]); err != nil {
			return n, silence, err
		}
		if err == io.EOF {
			return n, silence, nil
		} else if err != nil {
			return n, silence, err
		}
	}
}

// put writes n octets and compares the sum that the server tells.
func put(addr string, n int) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	begin := time.Now()
	if _, err := fmt.Fprintf(c, "put %d\n", n); err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(c, h), octets(), int64(n)); err != nil {
		return err
	}
	said := make([]byte, 2*sha256.Size)
	_, err = io.ReadFull(c, said)
	if err == nil && string(said) != hex.EncodeToString(h.Sum(nil)) {
		err = errors.New("damaged")
	}
	fmt.Printf("result=%s octets=%d us=%d\n", errnoName(err), n, time.Since(begin).Microseconds())
	return nil
}
