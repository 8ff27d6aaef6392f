package ctl

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/poemq/poemq/broker/api"
	"github.com/poemq/poemq/test/rig"
)

// metricsURL is where the broker serves metrics, as its log says.
func (b *bench) metricsURL() string {
	b.Helper()
	found := ""
	b.await("metrics are served", func() bool {
		if m := regexp.MustCompile(`msg="metrics and status page" listen=(\S+)`).FindStringSubmatch(b.broker.Stderr()); m != nil {
			found = "http://" + m[1]
		}
		return found != ""
	})
	return found
}

// TestTenThousand has a broker with 10,000 sockets looked at by ss, ps, metrics and
// the page all the time, and measures what new connections wait meanwhile.
func TestTenThousand(t *testing.T) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil || lim.Max < 16_000 {
		t.Skipf("the hard limit of open files is %d, and 16000 are needed", lim.Max)
	}
	b := newBench(t, "[metrics]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"warn\"\n[limits]\nconnections_per_peer = 100000\n")
	const connections = 5000 // of two sockets each
	port := freePort(t)
	addr := fmt.Sprint("127.0.0.1:", port)
	server := b.program("listen", addr, "banner").Start()
	b.await("the port is served", func() bool { return strings.Contains(b.must("ss", "-l"), addr) })
	begun := time.Now()
	held := b.hold(addr, connections, 3*time.Minute)
	t.Logf("%d connections after %v", connections, time.Since(begun).Round(time.Millisecond))
	// The level of the log keeps the line from being written, so it is asked.
	url := listensOn(t, b.broker.Pid())
	client := api.New(b.broker.Control())
	defer client.Close()
	n, err := api.Get[api.Sockets](t.Context(), client, "/v1/sockets")
	if err != nil || len(n.Sockets) < 2*connections {
		t.Fatalf("%d sockets, %v", len(n.Sockets), err)
	}
	alone := churn(b, addr)
	ctx, stop := context.WithCancel(t.Context())
	took := make(chan map[string][]time.Duration, 1)
	go func() { took <- lookAllTheTime(ctx, t, client, url) }()
	watched := churn(b, addr)
	stop()
	looks := <-took
	for _, what := range slices.Sorted(maps.Keys(looks)) {
		all := looks[what]
		slices.Sort(all)
		t.Logf("%-22s %3d times, median %v, most %v", what, len(all), all[len(all)/2].Round(time.Microsecond), all[len(all)-1].Round(time.Microsecond))
		if most := all[len(all)-1]; most > 20*time.Second {
			t.Errorf("%s took %v", what, most)
		}
	}
	t.Logf("200 connections one after the other: %v, %v while it was looked at all the time", alone.Round(time.Millisecond), watched.Round(time.Millisecond))
	// Looking takes CPU, which connections share; a broker that stalls would have
	// each of 200 connections wait for a look.
	if watched > 20*alone+10*time.Second {
		t.Errorf("connections wait for those who look: %v, %v alone", watched, alone)
	}
	held.Tell("")
	held.Wait(time.Minute)
	server.Stop()
	b.await("all sockets are gone", func() bool { return b.broker.Status().Sockets == 0 })
}

// churn makes 200 connections one after the other.
func churn(b *bench, addr string) time.Duration {
	begun := time.Now()
	p := b.program("connect", addr, "churn", 200).Start()
	p.SaysWithin(2*time.Minute, "churned 200")
	p.Wait(time.Minute)
	return time.Since(begun)
}

func lookAllTheTime(ctx context.Context, t *testing.T, client *api.Client, url string) map[string][]time.Duration {
	took := map[string][]time.Duration{}
	for ctx.Err() == nil {
		for _, what := range []string{"/v1/sockets", "/v1/sessions", "/v1/connections", "/metrics", "/page.json"} {
			begun := time.Now()
			var err error
			if strings.HasPrefix(what, "/v1/") {
				_, err = client.Raw(t.Context(), "GET", what, nil) // to its end, though ctx may end
			} else {
				_, err = fetch(url + what)
			}
			if err != nil {
				t.Errorf("%s: %v", what, err)
				return took
			}
			took[what] = append(took[what], time.Since(begun))
		}
	}
	return took
}

