package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestMetricsAddress(t *testing.T) {
	for _, tc := range []struct{ text, fault string }{
		{"", ""},
		{"/run/poemq/metrics.sock", ""},
		{"127.0.0.1:9464", ""},
		{"[::1]:0", ""},
		{"0.0.0.0:9464", "no loopback"},
		{"192.0.2.1:9464", "no loopback"},
		{"localhost:9464", "neither"},
		{"run/metrics.sock", "neither"},
	} {
		dir := write(t, map[string]string{"poemq.toml": "[metrics]\nlisten = \"" + tc.text + "\"\n"})
		c, err := Load(Sources{File: filepath.Join(dir, "poemq.toml")})
		switch {
		case tc.fault == "" && (err != nil || c.Metrics.Listen != tc.text):
			t.Errorf("%q: %v", tc.text, err)
		case tc.fault != "" && (err == nil || !strings.Contains(err.Error(), "poemq.toml:2: metrics.listen: ") || !strings.Contains(err.Error(), tc.fault)):
			t.Errorf("%q: %v", tc.text, err)
		}
	}
}

// TestShipped: the file of defaults is the lowest layer, its values count as
// nobody's, and its faults are told as any other's.
func TestShipped(t *testing.T) {
	dir := write(t, map[string]string{
		"share.toml": "[pool]\nidle = \"50s\"\nmax_connections = 3\n[log]\nlevel = \"warn\"\n",
		"poemq.toml": "[pool]\nidle = \"10s\"\n",
		"bad.toml":   "[pool]\nidel = \"1s\"\n",
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	c, err := Load(Sources{Shipped: at("share.toml"), File: at("poemq.toml")})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.Fields(b.String()), " ")
	for _, want := range []string{
		`idle = "10s" # ` + at("poemq.toml") + ":2", "max_connections = 3 # default, " + at("share.toml") + ":3",
		`level = "warn" # default, ` + at("share.toml") + ":5", "fast_open = true # default",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
	if !c.Origin("log.level").Built() || c.Origin("pool.idle").Built() || len(c.Files()) != 1 {
		t.Errorf("%v, %v, %v", c.Origin("log.level"), c.Origin("pool.idle"), c.Files())
	}
	if _, err := Load(Sources{Shipped: at("bad.toml")}); err == nil || !strings.Contains(err.Error(), at("bad.toml")+":2: pool.idel: unknown key; did you mean pool.idle?") {
		t.Error(err)
	}
	if _, err := Load(Sources{Shipped: at("none.toml")}); err != nil {
		t.Error(err)
	}
	all := write(t, map[string]string{"share.toml": Defaults})
	c, err = Load(Sources{Shipped: filepath.Join(all, "share.toml")})
	built, _ := Load(Sources{})
	if err != nil || len(built.AtRestart(c)) > 0 {
		t.Errorf("what is built in is read otherwise from a file: %v", err)
	}
}
