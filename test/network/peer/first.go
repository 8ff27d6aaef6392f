package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"
)

// first tells, for each of n connections, how long it was from before connect
// to the first octet of the answer to a request of 1 KiB, and to its end.
func first(addr string, n int, secret bool) error {
	for range n {
		begin := time.Now()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		connected := time.Since(begin)
		if secret {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		}
		if _, err := io.WriteString(conn, "get 1024\n"); err != nil {
			return err
		}
		var b [1024]byte
		if _, err := io.ReadFull(conn, b[:1]); err != nil {
			return err
		}
		byteOne := time.Since(begin)
		if _, err := io.ReadFull(conn, b[1:]); err != nil {
			return err
		}
		fmt.Printf("connected=%d first=%d all=%d\n", connected.Microseconds(), byteOne.Microseconds(), time.Since(begin).Microseconds())
		if err := conn.Close(); err != nil {
			return err
		}
	}
	return nil
}
