package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/poemq/poemq/broker"
	"github.com/poemq/poemq/broker/journal"
	"github.com/poemq/poemq/quic"
)

// rig serves a broker's metrics on loopback.
func rig(t *testing.T) (url string, log *slog.Logger) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	j := journal.New(io.Discard, slog.LevelInfo, false)
	log = slog.New(j)
	host, err := quic.NewHost(quic.Config{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	b, err := broker.New(broker.Config{Host: host, Log: log, RuntimeDirs: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := Serve(l, Source{Broker: b, Journal: j, Version: "test"}, log)
	t.Cleanup(func() {
		stop()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		host.Close()
	})
	return "http://" + l.Addr().String(), log
}

func get(t *testing.T, url, host string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// families asks for the metrics and has Prometheus's own parser read them.
func families(t *testing.T, url string) map[string]map[string]float64 {
	t.Helper()
	resp, body := get(t, url+"/metrics", "")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]float64{}
	for name, f := range parsed {
		if f.GetHelp() == "" && strings.HasPrefix(name, "poemq_") {
			t.Errorf("%s has no help", name)
		}
		all[name] = map[string]float64{}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			all[name][strings.Join(labels, ",")] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return all
}

func TestMetrics(t *testing.T) {
	url, log := rig(t)
	log.Warn("one")
	log.Error("two")
	all := families(t, url)
	for name, want := range map[string]map[string]float64{
		"poemq_build_info":      {"version=test": 1},
		"poemq_sessions":        {"": 0},
		"poemq_log_lines_total": {"level=warn": 1, "level=error": 1},
		"poemq_bytes_total":     {"direction=sent,side=dialed,via=quic": 0},
		"poemq_sockets":         {"state=listening": 0},
	} {
		for labels, v := range want {
			if got, ok := all[name][labels]; !ok || got != v {
				t.Errorf("%s{%s}: %v, %v, want %v", name, labels, got, ok, v)
			}
		}
	}
	for _, name := range []string{"process_open_fds", "go_goroutines", "poemq_collect_seconds"} {
		if len(all[name]) == 0 {
			t.Errorf("no %s", name)
		}
	}
}

// TestDashboard: every metric that the dashboard asks for is one of ours.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../../deploy/grafana/poemq.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Title  string
		UID    string
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("collector.go")
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]bool{"process_open_fds": true, "process_resident_memory_bytes": true, "process_cpu_seconds_total": true, "go_goroutines": true}
	for _, m := range regexp.MustCompile(`desc\("(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		ours["poemq_"+m[1]] = true
	}
	shown := map[string]bool{}
	for _, p := range dashboard.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			for _, name := range regexp.MustCompile(`\b(?:poemq|process|go)_\w+`).FindAllString(target.Expr, -1) {
				if shown[name] = true; !ours[name] {
					t.Errorf("panel %q asks for %s, which there is not", p.Title, name)
				}
			}
		}
	}
	for name := range ours {
		if !shown[name] && name != "poemq_collect_seconds" {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// TestPage: the page is whole in itself, and tells what happened.
func TestPage(t *testing.T) {
	url, log := rig(t)
	log.Error("it <b>hurts</b>", "where", "here")
	for _, path := range []string{"/", "/page.css", "/page.js"} {
		resp, body := get(t, url+path, "")
		if resp.StatusCode != http.StatusOK || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %s, %v", path, resp.Status, resp.Header)
		}
		body = strings.ReplaceAll(body, `"http://www.w3.org/2000/svg"`, "") // a name, nothing to load
		if found := regexp.MustCompile(`(?i)https?:|//[a-z0-9.-]+\.[a-z]{2,}/|@import|innerHTML|eval\(`).FindString(body); found != "" {
			t.Errorf("%s has %q", path, found)
		}
	}
	var p pageData
	_, body := get(t, url+"/page.json", "localhost:1")
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatal(err)
	}
	if p.Status.Version != "test" || p.Errors != 1 || len(p.Log) != 1 || p.Log[0].Text != `"it <b>hurts</b>" where=here` {
		t.Errorf("%+v", p)
	}
	if strings.Contains(body, ":null") {
		t.Errorf("a list is null: %s", body)
	}
}

// TestWhoseHost: a name of somebody else's that resolves to loopback is no way in.
func TestWhoseHost(t *testing.T) {
	url, _ := rig(t)
	for host, want := range map[string]int{
		"localhost": 200, "127.0.0.1:9": 200, "[::1]:9464": 200, "127.9.9.9": 200,
		"evil.example": 421, "evil.example:9464": 421, "192.0.2.1": 421, "localhost.evil.example": 421,
	} {
		if resp, body := get(t, url+"/metrics", host); resp.StatusCode != want {
			t.Errorf("Host %s: %s: %.80s, want %d", host, resp.Status, body, want)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", resp.Status)
	}
}

func TestQuantile(t *testing.T) {
	var all []time.Duration
	if _, ok := quantile(all, 0.5); ok {
		t.Error("of nothing")
	}
	for i := range 100 {
		all = append(all, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0.5: 50, 0.95: 95, 1: 100} {
		if got, _ := quantile(all, q); got != want {
			t.Errorf("%v: %v, want %v", q, got, want)
		}
	}
}

// TestOverUnix: over a UNIX socket the Host does not matter.
func TestOverUnix(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "m"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	stop := Serve(l, Source{}, log)
	defer stop()
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", l.Addr().String())
	}}}
	resp, err := client.Get("http://poemqd/page.js")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Error(fmt.Sprint(resp.Status))
	}
}
