package broker

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkFromTCP is what a relay of the kernel's TCP costs on the way to the
// program: a copy through a buffer of the relay's, and splice(2) through a pipe.
// The other way cannot be spliced (docs/configuration.md).
//
//	go test ./broker -run - -bench FromTCP -cpu 2
func BenchmarkFromTCP(b *testing.B) {
	for _, piece := range []int{1 << 10, 64 << 10} {
		for name, carry := range map[string]func(tcp, end int) error{"copy": copyOnce(), "splice": spliceOnce(b)} {
			b.Run(fmt.Sprintf("%s/%d", name, piece), func(b *testing.B) { fromTCP(b, piece, carry) })
		}
	}
}

// fromTCP has b.N pieces carried from a TCP connection to an AF_UNIX socket.
func fromTCP(b *testing.B, piece int, carry func(tcp, end int) error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	from, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer from.Close()
	c, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	tcp, err := c.(*net.TCPConn).File() // blocking, as its descriptor is
	if err != nil {
		b.Fatal(err)
	}
	c.Close()
	defer tcp.Close()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(ends[0])
	program := os.NewFile(uintptr(ends[1]), "program")
	defer program.Close()
	fd := int(tcp.Fd())
	b.SetBytes(int64(piece))
	b.ResetTimer()
	go func() {
		buf := make([]byte, piece)
		for range b.N {
			if _, err := from.Write(buf); err != nil {
				return // the reader tells
			}
		}
		from.(*net.TCPConn).CloseWrite()
	}()
	go func() {
		for carry(fd, ends[0]) == nil {
		}
		unix.Shutdown(ends[0], unix.SHUT_WR)
	}()
	buf := make([]byte, relayBuffer)
	n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{program}, buf)
	if err != nil || n != int64(b.N)*int64(piece) {
		b.Fatalf("%d octets, %v", n, err)
	}
}

func copyOnce() func(tcp, end int) error {
	buf := make([]byte, relayBuffer)
	return func(tcp, end int) error {
		n, err := unix.Read(tcp, buf)
		if n <= 0 {
			return io.EOF
		}
		for at := 0; at < n && err == nil; {
			var m int
			m, err = unix.Write(end, buf[at:n])
			at += m
		}
		return err
	}
}

func spliceOnce(b *testing.B) func(tcp, end int) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(pipe[0]); unix.Close(pipe[1]) })
	return func(tcp, end int) error {
		n, err := unix.Splice(tcp, nil, pipe[1], nil, relayBuffer, unix.SPLICE_F_MOVE)
		if n <= 0 {
			return io.EOF
		}
		for left := n; left > 0 && err == nil; {
			var m int64
			m, err = unix.Splice(pipe[0], nil, end, nil, int(left), unix.SPLICE_F_MOVE)
			left -= m
		}
		return err
	}
}
