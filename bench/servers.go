package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// webServer measures nginx with wrk. What wrk has got is compared with what
// nginx has counted.
func webServer(b *bench) error {
	if !b.have("nginx", "wrk") {
		return nil
	}
	lanes := b.lanes((*lane).startNginx, b.few(tcp, tls, two, one, direct)...)
	defer closeAll(lanes)
	for _, kind := range []string{"keep-alive", "Connection: close"} {
		f := figure{"nginx, wrk -c10, " + kind, "req/s", true}
		b.rounds(lanes, 0, func(l *lane) error {
			rate, err := l.wrk(kind == "Connection: close")
			if err == nil {
				b.add(f, l.way, rate)
			}
			return err
		})
	}
	return nil
}

// startNginx starts nginx with one worker, as programs of one core are. Its
// counters are read at a UNIX socket, past what is measured.
func (l *lane) startNginx() error {
	own, err := freePort()
	if err != nil {
		return err
	}
	page := filepath.Join(l.dir, "index.html")
	if err := os.WriteFile(page, []byte(strings.Repeat("poemq\n", 102)), 0o644); err != nil {
		return err
	}
	config := filepath.Join(l.dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log stderr warn;
events { worker_connections 4096; }
http {
 access_log off; keepalive_requests 1000000000;
 client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3;
 uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
 server { listen %[2]d backlog=1024; root %[1]s; }
 server { listen unix:%[1]s/status; location / { stub_status; } }
}
`, l.dir, own)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	if os.Geteuid() == 0 { // the worker is another user
		if err := errors.Join(os.Chmod(l.bench.dir, 0o755), os.Chmod(l.dir, 0o755)); err != nil {
			return err
		}
	}
	argv := []string{"nginx", "-c", config, "-p", l.dir, "-e", "stderr"}
	wrapped, env := l.server(argv)
	p, err := start(l.serverAt, "nginx ("+l.way+")", wrapped, env, nil)
	if err != nil {
		return err
	}
	l.servers = append(l.servers, p)
	for deadline := time.Now().Add(comeUp); ; time.Sleep(5 * time.Millisecond) {
		if _, err = l.nginxRequests(); err == nil {
			l.port, err = l.near(own)
			return err
		}
		if alive := p.alive(); alive != nil {
			return alive
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nginx does not serve: %w", err)
		}
	}
}

// nginxRequests is how many requests nginx has had.
func (l *lane) nginxRequests() (n int, err error) {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(l.dir, "status"))
		},
		DisableKeepAlives: true,
	}}
	r, err := c.Get("http://status/")
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err
	}
	numbers := regexp.MustCompile(`(?m)^ (\d+) (\d+) (\d+) $`).FindSubmatch(body)
	if numbers == nil {
		return 0, fmt.Errorf("stub_status: %q", body)
	}
	return strconv.Atoi(string(numbers[3]))
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in `)
	wrkRate     = regexp.MustCompile(`Requests/sec: +([\d.]+)`)
	wrkBad      = regexp.MustCompile(`(?m)^ +(Socket errors|Non-2xx).*$`)
)

// wrk gives the requests in a second.
func (l *lane) wrk(closing bool) (rate float64, err error) {
	before, err := l.nginxRequests()
	if err != nil {
		return 0, err
	}
	const connections = 10
	argv := []string{"wrk", "-t1", fmt.Sprintf("-c%d", connections), "-d1s"}
	if closing {
		argv = append(argv, "-H", "Connection: close")
	}
	url := fmt.Sprintf("http://%s:%d/", l.address, l.port)
	out, err := l.runClient(30*time.Second, append(argv, url)...)
	if err != nil {
		return 0, err
	}
	after, err := l.nginxRequests()
	if err != nil {
		return 0, err
	}
	requests, found := wrkRequests.FindSubmatch(out), wrkRate.FindSubmatch(out)
	if requests == nil || found == nil || wrkBad.Match(out) {
		return 0, fmt.Errorf("%s: wrk: %s", l.way, out)
	}
	got, _ := strconv.Atoi(string(requests[1])) // digits
	// Both ends of the second fall into requests, and the counter was one.
	if had := after - before; had < got || had > got+2*connections {
		return 0, fmt.Errorf("%s: wrk has got %d answers, nginx %d requests", l.way, got, had)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}

// keyValue measures redis-server with redis-benchmark. The server's count of
// commands is compared with those that were asked for.
func keyValue(b *bench) error {
	if !b.have("redis-server", "redis-benchmark") {
		return nil
	}
	lanes := b.lanes((*lane).startRedis, b.few(tcp, tls, two, one, direct)...)
	defer closeAll(lanes)
	for _, kind := range []struct{ clients, pipeline int }{{10, 1}, {50, 16}} {
		number := map[string]int{} // of requests that take about a second
		f := figure{fmt.Sprintf("redis GET, -c%d -P %d", kind.clients, kind.pipeline), "req/s", true}
		b.rounds(lanes, 0, func(l *lane) error {
			if number[l.way] == 0 {
				rate, err := l.redisBenchmark(kind.clients, kind.pipeline, 5000*kind.pipeline)
				if err != nil {
					return err
				}
				number[l.way] = max(1000, int(rate*b.seconds(1)))
			}
			rate, err := l.redisBenchmark(kind.clients, kind.pipeline, number[l.way])
			if err == nil {
				b.add(f, l.way, rate)
			}
			return err
		})
	}
	return nil
}

func (l *lane) startRedis() error {
	own, err := freePort()
	if err != nil {
		return err
	}
	argv := []string{
		"redis-server", "--port", strconv.Itoa(own), "--save", "", "--appendonly", "no", "--protected-mode", "no",
		"--dir", l.dir, "--unixsocket", filepath.Join(l.dir, "redis"),
	}
	l.port, err = l.serveAt(own, argv, func(line string) bool { return strings.Contains(line, "eady to accept connections") })
	return err
}

func (l *lane) redisBenchmark(clients, pipeline, n int) (rate float64, err error) {
	if _, err := l.redis("CONFIG RESETSTAT"); err != nil {
		return 0, err
	}
	out, err := l.runClient(time.Minute, "redis-benchmark", "-h", l.address, "-p", strconv.Itoa(l.port), "-t", "get", "--csv",
		"-c", strconv.Itoa(clients), "-P", strconv.Itoa(pipeline), "-n", strconv.Itoa(n))
	if err != nil {
		return 0, err
	}
	found := regexp.MustCompile(`(?m)^"GET","([\d.]+)"`).FindSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("%s: redis-benchmark: %s", l.way, out)
	}
	info, err := l.redis("INFO commandstats")
	if err != nil {
		return 0, err
	}
	var calls int
	_, stat, _ := strings.Cut(info, "cmdstat_get:calls=")
	if _, err := fmt.Sscan(strings.Split(stat, ",")[0], &calls); err != nil || calls < n || calls > n+clients*pipeline {
		return 0, fmt.Errorf("%s: redis-benchmark has sent %d requests, redis-server had %d (%v)", l.way, n, calls, err)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}

// redis asks the server at its UNIX socket, past what is measured.
func (l *lane) redis(command string) (answer string, err error) {
	c, err := net.DialTimeout("unix", filepath.Join(l.dir, "redis"), 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second)) // a socket has deadlines
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "$") {
		return line, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
	if err != nil {
		return "", err
	}
	body := make([]byte, n)
	_, err = io.ReadFull(r, body)
	return string(body), err
}
