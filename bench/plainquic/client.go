package plainquic

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// Main runs a command with its arguments. A server does not return.
func Main(args []string) error {
	switch {
	case len(args) >= 1 && args[0] == "serve":
		return serve()
	case len(args) >= 7 && args[0] == "bulk":
		return bulk(args[1:])
	case len(args) == 5 && args[0] == "ping":
		return ping(args[1:])
	case len(args) >= 4 && args[0] == "connects":
		return connects(args[1:])
	}
	return fmt.Errorf("plain quic-go: unknown command or too few arguments: %q", args)
}

// client is the connections of a run.
type client struct {
	addr netip.Addr
	port uint16
	conn *quicgo.Conn
}

func newClient(addr, port string) (*client, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, err
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	return &client{addr: a, port: uint16(p)}, nil
}

// dial makes the connection that streams are opened on from now on.
func (c *client) dial() (err error) {
	// Whose certificate it is makes no difference to a measurement.
	trust := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}}
	c.conn, err = quicgo.DialAddr(context.Background(), net.JoinHostPort(c.addr.String(), strconv.Itoa(int(c.port))), trust, nil)
	return err
}

func (c *client) close() { _ = c.conn.CloseWithError(0, "") }

func (c *client) open() (*quicgo.Stream, error) { return c.conn.OpenStreamSync(context.Background()) }

// cpuUsed is what this process has used so far, in ns.
func cpuUsed() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) // a clock that there is
	return t.Nano()
}

func seconds(text string) (time.Duration, error) {
	s, err := strconv.ParseFloat(text, 64)
	return time.Duration(s * float64(time.Second)), err
}

// bulk: ADDRESS PORT up|down STREAMS SECONDS WRITE [full]
func bulk(args []string) error {
	c, err := newClient(args[0], args[1])
	if err != nil {
		return err
	}
	n, errN := strconv.Atoi(args[3])
	length, errLength := seconds(args[4])
	size, errSize := strconv.Atoi(args[5])
	if err := errors.Join(errN, errLength, errSize, c.dial()); err != nil {
		return err
	}
	defer c.close()
	up, full := args[2] == "up", len(args) > 6
	run := uint64(time.Now().UnixNano())
	var streams []*quicgo.Stream
	for range n {
		s, err := c.open()
		if err != nil {
			return err
		}
		streams = append(streams, s)
	}
	var wait sync.WaitGroup
	sums, errs := make([]uint64, n), make([]error, n)
	cpu, start := cpuUsed(), time.Now()
	for i, s := range streams {
		wait.Go(func() {
			a := newAsk(opSource, size, run)
			if up {
				a.Op = opSink
			}
			a.NS, a.Offset = uint64(length), uint64(i)*4099
			if full {
				a.Full = 1
			}
			sums[i], errs[i] = one(s, a)
		})
	}
	wait.Wait()
	fmt.Printf("ns %d\ncpu %d\n", time.Since(start).Nanoseconds(), cpuUsed()-cpu)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var sum uint64
	for _, s := range sums {
		sum += s
	}
	return c.compare(newAsk(opTotal, n, run), sum)
}

// one is one stream of a bulk run.
func one(s *quicgo.Stream, a ask) (sum uint64, err error) {
	if _, err := s.Write(a.encode()); err != nil {
		return 0, err
	}
	if a.Op == opSource {
		sum, ok, err := drain(s, a.Offset, a.Full != 0)
		if err == nil && !ok {
			err = errors.New("the bytes are not those that were sent")
		}
		return sum, errors.Join(err, s.Close())
	}
	until := time.Now().Add(time.Duration(a.NS))
	sum, err = pour(s, a.Offset, int(a.Size), func() bool { return time.Now().Before(until) })
	if err := errors.Join(err, s.Close()); err != nil {
		return sum, err
	}
	if n, err := s.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) { // when all has arrived
		return sum, fmt.Errorf("the server's end: %d octets, %w", n, err)
	}
	return sum, nil
}

