package apps

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// socat forks for each connection and gives the socket to a program; the
// client shuts its side down and reads what the program says at the end.
func TestSocat(t *testing.T) {
	r := rig.New(t, "socat", "sha256sum")
	port := r.Port()
	path, sum := r.Random("file", bigFile)
	server := r.Command("socat", fmt.Sprintf("TCP-LISTEN:%d,bind=127.0.0.1,reuseaddr,fork", port), "EXEC:sha256sum,nofork").Start()
	server.Listens(port)
	for range 3 {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		client := r.Command("socat", "-t", 30, "STDIO", fmt.Sprint("TCP:127.0.0.1:", port))
		client.Stdin = file
		got := client.Output()
		file.Close()
		if !strings.HasPrefix(got, sum) {
			t.Errorf("20 MiB through socat: %q, want %s", got, sum)
		}
	}
}

// A relay that forks: each child accepts on one side and connects on the other.
func TestSocatRelay(t *testing.T) {
	r := rig.New(t, "socat", "nginx", "curl")
	upstream, port := r.Port(), r.Port()
	_, sum := r.Random("www/big", bigFile)
	nginx(r, "nginx", site(r, fmt.Sprint("127.0.0.1:", upstream)), upstream)
	relay := r.Command("socat", fmt.Sprintf("TCP-LISTEN:%d,bind=127.0.0.1,reuseaddr,fork", port), fmt.Sprint("TCP:127.0.0.1:", upstream)).Start()
	relay.Listens(port)
	for range 3 {
		fetch(r, fmt.Sprintf("http://127.0.0.1:%d/big", port), sum)
	}
}
