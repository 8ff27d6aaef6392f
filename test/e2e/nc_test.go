package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// bulk is how much the nc and curl tests transfer in each direction.
const bulk = 100 << 20

// TestNetcat carries 100 MB from client to server, back, and both at once.
func TestNetcat(t *testing.T) {
	onEveryLink(t, func(t *testing.T, l *link) {
		for _, way := range []struct {
			name     string
			up, down bool // who sends
			v6       bool
		}{
			{name: "client sends", up: true},
			{name: "server sends", down: true},
			{name: "both send", up: true, down: true},
			{name: "both send, IPv6", up: true, down: true, v6: true},
		} {
			t.Run(way.name, func(t *testing.T) {
				addr := l.server.v4
				if way.v6 {
					addr = l.server.v6
				}
				netcat(t, l, addr, way.up, way.down)
			})
		}
	})
}

// netcat sends bulk bytes up (client to server), down, or both ways at once.
//
// A listening nc leaves as soon as the network's end was seen and its own
// buffer happens to be empty. So the client keeps its direction open until it
// has everything, as a program does that waits for its answer.
func netcat(t *testing.T, l *link, addr string, up, down bool) {
	t.Helper()
	send, size, sum := input{}, map[bool]int64{true: bulk}, map[bool]string{false: emptySum}
	sent, sentSum := randomFile(t, bulk)
	sum[true] = sentSum
	if down {
		send.file = sent
	}
	port := freePort(t)
	seen := l.capture(t, port)
	server := l.server.serve(t, port, send, tool("nc"), "-N", "-l", addr, strconv.Itoa(port))
	client := l.client.start(t, input{pipe: true}, tool("nc"), "-N", addr, strconv.Itoa(port))
	if up {
		client.feed(t, sent)
	}
	for p, want := range map[*process]int64{server: size[up], client: size[down]} {
		eventually(t, time.Minute, fmt.Sprintf("%d bytes at pid %d", want, p.pid), func() bool {
			return fileSize(p.out) >= want || p.ended()
		})
	}
	client.stdin.Close()
	client.succeed(t, 20*time.Second)
	server.succeed(t, 20*time.Second)
	wantSum(t, "at the server", server.out, sum[up])
	wantSum(t, "at the client", client.out, sum[down])
	seen.onlyUDP(t)
}

// TestNetcatRequire shows the policy without TCP as a fallback.
func TestNetcatRequire(t *testing.T) {
	l := loopback(t)
	l.client.policy = "require" // client and server are one host here
	file, sum := randomFile(t, 1<<20)
	port := freePort(t)
	seen := l.capture(t, port)
	server := l.server.serve(t, port, input{}, tool("nc"), "-N", "-l", l.server.v4, strconv.Itoa(port))
	client := l.client.start(t, input{file: file}, tool("nc"), "-N", l.server.v4, strconv.Itoa(port))
	client.succeed(t, time.Minute)
	server.succeed(t, time.Minute)
	wantSum(t, "at the server", server.out, sum)
	seen.onlyUDP(t)
}

// TestTelnet lets telnet and nc talk, a line each way.
func TestTelnet(t *testing.T) {
	onEveryLink(t, func(t *testing.T, l *link) {
		port := freePort(t)
		seen := l.capture(t, port)
		nc := l.server.serve(t, port, input{pipe: true}, tool("nc"), "-N", "-l", l.server.v4, strconv.Itoa(port))
		telnet := l.client.start(t, input{pipe: true}, tool("telnet"), l.server.v4, strconv.Itoa(port))
		telnet.says(t, 20*time.Second, "Connected to")
		telnet.write(t, "good morning from telnet\n")
		nc.says(t, 20*time.Second, "good morning from telnet")
		nc.write(t, "good morning from nc\n")
		telnet.says(t, 20*time.Second, "good morning from nc")
		nc.stdin.Close()
		telnet.exitCode(t, 20*time.Second) // closed by the far side: status 1 in some versions
		nc.succeed(t, 20*time.Second)
		if !strings.Contains(telnet.stdout()+telnet.stderr(), "Connection closed by foreign host") {
			t.Error("telnet does not tell that the far side closed")
		}
		seen.onlyUDP(t)
	})
}

// TestCurlFromNetcat fetches one canned response that nc serves.
func TestCurlFromNetcat(t *testing.T) {
	onEveryLink(t, func(t *testing.T, l *link) {
		const body = "hello over QUIC\n"
		response := filepath.Join(shortDir(t), "response")
		text := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: " +
			strconv.Itoa(len(body)) + "\r\n\r\n" + body
		if err := os.WriteFile(response, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		port := freePort(t)
		seen := l.capture(t, port)
		nc := l.server.serve(t, port, input{file: response}, tool("nc"), "-N", "-l", l.server.v4, strconv.Itoa(port))
		curl := l.client.start(t, input{}, tool("curl"), "-sS", "--noproxy", "*", "http://"+hostPort(l.server.v4, port)+"/greeting")
		curl.succeed(t, 20*time.Second)
		nc.succeed(t, 20*time.Second)
		if got := curl.stdout(); got != body {
			t.Errorf("curl got %q, want %q", got, body)
		}
		if got := nc.stdout(); !strings.HasPrefix(got, "GET /greeting HTTP/1.1\r\n") {
			t.Errorf("nc got %q, want a GET request", got)
		}
		seen.onlyUDP(t)
	})
}

// TestCurlFromPython fetches files from python3 -m http.server, one after the
// other and several at once.
func TestCurlFromPython(t *testing.T) {
	onEveryLink(t, func(t *testing.T, l *link) {
		file, sum := randomFile(t, 10<<20)
		port := freePort(t)
		seen := l.capture(t, port)
		l.server.serve(t, port, input{}, tool("python3"), "-m", "http.server", strconv.Itoa(port),
			"--bind", l.server.v4, "--directory", filepath.Dir(file))
		url := "http://" + hostPort(l.server.v4, port) + "/" + filepath.Base(file)
		fetch := func() *process {
			return l.client.start(t, input{}, tool("curl"), "-sSf", "--noproxy", "*", url)
		}
		fetches := []*process{fetch()}
		fetches[0].succeed(t, 30*time.Second)
		fetches = append(fetches, fetch(), fetch(), fetch())
		for _, curl := range fetches {
			curl.succeed(t, 30*time.Second)
			wantSum(t, "at curl", curl.out, sum)
		}
		seen.onlyUDP(t)
	})
}

const emptySum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// randomFile makes a file of n random bytes and returns its SHA-256.
func randomFile(t *testing.T, n int64) (path, sum string) {
	t.Helper()
	path = filepath.Join(shortDir(t), "random")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, h), rand.NewChaCha8(seed), n); err != nil {
		t.Fatal(err)
	}
	return path, hex.EncodeToString(h.Sum(nil))
}

// fileSize is 0 for a file that cannot be looked at.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// wantSum compares a file's SHA-256.
func wantSum(t *testing.T, where, path, want string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("%s: %d bytes with SHA-256 %s arrived, want %s", where, n, got, want)
	}
}
