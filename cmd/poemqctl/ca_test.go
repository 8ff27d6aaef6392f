package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/poemq/poemq/quic"
)

// run is poemqctl ca with these arguments.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	asJSON := false
	for i, a := range args {
		if a == "--json" { // a flag of the root command
			asJSON, args = true, append(args[:i:i], args[i+1:]...)
			break
		}
	}
	var out bytes.Buffer
	c := caCommand(&asJSON)
	c.SetArgs(args)
	c.SetOut(&out)
	c.SilenceUsage, c.SilenceErrors = true, true
	err := c.Execute()
	return out.String(), err
}

func TestCA(t *testing.T) {
	dir := t.TempDir()
	where, out := filepath.Join(dir, "ca"), filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o700); err != nil {
		t.Fatal(err)
	}
	must := func(args ...string) string {
		t.Helper()
		said, err := run(t, append(args, "--dir", where)...)
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return said
	}
	mustNot := func(want string, args ...string) {
		t.Helper()
		if said, err := run(t, append(args, "--dir", where)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it\n%s", args, err, want, said)
		}
	}
	mustNot("no CA in", "issue", "web1.example", "--out", out)
	must("init", "--name", "Fleet")
	mustNot("never replaced", "init")
	said := must("issue", "web1.example", "web1", "--ip", "192.0.2.1", "--ip", "::1", "--spiffe", "spiffe://td/web", "--out", out)
	for _, want := range []string{"[tls]", `cert = "/etc/poemq/web1.example.pem"`, `key = "/etc/poemq/web1.example-key.pem"`, `ca = "/etc/poemq/ca.pem"`, `crl = ["/etc/poemq/crl.pem"]`, "web1.example, web1, 192.0.2.1, ::1, spiffe://td/web"} {
		if !strings.Contains(said, want) {
			t.Errorf("issue says %q, want %q in it", said, want)
		}
	}
	cert, key := filepath.Join(out, "web1.example.pem"), filepath.Join(out, "web1.example-key.pem")
	if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v", st, err)
	}
	files := quic.PKIFiles{Cert: cert, Key: key, CA: filepath.Join(where, "ca.pem"), CRL: []string{filepath.Join(where, "crl.pem")}}
	if p, err := quic.LoadPKI(files); err != nil || len(p.Warnings()) > 0 {
		t.Errorf("what was issued does not load: %v", err)
	}
	before, _ := os.ReadFile(cert)
	mustNot("there already", "issue", "web1.example", "--out", out)
	mustNot("names are not looked up", "issue", "web2", "--ip", "localhost", "--out", out)
	mustNot("with --ip", "issue", "192.0.2.1", "--out", out)
	mustNot("no host name", "issue", "../web", "--out", out)
	mustNot("no such file", "issue", "web2", "--out", filepath.Join(dir, "nowhere"))
	if after, _ := os.ReadFile(cert); !bytes.Equal(before, after) {
		t.Error("the certificate was replaced")
	}
	must("issue", "web1.example", "--out", out, "--force")
	if after, _ := os.ReadFile(cert); bytes.Equal(before, after) {
		t.Error("--force does not replace the certificate")
	}
	must("revoke", cert)
	must("crl", "--days", "7")
	said = must("list")
	if lines := strings.Split(strings.TrimSpace(said), "\n"); len(lines) != 3 || !strings.Contains(lines[1], "valid") || !strings.Contains(lines[2], "revoked") {
		t.Errorf("list:\n%s", said)
	}
	if said = must("list", "--json"); strings.Count(said, `"serial"`) != 2 || strings.Count(said, `"revoked"`) != 1 {
		t.Errorf("list --json: %s", said)
	}
	mustNot("no certificate with serial", "revoke", "abc")
}
