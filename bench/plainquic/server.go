package plainquic

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/poemq/poemq/bench/selfsigned"
	quicgo "github.com/quic-go/quic-go"
)

const alpn = "poemq-bench"

// server counts what its streams carried.
type server struct {
	mu      sync.Mutex // guards runs
	changed *sync.Cond // a stream has ended
	runs    map[uint64]*run
}

type run struct {
	total
	finished uint32 // streams
}

// serve accepts on a port that the kernel chooses, and says which.
func serve() error {
	cert, err := selfsigned.Certificate()
	if err != nil {
		return err
	}
	l, err := quicgo.ListenAddr("0.0.0.0:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{alpn}}, nil)
	if err != nil {
		return err
	}
	fmt.Println("port", l.Addr().(*net.UDPAddr).Port)
	s := &server{runs: map[uint64]*run{}}
	s.changed = sync.NewCond(&s.mu)
	for {
		conn, err := l.Accept(context.Background())
		if err != nil {
			return err
		}
		go func() {
			for {
				stream, err := conn.AcceptStream(context.Background())
				if err != nil {
					return // the client has gone
				}
				go s.stream(stream)
			}
		}()
	}
}

func (s *server) stream(stream *quicgo.Stream) {
	if err := s.work(stream); err != nil && !errors.Is(err, io.EOF) {
		var closed *quicgo.ApplicationError
		if !errors.As(err, &closed) { // the client has gone
			fmt.Fprintln(os.Stderr, "plain quic-go:", err)
			os.Exit(1) // what is measured is wrong
		}
	}
}

func (s *server) work(stream *quicgo.Stream) error {
	a, err := readAsk(stream)
	if err != nil {
		return err
	}
	switch a.Op {
	case opSink:
		got, ok, err := drain(stream, a.Offset, a.Full != 0)
		if err != nil {
			return err
		}
		s.count(a.Run, got, ok)
	case opSource:
		until := time.Now().Add(time.Duration(a.NS))
		sent, err := pour(stream, a.Offset, int(a.Size), func() bool { return time.Now().Before(until) })
		if err != nil {
			return err
		}
		s.count(a.Run, sent, true)
	case opEcho:
		if _, err := stream.Write(a.encode()); err != nil {
			return err
		}
		buffer := make([]byte, a.Size)
		for {
			if _, err := io.ReadFull(stream, buffer); err != nil {
				return errors.Join(err, stream.Close())
			}
			if _, err := stream.Write(buffer); err != nil {
				return err
			}
		}
	case opTotal:
		if err := binary.Write(stream, binary.LittleEndian, s.totalOf(a.Run, a.Size)); err != nil {
			return err
		}
	}
	return stream.Close()
}

// of is called with the lock held.
func (s *server) of(id uint64) *run {
	r := s.runs[id]
	if r == nil {
		r = &run{}
		s.runs[id] = r
	}
	return r
}

func (s *server) count(id, bytes uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.of(id)
	r.Bytes += bytes
	if !ok {
		r.Bad++
	}
	r.finished++
	s.changed.Broadcast()
}

// totalOf waits for the run's last stream.
func (s *server) totalOf(id uint64, streams uint32) total {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.of(id)
	for r.finished < streams {
		s.changed.Wait()
	}
	return r.total
}
