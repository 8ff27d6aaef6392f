package apps

import (
	"os/exec"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// python starts a script's server and compares what its client prints.
func python(t *testing.T, r *rig.Rig, script string, serverArgs, clientArgs []any, want string) {
	t.Helper()
	port := r.Port()
	server := r.Command(append([]any{"python3", testdata(script), "server", port}, serverArgs...)...).Start()
	server.Says("listening")
	got := r.Command(append([]any{"python3", testdata(script), "client", port}, clientArgs...)...).Output()
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPythonAsyncio(t *testing.T) {
	python(t, rig.New(t, "python3"), "aio.py", nil, nil, "51 conversations right\n")
}

func TestPythonHTTP(t *testing.T) {
	r := rig.New(t, "python3")
	_, sum := r.Random("www/file", 1<<20)
	python(t, r, "httpc.py", []any{r.Path("www")}, []any{"file", sum}, "24 bodies right\n")
}

func TestPythonThreads(t *testing.T) {
	python(t, rig.New(t, "python3"), "threads.py", nil, nil, "40 threads right, 40 names\n")
}

func TestPythonTLS(t *testing.T) {
	r := rig.New(t, "python3", "openssl")
	cert, key := certificate(r)
	python(t, r, "tls.py", []any{cert, key}, []any{cert}, "TLSv1.3 4194304 bytes right\nTLSv1.3 16384 bytes right\n")
}

// certificate makes a self-signed certificate for localhost.
func certificate(r *rig.Rig) (cert, key string) {
	r.Helper()
	cert, key = r.Path("cert.pem"), r.Path("key.pem")
	out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "1",
		"-out", cert, "-keyout", key).CombinedOutput()
	if err != nil {
		r.Fatalf("openssl: %v\n%s", err, out)
	}
	return cert, key
}
