package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// iperf runs iperf3 through the ways that unmodified programs can go.
func iperf(b *bench) error {
	if !b.have("iperf3") {
		return nil
	}
	servers := map[*lane]*iperfServer{}
	lanes := b.lanes(func(l *lane) (err error) {
		servers[l], err = l.startIperf()
		return err
	}, b.few(tcp, tls, two, one, direct, quicly)...)
	defer closeAll(lanes)
	for _, k := range []struct {
		direction string
		streams   int
		rounds    int
	}{{"up", 1, 0}, {"up", 4, 0}, {"down", 1, 3}, {"down", 4, 3}, {"up", 64, 3}, {"down", 64, 3}} {
		if b.quick && k.direction+fmt.Sprint(k.streams) != "up1" {
			continue
		}
		name := fmt.Sprintf("iperf3 %s, %d streams", k.direction, k.streams)
		b.rounds(lanes, k.rounds, func(l *lane) error {
			rate, err := servers[l].measure(l, k.direction == "down", k.streams)
			if err == nil {
				b.add(figure{strings.Replace(name, " 1 streams", " 1 stream", 1), "Gbit/s", true}, l.way, rate/1e9)
			}
			return err
		})
	}
	return nil
}

// iperfServer serves one test after the other; between them it does not listen.
type iperfServer struct {
	port      int
	listening chan struct{} // has an element while it listens
}

func (l *lane) startIperf() (*iperfServer, error) {
	own, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &iperfServer{listening: make(chan struct{}, 1)}
	argv := []string{"iperf3", "-s", "-4", "-p", strconv.Itoa(own), "--forceflush"}
	s.port, err = l.serveAt(own, argv, func(line string) bool {
		if !strings.Contains(line, "Server listening") {
			return false
		}
		select {
		case s.listening <- struct{}{}:
		default: // nobody has used the last one
		}
		return true
	})
	return s, err
}

// measure gives the bit/s that arrived.
func (s *iperfServer) measure(l *lane, down bool, streams int) (rate float64, err error) {
	select {
	case <-s.listening:
	case <-time.After(comeUp):
		return 0, fmt.Errorf("%s: iperf3 does not listen again after %v", l.way, comeUp)
	}
	argv := []string{"iperf3", "-c", l.address, "-p", strconv.Itoa(s.port), "-J", "-P", strconv.Itoa(streams), "-t", "1"}
	if down {
		argv = append(argv, "-R")
	}
	out, err := l.runClient(30*time.Second, argv...)
	if err != nil {
		return 0, err
	}
	var told struct {
		Error string
		End   struct {
			Sent     sum `json:"sum_sent"`
			Received sum `json:"sum_received"`
		}
	}
	if err := json.Unmarshal(out, &told); err != nil {
		return 0, fmt.Errorf("iperf3's output: %w", err)
	}
	sent, got := told.End.Sent.Bytes, told.End.Received.Bytes
	// What is under way when the time is over is not counted by the receiver.
	if told.Error != "" || got == 0 || got > sent {
		return 0, fmt.Errorf("%s: iperf3 has sent %.0f bytes and received %.0f: %s", l.way, sent, got, told.Error)
	}
	return told.End.Received.Rate, nil
}

type sum struct {
	Bytes float64
	Rate  float64 `json:"bits_per_second"`
}

// serveAt starts a server on a port of its own, waits until a line of its output
// is ready, and gives the port where clients reach it.
func (l *lane) serveAt(own int, argv []string, ready func(line string) bool) (port int, err error) {
	wrapped, env := l.server(argv)
	name := fmt.Sprintf("%s (%s)", filepath.Base(argv[0]), l.way)
	p, err := start(l.serverAt, name, wrapped, env, ready)
	if err != nil {
		return 0, err
	}
	l.servers = append(l.servers, p)
	return l.near(own)
}

// have reports whether all of the programs are here, and notes if not.
func (b *bench) have(programs ...string) bool {
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			b.note("not measured: %s is not installed; scripts/deps-apps.sh installs it", name)
			return false
		}
	}
	return true
}

// freePort finds a port that nobody has, neither in TCP nor in UDP.
func freePort() (port int, err error) {
	for range 20 {
		l, err := net.Listen("tcp4", "0.0.0.0:0")
		if err != nil {
			return 0, err
		}
		port = l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		_ = l.Close()
		if err == nil {
			return port, u.Close()
		}
	}
	return 0, errors.New("no port is free in both TCP and UDP")
}