// compare asks the server what it has counted.
func (c *client) compare(a ask, sum uint64) error {
	s, err := c.open()
	if err != nil {
		return err
	}
	if _, err := s.Write(a.encode()); err != nil {
		return err
	}
	var t total
	if err := binary.Read(s, binary.LittleEndian, &t); err != nil {
		return err
	}
	if t.Bytes != sum || t.Bad > 0 {
		return fmt.Errorf("%d octets here, %d there, %d streams wrong", sum, t.Bytes, t.Bad)
	}
	fmt.Println("bytes", sum)
	return nil
}

// tell prints percentiles of durations.
func tell(name string, all []time.Duration) error {
	if len(all) == 0 {
		return errors.New("nothing measured")
	}
	var sum time.Duration
	for _, t := range all {
		sum += t
	}
	fmt.Printf("%s_mean %d\n", name, (sum / time.Duration(len(all))).Nanoseconds())
	slices.Sort(all)
	for _, p := range []struct {
		name string
		part float64
	}{{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}} {
		fmt.Printf("%s_%s %d\n", name, p.name, all[int(float64(len(all)-1)*p.part)].Nanoseconds())
	}
	return nil
}

// ping: ADDRESS PORT SIZE SECONDS
func ping(args []string) error {
	c, err := newClient(args[0], args[1])
	if err != nil {
		return err
	}
	size, errSize := strconv.Atoi(args[2])
	length, errLength := seconds(args[3])
	if err := errors.Join(errSize, errLength, c.dial()); err != nil {
		return err
	}
	defer c.close()
	s, err := c.open()
	if err != nil {
		return err
	}
	if err := echo(s); err != nil {
		return err
	}
	_ = s.Close()
	if s, err = c.open(); err != nil {
		return err
	}
	a := newAsk(opEcho, size, 0)
	first := make([]byte, askSize)
	if err := turn(s, a.encode(), first); err != nil {
		return err
	}
	var times []time.Duration
	out, in := slices.Clone(pattern[:size]), make([]byte, size)
	begin, cpu := time.Now(), int64(0)
	last := begin
	for serial := uint64(0); last.Sub(begin) < length || len(times) == 0; serial++ {
		binary.LittleEndian.PutUint64(out, serial)
		if err := turn(s, out, in); err != nil {
			return err
		}
		at := time.Now()
		if last.Sub(begin) >= length/10 {
			times = append(times, at.Sub(last))
		} else {
			cpu = cpuUsed()
		}
		last = at
	}
	fmt.Printf("cpu %d\nn %d\n", cpuUsed()-cpu, len(times))
	return tell("rtt", times)
}

// turn sends a message and expects it back.
func turn(s *quicgo.Stream, out, in []byte) error {
	if _, err := s.Write(out); err != nil {
		return err
	}
	if _, err := io.ReadFull(s, in); err != nil {
		return err
	}
	if !bytes.Equal(in, out) {
		return errors.New("the echo is not what was sent")
	}
	return nil
}

func echo(s *quicgo.Stream) error {
	a := newAsk(opEcho, askSize, 0)
	return turn(s, a.encode(), make([]byte, askSize))
}

// connects: ADDRESS PORT SECONDS [spread]. Without spread a connect is a new
// stream; with it a handshake with a peer not met before.
func connects(args []string) error {
	c, err := newClient(args[0], args[1])
	if err != nil {
		return err
	}
	length, errLength := seconds(args[2])
	spread := len(args) > 3
	if err := errors.Join(errLength, c.dial()); err != nil {
		return err
	}
	var connected, whole []time.Duration
	used, begin := 0, time.Now()
	for t := begin; t.Sub(begin) < length || len(whole) == 0; used++ {
		if spread {
			c.close()
			c.addr = c.addr.Next()
			if err := c.dial(); err != nil {
				return err
			}
		}
		s, err := c.open()
		if err != nil {
			return err
		}
		up := time.Now()
		if err := echo(s); err != nil {
			return err
		}
		s.CancelRead(0)
		if err := s.Close(); err != nil {
			return err
		}
		end := time.Now()
		if t.Sub(begin) >= length/10 {
			connected, whole = append(connected, up.Sub(t)), append(whole, end.Sub(t))
		}
		t = end
	}
	c.close()
	fmt.Printf("n %d\nused %d\n", len(whole), used)
	return errors.Join(tell("connect", connected), tell("whole", whole))
}