func fetch(url string) (string, error) {
	client := http.Client{Timeout: time.Minute}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

// TestJournal has the broker's standard error be the journal.
func TestJournal(t *testing.T) {
	b := newBench(t, "")
	dir := b.Mkdir("journal", "")
	script := `JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); export JOURNAL_STREAM; exec "$@"`
	c := b.Command("sh", "-c", script, "sh", filepath.Join(filepath.Dir(ctlBinary()), "poemqd"), "serve", "--config", b.config,
		"--socket", filepath.Join(dir, "s"), "--control", filepath.Join(dir, "c"), "--state-dir", b.Mkdir("journal/state", ""))
	c.Outside = true
	p := c.Start()
	b.await("it serves", func() bool { return strings.Contains(p.Stderr(), "poemqd serves") })
	b.configure("[log]\nlevel = \"loud\"\n")
	if _, _, status := poemqctl(t, "--control", filepath.Join(dir, "c"), "reload"); status != 1 {
		t.Error("a bad configuration is taken")
	}
	p.Stop()
	info, faults := 0, 0
	for line := range strings.Lines(p.Stderr()) {
		switch {
		case strings.HasPrefix(line, "<6>level=INFO msg="):
			info++
		case strings.HasPrefix(line, `<3>level=ERROR msg="the configuration has faults`):
			faults++
		default:
			t.Errorf("%q", line)
		}
	}
	if info < 2 || faults != 1 {
		t.Errorf("%d of information, %d faults:\n%s", info, faults, p.Stderr())
	}
}

// TestPage looks at the status page with a browser: what it draws while bytes
// flow, and what it says when poemqd is gone.
func TestPage(t *testing.T) {
	chromium := rig.Find("chromium")
	if chromium == "" {
		t.Skip("chromium is not installed (scripts/deps-page.sh installs it)")
	}
	b := newBench(t, "[metrics]\nlisten = \"127.0.0.1:0\"\n")
	url := b.metricsURL()
	addr := fmt.Sprint("127.0.0.1:", freePort(t))
	b.program("listen", addr, "sink").Start()
	b.await("the port is served", func() bool { return strings.Contains(b.broker.Stderr(), "port="+addr+" ") })
	b.program("connect", addr, "endless").Start()
	plain, err := net.Listen("tcp4", "127.0.0.1:0") // a server without QUIC
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	fell := b.program("connect", plain.Addr().String(), "sink").Start()
	c, err := plain.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	fell.Wait(time.Minute)
	b.configure("[x]\n")
	_, _, _ = b.ctl("reload") // a fault, for the page to tell of
	page := browse(t, chromium, url+"/", b.Mkdir("chromium", ""))
	for what, want := range map[string]string{
		"it is live":       `(?s)class="state good"[^>]*>live<`,
		"sessions":         `<span>Sessions</span><b>2</b>`,
		"connections":      `<span>Connections</span><b>2</b><span>2 QUIC, 0 TCP</span>`,
		"throughput":       `<span>Sending</span><b>[1-9][0-9.]* .iB/s</b>`,
		"round trip":       `<span>Round trip</span><b>[0-9.]+ ms</b>`,
		"the fallback":     `<td class="mono">` + plain.Addr().String() + `</td>|UDP port closed</td><td class="n">1</td>`,
		"the error":        `<span>Errors</span><b>1</b>`,
		"the log":          `the configuration has faults`,
		"lines are drawn":  `<polyline class="line a" points="[0-9.]+,[0-9.]+ [0-9.]+,[0-9.]+`,
		"the program":      `<td class="cut" title="gopeer">gopeer</td>`,
		"the peer's place": `<td class="mono">` + addr + `</td>`,
	} {
		is, dom := regexp.MustCompile(want), ""
		for late := time.Now().Add(30 * time.Second); !is.MatchString(dom); time.Sleep(100 * time.Millisecond) {
			if dom = page.html(); time.Now().After(late) {
				t.Errorf("%s: no %s in the page:\n%s", what, want, strings.Join(strings.Fields(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(dom, " ")), " "))
				break
			}
		}
	}
	shot := filepath.Join(b.Dir, "page.png")
	for late := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) { // the charts' lines grow
		page.picture(shot)
		fault := checkPicture(t, shot)
		if fault == "" {
			break
		}
		if time.Now().After(late) {
			t.Error(fault)
			break
		}
	}
	if keep := os.Getenv("POEMQ_SCREENSHOT"); keep != "" {
		data, err := os.ReadFile(shot)
		if err == nil {
			err = os.WriteFile(keep, data, 0o644)
		}
		if err != nil {
			t.Error(err)
		}
	}
	b.broker.Stop()
	for late := time.Now().Add(30 * time.Second); !strings.Contains(page.html(), ">poemqd does not answer<"); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("the page does not tell that poemqd is gone")
		}
	}
}
